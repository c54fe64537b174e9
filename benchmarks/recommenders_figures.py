"""Figures of docs/benchmarks.md: metrics with intervals, and cost of models; used by `benchmarks/recommenders.py`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recommenders_data import DATA, DataSet
from recommenders_page import (
    OURS,
    MetricValue,
    ModelResults,
    cost_columns,
    format_quantity,
    format_value,
    ranking_columns,
    sorted_by_metric,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PUBLISHED_LINES = 4  # number of published results that are drawn
MIN_DRAWN_SHARE = 0.6  # models below this share of the best value are not drawn to scale


def accuracy_picture(data_set: DataSet, models: ModelResults) -> Figure | None:
    """Every model with its interval, and the best published results as dashed lines.

    Models far below the best are arrows with their value.
    """
    from matplotlib.figure import Figure

    metrics = ranking_columns(data_set, models)[:2]
    if not metrics:
        return None
    names = sorted_by_metric(models, metrics[0])[::-1]
    lines = sorted(
        (one for one in data_set.published if metrics[0] in one.values), key=lambda one: -one.values[metrics[0]]
    )[:MAX_PUBLISHED_LINES]
    figure = Figure(figsize=(5.2 * len(metrics), 0.34 * len(names) + 1.2 + 0.3 * bool(lines)), layout="constrained")
    for axes, metric in zip(figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0], metrics, strict=True):
        held = {name: models[name][metric] for name in names if metric in models[name]}
        shown = [found["value"] for found in held.values()] + [
            one.values[metric] for one in lines if metric in one.values
        ]
        nearest = min(value for value in shown if value >= MIN_DRAWN_SHARE * max(shown))
        left, right = (
            nearest - 0.12 * (max(shown) - nearest + 0.02),
            max([*shown, *(found["high"] for found in held.values())]),
        )
        for place, name in enumerate(names):
            if name in held:
                dot(axes, place, held[name], left, "tab:red" if name == OURS else "tab:blue")
        for number, one in enumerate(lines):
            if metric in one.values:
                axes.axvline(
                    one.values[metric],
                    linestyle="--",
                    linewidth=1.2,
                    color=f"C{number + 4}",
                    label=f"{one.model}, published",
                )
        axes.set(
            yticks=range(len(names)),
            yticklabels=names,
            ylim=(-0.6, len(names) - 0.4),
            xlabel=metric,
            xlim=(left, right + 0.05 * (right - left)),
        )
        axes.grid(alpha=0.3, axis="x")
    if lines:
        figure.legend(
            *figure.axes[0].get_legend_handles_labels(),
            frameon=False,
            fontsize=8,
            loc="outside lower center",
            ncols=len(lines),
        )
    return figure


def dot(axes: Axes, place: int, found: MetricValue, left: float, colour: str) -> None:
    """A value with its interval, or an arrow at the left edge if the value is smaller than `left`."""
    if found["value"] < left:
        axes.annotate(
            f"◂ {format_value(found['value'])}",
            (0.01, place),
            xycoords=("axes fraction", "data"),
            va="center",
            color=colour,
            fontsize=8,
        )
        return
    spread = [[found["value"] - found["low"]], [found["high"] - found["value"]]]
    axes.errorbar(found["value"], place, xerr=spread, fmt="o", markersize=5, capsize=3, color=colour)


def cost_picture(models: ModelResults) -> Figure | None:
    """Training time, on a logarithmic axis, and peak memory of every model with these figures."""
    from matplotlib.figure import Figure

    costs = [cost for cost in cost_columns(models) if cost in ("seconds", "train_seconds", "fit_seconds")][:1]
    costs += ["peak_mb"] * any("peak_mb" in results for results in models.values())
    names = [name for name in models if any(cost in models[name] for cost in costs)][::-1]
    if not costs or not names:
        return None
    figure = Figure(figsize=(5.2 * len(costs), 0.34 * len(names) + 1.1), layout="constrained")
    for axes, cost in zip(figure.subplots(1, len(costs), sharey=True, squeeze=False)[0], costs, strict=True):
        memory = cost == "peak_mb"
        values = [models[name][cost]["value"] if cost in models[name] else 0.0 for name in names]
        drawn_bars = axes.barh(names, values, color=["tab:red" if name == OURS else "tab:blue" for name in names])
        axes.bar_label(
            drawn_bars,
            [f" {format_quantity(value, 'MB' if memory else 's')}" if value else "" for value in values],
            fontsize=8,
        )
        axes.set(xlabel="peak memory, MB" if memory else f"{cost.replace('_', ' ')}", xlim=(0, max(values) * 1.25))
        if not memory and max(values) > 0:
            axes.set(xscale="log", xlim=(0.5 * min(value for value in values if value), 5 * max(values)))
        axes.grid(alpha=0.3, axis="x")
    return figure


def draw_figures(results: Mapping[str, Mapping[str, Any]], folder: Path) -> dict[str, list[str]]:
    """Save the figures of every data set and return their file names by data set.

    The files contain no date, so equal results give equal files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figure_files: dict[str, list[str]] = {}
    for key, found in results.items():
        pictures = {"accuracy": accuracy_picture(DATA[key], found["models"]), "cost": cost_picture(found["models"])}
        figure_files[key] = [f"{key}_{name}.png" for name, figure in pictures.items() if figure is not None]
        for name, figure in pictures.items():
            if figure is not None:
                figure.savefig(folder / f"{key}_{name}.png", dpi=110, metadata={"Software": None})
    return figure_files
