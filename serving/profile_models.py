"""Whether the models that read the published profiles fit them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from features.compute.spec import check_same_timezone
from features.profiles.snapshot import Snapshot
from qianmian.errors import ArtifactError, QianmianError
from serving.bundles import BUNDLE_KINDS
from serving.stored_errors import fresh

if TYPE_CHECKING:
    from serving.champions import Champion

logger = logging.getLogger(__name__)

# jobs whose models read the published profiles: the others have the rows of their users in the model
PROFILE_JOBS = tuple(job for job, kind in BUNDLE_KINDS.items() if kind not in ("scenes", "lookalike", "contact"))
TIME_JOBS = ("contact",)  # whose answers are days and hours of the time zone in the facts of their bundles


def refuse_other_timezones(models: dict[str, Champion], snapshot: Snapshot, failures: dict[str, QianmianError]) -> None:
    """Move the models to `failures` that read days or hours of another time zone than that of the profiles."""
    for job in (*PROFILE_JOBS, *TIME_JOBS):
        if job not in models:
            continue
        bundle = models[job].bundle
        try:
            if bundle.spec is not None:
                bundle.spec.check_timezone(snapshot.spec.timezone)
            if job in TIME_JOBS:
                check_same_timezone(bundle.facts.get("timezone", snapshot.spec.timezone), snapshot.spec.timezone)
        except ArtifactError as error:
            logger.warning("champion=other_timezone model=%s reason=%s", models[job].name, error)
            failures[job] = fresh(error)
            del models[job]


def warn_of_retired_features(models: Mapping[str, Champion], snapshot: Snapshot) -> None:
    """Log the models that learnt from features which are no longer computed; they get the defaults of these."""
    known = {*snapshot.spec.names, *snapshot.unsupported}
    for job in PROFILE_JOBS:
        spec = models[job].bundle.spec if job in models else None
        features = spec.features if spec is not None else ()
        retired = [feature.name for feature in features if feature.name not in known and feature.view != "profiles"]
        if retired:
            logger.warning(
                "champion=retired_features model=%s features=%s fix=train it again", models[job].name, ",".join(retired)
            )
