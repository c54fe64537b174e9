"""Whether the time zone of the timestamps is declared."""

from __future__ import annotations

from collections.abc import Iterator

from features.data.ingest.checks.base import CheckInput, IngestWarning


def missing_time_zone(found: CheckInput) -> Iterator[IngestWarning]:
    """Warn if the source declares no time zone although it has timestamps."""
    timed = [name for name, staged in found.staged.items() if "ts" in staged.mapped and staged.read]
    if timed and not found.source.declares_timezone:
        yield IngestWarning(
            timed[0],
            "missing_time_zone",
            f"the source {found.source.name} declares no time zone, so its times without an offset are read as UTC",
            "add the zone of its clocks to sources.yaml, for example `timezone: Europe/London` (or `timezone: UTC`)",
        )
