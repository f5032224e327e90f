from __future__ import annotations

import functools
import gzip
import hashlib
import io
import pickle
import socket
import struct
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thawlab.data.sources import canonical, check_source, datasets, open_recorded, open_source
from thawlab.errors import ThawlabError, UsageError
from thawlab.files import cache_root

torchvision = pytest.importorskip("torchvision")
Noise = Callable[..., np.ndarray]


def refusal(source: str, data_dir: Path | None = None, kind: type[ThawlabError] = UsageError) -> str:
    with pytest.raises(kind) as error:
        open_source(source, str(data_dir) if data_dir else None)
    assert "\n" not in str(error.value)
    return str(error.value)


# Names and paths


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("cifar1", "'cifar1' is neither a data set nor a path (did you mean 'cifar10'?)"),
        ("shape:300x16", "'shape:300x16' is neither a data set nor a path (did you mean 'shapes'?)"),
        ("qqqq", "'qqqq' is neither a data set nor a path (data sets: cifar10, "),
    ],
)
def test_a_wrong_name_gives_the_nearest_data_set(
    source: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert expected in refusal(source)


def test_a_wrong_path_gives_the_nearest_one_beside_it(tmp_path: Path) -> None:
    (tmp_path / "holiday").mkdir()
    assert f"'{tmp_path}/holliday' is neither a data set nor a path (did you mean 'holiday'?)" in refusal(f"{tmp_path}/holliday")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoded: Callable[..., bytes]) -> Path:
    """A working directory with a folder `digits` of cats and dogs."""
    monkeypatch.chdir(tmp_path)
    for path in ("digits/cat/1.png", "digits/dog/1.png", "photos/cat/1.png", "photos/dog/1.png"):
        Path(path).parent.mkdir(parents=True)
        Path(path).write_bytes(encoded())
    return tmp_path


@pytest.mark.parametrize(
    "source", ["./digits", "digits/", "./digits/", "../{}/digits", "{path}/digits", "~/digits", "$HOME/digits"]
)
def test_what_is_written_as_a_path_is_a_path_also_when_it_is_recorded(
    source: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(here))
    source = source.format(here.name, path=here)
    check_source(source)
    recorded = canonical(source)
    assert canonical(recorded) == recorded
    assert open_source(source).classes == open_source(recorded).classes == open_recorded(recorded).classes == ("cat", "dog")


def test_a_bare_name_of_both_is_refused_with_both_spellings(here: Path) -> None:
    expected = (
        "data.source: 'digits' is both a built-in data set and a folder here; "
        "write ./digits for the folder, or digits: for the data set"
    )
    for use in (check_source, open_source, canonical):
        with pytest.raises(UsageError) as error:
            use("digits")
        assert str(error.value) == expected
    (here / "shapes").write_text("a file")
    assert "'shapes' is both a built-in data set and a file here" in refusal("shapes")


