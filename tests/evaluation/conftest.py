"""Results of a sound run, which a test changes where it looks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from thawlab.results import Results


def _sound() -> dict[str, Any]:
    """Return the document of a run of four classes that nothing is to be said against."""
    classes = list("abcd")
    measured = {"loss": 0.3, "accuracy": 0.9}
    even = {"n": 25, "precision": 0.9, "recall": 0.9, "f1": 0.9}
    phase = {"name": "all", "trainable_parameters": 1000, "epochs_run": 0, "best_epoch": 0, "best_val_accuracy": 0.9}
    return {
        "name": "sound",
        "digest": "0" * 64,
        "seed": 0,
        "dataset": {"name": "shapes", "fingerprint": "0" * 64, "n_train": 400, "n_val": 500, "n_test": 100, "classes": classes},
        "model": {"backbone": "cnn5", "parameters": 1000},
        "phases": [{**phase, "seconds": 1.0, "stopped": "epochs"}],
        "train": {**measured, "accuracy": 0.95},
        "val": {**measured, "n": 500},
        "test": {
            **measured,
            "n": 100,
            "accuracy_ci95": [0.83, 0.95],
            "top5": 1.0,
            **dict.fromkeys(("macro_precision", "macro_recall", "macro_f1"), 0.9),
            "ece": 0.02,
            "ece_calibrated": 0.01,
            "temperature": 1.2,
            "per_class": [{"class": name, **even} for name in classes],
            "confusion": [[25 if row == column else 0 for column in range(4)] for row in range(4)],
        },
        "gap": 0.05,
        "seconds": {"total": 1.0},
    }


@pytest.fixture
def make_results() -> Callable[..., Results]:
    """Make the results of a sound run; of a part that is a table, only the keys that are given are changed."""

    def make(**changes: Any) -> Results:
        document = _sound()
        for key, value in changes.items():
            before = document.get(key)
            document[key] = {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value
        return Results.model_validate(document)

    return make
