"""The evaluation of a churn model: metrics beside baselines, predicted against observed by risk band and by date."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from features.profiles.analytics.rates import rate
from models.classify.risk_bands import risk_bands
from qianmian.schema import RISK_BANDS
from training.bootstrap import CLASSIFICATION, mean_metric, paired_difference, statistic_metric
from training.churn.choice import Backtest
from training.report import EvalReport, Metric, Metrics

Floats = NDArray[np.float64]
RANKING_METRICS, PROBABILITY_METRICS = ("auc", "average_precision"), ("brier", "log_loss")
DATE = "at "  # prefix of the slices of a date
FEW = 30  # customers of a group below which its share says little


def evaluate(
    y: NDArray[np.int64], p: Floats, rankings: Mapping[str, Floats], probabilities: Mapping[str, Floats]
) -> EvalReport:
    """Metrics of the model beside its baselines.

    Parameters
    ----------
    y : ndarray of int64, shape (n,)
        1 where the customer churned.
    p : ndarray of float64, shape (n,)
        Probabilities of the model.
    rankings : mapping of str to ndarray
        Baselines that only order the customers.
    probabilities : mapping of str to ndarray
        Baselines that are probabilities; a constant one has no order.
    """
    metrics = {name: statistic_metric(statistic, y, p) for name, statistic in CLASSIFICATION.items()}
    baselines: dict[str, dict[str, Metric]] = {}
    differences: dict[str, Metric] = {}
    for name, q in {**rankings, **probabilities}.items():
        orders = RANKING_METRICS if np.ptp(q) > 0 or name in rankings else ()
        measures = (*orders, *(PROBABILITY_METRICS if name in probabilities else ()))
        baselines[name] = {metric: statistic_metric(CLASSIFICATION[metric], y, q) for metric in measures}
        for metric in measures:
            if metric != "average_precision":
                differences[f"{metric}:{name}"] = paired_difference(CLASSIFICATION[metric], y, p, q)
    return EvalReport(metrics, baselines, differences)


def predicted_and_observed(y: NDArray[np.int64], p: Floats) -> dict[str, Metric]:
    """Mean prediction and churn rate of a group of customers, each with its 95 % interval."""
    left = rate(int(y.sum()), len(y))
    return {"predicted": mean_metric(p), "observed": Metric(left.value, left.low, left.high, left.n)}


def by_band(y: NDArray[np.int64], p: Floats, edges: Sequence[float]) -> dict[str, Metrics]:
    """Predicted and observed churn of the customers of each risk band that has some."""
    bands = np.asarray(risk_bands(p, edges))
    return {
        f"{band} risk": predicted_and_observed(y[bands == band], p[bands == band])
        for band in RISK_BANDS
        if (bands == band).any()
    }


def by_month(made: Sequence[Backtest], level: str) -> dict[str, Metrics]:
    """Predicted and observed churn at each past date, by a model of then with the level that was chosen."""
    found: dict[str, Metrics] = {}
    for one in made:
        p = one.predictions.get(level)
        if p is not None:
            found[f"{DATE}{one.as_of:%Y-%m-%d}"] = predicted_and_observed(one.rows.y, p)
    return found


def in_words(slices: Mapping[str, Metrics]) -> tuple[str, ...]:
    """A line for each table of `slices`: predicted against observed churn by risk band, and by date."""
    dates = {name: found for name, found in slices.items() if name.startswith(DATE)}
    bands = {name: found for name, found in slices.items() if name not in dates}
    titles = {"by risk band": bands, "by date, each by a model of then": dates}
    return tuple(
        f"predicted against observed churn {title}: {', '.join(_shares(name, part) for name, part in found.items())}"
        for title, found in titles.items()
        if found
    )


def _shares(name: str, found: Metrics) -> str:
    few = " (few)" if found["observed"].n < FEW else ""
    shares = f"{found['predicted'].value:.1%} against {found['observed'].value:.1%}"
    return f"{name.removeprefix(DATE)} {shares} of {found['observed'].n:,}{few}"


def month_curves(slices: Mapping[str, Metrics]) -> tuple[list[str], dict[str, list[float]]]:
    """Dates, and the predicted and the observed share at each, for a figure."""
    dates = [name for name in slices if name.startswith(DATE)]
    lines = {part: [slices[name][part].value for name in dates] for part in ("predicted", "observed")}
    return [name.removeprefix(DATE) for name in dates], lines
