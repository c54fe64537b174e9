"""What the endpoints share: how a request is checked, how an answer says what it is made of, and what an endpoint is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from qianmian.errors import InvalidRequest, MalformedRequest
from qianmian.times import is_stale
from serving.champions import Champion, Champions

MAX_RESULTS = 500
MAX_IDS = 10_000

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=256)]
NumResults = Annotated[int, Field(ge=1, le=MAX_RESULTS, description="how many items are wanted")]
AttributeValues = dict[
    Identifier, str | bool | Annotated[float, Field(allow_inf_nan=False)]
]  # what an item is: its attributes
ResponseBody = dict[str, Any]


class Request(BaseModel):
    """Base of every request: types are not coerced, and a field nobody declared is a mistake."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

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


class ModelVersion(BaseModel):
    """What made the answer."""

    name: str
    version: str


class Response(BaseModel):
    """Base of every answer."""

    model: ModelVersion = Field(description="registered model and version that answered")
    as_of: str = Field(description="UTC; nothing that happened at or after it is known to the answer")
    stale: bool = Field(description="as_of is longer ago than serving.stale_after_days")


class ErrorBody(BaseModel):
    """The inside of every error."""

    code: str
    message: str
    field: str | None
    hint: str | None


class ErrorResponse(BaseModel):
    """Every error there is."""

    error: ErrorBody


R = TypeVar("R", bound=Request)


@dataclass(frozen=True)
class Endpoint(Generic[R]):
    """One route.

    Attributes
    ----------
    handle : callable
        (champions, request, now) → the answer, JSON-ready; pure, so batch scoring and tests call it too.
    response_metadata : callable
        (champions, now) → the `model`, `as_of` and `stale` of its answers.
    check : callable
        (champions, request): all that `validate_only` runs; raises what `handle` would raise about the request itself.
    runs_in_thread : callable
        Whether this request takes more than about 5 ms and must not run on the event loop.
    """

    route: str
    summary: str
    request: type[R]
    response: type[Response]
    handle: Callable[[Champions, R, datetime], ResponseBody]
    response_metadata: Callable[[Champions, datetime], ResponseBody]
    check: Callable[[Champions, R], object] = lambda _champions, _request: None
    runs_in_thread: Callable[[R], bool] = lambda _: False

    def respond(self, champions: Champions, request: R, now: datetime) -> ResponseBody:
        """Handle the request, or only check it where it says `validate_only`."""
        if request.validate_only:
            self.check(champions, request)
            return {"valid": True, **self.response_metadata(champions, now)}
        return self.handle(champions, request, now)


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


def utc_text(moment: datetime) -> str:
    """A naive UTC time as ISO 8601.

    Examples
    --------
    >>> utc_text(datetime(2017, 12, 1))
    '2017-12-01T00:00:00Z'
    """
    return moment.isoformat(timespec="seconds") + "Z"


def make_metadata(champions: Champions, champion: Champion, as_of: datetime, now: datetime) -> ResponseBody:
    """The `model`, `as_of` and `stale` of an answer."""
    return {
        "model": {"name": champion.name, "version": champion.version},
        "as_of": utc_text(as_of),
        "stale": is_stale(as_of, now, champions.settings.serving.stale_after_days),
    }


def model_metadata(job: str) -> Callable[[Champions, datetime], ResponseBody]:
    """The stamp of answers that are as old as their model."""
    return lambda champions, now: make_metadata(
        champions, champions.require(job), champions.require(job).bundle.as_of, now
    )


def profile_metadata(job: str) -> Callable[[Champions, datetime], ResponseBody]:
    """The stamp of answers a model makes from the current profiles."""
    return lambda champions, now: make_metadata(champions, champions.require(job), champions.customers.as_of, now)


@dataclass(frozen=True)
class ResolvedUser:
    """One customer of a request: who the caller asked for, who that is, and why not where nobody is found."""

    user_id: str
    user_source: str | None
    one_id: str | None
    problem: str | None = None

    @property
    def identity(self) -> ResponseBody:
        """The first fields of a row about this customer."""
        return {"user_id": self.user_id, "user_source": self.user_source, "one_id": self.one_id}


def resolve(champions: Champions, user_id: str, user_source: str | None) -> ResolvedUser:
    """Who is meant.

    Raises
    ------
    InvalidRequest
        The id is used by several sources and none is named.
    """
    return ResolvedUser(user_id, user_source, champions.customers.resolve(user_id, user_source))


def resolve_user(champions: Champions, request: UserRequest) -> ResolvedUser:
    """Who a request is about; see `resolve`."""
    return resolve(champions, request.user_id, request.user_source)


def resolve_users(champions: Champions, user_ids: list[str], user_source: str | None) -> list[ResolvedUser]:
    """Who is meant by each id; one that cannot be told apart carries the reason instead of failing the list."""
    customers, found = champions.customers, []
    for user_id in user_ids:
        try:
            one_id = customers.resolve(user_id, user_source)
            found.append(ResolvedUser(user_id, user_source, one_id, None if one_id is not None else "unknown customer"))
        except InvalidRequest as error:
            found.append(ResolvedUser(user_id, user_source, None, f"{error.message}: say which with user_source"))
    return found


def rounded(value: float, digits: int = 6) -> float:
    """A score as it is shown: enough digits to order by, no float32 noise."""
    return round(float(value), digits)


UserAttributes = Mapping[str, str]
