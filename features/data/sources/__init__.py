"""Sources: each maps raw input onto the canonical tables. A new source is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable

from features.data.sources.base import RawTable, Source
from features.data.sources.completejourney import CompleteJourney
from features.data.sources.event_log import EventLogSource
from features.data.sources.files import FileSource
from features.data.sources.synthetic import Synthetic
from qianmian.registry import Registry

SOURCES: Registry[Callable[..., Source]] = Registry(
    "source",
    {
        "completejourney": CompleteJourney,
        "events": EventLogSource,
        "files": FileSource,
        "synthetic": Synthetic,
    },
)

__all__ = ["SOURCES", "RawTable", "Source"]
