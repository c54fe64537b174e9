"""The grouping of numbers, held against a plain reading of the rules, one link at a time."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.data.identity import components
from features.data.identity.components import UNMERGED, cluster_records
from features.data.identity.links import (
    NO_RECORD,
    NO_VALUE,
    UNDATED,
    CandidateLinks,
    IdentifierSightings,
    IdTypeRule,
)
from features.data.identity.periods import periods

NO_LINKS = CandidateLinks.joined([])


def sightings_of(rows):
    rows = sorted(rows, key=lambda row: (row[0], row[1], row[3], row[2]))
    level, value, record, time = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [], [])
    return IdentifierSightings(
        np.array(level, np.int8), np.array(value, np.int32), np.array(record, np.int32), np.array(time, np.int64)
    )


def links_of(rows, level):
    rows = [(min(a, b), max(a, b), time, value) for a, b, time, value in rows]
    left, right, time, value = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [], [])
    return CandidateLinks(
        np.array(left, np.int32),
        np.array(right, np.int32),
        np.array(time, np.int64),
        np.full(len(left), level, np.int8),
        np.array(value, np.int32),
    )


def plain(count, levels, rows, given_links, strong_values, unmerged_pairs):
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
                    if expires is not None and before != UNDATED and now != UNDATED and now - before > expires:
                        if held[0][0] != UNDATED:
                            continue
                        one = held[0][1]
                    if one != other:
                        found.append((now, min(one, other), max(one, other), value))
        for time, a, b, _ in sorted(found):
            one, other = customer[a], customer[b]
            members = [r for r in range(count) if customer[r] in (one, other)]
            contradiction = any(
                len({strong_value[r] for r in members} - {NO_VALUE}) > 1 for strong_value in strong_values
            )
            forbidden = any({x, y} <= set(members) for x, y in unmerged_pairs)
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
TIME = st.one_of(st.just(UNDATED), st.integers(0, 12))
ROWS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, RECORDS - 1), TIME), max_size=24)
PAIR = st.tuples(st.integers(0, RECORDS - 1), st.integers(0, RECORDS - 1)).filter(lambda pair: pair[0] != pair[1])
GIVEN = st.lists(st.tuples(PAIR, TIME), max_size=4)
LEVELS = st.tuples(*[st.builds(IdTypeRule, st.sampled_from([None, 2, 3]), st.sampled_from([None, 2, 5]))] * 3)
CLAIMS = st.lists(st.lists(st.sampled_from([NO_VALUE, NO_VALUE, 1, 2]), min_size=RECORDS, max_size=RECORDS), max_size=2)


@settings(max_examples=300, deadline=timedelta(seconds=2))
@given(
    rows=ROWS,
    linked=GIVEN,
    levels=LEVELS,
    strong_values=CLAIMS,
    unmerged_pairs=st.lists(PAIR, max_size=2),
    rounds=st.sampled_from([1, 32]),
)
def test_the_grouping_is_what_the_rules_say(rows, linked, levels, strong_values, unmerged_pairs, rounds):
    rows = list(
        {(level, level * 4 + value, record, time) for level, value, record, time in rows}
    )  # a value is of one type
    given_links = [(*pair, time, 12 + number) for number, (pair, time) in enumerate(linked)]
    table = np.array(strong_values, dtype=np.int64).reshape(-1, RECORDS)
    before, components.MAX_VECTORIZED_LINKS = components.MAX_VECTORIZED_LINKS, rounds  # both ways of replaying
    try:
        found = cluster_records(
            RECORDS,
            levels,
            sightings_of(rows),
            links_of(given_links, 3),
            table,
            np.array(unmerged_pairs, np.int32).reshape(-1, 2),
            np.arange(20, dtype=np.int64),
        )
    finally:
        components.MAX_VECTORIZED_LINKS = before
    customer, held, shared = plain(RECORDS, levels, rows, given_links, strong_values, unmerged_pairs)
    assert found.customer.tolist() == customer
    assert set(found.shared[:, 0].tolist()) == shared
    seen = np.full(RECORDS, UNDATED)
    record, merged_into, merged_at, link = periods(found, seen)
    for moment in [UNDATED, *range(13)]:
        valid = sorted(
            (start, r, o)
            for r, o, start in zip(record.tolist(), merged_into.tolist(), merged_at.tolist(), strict=True)
            if start <= moment
        )
        now = {r: o for _, r, o in valid}
        assert [now[r] for r in range(RECORDS)] == at(RECORDS, held, moment)
    pairs = list(zip(record.tolist(), merged_at.tolist(), strict=True))
    assert len(pairs) == len(set(pairs))  # one row a record and moment
    for at_link in link[link != NO_RECORD].tolist():
        assert found.accepted[at_link]


def test_the_claims_given_stay_as_they_were():
    strong_values = np.array([[1, NO_VALUE]])
    cluster_records(
        2,
        [IdTypeRule()],
        sightings_of([(0, 0, 0, 1), (0, 0, 1, 2)]),
        NO_LINKS,
        strong_values,
        np.zeros((0, 2), np.int32),
        np.zeros(1, np.int64),
    )
    assert strong_values.tolist() == [[1, NO_VALUE]]


@pytest.mark.parametrize("size", [3, 50, 4000])
def test_a_long_chain_is_one_customer(size):
    rows = [(0, number, number + side, number) for number in range(size - 1) for side in (0, 1)]
    found = cluster_records(
        size,
        [IdTypeRule(3)],
        sightings_of(rows),
        NO_LINKS,
        np.zeros((0, size), np.int64),
        np.zeros((0, 2), np.int32),
        np.arange(size, dtype=np.int64),
    )
    assert set(found.customer.tolist()) == {0}
    assert (found.merged_into[1:] != NO_RECORD).all()


def test_refused_links_say_why():
    rows = [(0, 0, 0, 1), (0, 0, 1, 2), (0, 1, 1, 3), (0, 1, 2, 4)]
    strong_values = np.array([[NO_VALUE, 7, 8]])
    unmerged_pairs = np.array([[0, 1]], np.int32)
    found = cluster_records(
        3, [IdTypeRule()], sightings_of(rows), NO_LINKS, strong_values, unmerged_pairs, np.arange(2, dtype=np.int64)
    )
    assert found.customer.tolist() == [0, 1, 2]
    assert found.rejected[:, 1].tolist() == [UNMERGED, 0]
