"""The churn report as one HTML file."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Sequence
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.erasure.files import ROW_ATTRIBUTE
from features.profiles.tags.declare import TagValue
from qianmian.pages.charts import ChartLine, bar, chart
from qianmian.pages.markup import Markup, element, joined
from qianmian.pages.style import SCRIPT, STYLE
from qianmian.schema import EVALUATION, LIFECYCLE_STAGES, RISK_BANDS
from qianmian.workspace import atomic_path
from serving.scoring.lists.churn import ChurnScores, Sort
from serving.scoring.lists.columns import COLUMNS
from serving.scoring.lists.contact import CONTACT, NO_SCORE, NOT_CONTACTED
from serving.scoring.lists.report.evaluation import how_sure
from serving.scoring.lists.report.texts import ReportTexts
from serving.scoring.lists.words import Lang, consent_words, day, money, number, percent, pick

SHOWN, HELD_BACK, COMPARED = 100, 20, 200  # customers in the list, in that of whom not to contact, and of the curves
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
CURVE_POINTS = 51


def write_report(scores: ChurnScores, path: Path, lang: Lang, sort: Sort, top: int | None = None) -> Path:
    """Write the report atomically.

    Parameters
    ----------
    scores : ChurnScores
        All customers.
    path : Path
        The HTML file.
    lang : str
        Language.
    sort : str
        What the customers are sorted by.
    top : int, optional
        Number of customers to contact that are listed.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(_Report(scores, lang, sort, top or SHOWN, path.name).html(), encoding="utf-8")
    return path


