"""Rates with confidence intervals for clustered data: the sessions of one customer are correlated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import ibis.expr.types as ir

Z_95 = 1.959964  # 95 %
NAN = float("nan")


@dataclass(frozen=True)
class Rate:
    """A share with its 95 % confidence interval.

    Attributes
    ----------
    value, low, high : float
        Share and bounds of the interval, 0 to 1; NaN if `n` is 0.
    n : int
        Number of trials.
    """

    value: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, Any]:
        """The rate as JSON-compatible data."""
        return asdict(self)

    def index(self, base: Rate) -> Rate:
        """Target group index: this share ÷ the share of all customers × 100, with the base treated as exact.

        Examples
        --------
        >>> round(rate(30, 100).index(rate(200, 1000)).value)
        150
        """
        if not base.value > 0:
            return Rate(NAN, NAN, NAN, self.n)
        value, low, high = (100.0 * part / base.value for part in (self.value, self.low, self.high))
        return Rate(value, low, high, self.n)

    @property
    def complement(self) -> Rate:
        """The complementary share, 1 − value."""
        return Rate(1.0 - self.value, 1.0 - self.high, 1.0 - self.low, self.n)


def rate(successes: float, trials: float, effective_n: float | None = None) -> Rate:
    """Share of successes with the Wilson score interval (Wilson 1927).

    Parameters
    ----------
    successes, trials : float
        Numbers of successes and of trials.
    effective_n : float, optional
        Effective sample size of correlated trials; default: `trials`.

    Examples
    --------
    >>> found = rate(1, 10)
    >>> round(found.low, 3), found.value, round(found.high, 3)
    (0.018, 0.1, 0.404)
    """
    if not trials:
        return Rate(NAN, NAN, NAN, 0)
    p, n = successes / trials, trials if effective_n is None else effective_n
    centre, spread = p + Z_95 * Z_95 / (2 * n), Z_95 * math.sqrt(p * (1 - p) / n + Z_95 * Z_95 / (4 * n * n))
    scale = 1 + Z_95 * Z_95 / n
    return Rate(p, max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale), round(trials))


def moments(name: str, y: ir.NumericValue, n: ir.NumericValue) -> dict[str, ir.Scalar]:
    """Aggregates that `rate_of` needs for one share: y successes of n trials per row, one row per customer."""
    y, n = y.cast("float64"), n.cast("float64")
    parts = {"y": y, "n": n, "yy": y * y, "yn": y * n, "nn": n * n}
    return {f"{name}_{part}": value.sum().fill_null(0.0) for part, value in parts.items()} | {
        f"{name}_m": (n > 0).sum().fill_null(0)
    }


def rate_of(name: str, row: Mapping[str, Any]) -> Rate:
    """The share of `moments`, with an interval that accounts for the correlation of the trials of a customer.

    The variance of the ratio estimator over customers gives the effective sample size (Kish 1965), with which the
    Wilson interval is computed. With one trial per customer this is the ordinary Wilson interval.
    """
    y, n, yy, yn, nn, customers = (float(row[f"{name}_{part}"]) for part in ("y", "n", "yy", "yn", "nn", "m"))
    if not n:
        return rate(0, 0)
    p = y / n
    variance = (yy - 2 * p * yn + p * p * nn) / (n * n)
    # with a share of 0 or 1 the correlation within a customer is unknown, so each customer counts as one trial
    effective_n = p * (1 - p) / variance if 0 < p < 1 and variance > 1e-15 else customers
    return rate(y, n, min(n, max(effective_n, 1.0)))
