"""Next action and next purchase from views, carts, favourites and orders: a sample of Taobao, and a synthetic shop.

    python benchmarks/recommenders_intent.py --data DIR [--quick] [--json FILE]

Reads DIR/taobao_userbehavior_sample/userbehavior_sample.parquet (user_id, item_id, category_id, behaviour, timestamp:
814 whole users, nine days), and generates the shop of `qianmian ingest synthetic --intent` with the options of `SHOP`.
Its process, in `features/data/sources/synthetic_intent.py`, was fixed before any model. Each of the last `DAYS` days is
predicted from what was before it, and their customers are pooled. Relevant for `next action` are all items of any event
of the day, for `next purchase` those bought. All customers with a history before the day and such an item are
evaluated. Items that nobody met before count as relevant and cannot be found. Recall divides by min(10, number of
relevant items), NDCG by the ideal DCG of a list of that length. Intervals are over customers and days.

`qianmian` is the model `session` for the next day. Everything it learns comes from before the day, and most of its
defaults were chosen on the days 4 to 6 of the sample. But the kind of model, and its feature of the item looked at
last, were chosen after results on the predicted days had been seen, so that its figures are somewhat optimistic.
Baselines: own events (`EVENT_WEIGHTS` or 1 each, and the half-life, chosen by NDCG on the day before), a session item
k-NN (cosine of items of one customer and day, the last day of the customer decayed by place; the decay chosen
likewise), and the most popular items of a recent window (chosen likewise). --quick predicts one day, and checks no
must.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import common
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from common import Check, Must
from numpy.typing import NDArray
from scipy import sparse

from features.data.sources.synthetic import Synthetic
from features.interaction_types import EVENT_WEIGHTS, INTERACTION_TYPES
from features.interactions import TrainingSet, sorted_interactions
from models.recommend.query import ItemFilter, top_k_sparse
from models.recommend.session.model import SessionRecommender
from training.evaluation.compare import ModelComparison, evaluate
from training.evaluation.metrics import ranking_metrics

K = 10
FOLDER = "taobao_userbehavior_sample"
DAYS = 3  # predicted days, the last ones of the data
TAOBAO_START, TAOBAO_DAYS = 1_511_539_200, 9  # 2017-11-25 00:00 in China; rows outside of the nine days are left out
BEHAVIOURS = {"pv": "view", "cart": "cart", "fav": "favourite", "buy": "purchase"}
SHOP = {"customers": 1500, "days": 90, "seed": 0, "gap_days": 20.0, "intent": True}
OURS, OWN, KNN, POPULAR = "qianmian", "own events", "session item k-NN", "popular"
KINDS = ("next action", "next purchase")
OWN_GRID = [(days, weighted) for days in (0.25, 0.5, 1.0, 3.0, 7.0, 14.0, None) for weighted in (False, True)]
KNN_GRID, POPULAR_GRID = (0.5, 0.8, 0.95, 1.0), (1.0, 3.0, 9.0, 30.0)
# ahead of every baseline beyond noise in what is done next, and not behind it beyond noise in what is bought
ENDS = {KINDS[0]: "lower", KINDS[1]: "upper"}
MUSTS = {
    f"{kind}: {end} end of ndcg@{K} minus that of {baseline}": Must("metric", least=0.0)
    for kind, end in ENDS.items()
    for baseline in (OWN, KNN, POPULAR)
}
Lists = NDArray[np.int32]


@dataclass(frozen=True)
class Events:
    """Events sorted by user and time, the purchases among them: arrays of shape (m,).

    Attributes
    ----------
    users, items : ndarray of int64
    days : ndarray of float64
        Time in days since the start of the data.
    kinds : ndarray of int8
        Position in `INTERACTION_TYPES`.
    categories : ndarray of str, shape (n_items,)
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    days: NDArray[np.float64]
    kinds: NDArray[np.int8]
    categories: NDArray[np.str_]

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.users.max()) + 1, len(self.categories)

    def training_set(self, day: float, target: str) -> TrainingSet:
        """What is known at the beginning of a day; `target` is a type of interaction."""
        past = self.days < day
        ages = (day - self.days[past]).astype(np.float32)
        users, items = self.users[past].astype(np.int32), self.items[past].astype(np.int32)
        kinds, ones = self.kinds[past], np.ones(int(past.sum()), np.float32)
        everything = sorted_interactions(users, items, ages, ones, self.shape, types=kinds)
        wanted = everything.types == INTERACTION_TYPES.index(target)
        data = TrainingSet.from_arrays([], [], n_users=self.shape[0], n_items=self.shape[1])
        return replace(
            data,
            interactions=replace(everything.where(wanted), types=None),
            auxiliary=everything.where(~wanted),
            target=target,
            item_attributes={**data.item_attributes, "category": self.categories},
            as_of=datetime(2017, 12, 1),
        )

    def truth(self, day: float, kind: str) -> tuple[NDArray[np.int64], sparse.csr_matrix]:
        """Users with a history and a relevant item in the day, and 1 for these items."""
        then = (self.days >= day) & (self.days < day + 1)
        if kind == KINDS[1]:
            then &= self.kinds == INTERACTION_TYPES.index("purchase")
        ones = np.ones(int(then.sum()), np.float32)
        met = sparse.csr_matrix((ones, (self.users[then], self.items[then])), shape=self.shape)
        met.data[:] = 1.0
        known = np.bincount(self.users[self.days < day], minlength=self.shape[0]) > 0
        users = np.flatnonzero(known & (np.diff(met.indptr) > 0))
        return users, met[users]

    def before(self, day: float) -> Events:
        """The events before a day."""
        past = self.days < day
        return Events(self.users[past], self.items[past], self.days[past], self.kinds[past], self.categories)


