"""The promotions that recommenders in production read: those of the lake, as they are known at the moment of a list."""

from __future__ import annotations

import logging

from models.bundle import ModelBundle
from models.recommend.scene_models import SceneModels
from qianmian.errors import ArtifactError, QianmianError
from qianmian.workspace import Workspace

logger = logging.getLogger(__name__)


class PromotionsError(ArtifactError):
    """The promotions of the lake cannot be read, so that a model keeps those known at its fit."""


def read_promotions(bundle: ModelBundle, workspace: Workspace, problems: list[QianmianError]) -> str:
    """Let the models of a bundle read the promotions of the lake, also those that became known after the fit.

    A model without features of promotions reads none, and the lake is not opened for it; for the others, no other table
    is opened. A model keeps the promotions known at its fit if the lake has none, or if they cannot be read: damage of
    the lake is no damage of the model.

    Parameters
    ----------
    problems : list of QianmianError
        Gets a `PromotionsError` if the promotions cannot be read.

    Returns
    -------
    str
        Digest of the table that was read; empty if none was.
    """
    scenes: SceneModels = bundle.model
    readers = [model for model in (scenes.models or {}).values() if model.reads_promotions]
    if not readers:
        return ""
    # the database that reads the lake takes time and memory of a server, and most models read no promotions
    from serving.recommending import lake_promotions

    try:
        digest, promotions = lake_promotions.of_bundle(workspace, bundle)
    except lake_promotions.READ_ERRORS as error:
        problem = PromotionsError(
            "the planned promotions cannot be read, and the recommender uses those known when it was trained",
            where=str(workspace.lake),
            got=str(error).splitlines()[0],
            hint="delete the lake folder and ingest again, then train again or restart the server",
        )
        logger.warning("promotions=broken reason=%s", problem)
        problems.append(problem)
        return ""
    if digest:
        for model in readers:
            model.update_promotions(promotions)
    return digest


def changed_since_fit(bundle: ModelBundle, digest: str) -> bool:
    """Whether promotions of the lake that a model reads (`read_promotions`) are others than those of its fit."""
    return digest not in ("", bundle.facts.get("promotions_digest"))
