"""OneID: which records of which systems are one customer. `resolve` fills the `customers` table of the lake."""

from __future__ import annotations

from features.identity.graph import GraphResolver
from features.identity.ledger import Ledger
from features.identity.one_id import Resolution, Resolver, SingleSourceResolver
from features.identity.pii import hash_value
from features.identity.resolve import changes, resolve

__all__ = ["GraphResolver", "Ledger", "Resolution", "Resolver", "SingleSourceResolver", "changes", "hash_value", "resolve"]
