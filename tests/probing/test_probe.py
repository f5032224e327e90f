from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import thawlab
from thawlab.errors import UsageError
from thawlab.inference import feature_cache
from thawlab.models import catalog
from thawlab.probing import probe as module
from thawlab.probing.heads import HEADS
from thawlab.probing.result import Probe

Ask = Callable[..., Probe]
LOCAL = f"local-dir:{catalog.BUNDLED}"  # the same weights under another name: nothing can be shown between the two


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("probe")


@pytest.fixture
def ask(cache: Path) -> Ask:
    def probed(source: str = "shapes:200x16", backbones: tuple[str, ...] = ("bundled",), **options: Any) -> Probe:
        given = {"sizes": [16], "shots": [2, "all"], "seeds": 2, "cache_dir": cache, **options}
        return thawlab.probe(source, backbones, **given)

    return probed


def test_every_head_is_fitted_to_every_number_of_shots(ask: Ask) -> None:
    found = ask(shots=["all", 1, 3])
    assert [(row.shots, row.head) for row in found.heads] == [(shots, head) for shots in (1, 3, None) for head in HEADS]
    assert [len(row.tests) for row in found.heads] == [2] * 8 + [1] * 4, "of all images there is one draw"
    assert [row.n_train for row in found.heads[::4]] == [10, 30, found.n["train"]]
    assert sum(found.n.values()) == 200 and found.n["test"] == 40
    best = max(found.heads[8:], key=lambda row: row.val)
    assert best.test > 0.2, "better than a guess among ten"


def test_the_json_has_what_scripts_rely_on(ask: Ask) -> None:
    document = ask().as_json()
    assert json.loads(json.dumps(document, allow_nan=False))
    assert list(document) == ["schema", "name", "fingerprint", "classes", "n", "backbones", "heads", "verdict", "notes"]
    assert (document["schema"], document["name"], len(document["classes"])) == (1, "shapes", 10)
    [backbone] = document["backbones"]
    assert (backbone["backbone"], backbone["size"], backbone["width"], backbone["images"]) == ("bundled", 16, 256, 200)
    assert backbone["parameters"] > 1e6 and backbone["seconds"] > 0
    for row in document["heads"]:
        assert set(row) == {
            *("backbone", "size", "head", "shots", "n_train", "draws", "test_accuracy", "ci95_draws", "ci95_images"),
            *("val_accuracy", "chosen", "seconds"),
        }
        assert row["shots"] in ("2", "all") and len(row["chosen"]) == row["draws"] == {"2": 2, "all": 1}[row["shots"]]
        assert row["ci95_images"][0] <= row["test_accuracy"] <= row["ci95_images"][1]
        assert (row["ci95_draws"] is None) == (row["draws"] == 1)
    assert document["verdict"]["best"]["shots"] == "all"