class _Report:
    """The sections of a report."""

    def __init__(self, scores: ChurnScores, lang: Lang, sort: Sort, top: int, name: str) -> None:
        self.scores, self.lang, self.sort, self.top, self.say = scores, lang, sort, top, ReportTexts(lang)
        command = ["qianmian", "score", scores.champion.job, "--report", name, "--lang", lang, "--sort", sort]
        command += ["--as-of", scores.as_of.isoformat(), "--top", str(top)]
        self.command = shlex.join(command)
        self.order = scores.order(sort)
        self.order = self.order[scores.scored[self.order]]
        self.contact = self.order[scores.contacts.codes[self.order] == CONTACT]
        self.has_value = bool(scores.value_basis[0])
        self.at_risk = np.nan_to_num(scores.value_at_risk)
        self.several_sources = len(scores.table["user_source"].unique()) > 1
        self.sort_name = self.say(f"sort_{sort}")
        self.until = day(scores.last_day, lang)

    def html(self) -> str:
        title = self.say("title")
        head = element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", http_equiv="Content-Security-Policy", content=POLICY),
            element("title", f"{title} · {day(self.scores.as_of, self.lang)}"),
            element("style", Markup(STYLE)),
        )
        sections = [
            self.introduction(),
            *how_sure(self.scores.champion.bundle.facts.get(EVALUATION), self.lang),
            *self.bands(),
            *self.curve(),
            *self.first(),
            *self.not_contacted(),
            *self.next_steps(),
            *self.provenance(),
        ]
        body = element("body", element("main", *sections), element("script", Markup(SCRIPT)))
        lang = pick(self.lang, "en", "zh-CN")
        return f"<!doctype html>\n{element('html', head, body, lang=lang)}\n"

    def introduction(self) -> Markup:
        scores, say, facts = self.scores, self.say, self.scores.champion.bundle.facts
        n = int(scores.scored.sum())
        expected = float(np.nansum(scores.probabilities))
        active, horizon = facts.get("active_days"), number(scores.horizon_days)
        shared = {"scored": f"{n:,}", "until": self.until, "horizon": horizon}
        first = say("intro", **shared) if active is None else say("intro_active", active=number(active), **shared)
        second = say(
            "base_rate",
            base_rate=percent(scores.base_rate, 1),
            horizon=horizon,
            expected=number(round(expected)),
            expected_share=percent(expected / n, 1),
        )
        tiles = [("tile_scored", f"{n:,}"), ("tile_expected", number(round(expected)))]
        if self.has_value:
            tiles.append(("tile_value", money(float(self.at_risk.sum()))))
        tiles.append(("tile_contact", f"{len(self.contact):,}"))
        return joined(
            element("h1", say("title")),
            element("p", say("subtitle", as_of=day(scores.as_of, self.lang)), class_="soft"),
            element("p", first, pick(self.lang, " ", ""), second),
            element(
                "dl",
                *(element("div", element("dt", say(key)), element("dd", value)) for key, value in tiles),
                class_="tiles",
            ),
        )

    def bands(self) -> list[Markup]:
        """A row for each risk band, and one for all."""
        scores, say = self.scores, self.say
        bands = np.array(scores.table["risk_band"].to_pylist(), dtype=object)
        total = float(self.at_risk.sum())
        heads = ["risk", "customers", "mean_probability", "expected"]
        heads += ["value_at_risk", "share_at_risk"] if self.has_value else []
        rows = []
        for band in (*reversed(RISK_BANDS), None):
            chosen = scores.scored if band is None else bands == band
            p, value = scores.probabilities[chosen], float(self.at_risk[chosen].sum())
            cells = [f"{len(p):,}", percent(float(p.mean()), 1) if len(p) else "–", number(round(float(p.sum())))]
            name = say("all") if band is None else COLUMNS["risk_band"].cell(band, self.lang)
            share = value / total if total else 0.0
            rows.append(
                element(
                    "tr",
                    element("th", name, scope="row", class_=band),
                    *(element("td", cell, class_="number") for cell in cells),
                    *(
                        [
                            element("td", money(value), class_="number"),
                            element("td", percent(share), bar(share), class_="number"),
                        ]
                        if self.has_value
                        else []
                    ),
                    class_="total" if band is None else None,
                )
            )
        note = say("value_note", basis=pick(self.lang, *scores.value_basis)) if self.has_value else say("no_value")
        return [
            element("h2", say("bands")),
            _table([(say(head), head != "risk") for head in heads], rows),
            element("p", note, class_="soft"),
        ]

    def curve(self) -> list[Markup]:
        """How much of the value at risk the first customers carry, by value at risk and by probability."""
        total = float(self.at_risk.sum())
        if not self.has_value or total <= 0:
            return []
        say, scores = self.say, self.scores
        orders = {name: (found := scores.order(name))[scores.scored[found]] for name in ("value_at_risk", "risk")}
        n = len(self.order)
        k = min(COMPARED, n)
        lines = [
            ChartLine(say(key), _cumulated(self.at_risk[orders[name]] / total))
            for key, name in (("by_value", "value_at_risk"), ("by_risk", "risk"))
        ]
        shares = {name: float(self.at_risk[rows[:k]].sum()) / total for name, rows in orders.items()}
        same = len(np.intersect1d(orders["value_at_risk"][:k], orders["risk"][:k]))
        overlap = say(
            "overlap",
            n=f"{k:,}",
            by_value=percent(shares["value_at_risk"]),
            by_risk=percent(shares["risk"]),
            same=f"{same:,}",
        )
        labels = [(share, percent(share)) for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)]
        return [
            element("h3", say("curve")),
            element("p", overlap),
            element("figure", chart(say("curve"), lines, labels, percent, say("curve_x"))),
        ]

    def first(self) -> list[Markup]:
        """The customers to contact, with reasons."""
        say, rows = self.say, self.contact[: self.top]
        if not len(rows):
            return [element("h2", say("top")), element("p", say("nobody"))]
        note = say("top_note", n=f"{len(rows):,}", of=f"{len(self.contact):,}", sort=self.sort_name)
        return [element("h2", say("top")), element("p", note), self._customers(rows, contact_reason=False)]

    def not_contacted(self) -> list[Markup]:
        """Counts by reason, which add up to all customers, and the most valuable who are left out."""
        say, scores = self.say, self.scores
        rows = []
        for code, count in scores.contacts.counts.items():
            words = say("to_contact") if code == CONTACT else pick(self.lang, *NOT_CONTACTED[code])
            value = float(self.at_risk[scores.contacts.codes == code].sum())
            rows.append(self._reason_row(words, count, value, data_code=code))
        rows.append(self._reason_row(say("all_customers"), len(scores), float(self.at_risk.sum()), class_="total"))
        heads = [(say("reason"), False), (say("customers"), True)]
        heads += [(say("value_at_risk"), True)] if self.has_value else []
        found = [
            element("h2", say("not_contacted")),
            element("p", say("reconcile")),
            _table(heads, rows, id="contacts"),
        ]
        held_back = self.order[scores.contacts.codes[self.order] != CONTACT][:HELD_BACK]
        if len(held_back):
            title = say("held_back", n=f"{len(held_back):,}", sort=self.sort_name)
            found += [element("h3", title), self._customers(held_back, contact_reason=True)]
        return found

    def _reason_row(self, words: str, count: int, value: float, **attributes: object) -> Markup:
        without_score = attributes.get("data_code") in NO_SCORE
        cells = [f"{count:,}", *(["–" if without_score else money(value)] if self.has_value else [])]
        return element(
            "tr",
            element("th", words, scope="row"),
            *(element("td", cell, class_="number") for cell in cells),
            **attributes,
        )

    def _customers(self, rows: NDArray[np.int64], *, contact_reason: bool) -> Markup:
        """A sortable table of customers; each row is one line of the file."""
        scores, say, lang = self.scores, self.say, self.lang
        tags, table = scores.champions.customers.tags, scores.table
        heads = [(say("customer"), False), (say("probability"), True), (say("risk"), False)]
        heads += [(say("value_at_risk"), True)] if self.has_value else []
        heads += [(say("reason" if contact_reason else "why"), False)]
        tag_columns = [(key, name) for key, name in (("lifecycle_stage", "stage"), ("next_order_date", "next_order"))]
        tag_columns = [] if contact_reason else [(key, name) for key, name in tag_columns if key in tags]
        heads += [(say(name), False) for _, name in tag_columns]
        heads += [(say("consent"), False)] if scores.consents else []
        reasons: Sequence[Sequence[str]] = [] if contact_reason else scores.reasons(rows, lang)
        made = []
        for place, row in enumerate(rows.tolist()):
            band = table["risk_band"][row].as_py()
            p, value = float(scores.probabilities[row]), float(scores.value_at_risk[row])
            cells = [
                self._customer(row),
                _number_cell(percent(p, 1), p),
                element("td", COLUMNS["risk_band"].cell(band, lang), class_=band, data_value=RISK_BANDS.index(band)),
            ]
            if self.has_value:
                cells.append(_number_cell("–" if np.isnan(value) else money(value), -1.0 if np.isnan(value) else value))
            if contact_reason:
                cells.append(element("td", scores.contacts.words(row, lang)))
            else:
                cells.append(
                    element("td", element("ul", *(element("li", text) for text in reasons[place])), class_="why")
                )
            cells += [_tag_cell(key, tags[key][row], lang) for key, _ in tag_columns]
            if scores.consents:
                consents = {channel: values[row] for channel, values in scores.consents.items()}
                cells.append(element("td", consent_words(consents, lang)))
            made.append(element("tr", *cells, **{ROW_ATTRIBUTE: table["one_id"][row].as_py()}))
        sorted_by = say("probability" if self.sort == "risk" else "value_at_risk")
        return _table(heads, made, sorted_by, unsorted=[say("why")], class_="sortable")

    def _customer(self, row: int) -> Markup:
        """The cell of a customer's id, with its source where there are several."""
        table = self.scores.table
        source = f" {table['user_source'][row].as_py()}" if self.several_sources else ""
        return element("td", table["user_id"][row].as_py(), element("span", source, class_="soft"), class_="id")

    def next_steps(self) -> list[Markup]:
        say, n = self.say, min(COMPARED, len(self.contact))
        steps = [say("next_reason"), say("next_control", until=self.until), say("next_again")]
        total = float(self.at_risk[self.contact].sum())
        if n and total > 0:
            carried = float(self.at_risk[self.contact[:n]].sum())
            steps.insert(0, say("next_list", n=f"{n:,}", share=percent(carried / total)))
        elif n:
            steps.insert(0, say("next_list_risk"))
        return [element("h2", say("next")), element("ol", *(element("li", _with_code(step)) for step in steps))]

    def provenance(self) -> list[Markup]:
        scores, say, lang = self.scores, self.say, self.lang
        champion, snapshot = scores.champion, scores.champions.customers
        named = say("model_value", name=champion.name, version=champion.version, as_of=day(champion.bundle.as_of, lang))
        facts = [
            (say("model"), named),
            (say("profiles"), say("profiles_value", as_of=f"{scores.as_of:%Y-%m-%d %H:%M}", n=f"{len(scores):,}")),
            (say("data"), snapshot.data_digest),
            (say("command"), self.command),
        ]
        if kind := champion.bundle.facts.get("model"):
            facts.insert(1, (say("kind"), str(kind)))
        listed = [part for term, value in facts for part in (element("dt", term), element("dd", value))]
        return [
            element("h2", say("provenance")),
            element("dl", *listed, class_="facts"),
            element("p", _with_code(say("personal")), class_="soft"),
        ]


