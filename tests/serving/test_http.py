"""The real server: every endpoint, uniform errors, readiness, the schema."""

from __future__ import annotations

import asyncio
import http.client
import inspect
import re
from collections import Counter
from urllib.parse import urlsplit

import pytest

from models.recommend.scene import SCENES
from serving.endpoints import ENDPOINTS, recommendations
from serving.http import UniformErrorMiddleware
from serving.recommending.pipeline import make_slate, random_source
from serving.responses import ValidationResponse

ERROR = {"code", "message", "field", "hint"}


def refused(answer, status: int, code: str, field: str | None = None) -> dict:
    got, body = answer
    assert got == status, body
    assert set(body) == {"error"}
    assert set(body["error"]) == ERROR
    assert body["error"]["code"] == code, body
    assert body["error"]["field"] == field, body
    assert body["error"]["message"]
    return body["error"]


def good(route: str, answer) -> dict:
    status, body = answer
    assert status == 200, body
    ENDPOINTS[route].response.model_validate(body, strict=False)  # the schema in /docs.json
    fields = ENDPOINTS[route].response.model_fields
    assert {name for name, field in fields.items() if field.is_required()} <= set(body) <= set(fields), (
        "the response and its schema have the same fields"
    )
    if route != "/events":  # which no model answers
        assert body["as_of"] == "2024-08-01T00:00:00Z"
        assert body["stale"] is True
    assert set(body["model"]) == {"name", "version"}
    return body


def minimal(route: str, buyers: list[str], champions) -> dict:
    item = champions.models["recommend"].catalogue.item_ids[0]
    return {
        "/recommendations": {"user_id": buyers[0]},
        "/rank": {"user_id": buyers[0], "item_ids": [item]},
        "/similar-items": {"item_id": item},
        "/churn": {"user_ids": buyers[:2]},
        "/predictions": {"user_ids": buyers[:2]},
        "/profile": {"user_id": buyers[0]},
        "/lookalike": {"seed_user_ids": buyers[:30], "size": 10},
        "/uplift": {"user_ids": buyers[:2]},
        "/events": {
            "events": [
                {"event_id": "e", "user_id": "u", "user_source": "s", "event_type": "view", "ts": "2024-08-02T12:00:00"}
            ]
        },
        # the shop is that of all tests: tests/serving/test_erase.py has one of its own
        "/erase": {"user_id": "nobody we know", "validate_only": True},
    }[route]


# ---- readiness -------------------------------------------------------------------------------------------------------


def test_alive_at_once_and_ready_once_the_models_are_loaded(serve):
    assert serve.while_loading["/livez"][0] == 200
    for path in ("/readyz", "/v1/churn"):
        assert "loaded" in refused(serve.while_loading[path], 503, "not_ready")["message"]
    assert serve("/readyz")[0] == 200
    assert serve("/livez")[0] == 200
    assert b"bentoml_service_request_total" in serve("/metrics")[1]
    assert "loading=done" in serve.log.read_text()


# ---- every endpoint --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", [route for route in ENDPOINTS if route != "/erase"])
def test_every_response_matches_its_schema(route, serve, buyers, champions):
    good(route, serve(f"/v1{route}", minimal(route, buyers, champions)))


@pytest.mark.parametrize("route", list(ENDPOINTS))
def test_validate_only_runs_nothing(route, serve, buyers, champions):
    status, body = serve(f"/v1{route}", {**minimal(route, buyers, champions), "validate_only": True})
    assert status == 200
    assert body["valid"] is True
    assert set(body) == {"valid", "model", "as_of", "stale"}
    refused(
        serve(f"/v1{route}", {**minimal(route, buyers, champions), "validate_only": 1}),
        422,
        "invalid_request",
        "validate_only",
    )


@pytest.mark.parametrize("route", list(ENDPOINTS))
def test_invalid_input_gets_a_uniform_error(route, serve, buyers, champions):
    path, body = f"/v1{route}", minimal(route, buyers, champions)
    first = next(iter(body))
    for text in (b"{", b"", b'{"a": 1,}', b"\xff\xfe", b'{"user_id": "\\ud800"}', b"[" * 900):
        refused(serve(path, text), 400, "malformed_json")
    for text in (b"[]", b"null", b'"x"', b"3"):
        refused(serve(path, text), 422, "invalid_request")
    refused(serve(path, {**body, "nonsense": 1}), 422, "invalid_request", "nonsense")
    assert "is required" in refused(serve(path, {}), 422, "invalid_request", first)["message"]
    refused(serve(path, {**body, first: {"not": "this"}}), 422, "invalid_request", first)
    refused(serve(path, {**body, first: 7}), 422, "invalid_request", first)
    refused(serve(path), 405, "method_not_allowed")
    assert refused(serve(path, b'"' + b"x" * 1_100_000 + b'"'), 413, "body_too_large")["hint"]
    assert "values" in refused(serve(path, b"[" * 200_000), 413, "body_too_large")["message"]
    long = refused(serve(path, {"x" * 100_000: 1, **body}), 422, "invalid_request", "x" * 2_000 + "…")
    assert len(long["message"]) == 2_001, "what an error repeats of the request is cut"


