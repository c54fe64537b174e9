"""Filling the kept lists in the background after the models are loaded, so that first requests find theirs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from models.ranked import Ranked
from models.recommend.base import Query
from models.recommend.scene import DEFAULT_SCENE, SCENES
from qianmian.errors import QianmianError
from serving.champions import Champions
from serving.recommending.kept_lists import LENGTH
from serving.recommending.plan import JOB, RecommendationPlan
from serving.recommending.request_options import ListOptions

logger = logging.getLogger(__name__)

BLOCK = 16  # customers of a block: some milliseconds, in which a request may have to wait for the interpreter
PAUSE = 1.0  # seconds of pause per second of work


def fill_kept_lists(champions: Champions, pause: Callable[[float], None] = time.sleep) -> int:
    """Keep the lists of the default scene, as many as there is room for, and return their number.

    Those of the customers with the most items in their history come first, after that of an unknown customer.
    """
    kept, scene = champions.kept_lists, SCENES[DEFAULT_SCENE]
    if scene.job not in champions.models or not kept.most:
        return 0
    champion, started = champions.require(JOB), time.perf_counter()
    catalogue = champion.catalogue
    if not catalogue.trained(scene.name):
        return 0
    by_history = np.argsort(-np.diff(catalogue.history.indptr), kind="stable")
    customers = np.append(-1, by_history)[: kept.most]
    model = catalogue.model(scene.name)
    for first in range(0, len(customers), BLOCK):
        block_started = time.perf_counter()
        users: NDArray[np.int64] = customers[first : first + BLOCK].astype(np.int64)
        plan = RecommendationPlan(champion, scene, model, Query(users)).with_options(ListOptions())
        try:
            ranked = plan.ranked(np.arange(len(users)), LENGTH)
        except QianmianError as error:
            logger.warning("kept_lists=unfilled reason=%s", error)
            return first
        for row, user in enumerate(users.tolist()):
            kept.fill((scene.name, user, plan.purchased), one_list(ranked, row))
        pause(PAUSE * (time.perf_counter() - block_started))
    logger.info("kept_lists=filled lists=%d seconds=%.1f", len(customers), time.perf_counter() - started)
    return len(customers)


def one_list(ranked: Ranked, row: int) -> Ranked:
    """A copy of one of the lists, shape (1, k)."""
    rows = slice(row, row + 1)
    return Ranked(
        ranked.ids[rows].copy(),
        ranked.scores[rows].copy(),
        ranked.valid[rows].copy(),
        ranked.source[rows].copy(),
        ranked.sources,
    )
