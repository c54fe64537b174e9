"""Resolution of the user ids of a request to customers (`one_id`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qianmian.errors import InvalidRequest
from serving.champions import Champions
from serving.requests import UserRequest
from serving.responses import UNKNOWN_CUSTOMER, ResponseBody


@dataclass(frozen=True)
class ResolvedUser:
    """A user id of a request and the customer that it resolves to.

    Attributes
    ----------
    user_id, user_source : str
        As in the request.
    one_id : str or None
        Id of the customer, None if there is none.
    problem : str or None
        Why the id resolves to no customer; set by `resolve_users` only.
    """

    user_id: str
    user_source: str | None
    one_id: str | None
    problem: str | None = None

    @property
    def identity(self) -> ResponseBody:
        """Response fields that identify the customer."""
        return {"user_id": self.user_id, "user_source": self.user_source, "one_id": self.one_id}


def resolve(champions: Champions, user_id: str, user_source: str | None) -> ResolvedUser:
    """Resolve a user id; an unknown user has no `one_id`. An id of a visit is that of who has logged in from it.

    Raises
    ------
    InvalidRequest
        If several sources use the id and `user_source` is missing.
    """
    return ResolvedUser(user_id, user_source, _one_id(champions, user_id, user_source))


def resolve_user(champions: Champions, request: UserRequest) -> ResolvedUser:
    """Resolve the user id of a request; see `resolve`."""
    return resolve(champions, request.user_id, request.user_source)


def resolve_users(champions: Champions, user_ids: Sequence[str], user_source: str | None) -> Iterator[ResolvedUser]:
    """Resolve user ids one by one; an ambiguous id gets a `problem` instead of an error for the whole list."""
    for user_id in user_ids:
        try:
            one_id = _one_id(champions, user_id, user_source)
            yield ResolvedUser(user_id, user_source, one_id, None if one_id is not None else UNKNOWN_CUSTOMER)
        except InvalidRequest as error:
            yield ResolvedUser(user_id, user_source, None, f"{error.message}: name the source in user_source")


def _one_id(champions: Champions, user_id: str, user_source: str | None) -> str | None:
    return (champions.live or champions).resolve(user_id, user_source)


def profile_rows(champions: Champions, users: Sequence[ResolvedUser]) -> NDArray[np.int64]:
    """Row of each customer in the profiles, −1 for an unknown one, shape (n,)."""
    return np.array([champions.customers.user_map.row(user.one_id) for user in users], dtype=np.int64)
