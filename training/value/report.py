"""The evaluation of a value model: errors beside baselines, coverage of the intervals, predicted against observed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.profiles.purchase_process.process import PurchaseProcess
from features.profiles.tags.lifecycle import EARLIEST, LATEST
from models.bundle import ModelBundle
from models.value.columns import by_name
from models.value.intervals import coverage
from models.value.value_model import BG_NBD, MONEY, ORDERS, TREES, PredictedValue, ValueModel
from training.bootstrap import CLASSIFICATION, bootstrap_means, mean_metric, percentile_interval, statistic_metric
from training.comparison import LossComparison, columns_for
from training.report import EvalReport, Metric
from training.value.rows import ValueRows

PURCHASE = "purchase"  # whether there is an order at all: a share beside the totals
LAST_AGAIN, EVERYBODY = "the last horizon again", "the mean"  # baselines
DECILES = 10
LEAST_FOLLOWED = 50  # customers whose next order can be compared with its interval
Floats = NDArray[np.float64]


def evaluate(
    model: ValueModel, rows: ValueRows, last: Mapping[str, Floats], means: Mapping[str, float], seed: int
) -> EvalReport:
    """Metrics of a model and its baselines on the totals of the customers at the test date.

    The difference `squared_error` is the sum over orders and money of the squared errors, each ÷ its mean for the last
    horizon again.

    Parameters
    ----------
    model : ValueModel
        Fitted on what was known at the test date.
    rows : ValueRows
        The n customers at the test date, and what they did afterwards.
    last : mapping of str to ndarray, each of shape (n,)
        Totals of the days before the test date, as many as are predicted.
    means : mapping of str to float
        Mean totals of the rows that were learnt from, and the share of those with an order (`PURCHASE`).
    """
    found = model.predict(rows.X)
    predicted = {ORDERS: found.orders, **({MONEY: found.money} if found.money is not None else {})}
    others: dict[str, dict[str, Floats]] = {
        LAST_AGAIN: {what: last[what] for what in predicted},
        EVERYBODY: {what: np.full(len(rows), means[what]) for what in predicted},
    }
    if model.counts is not None:
        others[BG_NBD] = {what: model.expected(rows.X, what, BG_NBD) for what in predicted}
    if all(total.booster is not None for total in model.totals.values()):
        others[TREES] = {what: model.expected(rows.X, what, TREES) for what in predicted}
    own = _errors(predicted, rows)
    metrics = {name: mean_metric(values, seed) for name, values in own.items()}
    metrics |= _roots(own, seed)
    of_others, differences = {}, {}
    scales = {name: max(float(np.mean(values)), 1e-12) for name, values in _errors(others[LAST_AGAIN], rows).items()}
    for name, predictions in others.items():
        errors = _errors(predictions, rows)
        of_others[name] = {**{key: mean_metric(values, seed) for key, values in errors.items()}, **_roots(errors, seed)}
        for what in predicted:
            key = f"squared_error_{what}"
            differences[f"{key}:{name}"] = mean_metric(own[key] - errors[key], seed)
            differences[f"mae_{what}:{name}"] = mean_metric(own[f"mae_{what}"] - errors[f"mae_{what}"], seed)
        keys = [f"squared_error_{what}" for what in predicted]
        relative = np.sum([(own[key] - errors[key]) / scales[key] for key in keys], axis=0)
        differences[f"squared_error:{name}"] = mean_metric(relative, seed)
    for what in predicted:
        of_last = _errors(others[LAST_AGAIN], rows)[f"mae_{what}"]
        metrics[f"mae_ratio_{what}"] = ratio(own[f"mae_{what}"], of_last, seed)
        metrics[f"bias_{what}"] = ratio(predicted[what] - rows.totals[what], rows.totals[what], seed)
    metrics |= covered(found, rows, seed)
    bought = (rows.totals[ORDERS] > 0).astype(np.int64)
    p = found.purchase_probability
    metrics |= {
        "brier_purchase": mean_metric((p - bought) ** 2, seed),
        "bias_purchase": ratio(p - bought, bought.astype(np.float64), seed),
    }
    metrics["ece_purchase"] = statistic_metric(CLASSIFICATION["ece"], bought, p, seed)
    of_others[EVERYBODY]["brier_purchase"] = mean_metric((means[PURCHASE] - bought) ** 2, seed)
    deciles = by_decile(predicted | {PURCHASE: p}, rows.totals | {PURCHASE: bought}, seed)
    kept = {name: one for name, one in metrics.items() if not name.startswith("squared_error")}
    shown = {
        name: {key: one for key, one in part.items() if not key.startswith("squared_error")}
        for name, part in of_others.items()
    }
    return EvalReport(kept, shown, differences, deciles)


def comparison_of(
    model: ValueModel, rows: ValueRows, last: Mapping[str, Floats], features: Sequence[str], start: datetime
) -> LossComparison:
    """The squared errors of each customer, orders and money each ÷ its mean for the last horizon again.

    Parameters
    ----------
    model, rows, last
        As of `evaluate`.
    features : sequence of str
        Columns of the rows.
    start : datetime
        The test date.
    """
    whats = tuple(model.totals)
    scales = {what: max(float(np.mean((last[what] - rows.totals[what]) ** 2)), 1e-12) for what in whats}

    def of(other: ValueModel, X: NDArray[np.float32]) -> Floats:
        if set(whats) - set(other.totals):
            return np.full(len(rows), np.nan)  # without money
        errors = [(other.expected(X, what) - rows.totals[what]) ** 2 / scales[what] for what in whats]
        return np.asarray(np.sum(errors, axis=0))

    def losses(bundle: ModelBundle) -> Floats:
        read = columns_for(bundle, bundle.model.features, features)
        return of(bundle.model.within(model.horizon_days), rows.X[:, read])

    one_order = rows.X[:, list(features).index("orders_total")] <= 1
    slices = {"customers with one order": one_order, "customers with more orders": ~one_order}
    return LossComparison("squared_error", start, of(model, rows.X), losses, slices)


def _errors(predicted: Mapping[str, Floats], rows: ValueRows) -> dict[str, Floats]:
    found = {}
    for what, values in predicted.items():
        error = values - rows.totals[what]
        found[f"mae_{what}"], found[f"squared_error_{what}"] = np.abs(error), error**2
    return found


def _roots(errors: Mapping[str, Floats], seed: int) -> dict[str, Metric]:
    """Root mean squared errors, with the roots of the bounds."""
    found = {}
    for name, values in errors.items():
        if name.startswith("squared_error_"):
            one = mean_metric(values, seed)
            value, low, high = np.sqrt([one.value, one.low, one.high]).tolist()
            found[name.replace("squared_error", "rmse")] = Metric(value, low, high, one.n)
    return found


def ratio(values: Floats, base: Floats, seed: int) -> Metric:
    """Mean of one value ÷ mean of another of the same customers, with the interval of paired resamples."""
    means = bootstrap_means(np.column_stack([values, base]), seed)
    if not base.mean():
        return Metric(float("nan"), float("nan"), float("nan"), len(base))
    bases = np.where(means[:, 1] != 0, means[:, 1], np.nan)
    return percentile_interval(float(values.mean() / base.mean()), means[:, 0] / bases, len(values))


def covered(found: PredictedValue, rows: ValueRows, seed: int) -> dict[str, Metric]:
    """Share of the customers whose total lies in its 80 % interval."""
    inside = {"coverage_80": coverage(rows.totals[ORDERS], found.orders_low, found.orders_high)}
    if found.money_low is not None and found.money_high is not None:
        inside["coverage_80_money"] = coverage(rows.totals[MONEY], found.money_low, found.money_high)
    return {name: mean_metric(values.astype(np.float64), seed) for name, values in inside.items()}


def by_decile(
    predicted: Mapping[str, Floats], observed: Mapping[str, NDArray[Any]], seed: int
) -> dict[str, dict[str, Metric]]:
    """Predicted against observed, by tenths of the customers from the lowest prediction to the highest."""
    found: dict[str, dict[str, Metric]] = {}
    for what, values in predicted.items():
        for number, group in enumerate(np.array_split(np.argsort(values, kind="stable"), DECILES), 1):
            part = found.setdefault(f"decile {number}", {})
            part[f"predicted_{what}"] = mean_metric(values[group], seed)
            part[f"observed_{what}"] = mean_metric(observed[what][group].astype(np.float64), seed)
    return found


def next_order_coverage(
    process: PurchaseProcess, rows: ValueRows, names: tuple[str, ...], followed_days: float, seed: int
) -> Metric | None:
    """Share of the next orders that came within their 80 % interval, of the tags `next_order_earliest` and `_latest`.

    Of the customers whose interval ends within the days that are known, so that everybody's outcome is. None if these
    are too few.
    """
    columns = by_name(rows.X, names)
    low, high = (process.days_to_order(columns, probability) for probability in (EARLIEST, LATEST))
    known = high <= followed_days
    if known.sum() < LEAST_FOLLOWED:
        return None
    wait = rows.days_to_next[known]
    return mean_metric(((wait >= low[known]) & (wait <= high[known])).astype(np.float64), seed)


def in_words(report: EvalReport, learned_days: int, next_order: Metric | None) -> tuple[str, ...]:
    """What a reader of the report must know: how good the expectations, the intervals and the dates are."""
    found = []
    for what, name in ((ORDERS, "orders"), (MONEY, "money")):
        if f"mae_{what}" not in report.metrics:
            continue
        mae, share = report.metrics[f"mae_{what}"].value, report.metrics[f"mae_ratio_{what}"]
        bias = report.metrics[f"bias_{what}"].value
        inside = report.metrics["coverage_80" if what == ORDERS else "coverage_80_money"].value
        found.append(
            f"{name} of {learned_days} days: mean absolute error {mae:.4g}, {share} × that of {LAST_AGAIN}; "
            f"all customers together {bias:+.1%}; the 80 % interval contained {inside:.1%}"
        )
    brier, of_all = (part["brier_purchase"].value for part in (report.metrics, report.baselines[EVERYBODY]))
    found.append(
        f"at least one order within {learned_days} days: Brier score {brier:.4f}, that of one share for everybody "
        f"{of_all:.4f}; all customers together {report.metrics['bias_purchase'].value:+.1%}"
    )
    if next_order is None:
        found.append("date of the next order: too few intervals ended within the test period to test them")
    else:
        found.append(
            f"date of the next order: the 80 % interval contained {next_order.value:.1%} of the {next_order.n:,} next "
            "orders whose interval ended within the test period"
        )
    return tuple(found)
