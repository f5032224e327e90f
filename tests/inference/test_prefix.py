import pytest
import torch

from thawlab.inference.prefix import agrees, from_rows, split_backbone
from thawlab.models.catalog import resolve_backbone
from thawlab.models.classifier import Classifier, build_backbone, make_head
from thawlab.training.freezing import freeze, set_modes

NETWORKS = [
    ("resnet20", 32, ["stages:1", "last:3"]),
    ("speednet", 32, ["stages:2", "last:1"]),
    ("timm/mobilenetv2_100.ra_in1k", 64, ["stages:1", "last:3", "last:20"]),
    ("timm/resnet18.a1_in1k", 64, ["stages:1", "last:4"]),
    ("timm/convnext_atto.d2_in1k", 64, ["stages:1"]),
    ("timm/vit_tiny_patch16_224.augreg_in21k", 224, ["stages:1", "last:3"]),
]


def prepared(name: str, size: int, train: str) -> Classifier:
    backbone = build_backbone(resolve_backbone(name), size)
    classifier = Classifier(backbone, make_head(8, [], [], 2)).to(memory_format=torch.channels_last)
    freeze(classifier, train)
    set_modes(classifier, "train")
    return classifier


@pytest.mark.parametrize(("name", "size", "train"), [(n, s, t) for n, s, trains in NETWORKS for t in trains])
def test_the_parts_give_what_the_whole_gives_and_share_its_layers(name: str, size: int, train: str) -> None:
    backbone = prepared(name, size, train).backbone
    split = split_backbone(backbone)
    assert split is not None
    inputs = torch.randn(3, 3, size, size).contiguous(memory_format=torch.channels_last)
    assert agrees(split, backbone, inputs)
    assert not any(parameter.requires_grad for parameter in split.prefix.parameters())
    trained = {id(parameter) for parameter in backbone.parameters() if parameter.requires_grad}
    assert {id(parameter) for parameter in split.suffix.parameters() if parameter.requires_grad} == trained
    backbone.eval()
    rows = split.prefix(inputs)
    split.suffix(from_rows(rows)).square().sum().backward()
    through_parts = [parameter.grad.clone() for parameter in backbone.parameters() if parameter.requires_grad]
    backbone.zero_grad()
    backbone(inputs).square().sum().backward()
    whole = [parameter.grad for parameter in backbone.parameters() if parameter.requires_grad]
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(through_parts, whole, strict=True))


def test_nothing_is_split_where_all_layers_train() -> None:
    assert split_backbone(prepared("resnet20", 32, "all").backbone) is None


def test_a_random_layer_below_the_trained_ones_is_never_part_of_the_prefix() -> None:
    class Shaken(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.low, self.shake, self.middle, self.top = (
                torch.nn.Linear(4, 4),
                torch.nn.Dropout(0.5),
                torch.nn.Linear(4, 4),
                torch.nn.Linear(4, 4),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.top(self.middle(self.shake(torch.relu(self.low(x)))))

    network = Shaken()
    network.low.requires_grad_(False)
    network.middle.requires_grad_(False)
    network.train()
    split = split_backbone(network)
    assert split is not None
    inputs = torch.randn(2, 4)
    assert torch.equal(split.prefix(inputs), torch.relu(network.low(inputs)))


def test_a_network_that_cannot_be_traced_is_not_split() -> None:
    class Branching(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.low, self.top = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.top(self.low(x)) if x.sum() > 0 else self.top(x)

    network = Branching()
    network.low.requires_grad_(False)
    assert split_backbone(network) is None
