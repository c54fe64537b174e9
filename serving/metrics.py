"""Prometheus metric of the routes: the seconds of requests by route and status, beside BentoML's own in `/metrics`."""

from __future__ import annotations

from functools import cache
from typing import Any

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)  # of the histogram


class RequestMetrics:
    """The histogram ``qianmian_request_seconds``, labelled by route and status; its ``_count`` counts the requests.

    BentoML labels its metrics by path, so that every path which a client invents stays in memory; a route is one of a
    few names. The histogram is made at the first request: `prometheus_client` may be imported only once BentoML has
    set its folder for the metrics of several processes.
    """

    def __init__(self) -> None:
        self._children: dict[tuple[str, int], Any] = {}

    def count(self, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered after some seconds."""
        child = self._children.get((route, status))
        if child is None:  # looking up labels takes longer than counting
            child = self._children[route, status] = _histogram().labels(route=route, status=status)
        child.observe(seconds)


@cache
def _histogram() -> Any:
    """The histogram; a process registers it once."""
    from bentoml._internal.configuration.containers import BentoMLContainer

    return BentoMLContainer.metrics_client.get().Histogram(
        "qianmian_request_seconds", "Time to the answer", labelnames=["route", "status"], buckets=SECONDS
    )


def count_reload(part: str, outcome: str) -> None:
    """Count a part (a job, or the profiles) that has moved and was ``loaded`` or ``refused``."""
    _reloads().labels(part=part, outcome=outcome).inc()


@cache
def _reloads() -> Any:
    from bentoml._internal.configuration.containers import BentoMLContainer

    return BentoMLContainer.metrics_client.get().Counter(
        "qianmian_reloads", "Champions and profiles that have moved", labelnames=["part", "outcome"]
    )