def test_the_character_nul_is_refused_wherever_it_is(serve, buyers):
    """NumPy ignores it at the end of a text, so that a filter for another value would match."""
    brand = {"user_id": buyers[0], "filters": {"brand": "b1\0"}}
    refused(serve("/v1/recommendations", brand), 422, "invalid_request", "filters.brand")
    refused(serve("/v1/profile", {"user_id": f"{buyers[0]}\0"}), 422, "invalid_request", "user_id")
    refused(serve("/v1/churn", {"user_ids": [buyers[0], "a\0b"]}), 422, "invalid_request", "user_ids.1")
    escaped = {"user_id": "\\u0000"}  # six characters, none of which is NUL
    assert serve("/v1/profile", escaped)[1]["user_id"] == "\\u0000"


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/", "/v1/nope", "/nope", "/v1/../x"])
def test_unknown_paths(path, serve):
    refused(serve(path, {}), 405 if path == "/" else 404, "method_not_allowed" if path == "/" else "not_found")


def test_a_chunked_body_is_limited_too(serve):
    connection = http.client.HTTPConnection(urlsplit(serve.url).netloc, timeout=30)
    connection.request(
        "POST", "/v1/churn", iter([b"x" * 200_000] * 8), encode_chunked=True, headers={"Transfer-Encoding": "chunked"}
    )
    assert connection.getresponse().status == 413


def test_the_content_type_does_not_matter(serve, buyers):
    assert serve("/v1/profile", {"user_id": buyers[0]}, headers={"Content-Type": "text/plain"})[0] == 200


def test_docs_show_every_route_with_both_schemas(serve):
    status, document = serve("/docs.json")
    assert status == 200
    for route, endpoint in ENDPOINTS.items():
        operation = document["paths"][f"/v1{route}"]["post"]
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        assert set(schema["properties"]) == set(endpoint.request.model_fields)
        assert "$ref" not in str(schema)
        answers = operation["responses"]["200"]["content"]["application/json"]["schema"]["anyOf"]
        for answer, model in zip(answers, (endpoint.response, ValidationResponse), strict=True):
            name = answer["$ref"].rsplit("/", 1)[1]
            assert set(document["components"]["schemas"][name]["properties"]) == set(model.model_fields)
        assert operation["responses"]["422"]["content"]["application/json"]["schema"]["$ref"].endswith("ErrorResponse")


# ---- recommendations -------------------------------------------------------------------------------------------------


def test_each_source_of_the_fallback_chain_is_seen(serve, buyers, champions):
    catalogue = champions.models["recommend"].catalogue
    least = buyers[-1]
    everything = good("/recommendations", serve("/v1/recommendations", {"user_id": least, "num_results": 50}))
    assert [item["source"] for item in everything["items"]][0] == "repeat"
    assert {item["source"] for item in everything["items"]} >= {"repeat", "ials"}
    assert everything["fallback"] is None
    discover = good("/recommendations", serve("/v1/recommendations", {"user_id": buyers[0], "scene": "discover"}))
    assert {item["source"] for item in discover["items"]} == {"ials"}
    attribute = next(name for name in catalogue.known_attributes if name.startswith("age_band=")).split("=")
    cold = {"user_id": "nobody we know", "context": {"attributes": {attribute[0]: attribute[1], "shoe_size": "44"}}}
    hybrid = good("/recommendations", serve("/v1/recommendations", {**cold, "explain": True}))
    assert {item["source"] for item in hybrid["items"]} == {"hybrid"}
    assert hybrid["fallback"] == "hybrid"
    assert hybrid["one_id"] is None
    assert hybrid["unknown_attributes"] == ["shoe_size=44"]
    assert hybrid["items"][0]["reasons"] == ["popular with customers like you"]
    popular = good("/recommendations", serve("/v1/recommendations", {"user_id": "nobody we know"}))
    assert {item["source"] for item in popular["items"]} == {"popular"}
    assert popular["fallback"] == "popular"
    assert [item["item_id"] for item in popular["items"]] == catalogue.item_ids[:10], "items are indexed by popularity"


def test_a_list_is_ranked_and_explained_without_duplicates(serve, buyers):
    body = good(
        "/recommendations", serve("/v1/recommendations", {"user_id": buyers[0], "num_results": 500, "explain": True})
    )
    items = body["items"]
    assert [item["rank"] for item in items] == list(range(1, len(items) + 1))
    assert len({item["item_id"] for item in items}) == len(items)
    assert sorted((item["score"] for item in items), reverse=True) == [item["score"] for item in items]
    assert all(item["reasons"] for item in items)
    assert re.fullmatch(r"you bought it (once|\d+ times, last) (\d+ days?|less than a day) ago", items[0]["reasons"][0])
    assert len(body["recommendation_id"]) == 32
    assert body["short_reason"].startswith("the model knows "), "the shop has fewer than 500 items"


