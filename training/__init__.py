"""Training jobs: split, fit, evaluate, apply the gate, register. Only this package writes to MLflow."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.jobs import JOBS
    from training.run import JobResult, train

__all__ = ["JOBS", "JobResult", "train"]
# imported at first use (PEP 562): the jobs need XGBoost and matplotlib, and `training.measurement` neither
MODULES = {"JOBS": "training.jobs", "JobResult": "training.run", "train": "training.run"}


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(MODULES[name]), name)
