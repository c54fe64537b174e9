"""Journeys of random histories, full of ties, against a plain computation; nothing at or after `as_of` is seen."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.compute.builder import Builder
from features.definitions import FEATURES
from features.profiles.analytics import funnel, paths, sessions, summary
from features.profiles.analytics.paths import EXIT
from qianmian.errors import DataError
from tests.examples import examples

BEGIN = datetime(2024, 1, 1)
AS_OF = BEGIN + timedelta(days=3)
HALF_HOUR, HOUR = timedelta(minutes=30), 1 / 24
# minutes on a coarse grid: many rows at the same instant, many gaps of exactly half an hour, some rows at and after as_of
MINUTES = st.one_of(st.integers(0, 5).map(lambda n: 10 * n), st.integers(0, 480).map(lambda n: 10 * n))
EVENT = st.fixed_dictionaries(
    {
        "minute": MINUTES,
        "event_type": st.sampled_from(["view", "view", "cart", "search", "purchase"]),
        "item_id": st.sampled_from(["a", "b", None]),
        "session_id": st.sampled_from([None, None, None, "own"]),
        "category": st.sampled_from(["x/y", "x", None]),
        "page": st.sampled_from(["p", "q", None]),
    }
)
ORDER = st.fixed_dictionaries(
    {
        "minute": MINUTES,
        "items": st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=2),
        "status": st.sampled_from(["paid", "paid", "paid", "refunded"]),
    }
)
HISTORY = st.tuples(st.lists(EVENT, min_size=1, max_size=8), st.lists(ORDER, max_size=3))
HISTORIES = st.lists(HISTORY, min_size=8, max_size=16)
CHECKED = settings(
    max_examples=examples(6),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def raw_rows(histories):
    events, lines = [], []
    for user, (happened, orders) in enumerate(histories):
        for number, event in enumerate(happened):
            rest = {name: value for name, value in event.items() if name != "minute"}
            # the ids' order is not the order of the rows
            events.append(
                {
                    "event_id": f"e{user}-{(number * 7) % 11}",
                    "source": "s",
                    "source_user_id": f"u{user}",
                    "ts": BEGIN + timedelta(minutes=event["minute"]),
                    **rest,
                }
            )
        for number, order in enumerate(orders):
            for line, item in enumerate(order["items"]):
                lines.append(
                    {
                        "order_id": f"o{user}-{number}",
                        "line_no": line + 1,
                        "source": "s",
                        "source_user_id": f"u{user}",
                        "ts": BEGIN + timedelta(minutes=order["minute"]),
                        "item_id": item,
                        "quantity": 1.0,
                        "amount": 1.0,
                        "status": order["status"],
                    }
                )
    return {"events": events, "transactions": lines, "profiles": [{"source": "s", "source_user_id": "u0"}]}


def plain_steps(tables, as_of, by_item=False):
    """(user, session, ts, kind, id, step, row) of each customer in time."""
    found = defaultdict(list)
    for user in sorted({row["source_user_id"] for rows in tables.values() for row in rows}):
        events = sorted(
            (e for e in tables["events"] if e["source_user_id"] == user and e["ts"] < as_of),
            key=lambda e: (e["ts"], e["event_id"]),
        )
        number, before = 0, None
        rows = []
        for event in (e for e in events if e["session_id"] is None):
            if before is not None and event["ts"] - before > HALF_HOUR:
                number += 1
            before = event["ts"]
            rows.append((event, f"made {number}"))
        rows += [(event, "own") for event in events if event["session_id"]]
        rows.sort(key=lambda pair: (pair[0]["ts"], pair[0]["event_id"]))
        bought = {}
        for line in tables["transactions"]:
            if line["source_user_id"] == user and line["status"] == "paid" and line["ts"] < as_of:
                bought[(line["order_id"], line["line_no"] if by_item else 0)] = line
        steps = [
            (e["ts"], 0, e["event_id"], "buy" if e["event_type"] == "purchase" else e["event_type"], session, e)
            for e, session in rows
        ]
        for key, line in bought.items():
            last = max((e["ts"] for e, _ in rows if e["ts"] <= line["ts"]), default=None)
            # of two visits at that instant the one of the greater id: "s, u1, 0" comes after "s, own"
            visits = [session for e, session in rows if e["ts"] == last]
            session = min(visits) if last is not None and line["ts"] - last <= HALF_HOUR else None
            steps.append((line["ts"], 1, str(key), "buy", session, line))
        found[user] = sorted(steps, key=lambda s: s[:3])
    return found


def plain_funnel(found, names, per, within, within_session):
    """Every chain of rows, tried."""
    chains_of = defaultdict(list)
    for user, steps in found.items():
        parts = defaultdict(list)
        for ts, _, _, step, session, row in steps:
            item = row.get("item_id")
            if (per == "item" and item is None) or ((per == "session" or within_session) and session is None):
                continue
            entity = (user, {"customer": None, "session": session, "item": item}[per])
            parts[entity, session if within_session else None].append((ts, step))
        for (entity, _), rows in parts.items():
            for length in range(1, len(names) + 1):
                choices = [[ts for ts, step in rows if step == name] for name in names[:length]]
                for chain in itertools.product(*choices):
                    ordered = all(a <= b for a, b in itertools.pairwise(chain))
                    if ordered and (
                        within is None or chain[-1] - chain[0] <= timedelta(seconds=round(within * 86_400))
                    ):
                        chains_of[entity, length].append(chain)
    reached = [len({entity for entity, length in chains_of if length == k}) for k in range(1, len(names) + 1)]
    hours = []
    for length in range(2, len(names) + 1):
        taken = []
        for (_, k), chains in chains_of.items():
            if k == length:
                first = min(chain[-1] for chain in chains)
                taken.append((first - max(chain[-2] for chain in chains if chain[-1] == first)).total_seconds() / 3600)
        hours.append(sorted(taken))
    return reached, hours


def median(values):
    middle = len(values) // 2
    return None if not values else values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2


@CHECKED
@given(
    histories=HISTORIES,
    per=st.sampled_from(["customer", "session", "item"]),
    within=st.sampled_from([None, 1.0, HOUR]),
    within_session=st.booleans(),
    names=st.sampled_from([("view", "cart", "buy"), ("search", "buy"), ("buy", "view", "cart", "search")]),
)
def test_a_funnel_is_the_best_of_all_ways(lake_of, histories, per, within, within_session, names):
    tables = raw_rows(histories)
    views = Builder(lake_of(tables), FEATURES).views(AS_OF)
    try:
        found = funnel(views, names, per=per, within_days=within, within_session=within_session)
    except DataError:
        assert not [event for event in tables["events"] if event["ts"] < AS_OF]
        return
    reached, hours = plain_funnel(plain_steps(tables, AS_OF, per == "item"), names, per, within, within_session)
    assert [step.reached for step in found.steps] == reached
    assert [step.hours_median for step in found.steps[1:]] == [
        pytest.approx(median(taken)) if taken else None for taken in hours
    ]


@CHECKED
@given(histories=HISTORIES)
def test_sessions_are_counted_as_by_hand(lake_of, histories):
    tables = raw_rows(histories)
    views = Builder(lake_of(tables), FEATURES).views(AS_OF)
    expected = {}
    for user, steps in plain_steps(tables, AS_OF).items():
        for session in {step[4] for step in steps if step[4]}:
            rows = [step for step in steps if step[4] == session]
            events = [step for step in rows if step[1] == 0]
            told = sum(step[3] == "buy" for step in events)
            expected[user, events[0][0], events[0][5]["event_id"]] = {
                "end": rows[-1][0],
                "duration_seconds": (rows[-1][0] - rows[0][0]).total_seconds(),
                "events": len(events),
                "views": sum(step[3] == "view" for step in events),
                "carts": sum(step[3] == "cart" for step in events),
                "purchases": max(told, len(rows) - len(events)),
                "entry_step": events[0][3],
                "exit_step": events[-1][3],
                "entry_page": events[0][5]["page"],
                "exit_page": events[-1][5]["page"],
                "bounce": len(events) == 1 and len(rows) == 1 and not told,
            }
    made = sessions(views).to_pyarrow().to_pylist()
    people = {row["one_id"]: row["source_user_id"] for row in views.customers.to_pyarrow().to_pylist()}

    def counted(rows):
        return Counter((user, start, *(values.items())) for user, start, values in rows)

    shown = (
        [
            (people[row["one_id"]], row["start"], {name: row[name] for name in next(iter(expected.values()))})
            for row in made
        ]
        if expected
        else []
    )
    assert len(made) == len(expected)
    assert counted(shown) == counted((user, start, values) for (user, start, _), values in expected.items())
    if expected:
        everybody = summary(views)[0]
        assert everybody.conversion.value == pytest.approx(
            sum(values["purchases"] > 0 for values in expected.values()) / len(expected)
        )
        assert everybody.duration_seconds_median == pytest.approx(
            median(sorted(values["duration_seconds"] for values in expected.values()))
        )


@CHECKED
@given(
    histories=HISTORIES,
    state=st.sampled_from(["event_type", "category", "page"]),
    keep=st.booleans(),
    depth=st.integers(1, 3),
)
def test_paths_are_counted_as_by_hand(lake_of, histories, state, keep, depth):
    tables = raw_rows(histories)
    views = Builder(lake_of(tables), FEATURES).views(AS_OF)
    ways = []
    for steps in plain_steps(tables, AS_OF).values():
        for session in {step[4] for step in steps if step[4]}:
            rows = [step for step in steps if step[4] == session]
            states = [step[3] if state == "event_type" else step[5].get(state) for step in rows]
            states = [value for value in states if value is not None]
            if not keep:
                states = [value for value, _ in itertools.groupby(states)]
            if states:
                ways.append((tuple(states), any(step[3] == "buy" for step in rows)))
    try:
        found = paths(views, state, depth=depth, top=1000, keep_repeats=keep)
    except DataError:
        assert not ways
        return
    expected = Counter((way[:depth], len(way) > depth) for way, _ in ways)
    assert {(path.path, path.longer): path.sessions for path in found.paths} == expected
    buys = Counter((way[:depth], len(way) > depth) for way, bought in ways if bought)
    assert all(
        path.conversion.value == pytest.approx(buys[path.path, path.longer] / path.sessions) for path in found.paths
    )
    pairs = Counter(pair for way, _ in ways for pair in itertools.pairwise((*way, EXIT)))
    assert {(step.state, step.next): step.count for step in found.transitions} == pairs
    assert [path.sessions for path in found.paths] == sorted((path.sessions for path in found.paths), reverse=True)


@settings(CHECKED, max_examples=examples(3))
@given(histories=HISTORIES)
def test_later_rows_change_nothing(lake_of, histories):
    tables = raw_rows(histories)
    past = {name: [row for row in rows if "ts" not in row or row["ts"] < AS_OF] for name, rows in tables.items()}
    if not past["events"]:
        return
    asked = [Builder(lake_of(rows), FEATURES).views(AS_OF) for rows in (tables, past)]
    assert funnel(asked[0]) == funnel(asked[1])
    assert paths(asked[0]) == paths(asked[1])
    assert summary(asked[0]) == summary(asked[1])
