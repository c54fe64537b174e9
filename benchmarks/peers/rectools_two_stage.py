"""A two-stage recommender for a grocer written with RecTools and LightGBM, as a competent user of them would write it.

It does not import the project: it runs in an environment of its own (`benchmarks/recommenders_peer.py` makes it) and
exchanges Parquet files.

    python rectools_two_stage.py LINES ITEMS LISTS [--lists 10] [--seeds 4]

LINES
    Order lines: user_id, item_id, ts, quantity, amount, discounted (whether the retailer gave a discount).
ITEMS
    item_id, and the groups of an item: type, category, brand, manufacturer_id, department.
LISTS
    Written: seed, user_id, item_id, rank (from 1), for every user of LINES and every seed of the ranker.

Candidates are the user's own items, popular items, and those of ALS and of an item k-NN. The ranker learns from the
last 30 days; its features are recency, frequency and intervals of user and item, of user and group, popularity, trend
and repeat rate of the item, activity of the user, prices and discounts.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pandas as pd
from implicit.als import AlternatingLeastSquares
from implicit.nearest_neighbours import TFIDFRecommender
from lightgbm import LGBMClassifier
from rectools import Columns
from rectools.dataset import Dataset
from rectools.model_selection import TimeRangeSplitter
from rectools.models import ImplicitALSWrapperModel, ImplicitItemKNNWrapperModel, PopularModel
from rectools.models.base import ModelBase
from rectools.models.ranking import (
    CandidateFeatureCollector,
    CandidateGenerator,
    CandidateRankingModel,
    PerUserNegativeSampler,
    Reranker,
)
from scipy import sparse

USER, ITEM, PAIR = Columns.User, Columns.Item, Columns.UserItem
GROUPS = ("type", "category", "brand", "manufacturer_id")
HALF_LIVES = (7, 20, 45, 120)  # days
WINDOWS = (28, 56, 112)  # days
TARGET_DAYS = 30
NEGATIVES = 60  # per user
SECONDS_PER_DAY = 86_400


class OwnHistoryModel(ModelBase):
    """The items of a user by purchases that decay with a half-life of 90 days; RecTools has no such model."""

    half_life_days = 90.0

    def _fit(self, dataset: Dataset) -> None:
        rows = dataset.interactions.df
        age = (rows[Columns.Datetime].max() - rows[Columns.Datetime]).dt.total_seconds() / SECONDS_PER_DAY
        shape = dataset.user_id_map.size, dataset.item_id_map.size
        self.weights = sparse.csr_matrix((0.5 ** (age / self.half_life_days), (rows[USER], rows[ITEM])), shape=shape)

    def _recommend_u2i(
        self, user_ids: Any, dataset: Dataset, k: int, filter_viewed: bool, sorted_item_ids_to_recommend: Any
    ) -> tuple[Any, Any, Any]:
        users, items, scores = [], [], []
        for user in user_ids:
            row = self.weights[user]
            top = np.argsort(-row.data)[:k]
            users.append(np.full(len(top), user))
            items.append(row.indices[top])
            scores.append(row.data[top])
        return np.concatenate(users), np.concatenate(items), np.concatenate(scores)


class Ranking(CandidateRankingModel):
    """An item bought twice in the target period is one positive, not two."""

    def _set_targets_to_candidates(self, candidates: pd.DataFrame, targets: pd.DataFrame) -> pd.DataFrame:
        return super()._set_targets_to_candidates(candidates, targets.drop_duplicates(PAIR))

    def lists(self, dataset: Dataset, users: Any, k: int, seeds: int) -> pd.DataFrame:
        """Lists by rankers of several seeds; candidates and features are computed once."""
        train = self.get_train_with_targets_for_reranker(dataset)
        self._fit_candidate_generators(dataset, for_train=False)
        candidates = self._get_candidates_from_first_stage(users, dataset, filter_viewed=False, for_train=False)
        table = self.feature_collector.collect_features(candidates, dataset, fold_info=None)
        found = []
        for seed in range(seeds):
            reranker = Reranker(classifier(seed))
            reranker.fit(train)
            scored = candidates[PAIR].assign(**{Columns.Score: reranker.predict_scores(table)})
            found.append(reranker.recommend(scored, k).assign(seed=seed))
        return pd.concat(found)[["seed", USER, ITEM, Columns.Rank]]


class Features(CandidateFeatureCollector):
    """Features at the end of a dataset's interactions."""

    def __init__(self, items: pd.DataFrame) -> None:
        self.items = items
        self.history: tuple[int, pd.DataFrame] | None = None

    def _history(self, dataset: Dataset) -> pd.DataFrame:
        """Interactions with the groups of their item and their age in days; kept for the next call."""
        size = len(dataset.interactions.df)
        if self.history is None or self.history[0] != size:
            rows = dataset.get_raw_interactions().merge(self.items, on=ITEM, how="left")
            now = rows[Columns.Datetime].max().normalize() + pd.Timedelta(days=1)
            rows["age"] = (now - rows[Columns.Datetime]).dt.total_seconds() / SECONDS_PER_DAY
            self.history = size, rows
        return self.history[1]

    @staticmethod
    def _rhythm(rows: pd.DataFrame, keys: list[str], prefix: str) -> pd.DataFrame:
        """Recency, frequency and intervals of the purchase days of each key."""
        days = rows.sort_values([*keys, "age"]).drop_duplicates([*keys, "day"]).copy()
        for half_life in HALF_LIVES:
            days[f"w{half_life}"] = 0.5 ** (days.age / half_life)
        for window in WINDOWS:
            days[f"n{window}"] = days.age <= window
        summed = [*(f"w{half_life}" for half_life in HALF_LIVES), *(f"n{window}" for window in WINDOWS)]
        groups = days.groupby(keys)
        out = groups[summed].sum().astype("float32")
        out["n"], out["last"], out["first"] = groups.size(), groups.age.min(), groups.age.max()
        out["gap"] = (out["first"] - out["last"]) / (out.n - 1).clip(lower=1)
        out.loc[out.n < 2, "gap"] = np.nan
        out["due"] = out["last"] / out.gap
        days["interval"] = groups.age.shift(-1) - days.age
        out["last_gap"] = days.groupby(keys).head(1).set_index(keys).interval
        out["gap_sd"] = days.groupby(keys).interval.std()
        return out.add_prefix(f"{prefix}_")

    def _get_user_item_features(self, useritem: pd.DataFrame, dataset: Dataset, fold_info: Any) -> pd.DataFrame:
        rows = self._history(dataset)
        out = useritem[PAIR].merge(self.items, on=ITEM, how="left")
        pairs = self._rhythm(rows, PAIR, "ui")
        own = rows.groupby(PAIR)
        pairs["ui_quantity"], pairs["ui_amount"] = own.quantity.mean(), own.amount.mean()
        pairs["ui_discounted"] = own.discounted.mean()
        visits = rows.drop_duplicates([USER, "day"])[[USER, "age"]].sort_values([USER, "age"])
        counts = pd.DataFrame({"visits": visits.groupby(USER).size()})
        counts["recent_visits"] = visits[visits.age <= 56].groupby(USER).size()
        out = out.merge(pairs.reset_index(), on=PAIR, how="left").merge(counts.reset_index(), on=USER, how="left")
        out["ui_share"], out["ui_share_56d"] = out.ui_n / out.visits, out.ui_n56 / out.recent_visits
        ages = {user: group.to_numpy() for user, group in visits.groupby(USER).age}
        out["visits_since"] = [
            np.searchsorted(ages[user], last) if np.isfinite(last) else np.nan
            for user, last in zip(out[USER].to_numpy(), out.ui_last.to_numpy(), strict=True)
        ]
        for group in GROUPS:
            of_group = self._rhythm(rows[rows[group].notna()], [USER, group], f"u_{group}")
            out = out.merge(of_group.reset_index(), on=[USER, group], how="left")
            out[f"share_of_{group}"] = out.ui_w120 / out[f"u_{group}_w120"]
        return out.drop(columns=[*GROUPS, "department", "visits", "recent_visits"])

    def _get_item_features(self, items: Any, dataset: Dataset, fold_info: Any) -> pd.DataFrame:
        rows = self._history(dataset)
        recent, days = rows[rows.age <= 28], rows.drop_duplicates([USER, ITEM, "day"])
        out = pd.DataFrame(index=pd.Index(items, name=ITEM))
        for window in (7, 14, *WINDOWS, 999):
            out[f"i_users{window}"] = rows[rows.age <= window].groupby(ITEM)[USER].nunique()
        out = out.fillna(0)
        out["i_trend28"] = (out.i_users28 + 1) / (out.i_users56 - out.i_users28 + 1).clip(lower=1)
        out["i_trend7"] = (out.i_users7 * 4 + 1) / (out.i_users28 + 1)
        times = days.groupby([ITEM, USER]).size()
        out["i_repeat"], out["i_per_user"] = (times > 1).groupby(level=0).mean(), times.groupby(level=0).mean()
        # of the users who bought it 28 to 56 days ago, the share that bought it again in the last 28 days
        earlier = rows[(rows.age > 28) & (rows.age <= 56)].drop_duplicates(PAIR)[PAIR]
        again = earlier.merge(recent.drop_duplicates(PAIR)[PAIR].assign(again=1.0), on=PAIR, how="left").fillna(0.0)
        hits = again.groupby(ITEM).again
        out["i_again"] = (hits.sum() + 1) / (hits.size() + 5)
        by_item, by_item_now = rows.groupby(ITEM), recent.groupby(ITEM)
        out["i_price"], out["i_price28"] = by_item.price.median(), by_item_now.price.mean()
        out["i_price_drift"] = out.i_price28 / out.i_price
        out["i_discounted"], out["i_discounted28"] = by_item.discounted.mean(), by_item_now.discounted.mean()
        out["i_last"], out["i_first"] = by_item.age.min(), by_item.age.max()
        days = days.sort_values([USER, ITEM, "age"])
        days["interval"] = days.groupby(PAIR).age.shift(-1) - days.age
        out["i_gap"] = days.groupby(ITEM).interval.median()
        departments = self.items.set_index(ITEM).department.astype("category").cat.codes
        out["i_department"] = departments.reindex(out.index).to_numpy()
        return out.reset_index()

    def _get_user_features(self, users: Any, dataset: Dataset, fold_info: Any) -> pd.DataFrame:
        rows = self._history(dataset)
        visits, by_user = rows.drop_duplicates([USER, "day"]), rows.groupby(USER)
        out = pd.DataFrame(index=pd.Index(users, name=USER))
        for window in (7, *WINDOWS, 999):
            out[f"u_visits{window}"] = visits[visits.age <= window].groupby(USER).size()
            out[f"u_items{window}"] = rows[rows.age <= window].groupby(USER)[ITEM].nunique()
        out["u_last"], out["u_first"] = by_user.age.min(), by_user.age.max()
        out["u_basket"], out["u_amount"] = out.u_items999 / out.u_visits999, by_user.amount.sum() / out.u_visits999
        times = rows.drop_duplicates([USER, ITEM, "day"]).groupby(PAIR).size()
        out["u_repeat"] = (times > 1).groupby(level=0).mean()
        out["u_discounted"], out["u_price"] = by_user.discounted.mean(), by_user.price.mean()
        return out.reset_index()


