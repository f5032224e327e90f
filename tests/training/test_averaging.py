import torch
from torch import nn

from thawlab.training.averaging import WeightAverage


def test_the_average_follows_its_formula() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = WeightAverage(module, 0.9)
    expected = {name: value.clone().double() for name, value in module.state_dict().items()}
    for step in range(1, 200):
        for parameter in module.parameters():
            parameter.data.add_(torch.randn_like(parameter))
        module(torch.randn(8, 2))
        average.update(module)
        decay = min(0.9, step / (step + 9))
        for name, value in module.state_dict().items():
            expected[name] = (
                expected[name] * decay + value.double() * (1 - decay) if value.is_floating_point() else value.double()
            )
    for name, value in average.module.state_dict().items():
        assert torch.allclose(value.double(), expected[name], rtol=1e-4, atol=1e-5)


def test_the_average_continues_from_its_state() -> None:
    module = nn.Linear(3, 3)
    average = WeightAverage(module, 0.9)
    module.weight.data.add_(1)
    average.update(module)
    other = WeightAverage(nn.Linear(3, 3), 0.9)
    other.load_state_dict(average.state_dict())
    module.weight.data.add_(1)
    average.update(module)
    other.update(module)
    assert torch.equal(average.module.weight, other.module.weight)
    assert not average.module.weight.requires_grad
