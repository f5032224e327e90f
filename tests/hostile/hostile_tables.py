"""Tables, recipes and records made to exhaust or to confuse; each a file name and its bytes."""

from __future__ import annotations

import io
import json
import random
import struct
from collections.abc import Callable
from functools import cache

from hostile_archives import picture

HUGE = "x" * 10_000_000


def rows(*lines: str) -> bytes:
    return "\n".join(("path,label", *lines)).encode()


def parquet(columns: dict[str, list[object]] | None = None, **options: object) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    table = columns or {
        "image": [{"bytes": picture(k), "path": f"{k}.png"} for k in range(6)],
        "label": [k % 2 for k in range(6)],
    }
    pq.write_table(pa.table(table), buffer, **options)
    return buffer.getvalue()


def runs_of(count: int) -> bytes:
    """Return a Parquet of so many rows that are all the same, in few bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, pa.schema({"image": pa.binary(), "label": pa.int64()})) as writer:
        part = pa.table([pa.nulls(5_000_000, pa.binary()), pa.nulls(5_000_000, pa.int64())], names=["image", "label"])
        for _ in range(count // 5_000_000):
            writer.write_table(part)
    return buffer.getvalue()


def dictionary_of(size: int, count: int) -> bytes:
    """Return a Parquet whose rows are all the same large image, stored once."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    image = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([bytes(size)], pa.binary()))
    buffer = io.BytesIO()
    table = pa.table({"image": image, "label": pa.array([k % 2 for k in range(count)])})
    pq.write_table(table, buffer, compression="zstd", use_dictionary=True, dictionary_pagesize_limit=1 << 30, store_schema=False)
    return buffer.getvalue()


def many_columns(count: int) -> bytes:
    return (",".join(f"c{k}" for k in range(count)) + "\n" + "x\n" * 2000).encode()


def footer(length: int) -> bytes:
    content = parquet()
    return content[:-8] + struct.pack("<I", length) + b"PAR1"