def classifier(seed: int) -> LGBMClassifier:
    """The ranker."""
    return LGBMClassifier(
        n_estimators=300,
        learning_rate=0.04,
        num_leaves=31,
        min_child_samples=100,
        subsample=0.7,
        subsample_freq=1,
        colsample_bytree=0.4,
        reg_lambda=5,
        verbose=-1,
        random_state=seed,
    )


def generators() -> list[CandidateGenerator]:
    """The first stage; the score and the rank of each model are features too."""
    als = AlternatingLeastSquares(factors=64, regularization=0.05, alpha=2, iterations=15, random_state=0)
    models = [
        (OwnHistoryModel(), 80),
        (PopularModel(period=pd.Timedelta(days=28).to_pytimedelta()), 40),
        (ImplicitALSWrapperModel(als), 50),
        (ImplicitItemKNNWrapperModel(TFIDFRecommender(K=100)), 50),
    ]
    return [CandidateGenerator(model, width, keep_ranks=True, keep_scores=True) for model, width in models]


def interactions(lines: pd.DataFrame) -> pd.DataFrame:
    """One row per user, item and day."""
    price = lines.amount / lines.quantity.clip(lower=1)
    lines = lines.assign(day=lines.ts.dt.normalize(), price=price, discounted=lines.discounted.astype(float))
    days = lines.groupby([USER, ITEM, "day"], as_index=False).agg(
        **{Columns.Datetime: ("ts", "max")},
        quantity=("quantity", "sum"),
        amount=("amount", "sum"),
        price=("price", "mean"),
        discounted=("discounted", "max"),
    )
    return days.assign(**{Columns.Weight: 1.0})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs=3, metavar=("LINES", "ITEMS", "LISTS"))
    parser.add_argument("--lists", type=int, default=10, help="items of a list")
    parser.add_argument("--seeds", type=int, default=1, help="seeds of the ranker")
    arguments = parser.parse_args()
    lines, items = pd.read_parquet(arguments.files[0]), pd.read_parquet(arguments.files[1])
    dataset = Dataset.construct(interactions(lines), keep_extra_cols=True)
    splitter = TimeRangeSplitter(
        f"{TARGET_DAYS}D", n_splits=1, filter_already_seen=False, filter_cold_users=True, filter_cold_items=True
    )
    sampler = PerUserNegativeSampler(NEGATIVES, random_state=0)
    model = Ranking(generators(), splitter, Reranker(classifier(0)), sampler, Features(items))
    found = model.lists(dataset, lines[USER].unique(), arguments.lists, arguments.seeds)
    found.to_parquet(arguments.files[2], index=False)


if __name__ == "__main__":
    main()
