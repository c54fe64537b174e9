"""Proposes a `sources.yaml` for files: recognises columns by name and content, encoding, separator and decimal sign."""

from features.data.sources.propose.proposal import propose
from features.data.sources.propose.sample import Sample, read_sample

__all__ = ["Sample", "propose", "read_sample"]
