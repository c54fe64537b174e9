"""The parameters of the registered models that scoring on Spark uses, without Spark."""

from __future__ import annotations

import json
from datetime import timedelta

import numpy as np
import pandas as pd


def test_one_row_per_customer_has_the_lists_of_one_row_per_item(champions):
    from training.pyfunc import predict_table

    bundle = champions.models["recommend"].bundle
    frame = pd.DataFrame({"one_id": [*bundle.user_ids[:5], "nobody"]})
    params = {"num_results": 4, "scene": "discover", "items": json.dumps([*bundle.item_ids[:3].tolist(), "ghost"])}
    by_item = predict_table(bundle, frame, params)
    by_customer = predict_table(bundle, frame, {**params, "one_row_per_customer": True})
    assert by_customer["one_id"].tolist() == frame["one_id"].tolist()
    assert set(by_item["item_id"]) == set(bundle.item_ids[:3])
    for column in ("item_id", "score", "source"):
        assert np.concatenate(by_customer[column].tolist()).tolist() == by_item[column].tolist()
    assert [len(items) for items in by_customer["item_id"]] == [3] * 6
    nothing = predict_table(bundle, frame, {**params, "items": json.dumps(["ghost"]), "one_row_per_customer": True})
    assert [len(items) for items in nothing["item_id"]] == [0] * 6


def test_churn_is_predicted_for_the_moment_of_the_features(champions):
    from training.pyfunc import predict_table

    bundle = champions.models["churn"].bundle
    later = bundle.as_of + timedelta(days=30)
    frame = champions.customers.table.slice(0, 20).to_pandas()
    values = champions.encoded("churn").values[:20]
    for params, moment in (({}, bundle.as_of), ({"as_of": later.isoformat()}, later)):
        found = predict_table(bundle, frame, params)["churn_probability"]
        np.testing.assert_array_equal(found, bundle.model.predict_proba(values, moment)[:, 1])
