"""Metrics of yes-or-no models, and the repeated cross-validation of a model of a snapshot table with its baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import RepeatedStratifiedKFold

from models.classify.column_encoding import ColumnEncoding
from training import plots
from training.bootstrap import CLASSIFICATION, Resampled, Statistic
from training.churn.gains import lift_at
from training.classify.choice import fit_best
from training.report import EvalReport, Metric, Metrics

Floats = NDArray[np.float64]
FOLDS, REPETITIONS = 5, 2
MANY_ROWS = 20_000  # from so many on, one repetition says enough
BINS = 10  # of a number, as a single column
PRIOR_ROWS = 5.0  # of the base rate, in the rate of a bin
BASE_RATE, SINGLE_COLUMN, PLAIN = "base rate", "best single column", "logistic regression"
GAIN_SHARES = tuple(share / 20 for share in range(21))


METRICS: Mapping[str, Statistic] = {
    **CLASSIFICATION,
    **{f"lift@{share:.0%}": lift_at(share) for share in (0.01, 0.05, 0.10)},
}
RANKING = ("auc", "average_precision", "lift@1%", "lift@5%", "lift@10%")
COMPARED = ("auc", "average_precision", "brier", "log_loss")


def measure(
    y: NDArray[np.int64],
    p: Floats,
    baselines: Mapping[str, Floats],
    seed: int,
    prefix: str = "",
    rankings: Mapping[str, Floats] = MappingProxyType({}),
) -> EvalReport:
    """Metrics of a model beside those of its baselines, with paired differences.

    Parameters
    ----------
    y : ndarray of int64, (n,)
    p : ndarray of float64, (n,) or (n, repetitions)
        Probabilities of the model.
    baselines : mapping of str to ndarray
        Probabilities of each baseline, of the same shape. A constant one, and the base rate, have no order.
    prefix : str
        Of the names of the metrics.
    rankings : mapping of str to ndarray, optional
        Scores of baselines that only order the customers.
    """
    own = {name: Resampled.of(METRICS[name], y, p, seed) for name in METRICS}
    beside: dict[str, dict[str, Metric]] = {}
    differences: dict[str, Metric] = {}
    for name, q in {**rankings, **baselines}.items():
        orders = name in rankings or (name != BASE_RATE and np.ptp(q) > 0)
        possible = [one for one in METRICS if (orders if one in RANKING else name in baselines)]
        theirs = {one: Resampled.of(METRICS[one], y, q, seed) for one in possible}
        beside[name] = {prefix + one: found.metric() for one, found in theirs.items()}
        for one in COMPARED:
            if one in possible:
                differences[f"{prefix}{one}:{name}"] = own[one].minus(theirs[one])
    return EvalReport({prefix + name: found.metric() for name, found in own.items()}, beside, differences)


def joined(reports: Sequence[EvalReport]) -> EvalReport:
    """One report of several outcomes, whose metrics have different prefixes."""
    metrics: dict[str, Metric] = {}
    differences: dict[str, Metric] = {}
    slices: dict[str, Metrics] = {}
    baselines: dict[str, Metrics] = {}
    for report in reports:
        metrics |= report.metrics
        differences |= report.differences
        slices |= report.slices
        for name, found in report.baselines.items():
            baselines[name] = {**baselines.get(name, {}), **found}
    return EvalReport(metrics, baselines, differences, slices)


@dataclass(frozen=True)
class CrossValidation:
    """Out-of-fold predictions for every row; whatever was chosen or fitted saw the training rows of its fold alone.

    Attributes
    ----------
    p : ndarray of float64, (n, repetitions)
        Of the model.
    baselines : dict of str to ndarray of float64, (n, repetitions)
    columns : ndarray of float64, (n, f)
        Of each single column, in the first repetition.
    chosen : tuple of str
        What shipped in each fold.
    test_folds : tuple of ndarray
        Test rows of each fold, one repetition after the other.
    """

    p: Floats
    baselines: dict[str, Floats]
    columns: Floats
    chosen: tuple[str, ...]
    test_folds: tuple[NDArray[np.int64], ...]


def cross_validate(
    X: NDArray[np.float32],
    y: NDArray[np.int64],
    categorical: Sequence[bool],
    seed: int,
    labels: NDArray[np.int64] | None = None,
) -> CrossValidation:
    """Predict every row by models that have not seen it, in repeated stratified folds.

    Parameters
    ----------
    X : ndarray of float32, (n, f)
    y : ndarray of int64, (n,)
        Labels, which stratify the folds.
    categorical : sequence of bool
    seed : int
    labels : ndarray of int64, (n,), optional
        Labels to learn from instead of `y`; for tests of the gate.
    """
    learnt = y if labels is None else labels
    repetitions = REPETITIONS if len(y) < MANY_ROWS else 1
    p = np.empty((len(y), repetitions))
    baselines = {name: np.empty_like(p) for name in (BASE_RATE, SINGLE_COLUMN, PLAIN)}
    columns, chosen, test_folds = np.empty((len(y), X.shape[1])), [], []
    folds = RepeatedStratifiedKFold(n_splits=FOLDS, n_repeats=repetitions, random_state=seed)
    for number, (train, test) in enumerate(folds.split(X, y)):
        at = number // FOLDS
        name, model = fit_best(X[train], learnt[train], None, categorical, seed)
        p[test, at] = model.predict_proba(X[test])[:, 1]
        rates = single_column_rates(X[train], learnt[train], X, categorical)
        best = int(np.argmin([CLASSIFICATION["log_loss"](learnt[train], rate[train]) for rate in rates.T]))
        baselines[BASE_RATE][test, at] = learnt[train].mean()
        baselines[SINGLE_COLUMN][test, at] = rates[test, best]
        baselines[PLAIN][test, at] = plain_logistic(X[train], learnt[train], X[test], categorical)
        if at == 0:
            columns[test] = rates[test]
        chosen.append(name)
        test_folds.append(test)
    return CrossValidation(p, baselines, columns, tuple(chosen), tuple(test_folds))


def single_column_rates(
    X: NDArray[np.float32], y: NDArray[np.int64], rows: NDArray[np.float32], categorical: Sequence[bool]
) -> Floats:
    """The rate of yes in `y` among the training rows `X` with the same category or decile, for each column, (m, f)."""
    found = np.empty(rows.shape)
    for j, is_category in enumerate(categorical):
        known = X[np.isfinite(X[:, j]), j]
        edges = (
            np.unique(known)
            if is_category
            else np.unique(np.quantile(known, np.arange(1, BINS) / BINS))
            if len(known)
            else known
        )
        missing = len(edges) + 1
        own, other = (
            np.where(np.isfinite(values), np.searchsorted(edges, values, side="right"), missing)
            for values in (X[:, j], rows[:, j])
        )
        counts = np.bincount(own, minlength=missing + 1)
        yes = np.bincount(own, weights=y, minlength=missing + 1)
        found[:, j] = ((yes + PRIOR_ROWS * y.mean()) / (counts + PRIOR_ROWS))[other]
    return found


def plain_logistic(
    X: NDArray[np.float32], y: NDArray[np.int64], rows: NDArray[np.float32], categorical: Sequence[bool]
) -> Floats:
    """Probabilities of scikit-learn's logistic regression on standardised numbers and indicators, as a baseline."""
    encoding = ColumnEncoding.of(X, categorical)
    columns = encoding.tree_columns(X).astype(np.float64)
    known = np.isfinite(columns)
    middle = np.where(known, columns, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    filled = np.where(known, columns, middle)
    scale = np.where(filled.std(axis=0) > 0, filled.std(axis=0), 1.0)
    model = LogisticRegression(max_iter=1000).fit((filled - middle) / scale, y)
    later = encoding.tree_columns(rows).astype(np.float64)
    found = model.predict_proba((np.where(np.isfinite(later), later, middle) - middle) / scale)
    return np.asarray(found[:, 1], dtype=np.float64)


def gains(y: NDArray[np.int64], predictions: Mapping[str, Floats], title: str) -> Figure:
    """Share of all yes among the customers with the highest predictions, against the share of customers."""
    lines = {}
    for name, p in predictions.items():
        hits = np.concatenate([[0], np.cumsum(y[np.argsort(-p, kind="stable")])])
        lines[name] = [float(hits[round(share * len(y))] / hits[-1]) for share in GAIN_SHARES]
    lines["at random"] = list(GAIN_SHARES)
    return plots.curves(list(GAIN_SHARES), lines, "share of customers", "share of all yes", title)
