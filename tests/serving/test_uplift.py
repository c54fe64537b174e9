"""`/v1/uplift` and `score uplift`: who is contacted at a budget, who is not and why, and what that is worth."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import numpy as np
import orjson
import pytest

from models.uplift.uplift_model import decile_of
from qianmian.errors import InvalidRequest
from serving.champions import Champion, Champions
from serving.endpoints.uplift import ENDPOINT
from serving.requests import parse_request
from serving.scoring.uplift import DO_NOT_CONTACT, allocate, policy_of, score_uplift

NOW = datetime(2024, 8, 3)


@pytest.fixture(scope="module")
def with_uplift(champions, registering) -> Champions:
    """The champions, and an uplift that falls with the orders of the last 28 days, for half of the customers below 0."""
    bundle = registering.uplift_bundle(champions.customers)
    champion = Champion("uplift", "3", bundle)
    return replace(champions, models={**champions.models, "uplift": champion})


def answer(champions, user_ids, source, **more):
    request = parse_request(ENDPOINT.request, orjson.dumps({"user_ids": user_ids, "user_source": source, **more}))
    found = ENDPOINT.respond(champions, request, NOW)
    ENDPOINT.response.model_validate(found)
    return found


@pytest.fixture(scope="module")
def ids(with_uplift):
    """The ids of one source, and their places in the profiles."""
    table = with_uplift.customers.table
    source = table["user_source"][1].as_py()
    places = [place for place, one in enumerate(table["user_source"].to_pylist()) if one == source]
    return source, [table["user_id"][place].as_py() for place in places], places


def test_the_highest_uplift_within_the_budget_is_contacted(with_uplift, ids):
    source, user_ids, _ = ids
    found = answer(with_uplift, user_ids, source, budget=20)
    scores = found["scores"]
    assert [row["user_id"] for row in scores] == user_ids
    contacted = [row for row in scores if row["contact"]]
    assert len(contacted) == 20 == found["policy"]["contacted"]
    allowed = sorted(
        (row["uplift"] for row in scores if row["do_not_contact_reason"] in (None, "beyond_budget")), reverse=True
    )
    assert min(row["uplift"] for row in contacted) == allowed[19]
    assert all(row["uplift"] > 0 for row in contacted)
    assert sum(found["do_not_contact"].values()) == len(scores) - 20
    assert set(found["do_not_contact"]) == {"shared_account", "no_consent", "no_uplift", "beyond_budget"}
    assert found["campaign"] == ["c01"]
    assert found["placebo_passed"] is True
    assert found["model"] == {"name": "qianmian-uplift", "version": "3"}


def test_reasons_why_not(with_uplift, ids):
    source, user_ids, places = ids
    scores = answer(with_uplift, [*user_ids, "nobody"], source)["scores"]
    consents = with_uplift.customers.tags["consent_push"]
    for place, row in zip(places, scores[:-1], strict=True):
        if place == 1:
            assert row["do_not_contact_reason"] == "shared_account"
            assert row["no_score_reason"] == "shared account: a till"
        elif consents[place] is False:
            assert row["do_not_contact_reason"] == "no_consent"
        else:
            assert row["do_not_contact_reason"] == (None if row["uplift"] > 0 else "no_uplift")
        assert row["contact"] == (row["do_not_contact_reason"] is None)
        assert (row["uplift"] is None) == (row["uplift_decile"] is None) == (row["no_score_reason"] is not None)
    assert scores[-1]["do_not_contact_reason"] == "no_score"
    assert scores[-1]["no_score_reason"] == "unknown customer"


def test_an_id_named_twice_is_contacted_once(with_uplift, ids):
    source, user_ids, _ = ids
    once = answer(with_uplift, user_ids, source, budget=5)
    twice = answer(with_uplift, [*user_ids, *user_ids], source, budget=5)
    assert twice["policy"] == once["policy"]
    assert [row["contact"] for row in twice["scores"]] == 2 * [row["contact"] for row in once["scores"]]


def test_at_most_one_budget(with_uplift, ids):
    source, user_ids, _ = ids
    with pytest.raises(InvalidRequest, match="at most one of budget_share and budget"):
        answer(with_uplift, user_ids, source, budget=5, budget_share=0.5)
    assert answer(with_uplift, user_ids[:3], source, budget=0)["policy"]["expected_gain"] == 0.0


def test_the_file_says_what_the_answer_says(with_uplift, ids):
    source, user_ids, places = ids
    scored = score_uplift(with_uplift, budget_share=0.2)
    rows = scored.blocks().table().to_pylist()
    n = sum(row["no_score_reason"] is None for row in rows)
    assert sum(row["contact"] for row in rows) == round(0.2 * n) == scored.policy["contacted"]
    assert {row["do_not_contact_reason"] for row in rows} - {None} <= set(DO_NOT_CONTACT)
    answers = answer(with_uplift, user_ids, source)["scores"]
    for place, row in zip(places, answers, strict=True):
        for name in ("uplift", "uplift_decile", "no_score_reason", "one_id"):
            assert rows[place][name] == row[name]
    deciles = [row["uplift_decile"] for row in rows if row["uplift_decile"] is not None]
    assert set(deciles) == set(range(1, 11))
    highest = max((row["uplift"], row["uplift_decile"]) for row in rows if row["uplift"] is not None)
    assert highest[1] == 1


def test_deciles_and_ties():
    assert decile_of(np.array([9.0, 8.5, -1.0]), list(range(1, 10))).tolist() == [1, 2, 10]
    rows = [{"uplift": 1.0, "do_not_contact_reason": None} for _ in "cab"]
    allocate(rows, list("cab"), 2)  # of equals those with the first ids, whatever their order
    assert [row["contact"] for row in rows] == [False, True, True]
    assert rows[0]["do_not_contact_reason"] == "beyond_budget"


def test_what_a_policy_is_worth_depends_on_who_is_contacted():
    """The best tenth adds 2, the second 1, the others nothing; squared widths of the tenths add up."""
    points = [(2.0, 3.0), (3.0, 5.0), *((3.0, 5.0),) * 8]
    policy = [
        {"budget_share": (place + 1) / 10, "gain": gain, "low": gain - width, "high": gain + width}
        for place, (gain, width) in enumerate(points)
    ]

    def gain_of(deciles, n=100):
        found = policy_of({"policy": policy}, deciles, n)
        assert (found["contacted"], found["budget_share"]) == (len(deciles), len(deciles) / n)
        return found["expected_gain"], found["expected_gain_high"] - found["expected_gain"]

    assert gain_of([1] * 10) == (2.0, 3.0), "as the evaluation says for the best tenth"
    assert gain_of([1] * 10 + [2] * 10) == (3.0, 5.0)
    assert gain_of([1] * 5 + [2] * 5) == (1.5, 2.5), "half of both tenths, because the others refuse"
    assert gain_of([10] * 50) == (0.0, 0.0)
    assert gain_of([2], 1) == (10.0, 40.0), "all of a request are of the second tenth"
    assert policy_of({"policy": policy}, [], 0)["expected_gain"] == 0.0
