"""Sources: each turns raw input into canonical columns. One file and one line here adds another."""

from __future__ import annotations

from collections.abc import Callable

from features.data.sources.base import RawTable, Source
from features.data.sources.completejourney import CompleteJourney
from features.data.sources.files import FileSource
from features.data.sources.synthetic import Synthetic
from qianmian.registry import Registry

SOURCES: Registry[Callable[..., Source]] = Registry(
    "source",
    {
        "completejourney": CompleteJourney,
        "files": FileSource,
        "synthetic": Synthetic,
    },
)

__all__ = ["SOURCES", "RawTable", "Source"]
