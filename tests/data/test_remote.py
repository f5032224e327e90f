"""Sources on other machines: what is fetched is what lies there, however the way to it fails, and nothing comes twice."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from thawlab.data import remote as asking
from thawlab.data.dataset import Dataset, load_dataset
from thawlab.data.mirror import mirrored
from thawlab.data.preprocessing import Preprocessing
from thawlab.data.remote import content_of, fetch, is_remote, listed_files, patiently_remote, remote
from thawlab.data.shards import remote_store
from thawlab.data.shards.remote_store import Keeping
from thawlab.data.shards.splitting import with_fixed_splits
from thawlab.data.shards.writer import write_shards
from thawlab.data.sources import open_recorded, open_source
from thawlab.errors import ThawlabError, UsageError
from thawlab.files import cache_root
from thawlab.recipe import parse_recipe

LOOK = Preprocessing(size=16, mean=(0.5,) * 3, std=(0.5,) * 3)


class Flaky(MemoryFileSystem):  # type: ignore[misc]
    """A store that fails now and then: a cut connection, a server's error, half an answer."""

    protocol = "flaky"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    asked: ClassVar[list[tuple[str, int | None, int | None]]] = []
    faults: ClassVar[list[str]] = []
    lock = threading.Lock()

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        return MemoryFileSystem._strip_protocol(str(path).replace("flaky://", "memory://"))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **more: Any) -> bytes:
        with self.lock:
            self.asked.append((path.rpartition("/")[2], start, end))
            fault = self.faults.pop(0) if self.faults else ""
        if fault == "cut":
            raise ConnectionResetError("connection reset by peer")
        if fault == "500":
            raise OSError("500 Internal Server Error")
        if fault == "refused":
            raise PermissionError("403 Forbidden")
        content: bytes = super().cat_file(path, start=start, end=end, **more)
        return content[: len(content) // 2] if fault == "half" else content


fsspec.register_implementation("flaky", Flaky, clobber=True)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Flaky]:
    monkeypatch.setattr(asking, "_PAUSES", (0.001, 0.001, 0.001))
    files = Flaky()
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    files.asked.clear()
    files.faults.clear()
    yield files
    files.store.clear()


def put(store: Any, folder: Path, where: str) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.pipe_file(f"{where}/{path.relative_to(folder).as_posix()}", path.read_bytes())


def load(source: str, **data: Any) -> Dataset:
    recipe = parse_recipe({"data": {"source": source, **data}, "model": {"backbone": "bundled"}, "phases": [{"epochs": 1}]})
    return load_dataset(recipe, LOOK)


@pytest.fixture
def shards(tmp_path: Path, store: Flaky) -> Path:
    """Forty drawn images in ten shards, here and in the store at flaky:///set."""
    drawn = with_fixed_splits(open_source("shapes:40x16"), 0.2, 0.3)
    write_shards(drawn, tmp_path / "out", 5000)
    put(store, tmp_path / "out", "/set")
    return tmp_path / "out"


def test_addresses_are_told_from_paths() -> None:
    assert all(map(is_remote, ["s3://b/k", "https://x/y.tar", "gs://b", "file:///x", "S3://b"]))
    assert not any(map(is_remote, ["photos", "/photos", "./s3:/x", "shapes:10x10", "C:\\photos", "a b://c"]))
    with pytest.raises(UsageError, match=r"data.source: nosuch://x: .*nosuch"):
        remote("nosuch://x")


def test_a_remote_folder_is_read_as_the_folder_itself(photos: Path, store: Flaky) -> None:
    put(store, photos, "/photos")
    here, there = open_source(str(photos)), open_source("flaky:///photos/")
    assert (there.ids, there.classes, there.name) == (here.ids, here.classes, here.name)
    assert [there.images.read(k) for k in range(len(here))] == [here.images.read(k) for k in range(len(here))]
    asked = len(store.asked)
    open_source("flaky:///photos")
    assert all(name == "index.json" for name, _, _ in store.asked[asked:])  # nothing is fetched again
    store.pipe_file("/photos/red/new.png", here.images.read(0))
    assert len(open_source("flaky:///photos")) == len(here) + 1


def test_a_remote_file_is_read_as_the_file(photos: Path, store: Flaky, tmp_path: Path) -> None:
    import shutil

    archive = shutil.make_archive(str(tmp_path / "set"), "zip", photos)
    store.pipe_file("/data/set.zip", Path(archive).read_bytes())
    assert open_source("flaky:///data/set.zip").ids == open_source(archive).ids


