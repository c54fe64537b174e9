"""What every request model is made of, and how a body becomes one."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from qianmian.errors import InvalidRequest, MalformedRequest

MAX_RESULTS = 500
MAX_IDS = 10_000

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=256)]
NumResults = Annotated[int, Field(ge=1, le=MAX_RESULTS, description="how many items are wanted")]
AttributeValues = dict[
    Identifier, str | bool | Annotated[float, Field(allow_inf_nan=False)]
]  # what an item is: its attributes


class RequestModel(BaseModel):
    """Base of what a request is made of: types are not coerced, and an undeclared field is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Request(RequestModel):
    """Base of every request."""

    validate_only: bool = Field(False, description="check the request, do not run it")


class UserRequest(Request):
    """A request about one customer."""

    user_id: Identifier = Field(description="the customer's id as the caller knows it")
    user_source: Identifier | None = Field(
        None, description="the system that id is from; needed where two systems use the same id"
    )


class UsersRequest(Request):
    """A request about a list of customers."""

    user_ids: list[Identifier] = Field(
        min_length=1, max_length=MAX_IDS, description="customers, as the caller knows them"
    )
    user_source: Identifier | None = Field(None, description="the system those ids are from")


R = TypeVar("R", bound=Request)


def parse_request(model: type[R], body: bytes) -> R:
    """The request in a body.

    Raises
    ------
    MalformedRequest
        The body is not JSON.
    InvalidRequest
        A field is wrong, missing or unknown; `field` names the first.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise request_error(
            error.errors(include_url=False, include_context=False, include_input=False), model
        ) from error


def request_error(found: list[ErrorDetails], model: type[BaseModel]) -> MalformedRequest | InvalidRequest:
    """Pydantic's findings as this project's error."""
    first = found[0]
    if first["type"] == "json_invalid":
        return MalformedRequest(
            f"the body is not JSON: {first['msg'].removeprefix('Invalid JSON: ')}", hint="send one JSON object"
        )
    lines, allowed = [], None
    for one in found:
        field = ".".join(str(part) for part in one["loc"])
        text = {"extra_forbidden": "unknown field", "missing": "is required"}.get(
            one["type"], one["msg"].removeprefix("Value error, ")
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