def test_a_second_probe_computes_no_features_and_finds_the_same(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    first, computed = ask(), []
    infer = feature_cache.infer
    monkeypatch.setattr(feature_cache, "infer", lambda *given: computed.append(len(given[2])) or infer(*given))
    again = ask(shots=[1, 2, "all"])
    assert computed == [] and again.backbones[0].computed == 0
    assert again.backbones[0].seconds == first.backbones[0].seconds, "what computing them took is remembered"
    values = [{(row.shots, row.head): (row.tests, row.chosen) for row in one.heads} for one in (first, again)]
    assert values[0].items() <= values[1].items()
    ask(sizes=[24])
    assert sum(computed) == 200


@pytest.mark.parametrize("content", ["garbage", "[]", '{"x": 1}'])
def test_what_computing_took_is_unknown_where_its_record_is_damaged(ask: Ask, cache: Path, content: str) -> None:
    first = ask()
    kept = {file: file.read_text() for file in (cache / "probe").glob("*.json")}
    for file in kept:
        file.write_text(content)
    again = ask()
    for file, text in kept.items():
        file.write_text(text)
    assert first.backbones[0].seconds is not None and again.backbones[0].seconds is None
    assert [row.tests for row in again.heads] == [row.tests for row in first.heads]


def test_test_labels_decide_nothing(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, decoded = ask(), module.decode_all

    def shuffled(*given: Any, **named: Any) -> Any:
        dataset = decoded(*given, **named)
        labels = dataset.labels.copy()
        labels[dataset.splits.test] = np.random.default_rng(0).permutation(labels[dataset.splits.test])
        return module.replace(dataset, labels=labels)

    monkeypatch.setattr(module, "decode_all", shuffled)
    blind = ask()
    assert [row.chosen for row in blind.heads] == [row.chosen for row in honest.heads]
    assert [row.vals for row in blind.heads] == [row.vals for row in honest.heads]
    assert [row.tests for row in blind.heads] != [row.tests for row in honest.heads]


def test_between_two_names_of_the_same_weights_no_difference_is_shown(ask: Ask) -> None:
    verdict = ask(backbones=("bundled", LOCAL)).verdict
    assert verdict.runner_up is not None and {verdict.best.of.backbone, verdict.runner_up.of.backbone} == {"bundled", LOCAL}
    assert verdict.paired is not None and verdict.paired.p_value == 1.0 and not verdict.shown
    assert "No difference shown on 40 test images" in verdict.text and "fewer parameters" not in verdict.text


def test_the_next_best_is_another_size_where_there_is_one_backbone(ask: Ask) -> None:
    verdict = ask(sizes=[16, 24], shots=["all"]).verdict
    assert verdict.runner_up is not None and {verdict.best.of.size, verdict.runner_up.of.size} == {16, 24}
    assert verdict.best.val >= verdict.runner_up.val
    assert ask(shots=["all"]).verdict.runner_up is None


def test_fewer_images_may_be_used(ask: Ask) -> None:
    found = ask(train_size=100)
    assert found.n["train"] + found.n["val"] == 100 and found.n["test"] == 40


def test_an_unreadable_image_is_left_out_and_named(photos: Path, ask: Ask) -> None:
    (photos / "red" / "broken.png").write_bytes(b"nothing")
    found = ask(str(photos), shots=[1])
    assert found.notes == ("1 images cannot be decoded and are left out, the first is red/broken.png",)
    assert sum(found.n.values()) == 24


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"backbones": ()}, "backbones: the list is empty"),
        ({"backbones": ("bundeld",)}, "there is no backbone 'bundeld' (did you mean 'bundled'?)"),
        ({"backbones": ("cnn5",)}, "backbone 'cnn5' has no pretrained weights"),
        ({"sizes": [4]}, "sizes = 4: 'bundled' cannot take this size"),
        ({"sizes": [2]}, "image_size = 2"),
        ({"sizes": ["x"]}, "sizes: 'x' is not a number of at least 1"),
        ({"sizes": []}, "sizes: the list is empty"),
        ({"shots": [1000]}, "shots = 1000: no class has so many training images"),
        ({"shots": []}, "shots: the list is empty"),
        ({"seeds": 0}, "seeds: '0' is not a number of at least 1"),
        ({"source": "no-such-data"}, "no-such-data"),
    ],
)
def test_bad_input_is_refused_in_one_line_before_anything_is_computed(
    options: dict[str, Any], said: str, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "cached_rows", None)
    with pytest.raises(UsageError) as error:
        ask(**options)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_the_table_has_the_best_head_of_each_backbone(ask: Ask) -> None:
    found = ask()
    rows = found.rows()
    assert len(rows) == 2 and all(len(row) == len(found.columns) for row in rows)
    assert rows[1][:3] == ["bundled", "16", "all"]
    assert float(rows[1][-1].split()[0]) == pytest.approx(100 * max(row.val for row in found.heads[4:]), abs=0.01)
    assert repr(found).splitlines()[-1] == found.verdict.text
