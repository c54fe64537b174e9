"""The OpenAPI document in `/docs.json`: the endpoints with every status they return, and the paths of BentoML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from starlette.routing import BaseRoute

from qianmian import __version__
from serving.endpoints.base import Endpoint
from serving.responses import ErrorResponse, ValidationResponse
from serving.security.keys import Scope

if TYPE_CHECKING:
    from bentoml._internal.service.openapi.specification import OpenAPISpecification

VERSION = "3.1.0"  # of OpenAPI; BentoML states 3.0.2, where Pydantic's schemas are not valid
JSON = "application/json"
ROUTES_TAG, OPERATION_TAG = "Qianmian", "Operation"
ERRORS = {
    400: "the body is not JSON",
    401: "the request has no valid API key, and the server has keys",
    403: "the API key has not the scope; or, without keys, the request does not come from this machine",
    408: "the body did not arrive in time",
    413: "the body is too large, or has more values than any valid request",
    422: "a field is invalid, missing or unknown",
    429: "too many slow requests to this route are waiting, or the rate limit of the key is reached",
    500: "internal server error",
    503: "the model of this route is not loaded",
    504: "the response took too long",
}
SECURITY_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key. A server that has none answers the programs of its own machine without one.",
    },
    "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key, without Bearer."},
}
AUTHENTICATE = {"WWW-Authenticate": {"description": "Bearer", "schema": {"type": "string"}}}
RETRY_AFTER = {"Retry-After": {"description": "seconds until it is worth another try", "schema": {"type": "integer"}}}
HEADERS = {401: AUTHENTICATE, 429: RETRY_AFTER}
OPEN_PATHS = frozenset({"/livez", "/readyz", "/healthz"})  # for balancers, which have no key
OTHER_PATHS = {
    "/": ("Page that lists the routes", "text/html"),
    "/livez": ("Whether the process is up", "text/plain"),
    "/readyz": ("Whether the models are loaded", "text/plain"),
    "/metrics": ("Metrics for Prometheus", "text/plain"),
    "/docs.json": ("This document", JSON),
}


def operation(endpoint: Endpoint[Any]) -> dict[str, Any]:
    """Return what FastAPI has to know about the POST operation of an endpoint, apart from its handler."""
    errors = {
        status: {
            "model": ErrorResponse if status >= 400 else endpoint.response,
            "description": text,
            **({"headers": HEADERS[status]} if status in HEADERS else {}),
        }
        for status, text in sorted({**ERRORS, **endpoint.errors}.items())
    }
    answers = {"model": endpoint.response | ValidationResponse, "description": "the response, or that of validate_only"}
    return {
        "name": endpoint.route.strip("/"),
        "operation_id": endpoint.route.strip("/").replace("-", "_"),
        "summary": endpoint.summary,
        "description": endpoint.request.__doc__ or "",
        "tags": [ROUTES_TAG],
        "response_model": None,
        "responses": {200: answers, **errors},
        "openapi_extra": {
            "security": security(endpoint.scope),
            "requestBody": {"required": True, "content": {JSON: {"schema": inline_schema(endpoint.request)}}},
        },
    }


def security(scope: Scope) -> list[dict[str, list[str]]]:
    """Describe the keys that a path accepts: in either header, with a scope, which OpenAPI calls a role."""
    return [{scheme: [scope]} for scheme in SECURITY_SCHEMES]


def inline_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of a request without references, which OpenAPI cannot resolve for a raw body."""
    schema = model.model_json_schema()
    parts = schema.pop("$defs", {})

    def resolved(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return {
                    **resolved(parts[node["$ref"].rsplit("/", 1)[-1]]),
                    **{key: value for key, value in node.items() if key != "$ref"},
                }
            return {key: resolved(value) for key, value in node.items()}
        return [resolved(item) for item in node] if isinstance(node, list) else node

    result: dict[str, Any] = resolved(schema)
    return result


def document(routes: list[BaseRoute], prefix: str) -> OpenAPISpecification:
    """Return the document of the service in the form that BentoML serves and builds into a Bento.

    Parameters
    ----------
    routes : list of route
        Routes of the FastAPI app, described by `operation`.
    prefix : str
        Path where the app is mounted.
    """
    from bentoml._internal.service.openapi.specification import Info, OpenAPISpecification, PathItem, Tag

    described: dict[str, Any] = get_openapi(
        title="Qianmian", version=__version__, openapi_version=VERSION, routes=routes
    )
    described["components"]["securitySchemes"] = SECURITY_SCHEMES
    return OpenAPISpecification(
        openapi=VERSION,
        info=Info(
            title="Qianmian",
            version=__version__,
            description="Recommendations, churn risks, profiles and lookalikes from the models in production.",
        ),
        servers=[{"url": "."}],
        tags=[Tag(ROUTES_TAG, "Requests about customers and items."), Tag(OPERATION_TAG, "State of the server.")],
        paths={
            **{prefix + path: PathItem(**item) for path, item in described["paths"].items()},
            **{path: PathItem(get=_read(path, summary, kind)) for path, (summary, kind) in OTHER_PATHS.items()},
        },
        components=described["components"],
    )


def _read(path: str, summary: str, kind: str) -> dict[str, Any]:
    """Describe the GET operation of a path without parameters."""
    responses: dict[str, Any] = {"200": {"description": summary, "content": {kind: {}}}}
    error = {JSON: {"schema": {"$ref": f"#/components/schemas/{ErrorResponse.__name__}"}}}
    if path == "/readyz":
        responses["503"] = {"description": "they are not; the error says why", "content": error}
    refusals = () if path in OPEN_PATHS else (400, 401, 403, 429)
    for status in refusals:
        text = {400: "several Host headers", 429: "the rate limit of the key is reached"}.get(status) or ERRORS[status]
        headers = {"headers": HEADERS[status]} if status in HEADERS else {}
        responses[str(status)] = {"description": text, "content": error, **headers}
    return {
        "operationId": path.strip("/").replace(".", "_") or "index",
        "summary": summary,
        "tags": [OPERATION_TAG],
        "security": [] if path in OPEN_PATHS else security("read"),
        "responses": responses,
    }