def taobao(data: Path) -> Events:
    """Events of the sample, inside of its nine days."""
    table = pq.read_table(data / FOLDER / "userbehavior_sample.parquet").to_pandas()
    table["day"] = (table["timestamp"] - TAOBAO_START) / 86_400
    table = table[(table["day"] >= 0) & (table["day"] < TAOBAO_DAYS)].sort_values(
        ["user_id", "timestamp"], kind="stable"
    )
    kinds = table["behaviour"].map({raw: INTERACTION_TYPES.index(name) for raw, name in BEHAVIOURS.items()})
    return _events(table["user_id"], table["item_id"], table["day"], kinds, table["category_id"].astype(str))


def synthetic_shop() -> Events:
    """Events about items and order lines of the synthetic shop, by person."""
    source = Synthetic(**SHOP)
    tables, truth = source._data.tables, source.truth()
    accounts = truth["accounts"]
    events = (
        tables["events"]
        .to_pandas()
        .dropna(subset="item_id")[["source", "source_user_id", "item_id", "ts", "event_type"]]
    )
    lines = tables["transactions"].to_pandas().query("status == 'paid'").assign(event_type="purchase")
    both = pd.concat([events, lines[list(events.columns)]]).merge(accounts, on=["source", "source_user_id"])
    both = both.merge(tables["items"].to_pandas()[["item_id", "category"]], on="item_id")
    both["day"] = (both["ts"] - np.datetime64("2024-01-01")).dt.total_seconds() / 86_400
    both = both[both["event_type"].isin(INTERACTION_TYPES) & (both["day"] < SHOP["days"])]
    both = both.sort_values(["person_id", "day"], kind="stable")
    kinds = both["event_type"].map({name: code for code, name in enumerate(INTERACTION_TYPES)})
    return _events(both["person_id"], both["item_id"], both["day"], kinds, both["category"])


def _events(users: Any, items: Any, days: Any, kinds: Any, categories: Any) -> Events:
    names, item = np.unique(items.to_numpy(), return_inverse=True)
    category = np.empty(len(names), dtype=object)
    category[item] = categories.to_numpy()
    user = np.unique(users.to_numpy(), return_inverse=True)[1]
    return Events(
        user, item, days.to_numpy().astype(np.float64), kinds.to_numpy().astype(np.int8), category.astype(np.str_)
    )


# ---- the baselines, in a few lines each ------------------------------------------------------------------------------


def own_events(past: Events, day: float, half_life_days: float | None, weighted: bool) -> Lists:
    """The user's own items by the number of events, decayed with a half-life, and weighted by their type."""
    by_kind = np.array([EVENT_WEIGHTS[name] for name in INTERACTION_TYPES])[past.kinds]
    weights = by_kind if weighted else np.ones(len(past.days))
    decay = 1.0 if half_life_days is None else np.exp2((past.days - day) / half_life_days)
    return _best(sparse.csr_matrix((weights * decay, (past.users, past.items)), shape=past.shape))


def session_item_knn(past: Events, day: float, decay: float) -> Lists:
    """Items by their cosine with those of the user's last day: the k-th last event has the weight ``decay ** k``."""
    sessions = np.unique(past.users * 10_000 + past.days.astype(np.int64), return_inverse=True)[1]
    met = sparse.csr_matrix((np.ones(len(sessions)), (sessions, past.items)), shape=(sessions.max() + 1, past.shape[1]))
    met.data[:] = 1.0
    scale = sparse.diags(1.0 / np.sqrt(np.maximum(np.asarray(met.sum(axis=0)).ravel(), 1.0)))
    cosine = scale @ (met.T @ met) @ scale
    cosine = (cosine - sparse.diags(cosine.diagonal())).tocsr()
    ends = np.searchsorted(past.users, past.users, side="right") - 1
    last = sessions == sessions[ends]
    weights = np.where(last, decay ** (ends - np.arange(len(ends))), 0.0)
    return _best((sparse.csr_matrix((weights, (past.users, past.items)), shape=past.shape) @ cosine).tocsr())


def popular(past: Events, day: float, window_days: float) -> Lists:
    """The items with the most events in the last days, the same for everybody."""
    counts = np.bincount(past.items[past.days >= day - window_days], minlength=past.shape[1])
    return np.tile(np.argsort(-counts, kind="stable")[:K].astype(np.int32), (past.shape[0], 1))