@pytest.mark.parametrize("fault", ["cut", "500", "half"])
def test_what_fails_is_asked_again_and_comes_once(
    fault: str, store: Flaky, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_PIECE", 1000)
    content = np.random.default_rng(0).bytes(4500)
    store.pipe_file("/x/file.bin", content)
    store.faults += ["", fault, fault, "", fault]
    fetch(remote("flaky:///x/file.bin"), tmp_path / "file.bin", 4500, hashlib.sha256(content).hexdigest())
    assert (tmp_path / "file.bin").read_bytes() == content
    starts = [start for _, start, _ in store.asked]
    assert starts == [0, 1000, 1000, 1000, 2000, 2000, 3000, 4000]


def test_a_place_that_keeps_failing_is_named_and_nothing_half_is_kept(store: Flaky, tmp_path: Path) -> None:
    store.pipe_file("/x/file.bin", b"1234")
    store.faults += ["500"] * 9
    with pytest.raises(ThawlabError, match=r"flaky:///x/file.bin: could not be read in 4 tries \(500 Internal Server Error\)"):
        fetch(remote("flaky:///x/file.bin"), tmp_path / "new" / "file.bin", 4)
    assert list((tmp_path / "new").iterdir()) == []
    store.faults[:] = ["refused"]
    with pytest.raises(UsageError, match=r"access is refused \(403 Forbidden\); check the credentials"):
        content_of(remote("flaky:///x/file.bin"))
    with pytest.raises(UsageError, match="nothing is found at flaky:///y"):
        listed_files(remote("flaky:///y"))


def test_other_content_than_the_index_says_is_not_kept(store: Flaky, tmp_path: Path) -> None:
    store.pipe_file("/x/file.bin", b"1234")
    with pytest.raises(ThawlabError, match="is not what its index says"):
        fetch(remote("flaky:///x/file.bin"), tmp_path / "file.bin", 4, hashlib.sha256(b"1235").hexdigest())
    assert not (tmp_path / "file.bin").exists()


def test_errors_that_no_further_try_mends_are_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "_PAUSES", (30.0,))

    class NoCredentialsError(Exception):
        """As the clouds' library has it."""

    def refuse() -> None:
        raise NoCredentialsError("Unable to locate credentials")

    started = time.monotonic()
    with pytest.raises(UsageError, match="access is refused"):
        patiently_remote(refuse, "s3://b")
    assert time.monotonic() - started < 5


def test_a_name_that_leads_elsewhere_is_refused(store: Flaky) -> None:
    store.store["/set/../../evil.png"] = store.store.__class__()  # as only an object store can hold it
    from fsspec.implementations.memory import MemoryFile

    store.store["/set/../../evil.png"] = MemoryFile(store, "/set/../../evil.png", b"x")
    with pytest.raises(UsageError, match="a name that leads elsewhere"):
        mirrored(remote("flaky:///set"), None)


