"""Prometheus metrics of the routes: requests and seconds by route and status, beside BentoML's own in `/metrics`."""

from __future__ import annotations

from functools import cache
from typing import Any

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)  # of the histogram


class RequestMetrics:
    """``qianmian_requests_total`` and ``qianmian_request_seconds``, labelled by route and status.

    BentoML labels its metrics by path, so that every path which a client invents stays in memory; a route is one of a
    few names. The metrics are made at the first request: `prometheus_client` may be imported only once BentoML has
    set its folder for the metrics of several processes.
    """

    def __init__(self) -> None:
        self._children: dict[tuple[str, int], tuple[Any, Any]] = {}

    def count(self, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered after some seconds."""
        children = self._children.get((route, status))
        if children is None:  # looking up labels takes longer than counting
            children = self._children[route, status] = tuple(
                metric.labels(route=route, status=status) for metric in _metrics()
            )
        requests, durations = children
        requests.inc()
        durations.observe(seconds)


@cache
def _metrics() -> tuple[Any, Any]:
    """Counter and histogram; a process registers them once."""
    from bentoml._internal.configuration.containers import BentoMLContainer

    client = BentoMLContainer.metrics_client.get()
    labels = ["route", "status"]
    return (
        client.Counter("qianmian_requests", "Requests", labelnames=labels),
        client.Histogram("qianmian_request_seconds", "Time to the answer", labelnames=labels, buckets=SECONDS),
    )
