"""Training jobs: split, fit, evaluate, apply the gate, register. Only this package writes to MLflow."""

from __future__ import annotations

from training.jobs import JOBS
from training.run import JobResult, train

__all__ = ["JOBS", "JobResult", "train"]
