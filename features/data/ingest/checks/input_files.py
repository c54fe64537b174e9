"""What the reader of the input found odd: refused lines, files without a column, equal files."""

from __future__ import annotations

from collections.abc import Iterator

from features.data.ingest.checks.base import CheckInput, IngestWarning


def odd_input(found: CheckInput) -> Iterator[IngestWarning]:
    """Pass on the warnings of the source."""
    for name, staged in found.staged.items():
        for warning in staged.warnings:
            yield IngestWarning(name, warning.code, warning.message, warning.fix, warning.rows)
