"""A shop with a walk-in account, a bag in every basket, returned goods, cancelled orders and gifts (case 21)."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest

from features.compute.builder import Builder
from features.data.ingest import ingest
from features.data.lake import Lake
from features.data.sources import SOURCES
from features.definitions import FEATURES
from features.profiles.building import build_snapshot
from features.purchases import not_merchandise
from features.training_data import training_set
from models.bundle import ModelBundle
from models.recommend.complement import ComplementRecommender
from models.recommend.popular import PopularRecommender
from models.recommend.repeat import RepeatPurchaseRecommender
from models.recommend.replenish.model import ReplenishRecommender
from models.recommend.scene_models import SceneModels
from qianmian.errors import NotFound
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from serving.champions import Champion, Champions
from serving.endpoints import ENDPOINTS
from serving.scoring.churn import score_churn
from training.jobs import JOBS
from training.jobs.base import TrainingContext

START, DAYS = datetime(2024, 1, 1), 200
END = START + timedelta(days=DAYS)
CONFIG = """\
source: shop
not_merchandise: [BAG]
tables:
  items:
    path: items.csv
    columns: {item_id: item, category: category, brand: brand}
  transactions:
    path: orders.csv
    columns: {order_id: order, source_user_id: cust, item_id: sku, ts: date, quantity: qty, amount: paid, status: state}