def test_filters_and_exclude_leave_the_list_full(serve, buyers, champions):
    attributes = champions.models["recommend"].bundle.item_attributes
    category = dict(zip(champions.models["recommend"].catalogue.item_ids, attributes["category"].tolist(), strict=True))
    asked = {"user_id": buyers[0], "num_results": 10, "filters": {"category": "grocery"}}
    items = good("/recommendations", serve("/v1/recommendations", asked))["items"]
    assert len(items) == 10
    assert all(category[item["item_id"]].startswith("grocery/") for item in items)
    first = items[0]["item_id"]
    asked |= {"exclude": [first, "no such item"], "filters": {"category": ["grocery/dairy", "home"]}}
    body = good("/recommendations", serve("/v1/recommendations", asked))
    assert first not in {item["item_id"] for item in body["items"]}
    assert all(
        category[item["item_id"]] == "grocery/dairy" or category[item["item_id"]].startswith("home/")
        for item in body["items"]
    )
    assert body["unknown"] == ["no such item"]
    none = good(
        "/recommendations", serve("/v1/recommendations", {"user_id": buyers[0], "filters": {"brand": "nobody's"}})
    )
    assert none["items"] == []
    assert "filters leave 0" in none["short_reason"]


def test_discover_hides_what_was_bought_and_home_does_not(serve, buyers, champions):
    champion = champions.models["recommend"]
    row = champion.catalogue.user_row(champions.customers.resolve(buyers[0]))
    bought = {champion.catalogue.item_ids[column] for column in champion.catalogue.interacted(row).tolist()}
    for scene, repeats in (("home", True), ("discover", False)):
        items = serve("/v1/recommendations", {"user_id": buyers[0], "scene": scene})[1]["items"]
        assert bool({item["item_id"] for item in items} & bought) is repeats


def table_of(champions) -> dict[str, dict]:
    """Attributes of each item."""
    bundle = champions.models["recommend"].bundle
    columns = {name: values.tolist() for name, values in bundle.item_attributes.items()}
    return {
        item: {name: values[place] for name, values in columns.items()}
        for place, item in enumerate(bundle.item_ids.tolist())
    }


def test_nested_filters(serve, buyers, champions):
    table = table_of(champions)
    cheap = {
        "and": [
            {"attribute": "price", "op": "between", "value": [1, 30]},
            {"not": {"attribute": "category", "op": "in", "value": ["grocery"]}},
        ]
    }
    items = good(
        "/recommendations", serve("/v1/recommendations", {"user_id": buyers[0], "num_results": 10, "filters": cheap})
    )["items"]
    assert len(items) == 10
    assert all(1 <= table[item["item_id"]]["price"] <= 30 for item in items)
    assert not any(table[item["item_id"]]["category"].startswith("grocery/") for item in items)
    similar = good(
        "/similar-items",
        serve(
            "/v1/similar-items",
            {"item_id": items[0]["item_id"], "filters": cheap, "exclude": [items[1]["item_id"], "ghost"]},
        ),
    )
    assert {items[0]["item_id"], items[1]["item_id"]}.isdisjoint(item["item_id"] for item in similar["items"])
    assert all(1 <= table[item["item_id"]]["price"] <= 30 for item in similar["items"])
    assert similar["unknown"] == ["ghost"]
    wrong = {"and": [{"brand": "x"}, {"attribute": "price", "op": "about", "value": 3}]}
    for route, body in (
        ("/recommendations", {"user_id": buyers[0]}),
        ("/similar-items", {"item_id": items[0]["item_id"]}),
    ):
        for checked in ({}, {"validate_only": True}):
            error = refused(
                serve(f"/v1{route}", {**body, **checked, "filters": wrong}), 422, "invalid_request", "filters.and[1].op"
            )
            assert "between" in error["message"]
            error = refused(
                serve(f"/v1{route}", {**body, **checked, "filters": {"colour": "red"}}),
                422,
                "invalid_request",
                "filters.colour",
            )
            assert "available, brand, category, item_id, price" in error["message"]


def test_unavailable_items_are_shown_only_if_a_filter_names_them(serve, buyers, champions):
    gone = {item for item, known in table_of(champions).items() if known["available"] == 0}
    assert gone, "the shop has unavailable items"
    everything = good("/recommendations", serve("/v1/recommendations", {"user_id": buyers[0], "num_results": 500}))
    assert gone.isdisjoint(item["item_id"] for item in everything["items"])
    assert f"removing unavailable items leaves {len(everything['items'])}" in everything["short_reason"]
    asked = {"user_id": buyers[0], "num_results": 500, "filters": {"available": False}}
    assert {item["item_id"] for item in good("/recommendations", serve("/v1/recommendations", asked))["items"]} == gone
    one = next(iter(gone))
    ranked = good("/rank", serve("/v1/rank", {"user_id": buyers[0], "item_ids": [one]}))["items"]
    assert [item["item_id"] for item in ranked] == [one], "all items of the request are ranked"


