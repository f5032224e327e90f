"""Copy the site's pages and everything they link to, keeping their places, so that every link works on the site as on disk.

    python tools/pages.py build/pages

The README, the changelog and the contributing guide stand outside docs/, and pages link to result files: the site's
generator reads one folder, and would leave those links dead. A link that leads nowhere is an error.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CODE_OF_CONDUCT.md", "SECURITY.md"]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)|(?:src|href)=\"([^\"#]+)\"")


def links(page: Path) -> list[Path]:
    """Return the files that a page links to, as absolute paths."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = ("".join(groups) for groups in LINK.findall(text))
    return [(page.parent / link).resolve() for link in found if ":" not in link]


def gather(pages: list[Path], target: Path) -> list[str]:
    """Copy the pages and, from page to page, what they link to; return the links that lead nowhere."""
    seen, dead, waiting = set[Path](), list[str](), list(pages)
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        place = target / file.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
        if file.suffix != ".md":
            continue
        for link in links(file):
            if not link.exists() or not link.is_relative_to(ROOT):
                dead.append(f"{file.relative_to(ROOT)} links to {link}, which is not in the repository")
            else:
                waiting.extend(sorted(part for part in link.rglob("*") if part.is_file()) if link.is_dir() else [link])
    return dead


def main() -> int:
    target = Path(sys.argv[1])
    shutil.rmtree(target, ignore_errors=True)
    dead = gather([*(ROOT / name for name in PAGES), *sorted((ROOT / "docs").glob("*.md"))], target)
    for line in dead:
        print(line, file=sys.stderr)
    return int(bool(dead))


if __name__ == "__main__":
    sys.exit(main())