def _best(scores: sparse.csr_matrix) -> Lists:
    """The K items with the largest scores above 0 of each user, −1 past the end."""
    scores.sum_duplicates()
    scores.eliminate_zeros()
    ids = top_k_sparse(scores, K, ItemFilter())[0]
    return np.pad(ids, ((0, 0), (0, K - ids.shape[1])), constant_values=-1)


BASELINES: Mapping[str, tuple[Callable[..., Lists], list[tuple[Any, ...]]]] = {
    OWN: (own_events, OWN_GRID),
    KNN: (session_item_knn, [(decay,) for decay in KNN_GRID]),
    POPULAR: (popular, [(days,) for days in POPULAR_GRID]),
}


# ---- the benchmark ---------------------------------------------------------------------------------------------------


def lists_of_day(events: Events, day: float, kind: str) -> dict[str, Lists]:
    """Lists of every model for all users at the beginning of a day; settings are chosen on the day before."""
    past, chosen = events.before(day), {}
    validation, truth = events.truth(day - 1, kind)
    for name, (make, grid) in BASELINES.items():
        tried = [
            float(ranking_metrics(make(past.before(day - 1), day - 1, *values)[validation], truth, K)["ndcg"].mean())
            for values in grid
        ]
        chosen[name] = grid[int(np.argmax(tried))]
    print(f"  day {day:g}, {kind}: {', '.join(f'{name} {values}' for name, values in chosen.items())}", flush=True)
    train = events.training_set(day, "purchase")
    model = SessionRecommender(1.0, "any" if kind == KINDS[0] else "target").fit(train)
    ours = model.recommend(np.arange(train.n_users), K).ids
    return {OURS: ours, **{name: make(past, day, *chosen[name]) for name, (make, _) in BASELINES.items()}}


def compare(events: Events, days: Sequence[float], kind: str) -> ModelComparison:
    """Compare all models on the pooled days."""
    lists: dict[str, list[Lists]] = {}
    truths = []
    for day in days:
        users, truth = events.truth(day, kind)
        truths.append(truth)
        for name, ids in lists_of_day(events, day, kind).items():
            lists.setdefault(name, []).append(ids[users])
    ids = {name: np.concatenate(parts) for name, parts in lists.items()}
    names = ("recall", "ndcg", "hit_rate")
    return evaluate(ids, sparse.vstack(truths, format="csr"), K, names=names, differences=names)


def measure(name: str, events: Events, n_days: int, quick: bool) -> tuple[dict[str, Any], list[Check]]:
    """{model: {metric: {value, low, high, n}}} of one data set, and the checks of its musts."""
    end = int(np.ceil(events.days.max()))
    days = [float(day) for day in range(end - (1 if quick else n_days), end)]
    print(f"{name}: {events.shape[0]:,} customers, {events.shape[1]:,} items, {len(events.users):,} events", flush=True)
    result: dict[str, dict[str, Any]] = {}
    bounds: dict[str, float] = {}
    for kind in KINDS:
        compared, cost = common.measure_cost(lambda kind=kind: compare(events, days, kind))
        prefix = kind.replace(" ", "_")
        print(f"{name}, {kind}, days {days[0]:g} to {days[-1]:g} ({cost})")
        print(compared.table([f"{metric}@{K}" for metric in ("ndcg", "recall", "hit_rate")]))
        for model, metrics in compared.models.items():
            shown = {
                f"{prefix}_{metric}": dict(metrics[metric].__dict__) for metric in metrics if "coverage" not in metric
            }
            result.setdefault(model, {}).update(shown)
        for pair, found in compared.differences.items():
            metric, _, baseline = pair.partition(":")
            result[OURS][f"{prefix}_{metric}_minus_{baseline}"] = dict(found.__dict__)
            print(f"  {OURS} minus {baseline}, {metric}: {found}")
            if metric == f"ndcg@{K}":
                must = f"{kind}: {ENDS[kind]} end of {metric} minus that of {baseline}"
                bounds[must] = found.low if ENDS[kind] == "lower" else found.high
    return result, [] if quick else common.check(MUSTS, bounds, name)


def run_taobao(data: Path | None, quick: bool) -> tuple[dict[str, Any], list[Check]]:
    """Results of the sample of Taobao, and the checks of its musts."""
    if data is None or not (data / FOLDER).is_dir():
        print(f"Taobao: skipped, --data DIR has no folder {FOLDER} (userbehavior_sample.parquet)")
        return {}, []
    return measure("taobao", taobao(data), DAYS, quick)


def run_synthetic_shop(data: Path | None, quick: bool) -> tuple[dict[str, Any], list[Check]]:
    """Results of the synthetic shop, and the checks of its musts; `data` is not read."""
    return measure("synthetic_shop", synthetic_shop(), DAYS, quick)


RUNS = {"taobao": run_taobao, "synthetic_shop": run_synthetic_shop}


def main() -> None:
    arguments = common.parser(__doc__.splitlines()[0]).parse_args()
    print(common.machine())
    found = {name: run(arguments.data, arguments.quick) for name, run in RUNS.items()}
    results = {name: models for name, (models, _) in found.items() if models}
    common.finish(results, [check for _, checks in found.values() for check in checks], arguments.json)


if __name__ == "__main__":
    main()
