"""Histograms of columns by whole days: what a bundle keeps of the customers at its training, to compare others with.

They are counts and sums over many customers. No id and no text is in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.persist import load_arrays, save_arrays

BINS = 10  # of a column with more distinct values; fewer values have a bin each
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DayHistograms:
    """Histograms of c columns in w windows that are divided into u units, each of whole days before the end.

    Attributes
    ----------
    days : ndarray of float64, shape (w,)
        End of each window in days since 1970, the latest first.
    bounds : ndarray of float64, shape (u − 1,)
        Days before the end at which the second and the further units begin.
    edges : ndarray of float64, shape (c, BINS + 1)
        Upper bounds of the bins of each column but the last bin; NaN behind them.
    counts : ndarray of float64, shape (w, u, c, BINS + 2)
        Rows of each bin.
    sums, squares : ndarray of float64, shape (w, u, c)
        Sum of the values, and of their squares.
    """

    days: Floats
    bounds: Floats
    edges: Floats
    counts: Floats
    sums: Floats
    squares: Floats

    @property
    def rows(self) -> Floats:
        """Number of rows by window, unit and column, shape (w, u, c)."""
        return np.asarray(self.counts.sum(axis=3))

    def take(self, windows: Sequence[int], columns: Sequence[int]) -> DayHistograms:
        """Some of the windows and columns."""
        at = np.ix_(np.asarray(windows), np.arange(self.sums.shape[1]), np.asarray(columns))
        return DayHistograms(
            self.days[list(windows)],
            self.bounds,
            self.edges[list(columns)],
            self.counts[at],
            self.sums[at],
            self.squares[at],
        )

    def save(self, path: Path) -> None:
        """Write the histograms to an npz file; counts as float32, which has those up to 16 million exactly."""
        arrays = {name: getattr(self, name) for name in self.__dataclass_fields__}
        save_arrays(path, {**arrays, "counts": self.counts.astype(np.float32)})

    @classmethod
    def load(cls, path: Path) -> DayHistograms:
        """Read what `save` wrote."""
        arrays = load_arrays(path)
        return cls(**{name: arrays[name].astype(np.float64) for name in cls.__dataclass_fields__})


def bin_edges(values: Floats) -> Floats:
    """Bounds of the bins of one column, shape (BINS + 1,), NaN behind the last.

    Up to `BINS` distinct values have a bin each, between one for lower and one for higher values, so that a constant
    column that moves is seen. More values are divided at their deciles.

    Parameters
    ----------
    values : ndarray of float64, shape (n,)
        The column in the reference; NaN is left out.

    Examples
    --------
    >>> bin_edges(np.array([0.0, 1.0, 1.0]))[:3].round(2).tolist()
    [0.0, 0.5, 1.0]
    """
    distinct = np.unique(values[np.isfinite(values)])
    if not len(distinct):
        found = np.empty(0)
    elif len(distinct) <= BINS:
        middles = (distinct[1:] + distinct[:-1]) / 2
        found = np.concatenate([distinct[:1], middles, np.nextafter(distinct[-1:], np.inf)])
    else:
        found = np.unique(np.nanquantile(values, np.arange(1, BINS) / BINS))
    return np.pad(found, (0, BINS + 1 - len(found)), constant_values=np.nan)


def histogram(values: Floats, units: NDArray[np.int64], n_units: int, edges: Floats) -> tuple[Floats, Floats, Floats]:
    """Counts, sums and sums of squares of the rows of one window, by unit and column.

    Parameters
    ----------
    values : ndarray of float64, shape (n, c)
        NaN is left out.
    units : ndarray of int64, shape (n,)
        Unit of each row.
    n_units : int
    edges : ndarray of float64, shape (c, BINS + 1)

    Returns
    -------
    counts : ndarray of float64, shape (n_units, c, BINS + 2)
    sums, squares : ndarray of float64, shape (n_units, c)
    """
    columns = values.shape[1]
    counts = np.zeros((n_units, columns, BINS + 2))
    sums, squares = np.zeros((n_units, columns)), np.zeros((n_units, columns))
    for j in range(columns):
        known = np.isfinite(values[:, j])
        column, unit = values[known, j], units[known]
        place = np.searchsorted(edges[j][np.isfinite(edges[j])], column, side="right")
        size = n_units * (BINS + 2)
        counts[:, j] = np.bincount(unit * (BINS + 2) + place, minlength=size).reshape(n_units, BINS + 2)
        sums[:, j] = np.bincount(unit, column, minlength=n_units)
        squares[:, j] = np.bincount(unit, column**2, minlength=n_units)
    return counts, sums, squares


def unit_bounds(days: Floats, n_units: int) -> Floats:
    """Bounds of at most `n_units` units of whole days with about equally many rows.

    Parameters
    ----------
    days : ndarray of float64, shape (n,)
        Days of each row before the end of its window.
    n_units : int

    Examples
    --------
    >>> unit_bounds(np.array([0.5, 0.7, 1.2, 1.4, 2.0, 7.0]), 3).tolist()
    [1.0, 2.0]
    """
    whole = np.floor(days)
    bounds = np.unique(np.quantile(whole, np.arange(1, n_units) / n_units, method="higher"))
    return np.asarray(bounds[bounds > whole.min()], dtype=np.float64)


def day_histograms(
    windows: Sequence[tuple[float, Floats, Floats]], n_units: int, like: DayHistograms | None = None
) -> DayHistograms:
    """The histograms of the rows of several windows.

    Parameters
    ----------
    windows : sequence of (float, ndarray of shape (n, c), ndarray of shape (n,))
        End of the window in days since 1970, values, and days of each row before the end.
    n_units : int
        Most units.
    like : DayHistograms, optional
        Histograms whose units and bins are used; default: those of the rows of all windows together.
    """
    if like is None:
        together = np.concatenate([values for _, values, _ in windows])
        edges = np.array([bin_edges(column) for column in together.T]).reshape(-1, BINS + 1)
        bounds = unit_bounds(np.concatenate([days for _, _, days in windows]), n_units)
    else:
        edges, bounds = like.edges, like.bounds
    made = [
        histogram(values, np.searchsorted(bounds, np.floor(days), side="right"), len(bounds) + 1, edges)
        for _, values, days in windows
    ]
    counts, sums, squares = (np.array(part) for part in zip(*made, strict=True))
    return DayHistograms(np.array([end for end, _, _ in windows]), bounds, edges, counts, sums, squares)
