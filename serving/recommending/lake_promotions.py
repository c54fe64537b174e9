"""The promotions of the lake for the items of a model in production."""

from __future__ import annotations

from datetime import datetime

import duckdb

from features.data.lake import Lake
from features.promotion_rows import item_promotions
from features.promotions import ItemPromotions
from models.bundle import ModelBundle
from models.recommend.ranking.promotions import PAST_DAYS
from qianmian.errors import ArtifactError
from qianmian.workspace import Workspace

TABLE = "promotions"
NO_LIMIT = datetime(9999, 1, 1)
READ_ERRORS = (ArtifactError, duckdb.Error, OSError)


def of_bundle(workspace: Workspace, bundle: ModelBundle) -> tuple[str, ItemPromotions | None]:
    """Read the promotions of the items of a bundle, whenever they became known, and the digest of their table.

    Returns
    -------
    tuple
        Empty digest, None: the lake has no promotions.

    Raises
    ------
    ArtifactError, duckdb.Error or OSError
        `READ_ERRORS`: they cannot be read.
    """
    lake = Lake(workspace)
    state = lake.states().get(TABLE)
    if state is None:
        return "", None
    backend, categories = lake.connect([TABLE]), bundle.item_attributes["category"]
    try:
        found = item_promotions(
            backend, bundle.as_of, bundle.item_ids, categories, known_before=NO_LIMIT, ended_days=PAST_DAYS
        )
    finally:
        backend.disconnect()
    return state.digest, found
