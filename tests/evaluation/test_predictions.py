from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from thawlab.data.preprocessing import to_tensor
from thawlab.errors import ThawlabError
from thawlab.evaluation.predictions import Predictions, load_predictions
from thawlab.inference.infer import INFERENCE_BATCH, infer
from thawlab.models.classifier import Classifier, make_head
from thawlab.models.small import backbones

CPU = torch.device("cpu")


def _table(n: int = 5, classes: int = 3) -> Predictions:
    rng = np.random.default_rng(0)
    ids = np.array([f"käse/{index} 🧀.png" for index in range(n)], dtype=np.str_)
    return Predictions(ids, rng.integers(0, classes, n), rng.normal(size=(n, classes)).astype(np.float32))


def _classifier(name: str) -> Classifier:
    torch.manual_seed(0)
    backbone = backbones.get(name)(16)
    return Classifier(backbone, make_head(int(backbone.num_features), (32,), (0.5,), 10)).to(memory_format=torch.channels_last)


def _prepare(rows: torch.Tensor) -> torch.Tensor:
    return to_tensor(rows).float() / 255


def _images(n: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_a_table_is_the_same_after_writing_and_reading(tmp_path: Path, n: int) -> None:
    table = _table(n)
    table.save(tmp_path / "predictions" / "test.npz")
    read = load_predictions(tmp_path / "predictions" / "test.npz")
    for one, other in ((table.ids, read.ids), (table.labels, read.labels), (table.logits, read.logits)):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert np.array_equal(one, other)


def test_a_table_holds_no_pickle_and_none_is_read(tmp_path: Path) -> None:
    _table().save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as table:
        assert sorted(table.files) == ["ids", "labels", "logits"]
    poison = np.array([Path("x")], dtype=object)
    np.savez(tmp_path / "b.npz", ids=poison, labels=np.zeros(1, np.int64), logits=np.zeros((1, 2), np.float32))
    with pytest.raises(ThawlabError, match=r"b\.npz: cannot be read: .*pickle"):
        load_predictions(tmp_path / "b.npz")


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(ThawlabError, match=r"nowhere\.npz: is missing; finish the training"):
        load_predictions(tmp_path / "nowhere.npz")


@pytest.mark.parametrize("damage", ["empty", "text", "head", "half", "flipped", "no logits"])
def test_a_damaged_table_is_named(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "test.npz"
    _table(200).save(file)
    content = bytearray(file.read_bytes())
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 0xFF
    versions = {"empty": b"", "text": b"hello", "head": content[:30], "half": content[: len(content) // 2], "flipped": flipped}
    if damage == "no logits":
        np.savez(file, ids=np.array(["a"]), labels=np.zeros(1, np.int64))
    else:
        file.write_bytes(versions[damage])
    with pytest.raises(ThawlabError, match=r"test\.npz: cannot be read"):
        load_predictions(file)


def test_probabilities_are_the_softmax_at_a_temperature() -> None:
    table = _table(50, 7)
    for temperature in (0.3, 1.0, 4.0):
        expected = torch.tensor(table.logits, dtype=torch.float64).div(temperature).softmax(dim=1).numpy()
        assert np.allclose(table.probabilities(temperature), expected, atol=1e-14)
        assert (table.probabilities(temperature).argmax(axis=1) == table.predicted).all()


def test_huge_logits_give_finite_probabilities() -> None:
    table = Predictions(np.array(["a"]), np.zeros(1, np.int64), np.array([[1e30, -1e30, 0.0]], np.float32))
    assert table.probabilities(0.05).tolist() == [[1.0, 0.0, 0.0]]


@pytest.mark.parametrize("name", ["cnn5", "vgg10", "resnet20", "speednet"])
def test_an_image_has_the_same_logits_bit_for_bit_however_many_stand_beside_it(name: str) -> None:
    classifier, images = _classifier(name), _images(9 * INFERENCE_BATCH + 5)
    whole = infer(classifier, images, np.arange(len(images)), _prepare, CPU)
    assert whole.shape == (len(images), 10)
    assert whole.dtype == np.float32
    for chosen in ([0], [200], [3, 1, 2], list(range(129)), [291, 0, 291], list(range(292, 100, -1))):
        assert np.array_equal(infer(classifier, images, np.array(chosen), _prepare, CPU), whole[chosen]), chosen[:3]


def test_inference_agrees_with_a_plain_forward_pass_in_eval_mode() -> None:
    classifier, images = _classifier("resnet20"), _images(20)
    logits = infer(classifier, images, np.arange(20), _prepare, CPU)
    with torch.inference_mode():
        plain = classifier.eval()(_prepare(torch.from_numpy(images)))
    assert np.allclose(logits, plain.numpy(), atol=1e-5)


def test_modes_and_statistics_are_as_before() -> None:
    classifier = _classifier("speednet").train()
    classifier.backbone.eval()
    [first] = [m for m in classifier.backbone.modules() if isinstance(m, nn.BatchNorm2d)][:1]
    first.train()
    modes = {name: module.training for name, module in classifier.named_modules()}
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    infer(classifier, _images(5), np.arange(5), _prepare, CPU)
    assert {name: module.training for name, module in classifier.named_modules()} == modes
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())


def test_modes_are_restored_when_inference_fails() -> None:
    classifier = _classifier("speednet").train()
    with pytest.raises(RuntimeError):
        infer(classifier, _images(5)[..., :2], np.arange(5), _prepare, CPU)
    assert all(module.training for module in classifier.modules())


def test_nothing_to_infer_gives_an_empty_table() -> None:
    assert len(infer(_classifier("cnn5"), _images(5), np.zeros(0, dtype=np.int64), _prepare, CPU)) == 0
