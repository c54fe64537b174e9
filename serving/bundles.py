"""Loading the bundle of a model in production, and refusing one that is not what its job needs."""

from __future__ import annotations

import logging
from pathlib import Path

from models.bundle import ModelBundle
from models.persist import is_mapped
from qianmian.errors import ArtifactError
from qianmian.schema import REGISTERED_PREFIX

logger = logging.getLogger(__name__)

BUNDLE_KINDS = {  # job → kind of its bundle
    "recommend": "scenes",
    "content": "scenes",
    "churn": "churn",
    "lifecycle": "lifecycle",
    "propensity": "propensity",
    "lookalike": "lookalike",
    "value": "value",
    "contact": "contact",
    "demand": "demand",
    "left": "left",
    "clusters": "clusters",
    "uplift": "uplift",
}
RESTORE_HINT = "restore the file from a backup, `qianmian models rollback`, or train again"


def load_bundle(folder: Path, job: str) -> ModelBundle:
    """Load the bundle of a job.

    Raises
    ------
    ArtifactError
        If its files are corrupt, or it is of another job.
    """
    try:
        bundle = ModelBundle.load(folder)
    except (KeyError, ValueError, TypeError, AttributeError) as error:  # valid JSON that is no manifest
        raise ArtifactError(
            "the model cannot be read", where=str(folder), got=f"{type(error).__name__}: {error}", hint=RESTORE_HINT
        ) from error
    if bundle.kind != BUNDLE_KINDS[job]:
        raise ArtifactError(
            "the registered model has the wrong kind",
            where=str(folder),
            got=bundle.kind,
            allowed=BUNDLE_KINDS[job],
            hint=RESTORE_HINT,
        )
    if not is_mapped(bundle.item_ids):
        logger.warning(
            "champion=copied model=%s reason=%s fix=train it again",
            REGISTERED_PREFIX + job,
            "an earlier version has written its arrays so that processes cannot share their memory",
        )
    return bundle
