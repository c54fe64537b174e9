"""Who is erased: all that identifies one customer in the files of a workspace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from qianmian.workspace import Workspace

User: TypeAlias = tuple[str, str]  # source, source_user_id


@dataclass(frozen=True)
class ErasedCustomer:
    """A customer who is being erased.

    Attributes
    ----------
    users : tuple of (source, source_user_id)
        All user ids of the customer, in all sources, visits that were joined to the customer included.
    one_ids : tuple of str
        The `one_id` of each customer that the user ids belong to, or have belonged to.
    identifiers : tuple of str
        The stored values of the customer's identifiers (keyed hashes, or plain where the id type is not personal) that
        no other customer has.
    longer_ids : tuple of str
        User ids of other customers that have an id of this one in them: ``mary.anna@x.org`` for ``anna@x.org``.
    """

    users: tuple[User, ...] = field(repr=False)
    one_ids: tuple[str, ...] = field(repr=False)
    identifiers: tuple[str, ...] = field(default=(), repr=False)
    longer_ids: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Erased:
    """What was taken out of one place.

    Attributes
    ----------
    removed : int
        Number of rows, files, events or models that named the customer.
    not_reached : tuple of str
        What may still name the customer, each with what to do about it, for the receipt: a file that was changed since
        it was written, a store that cannot be written. It names no customer.
    """

    removed: int
    not_reached: tuple[str, ...] = ()


# Takes a customer out of one place. Running it again removes nothing more. It raises a `QianmianError` if it cannot.
Eraser: TypeAlias = Callable[[Workspace, ErasedCustomer], Erased]