def test_a_colon_means_the_data_set_however_often_it_is_respelt(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_source("digits:")
    assert canonical("digits:") == canonical(canonical("digits:")) == "digits:"
    assert len(open_source("digits:")) == len(open_recorded("digits")) == 1797
    monkeypatch.chdir(here / "photos")
    assert canonical("digits:") == canonical("digits") == "digits" and canonical("shapes:") == "shapes"


@pytest.mark.usefixtures("here")
def test_equal_sources_are_recorded_equally() -> None:
    assert {canonical(source) for source in ("photos", "photos/", "./photos", "./photos/.")} == {"photos"}
    assert {canonical(source) for source in ("./digits", "digits/", "./digits/")} == {"./digits"}
    for source in ("photos", "cifar10", "shapes:300x16", "/abs/path", "~/photos", "shapes:7/8"):
        assert canonical(source) == source
    assert canonical("/abs/path/") == "/abs/path"


def test_checking_opens_nothing(tmp_path: Path) -> None:
    (tmp_path / "broken.zip").write_text("no zip")
    check_source(str(tmp_path / "broken.zip"))
    check_source("cifar10")
    with pytest.raises(UsageError):
        check_source(str(tmp_path / "absent.zip"))


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion-mnist", "digits", "fruits360"])
def test_a_name_that_takes_no_argument_says_so(name: str) -> None:
    assert refusal(f"{name}:5") == f"data.source: '{name}' takes nothing after a colon, but '5' was given"


@pytest.mark.parametrize("argument", ["5x32", "100x4", "100x2000", "axb", "100x32x0x1", "-100x32", "100x", "²00"])
def test_wrong_shapes_are_refused_with_what_is_right(argument: str) -> None:
    assert refusal(f"shapes:{argument}").startswith(f"data.source: 'shapes:{argument}' ")


def test_shapes_take_count_size_and_seed() -> None:
    assert [len(open_source(source)) for source in ("shapes:20", "shapes:30x16")] == [20, 30]
    first, other = (open_source(f"shapes:20x16x{seed}").images.read(0) for seed in (0, 1))
    assert isinstance(first, np.ndarray) and first.shape == (16, 16, 3)
    assert np.array_equal(first, open_source("shapes:20x16").images.read(0)) and not np.array_equal(first, other)


def test_digits_use_the_full_range_of_a_byte() -> None:
    listing = open_source("digits")
    images = np.stack([listing.images.read(index) for index in range(len(listing))])
    assert images.shape == (1797, 8, 8, 3) and (images.min(), images.max()) == (0, 255)
    assert listing.classes == tuple("0123456789") and len(set(listing.ids)) == 1797


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("THAWLAB_CACHE", str(tmp_path))
    assert cache_root() == tmp_path
    monkeypatch.delenv("THAWLAB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_root() == Path("/somewhere/thawlab")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path.home() / ".cache" / "thawlab"


def test_fruits360_is_found_in_a_folder_or_said_to_be_fetched(tmp_path: Path, encoded: Callable[..., bytes]) -> None:
    message = refusal("fruits360", tmp_path, ThawlabError)
    assert message.startswith(f"fruits360: no copy found in {tmp_path}") and "--data-dir" in message
    for path in ("Training/Apple/1.jpg", "Training/Pear/1.jpg", "Test/Apple/2.jpg", "papers/1.jpg"):
        file = tmp_path / "fruits-360-100x100" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(kind="JPEG"))
    for folder in (tmp_path, tmp_path / "fruits-360-100x100"):
        listing = open_source("fruits360", str(folder))
        assert listing.classes == ("Apple", "Pear") and listing.splits.tolist() == ["test", "train", "train"]


def test_every_data_set_is_described() -> None:
    assert all(datasets.get(name).__doc__ for name in datasets)


# Downloads, from a server of our own


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str, list[str]]]:
    """Serve a folder over HTTP; yields the folder, its address and the list of paths that were asked for."""
    folder, asked = tmp_path / "served", []
    folder.mkdir()
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            if self.command == "GET":
                asked.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f"http://127.0.0.1:{http.server_address[1]}/", asked
        http.shutdown()
        thread.join()


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the address of a port that nobody listens on."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/"


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture
def small_cifar10(server: tuple[Path, str, list[str]], monkeypatch: pytest.MonkeyPatch, noise: Noise) -> np.ndarray:
    """Offer a CIFAR-10 of 5 × 4 + 4 images in the official archive's format; returns its pixels."""
    folder, address, _ = server
    images = noise(24, 32, 32, 3)
    names = [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]
    files = {}
    for k, name in enumerate(names):
        rows = images[4 * k : 4 * k + 4].transpose(0, 3, 1, 2).reshape(4, -1)
        files[name] = pickle.dumps({"data": rows, "labels": [0, 1, 2, k % 3]}, protocol=2)
    files["batches.meta"] = pickle.dumps({"label_names": ["plane", "car", "bird"]}, protocol=2)
    with tarfile.open(folder / "cifar-10-python.tar.gz", "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    cifar = torchvision.datasets.CIFAR10
    monkeypatch.setattr(cifar, "url", f"{address}cifar-10-python.tar.gz")
    monkeypatch.setattr(cifar, "tgz_md5", md5((folder / "cifar-10-python.tar.gz").read_bytes()))
    monkeypatch.setattr(cifar, "train_list", [[name, md5(files[name])] for name in names[:5]])
    monkeypatch.setattr(cifar, "test_list", [[names[5], md5(files[names[5]])]])
    monkeypatch.setattr(cifar, "meta", {"filename": "batches.meta", "key": "label_names", "md5": md5(files["batches.meta"])})
    return images


@pytest.fixture
def small_fashion(server: tuple[Path, str, list[str]], monkeypatch: pytest.MonkeyPatch, noise: Noise) -> np.ndarray:
    """Offer a Fashion-MNIST of 20 + 10 images in the official format; returns its pixels."""
    folder, address, _ = server
    images = noise(30, 28, 28)
    labels = np.arange(30, dtype=np.uint8) % 10
    resources = []
    for name, part in (("train", slice(0, 20)), ("t10k", slice(20, 30))):
        count = len(images[part])
        contents = {
            f"{name}-images-idx3-ubyte.gz": struct.pack(">IIII", 2051, count, 28, 28) + images[part].tobytes(),
            f"{name}-labels-idx1-ubyte.gz": struct.pack(">II", 2049, count) + labels[part].tobytes(),
        }
        for file, content in contents.items():
            (folder / file).write_bytes(gzip.compress(content))
            resources.append((file, md5((folder / file).read_bytes())))
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [address])
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "resources", resources)
    return images


