"""The page docs/benchmarks.md, generated from measured and published results; used by `benchmarks/recommenders.py`.

Every sentence with a figure is generated from the results, so the page claims nothing that they do not show.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from recommenders_data import DATA, DataSet, PublishedResult

OURS = "qianmian"  # the model that ships
NOVEMBER, MINUS_PEER = "completejourney_november", "ndcg@10_minus_peer"  # data set and metric of the comparison
PEER_PROTOCOL = (
    "a two-stage recommender that is written with RecTools and LightGBM (`benchmarks/peers/`), as the mean over "
    "households of the mean of five seeds of each"
)
REPRODUCTION_TOLERANCE = 0.02  # relative difference above which the page reports a reproduction as different
MetricValue = Mapping[str, Any]  # value, low, high, n
ModelResults = Mapping[str, Mapping[str, MetricValue]]


# ---- formatting ------------------------------------------------------------------------------------------------------


def format_value(value: float, decimals: int = 4) -> str:
    """The value without its leading zero: .1935 for 0.1935."""
    return re.sub(r"^(-?)0\.", r"\1.", f"{value:.{decimals}f}")


def with_interval(found: MetricValue) -> str:
    """A value with its interval, or the value alone if the interval is empty."""
    text = format_value(found["value"])
    return (
        text
        if found["low"] == found["high"]
        else f"{text} [{format_value(found['low'])}, {format_value(found['high'])}]"
    )


def compare_to_threshold(found: MetricValue, threshold: float) -> str:
    """How a value and its interval compare to a threshold, in words."""
    if found["value"] >= threshold:
        return (
            "reached, and the whole interval is above it"
            if found["low"] > threshold
            else "reached, but the interval extends below it"
        )
    return (
        "not reached, and the whole interval is below it"
        if found["high"] < threshold
        else "not reached, but the interval includes it"
    )


def format_quantity(value: float, unit: str) -> str:
    """Seconds (or minutes) and megabytes (or gigabytes) with a readable number of digits."""
    if unit == "s":
        return f"{value:.1f} s" if value < 10 else f"{value:,.0f} s" if value < 600 else f"{value / 60:,.1f} min"
    return f"{value:,.0f} MB" if value < 1000 else f"{value / 1000:.1f} GB"


def normalised_name(name: str) -> str:
    """Lower-case letters and digits of a model's name, by which equal methods are recognised."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


# ---- one data set ----------------------------------------------------------------------------------------------------


def ranking_columns(data_set: DataSet, models: ModelResults) -> list[str]:
    """Ranking metrics (named ``…@k``) that any model has, those of the protocol first."""
    held = dict.fromkeys(metric for results in models.values() for metric in results if "@" in metric)
    return [
        *(metric for metric in data_set.metrics if metric in held),
        *(metric for metric in held if metric not in data_set.metrics),
    ]


def cost_columns(models: ModelResults) -> list[str]:
    """Names of the measured seconds and peak memory."""
    held = dict.fromkeys(metric for results in models.values() for metric in results)
    return [metric for metric in held if metric.endswith("seconds")] + [
        metric for metric in held if metric == "peak_mb"
    ]


def sorted_by_metric(models: ModelResults, metric: str) -> list[str]:
    """Models with the metric, the best first."""
    return sorted((name for name in models if metric in models[name]), key=lambda name: -models[name][metric]["value"])


def results_table(data_set: DataSet, models: ModelResults) -> list[str]:
    """Markdown table of the results measured here, the best first, with 95 % intervals."""
    ranking, costs = ranking_columns(data_set, models), cost_columns(models)
    if not ranking:
        return []
    names = sorted_by_metric(models, ranking[0])
    titles = [*ranking, *(cost.replace("_", " ").replace("peak mb", "peak memory") for cost in costs)]
    lines = [f"| measured | {' | '.join(titles)} |"]
    lines.append("|---" * (1 + len(ranking) + len(costs)) + "|")
    for name in names:
        cells = [with_interval(models[name][metric]) if metric in models[name] else "" for metric in ranking]
        cells += [
            format_quantity(models[name][cost]["value"], "MB" if cost == "peak_mb" else "s")
            if cost in models[name]
            else ""
            for cost in costs
        ]
        lines.append(f"| {f'**{name}**' if name == OURS else name} | {' | '.join(cells)} |")
    return lines


