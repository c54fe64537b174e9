"""The training jobs, one file and one line each."""

from __future__ import annotations

from qianmian.registry import Registry
from training.jobs import churn, content, lifecycle, lookalike, recommend
from training.jobs.base import Job

JOBS: Registry[Job] = Registry(
    "job", {job.name: job for job in (recommend.JOB, churn.JOB, lifecycle.JOB, lookalike.JOB, content.JOB)}
)