def test_cifar10_is_fetched_once_and_read_bit_for_bit(
    small_cifar10: np.ndarray, server: tuple[Path, str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listing = open_source("cifar10", str(tmp_path / "kept"))
    assert capsys.readouterr().out == ""  # standard output belongs to --json
    assert listing.classes == ("plane", "car", "bird")
    assert (listing.splits == "train").sum() == 20 and (listing.splits == "test").sum() == 4
    assert listing.labels.tolist() == [label for k in range(6) for label in (0, 1, 2, k % 3)]
    assert np.array_equal(np.stack([listing.images.read(k) for k in range(24)]), small_cifar10)
    assert listing.ids[0] == "train/00000" and listing.ids[20] == "test/00000"
    before = len(server[2])
    open_source("cifar10", str(tmp_path / "kept"))
    assert set(server[2]) == {"/cifar-10-python.tar.gz"} and len(server[2]) == before


def test_without_a_folder_of_its_own_a_download_goes_into_the_cache(small_cifar10: np.ndarray) -> None:
    assert len(open_source("cifar10")) == len(small_cifar10)
    assert (cache_root() / "data" / "cifar-10-python.tar.gz").is_file()


def test_fashion_mnist_is_fetched_once_and_grey_is_repeated(
    small_fashion: np.ndarray, server: tuple[Path, str, list[str]], tmp_path: Path
) -> None:
    listing = open_source("fashion-mnist", str(tmp_path / "kept"))
    images = np.stack([listing.images.read(k) for k in range(30)])
    assert np.array_equal(images, np.repeat(small_fashion[..., None], 3, axis=-1))
    assert (listing.splits == "train").sum() == 20 and listing.labels.tolist() == [k % 10 for k in range(30)]
    assert listing.classes[0] == "T-shirt/top"
    before = len(server[2])
    open_source("fashion-mnist", str(tmp_path / "kept"))
    assert len(set(server[2])) == 4 and len(server[2]) == before


@pytest.mark.usefixtures("small_cifar10", "small_fashion")
@pytest.mark.parametrize("name", ["cifar10", "fashion-mnist"])
def test_a_wrong_checksum_is_refused(
    name: str, server: tuple[Path, str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = "0" * 32
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", wrong)
    resources = torchvision.datasets.FashionMNIST.resources
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "resources", [(file, wrong) for file, _ in resources])
    message = refusal(name, tmp_path / "kept", ThawlabError)
    assert message.startswith(f"{name}: could not be fetched from {server[1]}")
    assert "File not found or corrupted" in message and "--data-dir" in message
    assert not list((tmp_path / "kept").rglob("*batch*")) and not list((tmp_path / "kept").rglob("*ubyte"))


@pytest.mark.usefixtures("small_cifar10", "small_fashion")
@pytest.mark.parametrize("name", ["cifar10", "fashion-mnist"])
def test_no_network_says_what_from_where_and_how_to_go_on_without(
    name: str, nowhere: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", f"{nowhere}cifar.tar.gz")
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [nowhere])
    message = refusal(name, tmp_path / "kept", ThawlabError)
    assert message.startswith(f"{name}: could not be fetched from {nowhere}") and "Connection refused" in message
    assert "put a whole copy into a folder and name it with --data-dir" in message


@pytest.mark.usefixtures("small_cifar10")
def test_a_server_that_has_it_not_is_no_riddle(server: tuple[Path, str, list[str]], tmp_path: Path) -> None:
    (server[0] / "cifar-10-python.tar.gz").unlink()
    assert "HTTP Error 404" in refusal("cifar10", tmp_path / "kept", ThawlabError)


@pytest.mark.usefixtures("small_fashion")
@pytest.mark.parametrize("kept", [0, 10, 1000])
@pytest.mark.parametrize("part", ["images-idx3", "labels-idx1"])
def test_a_copy_that_was_cut_is_named_with_its_folder(part: str, kept: int, tmp_path: Path) -> None:
    open_source("fashion-mnist", str(tmp_path))
    file = next(tmp_path.rglob(f"train-{part}-ubyte"))
    file.write_bytes(file.read_bytes()[: min(kept, file.stat().st_size - 1)])
    message = refusal("fashion-mnist", tmp_path, ThawlabError)
    assert f"or read in {tmp_path} (" in message and "put a whole copy into a folder" in message


def write_parquet(folder: Path, encoded: Callable[..., bytes], classes: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = [{"bytes": encoded((k, 0, 0), (32, 32)), "path": None} for k in range(2 * classes)]
    labels = [f"class{k % classes:02d}" for k in range(2 * classes)]
    pq.write_table(pa.table({"img": images, "label": labels}), folder / "train-00000-of-00001.parquet")


@pytest.mark.parametrize("inside", [".", "data"])
def test_cifar10_as_a_folder_of_parquet_needs_no_network(inside: str, tmp_path: Path, encoded: Callable[..., bytes]) -> None:
    (tmp_path / inside).mkdir(exist_ok=True)
    write_parquet(tmp_path / inside, encoded, 10)
    listing = open_source("cifar10", str(tmp_path))
    assert len(listing.classes) == 10 and listing.ids[:2] == ("train/0", "train/1")


def test_a_folder_of_parquet_with_other_classes_is_not_taken_for_cifar(tmp_path: Path, encoded: Callable[..., bytes]) -> None:
    write_parquet(tmp_path, encoded, 10)
    with pytest.raises(UsageError, match="holds 10 classes, not the 100 of cifar100"):
        open_source("cifar100", str(tmp_path))
