import pytest

from thawlab.files import read_json
from thawlab.plan.defaults import demo_recipes
from thawlab.runner import train


def test_the_two_runs_differ_in_the_backbone_alone_beside_their_phases() -> None:
    two_phases, scratch = demo_recipes()
    assert two_phases.data == scratch.data
    assert two_phases.seed == scratch.seed
    fine_tune, alone = two_phases.phases[-1], scratch.phases[0]
    assert (fine_tune.epochs, fine_tune.augment, fine_tune.batch_size) == (alone.epochs, alone.augment, alone.batch_size)


@pytest.mark.slow
def test_transfer_learning_reaches_its_promise_on_digits(tmp_path) -> None:  # type: ignore[no-untyped-def]
    two_phases, _ = demo_recipes()
    assert read_json(train(two_phases, tmp_path).results)["test"]["accuracy"] >= 0.975
