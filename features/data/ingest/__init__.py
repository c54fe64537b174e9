"""Ingest raw rows of a source into the canonical tables of the lake; rejected rows are quarantined with a reason."""

from features.data.ingest.checks import IngestWarning
from features.data.ingest.report import IngestReport, TableReport
from features.data.ingest.run import ingest, preview

__all__ = ["IngestReport", "IngestWarning", "TableReport", "ingest", "preview"]
