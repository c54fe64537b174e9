"""Training jobs: split, fit, evaluate, apply the gate, register. Only this package writes to MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.jobs import JOBS
    from training.run import JobResult, train

__all__ = ["JOBS", "JobResult", "train"]


def __getattr__(name: str) -> Any:
    """Import the jobs when one of `__all__` is needed: a rollback needs none, and they take longer than it does."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from training import jobs, run

    return getattr(jobs if name == "JOBS" else run, name)
