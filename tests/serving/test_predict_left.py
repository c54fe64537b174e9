"""The prediction `left`: who gets a probability, and what the others are told."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest

from features.profiles.purchase_process.process import PurchaseProcess
from models.bundle import ModelBundle
from models.classify.churn_model import ChurnModel, Member
from models.classify.logistic import LogisticClassifier
from models.classify.own_window import OwnWindow
from models.classify.rhythm import RHYTHM_FEATURES, WINDOW, Design
from serving.champions import Champions
from serving.endpoints.churn import ENDPOINT
from serving.predictions.base import PredictedCustomers
from serving.predictions.left import PREDICTION
from serving.users import ResolvedUser

LONGEST = 60.0


@pytest.fixture(scope="module")
def with_left(champions) -> Champions:
    """The champions, and a model of customers who left that was fitted on their silence."""
    spec = champions.customers.spec.select(RHYTHM_FEATURES)
    design = Design(tuple(spec.names), 20.0, PurchaseProcess(10.0), OwnWindow(2.0, 20.0))
    X = champions.customers.features.values[:, [champions.customers.spec.names.index(name) for name in spec.names]]
    X = X[X[:, spec.names.index("orders_total")] > 0]
    columns = ("days_since_last_order", WINDOW)
    silent = (X[:, 0] > np.median(X[:, 0])).astype(np.int64)
    member = Member("logistic", columns, LogisticClassifier().fit(design.columns(X, columns, 0.0), silent))
    one_id = str(champions.customers.one_ids[0])
    facts = {"longest_days": LONGEST, "min_days": 20, "risk_bands": [0.3, 0.7], "shared_accounts": {one_id: "a till"}}
    bundle = ModelBundle("left", ChurnModel(design, (member,)), champions.customers.as_of, spec, facts=facts)
    champion = replace(champions.models["churn"], bundle=bundle)
    return replace(champions, models={**champions.models, "left": champion})


def test_probabilities_windows_and_reasons(with_left):
    n = len(with_left.customers.one_ids)
    moments = np.full(n, np.datetime64(with_left.customers.as_of, "us"))
    predicted = PREDICTION.predict(PredictedCustomers(with_left, np.arange(n), moments))
    fields, reasons = predicted.fields, predicted.reasons
    orders = with_left.customers.features.column("orders_total")
    seen = set()
    for place, reason in enumerate(reasons):
        probability, days, band = (fields[name][place] for name in ("left_probability", "left_days", "left_risk"))
        assert (probability is None) == (band is None) == (reason is not None)
        if reason is None:
            assert 20 <= days <= LONGEST
            assert band == ("low" if probability < 0.3 else "medium" if probability < 0.7 else "high")
            seen.add("scored")
        elif reason.startswith("a window of"):
            assert days > LONGEST
            assert reason == f"a window of {days} days, which a history of {2 * days + 56} days would be enough for"
            seen.add("too long")
        elif reason == "never bought":
            assert orders[place] == 0
    assert reasons[0] == "a till"
    assert seen == {"scored", "too long"}


def test_both_meanings_say_the_same_of_an_ambiguous_id(with_left, monkeypatch):
    problem = "several sources use the id: name the source in user_source"
    monkeypatch.setattr("serving.endpoints.churn.resolve_users", lambda *_: [ResolvedUser("7", None, None, problem)])
    request = ENDPOINT.request.model_validate({"user_ids": ["7"]})
    (row,) = ENDPOINT.respond(with_left, request, datetime(2024, 8, 3))["scores"]
    assert row["no_score_reason"] == row["left_no_score_reason"] == problem
