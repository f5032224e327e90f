"""MLflow through `mlflow-skinny`: a run of the experiment "thawlab" for each of ours, found again by its recipe's digest."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from thawlab.errors import ThawlabError, UsageError, first_line
from thawlab.registry import optional
from thawlab.tracking.rows import Snapshot, Target, TrackedRun, Write, trackers

_EXPERIMENT, _TAG = "thawlab", "thawlab.digest"
_STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
# What MLflow takes in one request.
_MOST_METRICS, _MOST_PARAMS, _LONGEST = 1000, 100, 500


@trackers.register("mlflow")
@contextmanager
def mlflow(run: TrackedRun, target: Target) -> Iterator[Write]:
    """A tracking server of MLflow at --uri, or a store that the installed MLflow can open."""
    if not target.uri or target.out is not None:
        raise UsageError("mlflow needs the address of a tracking server: --uri http://HOST:PORT, and no --out")
    api = optional("mlflow", "mlflow", "--to mlflow")
    try:
        client = api.MlflowClient(tracking_uri=target.uri)
        filed = _run_of(client, run)
        _write_settings(client, api.entities, filed, run)
        written = _written(client, filed)

        def write(now: Snapshot) -> str:
            new = now.lacking(written)
            stamp = int(1000 * time.time())
            for first in range(0, len(new), _MOST_METRICS):
                chunk = new[first : first + _MOST_METRICS]
                metrics = [api.entities.Metric(key, value, stamp, step) for key, value, step in chunk]
                client.log_batch(filed.info.run_id, metrics=metrics)
                written.update((key, step) for key, _, step in chunk)
            _set_status(client, filed.info.run_id, _STATUS.get(now.status, "RUNNING"))
            return f"{target.uri} (experiment {_EXPERIMENT}, run {filed.info.run_id})"

        yield write
    except api.exceptions.MlflowException as error:
        raise ThawlabError(f"{target.uri}: MLflow refuses: {first_line(error)}") from None


def _run_of(client: Any, run: TrackedRun) -> Any:
    """Return MLflow's run of ours, made if there is none."""
    experiment = client.get_experiment_by_name(_EXPERIMENT)
    number = experiment.experiment_id if experiment else client.create_experiment(_EXPERIMENT)
    found = client.search_runs([number], f"tags.`{_TAG}` = '{run.digest}'", max_results=1)
    return found[0] if found else client.create_run(number, tags={_TAG: run.digest}, run_name=run.name)


def _write_settings(client: Any, entities: Any, filed: Any, run: TrackedRun) -> None:
    """Write the settings that are not there yet; MLflow refuses to write one twice with another value."""
    # Long lists are cut: a setting is there to be found and compared, the recipe holds it whole.
    params = [entities.Param(key, str(value)[:_LONGEST]) for key, value in run.settings.items() if key not in filed.data.params]
    for first in range(0, len(params), _MOST_PARAMS):
        client.log_batch(filed.info.run_id, params=params[first : first + _MOST_PARAMS])


def _written(client: Any, filed: Any) -> set[tuple[str, int]]:
    """Return the metrics and steps that MLflow holds already."""
    number = filed.info.run_id
    return {(key, metric.step) for key in filed.data.metrics for metric in client.get_metric_history(number, key)}


def _set_status(client: Any, number: str, status: str) -> None:
    """Set how far MLflow's run is, where that changes: setting it anew would move its end."""
    if client.get_run(number).info.status == status:
        return
    with redirect_stdout(sys.stderr):  # a server's run is announced there, where `--json` promises one document
        client.update_run(number, status=status) if status == "RUNNING" else client.set_terminated(number, status)
