"""Context items, reasons and unusual catalogues: the endpoints with small handmade recommenders."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest

from features.interactions import TrainingSet
from models.bundle import ModelBundle
from models.recommend.complement import ComplementRecommender
from models.recommend.popular import PopularRecommender
from models.recommend.ranking.two_stage import TwoStageRecommender
from models.recommend.repeat import RepeatPurchaseRecommender
from models.recommend.replenish.model import ReplenishRecommender
from models.recommend.scene_models import SceneModels
from models.recommend.session.neighbours import SessionTransitionsRecommender
from models.recommend.similar.model import SimilarRecommender
from qianmian.errors import InvalidRequest, NotFound, NotReady
from serving.champions import Champion, Champions
from serving.endpoints import ENDPOINTS
from serving.recommending import batch
from serving.recommending.catalogue import Catalogue
from serving.recommending.explain import FREQUENT_MIN_TIMES, Explainer, item_reasons

AS_OF, NOW = datetime(2024, 8, 1), datetime(2024, 8, 3)
NAMES = ["bread", "butter", "pasta", "sauce", "阿 tea", "e\u0301clair \U0001f370"]
CATEGORIES = ["GROCERY/BREAD", "GROCERY/BUTTER", "GROCERY/PASTA", "GROCERY/PASTA SAUCE", "GROCERY/TEA", ""]
PAIRS = [(0, 1), (2, 3)]  # bread goes with butter, pasta with sauce


def answer(champions, route="/recommendations", **fields):
    endpoint = ENDPOINTS[route]
    body = endpoint.respond(champions, endpoint.request.model_validate(fields), NOW)
    endpoint.response.model_validate(body)
    return body


def bundle_of(one_ids: list[str], *, models=None, scenes=None, facts=None, **attributes) -> ModelBundle:
    """Every customer buys one pair every ten days; the first customer alternates between both pairs."""
    rows = []
    for user in range(len(one_ids)):
        for order in range(6):
            pair = PAIRS[(user + order) % 2 if user == 0 else user % 2]
            rows += [(user, item, 5.0 + 10.0 * (5 - order), 6 * user + order) for item in pair]
    rows += [(1, 4, 9.0, 7), (2, 5, 9.0, 13)]
    users, items, ages, orders = (np.array(column) for column in zip(*rows, strict=True))
    train = TrainingSet.from_arrays(
        users, items, n_users=len(one_ids), n_items=len(NAMES), age_days=ages, orders=orders
    )
    known = {"category": np.array(CATEGORIES), "brand": np.array(["A", "B", "A", "B", "", "A"])}
    train = replace(train, item_attributes={**train.item_attributes, **known, **attributes})
    made = models or {
        "own": RepeatPurchaseRecommender(90.0),
        "goes": ComplementRecommender(),
        "popular": PopularRecommender(),
    }
    fitted = SceneModels(
        {name: model.fit(train) for name, model in made.items()},
        scenes
        or {
            "home": ["own", "popular"],
            "complement": ["goes", "popular"],
            "discover": ["popular"],
        },
    )
    return ModelBundle(
        "scenes",
        fitted,
        AS_OF,
        user_ids=np.array(one_ids),
        item_ids=np.array(NAMES),
        item_attributes=train.item_attributes,
        facts={"interactions": "transactions", **(facts or {})},
    )


@pytest.fixture(scope="module")
def of_bundle(champions):
    """The champions of the test shop, with another recommender."""

    def make(**options) -> tuple[Champions, list[str]]:
        bundle = bundle_of(champions.customers.one_ids[:20], **options)
        return replace(champions, models={"recommend": Champion("recommend", "1", bundle)}), champions.customers.table[
            "user_id"
        ].to_pylist()[:20]

    return make


@pytest.fixture(scope="module")
def small(of_bundle):
    return of_bundle()


def test_reasons_name_the_context_item(small):
    champions, users = small
    body = answer(
        champions, user_id=users[1], scene="complement", num_results=2, context={"items": ["bread"]}, explain=True
    )
    first = body["items"][0]
    assert (first["item_id"], first["source"]) == ("butter", "complement")
    assert first["reasons"] == ["goes with BREAD"]
    assert "bread" not in {item["item_id"] for item in body["items"]}
    last_order = answer(champions, user_id=users[1], scene="complement", num_results=1, explain=True)["items"][0]
    assert last_order["source"] == "complement"
    assert last_order["reasons"][0].startswith("goes with "), last_order
    assert last_order["reasons"][0].endswith("you bought 5 days ago")


def test_complement_of_an_order_after_the_cutoff(small):
    champions, users = small
    events = [{"item_id": "pasta", "ts": "2024-08-02T09:00:00Z"}, {"item_id": "bread", "ts": "2024-08-01T09:00:00Z"}]
    body = answer(
        champions,
        user_id=users[1],
        scene="complement",
        num_results=1,
        context={"events": events, "now": "2024-08-10T09:00:00Z"},
        explain=True,
    )
    assert body["items"][0]["item_id"] == "sauce"
    assert body["items"][0]["reasons"][0] == "goes with PASTA you bought last week"
    assert body["ignored_events"] == []


def test_reasons_about_other_items_come_only_from_the_model_that_ranked(small):
    champions, users = small
    items = answer(champions, user_id=users[1], num_results=6, explain=True)["items"]
    assert items[0]["reasons"] == ["you bought it 6 times, last 5 days ago"]
    assert not any("goes with" in reason for item in items for reason in item["reasons"])


def test_new_item_of_a_frequently_bought_category(of_bundle):
    categories = np.array(
        ["GROCERY/TEA/GREEN", "GROCERY/TEA/GREEN", "X/Y/Z", "GROCERY/TEA/BLACK", "GROCERY/COFFEE", "GROCERY/TEA/GREEN"]
    )
    champions, _ = of_bundle(category=categories)
    champion = champions.models["recommend"]
    explainer = Explainer(champion, 2)  # bread and butter six times, and the last item once
    assert champion.catalogue.category_of(0)[-1] == "GREEN"
    assert explainer.reasons(3, "ials") == ["new in TEA, which you buy often"], (
        "the narrowest category with frequent purchases"
    )
    assert explainer.reasons(4, "ials") == ["customers with a similar history buy it"], "the top level is no reason"
    assert FREQUENT_MIN_TIMES <= 2 * 6


def test_replenish_returns_the_expected_day_and_the_cycle(of_bundle):
    made = {"due": ReplenishRecommender(), "own": RepeatPurchaseRecommender()}
    champions, users = of_bundle(models=made, scenes={"home": ["own"], "replenish": ["due"]})
    body = answer(champions, user_id=users[4], scene="replenish", num_results=2, explain=True)
    assert {item["item_id"] for item in body["items"]} == {"bread", "butter"}
    for item in body["items"]:  # bought every ten days, the last time five days before as_of
        assert item["reasons"] == ["bought every 10 days, last 5 days ago"]
        assert "2024-08-02" <= item["expected_on"] <= "2024-08-12"
    home = answer(champions, user_id=users[4], num_results=1, explain=True)["items"][0]
    assert home["reasons"] == ["bought every 10 days, last 5 days ago"], "a cycle holds whichever model ranked the item"
    assert "expected_on" not in home
    table = batch.score_recommend(champions, scene="replenish", num_results=2).table()
    assert table.column_names == [
        "user_id",
        "user_source",
        "one_id",
        "rank",
        "item_id",
        "score",
        "source",
        "expected_on",
        "as_of",
        "model_version",
    ]
    told = {(row["user_id"], row["item_id"]): row["expected_on"] for row in table.to_pylist()}
    for item in body["items"]:
        assert told[users[4], item["item_id"]].isoformat() == item["expected_on"]
    recent_interactions = {"events": [{"item_id": "bread", "ts": "2024-08-01T09:00:00Z"}]}
    later = answer(champions, user_id=users[4], scene="replenish", num_results=2, context=recent_interactions)["items"]
    days = {item["item_id"]: item["expected_on"] for item in later}
    assert "2024-08-06" <= days["bread"] <= "2024-08-12", "bought again on the first"
    assert "2024-08-02" <= days["butter"] <= "2024-08-12"
    assert days["bread"] > days["butter"]
    assert answer(champions, user_id="nobody", scene="replenish")["items"] == []


def test_popular_items_ranked_by_the_two_stage_model_are_no_fallback(of_bundle):
    ranker = TwoStageRecommender(
        horizon_days=14.0,
        cuts=2,
        rounds=5,
        min_child_weight=1.0,
        n_jobs=1,
        stages=[["repeat", {}, 2], ["popular", {}, 6]],
    )
    champions, users = of_bundle(
        models={"ranker": ranker, "popular": PopularRecommender()}, scenes={"home": ["ranker", "popular"]}
    )
    body = answer(champions, user_id=users[2], num_results=6, explain=True)
    assert {item["source"] for item in body["items"]} == {"repeat", "popular"}
    assert body["fallback"] is None
    assert body["items"][0]["reasons"] == ["you bought it 6 times, last 5 days ago"]
    stranger = answer(champions, user_id="nobody", num_results=6)
    assert {item["source"] for item in stranger["items"]} == {"popular"}
    assert stranger["fallback"] == "popular"


def test_similar_items_of_a_model_made_for_it(of_bundle):
    categories = np.array(["G/BREAD", "G/BREAD", "G/BREAD", "G/TEA", "G/TEA", "G/TEA"])
    made = {
        "own": RepeatPurchaseRecommender(),
        "alike": SimilarRecommender(factors=2, learn_days=None),
        "popular": PopularRecommender(),
    }
    champions, users = of_bundle(
        models=made, scenes={"home": ["own", "popular"], "similar": ["alike", "popular"]}, category=categories
    )
    assert champions.models["recommend"].catalogue.scenes == ("home", "similar")
    like_bread = {"butter", "pasta"}
    body = answer(champions, "/similar-items", item_id="bread", num_results=2, explain=True)
    assert {item["item_id"] for item in body["items"]} == like_bread
    assert {item["source"] for item in body["items"]} == {"similar"}
    assert {item["item_id"]: item["reasons"] for item in body["items"]} == {
        "butter": ["also BREAD"],
        "pasta": ["also BREAD, same brand"],
    }
    listed = answer(
        champions,
        user_id=users[1],
        scene="similar",
        num_results=6,
        context={"items": ["bread"]},
        purchased="any",
        explain=True,
    )
    assert {item["item_id"] for item in listed["items"][:2]} == like_bread
    assert listed["items"][0]["reasons"][0].startswith("also BREAD")
    assert "bread" not in {item["item_id"] for item in listed["items"]}
    without = answer(champions, user_id=users[2], scene="similar", num_results=1)["items"]
    assert without[0]["source"] == "similar", "similar to the last order"
    new = answer(
        champions,
        "/similar-items",
        item_id="a new tea",
        attributes={"category": "G/TEA", "brand": "A"},
        num_results=3,
        explain=True,
    )
    assert {item["item_id"] for item in new["items"]} == {"sauce", "阿 tea", "e\u0301clair \U0001f370"}
    assert new["items"][0]["reasons"] == ["similar attributes"]
    few = answer(
        champions,
        "/similar-items",
        item_id="a new tea",
        attributes={"category": "G/TEA"},
        num_results=9,
        filters={"brand": "B"},
    )
    assert few["short_reason"] == "the model knows 6 items, filters leave 2"
    with pytest.raises(InvalidRequest, match="unknown item attribute") as caught:
        answer(champions, "/similar-items", item_id="a new tea", attributes={"taste": "sweet"})
    assert caught.value.field == "attributes"
    with pytest.raises(NotFound, match="attributes"):
        answer(champions, "/similar-items", item_id="a new tea")


def test_an_unknown_item_where_items_are_compared_by_customers(small, champions):
    with pytest.raises(NotReady, match="no model .* computes similar items"):
        answer(small[0], "/similar-items", item_id="new", attributes={"brand": "A"})
    with pytest.raises(InvalidRequest, match="by their customers only"):
        answer(champions, "/similar-items", item_id="new", attributes={"brand": "A"})


@pytest.mark.parametrize(
    ("evidence", "source", "expected"),
    [
        (
            {"times": 9, "last_days": 26.9, "cycle_days": 23.6, "own_cycle": True},
            "replenish",
            ["bought every 24 days, last 26 days ago"],
        ),
        ({"times": 2, "last_days": 26.9, "cycle_days": 23.6}, "replenish", ["you bought it 2 times, last 26 days ago"]),
        (
            {"times": 9, "last_days": 2.0, "cycle_days": 24.0, "own_cycle": False},
            "repeat",
            ["you bought it 9 times, last 2 days ago"],
        ),
        ({"times": 1, "last_days": 1.5}, "repeat", ["you bought it once 1 day ago"]),
        ({"times": 1, "last_days": 0.5}, "repeat", ["you bought it once less than a day ago"]),
        ({"times": 3}, "repeat", ["you bought it 3 times"]),
        (
            {"with_item": 3, "with_days": 9.0, "times": 4, "last_days": 30.0},
            "complement",
            ["goes with SAUCE you bought last week", "you bought it 4 times, last 30 days ago"],
        ),
        ({"with_item": 3}, "complement", ["goes with SAUCE"]),
        ({"instead_of": 3, "better": "larger"}, "upgrade", ["a larger SAUCE than you buy"]),
        ({"instead_of": 3}, "upgrade", ["a better SAUCE than you buy"]),
        ({"often": "TEA"}, "ials", ["new in TEA, which you buy often"]),
        ({}, "ials", ["customers with a similar history buy it"]),
        ({}, "hybrid", ["based on your history and on customers like you"]),
        ({}, "popular", ["popular with all customers"]),
        ({}, "something new", ["chosen for you"]),
    ],
    ids=str,
)
def test_reason_texts(evidence, source, expected):
    assert item_reasons(evidence, source, lambda _: "SAUCE") == expected


def test_reason_texts_for_unknown_users_and_for_events():
    assert item_reasons({}, "hybrid", str, has_history=False) == ["popular with customers like you"]
    assert item_reasons({}, "something new", str, has_history=False) == ["popular with customers like you"]
    assert item_reasons({}, "ials", str, events=True) == ["customers with a similar history like it"]
    assert item_reasons({"times": 2, "last_days": 3.0}, "repeat", str, events=True) == [
        "you interacted with it 2 times, last 3 days ago"
    ]


def test_a_session_is_answered_from_the_events_of_a_stranger(of_bundle):
    """Views of tea lead to an éclair, views of bread to pasta; nobody bought what they viewed."""
    views = [(user, item, 9.0 - user - 0.001 * place) for user in range(8) for place, item in enumerate((4, 5))]
    views += [(user, item, 9.0 - user - 0.001 * place) for user in range(10, 18) for place, item in enumerate((0, 2))]
    users, items, ages = (np.array(column) for column in zip(*views, strict=True))
    empty = TrainingSet.from_arrays([], [], n_users=20, n_items=len(NAMES))
    seen = TrainingSet.from_arrays(users, items, n_users=20, n_items=len(NAMES), age_days=ages).interactions
    train = replace(empty, auxiliary=replace(seen, types=np.ones(len(seen), np.int8)))

    class Fitted(SessionTransitionsRecommender):
        def fit(self, _):
            return super().fit(train)

    champions, _ = of_bundle(
        models={"next": Fitted(), "popular": PopularRecommender()}, scenes={"session": ["next", "popular"]}
    )
    visit = [{"item_id": "阿 tea", "event_type": "view", "ts": "2024-08-02T10:00:00Z"}]
    asked = {"user_id": "a stranger", "scene": "session", "num_results": 1, "explain": True}
    shown = answer(champions, **asked, context={"events": visit})
    assert shown["items"][0]["item_id"] == NAMES[5]
    assert shown["items"][0]["source"] == "session_transitions"
    assert shown["items"][0]["reasons"] == ["often next in visits like yours"]
    assert (shown["fallback"], shown["ignored_events"]) == (None, [])
    later = [*visit, {"item_id": "bread", "event_type": "view", "ts": "2024-08-02T12:00:00Z"}]
    assert answer(champions, **asked, context={"events": later})["items"][0]["item_id"] == "pasta"
    assert answer(champions, **asked, context={"items": ["bread"]})["items"][0]["item_id"] == "pasta"
    assert answer(champions, **asked)["items"][0]["source"] == "popular"


def test_the_error_explains_why_a_scene_was_left_out(of_bundle):
    champions, users = of_bundle(facts={"scenes_left_out": {"upgrade": "no prices are known"}})
    assert champions.models["recommend"].catalogue.scenes == ("home", "discover", "complement")
    with pytest.raises(InvalidRequest, match="no prices are known") as caught:
        answer(champions, user_id=users[0], scene="upgrade")
    assert caught.value.field == "scene"
    with pytest.raises(NotReady, match="no model .* computes similar items"):
        answer(champions, "/similar-items", item_id="bread")
    with pytest.raises(InvalidRequest, match="similar"):
        answer(champions, user_id=users[0], scene="similar", context={"items": ["bread"]})


def test_a_scene_with_a_job_of_its_own_is_answered_by_its_champion(of_bundle, small):
    champions, users = small
    with pytest.raises(InvalidRequest, match="home, discover, complement"):
        answer(champions, user_id=users[0], scene="content")
    contents = (
        of_bundle(models={"popular": PopularRecommender()}, scenes={"content": ["popular"]})[0]
        .models["recommend"]
        .bundle
    )
    with_contents = replace(
        champions,
        models={**champions.models, "content": Champion("content", "7", replace(contents, as_of=datetime(2024, 7, 1)))},
    )
    body = answer(with_contents, user_id=users[0], scene="content", num_results=2)
    assert body["model"] == {"name": "qianmian-content", "version": "7"}
    assert body["as_of"] == "2024-07-01T00:00:00Z"
    table = batch.score_recommend(with_contents, scene="content", num_results=2).table()
    assert set(table["model_version"].to_pylist()) == {"7"}
    assert answer(with_contents, user_id=users[0])["model"]["version"] == "1"


def test_ids_are_any_text(small):
    champions, users = small
    body = answer(champions, user_id=users[1], num_results=6, exclude=["阿 tea", "e\u0301clair \U0001f370"])
    assert {item["item_id"] for item in body["items"]} == set(NAMES[:4])
    ranked = answer(
        champions, "/rank", user_id="\u202e顾客", item_ids=["e\u0301clair \U0001f370", "\u00e9clair \U0001f370"]
    )
    assert [item["item_id"] for item in ranked["items"]] == ["e\u0301clair \U0001f370"]
    assert ranked["unknown"] == ["\u00e9clair \U0001f370"], "different characters are different ids"
    assert answer(champions, user_id=users[1], filters={"item_id": ["阿 tea"]})["items"][0]["item_id"] == "阿 tea"


def test_unavailable_items_of_the_catalogue(of_bundle):
    champions, users = of_bundle(available=np.array([0, 1, 1, -1, 1, 0], np.int8))
    listed = answer(champions, user_id=users[0], num_results=10)
    assert {item["item_id"] for item in listed["items"]} == {"butter", "pasta", "sauce", "阿 tea"}, (
        "a missing value counts as available"
    )
    assert listed["short_reason"] == "the model knows 6 items, removing unavailable items leaves 4"
    none = of_bundle(available=np.zeros(6, np.int8))[0]
    gone = answer(
        none,
        user_id=users[0],
        promotions=[{"name": "a", "filter": {"brand": "A"}, "percent": 50}],
        exploration={"share": 0.5},
    )
    assert gone["items"] == []
    assert gone["short_reason"] == "the model knows 6 items, removing unavailable items leaves 0"
    assert gone["promotions"] == [{"name": "a", "places": 5, "filled": 0}]
    asked = answer(none, user_id=users[0], filters={"attribute": "available", "op": "in", "value": [True, False]})
    assert len(asked["items"]) == 6


def test_item_attributes_may_be_missing_or_not_finite(of_bundle):
    champions, users = of_bundle(
        price=np.array([np.nan, 1.0, np.nan, 2.0, np.inf, -np.inf], np.float32), category=np.array([""] * 6)
    )
    dear = answer(champions, user_id=users[0], filters={"attribute": "price", "op": ">=", "value": 2})
    assert {item["item_id"] for item in dear["items"]} == {"sauce", "阿 tea"}
    free = answer(
        champions, user_id=users[0], num_results=6, diversity={"max_per": {"category/1": 1, "brand": 1}, "mmr": 0.2}
    )
    assert len(free["items"]) == 3, "items without category are not limited; the brands are A, B and unknown"
    bare = replace(champions.models["recommend"].bundle, item_attributes={})
    assert Catalogue(bare).items.names == ("item_id",)
    assert Catalogue(bare).levels.tolist() == [[-1]] * 6


def test_one_user_and_one_item(champions):
    train = TrainingSet.from_arrays(np.zeros(1, int), np.zeros(1, int), n_users=1, n_items=1, age_days=np.ones(1))
    scenes = SceneModels({"own": RepeatPurchaseRecommender().fit(train)}, {"home": ["own"]})
    bundle = ModelBundle(
        "scenes",
        scenes,
        AS_OF,
        user_ids=np.array(champions.customers.one_ids[:1]),
        item_ids=np.array(["only"]),
        item_attributes=train.item_attributes,
    )
    alone = replace(champions, models={"recommend": Champion("recommend", "1", bundle)})
    user = champions.customers.table["user_id"][0].as_py()
    body = answer(
        alone,
        user_id=user,
        exploration={"share": 1.0, "pool": 5},
        diversity={"max_per": {"brand": 1}, "mmr": 0.5},
        explain=True,
    )
    assert [item["item_id"] for item in body["items"]] == ["only"]
    assert body["items"][0]["propensity"] == 1
    assert answer(alone, user_id="nobody")["short_reason"] == "the model knows 1 items, the model ranks 0 of them"
