"""`TagFacts`: what is stored with the values of a tag."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from features.profiles.tags.declare import Fitted


@dataclass(frozen=True)
class TagFacts:
    """Metadata of the values of one tag: their origin and how long they are valid.

    Attributes
    ----------
    as_of : datetime
        Cutoff, naive UTC; the values depend only on earlier rows.
    source : str
        Names of the source tables joined by +, or ``model:NAME``.
    fitted : dict
        Fitted parameters of a statistic.
    model : tuple of str
        Name and version of the model that computed the values; empty for other tags.
    """

    category: str
    kind: str
    how: str
    description: str
    owner: str
    ttl_days: int
    as_of: datetime
    source: str
    fitted: Fitted = field(default_factory=dict)
    model: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The metadata as JSON-compatible data."""
        return {**self.__dict__, "as_of": self.as_of.isoformat(), "model": list(self.model)}

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> TagFacts:
        """The inverse of `as_dict`."""
        return cls(**{**value, "as_of": datetime.fromisoformat(value["as_of"]), "model": tuple(value["model"])})
