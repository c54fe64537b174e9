"""Accepted views, carts and purchases reach the features of the ranker as the same rows of the lake do in a batch."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest

from features.compute.builder import Builder
from features.data.lake import Lake
from features.definitions import FEATURES
from features.event_log.rows import encode, make_row
from features.training_data import training_set
from models.bundle import ModelBundle
from models.recommend.base import Query
from models.recommend.ranking.two_stage import TwoStageRecommender
from models.recommend.ranking.type_features import type_columns
from models.recommend.scene import SCENES
from models.recommend.scene_models import SceneModels
from serving.champions import Champion
from serving.endpoints import ENDPOINTS
from serving.recommending import batch
from serving.recommending.plan import resolve_request

AS_OF = datetime(2024, 8, 1)
LATER = AS_OF + timedelta(days=7)
STAGES = (("repeat", {}, 30), ("own_events", {}, 30), ("popular", {"window_days": 28.0}, 40))


@pytest.fixture(scope="module")
def builder(workspace) -> Builder:
    return Builder(Lake(workspace), FEATURES)


@pytest.fixture(scope="module")
def ranked(champions, builder):
    """Champions with a ranker that has learnt from events of all types."""
    train = training_set(builder, AS_OF, target="purchase", min_item_customers=2, with_features=False)
    ranker = TwoStageRecommender("any", STAGES, rounds=30, horizon_days=14.0, n_jobs=1).fit(train)
    assert {"view", "cart"} <= set(ranker.auxiliary_types)
    arrays = {"user_ids": train.user_ids, "item_ids": train.item_ids, "item_attributes": train.item_attributes}
    facts = {"job": "recommend", "interactions": train.source, "target": train.target}
    bundle = ModelBundle("scenes", SceneModels({"one": ranker}, {"home": ["one"]}), AS_OF, **arrays, facts=facts)
    return replace(champions, models={**champions.models, "recommend": Champion("recommend", "1", bundle)})


@pytest.fixture
def accepted(ranked, workspace, log, following):
    """The champions, and 12 customers of which all rows of the lake after the training were accepted as events."""
    rows: dict[str, list] = {}
    gave_back = set()
    lake = Lake(workspace).connect(("events", "transactions"))
    for table in ("events", "transactions"):
        for number, row in enumerate(lake.table(table).to_pyarrow().to_pylist()):
            if row["ts"] is None or not AS_OF <= row["ts"] < LATER or row["source_user_id"] is None:
                continue
            values = {name: value for name, value in row.items() if value is not None and name != "date_only"}
            kind = {"event_type": "purchase"} if table == "transactions" else {}
            event = encode(make_row(values.pop("event_id", f"{table}{number}"), {**values, **kind}))
            one_id = ranked.customers.resolve(row["source_user_id"], row["source"])
            if row.get("status", "paid") != "paid":
                gave_back.add(one_id)  # a return of the lake has an order of its own
            rows.setdefault(one_id, []).append(event)
    chosen = sorted(rows.keys() - gave_back - {None}, key=lambda one_id: -len(rows[one_id]))[:12]
    log.append([event for one_id in chosen for event in rows[one_id]])
    served = replace(ranked, events=following(log))
    return served, {one_id: rows[one_id][0] for one_id in chosen}


def test_features_and_lists_are_those_of_a_batch_over_the_same_rows(ranked, accepted, builder):
    served, users = accepted
    champion, endpoint = ranked.models["recommend"], ENDPOINTS["/recommendations"]
    ranker, items = champion.bundle.model.models["one"], np.arange(len(champion.bundle.item_ids))
    bought, met = batch._recent_interactions(champion, ranked, LATER, builder)
    rows = champion.bundle.user_map.rows(ranked.customers.one_ids)
    of_batch = Query(rows, recent_interactions=bought, elapsed_days=7.0, recent_auxiliary=met)
    table = batch.score_recommend(ranked, num_results=10, as_of=LATER, builder=builder).table()
    lists: dict[str, list] = {}
    for row in table.to_pylist():
        lists.setdefault(row["one_id"], []).append((row["item_id"], pytest.approx(row["score"], abs=1e-4)))

    def features(query: Query) -> np.ndarray:
        first = np.zeros(len(items), dtype=np.int64)
        by_type = type_columns(ranker.typed_, query, ranker.data_target_, ranker.statistics_.codes, first, items)
        return np.concatenate([ranker._features(query, first, items), by_type], axis=1)

    for one_id, event in users.items():
        user = {"user_id": event.source_user_id, "user_source": event.source}
        request = endpoint.request.model_validate({**user, "context": {"now": LATER.isoformat()}})
        home = SCENES["home"]
        query = resolve_request(served, request, home, request.context, options=request, now=LATER).plan.query
        place = ranked.customers.user_map.row(one_id)
        np.testing.assert_allclose(features(query), features(of_batch.take(np.array([place]))), rtol=1e-4)
        nothing_accepted = resolve_request(ranked, request, home, request.context, options=request).plan.query
        assert not np.allclose(features(query), features(nothing_accepted), equal_nan=True)
        body = endpoint.respond(served, request, LATER)
        assert [(item["item_id"], item["score"]) for item in body["items"]] == lists[one_id]
        assert body["stale"] is False
