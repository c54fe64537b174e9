"""Ta-Feng, next basket: the product's model, own purchase counts and TIFU-KNN, all measured here.

    python benchmarks/recommenders_tafeng.py --data DIR [--quick] [--json FILE]

Reads DIR/tafeng_nbr/baskets.parquet (user, basket_no, item, is_future): 13,858 customers, 11,997 items, 91,227 baskets
in order, without dates. The last basket of each customer is the test basket, all earlier baskets are training data, and
all customers are evaluated (Li et al. 2023, "A Next Basket Recommendation Reality Check"). As in that paper, recall@10
divides by all items of the basket, NDCG@10 by the ideal DCG of a list as long as the basket, and PHR@10 is the share of
customers with a hit. Ties go to the item that is first in the file, which tends to be more popular; with random ties,
own purchase counts have a recall of .109 instead of .119.

`qianmian` is `next_basket` with its defaults, which were chosen on the second-to-last basket; it is deterministic, so
there are no seeds. TIFU-KNN is run with the settings of its paper (Hu et al. 2020), and with those of `TIFU_GRID` that
are best on the second-to-last basket. --quick evaluates every tenth customer and leaves out the grid; its figures are
no evidence, and no must is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import common
import numpy as np
import pyarrow.parquet as pq
from common import Check, Must
from numpy.typing import NDArray
from scipy import sparse

from features.interactions import TrainingSet
from models.recommend.base import Recommender
from models.recommend.next_basket.model import NextBasketRecommender
from models.recommend.next_basket.orders import Orders
from models.recommend.popular import PopularRecommender
from models.recommend.repeat import RepeatPurchaseRecommender
from models.topk import top_k
from training.evaluation.compare import evaluate
from training.evaluation.metrics import ranking_metrics
from training.evaluation.protocols import last_basket_split
from training.evaluation.split import EvaluationSplit

K = 10
OURS, TIFU, TUNED = "qianmian", "TIFU-KNN, settings of its paper", "TIFU-KNN, chosen on validation"
MUSTS = {"recall@10": Must("metric", least=0.150)}
NAMES = {"recall_of_taken": "recall", "ndcg_of_taken": "ndcg", "hit_rate": "phr"}  # ours → theirs
QUICK_USERS = 10  # a quick run evaluates every tenth customer
PAPER = {"neighbours": 300, "groups": 7, "within": 0.9, "between": 0.7, "own": 0.7}
TIFU_GRID = [
    {"neighbours": neighbours, "groups": 7, "within": within, "between": between, "own": own}
    for neighbours in (300, 900)
    for within, between in ((0.9, 0.7), (0.9, 0.9), (1.0, 1.0))
    for own in (0.1, 0.2, 0.4, 0.7)
]
MODELS: Mapping[str, Callable[[], Recommender]] = {
    OURS: NextBasketRecommender,
    "own purchase counts": lambda: RepeatPurchaseRecommender(None),
    "most popular": lambda: PopularRecommender(None),
}


def baskets(data: Path) -> TrainingSet:
    """Training set of all baskets, which have an order but no dates."""
    table = pq.read_table(data / "tafeng_nbr" / "baskets.parquet")
    users, items = (np.unique(table[name].to_numpy(), return_inverse=True) for name in ("user", "item"))
    return TrainingSet.from_arrays(
        users[1],
        items[1],
        n_users=len(users[0]),
        n_items=len(items[0]),
        orders=table["basket_no"].to_numpy().astype(np.int32),
    )


def subsample(split: EvaluationSplit, quick: bool) -> EvaluationSplit:
    """The split, or every tenth of its customers if `quick`."""
    return split.take(np.arange(0, len(split), QUICK_USERS)) if quick else split


# ---- TIFU-KNN, as in its authors' code -------------------------------------------------------------------------------


def basket_weights(n: int, groups: int, within: float, between: float) -> NDArray[np.float64]:
    """Weights of n baskets, the oldest first, shape (n,).

    The weight of basket p is ``within^(n − 1 − p) / group size × between^(groups − 1 − group) / groups``. If n is not
    divisible, later groups have one basket more. With fewer baskets than groups each basket is a group, and the first
    one is the first group, as in the authors' code.
    """
    place = np.arange(n)
    if n < groups:
        return within ** (n - 1.0 - place) * between ** (groups - 1.0 - place) / n
    size, larger = divmod(n, groups)
    sizes = np.repeat([size, size + 1], [groups - larger, larger])
    group = np.repeat(np.arange(groups), sizes)
    return within ** (n - 1.0 - place) / sizes[group] * between ** (groups - 1.0 - group) / groups


def tifu_knn(
    split: EvaluationSplit, neighbours: int, groups: int, within: float, between: float, own: float
) -> NDArray[np.int32]:
    """Lists of TIFU-KNN (Hu, He, Gao & Zhang 2020), shape (n, K).

    Scores are ``own`` × the decayed item frequencies of the customer + ``(1 − own)`` × the mean of those of the nearest
    customers by Euclidean distance.
    """
    orders = Orders.of(split.train.interactions, None)
    counts = np.diff(orders.starts)
    of_length = {n: basket_weights(n, groups, within, between) for n in np.unique(counts[counts > 0]).tolist()}
    weights = np.concatenate([of_length[n] for n in counts.tolist() if n]).astype(np.float32)
    vectors = (
        sparse.csr_matrix((weights, np.arange(len(weights)), orders.starts), shape=(len(counts), len(weights)))
        @ orders.baskets
    ).tocsr()
    lengths = np.asarray(vectors.multiply(vectors).sum(axis=1), dtype=np.float32).ravel()
    lists = []
    for start in range(0, len(split), 500):
        mine = vectors[split.users[start : start + 500]]
        nearness = 2.0 * (mine @ vectors.T).toarray() - lengths
        nearest = np.argpartition(-nearness, neighbours - 1, axis=1)[:, :neighbours]
        share = np.full(nearest.size, (1.0 - own) / neighbours, dtype=np.float32)
        near = sparse.csr_matrix(
            (share, nearest.ravel(), np.arange(len(nearest) + 1) * neighbours), shape=nearness.shape
        )
        lists.append(top_k((mine * np.float32(own) + near @ vectors).toarray().astype(np.float32), K)[0])
    return np.concatenate(lists)


# ---- the benchmark ---------------------------------------------------------------------------------------------------


def best_tifu(split: EvaluationSplit) -> dict[str, Any]:
    """The settings of `TIFU_GRID` with the greatest recall."""
    tried = [
        float(
            ranking_metrics(tifu_knn(split, **settings), split.truth, K, ("recall_of_taken",))["recall_of_taken"].mean()
        )
        for settings in TIFU_GRID
    ]
    best = int(np.argmax(tried))
    found = f"{TIFU_GRID[best]}, recall@10 {tried[best]:.4f}"
    print(f"TIFU-KNN, best of {len(tried)} settings on the second-to-last basket: {found}", flush=True)
    return TIFU_GRID[best]


def run(data: Path | None, quick: bool) -> tuple[dict[str, Any], list[Check]]:
    """{model: {metric: {value, low, high, n}}} and the checks of the musts."""
    if data is None or not (data / "tafeng_nbr").is_dir():
        print(
            "Ta-Feng: skipped, --data DIR has no folder tafeng_nbr (baskets.parquet: user, basket_no, item, is_future)"
        )
        return {}, []
    everything = baskets(data)
    test = subsample(last_basket_split(everything), quick)
    print(
        f"Ta-Feng: {everything.n_users:,} customers, {everything.n_items:,} items, {len(test):,} customers evaluated",
        flush=True,
    )
    ids: dict[str, NDArray[np.int32]] = {}
    costs: dict[str, common.Cost] = {}
    for name, make in MODELS.items():
        ids[name], costs[name] = common.measure_cost(
            lambda make=make: test.recommend_with(make().fit(test.train), K).ids
        )
    peak = common.peak_megabytes()
    tifu = {TIFU: PAPER} if quick else {TIFU: PAPER, TUNED: best_tifu(last_basket_split(everything, skip_last=1))}
    for name, settings in tifu.items():
        ids[name], costs[name] = common.measure_cost(lambda settings=settings: tifu_knn(test, **settings))
    compared = evaluate(ids, test.truth, K, names=tuple(NAMES), differences=("recall_of_taken", "ndcg_of_taken"))
    renamed = {f"{ours}@{K}": f"{theirs}@{K}" for ours, theirs in NAMES.items()}
    result = {
        model: {
            **{renamed[metric]: dict(found.__dict__) for metric, found in metrics.items() if metric in renamed},
            "seconds": common.value(costs[model].wall_seconds),
            "cpu_seconds": common.value(costs[model].cpu_seconds),
        }
        for model, metrics in compared.models.items()
    }
    result[OURS]["peak_mb"] = common.value(peak)
    report(result)
    for name, found in compared.differences.items():
        print(f"{OURS} minus {name.partition(':')[2]}, {name.partition('@')[0]}: {found}")
    if quick:
        return result, []
    return result, common.check(MUSTS, {metric: result[OURS][metric]["value"] for metric in MUSTS})


def report(result: Mapping[str, Any]) -> None:
    """Print the table of results."""
    print(f"{'model':34s} {'recall@10':>24s} {'NDCG@10':>24s} {'PHR@10':>24s} {'seconds':>8s}")
    for name, metrics in result.items():
        cells = [
            f"{metrics[m]['value']:.4f} [{metrics[m]['low']:.4f}, {metrics[m]['high']:.4f}]"
            for m in ("recall@10", "ndcg@10", "phr@10")
        ]
        print(f"{name:34s} {cells[0]:>24s} {cells[1]:>24s} {cells[2]:>24s} {metrics['seconds']['value']:8.1f}")


def main() -> None:
    arguments = common.parser(__doc__.splitlines()[0]).parse_args()
    print(common.machine())
    results, checks = run(arguments.data, arguments.quick)
    common.finish({"tafeng": results}, checks, arguments.json)


if __name__ == "__main__":
    main()
