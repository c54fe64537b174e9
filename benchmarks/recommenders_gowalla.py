"""Gowalla, LightGCN split: the collaborative filters of the product and published ones, reproduced or quoted.

    python benchmarks/recommenders_gowalla.py --data DIR [--quick] [--json FILE]

Reads DIR/lightgcn_gowalla/train.parquet and test.parquet (user, item): 29,858 users, 40,981 items, 810,128 and 217,242
pairs. The training items of a user are excluded from the user's ranking. Recall@20 divides by all test items of the
user, NDCG@20 by the ideal DCG of a list of min(20, test items), like the code of LightGCN (He et al. 2020). Parameters
were chosen on a tenth of each user's training pairs. Those of EASE and `item k-NN` are from BARS (Zhu et al. 2022),
whose item k-NN also subtracts the mean of each item; those of GF-CF are from its authors. Every model is fitted and
evaluated in its own process, to measure seconds and peak memory. `qianmian` is `spectral` with its defaults, with five
seeds. EASE needs 7.8 GB. --quick evaluates every tenth user and leaves out EASE, iALS, BPR and the other seeds; its
figures are no evidence, and no must is checked.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import numpy as np
import pyarrow.parquet as pq
from common import Check, Must
from scipy import sparse

from models.recommend.base import Recommender
from models.recommend.bpr import BPRRecommender
from models.recommend.ease import EASERecommender
from models.recommend.ials import ImplicitALSRecommender
from models.recommend.item_knn import ItemKNNRecommender
from models.recommend.popular import PopularRecommender
from models.recommend.spectral import SpectralRecommender
from models.topk import top_k
from training.evaluation.compare import evaluate
from training.evaluation.protocols import lightgcn_split
from training.evaluation.split import EvaluationSplit

K = 20
OURS = "qianmian"
MUSTS = {"recall@20": Must("metric", least=0.1849), "ndcg@20": Must("metric", least=0.1518)}  # GF-CF, as published
TARGET = {"recall@20": 0.1920, "ndcg@20": 0.1597}  # BSPM-EM, as published
SEEDS = 5
EASE_GIGABYTES = 8.5
QUICK_USERS = 10  # a quick run evaluates every tenth user


@dataclass(frozen=True)
class BenchmarkModel:
    """A model of the table.

    Attributes
    ----------
    make : callable or None
        Seed → recommender of the product; None for a model implemented here.
    published : tuple of float, optional
        Published recall@20 and NDCG@20.
    quick : bool
        Whether a quick run includes it.
    """

    make: Callable[[int], Recommender] | None
    published: tuple[float, float] | None = None
    quick: bool = True


ENTRIES = {
    OURS: BenchmarkModel(lambda seed: SpectralRecommender(seed=seed)),
    "most popular": BenchmarkModel(lambda seed: PopularRecommender(None)),
    "item k-NN": BenchmarkModel(None, published=(0.1570, 0.1214)),
    "item k-NN, our defaults": BenchmarkModel(lambda seed: ItemKNNRecommender()),
    "GF-CF": BenchmarkModel(None, published=(0.1849, 0.1518)),
    "EASE": BenchmarkModel(
        lambda seed: EASERecommender(regularization=80.0, max_items=45_000), published=(0.1765, 0.1467), quick=False
    ),
    "iALS": BenchmarkModel(
        lambda seed: ImplicitALSRecommender(512, 10, alpha=30.0, half_life_days=None, seed=seed), quick=False
    ),
    "BPR": BenchmarkModel(lambda seed: BPRRecommender(128, 200, seed=seed), published=(0.1627, 0.1378), quick=False),
}
PUBLISHED = {  # quoted, not reproduced
    "LightGCN": (0.1820, 0.1547),
    "UltraGCN": (0.1862, 0.1580),
    "SimpleX": (0.1872, 0.1557),
    "BSPM-EM": (0.1920, 0.1597),
}


def split(data: Path, quick: bool) -> EvaluationSplit:
    """Training data, test data and evaluated users."""
    pairs = [pq.read_table(data / "lightgcn_gowalla" / f"{part}.parquet") for part in ("train", "test")]
    train, test = ((table["user"].to_numpy(), table["item"].to_numpy()) for table in pairs)
    whole = lightgcn_split(train, test)
    return whole.take(np.arange(0, len(whole), QUICK_USERS)) if quick else whole


def item_knn(test_split: EvaluationSplit) -> np.ndarray:
    """Item k-NN of BARS: ``S (x − m) + m`` with cosine weights S of 100 neighbours, normalised, and item means m."""
    model = ItemKNNRecommender(100, "cosine", normalise=True, popularity_power=0.0).fit(test_split.train)
    interacted = test_split.train.interactions.matrix()
    means = np.asarray(interacted.mean(axis=0)).ravel()
    bias = (means - means @ model.links_).astype(np.float32)
    return dense_lists(test_split, lambda own, rows: (own @ model.links_).toarray() + bias)


def gf_cf(test_split: EvaluationSplit) -> np.ndarray:
    """GF-CF as in its authors' code (Shen et al. 2021): ``X NᵀN + 0.3 X C^(−1/2) V Vᵀ C^(1/2)``, V of rank 256."""
    from sklearn.utils.extmath import randomized_svd

    interacted = test_split.train.interactions.matrix()
    by_user, by_item = (np.maximum(np.asarray(interacted.sum(axis=axis)).ravel(), 1.0) for axis in (1, 0))
    normal = sparse.csr_matrix(sparse.diags(by_user**-0.5) @ interacted @ sparse.diags(by_item**-0.5), dtype=np.float32)
    _, _, right = randomized_svd(normal, 256, n_oversamples=64, n_iter=8, random_state=0)
    low = np.asarray(interacted[test_split.users] @ (right.T * by_item[:, None] ** -0.5), dtype=np.float32)
    ideal = np.asarray(right * by_item**0.5, dtype=np.float32)
    return dense_lists(
        test_split, lambda own, rows: (own @ normal.T @ normal).toarray() + np.float32(0.3) * (low[rows] @ ideal)
    )