def _table(
    heads: Sequence[tuple[str, bool]],
    rows: Sequence[Markup],
    sorted_by: str | None = None,
    unsorted: Collection[str] = (),
    **attributes: object,
) -> Markup:
    """A table; each head has its text and whether the column is of numbers. Every row is a line of the file."""
    cells = [
        element(
            "th",
            text,
            scope="col",
            class_="number" if numeric else None,
            aria_sort="descending" if text == sorted_by else None,
            data_unsorted=text in unsorted,
        )
        for text, numeric in heads
    ]
    # an erasure removes whole lines: a line break within a row, which an id may have, is a blank
    lines = [Markup("\n" + " ".join(row.splitlines())) for row in rows]
    table = element(
        "table", element("thead", element("tr", *cells)), element("tbody", *lines, Markup("\n")), **attributes
    )
    return element("div", table, class_="scroll")


def _number_cell(text: str, value: float) -> Markup:
    return element("td", text, class_="number", data_value=f"{value:.6g}")


def _tag_cell(key: str, value: TagValue, lang: Lang) -> Markup:
    """A tag in words that sort as they should: dates by the calendar, stages by their order, unknown ones last."""
    order = "Infinity"  # as the script reads it
    if isinstance(value, str) and key == "next_order_date":
        order = str(date.fromisoformat(value).toordinal())
    elif value in LIFECYCLE_STAGES:
        order = str(LIFECYCLE_STAGES.index(str(value)))
    return element("td", COLUMNS[key].cell(value, lang), class_="whole", data_value=order)


def _cumulated(shares: NDArray[np.float64]) -> list[tuple[float, float]]:
    """Points of a curve from (0, 0) to (1, 1): share of the customers, and their share."""
    total = np.concatenate([[0.0], np.cumsum(shares)])
    places = np.linspace(0, len(shares), min(CURVE_POINTS, len(shares) + 1)).round().astype(int)
    return [(float(place / len(shares)), float(total[place])) for place in places.tolist()]


def _with_code(text: str) -> Markup:
    """A text in which what stands between backticks is code."""
    parts = re.split(r"`([^`]*)`", text)
    return joined(*(element("code", part) if place % 2 else part for place, part in enumerate(parts)))
