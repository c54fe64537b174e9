"""OneID: which records of which systems are one customer. `resolve` fills the `customers` table of the lake."""

from __future__ import annotations

from features.identity.one_id import Resolver, SingleSourceResolver, resolve

__all__ = ["Resolver", "SingleSourceResolver", "resolve"]
