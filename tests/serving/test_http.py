"""The real server: every endpoint, every error in one shape, readiness, the schema."""

from __future__ import annotations

import asyncio
import http.client
import inspect
import re
from urllib.parse import urlsplit

import pytest

from serving.answers import ENDPOINTS
from serving.http import OneErrorShape

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
    ENDPOINTS[route].response.model_validate(body, strict=False)  # what /docs.json promises
    fields = ENDPOINTS[route].response.model_fields
    assert {name for name, field in fields.items() if field.is_required()} <= set(body) <= set(fields), (
        "the answer and its schema name the same fields"
    )
    assert body["as_of"] == "2024-08-01T00:00:00Z"
    assert body["stale"] is True
    assert set(body["model"]) == {"name", "version"}
    return body


def minimal(route: str, buyers: list[str], champions) -> dict:
    item = champions.models["recommend"].catalogue.item_ids[0]
    return {
        "/recommendations": {"user_id": buyers[0]}, "/rank": {"user_id": buyers[0], "item_ids": [item]}, "/similar-items": {"item_id": item},
        "/churn": {"user_ids": buyers[:2]}, "/predictions": {"user_ids": buyers[:2]}, "/profile": {"user_id": buyers[0]},
        "/lookalike": {"seed_user_ids": buyers[:30], "size": 10},
    }[route]  # fmt: skip


# ---- readiness -------------------------------------------------------------------------------------------------------


def test_alive_at_once_and_ready_once_the_models_are_loaded(serve):
    assert serve.while_loading["/livez"][0] == 200
    for path in ("/readyz", "/v1/churn"):
        assert "loaded" in refused(serve.while_loading[path], 503, "not_ready")["message"]
    assert serve("/readyz")[0] == 200
    assert serve("/livez")[0] == 200
    assert b"bentoml_service_request_total" in serve("/metrics")[1]


# ---- every endpoint --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", list(ENDPOINTS))
def test_every_endpoint_answers_what_its_schema_says(route, serve, buyers, champions):
    good(route, serve(f"/v1{route}", minimal(route, buyers, champions)))


@pytest.mark.parametrize("route", list(ENDPOINTS))
def test_validate_only_runs_nothing(route, serve, buyers, champions):
    status, body = serve(f"/v1{route}", {**minimal(route, buyers, champions), "validate_only": True})
    assert status == 200
    assert body["valid"] is True
    assert set(body) == {"valid", "model", "as_of", "stale"}
    refused(serve(f"/v1{route}", {**minimal(route, buyers, champions), "validate_only": 1}), 422, "invalid_request", "validate_only")


@pytest.mark.parametrize("route", list(ENDPOINTS))
def test_bad_input_is_refused_in_one_shape(route, serve, buyers, champions):
    path, body = f"/v1{route}", minimal(route, buyers, champions)
    first = next(iter(body))
    for text in (b"{", b"", b'{"a": 1,}', b"\xff\xfe", b'{"user_id": "\\ud800"}', b"[" * 100_000):
        refused(serve(path, text), 400, "malformed_json")
    for text in (b"[]", b"null", b'"x"', b"3"):
        refused(serve(path, text), 422, "invalid_request")
    refused(serve(path, {**body, "nonsense": 1}), 422, "invalid_request", "nonsense")
    assert "is required" in refused(serve(path, {}), 422, "invalid_request", first)["message"]
    refused(serve(path, {**body, first: {"not": "this"}}), 422, "invalid_request", first)
    refused(serve(path, {**body, first: 7}), 422, "invalid_request", first)
    refused(serve(path), 405, "method_not_allowed")
    assert refused(serve(path, b'"' + b"x" * 1_100_000 + b'"'), 413, "body_too_large")["hint"]


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/", "/v1/nope", "/nope", "/v1/../x"])
def test_unknown_paths(path, serve):
    refused(serve(path, {}), 405 if path == "/" else 404, "method_not_allowed" if path == "/" else "not_found")


