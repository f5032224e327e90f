"""CSV files with a header, as people and spreadsheets write them."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from thawlab.errors import UsageError

Row = dict[str, str]


def read_table(path: Path, key: str = "") -> tuple[Sequence[str], list[tuple[int, Row]]]:
    """Read a CSV file with a header, in UTF-8 with or without a byte order mark; `key` of the recipe names the file.

    Returns:
        The columns, and for each row its line number and its values by column.

    Raises:
        UsageError: if the file cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            columns = reader.fieldnames or []
            return columns, [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{key and key + ': '}{path}: cannot be read as CSV: {error}") from None


def pick_column(columns: Iterable[str], names: Iterable[str]) -> str | None:
    """Return the column that bears the first of some names, whatever its case and the blanks around it."""
    lowered = {column.strip().lower(): column for column in columns}
    return next((lowered[name] for name in names if name in lowered), None)
