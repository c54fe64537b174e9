"""Figures logged to MLflow runs, drawn without a display and without the global state of pyplot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray


def curves(
    x: Sequence[float] | Sequence[str], lines: Mapping[str, Sequence[float]], x_label: str, y_label: str, title: str
) -> Figure:
    """One labelled line per name over shared x values."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, values in lines.items():
        axes.plot(x, values, marker="o", markersize=3, label=name)
    axes.set(xlabel=x_label, ylabel=y_label, title=title, ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def calibration_curve(y: NDArray[np.int64], p: NDArray[np.float64], title: str, bins: int = 10) -> Figure:
    """Observed share against mean prediction in bins of equal size, with binomial 95 % error bars."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    groups = [group for group in np.array_split(np.argsort(p, kind="stable"), bins) if len(group)]
    predicted, observed = (np.array([values[group].mean() for group in groups]) for values in (p, y))
    spread = 1.96 * np.sqrt(observed * (1 - observed) / np.array([len(group) for group in groups]))
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1, label="perfectly calibrated")
    axes.errorbar(predicted, observed, yerr=spread, marker="o", capsize=2, label="model")
    top = float(max(predicted.max(), (observed + spread).max()) * 1.1)
    axes.set(xlabel="predicted probability", ylabel="observed share", title=title, xlim=(0, top), ylim=(0, top))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def observed_by_predicted(
    predicted: NDArray[np.float64],
    observed: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    label: str,
    title: str,
    groups: int = 10,
) -> Figure:
    """Mean predicted and observed totals by groups of equal size, and the mean bounds of the intervals.

    Parameters
    ----------
    predicted, observed, low, high : ndarray, shape (n,)
    label : str
        What the totals are.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    parts = [part for part in np.array_split(np.argsort(predicted, kind="stable"), groups) if len(part)]
    x = np.arange(1, len(parts) + 1)
    means = {name: [values[part].mean() for part in parts] for name, values in (("low", low), ("high", high))}
    axes.fill_between(x, means["low"], means["high"], alpha=0.2, label="80 % interval, mean bounds")
    axes.plot(x, [predicted[part].mean() for part in parts], marker="o", markersize=3, label="predicted")
    axes.plot(x, [observed[part].mean() for part in parts], marker="s", markersize=3, label="observed")
    axes.set(xlabel="customers, from the lowest prediction to the highest", ylabel=label, title=title, ylim=(0, None))
    axes.set_xticks(x, [f"{number}" for number in x])
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def bars(values: Mapping[str, float], x_label: str, title: str, max_count: int = 20) -> Figure:
    """Horizontal bars of the `max_count` largest values, the largest on top."""
    top = sorted(values.items(), key=lambda item: item[1])[-max_count:]
    figure = Figure(figsize=(7, 0.28 * len(top) + 1.2), layout="constrained")
    axes = figure.subplots()
    axes.barh([name for name, _ in top], [value for _, value in top])
    axes.set(xlabel=x_label, title=title)
    axes.grid(alpha=0.3, axis="x")
    return figure


def beeswarm(
    contributions: NDArray[np.float32],
    X: NDArray[np.float32],
    names: Sequence[str],
    title: str,
    seed: int,
    max_count: int = 12,
    max_rows: int = 500,
) -> Figure:
    """What each feature contributes to the prediction of each customer: a point a customer, coloured by its value.

    Points of nearly equal contributions are stacked around the line of the feature, as in the summary plot of SHAP
    (Lundberg et al. 2020). The colour is the rank of the value among the customers, because most features are skewed.

    Parameters
    ----------
    contributions, X : ndarray of float32, shape (n, f)
        Contributions to the log-odds, and the values of the features.
    names : sequence of str
        Of the f features.
    title : str
    seed : int
        Chooses the customers that are shown if there are more than `max_rows`.
    max_count : int
        Features that are shown: those with the largest mean |contribution|.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(len(X))[:max_rows])
    top = np.argsort(-np.abs(contributions).mean(axis=0), kind="stable")[:max_count]
    shown = contributions[np.ix_(rows, top)].astype(np.float64)
    bin_width = max(float(np.ptp(shown)), 1e-9) / 80
    figure = Figure(figsize=(7, 0.4 * len(top) + 1.4), layout="constrained")
    axes = figure.subplots()
    for line, column in enumerate(top.tolist()):
        x, values = shown[:, line], X[rows, column]
        order = np.argsort(x, kind="stable")
        bins = np.floor(x[order] / bin_width)
        first = np.searchsorted(bins, bins)  # the first point of the bin of each point
        counts = np.searchsorted(bins, bins, side="right") - first
        offsets = (np.arange(len(x)) - first - (counts - 1) / 2) * min(0.06, 0.8 / counts.max())
        rank = np.searchsorted(np.sort(values), values)[order] / max(len(x) - 1, 1)
        axes.scatter(x[order], line + offsets, c=rank, s=5, cmap="coolwarm", vmin=0, vmax=1)
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.set_yticks(range(len(top)), [names[column] for column in top.tolist()])
    axes.invert_yaxis()
    axes.set(xlabel="contribution (log-odds); blue: low value of the feature, red: high", title=title)
    axes.grid(alpha=0.3, axis="x")
    return figure


def transition_matrix(rows: NDArray[Any], columns: NDArray[Any], names: Sequence[str], title: str) -> Figure:
    """Heat map of the share of each column value among the members of each row value.

    Parameters
    ----------
    rows, columns : ndarray, shape (n,)
        Values of each member, of `names`.
    """
    counts = np.array([[((rows == a) & (columns == b)).sum() for b in names] for a in names], dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for i, j in np.ndindex(*shares.shape):
        if counts[i, j]:
            colour = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, f"{shares[i, j]:.2f}", ha="center", va="center", color=colour, fontsize=8)
    axes.set(
        xticks=range(len(names)), yticks=range(len(names)), xlabel="one horizon later", ylabel="today", title=title
    )
    axes.set_xticklabels(names, rotation=45, ha="right")
    axes.set_yticklabels(names)
    return figure