def reproduced_as(published: PublishedResult, models: ModelResults) -> str | None:
    """The model measured here that reproduces a published one; None if there is none."""
    return next((name for name in models if name != OURS and normalised_name(name) in published.model_aliases), None)


def published_table(data_set: DataSet, models: ModelResults) -> list[str]:
    """Markdown table of the published results, with those of the same methods measured here."""
    columns = list(dict.fromkeys(metric for published in data_set.published for metric in published.values))
    if not columns:
        return []
    lines = [
        f"| published (quoted) | {' | '.join(columns)} | source | measured here |",
        "|---" * (3 + len(columns)) + "|",
    ]
    for published in sorted(data_set.published, key=lambda published: -next(iter(published.values.values()))):
        cells = [format_value(published.values[metric]) if metric in published.values else "" for metric in columns]
        name = reproduced_as(published, models)
        again = "not rerun"
        if name is not None:
            shared = [metric for metric in published.values if metric in models[name]]
            pairs = [(models[name][metric]["value"], published.values[metric]) for metric in shared]
            again = f"{name}: " + ", ".join(
                f"{format_value(ours)} ({ours / theirs - 1:+.1%})" for ours, theirs in pairs
            )
        lines.append(f"| {published.model} | {' | '.join(cells)} | {published.source} | {again} |")
    return lines


def summary(data_set: DataSet, models: ModelResults) -> list[str]:
    """Sentences that compare the shipped model with each threshold and with the best other model."""
    if OURS not in models:
        return [f"`{OURS}`, the model that ships, was not measured."]
    ours, lines = models[OURS], []
    for threshold in data_set.thresholds:
        if threshold.metric not in ours:
            lines.append(f"{threshold.metric} of `{OURS}` was not measured.")
            continue
        found = ours[threshold.metric]
        against = "; ".join(
            f"{name} {format_value(value)}: {compare_to_threshold(found, value)}"
            for name, value in (("must", threshold.required), ("aim", threshold.target))
            if value
        )
        lines.append(f"{threshold.metric} of `{OURS}` is {with_interval(found)}; {against}.")
    first = next((metric for metric in ranking_columns(data_set, models) if metric in ours), None)
    others = [name for name in sorted_by_metric(models, first) if name != OURS] if first else []
    if first and others:
        best = models[others[0]][first]
        gain = ours[first]["value"] / best["value"] - 1 if best["value"] else math.inf
        how = "better" if gain > 0 else "worse" if gain < 0 else "different"
        lines.append(
            f"In {first}, `{OURS}` is {abs(gain):.1%} {how} than {others[0]} ({format_value(best['value'])}), "
            "the best other model measured here."
        )
    return lines


def shortfalls(data_set: DataSet, models: ModelResults, failed: Sequence[str]) -> list[str]:
    """Sentences about thresholds that are not reached, reproductions that differ, and failed requirements."""
    lines = []
    for threshold in data_set.thresholds:
        found = models.get(OURS, {}).get(threshold.metric)
        for name, value in (("must", threshold.required), ("aim", threshold.target)):
            if not value:
                continue
            bound = f"{format_value(value)} ({name})"
            if found is None:
                lines.append(f"{threshold.metric} was not measured; it is unknown whether it reaches {bound}.")
            elif found["value"] < value:
                lines.append(f"{threshold.metric} is {format_value(value - found['value'])} short of {bound}.")
    for published in data_set.published:
        name = reproduced_as(published, models)
        for metric, value in published.values.items() if name is not None else ():
            found = models[name].get(metric)
            if found is not None and abs(found["value"] / value - 1) > REPRODUCTION_TOLERANCE:
                lines.append(
                    f"{metric} of {name} is {format_value(found['value'])}; "
                    f"the published figure of {published.model} is {format_value(value)}."
                )
    return [*lines, *(f"A requirement of the benchmark failed: {line}." for line in failed)]


