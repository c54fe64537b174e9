"""Events of every type in a request and in the lake: which count, and what they change."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest

from features.compute.builder import Builder
from features.data.lake import Lake
from features.definitions import FEATURES
from features.interactions import TrainingSet
from features.training_data import auxiliary_rows, training_set
from models.bundle import ModelBundle
from models.recommend.repeat import OwnEventsRecommender, RepeatPurchaseRecommender
from models.recommend.scene_models import SceneModels
from serving.champions import Champion
from serving.endpoints import ENDPOINTS
from serving.recommending import batch
from serving.recommending.catalogue import Catalogue
from serving.recommending.recent import Event, recent_activity

AS_OF = datetime(2024, 8, 1)
NAMES = ["bread", "butter", "pasta"]


def answer(champions, **fields):
    endpoint = ENDPOINTS["/recommendations"]
    return endpoint.respond(champions, endpoint.request.model_validate(fields), AS_OF)


def event(item, kind, hours):
    return {"item_id": item, "event_type": kind, "ts": (AS_OF + timedelta(hours=hours)).isoformat()}


@pytest.fixture
def of_model(champions):
    """Champions with one model of three items, of which the first customer has bought bread."""

    def make(model, **facts):
        one_ids = champions.customers.one_ids[:1]
        train = TrainingSet.from_arrays(np.zeros(1), np.zeros(1), n_users=1, n_items=3, age_days=np.ones(1))
        bundle = ModelBundle(
            "scenes",
            SceneModels({"own": model.fit(train)}, {"home": ["own"]}),
            AS_OF,
            user_ids=np.array(one_ids),
            item_ids=np.array(NAMES),
            item_attributes=train.item_attributes,
            facts=facts,
        )
        user = champions.customers.table["user_id"][0].as_py()
        return replace(champions, models={"recommend": Champion("recommend", "1", bundle)}), user

    return make


def shown(score):
    """The score of the last stage of a scene (`FallbackChain`)."""
    return (1 + score / (1 + score)) / 2


def items(body):
    return [item["item_id"] for item in body["items"]]


def test_a_view_counts_where_the_model_learnt_from_views(of_model):
    champions, user = of_model(OwnEventsRecommender(half_life_days=None), target="purchase")
    events = [event("pasta", "view", 1), event("butter", "cart", 2), event("butter", "login", 3)]
    context = {"events": events, "now": event("", "", 4)["ts"]}
    body = answer(champions, user_id="nobody", context=context)
    assert items(body) == ["butter", "pasta"]
    assert [item["score"] for item in body["items"]] == [shown(3.0), shown(1.0)]
    assert [one["index"] for one in body["ignored_events"]] == [2]
    assert body["ignored_events"][0]["reason"].endswith(": login does not count")
    # what was only viewed is not purchased
    assert items(answer(champions, user_id=user, context=context, purchased="never")) == ["butter", "pasta"]
    assert items(answer(champions, user_id=user, context=context, purchased="only")) == ["bread"]


def test_a_view_is_ignored_where_the_model_learnt_from_purchases_alone(of_model):
    champions, _ = of_model(RepeatPurchaseRecommender(), target="purchase")
    body = answer(champions, user_id="nobody", context={"events": [event("pasta", "view", 1)]})
    assert items(body) == []
    assert body["ignored_events"] == [{"index": 0, "reason": "the model learns from transactions: view does not count"}]


@pytest.mark.parametrize("facts", [{"target": "any"}, {"interactions": "events"}])
def test_every_type_counts_with_its_weight_where_all_are_the_target(of_model, facts):
    """Earlier bundles tell the target by the table that they learnt from."""
    champions, user = of_model(RepeatPurchaseRecommender(None), **facts)
    events = [event("pasta", "view", 1), event("butter", "favourite", 2)]
    body = answer(champions, user_id="nobody", context={"events": events})
    assert [(item["item_id"], item["score"]) for item in body["items"]] == [
        ("butter", shown(3.0)),
        ("pasta", shown(1.0)),
    ]
    assert body["ignored_events"] == []
    assert items(answer(champions, user_id=user, context={"events": events}, purchased="never")) == []


def test_events_close_in_time_are_one_visit(of_model):
    champions, _ = of_model(OwnEventsRecommender(), target="purchase")
    catalogue = Catalogue(champions.models["recommend"].bundle)
    kinds = [("pasta", "view", 1.0), ("butter", "view", 1.4), ("pasta", "cart", 1.8), ("bread", "view", 2.5)]
    bought = [("pasta", "purchase", 1.8), ("butter", "purchase", 1.9)]
    events = [Event.model_validate(event(*one)) for one in (*kinds, *bought)]
    found = recent_activity(catalogue, AS_OF, "purchase", events, None)
    visits = {NAMES[item]: visit for item, visit in zip(found.auxiliary.items, found.auxiliary.orders, strict=True)}
    assert visits == {"pasta": 0, "butter": 0, "bread": 1}
    assert found.interactions.orders.tolist() == [1, 0]  # purchases at different times are different orders
    assert found.interactions.types is None


def test_views_in_the_lake_since_the_training_count(champions, workspace):
    moment, builder = AS_OF + timedelta(days=7), Builder(Lake(workspace), FEATURES)
    train = training_set(builder, AS_OF, target="purchase", min_item_customers=2, with_features=False)
    own = OwnEventsRecommender().fit(train)
    bundle = ModelBundle(
        "scenes",
        SceneModels({"own": own}, {"home": ["own"]}),
        AS_OF,
        user_ids=train.user_ids,
        item_ids=train.item_ids,
        item_attributes=train.item_attributes,
        facts={"job": "recommend", "interactions": train.source, "target": train.target},
    )
    ours = replace(champions, models={**champions.models, "recommend": Champion("recommend", "1", bundle)})
    rows = auxiliary_rows(builder, moment, AS_OF).to_pylist()
    catalogue = ours.models["recommend"].catalogue
    offered = np.ones(len(train.item_ids), bool) if catalogue.available is None else catalogue.available
    met = {
        (row["one_id"], row["item_id"])
        for row in rows
        if (column := catalogue.item_column(row["item_id"])) >= 0 and offered[column]
    }
    before = batch.score_recommend(ours, num_results=500).table()
    then = batch.score_recommend(ours, num_results=500, as_of=moment, builder=builder).table()
    earlier, listed = (
        set(zip(table["one_id"].to_pylist(), table["item_id"].to_pylist(), strict=True)) for table in (before, then)
    )
    assert met <= listed
    assert met - earlier
