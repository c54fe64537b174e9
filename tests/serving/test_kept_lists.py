"""Kept lists: what a request reads from them is what would be computed for it, and their number is bounded."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import orjson
import pytest

from models.ranked import Ranked
from qianmian.settings import Settings
from serving.endpoints import ENDPOINTS
from serving.recommending.fill import BLOCK, fill_kept_lists
from serving.recommending.kept_lists import LENGTH, KeptLists

NOW = datetime(2024, 8, 3)


def keeping(champions, most):
    return replace(champions, settings=Settings(serving={"kept_lists": most}))


def answer(champions, **fields):
    endpoint = ENDPOINTS["/recommendations"]
    request = endpoint.request.model_validate(fields)
    body = orjson.loads(endpoint.json(champions, request, NOW))
    assert re.fullmatch("[0-9a-f]{32}", body.pop("recommendation_id"))
    return body


@pytest.mark.parametrize("fields", [{}, {"purchased": "never"}, {"scene": "discover"}, {"explain": True}], ids=str)
def test_kept_lists_are_those_that_would_be_computed(champions, buyers, fields):
    kept, computed = keeping(champions, 100), keeping(champions, 0)
    for user in (*buyers[:5], buyers[-1], "nobody"):
        for k in (3, 10, 3, LENGTH, LENGTH + 1):
            given = {"user_id": user, "num_results": k, **fields}
            assert answer(kept, **given) == answer(computed, **given)
            handled = ENDPOINTS["/recommendations"].respond(
                computed, ENDPOINTS["/recommendations"].request.model_validate(given), NOW
            )
            assert list(answer(kept, **given).items()) == [
                (name, value) for name, value in handled.items() if name != "recommendation_id"
            ]
    assert len(kept.kept_lists) == 7
    assert not len(computed.kept_lists)


def test_a_request_that_says_more_is_computed(champions, buyers):
    kept, computed = keeping(champions, 100), keeping(champions, 0)
    items = [item["item_id"] for item in answer(kept, user_id=buyers[0])["items"]]
    as_of = champions.models["recommend"].bundle.as_of
    bought = [{"item_id": items[-1], "ts": (as_of + timedelta(days=1)).isoformat()}]
    for more in (
        {"exclude": items[:2]},
        {"filters": {"item_id": items[3:5]}},
        {"context": {"events": bought}},
        {"context": {"now": (as_of + timedelta(days=20)).isoformat()}},
        {"context": {"attributes": {"age_band": "25-34"}}},
        {"scene": "similar", "context": {"items": items[:1]}},
    ):
        assert answer(kept, user_id=buyers[0], **more) == answer(computed, user_id=buyers[0], **more)
    assert len(kept.kept_lists) == 1
    without = answer(kept, user_id=buyers[0], exclude=items[:2])["items"]
    assert not {item["item_id"] for item in without} & set(items[:2])


def test_the_list_used_least_recently_makes_room():
    lists, computed = KeptLists(2), []

    def ask(row):
        def rank(length):
            computed.append(row)
            ids = np.full((1, length), row, np.int32)
            return Ranked(
                ids, ids.astype(np.float32), np.array([length], np.int32), np.zeros_like(ids, np.int8), ("a",)
            )

        found = lists.get(("home", row, "any"), 4, rank)
        assert found.ids.tolist() == [[row] * 4]
        assert found.valid.tolist() == [4]

    for row in (1, 2, 1, 3, 1, 2):
        ask(row)
    assert computed == [1, 2, 3, 2]
    assert len(lists) == 2


@pytest.mark.parametrize("most", [0, 30, 10_000])
def test_lists_that_are_filled_in_the_background_are_those_that_would_be_computed(champions, buyers, most):
    filled, computed, pauses = keeping(champions, most), keeping(champions, 0), []
    number = fill_kept_lists(filled, pauses.append)
    customers = len(champions.models["recommend"].bundle.user_ids) + 1
    assert number == len(filled.kept_lists) == min(most, customers)
    assert len(pauses) == -(-number // BLOCK)
    assert fill_kept_lists(filled, pauses.append) == 0
    assert all(seconds > 0 for seconds in pauses)
    for user in (*buyers[:5], buyers[-1], "nobody"):
        given = {"user_id": user, "num_results": LENGTH}
        assert answer(filled, **given) == answer(computed, **given)


def test_only_the_json_of_short_lists_is_kept(champions, buyers):
    """That of 500 items would take 20 times the memory of the list."""
    kept = keeping(champions, 100)
    row = champions.models["recommend"].catalogue.user_row(champions.customers.resolve(buyers[0]))
    for k, is_kept in ((LENGTH, True), (LENGTH + 1, False), (500, False)):
        answer(kept, user_id=buyers[0], num_results=k)
        assert bool(kept.kept_lists.shown(("home", row, "any"), k)) is is_kept
    assert kept.kept_lists.shown(("home", row, "any"), LENGTH), "longer lists leave it"


def test_a_list_that_is_kept_already_is_not_replaced_and_those_filled_go_first():
    lists = KeptLists(2)

    def ranked(value):
        ids = np.full((1, LENGTH), value, np.int32)
        return Ranked(ids, ids.astype(np.float32), np.array([LENGTH], np.int32), np.zeros_like(ids, np.int8), ("a",))

    lists.get(("home", 1, "any"), 3, lambda _: ranked(1))
    for row, value in ((1, 7), (2, 2), (3, 3)):
        lists.fill(("home", row, "any"), ranked(value))
    assert len(lists) == 2
    lists.get(("home", 4, "any"), 3, lambda _: ranked(4))  # makes room by the list that was filled
    assert lists.get(("home", 1, "any"), 1, lambda _: ranked(9)).ids.tolist() == [[1]]
    assert lists.get(("home", 2, "any"), 1, lambda _: ranked(9)).ids.tolist() == [[9]]