def test_purchased_in_three_ways(serve, buyers, champions):
    catalogue = champions.models["recommend"].catalogue
    row = catalogue.user_row(champions.customers.resolve(buyers[0]))
    interacted = {catalogue.item_ids[column] for column in catalogue.interacted(row).tolist()}
    can = {item for item, known in table_of(champions).items() if known["available"]}
    for purchased, expected in (("any", can), ("only", can & interacted), ("never", can - interacted)):
        body = good(
            "/recommendations",
            serve("/v1/recommendations", {"user_id": buyers[0], "num_results": 500, "purchased": purchased}),
        )
        assert {item["item_id"] for item in body["items"]} == expected
        assert f" {len(expected)}" in body["short_reason"]
    stranger = good("/recommendations", serve("/v1/recommendations", {"user_id": "nobody", "purchased": "only"}))
    assert stranger["items"] == []
    assert "keeping only previously purchased items leaves 0" in stranger["short_reason"]
    error = refused(
        serve("/v1/recommendations", {"user_id": buyers[0], "scene": "discover", "purchased": "any"}),
        422,
        "invalid_request",
        "purchased",
    )
    assert "allowed: never" in error["message"]
    refused(
        serve("/v1/recommendations", {"user_id": buyers[0], "purchased": "sometimes"}),
        422,
        "invalid_request",
        "purchased",
    )


def test_diversity(serve, buyers, champions):
    table = table_of(champions)
    asked = {"user_id": buyers[0], "num_results": 10, "diversity": {"max_per": {"category/1": 4, "brand": 2}}}
    items = good("/recommendations", serve("/v1/recommendations", asked))["items"]
    assert len(items) == 10
    assert max(Counter(table[item["item_id"]]["category"].split("/")[0] for item in items).values()) <= 4
    assert max(Counter(table[item["item_id"]]["brand"] for item in items).values()) <= 2
    short = good(
        "/recommendations", serve("/v1/recommendations", {**asked, "diversity": {"max_per": {"category/1": 1}}})
    )
    assert len(short["items"]) < 10
    assert f"at most 1 per category/1 leaves {len(short['items'])}" in short["short_reason"]
    plain = [item["item_id"] for item in serve("/v1/recommendations", {"user_id": buyers[0]})[1]["items"]]
    lists = {}
    for mmr in (1.0, 0.3):
        found = good(
            "/recommendations", serve("/v1/recommendations", {"user_id": buyers[0], "diversity": {"mmr": mmr}})
        )["items"]
        lists[mmr] = [item["item_id"] for item in found]
        assert lists[mmr][0] == plain[0]
    assert lists[1.0] == plain
    assert lists[0.3] != plain
    for diversity, field in (
        ({"max_per": {"price": 1}}, "diversity.max_per.price"),
        ({"max_per": {"brand/2": 1}}, "diversity.max_per.brand/2"),
        ({"max_per": {"category/0": 1}}, "diversity.max_per.category/0"),
        ({"max_per": {"brand": 0}}, "diversity.max_per.brand"),
        ({"mmr": 1.1}, "diversity.mmr"),
        ({"mmr": "1"}, "diversity.mmr"),
        ({"how": 1}, "diversity.how"),
    ):
        refused(
            serve("/v1/recommendations", {"user_id": buyers[0], "diversity": diversity}), 422, "invalid_request", field
        )


def test_promotions(serve, buyers, champions):
    table = table_of(champions)
    asked = {
        "user_id": buyers[0],
        "num_results": 10,
        "explain": True,
        "promotions": [
            {"name": "house", "filter": {"category": "home"}, "percent": 20},
            {"name": "nothing", "filter": {"brand": "nobody's"}, "percent": 30},
        ],
    }
    body = good("/recommendations", serve("/v1/recommendations", asked))
    assert len(body["items"]) == 10
    promoted = [item for item in body["items"] if item["source"] == "promotion"]
    assert [item["promotion"] for item in promoted] == ["house", "house"]
    assert all(table[item["item_id"]]["category"].startswith("home/") for item in promoted)
    assert all(item["reasons"] == ["promoted"] for item in promoted)
    assert all("promotion" not in item for item in body["items"] if item not in promoted)
    assert body["promotions"] == [
        {"name": "house", "places": 2, "filled": 2},
        {"name": "nothing", "places": 3, "filled": 0},
    ]
    assert body["fallback"] is None
    narrow = good("/recommendations", serve("/v1/recommendations", {**asked, "filters": {"category": "grocery"}}))
    assert narrow["promotions"][0]["filled"] == 0, "a promotion does not bypass the filters"
    one = asked["promotions"][0]
    for promotions, field, said in (
        ([{**one, "percent": 60}, {**one, "name": "b", "percent": 60}], "promotions", "at most 100"),
        ([one, one], "promotions", "same name"),
        ([{**one, "percent": 0}], "promotions.0.percent", "greater than 0"),
        ([{**one, "percent": 101}], "promotions.0.percent", "less than or equal to 100"),
        ([{**one, "filter": {}}], "promotions[0].filter", "empty"),
        ([one, {**one, "name": "b", "filter": {"colour": 1}}], "promotions[1].filter.colour", "unknown attribute"),
        ([one] * 11, "promotions", "10 items"),
    ):
        for checked in ({}, {"validate_only": True}):
            error = refused(
                serve("/v1/recommendations", {**asked, **checked, "promotions": promotions}),
                422,
                "invalid_request",
                field,
            )
            assert said in error["message"], error


