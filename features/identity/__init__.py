"""OneID: which records of which systems are one customer. `resolve` fills the `customers` table of the lake."""

from __future__ import annotations

from features.identity.explain import Explanation, explain, find_record
from features.identity.graph import GraphResolver
from features.identity.ledger import Ledger
from features.identity.one_id import Resolution, Resolver, SingleSourceResolver
from features.identity.pii import hash_value
from features.identity.resolve import Changes, changes, resolve
from features.identity.undo import unmerge

__all__ = [
    "Changes", "Explanation", "GraphResolver", "Ledger", "Resolution", "Resolver", "SingleSourceResolver", "changes", "explain", "find_record",
    "hash_value", "resolve", "unmerge",
]  # fmt: skip
