"""Trackers: what a run's folder holds, written for those who have one. To add a tracker, copy a neighbour."""

from thawlab.tracking import mlflow, tensorboard  # noqa: F401 - they register themselves
from thawlab.tracking.rows import Snapshot, Target, TrackedRow, TrackedRun, track, trackers

__all__ = ["Snapshot", "Target", "TrackedRow", "TrackedRun", "track", "trackers"]
