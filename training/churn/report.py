"""The evaluation of a churn model: metrics beside baselines, predicted against observed by risk band and by date."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from features.profiles.analytics.rates import rate
from models.classify.risk_bands import RiskBands
from qianmian.schema import RISK_BANDS
from training.churn.choice import Backtest, RecipeValidation
from training.churn.gains import HIGHEST
from training.churn.middle import ENOUGH, MIDDLE, mean_auc_difference
from training.churn.recipes import LOGISTIC, TREES
from training.churn.snapshots import Snapshots
from training.classify.evaluation import measure
from training.classify.slices import predicted_and_observed, slice_metrics
from training.report import EvalReport, Metrics

Floats = NDArray[np.float64]
MONTH_METRICS = ("auc", "brier", "ece")
DATE = "at "  # prefix of the slices of a date
BY_DATE = f", each by a model of then ({TREES.name}), the last by the one that is evaluated"  # `backtests`
RISK = " risk"  # suffix of the slices of a risk band
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
    return measure(y, p, probabilities, seed=0, rankings=rankings)


def by_band(y: NDArray[np.int64], p: Floats, risk_bands: RiskBands) -> dict[str, Metrics]:
    """Predicted and observed churn of the customers of each risk band that has some."""
    bands = np.asarray(risk_bands.of(p))
    return {
        f"{band}{RISK}": predicted_and_observed(y[bands == band], p[bands == band])
        for band in RISK_BANDS
        if (bands == band).any()
    }


def by_month(made: Sequence[Backtest], level: str) -> dict[str, Metrics]:
    """Predicted and observed churn at each past date, by a model of then with the level that was chosen.

    With AUC, Brier score and calibration error, if there are both outcomes.
    """
    found: dict[str, Metrics] = {}
    for one in made:
        p = one.predictions.get(level)
        if p is not None:
            found[f"{DATE}{one.as_of:%Y-%m-%d}"] = at_date(one.rows.y, p)
    return found


def at_date(y: NDArray[np.int64], p: Floats) -> Metrics:
    """Predicted and observed churn at one date, and how well the customers were told apart."""
    return slice_metrics(y, p, MONTH_METRICS, least=1)


def in_words(slices: Mapping[str, Metrics], outcome: str = "churn") -> tuple[str, ...]:
    """A line for each table of `slices`: risk bands, past dates, top shares, and the customers who are hard to tell.

    Parameters
    ----------
    outcome : {"churn", "left"}
        What is predicted.
    """
    share, did = ("churn", "churned") if outcome == "churn" else ("share that left", "left")
    dates = {name: found for name, found in slices.items() if name.startswith(DATE)}
    bands = {name: found for name, found in slices.items() if name.endswith(RISK)}
    titles = {"by risk band": bands, f"by date{BY_DATE}": dates}
    lines = [
        f"predicted against observed {share} {title}: {', '.join(_shares(name, part) for name, part in found.items())}"
        for title, found in titles.items()
        if found
    ]
    told = [f"{name.removeprefix(DATE)} {found['auc'].value:.3f}" for name, found in dates.items() if "auc" in found]
    if told:
        lines.append(f"AUC by date{BY_DATE}: {', '.join(told)}")
    lines += [
        f"the {name} of the customers: {found['precision'].value:.1%} of them {did}, {found['lift'].value:.1f} times "
        f"the base rate, and they are {found['recall'].value:.0%} of all who did"
        for name, found in slices.items()
        if name.startswith(HIGHEST)
    ]
    if MIDDLE in slices:
        found = slices[MIDDLE]
        ahead = ", ".join(
            f"{name.removeprefix('auc minus ')} {metric.value:+.3f} [{metric.low:+.3f}, {metric.high:+.3f}]"
            for name, metric in found.items()
            if name.startswith("auc minus ")
        )
        lines.append(f"{MIDDLE}, {found['auc'].n:,} customers: AUC {found['auc']}; ahead of {ahead}")
    return tuple(lines)


def _shares(name: str, found: Metrics) -> str:
    few = " (few)" if found["observed"].n < FEW else ""
    shares = f"{found['predicted'].value:.1%} against {found['observed'].value:.1%}"
    return f"{name.removeprefix(DATE)} {shares} of {found['observed'].n:,}{few}"


def returns_note(snapshots: Snapshots, days: int) -> tuple[str, ...]:
    """How many of those who churned came back all the same, at the last moment whose returns are known."""
    as_of = snapshots.end - timedelta(days=days)
    told = as_of >= snapshots.first and days > snapshots.horizon_days
    back = snapshots.came_back(as_of, days) if told else np.empty(0, dtype=bool)
    if not len(back):
        return ()
    share = rate(int(back.sum()), len(back))
    few = " (few)" if len(back) < FEW else ""
    return (
        f"churn is no purchase for {snapshots.horizon_days} days: of the {len(back):,} customers who churned at "
        f"{as_of:%Y-%m-%d}{few}, {share.value:.0%} [{share.low:.0%}, {share.high:.0%}] bought again within {days} days "
        "of that date; `train left` predicts who does not come back",
    )


def middle_note(validation: RecipeValidation | None, shipped: str, seed: int) -> tuple[str, ...]:
    """How far what ships is ahead of the short logistic regression in the slice, at the dates of the choice."""
    if validation is None or LOGISTIC.name not in validation.predictions or shipped == LOGISTIC.name:
        return ()
    hard = np.flatnonzero(validation.middle)
    days = np.unique(validation.days)
    y = validation.y[hard]
    counts = [int(y[validation.days[hard] == day].sum()) for day in days]
    sizes = [int((validation.days[hard] == day).sum()) for day in days]
    if any(min(count, size - count) < ENOUGH for count, size in zip(counts, sizes, strict=True)):
        return ()
    ahead = mean_auc_difference(
        y,
        validation.predictions[shipped][hard],
        validation.predictions[LOGISTIC.name][hard],
        validation.days[hard],
        validation.owners[hard],
        seed,
    )
    return (
        f"{MIDDLE}: AUC minus that of {LOGISTIC.name} {ahead}, mean of the {len(days)} dates on which the model was "
        f"chosen, over {ahead.n:,} customers",
    )


def month_curves(slices: Mapping[str, Metrics]) -> tuple[list[str], dict[str, list[float]]]:
    """Dates, and the predicted and the observed share at each, for a figure."""
    dates = [name for name in slices if name.startswith(DATE)]
    lines = {part: [slices[name][part].value for name in dates] for part in ("predicted", "observed")}
    return [name.removeprefix(DATE) for name in dates], lines
