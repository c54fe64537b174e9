"""`/v1/predictions` and `score predictions`: what the registered predictions say of each customer, in one row."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest

from features.compute.spec import UserFeatures
from features.definitions.target_features import features_of
from models.bundle import ModelBundle
from models.classify.calibrated import CalibratedClassifier
from models.classify.propensity import PropensityModel
from qianmian.errors import InvalidRequest, NotReady
from qianmian.propensity_targets import PropensityTarget
from serving.champions import Champion
from serving.endpoints import ENDPOINTS
from serving.endpoints.predictions import ENDPOINT
from serving.predictions import PREDICTIONS
from serving.predictions.base import PredictedCustomers, predict_rows
from serving.scoring.predictions import score_predictions

NOW = datetime(2024, 8, 3)


def body(champions, **fields):
    request = ENDPOINT.request.model_validate(fields)
    found = ENDPOINT.respond(champions, request, NOW)
    ENDPOINT.response.model_validate(found)
    return found


def with_models(champions):
    return [one for one in PREDICTIONS.values() if one.job in champions.models]


@pytest.mark.parametrize("name", list(PREDICTIONS))
def test_a_prediction_has_fields_of_its_own_and_a_column_for_each(name, champions):
    one = PREDICTIONS[name]
    assert one.name == name
    fields = one.response.model_fields
    assert fields
    others = {field for other in PREDICTIONS.values() if other is not one for field in other.response.model_fields}
    assert not others & set(fields)
    assert all(field.description for field in fields.values())
    if one.job not in champions.models:
        return
    customers = PredictedCustomers(champions, np.arange(9), np.full(9, np.datetime64(champions.customers.as_of, "us")))
    predicted = one.predict(customers)
    assert list(predicted.fields) == list(fields)
    assert [column.name for column in one.columns(champions.require(one.job))] == list(fields)
    assert {len(values) for values in (*predicted.fields.values(), predicted.reasons)} == {9}


def test_all_predictions_of_a_customer_are_in_one_row(champions, buyers):
    answer = body(champions, user_ids=[*buyers[:3], "ghost"])
    assert answer["models"].keys() == {one.name for one in with_models(champions)}
    assert answer["unavailable"].keys() == PREDICTIONS.keys() - answer["models"].keys()
    *rows, ghost = answer["scores"]
    for row in rows:
        assert row["lifecycle_stage"] is not None
        assert (row["churn_probability"] is None) == ("churn" in (row["no_score_reasons"] or {}))
    assert ghost["no_score_reason"] == "unknown customer"
    fields = {field for one in PREDICTIONS.values() for field in one.response.model_fields}
    assert all(ghost[field] is None for field in fields)


def test_a_request_may_want_some_of_them(champions, buyers):
    answer = body(champions, user_ids=buyers[:2], predictions=["churn"])
    assert list(answer["models"]) == ["churn"]
    assert answer["model"]["name"] == "qianmian-churn"
    everything = body(champions, user_ids=buyers[:2])
    for row, whole in zip(answer["scores"], everything["scores"], strict=True):
        assert row["churn_probability"] == whole["churn_probability"]
        assert row["lifecycle_stage"] is None
    with pytest.raises(InvalidRequest) as raised:
        body(champions, user_ids=buyers[:1], predictions=["weather"])
    assert raised.value.field == "predictions"
    with pytest.raises(InvalidRequest):
        body(champions, user_ids=buyers[:1], predictions=["weather"], validate_only=True)


def test_a_target_that_was_removed_since_the_training_is_left_out(champions, buyers):
    """Its model would read the defaults of features that the profiles do not have any more."""
    stays, goes = PropensityTarget.of("event=cart"), PropensityTarget.of("event=view")
    rng, profiles = np.random.default_rng(0), champions.customers
    n = profiles.table.num_rows

    def with_features_of(*targets):
        own = [feature for target in targets for feature in features_of(target)]
        table = profiles.table
        for feature in own:
            table = table.append_column(feature.name, pa.array(rng.integers(0, 9, n).astype(np.float32)))
        features = (*profiles.spec.features, *own)
        made = UserFeatures.from_table(table, features, profiles.as_of, timezone=profiles.spec.timezone)
        return replace(profiles, table=table, spec=made.spec)

    both = with_features_of(stays, goes)
    spec = both.spec.select([feature.name for target in (stays, goes) for feature in features_of(target)])
    y = rng.integers(0, 2, 100)
    X = rng.normal(size=(100, 5)).astype(np.float32)
    classifiers = tuple(CalibratedClassifier(("logistic",)).fit(X, y) for _ in range(2))
    model = PropensityModel((str(stays), str(goes)), (tuple(range(5)), tuple(range(5, 10))), classifiers)
    models = {
        "propensity": Champion(
            "propensity", "1", ModelBundle("propensity", model, datetime(2024, 1, 1), spec, facts={})
        )
    }

    def scored(snapshot):
        served = replace(champions, models=models, snapshot=snapshot)
        rows = body(served, user_ids=buyers[:20], predictions=["propensity"])["scores"]
        return rows, score_predictions(served, names=["propensity"]).table()["propensities"]

    rows, column = scored(both)
    assert {tuple(row["propensities"]) for row in rows} == {(str(stays), str(goes))}
    rows, column = scored(with_features_of(stays))
    assert {tuple(row["propensities"]) for row in rows} == {(str(stays),)}
    assert {one[str(goes)] for one in column.to_pylist() if one} == {None}
    rows, column = scored(profiles)
    assert {row["no_score_reason"] for row in rows} == {"the profiles do not have the features of the targets"}
    assert column.null_count == n


def test_a_prediction_without_a_model_says_why(champions, buyers):
    models = {job: model for job, model in champions.models.items() if job != "lifecycle"}
    answer = body(replace(champions, models=models), user_ids=buyers[:1])
    assert "lifecycle" in answer["unavailable"]
    assert answer["scores"][0]["lifecycle_stage"] is None
    with pytest.raises(NotReady):
        body(replace(champions, models={}), user_ids=buyers[:1])


def test_the_file_has_the_rows_of_the_answers(champions):
    table = score_predictions(champions).table()
    assert table.column_names[:3] == ["user_id", "user_source", "one_id"]
    assert table.column_names[-4:] == ["no_score_reason", "no_score_reasons", "as_of", "model_version"]
    only = score_predictions(champions, names=["churn"]).table()
    assert only.column_names[3:] == ["churn_probability", "risk_band", "no_score_reason", "as_of", "model_version"]
    assert set(only["model_version"].to_pylist()) == {champions.require("churn").version}
    assert only["churn_probability"].equals(table["churn_probability"])
    assert isinstance(table.schema.field("no_score_reasons").type, pa.StructType)


def test_a_thousand_customers_take_a_tenth_of_a_second(champions, buyers):
    rows = np.arange(champions.customers.table.num_rows).repeat(10)[:1000]
    predictions = list(PREDICTIONS.values())
    champions.warm()
    seconds = []
    for _ in range(5):
        begun = time.process_time()
        assert len(predict_rows(champions, rows, None, predictions)) == len(rows)
        seconds.append(time.process_time() - begun)
    assert min(seconds) < 0.1


def test_the_estimate_grows_with_customers_and_predictions():
    parse = ENDPOINTS["/predictions"].request.model_validate
    few, one, all_of_them = (
        ENDPOINT.estimated_ms(parse(request))
        for request in (
            {"user_ids": ["a"], "predictions": ["churn"]},
            {"user_ids": ["a"] * 100, "predictions": ["churn"]},
            {"user_ids": ["a"] * 100},
        )
    )
    assert few < one < all_of_them
