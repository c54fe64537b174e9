"""The grouping of numbers, held against a plain reading of the rules, one link at a time."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.data.identity import components
from features.data.identity.components import ALWAYS, APART, NO_CLAIM, NOBODY, Level, Links, Sightings, group, periods

NO_LINKS = Links.joined([])


def sightings_of(rows):
    rows = sorted(rows, key=lambda row: (row[0], row[1], row[3], row[2]))
    level, value, record, time = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [], [])
    return Sightings(
        np.array(level, np.int8), np.array(value, np.int32), np.array(record, np.int32), np.array(time, np.int64)
    )


def links_of(rows, level):
    rows = [(min(a, b), max(a, b), time, value) for a, b, time, value in rows]
    left, right, time, value = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [], [])
    return Links(
        np.array(left, np.int32),
        np.array(right, np.int32),
        np.array(time, np.int64),
        np.full(len(left), level, np.int8),
        np.array(value, np.int32),
    )


def plain(count, levels, rows, given_links, claims, apart):
    """The rules as one would read them aloud; values are their own tie breakers. → customers, links (a, b, time, held), shared."""
    customer = list(range(count))
    candidates, shared = [], set()
    for number in range(len(levels) + 1):
        found = []
        if number == len(levels):
            found = [(time, min(a, b), max(a, b), value) for a, b, time, value in given_links]
        else:
            for value in sorted({row[1] for row in rows if row[0] == number}):
                held = sorted((time, record) for level, v, record, time in rows if (level, v) == (number, value))
                limit, expires = levels[number].max_customers, levels[number].expires
                if limit is not None and len({customer[record] for _, record in held}) > limit:
                    shared.add(value)
                    continue
                for (before, one), (now, other) in zip(held, held[1:], strict=False):
                    if expires is not None and before != ALWAYS and now != ALWAYS and now - before > expires:
                        if held[0][0] != ALWAYS:
                            continue
                        one = held[0][1]
                    if one != other:
                        found.append((now, min(one, other), max(one, other), value))
        for time, a, b, _ in sorted(found):
            one, other = customer[a], customer[b]
            members = [r for r in range(count) if customer[r] in (one, other)]
            contradiction = any(len({claim[r] for r in members} - {NO_CLAIM}) > 1 for claim in claims)
            forbidden = any({x, y} <= set(members) for x, y in apart)
            if one != other and not contradiction and not forbidden:
                customer = [min(one, other) if c in (one, other) else c for c in customer]
            candidates.append((a, b, time))
    held = [(a, b, time) for a, b, time in candidates if customer[a] == customer[b]]
    return customer, held, shared


def at(count, held, moment):
    """Who is who at a moment: the oldest record of those connected by links not later than it."""
    customer = list(range(count))
    for a, b, time in held:
        if time <= moment:
            one, other = customer[a], customer[b]
            customer = [min(one, other) if c in (one, other) else c for c in customer]
    return customer


RECORDS = 8
TIME = st.one_of(st.just(ALWAYS), st.integers(0, 12))
ROWS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, RECORDS - 1), TIME), max_size=24)
PAIR = st.tuples(st.integers(0, RECORDS - 1), st.integers(0, RECORDS - 1)).filter(lambda pair: pair[0] != pair[1])
GIVEN = st.lists(st.tuples(PAIR, TIME), max_size=4)
LEVELS = st.tuples(*[st.builds(Level, st.sampled_from([None, 2, 3]), st.sampled_from([None, 2, 5]))] * 3)
CLAIMS = st.lists(st.lists(st.sampled_from([NO_CLAIM, NO_CLAIM, 1, 2]), min_size=RECORDS, max_size=RECORDS), max_size=2)


@settings(max_examples=300, deadline=timedelta(seconds=2))
@given(
    rows=ROWS,
    linked=GIVEN,
    levels=LEVELS,
    claims=CLAIMS,
    apart=st.lists(PAIR, max_size=2),
    rounds=st.sampled_from([1, 32]),
)
def test_the_grouping_is_what_the_rules_say(rows, linked, levels, claims, apart, rounds):
    rows = list(
        {(level, level * 4 + value, record, time) for level, value, record, time in rows}
    )  # a value is of one type
    given_links = [(*pair, time, 12 + number) for number, (pair, time) in enumerate(linked)]
    table = np.array(claims, dtype=np.int64).reshape(-1, RECORDS)
    before, components.ROUNDS = components.ROUNDS, rounds  # both ways of replaying
    try:
        found = group(
            RECORDS,
            levels,
            sightings_of(rows),
            links_of(given_links, 3),
            table,
            np.array(apart, np.int32).reshape(-1, 2),
            np.arange(20, dtype=np.int64),
        )
    finally:
        components.ROUNDS = before
    customer, held, shared = plain(RECORDS, levels, rows, given_links, claims, apart)
    assert found.customer.tolist() == customer
    assert set(found.shared[:, 0].tolist()) == shared
    seen = np.full(RECORDS, ALWAYS)
    record, owner, since, link = periods(found, seen)
    for moment in [ALWAYS, *range(13)]:
        valid = sorted(
            (start, r, o)
            for r, o, start in zip(record.tolist(), owner.tolist(), since.tolist(), strict=True)
            if start <= moment
        )
        now = {r: o for _, r, o in valid}
        assert [now[r] for r in range(RECORDS)] == at(RECORDS, held, moment)
    pairs = list(zip(record.tolist(), since.tolist(), strict=True))
    assert len(pairs) == len(set(pairs))  # one row a record and moment
    for at_link in link[link != NOBODY].tolist():
        assert found.accepted[at_link]


def test_the_claims_given_stay_as_they_were():
    claims = np.array([[1, NO_CLAIM]])
    group(
        2,
        [Level()],
        sightings_of([(0, 0, 0, 1), (0, 0, 1, 2)]),
        NO_LINKS,
        claims,
        np.zeros((0, 2), np.int32),
        np.zeros(1, np.int64),
    )
    assert claims.tolist() == [[1, NO_CLAIM]]


@pytest.mark.parametrize("size", [3, 50, 4000])
def test_a_long_chain_is_one_customer(size):
    rows = [(0, number, number + side, number) for number in range(size - 1) for side in (0, 1)]
    found = group(
        size,
        [Level(3)],
        sightings_of(rows),
        NO_LINKS,
        np.zeros((0, size), np.int64),
        np.zeros((0, 2), np.int32),
        np.arange(size, dtype=np.int64),
    )
    assert set(found.customer.tolist()) == {0}
    assert (found.owner[1:] != NOBODY).all()


def test_refused_links_say_why():
    rows = [(0, 0, 0, 1), (0, 0, 1, 2), (0, 1, 1, 3), (0, 1, 2, 4)]
    claims = np.array([[NO_CLAIM, 7, 8]])
    apart = np.array([[0, 1]], np.int32)
    found = group(3, [Level()], sightings_of(rows), NO_LINKS, claims, apart, np.arange(2, dtype=np.int64))
    assert found.customer.tolist() == [0, 1, 2]
    assert found.refused[:, 1].tolist() == [APART, 0]
