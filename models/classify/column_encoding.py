"""`ColumnEncoding`: the columns that a classifier reads, made of numbers, codes of categories and missing values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

MIN_LEVEL_ROWS = 20  # a category of fewer rows says nothing by itself, and could name a single customer
MAX_LEVELS = 50  # of one column: the most frequent ones
KNOT_QUANTILES = (0.2, 0.4, 0.6, 0.8)
MIN_DISTINCT_FOR_KNOTS = 10


@dataclass(frozen=True)
class ColumnEncoding:
    """How the f source columns become those of the trees and those of the logistic regression.

    A source column is a number, in which NaN is a missing value, or a category as its code; a code that is no level
    (such as −1) is a missing value. Each frequent level has an indicator. The trees read the numbers as they are. For
    the logistic regression a number is a linear spline of its signed logarithm: the curve of a count or amount bends,
    and few pieces are enough (Hastie, Tibshirani & Friedman 2009, section 5.2). A missing number has the mean and an
    indicator.

    Attributes
    ----------
    levels : tuple of tuple of int
        For each source column the codes that have an indicator; None for a number.
    knots : tuple of tuple of float
        For each source column the knots of the spline of its logarithm; empty for a category.
    middles : tuple of float
        For each source column the mean of the logarithm, which stands for a missing number.
    has_missing : tuple of bool
        Whether a number was missing in the rows that the encoding was made from.
    """

    levels: tuple[tuple[int, ...] | None, ...]
    knots: tuple[tuple[float, ...], ...]
    middles: tuple[float, ...]
    has_missing: tuple[bool, ...]

    @classmethod
    def of(cls, X: NDArray[np.float32], categorical: Sequence[bool]) -> Self:
        """Return the encoding for the training rows `X` of shape (n, f); `categorical` says which columns are codes."""
        levels: list[tuple[int, ...] | None] = []
        knots: list[tuple[float, ...]] = []
        middles, has_missing = [], []
        for values, is_category in zip(X.T, categorical, strict=True):
            known = values[np.isfinite(values)].astype(np.float64)
            if is_category:
                codes, counts = np.unique(known[(known >= 0) & (known == np.round(known))], return_counts=True)
                frequent = np.sort(np.argsort(-counts, kind="stable")[:MAX_LEVELS])
                levels.append(tuple(int(codes[i]) for i in frequent if counts[i] >= MIN_LEVEL_ROWS))
                knots.append(())
                middles.append(0.0)
                has_missing.append(False)
                continue
            logs = _logs(known)
            levels.append(None)
            knots.append(_knots(logs))
            middles.append(float(logs.mean()) if len(logs) else 0.0)
            has_missing.append(len(known) < len(values))
        return cls(tuple(levels), tuple(knots), tuple(middles), tuple(has_missing))

    def tree_columns(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the numbers as they are and the indicators of the levels, float32, (n, columns)."""
        parts = [
            values[:, None] if levels is None else _indicators(values, levels)
            for values, levels in zip(X.T, self.levels, strict=True)
        ]
        return np.concatenate(parts, axis=1).astype(np.float32)

    def tree_sources(self) -> NDArray[np.int64]:
        """Return the source column of each of the `tree_columns`."""
        sizes = [1 if levels is None else len(levels) for levels in self.levels]
        return np.repeat(np.arange(len(sizes)), sizes)

    def linear_columns(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the pieces of the splines and the indicators, float64, (n, columns)."""
        return np.concatenate([self._linear_part(j, X[:, j]) for j in range(X.shape[1])], axis=1)

    def linear_sources(self) -> NDArray[np.int64]:
        """Return the source column of each of the `linear_columns`."""
        sizes = [
            1 + len(self.knots[j]) + self.has_missing[j] if levels is None else len(levels)
            for j, levels in enumerate(self.levels)
        ]
        return np.repeat(np.arange(len(sizes)), sizes)

    def _linear_part(self, j: int, values: NDArray[np.float32]) -> NDArray[np.float64]:
        levels = self.levels[j]
        if levels is not None:
            return _indicators(values, levels)
        missing = ~np.isfinite(values)
        logs = np.where(missing, self.middles[j], _logs(np.where(missing, 0, values).astype(np.float64)))
        pieces = [logs, *(np.maximum(logs - knot, 0.0) for knot in self.knots[j])]
        return np.column_stack([*pieces, missing.astype(np.float64)] if self.has_missing[j] else pieces)

    def as_dict(self) -> dict[str, Any]:
        """Return the encoding as plain values for JSON."""
        return {name: list(getattr(self, name)) for name in ("levels", "knots", "middles", "has_missing")}

    @classmethod
    def from_dict(cls, described: dict[str, Any]) -> Self:
        """Return the encoding that `as_dict` described."""
        return cls(
            tuple(None if levels is None else tuple(levels) for levels in described["levels"]),
            tuple(tuple(knots) for knots in described["knots"]),
            tuple(described["middles"]),
            tuple(described["has_missing"]),
        )


def _logs(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.sign(values) * np.log1p(np.abs(values)), dtype=np.float64)


def _knots(logs: NDArray[np.float64]) -> tuple[float, ...]:
    """Inner knots at quantiles of the known values; none for a number of few values."""
    if len(distinct := np.unique(logs)) < MIN_DISTINCT_FOR_KNOTS:
        return ()
    found = np.unique(np.quantile(logs, KNOT_QUANTILES))
    return tuple(float(knot) for knot in found if distinct[0] < knot < distinct[-1])


def _indicators(values: NDArray[np.float32], levels: tuple[int, ...]) -> NDArray[np.float64]:
    return np.asarray(values[:, None] == np.asarray(levels, dtype=np.float32)[None, :], dtype=np.float64)
