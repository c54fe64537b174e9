"""What lookalikes are fitted on at a moment, and the columns of the rankings they are compared with."""

from __future__ import annotations

from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.compute.spec import FeatureSpec, UserFeatures
from models.lookalike import LookalikeExpander
from qianmian.errors import DataError
from training.jobs.base import TrainingContext
from training.lookalike.segments import category_names

RFM_COLUMNS = ("days_since_last_order", "orders_91d", "amount_91d")
CLIP = 5.0  # limit of the standardised features, in standard deviations


def numeric_spec(profile: UserFeatures) -> FeatureSpec:
    """The numeric columns of the profiles, with neutral values for unknown attributes."""
    return profile.neutral_spec().select([one.name for one in profile.spec.features if not one.categorical])


def fit_at(context: TrainingContext, as_of: datetime, spec: FeatureSpec) -> LookalikeExpander:
    profile = context.profile(as_of, spec)
    return new_expander(context).fit(profile.values, *purchase_counts(context, as_of, profile.one_ids))


def new_expander(context: TrainingContext) -> LookalikeExpander:
    return LookalikeExpander(factors=context.settings.lookalike.factors, seed=context.settings.seed)


def purchase_counts(
    context: TrainingContext, as_of: datetime, one_ids: NDArray[np.str_]
) -> tuple[sparse.csr_matrix | None, sparse.csr_matrix | None]:
    """Purchase counts of the customers before `as_of` by item and by category; None if there are too few, or none."""
    try:
        data = context.training_set(
            as_of, min_item_customers=context.settings.recommend.usual_min_item_customers, with_features=False
        )
    except DataError as error:
        context.progress(f"lookalike: interactions are not used, only profiles ({error.message})")
        return None, None
    counts = data.interactions.matrix()[data.user_rows(one_ids)]
    if "category" not in data.item_attributes:
        return counts, None
    names = np.array(category_names(data.item_attributes["category"].tolist()), dtype=np.str_)
    of_items = np.flatnonzero(names != "")
    found, columns = np.unique(names[of_items], return_inverse=True)
    shape = (len(names), len(found))
    return counts, counts @ sparse.csr_matrix((np.ones(len(columns), np.float32), (of_items, columns)), shape=shape)


def rfm_columns(context: TrainingContext, as_of: datetime) -> NDArray[np.float64] | None:
    profile = context.profile(as_of)
    if not set(RFM_COLUMNS) <= set(profile.spec.names):
        return None
    columns = np.column_stack([np.log1p(profile.column(name)) for name in RFM_COLUMNS])
    return np.asarray((columns - columns.mean(axis=0)) / np.maximum(columns.std(axis=0), 1e-6), dtype=np.float64)


def plain_columns(profile: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features as anybody would standardise them: logarithm, mean 0, variance 1, outliers cut; (n, f)."""
    compressed = np.sign(profile) * np.log1p(np.abs(profile))
    spread = compressed.std(axis=0)
    scaled = (compressed - compressed.mean(axis=0)) / np.where(spread > 1e-6, spread, 1.0)
    return np.asarray(np.clip(scaled, -CLIP, CLIP), dtype=np.float32)
