from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from thawlab.data import formats
from thawlab.data.decode import decode
from thawlab.data.folders import image_files_below, walk
from thawlab.data.formats import looks_like_image
from thawlab.data.paths import open_path
from thawlab.data.preprocessing import Preprocessing
from thawlab.errors import UsageError
from thawlab.files import is_ours, mark_ours

Tree = Callable[..., Path]
FLAT = ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png")


def test_litter_is_neither_entered_nor_listed(tree: Tree) -> None:
    folder = tree(*FLAT, "@eaDir/1.png", "cat/@eaDir/1.png/SYNOPHOTO_THUMB.png", "$RECYCLE.BIN/x/1.png", "lost+found/1.png")
    (folder / "System Volume Information").mkdir()
    found = walk(folder)
    assert (found.files, found.folders, found.ignored) == (list(FLAT), ["cat", "dog"], [])
    assert open_path(folder).ids == FLAT


def test_what_thawlab_wrote_is_not_read_as_data(tree: Tree) -> None:
    folder = tree(*FLAT, "runs/run-1/predictions/1.png", "studies/b/figure.png")
    for name in ("recipe.toml", "state.json"):
        (folder / "runs/run-1" / name).write_text("")
    (folder / "studies/b/study.json").write_text("{}")
    mark_ours(folder / "maps")
    (folder / "maps" / "cat.png").write_bytes((folder / "cat/1.png").read_bytes())
    listing = open_path(folder)
    assert listing.ids == FLAT and listing.classes == ("cat", "dog")
    assert dict(listing.ignored) == dict.fromkeys(["maps", "runs/run-1", "studies/b"], "was written by thawlab")
    assert [path.relative_to(folder).as_posix() for path in image_files_below(folder)] == list(FLAT)


def test_a_folder_of_the_user_is_never_marked(tree: Tree) -> None:
    folder = tree(*FLAT)
    mark_ours(folder / "cat")
    assert not is_ours(folder / "cat") and sorted(path.name for path in (folder / "cat").iterdir()) == ["1.png", "2.png"]


def test_prediction_and_training_find_the_same_images(tree: Tree) -> None:
    folder = tree(*FLAT, "cat/.hidden.png", "emu/deep/er/1.png")
    (folder / "cat" / "no-extension").write_bytes((folder / "cat/1.png").read_bytes())
    (folder / "cat" / "notes.txt").write_text("none")
    (folder / "linked").symlink_to(folder / "dog")
    (folder / "dog" / "back").symlink_to(folder)
    found = [path.relative_to(folder).as_posix() for path in image_files_below(folder)]
    assert found == sorted(open_path(folder).ids)
    assert "linked/1.png" in found and "cat/no-extension" in found


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("1.svg", "is an SVG drawing; save it as PNG or JPEG"),
        ("1.NEF", "is a camera's raw file; save it as PNG or JPEG"),
        ("1.jxl", "is a JPEG XL image; to read it: pip install pillow-jxl-plugin"),
        ("1.xyz", "is not an image"),
    ],
)
def test_a_class_whose_files_cannot_be_read_is_refused(name: str, reason: str, tree: Tree) -> None:
    folder = tree("train/cat/1.png", "train/dog/1.png", "test/cat/1.png")
    (folder / "train" / "emu").mkdir()
    (folder / "train" / "emu" / name).write_bytes(b"something else")
    with pytest.raises(UsageError) as error:
        open_path(folder)
    assert str(error.value) == f"{folder}/train/emu: no file of this class can be read as an image; train/emu/{name} {reason}"


def test_unreadable_files_beside_images_are_left_out_with_the_cure_and_documents_are_no_class(tree: Tree) -> None:
    folder = tree(*FLAT)
    (folder / "cat" / "x.cr2").write_bytes(b"raw")
    (folder / "docs").mkdir()
    (folder / "docs" / "readme.md").write_text("hello")
    listing = open_path(folder)
    assert listing.classes == ("cat", "dog")
    assert dict(listing.ignored) == {
        "cat/x.cr2": "is a camera's raw file; save it as PNG or JPEG",
        "docs/readme.md": "is not an image",
    }


def test_where_nothing_can_be_read_the_first_file_says_why(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.svg").write_text("<svg/>")
    with pytest.raises(UsageError, match=r"none of 2 files can be read as an image; the first, cat/1\.svg, is an SVG drawing"):
        open_path(tmp_path)


def test_photos_as_phones_save_them_are_read_upright_where_the_plug_in_is_there(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = 6
    for number, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        image = Image.new("RGB", (64, 48), (200, 30, 30))
        image.paste((20, 20, 200), (0, 0, 32, 48))
        image.save(tmp_path / name / f"{number}.HEIC", "HEIF", quality=95, exif=exif.tobytes())
    listing = open_path(tmp_path)
    assert listing.ids == ("cat/0.HEIC", "dog/1.HEIC")
    content = listing.images.read(0)
    assert isinstance(content, bytes) and looks_like_image(content[:32])
    pixels = decode(content, Preprocessing(size=32, mean=(0.5,) * 3, std=(0.5,) * 3)).astype(int)
    assert pixels[2, 16, 2] > 150 and pixels[29, 16, 0] > 150  # what was left is above


def test_without_the_plug_in_the_message_offers_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "plugins_here", lambda: ())
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(UsageError, match=r"cat/1\.heic, is a HEIC photo; to read it: pip install 'thawlab\[heic\]'"):
        open_path(tmp_path)


@pytest.mark.parametrize(
    "name", ["LOST.DIR", "FOUND.000", "RECYCLED", "~snapshot", "Network Trash Folder", "Temporary Items", "@tmp", "_gsdata_"]
)
def test_what_other_systems_leave_behind_is_no_class(name: str, tmp_path: Path) -> None:
    for folder in ("cat", "dog", name):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / folder / "1.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "cat" / "2.png")
    (tmp_path / "cat" / "2.png").rename(tmp_path / "cat" / "2.png~")
    assert open_path(tmp_path).ids == ("cat/1.png", "dog/1.png")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("IM0001", bytes(128) + b"DICM" + bytes(20), "is a DICOM image"),
        ("1.nef", b"II*\0" + bytes(40), "is a camera's raw file"),
        ("1.dng", b"MM\0*" + bytes(40), "is a camera's raw file"),
        ("1.pcx", b"\x0a\5\1\x08" + bytes(40), "is an image of a rare format"),
    ],
)
def test_a_class_of_files_that_no_reader_knows_is_refused(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    for folder in ("cat", "dog", "bird"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / folder / "1.png")
    (tmp_path / "bird" / "1.png").unlink()
    (tmp_path / "bird" / name).write_bytes(content)
    with pytest.raises(UsageError, match=f"bird: no file of this class can be read as an image; .*{words}"):
        open_path(tmp_path)


def test_links_that_lead_nowhere_are_said_and_shortcuts_refused(tmp_path: Path) -> None:
    for folder in ("cat", "dog"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / folder / "1.png")
    (tmp_path / "cow").symlink_to(tmp_path / "nowhere")
    assert open_path(tmp_path).ignored == (("cow", "is a link that leads nowhere"),)
    (tmp_path / "bird").mkdir()
    (tmp_path / "bird" / "1.lnk").write_bytes(b"L\0\0\0")
    with pytest.raises(UsageError, match=r"bird: no file of this class .* is a shortcut; copy the images themselves"):
        open_path(tmp_path)
