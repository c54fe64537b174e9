"""How sure the probabilities are: what a bundle keeps of the evaluation of its model, in words, a table and a chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from qianmian.pages.charts import ChartLine, chart
from qianmian.pages.markup import Markup, element
from qianmian.schema import RISK_BANDS
from serving.scoring.lists.columns import COLUMNS
from serving.scoring.lists.report.texts import ReportTexts
from serving.scoring.lists.words import MONTHS, Lang, percent, pick

AT = "at "  # slices of a date are named `at 2017-12-05`
BASE_RATE = "base rate"  # a baseline
FEW = 30  # customers below which an observed share says little


def how_sure(evaluation: Mapping[str, Any] | None, lang: Lang) -> list[Markup]:
    """The section of a report; `evaluation` is `EvalReport.summary`, None for a model that has none."""
    say = ReportTexts(lang)
    found = [element("h2", say("sure"))]
    if evaluation is None:
        return [*found, element("p", say("no_evaluation"))]
    metrics = evaluation["metrics"]
    texts = []
    if (auc := metrics.get("auc")) is not None and auc[0] is not None:
        value, low, high = (f"{100 * part:.0f}" for part in auc[:3])
        texts += [say("auc", auc=value, low=low, high=high)]
    base = evaluation["baselines"].get(BASE_RATE, {}).get("brier")
    if base is not None and (brier := metrics.get("brier")) is not None:
        texts += [say("brier", brier=f"{brier[0]:.3f}", base=f"{base[0]:.3f}"), say("tested", n=f"{brier[3]:,}")]
    found += [element("p", text) for text in texts]
    parts = [part for part in (_by_band(evaluation["slices"], lang), _by_month(evaluation["slices"], lang)) if part]
    return [*found, element("div", *parts, class_="two")] if parts else found


def _by_band(slices: Mapping[str, Any], lang: Lang) -> Markup | None:
    """Predicted and observed share of each risk band."""
    say = ReportTexts(lang)
    rows = []
    for band in reversed(RISK_BANDS):
        if (found := slices.get(f"{band} risk")) is None:
            continue
        share, low, high, n = found["observed"]
        few = pick(lang, f" ({say('few')})", f"（{say('few')}）") if n < FEW else ""
        interval = pick(lang, f" ({percent(low)} to {percent(high)})", f"（{percent(low)}–{percent(high)}）")
        cells = [f"{n:,}{few}", percent(found["predicted"][0], 1), f"{percent(share, 1)}{interval}"]
        name = COLUMNS["risk_band"].cell(band, lang)
        rows.append(
            element(
                "tr",
                element("th", name, scope="row", class_=band),
                *(element("td", cell, class_="number") for cell in cells),
            )
        )
    if not rows:
        return None
    heads = [element("th", say("risk"), scope="col")]
    heads += [
        element("th", say(key).capitalize(), scope="col", class_="number")
        for key in ("customers", "predicted", "observed")
    ]
    table = element("table", element("thead", element("tr", *heads)), element("tbody", *rows))
    return element("div", element("h3", say("by_band")), element("div", table, class_="scroll"))


def _by_month(slices: Mapping[str, Any], lang: Lang) -> Markup | None:
    """Predicted and observed share at each past date, as a chart."""
    say = ReportTexts(lang)
    dates = sorted((name.removeprefix(AT), found) for name, found in slices.items() if name.startswith(AT))
    if len(dates) < 2:
        return None
    places = [place / (len(dates) - 1) * 0.92 + 0.04 for place in range(len(dates))]
    observed = [found["observed"] for _, found in dates]
    lines = [
        ChartLine(say("predicted"), _points(places, [found["predicted"] for _, found in dates]), marked=True),
        ChartLine(
            say("observed"), _points(places, observed), [(low, high) for _, low, high, _ in observed], marked=True
        ),
    ]
    labels = [(place, _short(name, lang)) for place, (name, _) in zip(places, dates, strict=True)]
    if len(labels) > 7:
        labels = labels[::2]
    return element(
        "figure",
        element("h3", say("by_month")),
        chart(say("by_month"), lines, labels, percent),
        element("p", say("month_note"), class_="soft"),
    )


def _points(places: Sequence[float], metrics: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    return [(place, metric[0]) for place, metric in zip(places, metrics, strict=True)]


def _short(date: str, lang: Lang) -> str:
    """A date for an axis.

    Examples
    --------
    >>> _short("2017-12-05", "en"), _short("2017-12-05", "zh")
    ('5 Dec 17', '17/12/5')
    """
    moment = datetime.fromisoformat(date)
    return pick(
        lang, f"{moment.day} {MONTHS[moment.month - 1][:3]} {moment:%y}", f"{moment:%y}/{moment.month}/{moment.day}"
    )
