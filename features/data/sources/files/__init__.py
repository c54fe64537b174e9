"""The source `files`: CSV and Parquet files, mapped onto the canonical tables by a `sources.yaml`."""

from features.data.sources.files.source import FileSource

__all__ = ["FileSource"]