def test_exploration_reports_propensities_and_is_reproducible(serve, buyers, champions):
    asked = {"user_id": buyers[0], "num_results": 10, "exploration": {"share": 0.2, "pool": 20}}
    body = good("/recommendations", serve("/v1/recommendations", asked))
    assert len(body["items"]) == 10
    assert sum(item["explored"] for item in body["items"]) == 2
    for item in body["items"]:
        assert item["propensity"] == (1 / 20 if item["explored"] else 1)
        assert item["propensity_in_list"] == (2 / 20 if item["explored"] else 1)
    # the draws depend only on the recommendation_id
    again = good(
        "/recommendations",
        serve("/v1/recommendations", {**asked, "exploration": {"share": 0.2, "pool": 20, "seed": 7}}),
    )
    other = good(
        "/recommendations",
        serve("/v1/recommendations", {**asked, "exploration": {"share": 0.2, "pool": 20, "seed": 7}}),
    )
    assert again["items"] == other["items"]
    asked_again = recommendations.RecommendationsRequest.model_validate(asked)
    plan = recommendations.resolve(champions, asked_again).plan
    repeated = make_slate(plan, 10, random_source(asked_again.exploration, body["recommendation_id"]))
    assert [champions.models["recommend"].catalogue.item_ids[column] for column in repeated.ranked.ids[0].tolist()] == [
        item["item_id"] for item in body["items"]
    ]
    small = good(
        "/recommendations",
        serve("/v1/recommendations", {**asked, "exploration": {"share": 0.9, "pool": 2, "seed": 1}, "explain": True}),
    )
    assert sum(item["explored"] for item in small["items"]) == 2, "no more slots are explored than the pool has items"
    assert all(
        (item["reasons"][-1] == "shown to learn whether you like it") == item["explored"] for item in small["items"]
    )
    for exploration, field in (
        ({"share": 0}, "share"),
        ({"share": 1.1}, "share"),
        ({"share": 0.1, "pool": 0}, "pool"),
        ({}, "share"),
    ):
        refused(
            serve("/v1/recommendations", {**asked, "exploration": exploration}),
            422,
            "invalid_request",
            f"exploration.{field}",
        )


def test_recent_events_change_the_list(serve, buyers, champions):
    catalogue = champions.models["recommend"].catalogue
    interacted = set(catalogue.interacted(catalogue.user_row(champions.customers.resolve(buyers[0]))).tolist())
    new = next(
        item
        for column, item in enumerate(catalogue.item_ids)
        if column not in interacted and (catalogue.available is None or catalogue.available[column])
    )
    events = [
        {"item_id": new, "ts": "2024-08-02T10:00:00Z"},
        {"item_id": new, "event_type": "purchase", "ts": "2024-08-02T18:00:00+08:00"},
        {"item_id": new, "event_type": "view", "ts": "2024-08-02T10:00:00Z"},
        {"item_id": "ghost", "ts": "2024-08-02T10:00:00Z"},
        {"item_id": new, "ts": "2024-07-02"},
    ]
    asked = {"user_id": buyers[0], "num_results": 5, "purchased": "only", "explain": True}
    assert new not in {
        item["item_id"] for item in serve("/v1/recommendations", {**asked, "num_results": 500})[1]["items"]
    }
    body = good(
        "/recommendations",
        serve(
            "/v1/recommendations",
            {**asked, "num_results": 500, "context": {"events": events, "now": "2024-08-05T10:00Z"}},
        ),
    )
    found = next(item for item in body["items"] if item["item_id"] == new)
    assert found["reasons"] == ["you bought it 2 times, last 3 days ago"]
    assert body["unknown"] == ["ghost"]
    assert [(one["index"], one["reason"].split(":")[0]) for one in body["ignored_events"]] == [
        (2, "the model learns from transactions"),
        (3, "the model does not know the item"),
        (4, "before as_of"),
    ]
    never = good(
        "/recommendations",
        serve(
            "/v1/recommendations", {**asked, "purchased": "never", "num_results": 500, "context": {"events": events}}
        ),
    )
    assert new not in {item["item_id"] for item in never["items"]}
    stranger = {"user_id": "nobody we know", "num_results": 3, "context": {"events": events}}
    first = good("/recommendations", serve("/v1/recommendations", stranger))
    assert first["items"][0]["item_id"] == new, "a recent purchase counts as history"
    assert first["items"][0]["source"] == "repeat"
    ranked = good(
        "/rank",
        serve(
            "/v1/rank",
            {"user_id": "nobody we know", "item_ids": [catalogue.item_ids[0], new], "context": {"events": events}},
        ),
    )
    assert ranked["items"][0]["item_id"] == new
    assert len(ranked["ignored_events"]) == 3
    for context, field in (
        ({"events": [{"item_id": new, "ts": "yesterday"}]}, "context.events[0].ts"),
        ({"events": [{"item_id": new, "ts": "9999-12-31T23:59:59-10:00"}]}, "context.events[0].ts"),
        ({"events": [{"item_id": new, "ts": "2024-08-09"}], "now": "2024-08-08"}, "context.events[0].ts"),
        ({"events": [{"item_id": new, "ts": "2024-08-09", "event_type": "theft"}]}, "context.events[0].event_type"),
        ({"now": "2024-07-08"}, "context.now"),
        ({"now": "soon"}, "context.now"),
        ({"events": [{"ts": "2024-08-09"}]}, "context.events.0.item_id"),
        ({"items": [new]}, "context.items"),
    ):
        for route, more in (("/recommendations", {}), ("/rank", {"item_ids": [new]})):
            for checked in ({}, {"validate_only": True}):
                refused(
                    serve(f"/v1{route}", {"user_id": buyers[0], **more, **checked, "context": context}),
                    422,
                    "invalid_request",
                    field,
                )


