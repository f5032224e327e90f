"""Tables in text files as people and spreadsheets write them."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from thawlab.data.formats import has_image_extension
from thawlab.errors import UsageError

Row = dict[str, str]
_SEPARATORS = (",", ";", "\t", "|")
# Byte order marks, the longer ones first: that of UTF-32 begins like that of UTF-16.
_MARKS = ((b"\xff\xfe\x00\x00", "utf-32"), (b"\x00\x00\xfe\xff", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
# What people write into a column of flags, in lower case.
YES, NO = frozenset({"yes", "true", "1", "1.0", "y", "t"}), frozenset({"no", "false", "0", "0.0", "n", "f"})
# Rows that tell which character separates the columns.
_LOOKED_AT = 50
# Characters within which the header begins.
_HEAD = 1 << 16
# Columns of a table, and cells beyond one per character.
_MOST_COLUMNS, _FREE_CELLS = 10_000, 1_000_000


def read_table(path: Path, key: str = "") -> tuple[Sequence[str], list[tuple[int, Row]]]:
    """Read a table with a header: columns apart by comma, semicolon, tab or bar, in UTF-8, UTF-16 or Windows' Latin.

    Args:
        path: of the file.
        key: of the recipe, if one names the file.

    Returns:
        The columns, and for each row its line number and its values by column.

    Raises:
        UsageError: if the file cannot be read.
    """
    try:
        before, text = _body(_text(path.read_bytes()))
        reader = csv.DictReader(io.StringIO(text, newline=""), restval="", delimiter=_separator(text), strict=False)
        columns = reader.fieldnames or []
        if any(has_image_extension(column.strip()) for column in columns):
            raise csv.Error("it has no header; write a first line that names the columns, such as path,label")
        if len(columns) > _MOST_COLUMNS:
            raise csv.Error(f"it has {len(columns):,} columns; leave those that list images")
        rows, cells = [], 0
        for row in reader:
            cells += len(columns)
            if cells > len(text) + _FREE_CELLS:  # each takes memory, also where it is not there
                raise csv.Error(f"line {before + reader.line_num}: the rows have far fewer values than the header has columns")
            if None in row:  # a separator in a value would move all that follows by a column
                number = before + reader.line_num
                raise csv.Error(
                    f"line {number} has more values than the header has columns ({len(columns)}); put quotes around a value that "
                    "holds the separator"
                )
            rows.append((before + reader.line_num, row))
        if '"' in text:
            _refuse_open_quote(text, reader.reader.dialect.delimiter, before)
        return columns, rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{key and key + ': '}{path}: cannot be read as CSV: {error}") from None


def _text(content: bytes) -> str:
    """Decode a text file by its byte order mark, or as UTF-8, UTF-16 where every other byte is 0, or Windows' Latin."""
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content.decode(encoding)
    head = content[:4096]
    if b"\0" in head:
        big = head[0::2].count(0) > head[1::2].count(0)
        return content.decode("utf-16-be" if big else "utf-16-le")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252")


def _body(text: str) -> tuple[int, str]:
    """Return how many lines stand before a table's header, and the rest: blank lines, comments, a spreadsheet's `sep=;`."""
    start = 0
    for number, line in enumerate(text[:_HEAD].splitlines(keepends=True)):
        bare = line.strip().strip('"').lower()
        if bare and not bare.startswith("#") and not bare.startswith("sep="):
            return number, text[start:]
        start += len(line)
    return 0, text


def _refuse_open_quote(text: str, separator: str, before: int) -> None:
    """Refuse a quote that is never closed: it makes the rest of the table one value.

    Raises:
        csv.Error: naming the line where it opens.
    """
    start = 1
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        for _ in reader:
            start = reader.line_num + 1
    except csv.Error as error:
        if "unexpected end of data" in str(error):
            raise csv.Error(f"line {before + start}: a quote is opened and never closed") from None


def _separator(text: str) -> str:
    """Return the character by which the header and the rows after it fall into the same number of columns, the most of them."""

    def columns(separator: str) -> tuple[bool, int]:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        counts = [len(row) for row, _ in zip(rows, range(_LOOKED_AT), strict=False) if row]
        header = counts[0] if counts else 1
        return all(count == header for count in counts), header

    found = {separator: columns(separator) for separator in _SEPARATORS}
    apart = [separator for separator, (_, count) in found.items() if count > 1]
    return max(apart, key=lambda separator: found[separator], default=",")


def pick_column(columns: Iterable[str], names: Iterable[str]) -> str | None:
    """Return the column that bears the first of some names, whatever its case and the blanks around it."""
    lowered = {column.strip().lower(): column for column in columns}
    return next((lowered[name] for name in names if name in lowered), None)
