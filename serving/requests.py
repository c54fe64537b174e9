"""Base classes of the request models, and the parsing of a request body."""

from __future__ import annotations

import re
from functools import cache
from itertools import islice
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, FailFast, Field, StringConstraints, ValidationError
from pydantic_core import from_json

from models.filters import MAX_TEXT
from qianmian.errors import InvalidRequest, MalformedRequest, QianmianError

NUL = b"\\u0000"  # as JSON writes it; the byte itself is no valid JSON
MAX_RESULTS = 500
MAX_IDS = 10_000
MAX_ATTRIBUTES = 50
MAX_FILTER_VALUES = 25_000  # JSON values of all filters of a request together
SHOWN_MISTAKES = 10
MOST_MISTAKES = 100  # of more, only the number is said, because describing one takes microseconds
FEW_VALUES = 1_000  # a body with so few is always read, so that its mistakes are described

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Text = Annotated[str, StringConstraints(max_length=MAX_TEXT)]
# the ids of a list are checked up to the first mistake, as are the parts of other long lists
Identifiers = Annotated[list[Identifier], FailFast()]
NumResults = Annotated[int, Field(ge=1, le=MAX_RESULTS, description="number of items to return")]
# attribute → value of one item
AttributeValues = Annotated[
    dict[Identifier, Text | bool | Annotated[float, Field(allow_inf_nan=False)]],
    FailFast(),
    Field(max_length=MAX_ATTRIBUTES),
]


class BodyTooLarge(QianmianError):
    """The body of a request is longer than `serving.max_body_bytes`, or has more values than any valid request."""

    code, http_status, exit_code = "body_too_large", 413, 2


class RequestModel(BaseModel):
    """Base class of requests and their parts: types are not coerced, and an undeclared field is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Request(RequestModel):
    """Base class of all requests.

    Attributes
    ----------
    finds_nul : bool
        Whether a text with NUL makes the whole request invalid; else the parts of the request are looked at one by one.
    """

    finds_nul: ClassVar[bool] = True

    validate_only: bool = Field(False, description="validate the request without running the model")


class UserRequest(Request):
    """A request about one customer."""

    user_id: Identifier = Field(description="id of the customer in the caller's system")
    user_source: Identifier | None = Field(
        None, description="source system of the id; required if two systems use the same id"
    )


class UsersRequest(Request):
    """A request about a list of customers."""

    user_ids: Identifiers = Field(
        min_length=1, max_length=MAX_IDS, description="ids of the customers in the caller's system"
    )
    user_source: Identifier | None = Field(None, description="source system of the ids")


R = TypeVar("R", bound=Request)


def parse_request(model: type[R], body: bytes) -> R:
    """Parse and validate a request body.

    Raises
    ------
    BodyTooLarge
        If it has more values than any valid request to this route.
    MalformedRequest
        If the body is not JSON.
    InvalidRequest
        If a field is invalid, missing or unknown, or a text has the character NUL; `field` names the first one.
    """
    if has_more_values(body, most_values(model)):
        raise BodyTooLarge(
            "the body has more values than a request to this route can have",
            allowed=f"at most {most_values(model)} texts, numbers, lists and objects",
            hint="send fewer ids at a time; /docs.json has the limits of each list",
        )
    try:
        request = model.model_validate_json(body)
        if NUL in body and model.finds_nul and (path := path_of_nul(from_json(body))) is not None:
            raise InvalidRequest(
                "a text contains the character NUL", field=path or None, hint="leave it out; no id or attribute has it"
            )
        return request
    except ValidationError as error:
        raise request_error(error, model) from error


# ---- the size of a body ----------------------------------------------------------------------------------------------

# up to the next comma or opening bracket that is not inside a text, or to the end; it matches from everywhere, so that
# no position is read twice
_NEXT_VALUE = re.compile(rb'(?!\Z)(?:[^",\[{]++|"(?:[^"\\]++|\\.?)*+"?)*+(?:[,\[{]|\Z)', re.DOTALL)


def has_more_values(body: bytes, most: int) -> bool:
    """Whether a JSON text has more texts, numbers, lists and objects than `most`; it is not parsed.

    Examples
    --------
    >>> body = b'{"ids": ["a", "b,c"], "k": 10}'
    >>> has_more_values(body, 5), has_more_values(body, 4)
    (False, True)
    """
    if len(body) <= 2 * most:  # every value but the whole takes two characters
        return False
    # every value is the whole, or the first one of a list or object, or follows a comma; here also those in texts
    if 1 + body.count(b",") + body.count(b"[") + body.count(b"{") <= most:
        return False
    return sum(1 for _ in islice(_NEXT_VALUE.finditer(body), most + 1)) > most


@cache
def most_values(model: type[BaseModel]) -> int:
    """Return the number of JSON values that a valid request has at most, itself and its parts included."""
    schema = model.model_json_schema()
    parts = schema.get("$defs", {})

    def most(node: Any) -> int:
        if "$ref" in node:
            return most(parts[node["$ref"].rsplit("/", 1)[-1]])
        if "anyOf" in node:
            return max(most(kind) for kind in node["anyOf"])
        length = node.get("maxItems", node.get("maxProperties", 0))
        inner = node.get("items") or node.get("additionalProperties")
        listed = length * most(inner) if isinstance(inner, dict) else 0
        return 1 + listed + sum(most(part) for part in node.get("properties", {}).values())

    return max(FEW_VALUES, most(schema) + MAX_FILTER_VALUES * ("filters" in model.model_fields))


# ---- mistakes --------------------------------------------------------------------------------------------------------


def path_of_nul(value: Any) -> str | None:
    """Path of the first text with the character NUL, None if there is none. NumPy ignores it at the end of a text."""
    if isinstance(value, str):
        return "" if "\0" in value else None
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        found = "" if isinstance(key, str) and "\0" in key else path_of_nul(part)
        if found is not None:
            name = str(key).replace("\0", "")
            return f"{name}.{found}" if found else name
    return None


@cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def request_error(error: ValidationError, model: type[BaseModel]) -> MalformedRequest | InvalidRequest:
    """Translate the validation errors of Pydantic into one error of this project."""
    if (number := error.error_count()) > MOST_MISTAKES:
        return InvalidRequest(
            f"the request has {number} mistakes",
            allowed=", ".join(model.model_fields),
            hint="see the schema of the request in /docs.json",
        )
    details = error.errors(include_url=False, include_context=False, include_input=False)
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
        limits = _schema(model)["properties"][name]
        allowed = f"{limits['minimum']:g}..{limits['maximum']:g}" if {"minimum", "maximum"} <= limits.keys() else None
    more = len(lines) - SHOWN_MISTAKES
    return InvalidRequest(
        "; ".join(dict.fromkeys(lines[:SHOWN_MISTAKES])) + (f"; and {more} more" if more > 0 else ""),
        allowed=allowed,
        field=".".join(str(part) for part in first["loc"]) or None,
        hint="see the schema of the request in /docs.json",
    )