def mutated_parquet(number: int) -> bytes:
    """Return a Parquet some of whose bytes, mostly of its description, are others."""
    rng, content = random.Random(number), bytearray(_plain())
    [length] = struct.unpack("<I", content[-8:-4])
    for _ in range(rng.choice((1, 2, 4, 16))):
        start = len(content) - 8 - length if rng.random() < 0.7 else 4
        place = rng.randrange(start, len(content) - 8)
        content[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(content)


@cache
def _plain() -> bytes:
    return parquet()


TABLES: dict[str, Callable[[], bytes]] = {
    "huge-field.csv": lambda: rows(f"{HUGE},cat", "b.png,dog"),
    "huge-label.csv": lambda: rows(f"a.png,{HUGE}", "b.png,dog"),
    "long-names.csv": lambda: rows(*(f"{'n' * 5000}{k}.png,cat" for k in range(500)), "b.png,dog"),
    "open-quote.csv": lambda: rows('a.png,"cat', *["b.png,dog"] * 50_000),
    "quotes.csv": lambda: rows('"' * 5_000_001 + ",cat"),
    "columns-million.csv": lambda: many_columns(1_000_000),
    "columns-short-rows.csv": lambda: many_columns(9_000) + b"y\n" * 300_000,
    "commas.csv": lambda: b"," * 10_000_000,
    "lines.csv": lambda: b"path,label\n" + b"\n" * 10_000_000,
    "nul.csv": lambda: rows("a\0.png,cat", "b.png,do\0g"),
    "nul-late.csv": lambda: rows(*["b.png,dog"] * 2000, "a\0.png,cat"),
    "zeros.csv": lambda: bytes(5_000_000),
    "not-utf-8.csv": lambda: b"path,label\n\xff\xfe\xfa.png,c\x81t\n",
    "utf-16-odd.csv": lambda: "path,label\na.png,cat\n".encode("utf-16")[:-1],
    "utf-32-wrong.csv": lambda: b"\xff\xfe\0\0" + b"\xff" * 4000,
    "two-boms.csv": lambda: b"\xef\xbb\xbf\xef\xbb\xbfpath,label\na.png,cat\nb.png,dog\n",
    "surrogate.csv": lambda: b"path,label\n\xed\xa0\x80.png,cat\n",
    "controls.csv": lambda: rows("a.png,\x1b[31mcat\x07", "b.png,do\x08g", "\x1b]0;x\x07.png,bird"),
    "traversal.csv": lambda: rows("../../../../etc/passwd,cat", "/etc/shadow,dog", "file:///etc/passwd,bird"),
    "devices.csv": lambda: rows("/dev/zero,cat", "/dev/random,dog", "/dev/stdin,bird", "/proc/self/mem,cat"),
    "formulas.csv": lambda: rows("=cmd|' /C calc'!A0,cat", "b.png,@SUM(1)"),
    "duplicate-columns.csv": lambda: b"path,label,path,label\na.png,cat,b.png,dog\n",
    "duplicate-rows.csv": lambda: rows("a.png,cat", "a.png,dog"),
    "nan.csv": lambda: rows("a.png,nan", "b.png,inf", "c.png,1e999"),
    "splits.csv": lambda: b"path,label,split\n" + b"".join(b"%d.png,cat,s%d\n" % (k, k) for k in range(50_000)),
    "empty.csv": lambda: b"",
    "header.csv": lambda: b"path,label",
    "picture.csv": picture,
    "tabs.tsv": lambda: b"\t" * 2_000_000,
    "garbage.parquet": lambda: b"PAR1" + random.Random(0).randbytes(100_000) + b"PAR1",
    "empty.parquet": lambda: b"",
    "magic.parquet": lambda: b"PAR1PAR1",
    "footer-0.parquet": lambda: footer(0),
    "footer-4-gb.parquet": lambda: footer(0xFFFFFFFF),
    "footer-all.parquet": lambda: footer(len(_plain()) - 12),
    "cut.parquet": lambda: _plain()[:-300],
    "runs.parquet": lambda: runs_of(200_000_000),
    "dictionary.parquet": lambda: dictionary_of(30_000_000, 20_000),
    "dictionary-many.parquet": lambda: dictionary_of(300_000, 50_000),
    "pages.parquet": lambda: parquet({"image": [bytes(1 << 28)], "label": [1]}, compression="gzip"),
    "columns.parquet": lambda: parquet({f"c{k}": [1] for k in range(30_000)}),
    "text-images.parquet": lambda: parquet({"image": ["a.png"] * 9, "label": [1] * 9}),
    "nulls.parquet": lambda: parquet({"image": [None, {"bytes": b"", "path": None}], "label": [0, None]}),
    "nan.parquet": lambda: parquet({"image": [picture()] * 3, "label": [float("nan"), 1.5, float("inf")]}),
    "controls.parquet": lambda: parquet(
        {"image": [{"bytes": picture(k), "path": f"\x1b[3{k}m\n"} for k in range(4)], "label": ["a\x07", "b\n"] * 2}
    ),
    "metadata.parquet": lambda: with_metadata(b'{"info": ' + b"[" * 100_000),
    "metadata-null.parquet": lambda: with_metadata(b'{"info": {"features": {"label": {"names": 7}}}}'),
    "huge-ints.parquet": lambda: parquet({"image": [picture()] * 2, "label": [2**63 - 1, -(2**63)]}),
    "nested.parquet": lambda: parquet({"image": [[[[picture()]]]], "label": [1]}),
    **{f"mutated-{number}.parquet": (lambda number=number: mutated_parquet(number)) for number in range(60)},  # type: ignore[misc]
}


def with_metadata(content: bytes) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    table = pa.table({"image": [picture()], "label": [0]})
    pq.write_table(table.replace_schema_metadata({b"huggingface": content}), buffer)
    return buffer.getvalue()


RECIPES: dict[str, Callable[[], bytes]] = {
    "lists.toml": lambda: b"a = " + b"[" * 100_000,
    "closed-lists.toml": lambda: b"seed = " + b"[" * 900 + b"]" * 900,
    "tables.toml": lambda: b"a = " + b"{b = " * 100_000,
    "dotted.toml": lambda: b".".join([b"a"] * 100_000) + b" = 1",
    "dotted-header.toml": lambda: b"[" + b".".join([b"data"] * 5_000) + b"]\nx = 1",
    "headers.toml": lambda: b"".join(b"[data.a%d]\n" % k for k in range(100_000)),
    "duplicate.toml": lambda: b"seed = 1\nseed = 2\n",
    "duplicate-table.toml": lambda: b"[data]\n[data]\n",
    "huge-number.toml": lambda: b"seed = " + b"9" * 100_000,
    "huge-float.toml": lambda: b"seed = 1e999999",
    "huge-string.toml": lambda: b'name = "' + b"x" * 20_000_000 + b'"',
    "nan.toml": lambda: b"[[phases]]\nlr = nan\n",
    "nul.toml": lambda: b'name = "\0"',
    "escape.toml": lambda: b'name = "\\u001b[31m"\n[data]\nsource = "\\u001b[31m\\n"\n',
    "not-utf-8.toml": lambda: b'name = "\xff"',
    "bom.toml": lambda: b"\xef\xbb\xbf\xef\xbb\xbfseed = 1",
    "zeros.toml": lambda: bytes(1_000_000),
    "path-name.toml": lambda: b'name = "../../canary"\n[data]\nsource = "digits"\n',
    "phases.toml": lambda: b'[[phases]]\nname = "a"\n' * 100_000,
    "augment.toml": lambda: b"[[phases]]\naugment = [" + b'"x",' * 300_000 + b"]",
    "date.toml": lambda: b"seed = 1979-05-27T07:32:00Z",
    "negative.toml": lambda: b"seed = -1\n[data]\ntrain_size = -5\nimage_size = 999999999999\n",
    "picture.toml": picture,
    "empty.toml": lambda: b"",
}

RECORDS: dict[str, Callable[[], bytes]] = {
    "lists": lambda: b"[" * 100_000,
    "objects": lambda: b'{"a":' * 100_000,
    "closed": lambda: b"[" * 100_000 + b"]" * 100_000,
    "inside": lambda: b'{"schema": 1, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nan": lambda: b'{"schema": 1, "name": NaN, "seed": Infinity}',
    "bom": lambda: b'\xef\xbb\xbf{"schema": 1}',
    "not-utf-8": lambda: b'{"name": "\xff"}',
    "nul": lambda: b'{"name": "\0"}',
    "zeros": lambda: bytes(1_000_000),
    "digits": lambda: b'{"schema": ' + b"9" * 100_000 + b"}",
    "duplicates": lambda: b'{"schema": 1, "schema": 2, "name": "a", "name": ["b"]}',
    "escape": lambda: json.dumps({"schema": 1, "name": "\x1b[31m\n", "classes": ["\x07"]}).encode(),
    "huge": lambda: b'{"name": "' + b"x" * 20_000_000 + b'"}',
    "list": lambda: b"[1, 2, 3]",
    "number": lambda: b"7",
    "text": lambda: b'"text"',
    "null": lambda: b"null",
    "picture": picture,
    "cut": lambda: b'{"schema": 1, "na',
    "empty": lambda: b"",
    "lone-surrogate": lambda: b'{"schema": 1, "name": "\\ud800"}',
}
