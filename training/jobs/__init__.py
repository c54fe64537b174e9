"""Registry of the training jobs: each is one module and one line here."""

from __future__ import annotations

from qianmian.registry import Registry
from training.jobs import churn, content, lifecycle, lookalike, propensity, recommend
from training.jobs.base import Job

JOBS: Registry[Job] = Registry(
    "job",
    {job.name: job for job in (recommend.JOB, churn.JOB, lifecycle.JOB, lookalike.JOB, content.JOB, propensity.JOB)},
)
