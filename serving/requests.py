"""Base classes of the request models, and the parsing of a request body."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from qianmian.errors import InvalidRequest, MalformedRequest

NUL = b"\\u0000"  # as JSON writes it; the byte itself is no valid JSON
MAX_RESULTS = 500
MAX_IDS = 10_000

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=256)]
NumResults = Annotated[int, Field(ge=1, le=MAX_RESULTS, description="number of items to return")]
# attribute → value of one item
AttributeValues = dict[Identifier, str | bool | Annotated[float, Field(allow_inf_nan=False)]]


class RequestModel(BaseModel):
    """Base class of requests and their parts: types are not coerced, and an undeclared field is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Request(RequestModel):
    """Base class of all requests."""

    validate_only: bool = Field(False, description="validate the request without running the model")


class UserRequest(Request):
    """A request about one customer."""

    user_id: Identifier = Field(description="id of the customer in the caller's system")
    user_source: Identifier | None = Field(
        None, description="source system of the id; required if two systems use the same id"
    )


class UsersRequest(Request):
    """A request about a list of customers."""

    user_ids: list[Identifier] = Field(
        min_length=1, max_length=MAX_IDS, description="ids of the customers in the caller's system"
    )
    user_source: Identifier | None = Field(None, description="source system of the ids")


R = TypeVar("R", bound=Request)


def parse_request(model: type[R], body: bytes) -> R:
    """Parse and validate a request body.

    Raises
    ------
    MalformedRequest
        If the body is not JSON.
    InvalidRequest
        If a field is invalid, missing or unknown, or a text has the character NUL; `field` names the first one.
    """
    try:
        request = model.model_validate_json(body)
        if NUL in body and (path := _path_of_nul(orjson.loads(body))) is not None:
            raise InvalidRequest(
                "a text contains the character NUL", field=path or None, hint="leave it out; no id or attribute has it"
            )
        return request
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        raise request_error(details, model) from error


def _path_of_nul(value: Any) -> str | None:
    """Path of the first text with the character NUL, None if there is none. NumPy ignores it at the end of a text."""
    if isinstance(value, str):
        return "" if "\0" in value else None
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        found = "" if isinstance(key, str) and "\0" in key else _path_of_nul(part)
        if found is not None:
            name = str(key).replace("\0", "")
            return f"{name}.{found}" if found else name
    return None


def request_error(details: list[ErrorDetails], model: type[BaseModel]) -> MalformedRequest | InvalidRequest:
    """Translate the validation errors of Pydantic into one error of this project."""
    first = details[0]
    if first["type"] == "json_invalid":
        return MalformedRequest(
            f"the body is not JSON: {first['msg'].removeprefix('Invalid JSON: ')}", hint="send one JSON object"
        )
    lines, allowed = [], None
    for detail in details:
        field = ".".join(str(part) for part in detail["loc"])
        text = {"extra_forbidden": "unknown field", "missing": "is required"}.get(
            detail["type"], detail["msg"].removeprefix("Value error, ")
        )
        lines.append(f"{field}: {text}" if field else text)
    name = str(first["loc"][0]) if len(first["loc"]) == 1 else ""
    if first["type"] == "extra_forbidden" and name:
        allowed = ", ".join(model.model_fields)
    elif first["type"] in ("greater_than_equal", "less_than_equal") and name in model.model_fields:
        limits = model.model_json_schema()["properties"][name]
        allowed = f"{limits['minimum']:g}..{limits['maximum']:g}" if {"minimum", "maximum"} <= limits.keys() else None
    return InvalidRequest(
        "; ".join(dict.fromkeys(lines[:10])) + (f"; and {len(lines) - 10} more" if len(lines) > 10 else ""),
        allowed=allowed,
        field=".".join(str(part) for part in first["loc"]) or None,
        hint="see the schema of the request in /docs.json",
    )
