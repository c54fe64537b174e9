"""How well lookalikes find hidden members of segments, beside simple rankings, by the number of seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from models.parallel import one_blas_thread
from training.bootstrap import CLASSIFICATION, mean_metric
from training.report import EvalReport, Metric

SEED_SIZES = (25, 50, 100, 200, 400)
REPEATS = 3
REACH_SHARES = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5])
MODEL, RANDOM, RFM = "lookalike", "random", "rfm"
CENTROID, LOGISTIC = "seed centroid", "logistic regression, random negatives"
METRICS = ("auc", "average_precision", "lift@1%", "lift@5%", "lift@10%", "recall@1%", "recall@5%", "recall@10%")

RowIndices = NDArray[np.int64]
Scorer = Callable[[RowIndices], NDArray[Any]]  # rows of the seed → a score of each customer, (n,)
Curve = list[tuple[float, float]]


def baselines(
    space: NDArray[np.float32], rfm: NDArray[np.float64] | None, rng: np.random.Generator
) -> dict[str, Scorer]:
    """Simple rankings: by chance, distance to the seed's centroid (of recency, frequency and money; of all
    columns), and scikit-learn's logistic regression (C = 1) of the seed against four random others for each.

    Parameters
    ----------
    space : ndarray of float32, (n, d)
        Standardised columns of the customers.
    rfm : ndarray of float64, (n, 3), optional
    rng : Generator
    """
    n = len(space)

    def logistic(seeds: RowIndices) -> NDArray[np.float64]:
        others = np.setdiff1d(np.arange(n), seeds)
        rows = np.concatenate([seeds, rng.choice(others, min(len(others), 4 * len(seeds)), replace=False)])
        with one_blas_thread():  # for matrices of this size, two threads take six times longer
            classifier = LogisticRegression(C=1.0, max_iter=300).fit(space[rows], np.isin(rows, seeds))
        return np.asarray(classifier.decision_function(space))

    def centroid(columns: NDArray[Any]) -> Scorer:
        return lambda seeds: -np.linalg.norm(columns - columns[seeds].mean(axis=0), axis=1)

    found: dict[str, Scorer] = {RANDOM: lambda seeds: rng.random(n), CENTROID: centroid(space), LOGISTIC: logistic}
    return found if rfm is None else {**found, RFM: centroid(rfm)}


def ranking_metrics(scores: NDArray[Any], truth: NDArray[np.bool_]) -> dict[str, float]:
    """AUC, average precision, and lift and recall at 1, 5 and 10 % of the customers; (m,) each."""
    found = _found(scores, truth)
    shares = {share: found[max(1, int(share * len(found))) - 1] for share in (0.01, 0.05, 0.1)}
    y, p = truth.astype(np.int64), np.asarray(scores, dtype=np.float64)
    return {
        "auc": CLASSIFICATION["auc"](y, p),
        "average_precision": CLASSIFICATION["average_precision"](y, p),
        **{f"lift@{share:.0%}": float(recall) / share for share, recall in shares.items()},
        **{f"recall@{share:.0%}": float(recall) for share, recall in shares.items()},
    }


def reach_curve(scores: NDArray[Any], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of the hidden members among the best `REACH_SHARES` of the customers."""
    found = _found(scores, truth)
    return np.asarray(found[np.maximum(1, (REACH_SHARES * len(found)).astype(int)) - 1])


def _found(scores: NDArray[Any], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.asarray(truth[np.argsort(-scores, kind="stable")].cumsum() / truth.sum())


def evaluate(
    scorers: Mapping[str, Scorer], segments: Mapping[str, RowIndices], n: int, seed: int, *, shuffle: bool = False
) -> tuple[EvalReport, dict[str, Curve], dict[str, NDArray[np.float64]]]:
    """Hide half of each segment, and look for it with the other half, and with seeds of fixed sizes drawn from that.

    Members of the other half that are no seeds count as hidden: they are what is looked for. Every interval is over
    segments, because repeats of one segment are not independent.

    Parameters
    ----------
    scorers : mapping
        `MODEL` and what it is compared with, by name.
    segments : mapping
        Segment → rows of its members.
    n : int
        Number of customers.
    shuffle : bool
        Give the model random seeds, to test the gate.

    Returns
    -------
    report : EvalReport
        Metrics of half a segment, and average precision and lift by number of seeds (``average_precision@25 seeds``).
    curves : dict of str to list
        Reach of each ranking.
    precision : dict of str to ndarray
        Average precision of each ranking by segment, mean of the repeats.
    """
    rng = np.random.default_rng(seed)
    values: dict[str, dict[str, dict[str, list[float]]]] = {name: {} for name in scorers}  # metric → segment → repeats
    reached: dict[str, list[NDArray[np.float64]]] = {name: [] for name in scorers}
    for segment, members in segments.items():
        for _ in range(REPEATS):
            shuffled = rng.permutation(members)
            given = shuffled[: len(members) // 2]
            sizes = [size for size in SEED_SIZES if size < len(given)]
            for size in [*sizes, len(given)]:
                seeds = given[:size]
                fit_seeds = rng.choice(n, size, replace=False) if shuffle else seeds
                rest = np.setdiff1d(np.arange(n), np.union1d(seeds, fit_seeds))
                truth = np.isin(rest, members)
                for name, scorer in scorers.items():
                    scores = scorer(fit_seeds if name == MODEL else seeds)[rest]
                    found = ranking_metrics(scores, truth)
                    if size < len(given):
                        found = {f"{m}@{size} seeds": found[m] for m in ("average_precision", "lift@5%")}
                    else:
                        reached[name].append(reach_curve(scores, truth))
                    for metric, value in found.items():
                        values[name].setdefault(metric, {}).setdefault(segment, []).append(value)
    by_segment = {
        name: {metric: np.array([np.mean(one) for one in found.values()]) for metric, found in metrics.items()}
        for name, metrics in values.items()
    }
    metrics = {name: {metric: mean_metric(found) for metric, found in one.items()} for name, one in by_segment.items()}
    differences = {
        f"{metric}:{name}": mean_metric(by_segment[MODEL][metric] - found[metric])
        for name, found in by_segment.items()
        if name != MODEL
        for metric in found
        if metric.startswith("average_precision")
    }
    slices: dict[str, dict[str, Metric]] = {
        segment: {"auc": mean_metric(np.array(repeats))} for segment, repeats in values[MODEL]["auc"].items()
    }
    compared = {name: found for name, found in metrics.items() if name != MODEL}
    curves = {
        name: list(zip(REACH_SHARES.tolist(), np.mean(found, axis=0).tolist(), strict=True))
        for name, found in reached.items()
    }
    precision = {name: found["average_precision"] for name, found in by_segment.items()}
    return EvalReport(metrics[MODEL], compared, differences, slices), curves, precision
