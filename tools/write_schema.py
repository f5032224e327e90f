"""Write the JSON schema of `results.json` into the documentation: `python tools/write_schema.py`."""

from __future__ import annotations

import json
from pathlib import Path

from thawlab.results import Results

FILE = Path(__file__).resolve().parents[1] / "docs" / "results.schema.json"


def schema_text() -> str:
    """Return the schema as it is committed."""
    return json.dumps(Results.model_json_schema(by_alias=True), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(schema_text(), encoding="utf-8")