def test_scenes_with_context_items_and_scenes_without_a_model(serve, buyers, champions):
    catalogue = champions.models["recommend"].catalogue
    items = catalogue.item_ids[2:4]
    asked = {"user_id": buyers[0], "scene": "similar", "num_results": 6}
    body = good(
        "/recommendations",
        serve(
            "/v1/recommendations",
            {**asked, "context": {"items": [*items, "ghost"]}, "exclude": [catalogue.item_ids[7]]},
        ),
    )
    assert len(body["items"]) == 6
    assert {*items, catalogue.item_ids[7]}.isdisjoint(item["item_id"] for item in body["items"])
    assert body["unknown"] == ["ghost"]
    one = good("/recommendations", serve("/v1/recommendations", {**asked, "context": {"items": items[:1]}}))
    alike = good("/similar-items", serve("/v1/similar-items", {"item_id": items[0], "num_results": 6}))
    assert [(item["item_id"], item["score"]) for item in one["items"]] == [
        (item["item_id"], item["score"]) for item in alike["items"]
    ]
    for given in ([], ["ghost"]):
        error = refused(
            serve("/v1/recommendations", {**asked, "context": {"items": given}}),
            422,
            "invalid_request",
            "context.items",
        )
        assert "similar requires a context item that the model knows" in error["message"]
    untrained = next(scene for scene in SCENES if scene not in catalogue.scenes)
    error = refused(
        serve("/v1/recommendations", {"user_id": buyers[0], "scene": untrained}), 422, "invalid_request", "scene"
    )
    assert f"allowed: {', '.join(catalogue.scenes)}" in error["message"]
    assert "qianmian train recommend" in error["hint"]


def test_more_items_requested_than_exist_and_no_items_left(serve, buyers, champions):
    can = sum(1 for known in table_of(champions).values() if known["available"])
    everything = {
        "user_id": buyers[0],
        "num_results": 500,
        "diversity": {"mmr": 0.5},
        "exploration": {"share": 0.5, "pool": 500},
    }
    body = good(
        "/recommendations",
        serve(
            "/v1/recommendations",
            {**everything, "promotions": [{"name": "a", "filter": {"category": "home"}, "percent": 100}]},
        ),
    )
    assert len({item["item_id"] for item in body["items"]}) == len(body["items"]) == can
    nothing = good("/recommendations", serve("/v1/recommendations", {**everything, "filters": {"brand": "nobody's"}}))
    assert nothing["items"] == []
    assert "filters leave 0" in nothing["short_reason"]
    body = good(
        "/similar-items",
        serve("/v1/similar-items", {"item_id": "i000003", "num_results": 5, "filters": {"item_id": "i000003"}}),
    )
    assert body["items"] == []
    assert "filters leave 1, removing the item itself leaves 0" in body["short_reason"]


def test_errors_name_the_limits(serve, buyers):
    for number in (0, -1, 501, 1_000_000):
        error = refused(
            serve("/v1/recommendations", {"user_id": buyers[0], "num_results": number}),
            422,
            "invalid_request",
            "num_results",
        )
        assert "1..500" in error["message"]
    for number in ("10", 1.5, True, None):
        refused(
            serve("/v1/recommendations", {"user_id": buyers[0], "num_results": number}),
            422,
            "invalid_request",
            "num_results",
        )
    error = refused(
        serve("/v1/recommendations", {"user_id": buyers[0], "scene": "moon"}), 422, "invalid_request", "scene"
    )
    assert "home, replenish, discover, complement, upgrade, session, content, similar" in error["message"]
    refused(
        serve("/v1/recommendations", {"user_id": buyers[0], "filters": {"colour": "red"}}),
        422,
        "invalid_request",
        "filters.colour",
    )
    refused(serve("/v1/recommendations", {"user_id": ""}), 422, "invalid_request", "user_id")
    refused(serve("/v1/churn", {"user_ids": []}), 422, "invalid_request", "user_ids")
    refused(serve("/v1/churn", {"user_ids": ["u"] * 10_001}), 422, "invalid_request", "user_ids")


