"""Filling the kept lists in the background after the models are loaded, so that first requests find theirs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import numpy as np

from models.ranked import Ranked
from models.recommend.base import Query
from models.recommend.scene import DEFAULT_SCENE, SCENES
from serving.champions import Champions
from serving.recommending.kept_lists import LENGTH
from serving.recommending.plan import JOB, RecommendationPlan
from serving.recommending.request_options import ListOptions, resolve_purchased

logger = logging.getLogger(__name__)

BLOCK = 16  # customers of a block: some milliseconds, in which a request may have to wait for the interpreter
PAUSE = 1.0  # seconds of pause per second of work


def fill_kept_lists(champions: Champions, pause: Callable[[float], None] = time.sleep) -> int:
    """Keep lists of the default scene while there is room for more, and return how many were added.

    That of an unknown customer comes first, then those of the customers with the most items in their history.
    """
    kept, scene = champions.kept_lists, SCENES[DEFAULT_SCENE]
    if scene.job not in champions.models or not kept.most:
        return 0
    champion, started = champions.require(JOB), time.perf_counter()
    catalogue = champion.catalogue
    if not catalogue.trained(scene.name):
        return 0
    model, purchased = catalogue.model(scene.name), resolve_purchased(scene, None)
    by_history = np.argsort(-np.diff(catalogue.history.indptr), kind="stable")
    customers, added = np.append(-1, by_history).astype(np.int64), 0
    for first in range(0, len(customers), BLOCK):
        if kept.is_full:
            break
        block_started = time.perf_counter()
        block = customers[first : first + BLOCK]
        users = block[[(scene.name, user, purchased) not in kept for user in block.tolist()]]
        if len(users):
            now = champions.with_live_items(champion)
            plan = RecommendationPlan(now, scene, model, Query(users)).with_options(ListOptions())
            ranked = plan.ranked(np.arange(len(users)), LENGTH)
            for row, user in enumerate(users.tolist()):
                added += kept.fill((scene.name, user, purchased), one_list(ranked, row), plan.catalogue.version)
        pause(PAUSE * (time.perf_counter() - block_started))
    logger.info("kept_lists=filled lists=%d seconds=%.1f", added, time.perf_counter() - started)
    return added


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
