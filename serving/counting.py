"""What is counted of an answer: pure functions of the request and the body of the response, or its error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from qianmian.errors import InvalidRequest, Overloaded, QianmianError, StorageError
from serving.metrics import AUDIENCES, EVENTS, ITEMS, LISTS, SCORES, Increments, one_more
from serving.responses import NEVER_BOUGHT, UNKNOWN_CUSTOMER

OUTCOMES = {UNKNOWN_CUSTOMER: "unknown_customer", NEVER_BOUGHT: "never_bought"}  # of scores, by their reason
SCORED, UNSCORED = "scored", "other_reason"
SCORE_OUTCOMES = (SCORED, *OUTCOMES.values(), "not_active", UNSCORED)
AUDIENCE_OUTCOMES = ("complete", "short", "refused")
EVENT_OUTCOMES = ("accepted", "duplicate", "rejected", "overloaded", "unavailable")
Result = dict[str, Any] | QianmianError  # body of a response, or the error instead of one


def list_counts(
    route: str, scene: str, body: dict[str, Any], model: str, version: str
) -> tuple[Increments, Increments]:
    """What a list counts if it is not stale, and if it is; the same objects for lists that count the same."""
    sources = Counter(item["source"] for item in body["items"])
    return _list_counts(route, scene, body.get("fallback") or "none", tuple(sorted(sources.items())), model, version)


@lru_cache(10_000)
def _list_counts(
    route: str, scene: str, fallback: str, sources: tuple[tuple[str, int], ...], model: str, version: str
) -> tuple[Increments, Increments]:
    items = tuple((ITEMS, (route, scene, source), n) for source, n in sources)
    fresh, stale = ((LISTS, (route, scene, fallback, text, model, version), 1) for text in ("false", "true"))
    return (fresh, *items), (stale, *items)


def counted_list(route: str, request: Any, result: Result) -> Increments:
    """What the answer of a route of lists counts; one without scenes has an empty one."""
    if isinstance(result, QianmianError):
        return ()
    model = result["model"]
    return list_counts(route, getattr(request, "scene", ""), result, model["name"], model["version"])[result["stale"]]


def counted_scores(route: str, _request: Any, result: Result) -> Increments:
    """How many rows of an answer have a score, and why the others have none."""
    if isinstance(result, QianmianError):
        return ()
    outcomes = Counter(score_outcome(row["no_score_reason"]) for row in result["scores"])
    return tuple((SCORES, (route, outcome), n) for outcome, n in sorted(outcomes.items()))


def score_outcome(reason: str | None) -> str:
    """The word for a reason, whose text may have numbers and names.

    Examples
    --------
    >>> [score_outcome(reason) for reason in (None, "never bought", "no purchase in the last 56 days")]
    ['scored', 'never_bought', 'not_active']
    """
    if reason is None:
        return SCORED
    if reason.startswith("no purchase in the last"):
        return "not_active"
    return OUTCOMES.get(reason, UNSCORED)


def counted_audience(_request: Any, result: Result) -> Increments:
    """Whether an audience is complete, short, or refused for too few known seeds."""
    if isinstance(result, QianmianError):
        too_few = isinstance(result, InvalidRequest) and result.field == "seed_user_ids"
        return one_more(AUDIENCES, "refused") if too_few else ()
    return one_more(AUDIENCES, "complete" if result["short_reason"] is None else "short")


def counted_events(request: Any, result: Result) -> Increments:
    """What became of the events of a request."""
    n = len(request.events)
    if isinstance(result, Overloaded):
        return _event_counts([("overloaded", n)])
    if isinstance(result, QianmianError):
        return _event_counts([("unavailable", n)]) if isinstance(result, StorageError) else ()
    accepted, duplicates = result["accepted"], result["duplicates"]
    new, rejected = accepted - duplicates, len(result["rejected"])
    return _event_counts([("accepted", new), ("duplicate", duplicates), ("rejected", rejected)])


def _event_counts(outcomes: Iterable[tuple[str, int]]) -> Increments:
    return tuple((EVENTS, (outcome,), n) for outcome, n in outcomes if n)