def test_rank_gives_the_same_items_back(serve, buyers, champions):
    item_ids = champions.models["recommend"].catalogue.item_ids[:20]
    body = good(
        "/rank",
        serve("/v1/rank", {"user_id": buyers[0], "item_ids": [*item_ids, "ghost", item_ids[0]], "explain": True}),
    )
    assert sorted(item["item_id"] for item in body["items"]) == sorted(item_ids)
    assert body["unknown"] == ["ghost"]
    home = serve("/v1/recommendations", {"user_id": buyers[0], "num_results": 500})[1]["items"]
    assert [item["item_id"] for item in body["items"]] == [
        item["item_id"] for item in home if item["item_id"] in item_ids
    ]
    assert good("/rank", serve("/v1/rank", {"user_id": buyers[0], "item_ids": ["ghost"]}))["items"] == []


def test_new_items_are_ranked_by_their_attributes(serve, buyers, champions):
    catalogue = champions.models["recommend"].catalogue
    known = catalogue.item_ids[0]
    attributes = {
        "soup of tomorrow": {"category": "nothing of the kind"},
        "one more": {"category": str(catalogue._bundle.item_attributes["category"][0])},
    }
    request = {
        "user_id": buyers[0],
        "item_ids": [known, *attributes, "ghost"],
        "attributes": {**attributes, known: {"brand": "x"}},
        "explain": True,
    }
    body = good("/rank", serve("/v1/rank", request))
    assert [item["item_id"] for item in body["items"]] == [known], "items that the model knows are ranked by it"
    assert {item["item_id"] for item in body["new_items"]} == set(attributes)
    assert [item["rank"] for item in body["new_items"]] == [1, 2]
    assert body["new_items"][0]["score"] >= body["new_items"][1]["score"]
    assert {item["source"] for item in body["new_items"]} == {"affinity"}
    assert all(item["reasons"][0].startswith("new in ") for item in body["new_items"])
    assert body["unknown"] == ["ghost"]
    assert good("/rank", serve("/v1/rank", {"user_id": buyers[0], "item_ids": [known]})).get("new_items") is None
    stranger = good("/rank", serve("/v1/rank", {**request, "user_id": "nobody we know"}))
    assert {item["reasons"][0].endswith("your preferences") for item in stranger["new_items"]} == {False}
    told = refused(serve("/v1/rank", {**request, "item_ids": [known]}), 422, "invalid_request", "attributes")
    assert "not in item_ids" in told["message"]


def test_similar_items(serve, champions):
    item = champions.models["recommend"].catalogue.item_ids[3]
    body = good("/similar-items", serve("/v1/similar-items", {"item_id": item, "num_results": 5, "explain": True}))
    assert len(body["items"]) == 5
    assert item not in {other["item_id"] for other in body["items"]}
    assert body["short_reason"] is None
    assert refused(serve("/v1/similar-items", {"item_id": "ghost"}), 404, "not_found", "item_id")["hint"]


# ---- customers -------------------------------------------------------------------------------------------------------


def test_churn_has_a_row_for_each_id_in_order(serve, buyers, champions):
    asked = [buyers[0], "ghost", *buyers, buyers[0]]
    body = good("/churn", serve("/v1/churn", {"user_ids": asked, "explain": True}))
    assert [row["user_id"] for row in body["scores"]] == asked
    assert body["scores"][1]["no_score_reason"] == "unknown customer"
    silent = dict(
        zip(
            champions.customers.table["user_id"].to_pylist(),
            champions.customers.table["days_since_last_order"].to_pylist(),
            strict=True,
        )
    )
    assert body["active_days"] == 56
    for row in body["scores"]:
        if row["no_score_reason"] is None:
            assert 0 <= row["churn_probability"] <= 1
            band = "low" if row["churn_probability"] < 0.33 else "medium" if row["churn_probability"] < 0.66 else "high"
            assert row["risk_band"] == band
            assert 1 <= len(row["reasons"]) <= 3
            assert {reason["effect"] for reason in row["reasons"]} <= {"raises", "lowers"}
        else:
            assert row["churn_probability"] is None
            assert row["risk_band"] is None
            assert row["reasons"] == []
    late = [row for row in body["scores"] if row["no_score_reason"] == "no purchase in the last 56 days"]
    assert late
    assert all(silent[row["user_id"]] > 56 for row in late)
    assert "reasons" not in serve("/v1/churn", {"user_ids": asked[:1]})[1]["scores"][0]


