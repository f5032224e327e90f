"""The command line as users meet it: in a process of its own where exit codes and streams matter."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from thawlab.recipe import Recipe
from thawlab.run import RunFolder, find_run

VERBS = [
    "train",
    "demo",
    "evaluate",
    "predict",
    "export",
    "import",
    "compare",
    "report",
    "repair",
    "track",
    "probe",
    "study",
    "models",
    "datasets",
]
VERBS += ["serve", "studio", "data show", "data check", "data shards", "data verify"]


def thawlab(*arguments: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    program = "import sys; sys.argv[0] = 'thawlab'; from thawlab.__main__ import run; run()"
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env={**os.environ, **(env or {})}, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run trained through the command line, and its recipe file."""
    root = tmp_path_factory.mktemp("cli")
    file = root / "small.toml"
    file.write_text(
        'name = "small"\n[data]\nsource = "shapes:200x16"\nimage_size = 16\n[model]\nbackbone = "bundled"\n'
        '[[phases]]\nname = "head"\ntrain = "head"\nepochs = 2\n'
    )
    done = thawlab("train", str(file), "--runs", str(root / "runs"), "phases.0.lr=0.01", "--cache-dir", str(root / "cache"))
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout
    assert "95 % interval" in done.stdout
    assert str(root / "runs" / "small-") in done.stdout
    return root, file


def test_help_is_immediate_and_imports_neither_torch_nor_timm() -> None:
    program = (
        "import sys; sys.argv = ['thawlab', '--help']\nfrom thawlab.cli.main import app\ntry: app()\nexcept SystemExit: pass\n"
    )
    program += "print([name for name in ('torch', 'timm', 'numpy', 'pydantic') if name in sys.modules], file=sys.stderr)"
    help_seconds, typer_seconds = [], []
    for _ in range(4):
        help_seconds.append(processor_seconds(program, told="[]"))
        typer_seconds.append(processor_seconds("import typer"))
    # A machine that is busy or slow takes longer for both; what reads the verbs is the measure.
    assert min(help_seconds) < 2.5 * min(typer_seconds), (help_seconds, typer_seconds)


def processor_seconds(program: str, told: str = "") -> float:
    before = os.times()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == told
    return sum(os.times()[2:4]) - sum(before[2:4])


def test_the_version_is_told_in_one_line() -> None:
    done = thawlab("--version")
    assert (done.returncode, done.stdout) == (0, f"thawlab {version('thawlab')}\n")


