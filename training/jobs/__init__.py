"""Registry of the training jobs: each is one module and one line here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qianmian.registry import LazyRegistry

if TYPE_CHECKING:
    from training.jobs.base import Job

# imported at first use: jobs need XGBoost and matplotlib, and what runs a job stands in modules that jobs import
JOBS: LazyRegistry[Job] = LazyRegistry(
    "job",
    {
        "recommend": "training.jobs.recommend:JOB",
        "churn": "training.jobs.churn:JOB",
        "left": "training.jobs.left:JOB",
        "lifecycle": "training.jobs.lifecycle:JOB",
        "lookalike": "training.jobs.lookalike:JOB",
        "content": "training.jobs.content:JOB",
        "contact": "training.jobs.contact:JOB",
        "demand": "training.jobs.demand:JOB",
        "value": "training.jobs.value:JOB",
        "propensity": "training.jobs.propensity:JOB",
        "clusters": "training.jobs.clusters:JOB",
        "uplift": "training.jobs.uplift:JOB",
    },
)