def test_predictions(serve, buyers):
    rows = good("/predictions", serve("/v1/predictions", {"user_ids": [*buyers, "ghost"]}))["scores"]
    assert rows[-1]["no_score_reason"] == "unknown customer"
    assert rows[-1]["lifecycle_stage"] is None
    for row in rows[:-1]:
        assert sum(row["next_stage"].values()) == pytest.approx(1, abs=1e-4)
        assert row["average_order_value"] > 0


def test_profile(serve, buyers):
    body = good("/profile", serve("/v1/profile", {"user_id": buyers[0]}))
    assert body["known"] is True
    assert list(body["tags"]) == ["basic", "behaviour", "transaction", "interest", "lifecycle"]
    assert body["tags"]["lifecycle"]["lifecycle_stage"]["value"] in (
        "new",
        "active",
        "loyal",
        "at_risk",
        "asleep",
        "lost",
    )
    for tags in body["tags"].values():
        for tag in tags.values():
            assert set(tag) == {"value", "as_of", "stale", "source", "checked"}
            assert tag["source"]
    assert body["tags"]["transaction"]["value_tier"]["value"] in ("low", "middle", "high")
    assert any(tag["value"] is None for tags in body["tags"].values() for tag in tags.values()), (
        "an unknown value is null, not absent"
    )
    stranger = good("/profile", serve("/v1/profile", {"user_id": "ghost"}))
    assert stranger["known"] is False
    assert not any(stranger["tags"].values())


def test_lookalike(serve, buyers):
    seeds = buyers[:40]
    body = good(
        "/lookalike",
        serve("/v1/lookalike", {"seed_user_ids": [*seeds, "ghost"], "size": 25, "exclude": [buyers[50], "spirit"]}),
    )
    users = [row["user_id"] for row in body["users"]]
    assert len(users) == 25
    assert not set(users) & {*seeds, buyers[50]}
    assert body["unknown"] == ["ghost", "spirit"]
    assert body["known_seeds"] == 40
    assert body["evidence"]["auc"]["value"] > 0.6, "the most frequent buyers can be recognised"
    assert [point["share"] for point in body["evidence"]["reach"]] == [0.01, 0.02, 0.05, 0.1, 0.2, 0.5]
    error = refused(
        serve("/v1/lookalike", {"seed_user_ids": [*buyers[:19], *["ghost"] * 20], "size": 5}),
        422,
        "invalid_request",
        "seed_user_ids",
    )
    assert "19 known of 39" in error["message"]
    assert "at least 20" in error["message"]
    few = {"seed_user_ids": buyers[:19], "size": 5, "validate_only": True}
    refused(serve("/v1/lookalike", few), 422, "invalid_request", "seed_user_ids")
    refused(serve("/v1/similar-items", {"item_id": "ghost", "validate_only": True}), 404, "not_found", "item_id")
    for lengths in ({}, {"size": 5, "ratio": 0.1}):
        assert (
            "exactly one"
            in refused(serve("/v1/lookalike", {"seed_user_ids": seeds, **lengths}), 422, "invalid_request")["message"]
        )
    rest = good("/lookalike", serve("/v1/lookalike", {"seed_user_ids": seeds, "ratio": 1.0, "with_evidence": False}))
    assert rest["evidence"] is None
    assert rest["short_reason"]


def test_user_source_selects_the_source_of_the_id(serve, buyers, champions):
    source = dict(
        zip(
            champions.customers.table["user_id"].to_pylist(),
            champions.customers.table["user_source"].to_pylist(),
            strict=True,
        )
    )[buyers[0]]
    right = serve("/v1/profile", {"user_id": buyers[0], "user_source": source})[1]
    assert right["known"]
    assert right["user_source"] == source
    assert not serve("/v1/profile", {"user_id": buyers[0], "user_source": "elsewhere"})[1]["known"]


# ---- the middleware alone --------------------------------------------------------------------------------------------


class Ready:
    def get(self):
        raise NotImplementedError

    def why_not_ready(self):
        return None


@pytest.mark.parametrize("status", [429, 503, 504, 418, 599])
def test_foreign_errors_get_the_uniform_format(status):
    import orjson

    async def foreign(scope, receive, send):
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(b"content-type", b"text/plain"), (b"allow", b"POST")],
            }
        )
        await send({"type": "http.response.body", "body": b'{"error": ', "more_body": True})
        await send({"type": "http.response.body", "body": b'"Too many"}'})

    sent = []

    async def collect(message):
        sent.append(message)

    asyncio.run(UniformErrorMiddleware(foreign, Ready())({"type": "http"}, None, collect))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == status
    assert (b"allow", b"POST") in sent[0]["headers"]
    body = orjson.loads(sent[1]["body"])
    assert set(body["error"]) == ERROR


def test_handlers_take_no_parsed_body():
    """FastAPI must not parse the body: its errors have another format, and it is slower."""
    from serving.http import make_app

    for route in make_app(Ready()).routes:
        assert list(inspect.signature(route.endpoint).parameters) == ["request"]
