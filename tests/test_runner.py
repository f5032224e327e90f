"""Whole small runs: what must be equal is compared bit for bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_runs import assert_same_run, small_phase

from thawlab.errors import ThawlabError, UsageError
from thawlab.files import cache_root, read_json
from thawlab.models.catalog import BUNDLED, resolve_backbone
from thawlab.models.classifier import Classifier, build_classifier
from thawlab.models.saved import load_model
from thawlab.plan.resolve import resolve
from thawlab.recipe import Recipe
from thawlab.results import read_results, read_rows
from thawlab.run import RunFolder
from thawlab.runner import train
from thawlab.training import loop
from thawlab.training.phase_data import PhaseData
from thawlab.training.validation import Validation

Make = Callable[..., Recipe]


def assert_close_rows(one: RunFolder, two: RunFolder) -> None:
    for row, other in zip(read_rows(one.metrics), read_rows(two.metrics), strict=True):
        assert row.train_loss == pytest.approx(other.train_loss, rel=1e-3)
        assert row.val_loss == pytest.approx(other.val_loss, rel=1e-3)


def test_the_run_folder_holds_what_the_design_promises(recipe: Make, tmp_path: Path) -> None:
    folder = train(recipe(), tmp_path)
    assert folder.path.name == f"small-{resolve(recipe())[0].digest[:12]}"
    wanted = ["recipe.toml", "environment.json", "data.json", "state.json", "log.txt", "metrics.jsonl", "checkpoints/last.pt"]
    wanted += [
        "model/model.safetensors",
        "model/model.json",
        "model/known.safetensors",
        "predictions/val.npz",
        "predictions/test.npz",
        "results.json",
    ]
    assert [name for name in wanted if not (folder.path / name).is_file()] == []
    results = read_json(folder.results)
    keys = ["schema", "name", "digest", "seed", "dataset", "model", "phases"]
    assert list(results) == [
        *keys,
        "train",
        "val",
        "test",
        "abstention",
        "novelty",
        "label_suspects",
        "near_duplicates",
        "shift",
        "gap",
        "diagnoses",
        "seconds",
    ]
    assert results["dataset"]["n_train"] + results["dataset"]["n_val"] + results["dataset"]["n_test"] == 300
    assert [phase["name"] for phase in results["phases"]] == ["head", "all"]
    assert results["gap"] == pytest.approx(results["train"]["accuracy"] - results["test"]["accuracy"])
    assert folder.status == "finished"
    assert not list(folder.path.rglob("*.tmp"))


def test_a_backbone_learns_what_is_in_the_images(recipe: Make, tmp_path: Path) -> None:
    folder = train(recipe("data.source=shapes:600x16", "phases.0.epochs=10", "phases.1.epochs=4"), tmp_path)
    assert read_results(folder.results).test.accuracy > 0.5  # chance is 0.1
    rows = read_rows(folder.metrics)
    assert rows[-1].train_loss < rows[0].train_loss


def test_the_same_recipe_twice_gives_the_same_bytes(recipe: Make, tmp_path: Path) -> None:
    assert_same_run(train(recipe(), tmp_path / "a"), train(recipe(), tmp_path / "b"))


def test_another_seed_gives_another_run(recipe: Make, tmp_path: Path) -> None:
    one, two = train(recipe(), tmp_path), train(recipe("seed=1"), tmp_path)
    assert one.path != two.path
    assert (one.model / "model.safetensors").read_bytes() != (two.model / "model.safetensors").read_bytes()


def test_workers_and_an_empty_cache_change_nothing(recipe: Make, tmp_path: Path) -> None:
    one = train(recipe("data.image_size=20", "system.workers=1"), tmp_path / "a")
    shutil.rmtree(cache_root())
    two = train(recipe("data.image_size=20", "system.workers=5"), tmp_path / "b")
    assert_same_run(one, two)


def test_features_shared_from_another_run_change_nothing(recipe: Make, tmp_path: Path) -> None:
    fresh = train(recipe(), tmp_path / "a")
    shutil.rmtree(cache_root())
    train(recipe("data.train_size=77"), tmp_path / "b")  # fills the cache with a part, in another order
    assert_same_run(fresh, train(recipe(), tmp_path / "c"))


def test_frozen_means_bit_identical_backbone(recipe: Make, tmp_path: Path) -> None:
    head_only = recipe(phases=[{"name": "head", "train": "head", "epochs": 2, "batch_norm": "train"}])
    resolved, spec = resolve(head_only)
    before = build_classifier(resolved, spec, 16, 10).backbone.state_dict()
    after = load_model(train(head_only, tmp_path).model).classifier.backbone.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def uncached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every phase train on images."""
    monkeypatch.setattr("thawlab.training.phase_data._parts", lambda _: None)