def test_a_chunked_body_is_limited_too(serve):
    connection = http.client.HTTPConnection(urlsplit(serve.url).netloc, timeout=30)
    connection.request("POST", "/v1/churn", iter([b"x" * 200_000] * 8), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
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
        answer = operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
        assert set(document["components"]["schemas"][answer]["properties"]) == set(endpoint.response.model_fields)
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


def test_a_list_is_ranked_explained_and_free_of_doubles(serve, buyers):
    body = good("/recommendations", serve("/v1/recommendations", {"user_id": buyers[0], "num_results": 500, "explain": True}))
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
    assert all(category[item["item_id"]] == "grocery/dairy" or category[item["item_id"]].startswith("home/") for item in body["items"])
    assert body["unknown"] == ["no such item"]
    none = good("/recommendations", serve("/v1/recommendations", {"user_id": buyers[0], "filters": {"brand": "nobody's"}}))
    assert none["items"] == []
    assert "filters leave 0" in none["short_reason"]


def test_discover_hides_what_was_bought_and_home_does_not(serve, buyers, champions):
    champion = champions.models["recommend"]
    row = champion.catalogue.user_row(champions.customers.resolve(buyers[0]))
    bought = {champion.catalogue.item_ids[column] for column in champion.bundle.model.history_[row].indices.tolist()}
    for scene, repeats in (("home", True), ("discover", False)):
        items = serve("/v1/recommendations", {"user_id": buyers[0], "scene": scene})[1]["items"]
        assert bool({item["item_id"] for item in items} & bought) is repeats


def test_limits_are_said(serve, buyers):
    for number in (0, -1, 501, 1_000_000):
        error = refused(serve("/v1/recommendations", {"user_id": buyers[0], "num_results": number}), 422, "invalid_request", "num_results")
        assert "1..500" in error["message"]
    for number in ("10", 1.5, True, None):
        refused(serve("/v1/recommendations", {"user_id": buyers[0], "num_results": number}), 422, "invalid_request", "num_results")
    error = refused(serve("/v1/recommendations", {"user_id": buyers[0], "scene": "moon"}), 422, "invalid_request", "scene")
    assert "home, replenish, discover, complement, upgrade, content, similar" in error["message"]
    refused(serve("/v1/recommendations", {"user_id": buyers[0], "filters": {"colour": "red"}}), 422, "invalid_request", "filters.colour")
    refused(serve("/v1/recommendations", {"user_id": ""}), 422, "invalid_request", "user_id")
    refused(serve("/v1/churn", {"user_ids": []}), 422, "invalid_request", "user_ids")
    refused(serve("/v1/churn", {"user_ids": ["u"] * 10_001}), 422, "invalid_request", "user_ids")


def test_rank_gives_the_same_items_back(serve, buyers, champions):
    item_ids = champions.models["recommend"].catalogue.item_ids[:20]
    body = good("/rank", serve("/v1/rank", {"user_id": buyers[0], "item_ids": [*item_ids, "ghost", item_ids[0]], "explain": True}))
    assert sorted(item["item_id"] for item in body["items"]) == sorted(item_ids)
    assert body["unknown"] == ["ghost"]
    home = serve("/v1/recommendations", {"user_id": buyers[0], "num_results": 500})[1]["items"]
    assert [item["item_id"] for item in body["items"]] == [item["item_id"] for item in home if item["item_id"] in item_ids]
    assert good("/rank", serve("/v1/rank", {"user_id": buyers[0], "item_ids": ["ghost"]}))["items"] == []


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
        zip(champions.customers.table["user_id"].to_pylist(), champions.customers.table["days_since_last_order"].to_pylist(), strict=True)
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
    assert body["tags"]["lifecycle"]["lifecycle_stage"]["value"] in ("new", "active", "loyal", "at_risk", "asleep", "lost")
    for tags in body["tags"].values():
        for tag in tags.values():
            assert set(tag) == {"value", "as_of", "stale", "source"}
            assert tag["source"]
    assert body["tags"]["transaction"]["value_tier"]["value"] in ("low", "middle", "high")
    assert any(tag["value"] is None for tags in body["tags"].values() for tag in tags.values()), "what nobody knows is null, not absent"
    stranger = good("/profile", serve("/v1/profile", {"user_id": "ghost"}))
    assert stranger["known"] is False
    assert not any(stranger["tags"].values())


def test_lookalike(serve, buyers):
    seeds = buyers[:40]
    body = good("/lookalike", serve("/v1/lookalike", {"seed_user_ids": [*seeds, "ghost"], "size": 25, "exclude": [buyers[50], "spirit"]}))
    users = [row["user_id"] for row in body["users"]]
    assert len(users) == 25
    assert not set(users) & {*seeds, buyers[50]}
    assert body["unknown"] == ["ghost", "spirit"]
    assert body["known_seeds"] == 40
    assert body["evidence"]["auc"]["value"] > 0.6, "the best customers have something in common"
    assert [point["share"] for point in body["evidence"]["reach"]] == [0.01, 0.02, 0.05, 0.1, 0.2, 0.5]
    error = refused(
        serve("/v1/lookalike", {"seed_user_ids": [*buyers[:19], *["ghost"] * 20], "size": 5}), 422, "invalid_request", "seed_user_ids"
    )
    assert "19 known of 39" in error["message"]
    assert "at least 20" in error["message"]
    few = {"seed_user_ids": buyers[:19], "size": 5, "validate_only": True}
    refused(serve("/v1/lookalike", few), 422, "invalid_request", "seed_user_ids")
    refused(serve("/v1/similar-items", {"item_id": "ghost", "validate_only": True}), 404, "not_found", "item_id")
    for lengths in ({}, {"size": 5, "ratio": 0.1}):
        assert "exactly one" in refused(serve("/v1/lookalike", {"seed_user_ids": seeds, **lengths}), 422, "invalid_request")["message"]
    rest = good("/lookalike", serve("/v1/lookalike", {"seed_user_ids": seeds, "ratio": 1.0, "with_evidence": False}))
    assert rest["evidence"] is None
    assert rest["short_reason"]


def test_user_source_says_whose_id_it_is(serve, buyers, champions):
    source = dict(zip(champions.customers.table["user_id"].to_pylist(), champions.customers.table["user_source"].to_pylist(), strict=True))[
        buyers[0]
    ]
    right = serve("/v1/profile", {"user_id": buyers[0], "user_source": source})[1]
    assert right["known"]
    assert right["user_source"] == source
    assert not serve("/v1/profile", {"user_id": buyers[0], "user_source": "elsewhere"})[1]["known"]


# ---- the wrapper alone -----------------------------------------------------------------------------------------------


class Ready:
    def get(self):
        raise NotImplementedError

    def why_not_ready(self):
        return None


@pytest.mark.parametrize("status", [429, 503, 504, 418, 599])
def test_foreign_errors_get_the_one_shape(status):
    import orjson

    async def foreign(scope, receive, send):
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain"), (b"allow", b"POST")]})
        await send({"type": "http.response.body", "body": b'{"error": ', "more_body": True})
        await send({"type": "http.response.body", "body": b'"Too many"}'})

    sent = []

    async def collect(message):
        sent.append(message)

    asyncio.run(OneErrorShape(foreign, Ready())({"type": "http"}, None, collect))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == status
    assert (b"allow", b"POST") in sent[0]["headers"]
    body = orjson.loads(sent[1]["body"])
    assert set(body["error"]) == ERROR


def test_handlers_take_no_parsed_body():
    """FastAPI must not parse a body itself: its errors and its speed are not ours."""
    from serving.http import make_app

    for route in make_app(Ready()).routes:
        assert list(inspect.signature(route.endpoint).parameters) == ["request"]
