"""OneID: find the records of all source systems that are one customer, and fill the table `customers` of the lake."""

from __future__ import annotations

from features.data.identity.explain import Explanation, explain, find_record
from features.data.identity.graph import GraphResolver
from features.data.identity.ledger import Ledger
from features.data.identity.one_id import Resolution, Resolver, SingleSourceResolver
from features.data.identity.resolve import ResolutionChanges, resolve, resolve_and_compare
from features.data.identity.unmerge import unmerge
from features.data.privacy import hash_value

__all__ = [
    "Explanation",
    "GraphResolver",
    "Ledger",
    "Resolution",
    "ResolutionChanges",
    "Resolver",
    "SingleSourceResolver",
    "explain",
    "find_record",
    "hash_value",
    "resolve",
    "resolve_and_compare",
    "unmerge",
]
