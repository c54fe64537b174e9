"""Click paths: the most frequent paths of sessions, transitions between states, and entry and exit shares."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from features.compute.views import Views
from features.profiles.analytics.rates import Rate, moments, rate_of
from features.profiles.analytics.steps import (
    BUY,
    SORT_COLUMNS,
    fetch_rows,
    has_events,
    in_window,
    materialized,
    raise_no_events,
    steps,
)
from qianmian.errors import UsageError

State = Literal["event_type", "category", "category_top", "page"]
PATH_STATES: tuple[str, ...] = get_args(State)
SEPARATOR = " > "
EXIT, OTHER, MORE = "(exit)", "(other)", "…"


@dataclass(frozen=True)
class ClickPath:
    """One path: its states, the number and share of sessions with this path, and their conversion.

    `longer` is true if the sessions continue after the last state.
    """

    path: tuple[str, ...]
    longer: bool
    sessions: int
    customers: int
    share: Rate
    conversion: Rate


@dataclass(frozen=True)
class Transition:
    """A transition from a state, with its `share` of the occurrences of the state; to ``(exit)`` it is the drop-off."""

    state: str
    next: str
    count: int
    share: float


@dataclass(frozen=True)
class EntryExitShare:
    """Shares of all sessions that begin and end in a state."""

    state: str
    occurrences: int
    entry_share: float
    exit_share: float


@dataclass(frozen=True)
class PathAnalysis:
    """The most frequent paths, the transitions between the most frequent states, and entry and exit shares."""

    state: str
    sessions: int
    paths: tuple[ClickPath, ...]
    transitions: tuple[Transition, ...]
    ends: tuple[EntryExitShare, ...]

    def as_dict(self) -> dict[str, Any]:
        """The analysis as JSON-compatible data."""
        return asdict(self)

    def as_table(self) -> pa.Table:
        """The paths as a table, one row per path."""
        rows = [
            {
                "path": SEPARATOR.join((*found.path, *([MORE] if found.longer else []))),
                "sessions": found.sessions,
                "customers": found.customers,
                "share": found.share.value,
                "share_low": found.share.low,
                "share_high": found.share.high,
                "conversion": found.conversion.value,
                "conversion_low": found.conversion.low,
                "conversion_high": found.conversion.high,
            }
            for found in self.paths
        ]
        kinds = {"path": pa.string(), "sessions": pa.int64(), "customers": pa.int64()}
        rates = (f"{name}{suffix}" for name in ("share", "conversion") for suffix in ("", "_low", "_high"))
        names = (*kinds, *rates)
        return pa.Table.from_pylist(rows, pa.schema([(name, kinds.get(name, pa.float64())) for name in names]))


def paths(
    views: Views,
    state: str = "event_type",
    *,
    depth: int = 5,
    top: int = 20,
    window_days: int | None = None,
    keep_repeats: bool = False,
) -> PathAnalysis:
    """Click paths of the sessions before `as_of`.

    Events that are only dates are in no session. Those of one local day of a customer make a visit, with the purchases
    of that day that belong to no session; in it they come before the purchases.

    Parameters
    ----------
    views : Views
        Rows before the cutoff.
    state : {"event_type", "category", "category_top", "page"}
        Column that is the state of an event; events without it are left out. Purchases have the event type ``buy``.
    depth : int
        Number of states after which a path is truncated.
    top : int
        Number of paths, and number of states; all other states are ``(other)``.
    window_days : int, optional
        Only sessions that began in this many days before the cutoff.
    keep_repeats : bool
        Whether to keep consecutive repetitions of a state.

    Raises
    ------
    UsageError
        The state is unknown, or `depth` or `top` is below 1.
    DataError
        The window has no events.
    """
    if state not in PATH_STATES:
        raise UsageError("unknown state of a path", where="--of", got=state, allowed=", ".join(PATH_STATES))
    if depth < 1 or top < 1:
        raise UsageError(
            "depth and top must be positive", where="--depth, --top", got=f"{depth}, {top}", allowed="1 or more"
        )
    t = steps(views)
    t = t.filter(t.session_id.notnull()).mutate(state=t.step if state == "event_type" else t[state])
    visit_steps = t.select("one_id", "session_id", "ts", *SORT_COLUMNS, "step", "state")
    with (
        materialized(views, visit_steps) as visit_rows,
        materialized(views, _states(visit_rows, views, window_days, keep_repeats)) as rows,
    ):
        total = int(rows.select("one_id", "session_id").distinct().count().execute())
        if not total and not has_events(views, window_days):
            raise_no_events(views, window_days)
        most_frequent = _paths(rows, _visits_with_purchase(visit_rows), depth, top)
        return PathAnalysis(state, total, most_frequent, *_transitions(rows, top, total))


def _states(t: ir.Table, views: Views, window_days: int | None, keep_repeats: bool) -> ir.Table:
    """One row per state of a session: one_id, session_id, state, place (from 0) and the next state."""
    visit = ["one_id", "session_id"]
    if window_days is not None:
        t = in_window(t.mutate(begun=t.ts.min().over(group_by=visit)), "begun", views, window_days)
    t = t.filter(t.state.notnull()).select(*visit, *SORT_COLUMNS, "state")
    order = {"group_by": visit, "order_by": list(SORT_COLUMNS)}
    if not keep_repeats:
        t = t.mutate(before=t.state.lag().over(**order))
        t = t.filter(t.before.isnull() | (t.before != t.state)).drop("before")
    t = t.mutate(place=ibis.row_number().over(**order), next=t.state.lead().over(**order))
    return t.select(*visit, "state", "place", "next")


def _visits_with_purchase(t: ir.Table) -> ir.Table:
    """Sessions with a purchase."""
    return t.filter(t.step == BUY).select("one_id", "session_id").distinct().mutate(bought=ibis.literal(True))


def _paths(rows: ir.Table, purchase_visits: ir.Table, depth: int, top: int) -> tuple[ClickPath, ...]:
    visit_steps = rows.filter(rows.place <= depth)
    visits = visit_steps.group_by(["one_id", "session_id"]).aggregate(
        # page names cannot contain a control character, but they can contain `SEPARATOR`
        path=visit_steps.state.group_concat(sep="\x1f", order_by=visit_steps.place, where=visit_steps.place < depth),
        longer=(visit_steps.place == depth).any(),
    )
    visits = visits.left_join(purchase_visits, ["one_id", "session_id"]).drop("one_id_right", "session_id_right")
    visits = visits.mutate(bought=visits.bought.fill_null(False))
    customers = visits.group_by("one_id").aggregate(all=visits.count())
    each = visits.group_by(["path", "longer", "one_id"]).aggregate(
        n=visits.count(), bought=visits.count(where=visits.bought)
    )
    found = each.group_by(["path", "longer"]).aggregate(
        sessions=each.n.sum(),
        customers=each.count(),
        n_nn=(each.n * each.n).sum(),
        **moments("conversion", each.bought, each.n),
    )
    found = found.order_by([ibis.desc("sessions"), "path", "longer"]).limit(top)
    # the denominator is all sessions, so customers without this path count with 0 of their sessions
    crossed = (
        each.inner_join(customers, "one_id").group_by(["path", "longer"]).aggregate(yn=lambda t: (t.n * t["all"]).sum())
    )
    whole = fetch_rows(
        customers.aggregate(
            n=customers["all"].sum(), nn=(customers["all"] * customers["all"]).sum(), m=customers.count()
        )
    )[0]
    made = []
    for row in fetch_rows(
        found.inner_join(crossed, ["path", "longer"]).order_by([ibis.desc("sessions"), "path", "longer"])
    ):
        parts = {
            "y": row["sessions"],
            "n": whole["n"],
            "yy": row["n_nn"],
            "yn": row["yn"],
            "nn": whole["nn"],
            "m": whole["m"],
        }
        share = rate_of("share", {f"share_{name}": value for name, value in parts.items()})
        path = tuple(row["path"].split("\x1f"))
        made.append(
            ClickPath(path, row["longer"], row["sessions"], row["customers"], share, rate_of("conversion", row))
        )
    return tuple(made)


def _transitions(rows: ir.Table, top: int, total: int) -> tuple[tuple[Transition, ...], tuple[EntryExitShare, ...]]:
    counts = rows.group_by("state").aggregate(n=rows.count()).order_by([ibis.desc("n"), "state"])
    states = [row["state"] for row in fetch_rows(counts.limit(top))]
    named = rows.mutate(
        state=ibis.ifelse(rows.state.isin(states), rows.state, OTHER),
        next=ibis.ifelse(rows.next.isnull(), EXIT, ibis.ifelse(rows.next.isin(states), rows.next, OTHER)),
    )
    pairs = named.group_by(["state", "next"]).aggregate(count=named.count())
    ends = named.group_by("state").aggregate(
        occurrences=named.count(),
        entries=named.count(where=named.place == 0),
        exits=named.count(where=named.next == EXIT),
    )
    each = fetch_rows(ends.order_by([ibis.desc("occurrences"), "state"]))
    occurrences = {row["state"]: row["occurrences"] for row in each}
    place = {row["state"]: number for number, row in enumerate(each)}
    found = sorted(fetch_rows(pairs), key=lambda row: (place[row["state"]], -row["count"], row["next"]))
    return (
        tuple(
            Transition(row["state"], row["next"], row["count"], row["count"] / occurrences[row["state"]])
            for row in found
        ),
        tuple(
            EntryExitShare(row["state"], row["occurrences"], row["entries"] / total, row["exits"] / total)
            for row in each
        ),
    )