def test_python_dash_m_runs_the_same_program() -> None:
    done = subprocess.run([sys.executable, "-m", "thawlab", "datasets"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "digits" in done.stdout


def test_leaving_at_once_loses_no_output(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    with file.open("w") as stream:
        program = "import sys; sys.argv[0] = 'thawlab'; from thawlab.__main__ import run; run()"
        done = subprocess.run([sys.executable, "-c", program, "models", "resnet*", "--json"], stdout=stream, check=False)
    assert done.returncode == 0
    assert len(json.loads(file.read_text())["models"]) > 5


def test_importing_the_package_is_cheap_and_offers_its_names() -> None:
    program = "import sys, thawlab; assert not {'torch', 'timm'} & set(sys.modules); "
    program += "print(thawlab.train.__name__, thawlab.Recipe.__name__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["train", "Recipe"], done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    done = thawlab(*verb.split(), "--help")
    assert done.returncode == 0
    assert f"Example: thawlab {verb}" in done.stdout


def test_json_is_one_document_and_nothing_else(trained: tuple[Path, Path]) -> None:
    root, file = trained
    done = thawlab("train", str(file), "--runs", str(root / "runs"), "phases.0.lr=0.01", "--json")
    document = json.loads(done.stdout)
    assert document["schema"] == 1
    assert Path(document["run"]).is_dir()


def test_a_finished_recipe_is_not_trained_again(trained: tuple[Path, Path]) -> None:
    root, file = trained
    done = thawlab("train", str(file), "--runs", str(root / "runs"), "phases.0.lr=0.01")
    assert "already finished" in done.stderr
    assert len(list((root / "runs").iterdir())) == 1


def test_evaluate_repeats_the_results(trained: tuple[Path, Path]) -> None:
    root, _ = trained
    run = next((root / "runs").iterdir())
    done = thawlab("evaluate", run.name, "--runs", str(root / "runs"), "--json")
    measured = json.loads(done.stdout)
    recorded = json.loads((run / "results.json").read_text())["test"]
    assert {key: measured[key] for key in recorded} == recorded


def test_predict_shows_a_table_and_names_what_it_cannot_read(trained: tuple[Path, Path], photos: Path) -> None:
    root, _ = trained
    (photos / "red" / "broken.png").write_bytes(b"nothing")
    run = next((root / "runs").iterdir()).name
    table = thawlab("predict", run, str(photos / "red"), "--runs", str(root / "runs"), "--top-k", "2")
    assert table.returncode == 0
    assert "not an image in a supported format" in table.stdout
    assert "00.png" in table.stdout
    document = json.loads(thawlab("predict", run, str(photos / "red"), "--runs", str(root / "runs"), "--json").stdout)
    assert len(document["predictions"]) == 13
    assert sum("error" in entry for entry in document["predictions"]) == 1
    first = document["predictions"][0]["predictions"]
    assert [entry["probability"] for entry in first] == sorted((entry["probability"] for entry in first), reverse=True)


def test_report_can_be_written_again(trained: tuple[Path, Path]) -> None:
    root, _ = trained
    run = next((root / "runs").iterdir())
    (run / "report.html").unlink()
    done = thawlab("report", run.name, "--runs", str(root / "runs"))
    assert done.returncode == 0
    assert (run / "report.html").is_file()


def test_repair_writes_again_what_is_missing(trained: tuple[Path, Path]) -> None:
    root, _ = trained
    run = next((root / "runs").iterdir())
    before = (run / "predictions" / "test.npz").read_bytes()
    (run / "predictions" / "test.npz").unlink()
    done = thawlab("repair", run.name, "--runs", str(root / "runs"))
    assert (done.returncode, done.stdout) == (0, f"{run}\n"), done.stderr
    assert (run / "predictions" / "test.npz").read_bytes() == before


def test_data_check_finds_what_is_wrong_and_training_leaves_it_out(photos: Path, tmp_path: Path) -> None:
    first = sorted(photos.rglob("*.png"))[0]
    shutil.copy(first, first.with_name("copy.png"))
    before = {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()}
    cache = ("--cache-dir", str(tmp_path / "cache"))
    files = ("--page", str(tmp_path / "check.html"), "--write-clean", str(tmp_path / "list.csv"))
    done = thawlab("data", "check", str(photos), *files, *cache)
    assert done.returncode == 0, done.stderr
    assert "found more than once" in done.stdout
    assert (tmp_path / "check.html").is_file()
    found = json.loads(thawlab("data", "check", str(photos), "--json", *cache).stdout)
    assert found["identical"]["count"] == 1
    assert {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()} == before
    settings = ("phases.0.epochs=1", "phases.1.epochs=1", f"data.exclude={tmp_path / 'list.csv'}")
    trained = thawlab(
        "train", str(photos), "--backbone", "bundled", "--size", "16", "--runs", str(tmp_path / "runs"), *cache, *settings
    )
    assert trained.returncode == 0, trained.stderr
    [data] = (tmp_path / "runs").glob("*/data.json")
    assert sum(json.loads(data.read_text())["n"].values()) == found["n"] - 1


def test_data_check_of_nothing_is_wrong_usage() -> None:
    done = thawlab("data", "check", "photoz")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1


def test_data_show_counts_and_writes_a_sheet(photos: Path, tmp_path: Path) -> None:
    done = thawlab("data", "show", str(photos), "--sheet", str(tmp_path / "sheet.png"))
    assert "24 images, 2 classes" in done.stdout
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    shown = json.loads(thawlab("data", "show", str(photos), "--json").stdout)
    assert shown["classes"] == [{"class": "blue", "train": 12}, {"class": "red", "train": 12}]


def test_lists_of_models_and_data_sets() -> None:
    names = {row["name"] for row in json.loads(thawlab("models", "--json").stdout)["models"]}
    assert {"bundled", "cnn5", "vgg10", "resnet20", "speednet", "ResNet50", "EfficientNetV2B0", "MobileNetV2"} <= names
    found = {row["name"] for row in json.loads(thawlab("models", "resnet50.a1*", "--json").stdout)["models"]}
    assert "timm/resnet50.a1_in1k" in found
    sets = {row["name"] for row in json.loads(thawlab("datasets", "--json").stdout)["datasets"]}
    assert sets == {"cifar10", "cifar100", "fashion-mnist", "digits", "shapes", "fruits360"}


WRONG = [
    (["train", "small.toml", "data.sorce=x"], 2, "data.sorce is not a key (did you mean 'source'?)"),
    (
        ["train", "small.toml", "phases.0.optimizer=adm"],
        2,
        "phases.0.optimizer = 'adm' must be one of sgd, adam, adamw, muon (did you mean 'adam'?)",
    ),
    (["train", "small.toml", "phases.0.epochs=many"], 2, "phases.0.epochs = 'many'"),
    (["train", "small.toml", "phases.7.epochs=1"], 2, "phases has 1 entries"),
    (["train", "small.toml", "data.resize=padd"], 2, "(did you mean 'pad'?)"),
    (["train", "small.toml", "phases.0.train=heads"], 2, "(did you mean 'head'?)"),
    (["train", "small.toml", "nonsense"], 2, "'nonsense' is not an override"),
    (["train", "smal.toml"], 2, "there is no such recipe (did you mean 'small.toml'?)"),
    (["train", "fotos"], 2, "'fotos' is neither a data set nor a path (did you mean 'photos'?)"),
    (["train", "photos", "--backbone", "restnet50"], 2, "there is no backbone 'restnet50' (did you mean 'resnet50'?)"),
    (["train", "photos", "--backbone", "local-dir:nowhere"], 2, "there is no folder nowhere"),
    (["train", "photos", "--backbone", "cnn5", "--size", "4"], 2, "data.image_size"),
    (["train", "photos", "--device", "cuda7"], 2, "system.device"),
    (["train", "data.train_size=3"], 2, "name the recipe or the images first"),
    (["train"], 2, "Missing argument"),
    (["trian"], 2, "Did you mean 'train'"),
    (["train", "photos", "--sise", "4"], 2, "No such option"),
    (["evaluate", "nothing"], 2, "there is no run 'nothing'"),
    (["report", "photos"], 2, "this folder is not a run"),
    (["predict", "nothing", "photos"], 2, "there is no run 'nothing'"),
    (["predict", "nothing"], 2, "give images to predict, or --watch FOLDER"),
    (["predict", "nothing", "photos", "--watch", "photos"], 2, "give images to predict, or --watch FOLDER"),
    (["predict", "nothing", "--watch", "photos"], 2, "--watch needs --out FILE.jsonl"),
    (["predict", "nothing", "photos", "--out", "x.csv", "--explain", "maps"], 2, "leave out --out, or --explain"),
    (["data", "show", "photoz"], 2, "(did you mean 'photos'?)"),
    (["data", "show", "notes.txt"], 2, "not a source of images"),
    (["models", "resnt"], 2, "no backbone matches 'resnt'"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), WRONG, ids=[" ".join(case[0]) for case in WRONG])
def test_wrong_usage_is_one_clear_line_and_leaves_nothing_behind(
    arguments: list[str], code: int, words: str, photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # In this process: a fresh one would spend seconds on imports for each of these.
    from thawlab.cli.main import app

    folder = photos.parent
    (folder / "notes.txt").write_text("no images")
    (folder / "small.toml").write_text(
        '[data]\nsource = "photos"\n[model]\nbackbone = "bundled"\n[[phases]]\ntrain = "head"\nepochs = 1\n'
    )
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["thawlab", *arguments])
    with pytest.raises(SystemExit) as left:
        app()
    errors = capsys.readouterr().err
    assert left.value.code == code
    assert words in errors
    assert "Traceback" not in errors
    assert len([line for line in errors.splitlines() if not line.startswith(("Usage:", " ", "Try '", "note:")) and line]) == 1
    assert not (folder / "runs").exists() or not list((folder / "runs").glob("*/checkpoints"))


def test_a_missing_network_is_told_in_one_line_with_the_ways_around_it(photos: Path, tmp_path: Path) -> None:
    env = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hub")}
    done = thawlab("train", str(photos), "--backbone", "timm/resnet18.a1_in1k", "--size", "32", "--runs", str(tmp_path), env=env)
    assert done.returncode == 1
    assert "127.0.0.1:9" in done.stderr
    assert "local-dir:FOLDER" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_folder_of_photos_becomes_a_classifier(photos: Path, tmp_path: Path) -> None:
    damaged = photos / "red" / "half.png"
    damaged.write_bytes((photos / "red" / "00.png").read_bytes()[:200])
    done = thawlab(
        "train",
        str(photos),
        "--backbone",
        "bundled",
        "--size",
        "32",
        "phases.1.epochs=1",
        "phases.0.epochs=3",
        "--runs",
        str(tmp_path / "runs"),
    )
    assert done.returncode == 0, done.stderr
    assert "red/half.png is left out: damaged" in done.stderr
    [run] = list((tmp_path / "runs").iterdir())
    assert run.name.startswith("photos-bundled-")
    assert json.loads((run / "data.json").read_text())["quarantined"]["count"] == 1
    assert damaged.is_file()
    assert (run / "report.html").is_file()


def test_a_backbone_set_as_an_override_gets_the_phases_that_fit_it(photos: Path, tmp_path: Path) -> None:
    settings = ["model.backbone=cnn5", "--size", "16", "phases.0.epochs=1", "--runs", str(tmp_path / "runs")]
    done = thawlab("train", str(photos), *settings)
    assert done.returncode == 0, done.stderr
    [run] = list((tmp_path / "runs").iterdir())
    assert run.name.startswith("photos-cnn5-")


def test_characters_beyond_the_basic_plane_survive_the_command_line() -> None:
    done = thawlab("train", "digits", "--backbone", "local-dir:w😀")
    assert done.returncode == 2
    assert "there is no folder w😀" in done.stderr


def test_runs_are_found_by_name_path_and_beginning(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "small-0123456789ab")
    folder.path.mkdir()
    folder.recipe_file.write_text(recipe().to_toml())
    for name in (folder.name, str(folder.path), "small"):
        assert find_run(name, tmp_path).path == folder.path
