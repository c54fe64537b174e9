"""`/v1/erase`: take a customer out of the workspace, and return the signed receipt."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from qianmian.errors import InvalidRequest, NotFound, QianmianError, WorkspaceError
from serving import costs
from serving.champions import Champions
from serving.endpoints.base import Accepting, Endpoint
from serving.erasures import NoWorkspace
from serving.requests import Text, UserRequest
from serving.responses import Response, ResponseBody, metadata_of

WAIT_SECONDS = 20.0  # for the receipt; a longer erasure goes on, and is asked for again
ERASURES = "erasures"  # name in `model` of the responses
FORMAT = "1"
RUNNING = "running"


class EraseRequest(UserRequest):
    """Erase a customer, with all user ids. It cannot be undone."""

    reason: Text | None = Field(None, description="for the receipt, such as the number of a ticket; it names nobody")


class EraseResponse(Response):
    """The receipt of the erasure. `model` is the format of receipts."""

    status: Literal["done", "incomplete", "running"] = Field(
        description="done; incomplete if something is left, which the receipt lists; running (status 202) if it takes "
        "longer than a request may: the same request returns the receipt later"
    )
    erasure_id: str | None = Field(description="null as long as the customer is being looked for")
    receipt: dict[str, Any] | None = Field(description="as in erasures/receipts/ of the workspace; null while it runs")


def handle(champions: Champions, request: EraseRequest, now: datetime) -> ResponseBody:
    """Nothing can be erased from models alone."""
    raise NoWorkspace("a customer is erased by a server with a workspace", hint="run `qianmian erase`")


async def accept(accepting: Accepting, request: EraseRequest, now: datetime) -> ResponseBody:
    """Erase a customer, or return the receipt if it was done before."""
    erasures = accepting.erasures
    erasures.require()
    if request.validate_only:
        return {"valid": True, **_metadata(now)}
    users = [(source, request.user_id) for source in _sources(accepting, request)]
    receipt = await asyncio.to_thread(erasures.receipt, users)
    erasure_id = None
    if receipt is None:
        try:
            receipt = await erasures.erase(request.user_id, request.user_source, request.reason, WAIT_SECONDS)
        except (NotFound, InvalidRequest):  # another process of the server may have just erased the customer
            receipt = await asyncio.to_thread(erasures.receipt, users)
            if receipt is None:
                raise
        except WorkspaceError:  # or is doing it
            erasure_id = await asyncio.to_thread(erasures.pending_id, request.user_id)
            if erasure_id is None:
                raise
    if receipt is None:
        erasure_id = erasure_id or await asyncio.to_thread(erasures.pending_id, request.user_id)
        return {"status": RUNNING, "erasure_id": erasure_id, "receipt": None, **_metadata(now)}
    status = "done" if receipt["complete"] else "incomplete"
    return {"status": status, "erasure_id": receipt["erasure_id"], "receipt": receipt, **_metadata(now)}


def _sources(accepting: Accepting, request: EraseRequest) -> list[str]:
    """The sources that may have the user id: the one that is named, or those of the profiles."""
    if request.user_source is not None:
        return [request.user_source]
    try:
        return list(accepting.get().customers.customers["source"].unique().to_pylist())
    except QianmianError:
        return []


def _metadata(now: datetime) -> ResponseBody:
    return metadata_of(ERASURES, FORMAT, now, stale=False)


ENDPOINT = Endpoint(
    "/erase",
    "Erase a customer",
    EraseRequest,
    EraseResponse,
    handle,
    lambda _champions, now: _metadata(now),
    lambda _request: costs.PROFILE_MS,  # the work is that of another process
    accept=accept,
    status_of=lambda body: 202 if body.get("status") == RUNNING else 200,
    scope="admin",
    errors={
        202: "the erasure runs; the same request returns the receipt later",
        404: "no customer has this user id",
        429: "too many erasures are waiting",
        501: "this server has no workspace",
    },
)
