"""Floor 4: jobs: split, fit, evaluate, gate, register. The only writer of MLflow; never imported by `serving`."""

from __future__ import annotations

from training.jobs import JOBS
from training.run import JobResult, train

__all__ = ["JOBS", "JobResult", "train"]
