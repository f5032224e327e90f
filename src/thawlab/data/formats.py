"""Which files are images, by their names and first bytes, and what can be done about those that cannot be read."""

import functools
import importlib
import importlib.util
from pathlib import PurePosixPath
from typing import NamedTuple

_COMMON = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"})
_COMMON |= {".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif", ".ico", ".tga"}
_RAW_SUFFIXES = ".raw .dng .cr2 .cr3 .nef .arw .orf .rw2 .raf .pef .srw"
# Formats that no reader here knows, and what to do about them.
_OTHERS = {".svg": "an SVG drawing", ".svgz": "an SVG drawing", ".pdf": "a PDF", ".psd": "a Photoshop file", ".ai": "a drawing"}
_OTHERS |= {suffix: "a camera's raw file" for suffix in _RAW_SUFFIXES.split()} | {".exr": "an EXR image", ".hdr": "an HDR image"}
_OTHERS |= {".dcm": "a DICOM image", ".nii": "a NIfTI volume", ".npy": "an array", ".npz": "an archive of arrays"}
_OTHERS |= {suffix: "a video" for suffix in (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")}
_OTHERS |= {suffix: "an archive" for suffix in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".xz", ".bz2")}
_OTHERS |= {suffix: "an image of a rare format" for suffix in (".pcx", ".dds", ".sgi", ".rgb", ".fits", ".fit", ".icns", ".xpm")}
_OTHERS |= {".lnk": "a shortcut", ".url": "a shortcut", ".webloc": "a shortcut"}
_CURES = {"an archive": "unpack it", "a shortcut": "copy the images themselves", "a video": "save its frames as PNG or JPEG"}
_MARKS = {b"%PDF": "a PDF", b"8BPS": "a Photoshop file", b"SIMPLE  =": "a FITS image", b"\x93NUMPY": "an array"}
# Text, tables and programs lie beside images in many data sets; nobody takes them for images.
_DOCUMENT_SUFFIXES = """
.txt .md .rst .json .jsonl .xml .csv .tsv .yaml .yml .toml .ini .cfg .log .html .htm .py .ipynb .sh .bat .m .mat .pkl .db .sqlite
.xls .xlsx .doc .docx .parquet .bib .tex .lock .names .cls .license .info
"""
_DOCUMENTS = frozenset(_DOCUMENT_SUFFIXES.split())


class Plugin(NamedTuple):
    """A package that teaches Pillow a format.

    Attributes:
        module: to import.
        register: its function that registers the reader; "" where the import does.
        reader: the name of the format in Pillow.
        extensions: of such files.
        marks: what such a file begins with, at its start or after 4 bytes.
        kind: of such a file, for messages.
        install: the command that brings the package.
    """

    module: str
    register: str
    reader: str
    extensions: tuple[str, ...]
    marks: tuple[bytes, ...]
    kind: str
    install: str


_HEIC = (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypmif1", b"ftypmsf1", b"ftypheim")
_JXL = (b"\xff\x0a", b"\x00\x00\x00\x0cJXL ")
PLUGINS = (
    Plugin(
        module="pillow_heif",
        register="register_heif_opener",
        reader="HEIF",
        extensions=(".heic", ".heif", ".hif"),
        marks=_HEIC,
        kind="a HEIC photo",
        install="pip install 'thawlab[heic]'",
    ),
    Plugin(
        module="pillow_jxl",
        register="",
        reader="JXL",
        extensions=(".jxl",),
        marks=_JXL,
        kind="a JPEG XL image",
        install="pip install pillow-jxl-plugin",
    ),
)


@functools.cache
def plugins_here() -> tuple[Plugin, ...]:
    """Return the plug-ins that are installed, after registering their readers with Pillow."""
    here = []
    for plugin in PLUGINS:
        if importlib.util.find_spec(plugin.module) is not None:
            module = importlib.import_module(plugin.module)
            if plugin.register:
                getattr(module, plugin.register)()
            here.append(plugin)
    return tuple(here)


def has_image_extension(path: str) -> bool:
    """Return whether the file's name claims to be an image."""
    suffix = PurePosixPath(path).suffix.lower()
    return suffix in _COMMON or any(suffix in plugin.extensions for plugin in plugins_here())


def looks_like_image(head: bytes) -> bool:
    """Return whether a file starts like one of the common image formats, whatever its name claims."""
    starts = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\x00", b"MM\x00*")
    by_plugin = any(head[4:12] in plugin.marks or head.startswith(plugin.marks) for plugin in plugins_here() if plugin.marks)
    return head.startswith(starts) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or by_plugin


def kind_of(head: bytes) -> str | None:
    """Return what a file that no reader here knows is by its first bytes, whatever its name says, and what to do about it."""
    for plugin in PLUGINS:
        if head[4:12] in plugin.marks or head.startswith(plugin.marks):
            return f"is {plugin.kind}; to read it: {plugin.install}"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "is a web page, as a download leaves it that failed; fetch it again"
    if text.startswith((b"<svg", b"<?xml")) and b"<svg" in text:
        return "is an SVG drawing; save it as PNG or JPEG"
    if head[128:132] == b"DICM":
        return "is a DICOM image; save it as PNG or JPEG"
    return next((f"is {kind}; save it as PNG or JPEG" for mark, kind in _MARKS.items() if head.startswith(mark)), None)


def is_unread(path: str) -> bool:
    """Return whether a file is one of a format that is known and that no reader here reads, by its name."""
    return PurePosixPath(path).suffix.lower() in _OTHERS


def is_document(path: str) -> bool:
    """Return whether a file is text, a table or a program by its name, or has no name that says what it is."""
    return PurePosixPath(path).suffix.lower() in _DOCUMENTS or not PurePosixPath(path).suffix


def why_no_image(path: str) -> str:
    """Return why a file is left out, and what would let it be read."""
    suffix = PurePosixPath(path).suffix.lower()
    plugin = next((plugin for plugin in PLUGINS if suffix in plugin.extensions), None)
    if plugin is not None:
        return f"is {plugin.kind}; to read it: {plugin.install}"
    if (cure := _CURES.get(_OTHERS.get(suffix, ""))) is not None:
        return f"is {_OTHERS[suffix]}; {cure}"
    if suffix in _OTHERS:
        return f"is {_OTHERS[suffix]}; save it as PNG or JPEG"
    return "is not an image"
