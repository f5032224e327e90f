from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from thawlab.data.decode import decode
from thawlab.data.depth import with_grey_range
from thawlab.data.grey import may_be_deep, shared_range, significant_bits
from thawlab.data.paths import open_path
from thawlab.data.preprocessing import Preprocessing

LOOK = Preprocessing(size=32, mean=(0.5,) * 3, std=(0.5,) * 3)


def saved(values: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind)
    return buffer.getvalue()


def folder_of(tmp_path: Path, values: list[np.ndarray], kind: str = "png") -> Path:
    for number, array in enumerate(values):
        file = tmp_path / "data" / f"class{number % 2}" / f"{number}.{kind}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(saved(array, {"png": "PNG", "tif": "TIFF"}[kind]))
    return tmp_path / "data"


def ramps(low: float, high: float, dtype: type, count: int = 6) -> list[np.ndarray]:
    """Return images whose values run from `low` to `high`, all of them together."""
    rng = np.random.default_rng(0)
    result = [rng.uniform(low, high, (32, 32)).astype(dtype) for _ in range(count)]
    result[0][:8, :8], result[1][:8, :8] = dtype(low), dtype(high)
    return result


@pytest.mark.parametrize(
    ("low", "high", "dtype", "kind", "expected"),
    [
        (0, 1023, np.uint16, "png", (0, 1023)),
        (0, 4000, np.uint16, "png", (0, 4095)),
        (0, 16000, np.uint16, "tif", (0, 16383)),
        (0, 60000, np.uint16, "png", (0, 65535)),
        (0, 250, np.uint16, "png", (0, 255)),
        (0.0, 1.0, np.float32, "tif", (0, 1)),
        (0.0, 250.0, np.float32, "tif", (0, 255)),
        (-1024, 2000, np.int32, "tif", (-1024, 2000)),
        (-1000.0, 1500.0, np.float32, "tif", (-1000, 1500)),
        (9000, 11000, np.uint16, "png", (9000, 11000)),
    ],
)
def test_a_data_set_has_one_range_that_uses_the_whole_byte(
    low: float, high: float, dtype: type, kind: str, expected: tuple[float, float], tmp_path: Path
) -> None:
    values = ramps(low, high, dtype)
    look = with_grey_range(LOOK, open_path(folder_of(tmp_path, values, kind)))
    assert look.grey_range == pytest.approx(expected, rel=0.02, abs=5 if abs(low) > 1 else 1e-3)
    decoded = np.stack([decode(saved(one, {"png": "PNG", "tif": "TIFF"}[kind]), look)[..., 0] for one in values])
    assert decoded.min() <= 3 and decoded.max() >= 225
    truth = np.stack(values).astype(np.float64)
    assert np.corrcoef(truth.reshape(-1), decoded.reshape(-1))[0, 1] > 0.999
    # One image alone is read as it is among the others: its own darkness stays.
    dark = (values[2].astype(np.float64) * 0.1 + low * 0.9).astype(dtype)
    assert decode(saved(dark, {"png": "PNG", "tif": "TIFF"}[kind]), look).max() < 80