def test_data_that_do_not_fit_are_refused_before_anything_is_written(
    photos: Path, store: Flaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    from thawlab.data import mirror

    put(store, photos, "/photos")
    monkeypatch.setattr(mirror, "room_for_cache", lambda _: 100)
    with pytest.raises(UsageError, match=r"24 files, .* choose another place with --cache-dir"):
        open_source("flaky:///photos")
    assert not (cache_root() / "remote").exists()


def test_remote_shards_are_those_that_were_written(shards: Path, store: Flaky) -> None:
    here, there = load(str(shards), cache="none"), load("flaky:///set", cache="none", shuffle_buffer=8)
    assert there.fingerprint == here.fingerprint and list(there.ids) == list(here.ids)
    everything = np.arange(40)
    store.faults += ["", "cut", "500", "half"]
    assert np.array_equal(np.take(there.images, everything, axis=0), np.take(here.images, everything, axis=0))


def test_a_shard_is_fetched_once_and_ahead_where_all_are_kept(shards: Path, store: Flaky) -> None:
    data: Any = load("flaky:///set", cache="encoded")
    for _ in range(3):
        for index in np.random.default_rng(0).permutation(40).tolist():
            np.take(data.images, [index], axis=0)
    fetched = [name for name, _, _ in store.asked if name.endswith(".tar")]
    assert sorted(fetched) == sorted(path.name for path in shards.glob("*.tar"))
    again = len(store.asked)
    np.take(load("flaky:///set", cache="encoded").images, np.arange(40), axis=0)
    assert all(not name.endswith(".tar") for name, _, _ in store.asked[again:])


def copied_bytes() -> int:
    total = 0
    for path in (cache_root() / "remote").rglob("*.tar"):
        with contextlib.suppress(FileNotFoundError):  # taken away meanwhile
            total += path.stat().st_size
    return total


def test_where_few_are_kept_an_epoch_fetches_each_once_and_the_copies_stay_few(
    shards: Path, store: Flaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_store, "_AHEAD", 1)
    listing = open_recorded("flaky:///set", keeping=Keeping(caching="none", buffer=4))
    images: Any = listing.images
    sizes = [path.stat().st_size for path in shards.glob("*.tar")]
    assert images.store.limit is not None and images.store.limit < sum(sizes)
    most = 0
    for _ in range(2):
        store.asked.clear()
        order = np.arange(40)
        images.expect(order)
        for index in order.tolist():
            images.read(index)
            most = max(most, copied_bytes())
        images.store._pool.shutdown(wait=True)
        from concurrent.futures import ThreadPoolExecutor

        images.store._pool = ThreadPoolExecutor(1)
        fetched = [name for name, _, _ in store.asked if name.endswith(".tar")]
        assert len(fetched) == len(set(fetched)) and len(fetched) <= len(sizes)
    assert most <= images.store.limit + max(sizes)


@pytest.mark.usefixtures("shards")
def test_an_order_over_all_images_is_refused_where_few_are_kept() -> None:
    with pytest.raises(UsageError, match=r"set data.shuffle_buffer, for example to 20000"):
        load("flaky:///set", cache="none")
    assert len(load("flaky:///set", cache="decoded").images) == 40


def test_many_threads_read_while_copies_go_and_come(shards: Path) -> None:
    listing = open_recorded("flaky:///set", keeping=Keeping(caching="none", buffer=4))
    images: Any = listing.images
    images.store.limit = 2 * max(path.stat().st_size for path in shards.glob("*.tar"))
    expected = [open_source(str(shards)).images.read(k) for k in range(40)]
    wrong: list[int] = []

    def work(seed: int) -> None:
        for index in np.random.default_rng(seed).integers(0, 40, 150).tolist():
            if images.read(index) != expected[index]:
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-00001.tar", None, "train-00001.tar: is missing"),
        ("train-00001.tar", b"short", "has 5 bytes where the index says"),
        ("index.parquet", None, "index.parquet: is missing"),
        ("index.json", b'{"format": "thawlab shards 1"}', "is damaged"),
    ],
)
def test_remote_shards_that_do_not_fit_are_refused(
    name: str, content: bytes | None, message: str, shards: Path, store: Flaky
) -> None:
    assert shards.is_dir()
    if content is None:
        store.rm_file(f"/set/{name}")
    else:
        store.pipe_file(f"/set/{name}", content)
    with pytest.raises(UsageError, match=message):
        open_source("flaky:///set")


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A real S3 server on this machine, with an empty bucket `photos`."""
    for module in ("moto", "s3fs", "flask"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module}: pip install 's3fs' 'moto[server]'")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for key, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(key, value)
    files = fsspec.filesystem("s3", skip_instance_cache=True)
    if files.exists("photos"):  # the server keeps what the test before it put there
        files.rm("photos", recursive=True)
    files.mkdir("photos")
    yield files
    server.stop()


@pytest.mark.slow
def test_shards_are_read_from_a_real_s3_server(shards: Path, s3: Any) -> None:
    for path in shards.iterdir():
        s3.pipe_file(f"photos/set/{path.name}", path.read_bytes())
    fsspec.filesystem("s3").clear_instance_cache()
    here, there = load(str(shards)), load("s3://photos/set", cache="none", shuffle_buffer=8)
    assert there.fingerprint == here.fingerprint
    assert np.array_equal(np.take(there.images, np.arange(40), axis=0), here.images)
    with pytest.raises(UsageError, match="nothing is found at s3://photos/other"):
        open_source("s3://photos/other")
    with pytest.raises(UsageError, match="nothing is found at s3://nobucket/x"):
        open_source("s3://nobucket/x")


@pytest.mark.slow
def test_a_folder_of_an_s3_server_is_copied(photos: Path, s3: Any) -> None:
    for path in photos.rglob("*.png"):
        s3.pipe_file(f"photos/some/{path.relative_to(photos).as_posix()}", path.read_bytes())
    fsspec.filesystem("s3").clear_instance_cache()
    here, there = open_source(str(photos)), open_source("s3://photos/some")
    assert there.ids == here.ids and there.images.read(3) == here.images.read(3)


def test_where_bytes_are_kept_names_no_run_and_the_order_does() -> None:
    recipe = parse_recipe({"data": {"source": "flaky:///set"}, "model": {"backbone": "bundled"}, "phases": [{"epochs": 1}]})
    kept = recipe.model_copy(update={"data": recipe.data.model_copy(update={"cache": "encoded"})})
    mixed = recipe.model_copy(update={"data": recipe.data.model_copy(update={"shuffle_buffer": 9})})
    assert recipe.digest == kept.digest != mixed.digest
