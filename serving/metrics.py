"""Prometheus metrics of the server, beside BentoML's own in `/metrics`.

An increment of `prometheus_client` takes longer than all else that a kept list costs, because it writes to a file that
all workers share. Requests therefore only remember what they count (`count`), and `Publisher` writes the sums once a
second, and before this worker answers `/metrics`.

`prometheus_client` may be imported only once BentoML has set its folder for the metrics of several processes, so that
each metric is made when it is first needed.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

logger = logging.getLogger(__name__)

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)  # of the histogram
FORGET_EVERY = 10  # times that a worker publishes, from one look for workers that have ended to the next
FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # environment variable of prometheus_client, which BentoML sets

# why requests are refused before their route is called
REFUSALS = (
    *("no_key", "wrong_key", "several_keys", "needs_read", "needs_events", "needs_admin", "rate_limited"),
    *("public_address", "foreign_host", "foreign_origin", "unknown_host", "several_hosts"),
)

Increment = tuple[str, tuple[str, ...], int]  # name of a counter, values of its labels, by how much
Increments = tuple[Increment, ...]
Count = Callable[[Increments], object]


class DeclaredMetric(NamedTuple):
    """Declaration of a metric.

    Attributes
    ----------
    kind : str
    description : str
    labels : tuple of str
        Names of the labels. Their values come from the code, the models and the settings, never from a client.
    mode : str
        What the value of a gauge is with several workers: the least, the greatest or the sum of those that are alive.
    """

    kind: Literal["Counter", "Gauge", "Histogram"]
    description: str
    labels: tuple[str, ...] = ()
    mode: str = ""


LISTS = "qianmian_recommendations_total"
ITEMS = "qianmian_recommended_items_total"
SCORES = "qianmian_scores_total"
AUDIENCES = "qianmian_lookalikes_total"
EVENTS = "qianmian_events_total"
KEPT = "qianmian_kept_list_lookups_total"
QUEUE_REFUSED = "qianmian_slow_requests_refused_total"
REFUSED = "qianmian_refused_requests_total"
RELOADS = "qianmian_reloads_total"
METRICS: Mapping[str, DeclaredMetric] = {
    "qianmian_request_seconds": DeclaredMetric("Histogram", "Time to the answer of a request", ("route", "status")),
    REFUSED: DeclaredMetric("Counter", "Requests that were refused before their route was called", ("reason",)),
    LISTS: DeclaredMetric(
        "Counter",
        "Lists of items; fallback is the first source in the list that is not personal, or none",
        ("route", "scene", "fallback", "stale", "model", "version"),
    ),
    ITEMS: DeclaredMetric(
        "Counter", "Positions of lists by the candidate source that filled them", ("route", "scene", "source")
    ),
    KEPT: DeclaredMetric(
        "Counter", "Look-ups of lists that may be kept: hit, or miss, so that it was computed", ("outcome",)
    ),
    "qianmian_kept_lists": DeclaredMetric("Gauge", "Lists that are kept, of all workers", mode="livesum"),
    SCORES: DeclaredMetric("Counter", "Rows of scores: scored, or why there is no score", ("route", "outcome")),
    AUDIENCES: DeclaredMetric(
        "Counter", "Audiences: complete, short, or refused for too few known seeds", ("outcome",)
    ),
    EVENTS: DeclaredMetric("Counter", "Events of /v1/events by what became of them", ("outcome",)),
    "qianmian_event_log_waiting": DeclaredMetric(
        "Gauge", "Events that wait for being stored, of all workers", mode="livesum"
    ),
    "qianmian_events_lost": DeclaredMetric("Gauge", "1 if a worker cannot read the accepted events", mode="livemax"),
    "qianmian_events_behind_seconds": DeclaredMetric(
        "Gauge", "Time since a worker knew all accepted events, the longest of all workers", mode="livemax"
    ),
    "qianmian_slow_requests_waiting": DeclaredMetric(
        "Gauge", "Slow requests that wait, of all workers", ("route",), "livesum"
    ),
    QUEUE_REFUSED: DeclaredMetric("Counter", "Slow requests that were refused because too many wait", ("route",)),
    "qianmian_ready": DeclaredMetric("Gauge", "1 if every worker can answer", mode="livemin"),
    "qianmian_as_of_timestamp_seconds": DeclaredMetric(
        "Gauge", "Unix time up to which a part (the model of a job, or the profiles) has data", ("part",), "livemin"
    ),
    "qianmian_model_info": DeclaredMetric(
        "Gauge", "1 if a worker serves this version, 0 if it has been replaced", ("model", "version"), "livemax"
    ),
    RELOADS: DeclaredMetric("Counter", "Parts (models of jobs, and the profiles) that have moved", ("part", "outcome")),
}


@cache
def metric(name: str) -> Any:
    """The metric of this name as `prometheus_client` has it; a process registers it once."""
    from bentoml._internal.configuration.containers import BentoMLContainer

    declared = METRICS[name]
    options: dict[str, Any] = {}
    if declared.kind == "Histogram":
        options["buckets"] = SECONDS
    if declared.kind == "Gauge":
        options["multiprocess_mode"] = declared.mode
    make = getattr(BentoMLContainer.metrics_client.get(), declared.kind)
    return make(name.removesuffix("_total"), declared.description, labelnames=declared.labels, **options)


def child(name: str, labels: Iterable[str] = ()) -> Any:
    """The metric of this name, or its child with these values of its labels."""
    return metric(name).labels(*labels) if METRICS[name].labels else metric(name)


class RequestMetrics:
    """The histogram ``qianmian_request_seconds``, labelled by route and status; its ``_count`` counts the requests.

    BentoML labels its metrics by path, so that every path which a client invents stays in memory; a route is one of a
    few names.
    """

    def __init__(self) -> None:
        self._children: dict[tuple[str, int], Any] = {}

    def count(self, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered after some seconds."""
        found = self._children.get((route, status))
        if found is None:  # looking up labels takes longer than counting
            found = self._children[route, status] = child("qianmian_request_seconds", (route, str(status)))
        found.observe(seconds)