def test_bytes_have_no_range(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder = folder_of(tmp_path, [rng.integers(0, 256, (16, 16), dtype=np.uint8) for _ in range(4)])
    assert with_grey_range(LOOK, open_path(folder)) == LOOK
    assert LOOK.geometry == "32-upsample-bilinear"
    assert LOOK.model_copy(update={"grey_range": (-1000.0, 1500.5)}).geometry == "32-upsample-bilinear-grey-1000to1500.5"


def with_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return png[:33] + chunk + png[33:]


def test_a_file_that_names_its_bits_is_read_by_them() -> None:
    values = ramps(0, 1023, np.uint16)[0]
    named = with_chunk(saved(values), b"sBIT", bytes([10]))
    assert significant_bits(named) == 10 and significant_bits(saved(values)) is None
    assert np.array_equal(decode(named, LOOK)[..., 0], np.rint(values * (255 / 1023)).astype(np.uint8))
    # By the standard the significant bits stand on top; such values fill 16 bits.
    top = with_chunk(saved(values << 6), b"sBIT", bytes([10]))
    assert np.array_equal(decode(top, LOOK)[..., 0], np.rint((values << 6).astype(float) * (255 / 65535)).astype(np.uint8))


def test_first_bytes_tell_which_files_may_be_deep() -> None:
    assert may_be_deep(saved(np.zeros((4, 4), np.uint16))) and may_be_deep(saved(np.zeros((4, 4), np.float32), "TIFF"))
    assert not may_be_deep(saved(np.zeros((4, 4), np.uint8))) and not may_be_deep(saved(np.zeros((4, 4, 3), np.uint8)))
    assert not may_be_deep(b"")


def test_a_constant_set_has_a_range_all_the_same() -> None:
    assert shared_range([np.full((4, 4), -7.0)], whole=False) == (-7.0, -6.0)


def test_deep_images_teach_as_well_as_bytes_do(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    from thawlab import load, train

    table = load_digits()
    sets = {"deep": (table.images * (4095 / 16)).astype(np.uint16), "bytes": (table.images * (255 / 16)).astype(np.uint8)}
    accuracy, predicted = [], []
    for name, images in sets.items():
        for number, (image, label) in enumerate(zip(images[:400], table.target[:400], strict=True)):
            file = tmp_path / name / str(label) / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(saved(image))
        settings = {"data.image_size": 16, "model.backbone": "cnn5", "phases.0.epochs": 8, "phases.0.augment": []}
        run = train(tmp_path / name, runs=tmp_path / "runs", **settings)
        accuracy.append(run.results.test.accuracy)
        files = sorted((tmp_path / name).rglob("*.png"))[::10]
        predicted.append([one.classes[0] for one in load(run.folder.path).predict_many(files)])
    assert min(accuracy) > 0.7 and abs(accuracy[0] - accuracy[1]) < 0.04
    assert np.mean([one == other for one, other in zip(*predicted, strict=True)]) > 0.9


@pytest.mark.parametrize("share", [1, 5])
def test_a_few_stuck_pixels_do_not_stretch_the_range(share: int, tmp_path: Path) -> None:
    images = ramps(0, 4000, np.uint16, count=60)
    for image in images[:share]:
        image[3, 5] = 65535
    look = with_grey_range(LOOK, open_path(folder_of(tmp_path, images)))
    assert look.grey_range == (0, 4095)


@pytest.mark.parametrize("blank", [-9999, -32768, -3.4e38, float("-inf"), float("inf"), float("nan")])
def test_values_where_nothing_was_measured_do_not_count(blank: float, tmp_path: Path) -> None:
    images = ramps(100.0, 3000.0, np.float32)
    for image in images:
        image[::5, ::4] = blank
    look = with_grey_range(LOOK, open_path(folder_of(tmp_path, images, "tif")))
    assert look.grey_range is not None
    low, high = look.grey_range
    assert low == pytest.approx(100, abs=60) and high == pytest.approx(3000, abs=60)
    pixels = decode(saved(images[2], "TIFF"), look)
    measured = np.isfinite(images[2]) & (images[2] > 0) & (images[2] < 5000)
    assert pixels[..., 0][measured].std() > 50
    assert set(pixels[..., 0][~measured].tolist()) <= {0, 255}


def test_negative_values_that_are_measured_do_count() -> None:
    assert shared_range([np.array([-1024.0] * 50 + list(range(-1000, 2000)))], whole=True)[0] == pytest.approx(-1024, abs=2)
    assert shared_range([np.full(10, -32768.0)], whole=True) == (0.0, 65535.0)


def test_white_at_zero_is_turned_round() -> None:
    values = ramps(0, 65535, np.uint16)[0]
    pixels = []
    for photometric in (0, 1):
        buffer = io.BytesIO()
        Image.fromarray(values).save(buffer, "TIFF", tiffinfo={262: photometric})
        pixels.append(decode(buffer.getvalue(), LOOK).astype(int))
    assert np.abs(pixels[0] + pixels[1] - 255).max() <= 1


def test_pgm_of_more_than_8_bits_has_a_range_too(tmp_path: Path) -> None:
    for number, image in enumerate(ramps(0, 4000, np.uint16)):
        file = tmp_path / f"class{number % 2}" / f"{number}.pgm"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"P5\n32 32\n65535\n" + image.astype(">u2").tobytes())
    assert with_grey_range(LOOK, open_path(tmp_path)).grey_range == (0, 4095)


@pytest.mark.parametrize(
    ("low", "high", "taken"), [(1000, 3000, True), (0, 5000, True), (0, 2000, False), (float("nan"), 3000.0, False)]
)
def test_a_tiff_names_its_range_itself(low: float, high: float, taken: bool) -> None:
    values = np.linspace(1000, 3000, 1024).reshape(32, 32).astype(np.uint16)
    buffer = io.BytesIO()
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in ((340, low), (341, high)):
        tags[tag] = value
        tags.tagtype[tag] = 3 if isinstance(value, int) else 11
    Image.fromarray(values).save(buffer, "TIFF", tiffinfo=tags)
    pixels = decode(buffer.getvalue(), LOOK)
    expected = ((1000 - low) / (high - low), (3000 - low) / (high - low)) if taken else (1000 / 65535, 3000 / 65535)
    assert (pixels.min() / 255, pixels.max() / 255) == pytest.approx(expected, abs=0.01)
