import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from thawlab.evaluation.metrics.ranking import average_precision, roc_auc

# Few distinct scores make many ties.
SCORED = st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 1e-300, 0.1, 0.25, 0.5, 1.0, 3.0, 1e300])), min_size=2).filter(
    lambda rows: len({truth for truth, _ in rows}) == 2
)


@given(SCORED)
def test_the_areas_are_those_of_scikit_learn(rows: list[tuple[bool, float]]) -> None:
    truth, scores = (np.array(column) for column in zip(*rows, strict=True))
    assert roc_auc(truth, scores) == pytest.approx(sklearn.metrics.roc_auc_score(truth, scores), abs=1e-12)
    assert average_precision(truth, scores) == pytest.approx(sklearn.metrics.average_precision_score(truth, scores), abs=1e-12)


def test_the_areas_of_many_images_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(100_000).astype(np.float32)
    truth = rng.random(100_000) < scores / 50
    assert roc_auc(truth, scores) == pytest.approx(sklearn.metrics.roc_auc_score(truth, scores), abs=1e-12)
    assert average_precision(truth, scores) == pytest.approx(sklearn.metrics.average_precision_score(truth, scores), abs=1e-12)


def test_an_order_without_fault_has_the_area_one() -> None:
    assert roc_auc([0, 0, 1], [0.1, 0.2, 0.3]) == average_precision([0, 0, 1], [0.1, 0.2, 0.3]) == 1.0
    assert roc_auc([1, 1, 0], [0.1, 0.2, 0.3]) == 0.0
    assert roc_auc([1, 0, 0, 1], [0.5, 0.5, 0.5, 0.5]) == 0.5