def beside_peer(results: Mapping[str, Any]) -> list[str]:
    """A sentence about the paired differences to the peer, for each month that was measured beside it."""
    months = {"December 2017": results["models"], "November 2017": results.get("more", {}).get(NOVEMBER, {})}
    found = {month: models.get(OURS, {}).get(MINUS_PEER) for month, models in months.items()}
    shown = [f"{with_interval(value)} in {month}" for month, value in found.items() if value]
    return [f"NDCG@10 of `{OURS}` minus that of the peer, {PEER_PROTOCOL}: {', '.join(shown)}."] if shown else []


# ---- the page --------------------------------------------------------------------------------------------------------


def section(key: str, results: Mapping[str, Any], pictures: Sequence[str]) -> list[str]:
    """The part of the page about one data set."""
    data_set, models = DATA[key], results["models"]
    lines = ["", f"## {data_set.title}", "", data_set.protocol, ""]
    for part in (results_table(data_set, models), published_table(data_set, models)):
        lines += [*part, ""] if part else []
    for name in pictures:
        caption = (
            "training time and peak memory"
            if "cost" in name
            else "every model with its 95 % interval, published figures as dashed lines"
        )
        lines += [f"![{data_set.title}: {caption}](benchmarks/{name})", ""]
    lines += [
        *(f"- {line}" for line in [*summary(data_set, models), *beside_peer(results)]),
        "",
        f"Here {data_set.thresholds_from}.",
        "",
    ]
    short = shortfalls(data_set, models, results.get("failed", ()))
    lines += (
        [
            "Missed targets, and reproductions that differ from the published figure:",
            "",
            *(f"- {line}" for line in short),
        ]
        if short
        else ["All targets are reached."]
    )
    quick = " This was a quick run, which does not follow the full protocol." if results.get("quick") else ""
    seconds, memory = format_quantity(results["seconds"], "s"), format_quantity(results["peak_mb"], "MB")
    lines += [
        "",
        f"Measured with version {results['version']} on {results['machine']}: "
        f"{seconds} in total, peak memory {memory}.{quick} "
        f"To repeat the measurement: `{results['command']}`. {data_set.how_to_get}",
    ]
    return lines


def december_lines(log: Sequence[Mapping[str, str]]) -> list[str]:
    """The log of the evaluations on December."""
    if not log:
        return []
    return [
        "",
        "### Log of the evaluations on December",
        "",
        "No model and no parameter is chosen on December 2017. Each evaluation on it adds one line to "
        "`docs/benchmarks/december.csv`.",
        "",
        f"| {' | '.join(log[0])} |",
        "|---" * len(log[0]) + "|",
        *(f"| {' | '.join(row.values())} |" for row in log),
    ]


def page(
    results: Mapping[str, Mapping[str, Any]],
    log: Sequence[Mapping[str, str]],
    figure_files: Mapping[str, Sequence[str]],
) -> str:
    """The whole page in Markdown.

    Parameters
    ----------
    results : mapping
        Data set → models (model → metric → value, low, high, n), machine, version, command, seconds, peak_mb, failed
        and quick.
    log : sequence of mapping
        Lines of december.csv.
    figure_files : mapping of str to sequence of str
        File names of the figures of each data set in the folder ``benchmarks`` next to the page.
    """
    lines = [
        "# Recommender benchmarks",
        "",
        "`python benchmarks/recommenders.py --data DIR` generates this page from the figures in "
        "`docs/benchmarks/results.json`; no figure is typed by hand. Values have 95 % intervals (percentile bootstrap "
        "over customers, 1,000 resamples). Published figures are quoted and were not measured here, unless a column "
        f"says so. `{OURS}` is the model that ships.",
    ]
    for key in DATA:
        if key in results:
            lines += section(key, results[key], figure_files.get(key, ()))
            lines += december_lines(log) if key == "completejourney" else []
        else:
            lines += ["", f"## {DATA[key].title}", "", f"Not measured yet. {DATA[key].how_to_get}"]
    return "\n".join(lines) + "\n"