# ---- counters --------------------------------------------------------------------------------------------------------

_counted: deque[Increments] = deque()  # what was counted and is not written yet; any thread may append
count: Count = _counted.append  # nothing is faster, and most requests count the same tuple as others


def ignore(_increments: Increments) -> None:
    """A `Count` for what is no request of a client."""


def count_one(name: str, *labels: str) -> None:
    """Count one more in a counter."""
    count(one_more(name, *labels))


@lru_cache(1_000)
def one_more(name: str, *labels: str) -> Increments:
    """One more in a counter."""
    return ((name, labels, 1),)


def count_reload(part: str, outcome: str) -> None:
    """Count a part (a job, or the profiles) that has moved and was ``loaded`` or ``refused``."""
    count_one(RELOADS, part, outcome)


def count_refused(reason: str) -> None:
    """Count a request that was refused before its route was called; `reason` is one of `REFUSALS`."""
    count_one(REFUSED, reason)


def take_counted() -> Counter[tuple[str, tuple[str, ...]]]:
    """What was counted from the last call on: the sum of each counter and values of its labels."""
    batch = [_counted.popleft() for _ in range(len(_counted))]
    by_identity = {id(increments): increments for increments in batch}
    sums: Counter[tuple[str, tuple[str, ...]]] = Counter()
    # most are the same objects, whose identity is found in a fraction of the time of their hash
    for identity, times in Counter(map(id, batch)).items():
        for name, labels, by in by_identity[identity]:
            sums[name, labels] += by * times
    return sums


class Publisher:
    """Writes what was counted, and gauges, to the files from which any worker answers `/metrics`.

    Parameters
    ----------
    gauges : callable
        Returns the gauges of this worker now: name and values of the labels → value.
    known : iterable
        Counters that are shown as 0 from the start, because Prometheus sees no increase in one that appears with 1.
    """

    def __init__(
        self, gauges: Callable[[], Mapping[tuple[str, tuple[str, ...]], float]], known: Iterable[Increments] = ()
    ) -> None:
        self._gauges, self._known = gauges, tuple(known)
        self._shown: set[tuple[str, tuple[str, ...]]] = set()
        self._failed, self._times = False, 0

    def __call__(self) -> None:
        """Publish; to be called by the thread of the event loop. A failure is logged once, and stops no server."""
        try:
            self._publish()
            self._failed = False
        except Exception:
            if not self._failed:
                logger.exception("metrics=failed")
            self._failed = True

    def _publish(self) -> None:
        self._times += 1
        if self._times % FORGET_EVERY == 1:
            forget_ended_workers()
        if self._times == 1:
            for increments in self._known:
                for name, labels, _ in increments:
                    child(name, labels)
        for (name, labels), by in take_counted().items():
            child(name, labels).inc(by)
        gauges = self._gauges()
        for name, labels in self._shown - gauges.keys():  # a process cannot take a label back
            child(name, labels).set(0)
        self._shown |= gauges.keys()
        for (name, labels), value in gauges.items():
            child(name, labels).set(value)


def forget_ended_workers() -> None:
    """Remove the gauges of workers that were killed, also while those that take their places load their models."""
    from prometheus_client.multiprocess import mark_process_dead

    for file in Path(os.environ.get(FOLDER, os.devnull)).glob("gauge_live*_*.db"):
        process = int(file.stem.rpartition("_")[2])
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            with contextlib.suppress(FileNotFoundError):  # another worker does the same
                mark_process_dead(process)  # type: ignore[no-untyped-call]
        except PermissionError:
            pass  # it is alive
