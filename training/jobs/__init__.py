"""Registry of the training jobs: each is one module and one line here."""

from __future__ import annotations

from qianmian.registry import Registry
from training.jobs import (
    churn,
    clusters,
    contact,
    content,
    demand,
    left,
    lifecycle,
    lookalike,
    propensity,
    recommend,
    uplift,
    value,
)
from training.jobs.base import Job

JOBS: Registry[Job] = Registry(
    "job",
    {
        job.name: job
        for job in (
            recommend.JOB,
            churn.JOB,
            left.JOB,
            lifecycle.JOB,
            lookalike.JOB,
            content.JOB,
            contact.JOB,
            demand.JOB,
            value.JOB,
            propensity.JOB,
            clusters.JOB,
            uplift.JOB,
        )
    },
)
