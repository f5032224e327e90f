from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from thawlab.api import list_datasets
from thawlab.data.sources import datasets
from thawlab.errors import UsageError, listed, nearest
from thawlab.registry import Registry, about


@pytest.fixture
def fruit() -> Registry[int]:
    registry: Registry[int] = Registry("fruit")
    registry.register("pear")(1)
    registry.register("apple")(2)
    return registry


def test_a_registered_value_is_found_under_its_name(fruit: Registry[int]) -> None:
    assert fruit.get("apple") == 2
    assert "pear" in fruit and "plum" not in fruit


def test_names_are_sorted(fruit: Registry[int]) -> None:
    assert list(fruit) == ["apple", "pear"]


def test_the_decorator_returns_what_it_files() -> None:
    registry: Registry[object] = Registry("thing")

    @registry.register("this")
    def this() -> int:
        return 5

    assert registry.get("this") is this and this() == 5


def test_a_name_means_one_thing(fruit: Registry[int]) -> None:
    with pytest.raises(ValueError, match="the fruit 'pear' is already registered"):
        fruit.register("pear")(3)
    assert fruit.get("pear") == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("aple", "phases.1: there is no fruit named 'aple' (did you mean 'apple'?)"),
        ("PEAR", "phases.1: there is no fruit named 'PEAR' (did you mean 'pear'?)"),
        ("zzz", "phases.1: there is no fruit named 'zzz' (known: apple, pear)"),
    ],
)
def test_a_wrong_name_gives_the_place_and_the_nearest_name(fruit: Registry[int], name: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        fruit.get(name, "phases.1")
    assert str(error.value) == message


def test_long_lists_are_cut_and_say_how_many_there_are() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed(map(str, range(14))) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, … (14 in all)"


def test_nothing_is_suggested_that_is_not_near() -> None:
    assert nearest("resnet50", ["digits", "shapes"]) == ""


def test_the_promised_data_sets_are_registered() -> None:
    assert {"cifar10", "cifar100", "fashion-mnist", "digits", "shapes", "fruits360"} <= set(datasets)


def test_the_first_line_of_a_docstring_tells_what_an_entry_is() -> None:
    def described() -> None:
        """One line.

        And more.
        """

    assert [about(described), about(lambda: None), about(object.__new__(type("Bare", (), {"__doc__": "  "})))] == [
        "One line.",
        "",
        "",
    ]


def test_lists_show_a_plugin_without_docstring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(datasets._entries, "undescribed", lambda *_: None)  # type: ignore[arg-type,return-value]
    assert {"name": "undescribed", "about": ""} in list_datasets()


def install_plugin(folder: Path, source: str) -> None:
    """Lay out an installed distribution with an entry point, as pip would."""
    (folder / "thawlab_plums.py").write_text(source)
    info = folder / "thawlab_plums-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thawlab-plums\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[thawlab.plugins]\nplums = thawlab_plums\n")


def in_new_process(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    start = f"import sys; sys.path.insert(0, {str(folder)!r})\n"
    return subprocess.run([sys.executable, "-c", start + program], capture_output=True, text=True, check=False)


def test_an_installed_plugin_adds_a_data_set(tmp_path: Path) -> None:
    install_plugin(
        tmp_path,
        "from thawlab.data.sources import datasets\n"
        "@datasets.register('plums')\n"
        "def plums(argument, data_dir):\n    return argument\n",
    )
    done = in_new_process(
        tmp_path,
        "from thawlab.data.sources import open_source; from thawlab.registry import load_plugins\n"
        "print(open_source('plums:ripe'), load_plugins())",
    )
    assert done.stdout.strip() == "ripe ['plums']", done.stderr


def test_a_plugin_that_cannot_be_imported_is_named_in_one_line(tmp_path: Path) -> None:
    install_plugin(tmp_path, "import no_such_module_at_all\n")
    done = in_new_process(
        tmp_path,
        "from thawlab.data.sources import datasets; from thawlab.errors import ThawlabError\n"
        "try:\n    list(datasets)\nexcept ThawlabError as error:\n    print(error)",
    )
    assert done.stdout == "the plug-in 'plums' (thawlab_plums) cannot be loaded: No module named 'no_such_module_at_all'\n"
