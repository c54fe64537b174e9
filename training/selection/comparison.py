"""The lists of `home` of the recommender in production beside those of a new one, in the test period of the latter."""

from __future__ import annotations

from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from features.id_map import IdMap
from models.bundle import ModelBundle
from training.comparison import LossComparison
from training.evaluation.metrics import ranking_metrics
from training.selection.report import HOME, SHIPPED_MODEL, HomeLists, K

METRIC = "ndcg"


def home_comparison(home: HomeLists, start: datetime) -> LossComparison:
    """1 − NDCG@10 of each customer of the test period, by the lists that ship.

    The champion recommends what it would have recommended at its own cutoff, so it is compared only if that is not
    after `start`. It then knows the same purchases as the evaluated model, or fewer if its cutoff was earlier: a new
    model that is behind all the same is refused. A customer whom the champion does not know has no loss.

    Parameters
    ----------
    home : HomeLists
        Of the test period.
    start : datetime
        Begin of the test period.
    """
    train, truth, exclude = home.examples.train, home.examples.truth, home.examples.exclude_purchased
    one_ids, items = train.user_ids[home.examples.users], IdMap(train.item_ids)  # not the training set, which is large

    def losses(bundle: ModelBundle) -> NDArray[np.float64]:
        users = bundle.user_map.rows(one_ids)
        found = np.full(len(one_ids), np.nan)
        if (users >= 0).any():
            known = np.flatnonzero(users >= 0)
            ids = bundle.model.scene(HOME).recommend(users[known], K, exclude_purchased=exclude).ids
            here = np.append(items.rows(bundle.item_ids), -1)[ids]  # the last one stands for an empty place, −1
            found[known] = 1.0 - ranking_metrics(here, truth[known], K, (METRIC,))[METRIC]
        return found

    own = 1.0 - ranking_metrics(home.ranked[SHIPPED_MODEL].ids, truth, K, (METRIC,))[METRIC]
    return LossComparison(f"1 - {METRIC}@{K}", start, own, losses, of_its_cutoff=True)