@pytest.mark.parametrize(
    ("train_what", "settings"),
    [
        ("head", {}),
        ("head", {"augment": ["flip"]}),
        ("head", {"augment": ["alternate-flip"]}),
        ("stages:2", {"lr": 1e-3}),
        ("last:3", {"lr": 1e-3, "augment": ["flip"]}),
    ],
)
def test_cached_and_uncached_phases_agree(
    recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train_what: str, settings: dict[str, Any]
) -> None:
    phase = {"name": "part", "train": train_what, "epochs": 3, "lr": 0.01, "batch_size": 32, **settings}
    small = recipe(phases=[phase])
    cached = train(small, tmp_path / "a")
    assert "frozen and cached" in (cached.path / "log.txt").read_text()
    uncached(monkeypatch)
    whole = train(small, tmp_path / "b")
    assert "cached" not in (whole.path / "log.txt").read_text()
    assert_close_rows(cached, whole)
    assert read_results(cached.results).test.loss == pytest.approx(read_results(whole.results).test.loss, rel=1e-3)


def test_alternating_flips_show_every_image_both_ways_in_two_epochs(
    recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, bool]] = []
    original = PhaseData.take

    def take(
        self: PhaseData, samples: Any, generator: torch.Generator, mirrored: Any = None, part: slice = slice(None)
    ) -> torch.Tensor:
        rows = original(self, samples, generator, mirrored, part)
        if mirrored is not None:
            plain = original(self, samples, generator)
            for sample, turned, row, before in zip(samples, mirrored, rows, plain, strict=True):
                assert torch.equal(row, before.flip(1) if turned else before)  # height × width × channel
                seen.append((int(sample), bool(turned)))
        return rows

    monkeypatch.setattr(PhaseData, "take", take)
    train(recipe(phases=[small_phase(augment=["alternate-flip", "crop:2"], epochs=2)]), tmp_path)
    assert len(set(seen)) == len(seen) == 2 * len({sample for sample, _ in seen})


