"""What the server tells those who run it: a line of JSON per request, and figures for Prometheus."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BATCHES = (1, 2, 4, 8, 16, 32)


@final
class Observed:
    """The figures of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("thawlab_requests", "Requests answered.", ["route", "status"], registry=self.registry)
        self.seconds = Histogram(
            "thawlab_request_seconds",
            "From a request's headers to its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.pictures = Counter("thawlab_pictures", "Pictures by what became of them.", ["outcome"], registry=self.registry)
        self.batches = Histogram(
            "thawlab_batch_pictures", "Pictures that the network took together.", buckets=_BATCHES, registry=self.registry
        )

    def watch(self, waiting: Callable[[], int], held: Callable[[], int]) -> None:
        """Show from now on how many pictures wait, and how many of their bytes are held."""
        Gauge("thawlab_waiting_pictures", "Pictures that wait for the network.", registry=self.registry).set_function(waiting)
        Gauge("thawlab_held_bytes", "Of pictures being received or decoded.", registry=self.registry).set_function(held)

    def text(self) -> bytes:
        """Return all figures in Prometheus' text format."""
        return generate_latest(self.registry)


def log(event: str, **details: Any) -> None:
    """Write a line of JSON on standard error; what cannot be written is left out."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = json.dumps({"time": now, "event": event, **details}, ensure_ascii=True)
    try:
        print(line, file=sys.stderr, flush=True)
    except (OSError, ValueError):  # the reader of the log has left; requests matter more
        return