"""


def order_lines():
    """170 customers who buy two of twelve items at different rhythms, and stop at different times; the odd ones last."""
    rng = np.random.default_rng(5)
    rows = []

    def add(order, cust, day, *skus, paid="5", state="paid"):
        at = START + timedelta(days=int(day), hours=int(rng.integers(9, 18)))
        rows.extend(f"{order},{cust},{sku},{at:%Y-%m-%d %H:%M:%S},1,{paid},{state}" for sku in (*skus, "BAG"))

    for person in range(170):
        gap, last = int(rng.integers(5, 25)), DAYS if person % 2 else int(rng.integers(60, DAYS))
        pair = [f"SKU-{2 * (person % 6):03d}", f"SKU-{2 * (person % 6) + 1:03d}"]
        for day in range(int(rng.integers(0, gap)), last, gap):
            add(f"o{person}-{day}", f"c{person:03d}", day, *pair)
    for day in range(DAYS):
        for number in range(12):
            add(f"w{day}-{number}", "WALKIN", day, f"SKU-{int(rng.integers(12)):03d}")
    for number in range(3):
        day = 110 + 25 * number
        add(f"r{number}", "returner", day, "SKU-005")
        back = START + timedelta(days=day + 3)
        rows.append(f"r{number},returner,SKU-005,{back:%Y-%m-%d %H:%M:%S},1,5,refunded")
        add(f"x{number}", "canceller", day, "SKU-003", state="cancelled")
        add(f"z{number}", "freebie", day, "SKU-004", paid="0")
    add("r9", "returner", 180, "SKU-010")
    return rows


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Workspace:
    folder = tmp_path_factory.mktemp("walk-in")
    (folder / "sources.yaml").write_text(CONFIG)
    items = [f"SKU-{number:03d},CAT{number // 4}/SUB{number // 2},B{number % 3}" for number in range(12)]
    (folder / "items.csv").write_text("\n".join(["item,category,brand", *items, "BAG,SERVICE/BAG,House"]))
    (folder / "orders.csv").write_text("\n".join(["order,cust,sku,date,qty,paid,state", *order_lines()]))
    workspace = Workspace(folder / "workspace")
    ingest(workspace, SOURCES["files"](config_path=folder / "sources.yaml"), Settings())
    return workspace


def test_what_ingest_notes_of_an_item_is_no_attribute_of_it(shop):
    data = training_set(Builder(Lake(shop), FEATURES), END, with_features=False)
    assert set(data.item_attributes) == {"category", "brand", "price"}


@pytest.fixture(scope="module")
def trained(shop):
    """The lines that `train churn` printed, and its model."""
    said: list[str] = []
    return said, JOBS["churn"].run(TrainingContext(shop, END, Settings(), said.append)).bundle


@pytest.fixture(scope="module")
def champions(shop, trained) -> Champions:
    """Champions with small models for every list."""
    builder = Builder(Lake(shop), FEATURES)
    data = training_set(builder, END, with_features=False)
    models = {
        model.name: model.fit(data)
        for model in (RepeatPurchaseRecommender(90.0), ReplenishRecommender(), ComplementRecommender(), PopularRecommender())
    }  # fmt: skip
    scenes = {
        "home": ["repeat", "popular"],
        "replenish": ["replenish"],
        "complement": ["complement", "popular"],
        "discover": ["popular"],
    }
    facts = {"interactions": data.source, "not_merchandise": not_merchandise(builder)}
    bundle = ModelBundle(
        "scenes", SceneModels(models, scenes), END, None, data.user_ids, data.item_ids, data.item_attributes, {}, facts
    )
    snapshot = build_snapshot(builder, END, Settings())
    models_in_production = {
        "recommend": Champion("recommend", "1", bundle),
        "churn": Champion("churn", "1", trained[1]),
    }
    return Champions(models_in_production, snapshot, Settings())


def answer(champions, route="/recommendations", **fields):
    endpoint = ENDPOINTS[route]
    return endpoint.respond(champions, endpoint.request.model_validate(fields), END)


def test_the_walk_in_account_is_named_and_gets_no_churn_score(champions, trained):
    assert any(line.startswith("WALKIN is no single customer (shared account: ") for line in trained[0])
    rows = {row["user_id"]: row for row in score_churn(champions).table().to_pylist()}
    assert rows["WALKIN"]["churn_probability"] is None
    assert rows["WALKIN"]["no_score_reason"].startswith("shared account: ")
    assert rows["WALKIN"]["no_score_reason"].endswith(" of all order lines, 12.0 orders a day")
    assert rows["canceller"]["no_score_reason"] == "never bought"
    assert rows["returner"]["churn_probability"] is not None
    (single,) = answer(champions, "/churn", user_ids=["WALKIN"])["scores"]
    assert single["no_score_reason"] == rows["WALKIN"]["no_score_reason"]


def test_nobody_is_told_that_they_bought_what_they_sent_back(champions):
    items = answer(champions, user_id="returner", num_results=12, explain=True)["items"]
    reasons = {item["item_id"]: item["reasons"] for item in items}
    assert not any("bought" in reason for reason in reasons["SKU-005"])
    assert any("you bought it once" in reason for reason in reasons["SKU-010"])
    again = answer(champions, user_id="returner", scene="replenish", num_results=12)["items"]
    assert "SKU-005" not in [item["item_id"] for item in again]
    new = answer(champions, user_id="returner", scene="discover", num_results=12)["items"]
    assert "SKU-005" in [item["item_id"] for item in new], "it is new to the customer again"
    cancelled = answer(champions, user_id="canceller", num_results=3, explain=True)
    assert not any("bought" in reason for item in cancelled["items"] for reason in item["reasons"])


def test_a_bag_is_never_an_answer_and_no_question(champions):
    for scene, context in (("home", {}), ("complement", {"items": ["SKU-000"]}), ("discover", {})):
        found = answer(champions, user_id="c000", scene=scene, num_results=12, context=context)["items"]
        assert found
        assert "BAG" not in [item["item_id"] for item in found]
    basket = answer(champions, user_id="c000", scene="complement", num_results=1, context={"items": ["SKU-000", "BAG"]})
    assert basket["unknown"] == ["BAG"]
    assert [item["item_id"] for item in basket["items"]] == ["SKU-001"]
    with pytest.raises(NotFound, match="no merchandise"):
        answer(champions, "/similar-items", item_id="BAG", attributes={"brand": "House"})