def dense_lists(test_split: EvaluationSplit, scores_of: Callable[[sparse.csr_matrix, slice], np.ndarray]) -> np.ndarray:
    """Top-k lists from dense scores, without training items, in blocks of 500 users.

    Parameters
    ----------
    test_split : EvaluationSplit
    scores_of : callable
        (training items of the block, rows of the block) → scores, shape (n_block, n_items).
    """
    interacted = test_split.train.interactions.matrix()
    lists = []
    for start in range(0, len(test_split), 500):
        rows = slice(start, start + 500)
        own = interacted[test_split.users[rows]]
        scores = scores_of(own, rows)
        scores[np.repeat(np.arange(own.shape[0]), np.diff(own.indptr)), own.indices] = -np.inf
        lists.append(top_k(scores.astype(np.float32), K)[0])
    return np.concatenate(lists)


REFERENCE_IMPLEMENTATIONS = {"item k-NN": item_knn, "GF-CF": gf_cf}  # reproductions of published implementations


def child(name: str, seed: int, data: Path, quick: bool, out: Path) -> None:
    """Fit and evaluate one model in this process; write its lists, seconds and peak memory."""
    test_split = split(data, quick)
    entry = ENTRIES[name]

    def fit_and_ask() -> tuple[np.ndarray, float]:
        if entry.make is None:
            return REFERENCE_IMPLEMENTATIONS[name](test_split), float("nan")
        started = time.perf_counter()
        model = entry.make(seed).fit(test_split.train)
        fit_seconds = time.perf_counter() - started
        return test_split.recommend_with(model, K).ids, fit_seconds

    (ids, fit_seconds), cost = common.measure_cost(fit_and_ask)
    seconds = {"seconds": cost.wall_seconds, "fit_seconds": fit_seconds, "cpu_seconds": cost.cpu_seconds}
    np.savez(out, ids=ids, peak_mb=cost.peak_mb, **seconds)


