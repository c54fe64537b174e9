"""Whether the time zone of the timestamps is declared."""

from __future__ import annotations

from collections.abc import Iterator

from features.data.ingest.checks.base import CheckInput, IngestWarning


def missing_time_zone(found: CheckInput) -> Iterator[IngestWarning]:
    """Warn if the source declares no time zone although it has clock times without an offset; dates need no zone."""
    naive = {name: staged.times.naive for name, staged in found.staged.items() if staged.times and staged.times.naive}
    if naive and not found.source.declares_timezone:
        table = next(iter(naive))
        yield IngestWarning(
            table,
            "missing_time_zone",
            f"the source {found.source.name} declares no time zone, so {sum(naive.values()):,} times without an offset "
            f"({', '.join(naive)}) are read as UTC",
            "add the zone of its clocks to sources.yaml, for example `timezone: Europe/London` (or `timezone: UTC`)",
            sum(naive.values()),
        )
