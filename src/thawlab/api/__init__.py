"""The Python API: the verbs of the command line, and runs that show themselves in a notebook.

What needs torch is imported where it is used: looking at a finished run takes less than a second.
"""

from thawlab.api.data import check_data, list_datasets, list_models, show_data, verify_shards, write_shards
from thawlab.api.exchange import export, import_model
from thawlab.api.judgement import compare, evaluate, is_study, probe, study, track
from thawlab.api.prediction import load, predict, predict_into, predict_on_ray, watch
from thawlab.api.runs import find_lr, open_run, repair, train
from thawlab.api.serving import serve, studio
from thawlab.opened import percent

__all__ = [
    "check_data",
    "compare",
    "evaluate",
    "export",
    "find_lr",
    "import_model",
    "is_study",
    "list_datasets",
    "list_models",
    "load",
    "open_run",
    "percent",
    "predict",
    "predict_into",
    "predict_on_ray",
    "probe",
    "repair",
    "serve",
    "show_data",
    "studio",
    "study",
    "track",
    "train",
    "verify_shards",
    "watch",
    "write_shards",
]
