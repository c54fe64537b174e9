"""The promotions that recommenders in production read: those of the lake, as they are known at the moment of a list."""

from __future__ import annotations

from datetime import datetime

from features.data.lake import Lake
from features.promotions import item_promotions
from models.bundle import ModelBundle
from models.recommend.ranking.promotions import PAST_DAYS
from models.recommend.scene_models import SceneModels
from qianmian.workspace import Workspace

NO_LIMIT = datetime(9999, 1, 1)


def read_promotions(bundle: ModelBundle, workspace: Workspace) -> str:
    """Let the models of a bundle read the promotions of the lake, also those that became known after the fit.

    A model without features of promotions reads none, and the lake is not opened for it. Without a lake that has
    promotions, a model keeps those known at its fit.

    Returns
    -------
    str
        Digest of the table that was read; empty if none was.
    """
    scenes: SceneModels = bundle.model
    readers = [model for model in (scenes.models or {}).values() if model.reads_promotions]
    if not readers:
        return ""
    lake = Lake(workspace)
    state = lake.states().get("promotions")
    if state is None:
        return ""
    backend = lake.connect()
    try:
        promotions = item_promotions(
            backend,
            bundle.as_of,
            bundle.item_ids,
            bundle.item_attributes["category"],
            known_before=NO_LIMIT,
            ended_days=PAST_DAYS,
        )
    finally:
        backend.disconnect()
    for model in readers:
        model.update_promotions(promotions)
    return state.digest


def changed_since_fit(bundle: ModelBundle, digest: str) -> bool:
    """Whether promotions of the lake that a model reads (`read_promotions`) are others than those of its fit."""
    return digest not in ("", bundle.facts.get("promotions_digest"))