def lists_of(name: str, seed: int, data: Path, quick: bool) -> dict[str, np.ndarray]:
    """Result of `child` in its own process."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.npz"
        command = [
            sys.executable,
            str(Path(__file__).resolve()),
            "--data",
            str(data),
            "--model",
            name,
            "--seed",
            str(seed),
            "--out",
            str(out),
        ]
        common.timed(command + ["--quick"] * quick)
        with np.load(out) as found:
            return {key: found[key] for key in found.files}


def free_gigabytes() -> float:
    """Available memory."""
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
    return int(line.split()[1]) / 1e6


def run(data: Path | None, quick: bool, models: Sequence[str] = ()) -> tuple[dict[str, Any], list[Check]]:
    """{model: {metric: {value, low, high, n}}} and the checks of the musts.

    `models` limits the run to these models and the two that are compared.
    """
    if data is None or not (data / "lightgcn_gowalla").is_dir():
        print("Gowalla: skipped, --data DIR has no folder lightgcn_gowalla (train.parquet, test.parquet: user, item)")
        return {}, []
    test_split = split(data, quick)
    size = f"{test_split.train.n_users:,} users, {test_split.train.n_items:,} items"
    print(f"Gowalla: {size}, {len(test_split):,} users evaluated", flush=True)
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, entry in ENTRIES.items():
        if (quick and not entry.quick) or (models and name not in (*models, OURS, "GF-CF")):
            continue
        if name == "EASE" and free_gigabytes() < EASE_GIGABYTES:
            print(f"EASE: skipped, it needs {EASE_GIGABYTES} GB and {free_gigabytes():.1f} GB are available")
            continue
        found[name] = lists_of(name, 0, data, quick)
        print(f"  {name}: {float(found[name]['seconds']):.1f} s, {float(found[name]['peak_mb']):,.0f} MB", flush=True)
    others = {} if quick or models else {seed: lists_of(OURS, seed, data, quick)["ids"] for seed in range(1, SEEDS)}
    names = ("recall_of_taken", "ndcg", "hit_rate")
    comparison = evaluate(
        {name: arrays["ids"] for name, arrays in found.items()},
        test_split.truth,
        K,
        names=names,
        differences=("recall_of_taken", "ndcg"),
    )
    result = {
        name: {
            metric.replace("recall_of_taken", "recall"): dict(value.__dict__)
            for metric, value in metrics.items()
            if value.n
        }
        for name, metrics in comparison.models.items()
    }
    for name, arrays in found.items():
        result[name] |= {
            key: common.value(float(arrays[key]))
            for key in ("seconds", "fit_seconds", "cpu_seconds", "peak_mb")
            if np.isfinite(arrays[key])
        }
    if others:
        seeds = evaluate(
            {OURS: found[OURS]["ids"], **{str(seed): ids for seed, ids in others.items()}},
            test_split.truth,
            K,
            names=names,
            n_resamples=2,
        ).models
        for metric, theirs in (("recall@20", "recall_of_taken@20"), ("ndcg@20", "ndcg@20")):
            figures = [metrics[theirs].value for metrics in seeds.values()]
            mean = float(np.mean(figures))
            result[OURS][f"{metric}, {SEEDS} seeds"] = common.value(mean, min(figures), max(figures), len(figures))
    report(result)
    for metric, theirs in (("recall@20", "recall_of_taken@20"), ("ndcg@20", "ndcg@20")):
        gain = comparison.differences[f"{theirs}:GF-CF"]
        print(f"{OURS} minus GF-CF, {metric}: {gain}")
        result[OURS][f"{metric} minus GF-CF"] = dict(gain.__dict__)
    if quick:
        return result, []
    above = all(result[OURS][metric]["low"] > target for metric, target in TARGET.items())
    target = f"{TARGET['recall@20']:.4f}, {TARGET['ndcg@20']:.4f}"
    print(f"whole intervals above the published BSPM-EM ({target}): {'yes' if above else 'no'}")
    return result, common.check(MUSTS, {metric: result[OURS][metric]["value"] for metric in MUSTS})


def report(result: dict[str, Any]) -> None:
    """Print the table of measured results, then the quoted ones."""
    print(f"{'model':26s} {'recall@20':>26s} {'NDCG@20':>26s} {'published':>16s} {'seconds':>8s} {'MB':>7s}")
    for name, metrics in result.items():
        cells = [f"{metrics[m]['value']:.4f} [{metrics[m]['low']:.4f}, {metrics[m]['high']:.4f}]" for m in MUSTS]
        published = ENTRIES[name].published
        quoted = "" if published is None else f"{published[0]:.4f} / {published[1]:.4f}"
        cost = f"{metrics['seconds']['value']:8.1f} {metrics['peak_mb']['value']:7,.0f}"
        print(f"{name:26s} {cells[0]:>26s} {cells[1]:>26s} {quoted:>16s} {cost}")
    for metric in (m for m in result[OURS] if "seeds" in m):
        found = result[OURS][metric]
        print(f"{OURS}, {metric}: {found['value']:.4f}, from {found['low']:.4f} to {found['high']:.4f}")
    print(
        "quoted, not reproduced: "
        + " · ".join(f"{name} {recall:.4f} / {ndcg:.4f}" for name, (recall, ndcg) in PUBLISHED.items())
    )


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0])
    for name, kind in (("--model", str), ("--seed", int), ("--out", Path)):
        parser.add_argument(name, type=kind, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.model:
        child(arguments.model, arguments.seed, arguments.data, arguments.quick, arguments.out)
        return
    print(common.machine())
    results, checks = run(arguments.data, arguments.quick)
    common.finish({"gowalla": results}, checks, arguments.json)


if __name__ == "__main__":
    main()
