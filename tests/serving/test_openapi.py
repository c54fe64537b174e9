"""The OpenAPI document is valid, and the server keeps what it says, whatever is sent."""

from __future__ import annotations

from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from serving.endpoints import ENDPOINTS

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def document(serve) -> dict[str, Any]:
    return serve("/docs.json")[1]


def test_the_document_is_valid(document):
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []
    assert document["info"]["title"] == "Qianmian"
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)


def test_the_document_describes_every_status_and_validate_only(document):
    for route, endpoint in ENDPOINTS.items():
        operation = document["paths"][f"/v1{route}"]["post"]
        expected = {"200", "400", "401", "403", "408", "413", "422", "429", "500", "503", "504"}
        assert set(operation["responses"]) == expected | {str(status) for status in endpoint.errors}
        assert "Retry-After" in operation["responses"]["429"]["headers"]
        assert "WWW-Authenticate" in operation["responses"]["401"]["headers"]
        assert operation["security"] == [{"bearer": [endpoint.scope]}, {"api_key": [endpoint.scope]}]
        request = operation["requestBody"]["content"]["application/json"]["schema"]
        assert request["properties"]["validate_only"]["description"]
    assert set(document["paths"]["/readyz"]["get"]["responses"]) == {"200", "503"}
    assert document["paths"]["/readyz"]["get"]["security"] == []
    assert document["paths"]["/metrics"]["get"]["security"] == [{"bearer": ["read"]}, {"api_key": ["read"]}]
    assert set(document["components"]["securitySchemes"]) == {"bearer", "api_key"}


@pytest.mark.parametrize("path", ["/", "/livez", "/readyz", "/metrics", "/docs.json"])
def test_the_other_paths_are_as_described(document, serve, path):
    response = requests.get(serve.url + path, timeout=30)
    (kind,) = document["paths"][path]["get"]["responses"]["200"]["content"]
    assert response.status_code == 200
    assert response.headers["Content-Type"].split(";")[0] == kind


@pytest.mark.parametrize("route", list(ENDPOINTS))
def test_answers_to_invented_requests_are_as_described(document, serve, buyers, champions, route):
    send_invented_requests(document, serve, buyers, champions, route, 20)


@pytest.mark.slow
@pytest.mark.parametrize("route", list(ENDPOINTS))
def test_answers_to_many_invented_requests_are_as_described(document, serve, buyers, champions, route):
    send_invented_requests(document, serve, buyers, champions, route, 1_500)


def send_invented_requests(document, serve, buyers, champions, route: str, number: int) -> None:
    """Send requests made from the document, half of them invalid, and compare each response with the document."""
    operation = schemathesis.openapi.from_dict(document)[f"/v1{route}"]["POST"]
    if route == "/erase":  # the shop is that of all tests
        operation = OnlyValidated(operation)
    item_ids = champions.models["recommend"].catalogue.item_ids
    statuses: dict[int, int] = {}

    @given(
        st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in GenerationMode)),
        st.booleans(),
        st.integers(0, 100),
    )
    @settings(
        max_examples=number, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    def send(case, known, first):
        if known and isinstance(case.body, dict):
            case.body = with_known_ids(case.body, buyers[first % 20 :], item_ids[first % 20 :])
        response = case.call(base_url=serve.url, session=session)
        statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
        case.validate_response(response, checks=CHECKS)

    with requests.Session() as session:
        send()
    assert {200, 422} <= set(statuses), "valid and invalid requests were sent"


class OnlyValidated:
    """An operation whose valid requests are only checked."""

    def __init__(self, operation: Any) -> None:
        self.operation = operation

    def as_strategy(self, **options: Any) -> Any:
        """The requests of the operation, with `validate_only`."""
        return self.operation.as_strategy(**options).map(self._only_validated)

    @staticmethod
    def _only_validated(case: Any) -> Any:
        if isinstance(case.body, dict) and case.body.get("validate_only", False) is False:
            case.body = {**case.body, "validate_only": True}
        return case


def with_known_ids(body: dict[str, Any], users: list[str], items: list[str]) -> dict[str, Any]:
    """The body with ids of the shop in place of invented ones, and without what only a known name makes valid."""
    ids = {"user_id": users, "user_ids": users, "seed_user_ids": users, "item_id": items, "item_ids": items}
    left_out = {"user_source", "filters", "promotions", "scene", "ratio"}
    known = {name: value for name, value in body.items() if name not in left_out}
    if "seed_user_ids" in body:
        known["size"] = 5
    for name in ids.keys() & body.keys():
        if isinstance(body[name], str):
            known[name] = ids[name][0]
        elif isinstance(body[name], list):
            known[name] = ids[name][: 40 if name == "seed_user_ids" else max(len(body[name]), 1)]
    if isinstance(known.get("context"), dict):
        known["context"] = {name: value for name, value in known["context"].items() if name in ("attributes", "items")}
    return known
