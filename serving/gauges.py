"""The state of a worker as gauges of `/metrics`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

from serving.bundles import BUNDLE_KINDS
from serving.champions import PROFILES
from serving.counting import AUDIENCE_OUTCOMES, EVENT_OUTCOMES, SCORE_OUTCOMES
from serving.loading import BackgroundLoader
from serving.metrics import (
    AUDIENCES,
    EVENTS,
    KEPT,
    QUEUE_REFUSED,
    REFUSALS,
    REFUSED,
    RELOADS,
    SCORES,
    Increments,
    one_more,
)
from serving.slow_requests import SlowRequests

Gauges = dict[tuple[str, tuple[str, ...]], float]  # name and values of the labels → value
SCORE_ROUTES = ("/churn", "/predictions")


def gauges(loader: BackgroundLoader, slow: Mapping[str, SlowRequests]) -> Gauges:
    """Return the gauges of this worker now; of data a moment: an age would stay young in a worker that hangs."""
    found: Gauges = {
        ("qianmian_ready", ()): loader.why_not_ready() is None,
        ("qianmian_event_log_waiting", ()): loader.store.waiting,
        **{("qianmian_slow_requests_waiting", (route,)): queue.waiting for route, queue in slow.items()},
    }
    champions = loader.champions
    if champions is None:
        return found
    found |= {
        ("qianmian_events_lost", ()): champions.misses_events,
        ("qianmian_events_behind_seconds", ()): champions.events.behind_seconds if champions.events is not None else 0,
        ("qianmian_kept_lists", ()): len(champions.kept_lists),
    }
    as_of = {job: champion.bundle.as_of for job, champion in champions.models.items()}
    if champions.snapshot is not None:
        as_of[PROFILES] = champions.snapshot.as_of
    found |= {("qianmian_as_of_timestamp_seconds", (part,)): unix_time(moment) for part, moment in as_of.items()}
    return found | {
        ("qianmian_model_info", (champion.name, champion.version)): 1.0 for champion in champions.models.values()
    }


def unix_time(moment: datetime) -> float:
    """Seconds from 1970 on of a naive UTC time."""
    return moment.replace(tzinfo=UTC).timestamp()


def known_counters(slow: Iterable[str]) -> Iterator[Increments]:
    """Counters of which all values of the labels are known before the first request."""
    for part in (*BUNDLE_KINDS, PROFILES):
        for outcome in ("loaded", "refused"):
            yield one_more(RELOADS, part, outcome)
    for outcome in EVENT_OUTCOMES:
        yield one_more(EVENTS, outcome)
    for outcome in AUDIENCE_OUTCOMES:
        yield one_more(AUDIENCES, outcome)
    for outcome in ("hit", "miss"):
        yield one_more(KEPT, outcome)
    for route in SCORE_ROUTES:
        for outcome in SCORE_OUTCOMES:
            yield one_more(SCORES, route, outcome)
    for reason in REFUSALS:
        yield one_more(REFUSED, reason)
    for route in slow:
        yield one_more(QUEUE_REFUSED, route)
