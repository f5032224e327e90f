"""What the benchmarks' options take; argparse answers anything else in one line."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path


def program(text: str) -> str:
    """Return a program that can be started."""
    if shutil.which(text) is None:
        raise argparse.ArgumentTypeError(f"there is no program '{text}'")
    return text


def count(text: str, least: int = 1) -> int:
    """Return a number that is not too small."""
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of at least {least}")
    return int(text)


def count_or_none(text: str) -> int:
    """Return a number of at least 0."""
    return count(text, least=0)


def folder(text: str) -> Path:
    """Return a folder that exists."""
    if not text or not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder '{text}'")
    return Path(text)


def backbone(text: str) -> Path:
    """Return a folder with a backbone and its weights."""
    for name in ("config.json", "model.safetensors"):
        if not (folder(text) / name).is_file():
            raise argparse.ArgumentTypeError(f"{text} has no {name}")
    return Path(text)
