"""The builder of the features that a workspace declares. The declarations alone are read without a database."""

from __future__ import annotations

from features.compute.builder import Builder
from features.compute.engines import Engine
from features.data.lake import Lake
from features.definitions.pack_features import declared_features
from qianmian.settings import Settings


def make_builder(lake: Lake, settings: Settings, engine: Engine | None = None) -> Builder:
    """Make the builder of the features declared under these settings.

    Parameters
    ----------
    engine : Engine, optional
        Engine that runs the expressions, in its own time zone; default: DuckDB in this process.
    """
    return Builder(
        lake,
        declared_features(settings),
        engine,
        timezone=settings.calendar_timezone,
        allow_undated=settings.profiles.allow_undated,
        memory_gb=settings.database_memory_gb,
    )