def test_training_at_growing_sizes_is_judged_at_the_full_one(
    recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides: list[int] = []
    original = Classifier.forward

    def forward(self: Classifier, x: torch.Tensor) -> torch.Tensor:
        if self.training and (not sides or sides[-1] != x.shape[-1]):
            sides.append(x.shape[-1])
        return original(self, x)

    monkeypatch.setattr(Classifier, "forward", forward)
    folder = train(recipe("data.image_size=32", phases=[small_phase(sizes=[16, 24, 32])]), tmp_path)
    assert sides == [16, 24, 32]
    assert load_model(folder.model).card.preprocessing.size == 32


def test_a_phase_before_the_last_may_stay_below_the_size_that_is_judged(recipe: Make, tmp_path: Path) -> None:
    both = [small_phase(sizes=[16, 24]), small_phase(name="refine")]
    folder = train(recipe("data.image_size=32", phases=both), tmp_path)
    assert load_model(folder.model).card.preprocessing.size == 32


def test_epochs_of_smaller_images_than_a_phases_last_do_not_compete(
    recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides, accuracies = [], iter([0.9, 0.8, 0.5, 0.6, 0.7, 0.7])

    def validated(*_: Any) -> Validation:
        return Validation(next(accuracies), 1.0)

    original = PhaseData.judged

    def judged(self: PhaseData, rows: torch.Tensor) -> torch.Tensor:
        inputs = original(self, rows)
        sides.append(inputs.shape[-1])
        return inputs

    monkeypatch.setattr(loop, "validate", validated)
    monkeypatch.setattr(PhaseData, "judged", judged)
    both = [small_phase(sizes=[16, 24], epochs=4), small_phase(name="refine", epochs=2)]
    folder = train(recipe("data.image_size=32", phases=both), tmp_path)
    assert [phase.best_epoch for phase in read_results(folder.results).phases] == [4, 1]
    assert list(dict.fromkeys(sides)) == [24, 32]


def test_sizes_that_a_network_cannot_take_are_refused_before_training(recipe: Make, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"phases\.0\.sizes = 16: 'vgg10' cannot take this size"):
        train(recipe("model.backbone=vgg10", "data.image_size=32", phases=[small_phase(sizes=[16, 32])]), tmp_path)
    for sizes in ([16], [64, 32]):
        with pytest.raises(UsageError, match=r"phases\.0\.sizes = .*: must end with data\.image_size = 32 and not exceed it"):
            train(recipe("model.backbone=cnn5", "data.image_size=32", phases=[small_phase(sizes=sizes)]), tmp_path)
    with pytest.raises(UsageError, match=r"phases\.0\.sizes = .*: must not exceed data\.image_size = 32"):
        both = [small_phase(sizes=[64]), small_phase(name="refine")]
        train(recipe("model.backbone=cnn5", "data.image_size=32", phases=both), tmp_path)
    with pytest.raises(UsageError, match="sizes: only a phase that trains all layers"):
        recipe(phases=[small_phase(sizes=[16], train="head")])


def test_fixed_random_views_are_stated_kept_and_differ_from_each_other(recipe: Make, tmp_path: Path) -> None:
    phases = [
        {"name": "head", "train": "head", "epochs": 4, "augment": ["rotate:20", "brightness:0.3"], "views": 3, "batch_size": 32}
    ]
    folder = train(recipe(phases=phases), tmp_path / "a")
    assert "in 3 fixed random views of each image" in (folder.path / "log.txt").read_text()
    marks = [path for path in (cache_root() / "features").rglob("rows.bin")]
    assert len(marks) == 5  # plain, three views, and the corrupted images that show how the classifier bears them
    assert len({path.read_bytes() for path in marks}) == 5
    assert_same_run(folder, train(recipe(phases=phases), tmp_path / "b"))


def test_a_head_phase_with_augmentation_says_that_it_is_not_cached(recipe: Make, tmp_path: Path) -> None:
    augmented = recipe("phases.0.augment=['rotate:10']")
    folder = train(augmented, tmp_path)
    assert "head: not cached" in (folder.path / "log.txt").read_text()


def test_a_finished_run_is_returned_without_training(recipe: Make, tmp_path: Path) -> None:
    folder = train(recipe(), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*") if path.is_file()}
    train(recipe("system.workers=1"), tmp_path)
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*") if path.is_file()} == before


def test_early_stopping_ends_the_phase_and_restores_the_best_epoch(recipe: Make, tmp_path: Path) -> None:
    phases = [{"name": "head", "train": "head", "epochs": 60, "lr": 0.3, "batch_size": 32, "patience": 2}]
    folder = train(recipe(phases=phases), tmp_path)
    results = read_results(folder.results)
    [phase] = results.phases
    accuracies = [row.val_accuracy for row in read_rows(folder.metrics) if row.val_accuracy is not None]
    assert phase.stopped == "patience"
    assert phase.epochs_run == len(accuracies) == phase.best_epoch + 2 < 60
    assert phase.best_val_accuracy == max(accuracies) == accuracies[phase.best_epoch - 1]
    assert results.val.accuracy == phase.best_val_accuracy


def test_without_validation_the_last_weights_are_kept(recipe: Make, tmp_path: Path) -> None:
    results = read_results(train(recipe("data.val=0"), tmp_path).results)
    assert results.val.n == 0
    assert [phase.best_epoch for phase in results.phases] == [3, 2]
    assert results.test.temperature == 1.0


def test_mixing_label_smoothing_and_bfloat16_train(recipe: Make, tmp_path: Path) -> None:
    mixed = recipe(
        "precision=bfloat16",
        "phases.1.augment=['flip','mixup:0.3','cutmix','erase:0.5','randaugment:1:5']",
        "phases.1.label_smoothing=0.1",
    )
    assert read_results(train(mixed, tmp_path).results).test.n == 60


def test_a_timm_backbone_trains_in_stages(recipe: Make, mobilenet: str, tmp_path: Path) -> None:
    phases = [
        {"name": "head", "train": "head", "epochs": 2, "lr": 0.01},
        {"name": "last-stage", "train": "stages:1", "epochs": 1, "lr": 1e-3},
        {"name": "last-layers", "train": "last:5", "epochs": 1, "lr": 1e-3, "layer_decay": 0.9},
    ]
    model = {"backbone": mobilenet, "head": [32], "dropout": [0.2]}
    folder = train(recipe("data.source=shapes:200x48", "data.image_size=48", model=model, phases=phases), tmp_path)
    results = read_results(folder.results)
    trained = [phase.trainable_parameters for phase in results.phases]
    assert trained[0] < trained[2] < trained[1] < results.model.parameters
    before = build_classifier(*resolve(folder.recipe), 48, 10).backbone.state_dict()
    after = load_model(folder.model).classifier.backbone.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert {name.split(".")[0] for name in moved} <= {"blocks", "conv_head", "bn2"}
    assert not any("running" in name for name in moved)  # pretrained: BatchNorm statistics stay by default


def test_a_diverging_run_says_where_and_what_to_do(recipe: Make, tmp_path: Path) -> None:
    with pytest.raises(ThawlabError, match=r"phase 'all', epoch \d, step \d+: the loss is (nan|inf).*lower its lr"):
        train(recipe("phases.1.optimizer=sgd", "phases.1.lr=1e8", "phases.1.batch_norm=train"), tmp_path)


def test_a_finished_run_is_not_shown_for_other_images(recipe: Make, photos: Path, tmp_path: Path) -> None:
    small = recipe(f"data.source={photos}", "data.image_size=16")
    folder = train(small, tmp_path / "runs")
    assert train(recipe(f"data.source={photos}/", "data.image_size=16"), tmp_path / "runs").path == folder.path
    shutil.copy(photos / "blue" / "00.png", photos / "red" / "00.png")
    with pytest.raises(ThawlabError, match="the data changed since this run began"):
        train(small, tmp_path / "runs")
    shutil.rmtree(photos)
    assert train(small, tmp_path / "runs").path == folder.path  # gone is not changed: the results can still be read


def test_a_finished_run_is_not_shown_for_other_weights(recipe: Make, tmp_path: Path) -> None:
    shutil.copytree(BUNDLED, tmp_path / "weights")
    small = recipe(f"model.backbone=local-dir:{tmp_path / 'weights'}")
    train(small, tmp_path / "runs")
    tensors = load_file(tmp_path / "weights" / "model.safetensors")
    save_file({name: value * 2 for name, value in tensors.items()}, tmp_path / "weights" / "model.safetensors")
    with pytest.raises(ThawlabError, match="the weights changed since this run began"):
        train(small, tmp_path / "runs")


def test_networks_that_differ_in_their_arguments_share_no_features(recipe: Make, mobilenet: str, tmp_path: Path) -> None:
    source = Path(mobilenet.removeprefix("local-dir:"))
    digests = set()
    for pool in ("avg", "max"):
        folder = tmp_path / pool
        shutil.copytree(source, folder, copy_function=shutil.copyfile)
        config = json.loads((folder / "config.json").read_text())
        config["model_args"]["global_pool"] = pool
        (folder / "config.json").write_text(json.dumps(config))
        phases = [{"name": "head", "train": "head", "epochs": 1}]
        run = train(recipe(f"model.backbone=local-dir:{folder}", "data.image_size=64", phases=phases), tmp_path / "runs")
        digests.add((run.model / "model.safetensors").read_bytes())
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("overrides", "message"), [(["data.val=0"], "outputs contain NaN or infinity"), ([], "epoch 1, step 2: .*")]
)
def test_a_run_that_diverges_in_its_last_step_says_so(recipe: Make, tmp_path: Path, overrides: list[str], message: str) -> None:
    phases = [{"name": "scratch", "epochs": 1, "optimizer": "sgd", "lr": 1e30, "batch_size": 10_000}]
    with pytest.raises(ThawlabError, match=message):
        train(recipe("model.backbone=cnn5", *overrides, phases=phases), tmp_path)
    assert not list(tmp_path.glob("*/model"))


def test_wrong_data_leave_no_run_behind(recipe: Make, photos: Path, tmp_path: Path) -> None:
    shutil.rmtree(photos / "red")
    for settings in ([f"data.source={photos}"], ["phases.1.train=stages:99"], ["model.backbone=local-dir:/nowhere"]):
        with pytest.raises(UsageError):
            train(recipe(*settings), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_names_that_only_other_rooms_know_are_checked_before_training(recipe: Make, tmp_path: Path) -> None:
    cases = {
        "phases.1.augment=['flop']": r"phases\.1\.augment\[0\]: there is no augmentation named 'flop' \(did you mean 'flip'\?\)",
        "model.backbone=bundeld": r"no backbone 'bundeld' \(did you mean 'bundled'\?\)",
        "system.device=gpu0": "there is no device 'gpu0'",
        "data.source=digit": r"'digit' is neither a data set nor a path \(did you mean 'digits'\?\)",
        "data.train_size=5000": r"data\.train_size = 5000: shapes has 240 images",
        "phases.1.train=stages:99": r"phases\.1\.train = 'stages:99': the backbone has 3 stages",
        "phases.1.augment=['crop:40']": "'crop:40' pads by more than the images' 16 pixels",
    }
    for override, message in cases.items():
        with pytest.raises(UsageError, match=message) as caught:
            train(recipe(override), tmp_path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="random weights"):
        train(recipe("model.backbone=cnn5"), tmp_path)
    with pytest.raises(
        UsageError, match=r"data\.val = 0 leaves no validation images, which phases\.\d\.patience \(early stopping\) needs"
    ):
        train(recipe("data.val=0", "phases.0.patience=2"), tmp_path)
    assert not list(tmp_path.glob("*/checkpoints"))


def test_a_shuffle_buffer_and_balanced_sampling_are_two_orders(recipe: Make) -> None:
    with pytest.raises(UsageError, match=r'data.shuffle_buffer: sampling = "balanced" draws from all images at once'):
        recipe("data.shuffle_buffer=60", "phases.1.sampling=balanced")


def test_environment_and_data_are_described(recipe: Make, tmp_path: Path) -> None:
    folder = train(recipe(), tmp_path)
    environment = json.loads((folder.path / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__.split("+")[0]
    data = json.loads((folder.path / "data.json").read_text())
    assert data["n"] == {"train": 210, "val": 30, "test": 60}
    assert resolve_backbone("bundled").has_weights


@pytest.mark.parametrize("extra", [[], ["phases.1.ema=0.9"]])
def test_accumulated_batches_equal_whole_ones(recipe: Make, tmp_path: Path, extra: list[str]) -> None:
    settings = ["phases.1.augment=[]", "phases.1.clip=10.0", "phases.1.optimizer=sgd", "phases.1.lr=0.03", *extra]
    whole = train(recipe(*settings), tmp_path)
    parts = train(recipe(*settings, "phases.1.accumulate=4"), tmp_path)
    assert whole.path != parts.path
    assert_close_rows(whole, parts)


def test_clipping_bounds_what_a_step_can_do(recipe: Make, tmp_path: Path) -> None:
    phases = [{"name": "all", "optimizer": "sgd", "momentum": 0.0, "lr": 1.0, "epochs": 1, "clip": 1e-6, "batch_size": 240}]
    folder = train(recipe("data.val=0", phases=phases), tmp_path)
    before = build_classifier(*resolve(folder.recipe), 16, 10).state_dict()
    after = load_model(folder.model).classifier.state_dict()
    distance = sum(float((after[name] - before[name]).double().square().sum()) for name in before) ** 0.5
    assert distance == pytest.approx(1e-6, rel=0.05)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")]
)
def test_too_little_memory_says_what_needs_less(
    error: Exception, recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("thawlab.runner.fit", fail)
    with pytest.raises(ThawlabError) as caught:
        train(recipe(phases=[small_phase(batch_size=24, accumulate=2)]), tmp_path)
    same = "phases.0.batch_size=24 phases.0.accumulate=4 takes the same steps in parts of 6"
    assert f"{same}; phases.0.batch_size=auto finds parts that fit" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_is_judged_again_from_another_folder(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import thawlab

    monkeypatch.chdir(photos.parent)
    settings = {"model.backbone": "cnn5", "data.image_size": 16, "phases.0.epochs": 1, "phases.0.augment": []}
    run = thawlab.train("photos", runs=photos.parent / "runs", **settings)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert thawlab.evaluate(run).measured.accuracy == run.results.test.accuracy
    monkeypatch.undo()
    photos.rename(photos.with_name("gone"))
    with pytest.raises(
        UsageError, match=r"data\.source: 'photos' is neither a data set nor a path, looked for here and from .*runs/photos"
    ):
        thawlab.evaluate(run)


def test_a_recipe_finds_its_images_beside_itself(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import thawlab

    (photos.parent / "recipes").mkdir()
    text = (
        '[data]\nsource = "photos"\nimage_size = 16\n[model]\nbackbone = "cnn5"\n[[phases]]\nname = "a"\nepochs = 1\nlr = 0.01\n'
    )
    (photos.parent / "recipes" / "a.toml").write_text(text)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert thawlab.train(photos.parent / "recipes" / "a.toml").results.dataset.n_train == 16
