"""What a monitor has found as one HTML file with pictures, which prints well and names no customer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.day_histograms import DayHistograms
from qianmian.model_settings import MonitoringSettings
from qianmian.pages.charts import ChartLine, chart
from qianmian.pages.markup import Markup, element, joined
from qianmian.pages.style import STYLE
from qianmian.workspace import atomic_path
from training.monitoring.declared import OUTCOME, SCORE
from training.monitoring.report import MonitoringReport
from training.monitoring.texts import CheckText, Lang, named, word

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
PICTURES = 4  # of features, and most of scores


def write_page(reports: Sequence[MonitoringReport], settings: MonitoringSettings, path: Path, lang: Lang) -> None:
    """Write the reports, of one model or more at the same moment, atomically."""
    title, first = word("title", lang), reports[0]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("title", f"{title} · {first.as_of:%Y-%m-%d}"),
        element("style", Markup(STYLE)),
    )
    sections = [element("h1", title)]
    for found in reports:
        if len(reports) > 1:
            sections.append(element("h2", found.job))
        sections += [
            *_introduction(found, lang),
            *_columns(found, settings, lang),
            *_pictures(found, lang),
            *_bands(found, lang),
        ]
    model = f" --model {first.job}" if len(reports) == 1 else ""
    command = f"qianmian monitor{model} --as-of {first.as_of:%Y-%m-%dT%H:%M} --report {path.name} --lang {lang}"
    end = [element("h2", word("command", lang)), element("p", element("code", command))]
    end.append(element("p", word("no_person", lang), class_="soft"))
    body = element("body", element("main", *sections, *end))
    with atomic_path(path) as written:
        html = element("html", head, body, lang="zh-CN" if lang == "zh" else "en")
        written.write_text(f"<!doctype html>\n{html}\n", encoding="utf-8")


def _introduction(found: MonitoringReport, lang: Lang) -> list[Markup]:
    rows = [
        [
            element("th", word(check.name, lang), scope="row"),
            element("td", word(check.status, lang), class_="high" if check.status == "alarm" else None),
            element("td", *_with_code(check.statement.say(lang))),
        ]
        for check in sorted(found.checks, key=lambda check: ("alarm", "fine", "unknown").index(check.status))
    ]
    return [
        element("p", found.subtitle(lang), class_="soft"),
        element("p", element("strong", found.verdict(lang))),
        _table([word(name, lang) for name in ("check", "result", "details")], rows),
        element("p", word("stored" if found.reference_stored else "recomputed", lang), class_="soft"),
    ]


def _columns(found: MonitoringReport, settings: MonitoringSettings, lang: Lang) -> list[Markup]:
    """A row for each column, those that have drifted first."""
    if not found.columns:
        return []
    rows = []
    for name in _order(found):
        one, (then, now) = found.columns[name], found.means(name)
        numbers = [_number(then), _number(now), "–" if np.isnan(one.shift) else f"{one.shift:+.2f}", f"{one.psi:.3f}"]
        numbers += [f"{min(one.p_shift, one.p_psi):.3f}", f"{one.usual_shift:.2f}"]
        title = element("th", _name(name, lang), scope="row", class_="high" if one.drifted else None)
        rows.append([title, *(element("td", text, class_="number") for text in numbers)])
    heads = ["column", "mean_then", "mean_now", "shift", "psi", "p", "usual"]
    values = {"alpha": settings.alpha, "shift": settings.min_shift, "psi": settings.min_psi}
    return [
        element("h2", word("columns", lang)),
        element("p", CheckText("columns_note", values).say(lang)),
        _table([word(head, lang) for head in heads], rows, numbers_from=1),
    ]


def _pictures(found: MonitoringReport, lang: Lang) -> list[Markup]:
    """The distributions of the scores and of the features that have moved most."""
    if found.reference is None or found.current is None:
        return []
    order = [name for name in _order(found) if name.split()[0] != OUTCOME]
    scores = [name for name in order if name in found.predictions][:PICTURES]
    made = []
    for name in (*scores, *[name for name in order if name not in found.predictions][:PICTURES]):
        column = found.names.index(name)
        shares = [_shares(part, column) for part in (found.reference, found.current)]
        # between the outer bins, which are mostly empty
        bins = np.flatnonzero(shares[0] + shares[1] > 0)
        if len(bins) < 2:
            continue
        places = np.linspace(0, 1, len(bins)).tolist()
        lines = [
            ChartLine(word(key, lang), list(zip(places, part[bins].tolist(), strict=True)), marked=True)
            for key, part in zip(("then", "now"), shares, strict=True)
        ]
        picture = chart(_name(name, lang), lines, [], lambda share: f"{share:.0%}", word("bins", lang))
        made.append(element("figure", element("h3", _name(name, lang)), picture))
    return [element("h2", word("pictures", lang)), element("div", *made, class_="two")] if made else []


def _bands(found: MonitoringReport, lang: Lang) -> list[Markup]:
    """Predicted and observed outcomes of all and of each risk band."""
    if not found.calibration:
        return []
    rows = []
    for name, one in found.calibration.items():
        observed = one.observed
        interval = f"{observed.value:.1%} [{observed.low:.1%}, {observed.high:.1%}]"
        cells = [f"{observed.n:,}", f"{one.predicted:.1%}", interval, f"{one.ratio:.2f}"]
        title = element("th", _group(name, lang), scope="row", class_="high" if one.out else None)
        rows.append([title, *(element("td", cell, class_="number") for cell in cells)])
    heads = [word(head, lang) for head in ("group", "customers", "predicted", "observed", "ratio")]
    groups = list(found.calibration.items())
    places = np.linspace(0, 1, len(groups)).tolist()
    lines = [
        ChartLine(word("predicted", lang), [(at, one.predicted) for at, (_, one) in zip(places, groups, strict=True)]),
        ChartLine(
            word("observed", lang),
            [(at, one.observed.value) for at, (_, one) in zip(places, groups, strict=True)],
            [(one.observed.low, one.observed.high) for _, one in groups],
            marked=True,
        ),
    ]
    labels = [(at, _group(name, lang)) for at, (name, _) in zip(places, groups, strict=True)]
    picture = chart(word("bands", lang), lines, labels, lambda share: f"{share:.0%}")
    return [element("h2", word("bands", lang)), _table(heads, rows, numbers_from=1), element("figure", picture)]


def _order(found: MonitoringReport) -> list[str]:
    """Columns that have drifted first, then by the size of the change."""
    columns = found.columns
    return sorted(columns, key=lambda name: (not columns[name].drifted, -abs(np.nan_to_num(columns[name].shift))))


def _shares(part: DayHistograms, column: int) -> np.ndarray:
    counts = part.counts[:, :, column].sum(axis=(0, 1))
    return np.asarray(counts / max(counts.sum(), 1.0))


def _name(name: str, lang: Lang) -> str:
    first, _, prediction = name.partition(" ")
    return f"{word(first, lang)} {prediction}".strip() if first in (SCORE, OUTCOME) else name


def _group(name: str, lang: Lang) -> str:
    found = named(name)
    return found.say(lang) if isinstance(found, CheckText) else found


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:,.4g}"


def _with_code(text: str) -> list[str]:
    """The parts of a text; those between backticks are code."""
    return [element("code", part) if place % 2 else part for place, part in enumerate(text.split("`"))]


def _table(heads: Sequence[str], rows: Sequence[Sequence[Markup]], numbers_from: int | None = None) -> Markup:
    """A table whose columns from `numbers_from` on are numbers."""
    cells = [
        element("th", head, scope="col", class_="number" if numbers_from is not None and at >= numbers_from else None)
        for at, head in enumerate(heads)
    ]
    body = element("tbody", *(joined(element("tr", *row), "\n") for row in rows))
    return element("div", element("table", element("thead", element("tr", *cells)), body), class_="scroll")
