"""Which customers a request is about: from the ids a caller knows to one_ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qianmian.errors import InvalidRequest
from serving.champions import Champions
from serving.requests import UserRequest
from serving.responses import ResponseBody


@dataclass(frozen=True)
class ResolvedUser:
    """One customer of a request: the id as given, the customer behind it, and the problem where none is found."""

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


def profile_rows(champions: Champions, users: Sequence[ResolvedUser]) -> NDArray[np.int64]:
    """The row of each customer in the profiles, −1 for an unknown one, (n,)."""
    return np.array([champions.customers.user_map.row(user.one_id) for user in users], dtype=np.int64)
