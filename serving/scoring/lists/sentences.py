"""Statements about a customer's features: the own value beside what is usual for the customer, or for all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from features.compute.algebra import Feature
from features.definitions.recency import NEVER
from serving.scoring.lists.subjects import SUBJECTS, Subject, split_window, subject_of
from serving.scoring.lists.words import Lang, money, number, percent, pick, plural

NO_GAP = 365.0  # days: `gap_days_mean` of a customer with fewer than two orders
LAST_ORDER, MEAN_GAP, ORDERS = "days_since_last_order", "gap_days_mean", "orders_total"
ALIKE = 0.1  # share by which a value differs from the typical one at least to be told as a difference
SMALLEST_AMOUNT = 0.005  # of half a cent: what differences of float32 leave of nothing
Values: TypeAlias = Mapping[str, float | str | None]  # feature → value of one customer, None if it is unknown


@dataclass(frozen=True)
class Statement:
    """A true sentence about a customer.

    Attributes
    ----------
    text : str
        The sentence, without a full stop.
    difference : int or None
        Whether the value is above (1), equal to (0) or below (−1) the one beside it, as both are printed; None without
        another value.
    says : str
        Group of subjects to which the sentence belongs, if it is not that of the feature: without orders in a window,
        all features of orders say how long the last one is ago.
    """

    text: str
    difference: int | None = None
    says: str = ""


def statements(feature: Feature, own: Values, typical: Values, lang: Lang) -> list[Statement]:
    """State the value of a feature, each time beside another value; the closest comparison comes first.

    Parameters
    ----------
    feature : Feature
        The feature.
    own : mapping
        Values of the customer, of any features.
    typical : mapping
        Median of the customers with a score, of features that are numbers.
    lang : str
        Language.

    Returns
    -------
    list of Statement
        Empty if the customer has no such value.

    Examples
    --------
    >>> recency = Feature("days_since_last_order", "orders", "recency", default=9999.0)
    >>> own = {"days_since_last_order": 41.3, "gap_days_mean": 16.8, "orders_total": 9.0}
    >>> statements(recency, own, {}, "en")[0].text, statements(recency, own, {}, "zh")[0].text
    ('no order for 41 days; usually every 17', '已有 41 天未下单，平时约每 17 天一单')
    """
    subject, name = subject_of(feature), feature.name
    if subject.told_by:
        name = subject.told_by
        subject = SUBJECTS[split_window(name)[0]]
    value = own.get(name)
    if isinstance(value, str):
        return [Statement(pick(lang, f"{subject.en}: {value}", f"{subject.zh}：{value}"))] if value else []
    if value is None or not math.isfinite(value):
        return []
    about = _About(subject, name, value, own, typical, lang)
    tell: Mapping[str, Callable[[], Iterator[Statement]]] = {
        "recency": about.recency,
        "rhythm": about.rhythm,
        "regularity": about.regularity,
        "count": about.count,
        "amount": about.amount,
        "record": about.record,
    }
    told = list(tell[subject.kind]() if subject.kind in tell else about.measure(feature))
    last = _number(own, LAST_ORDER)
    if value == 0 and subject.kind in ("count", "amount") and feature.view in ("orders", "lines") and last is not None:
        recency = SUBJECTS[LAST_ORDER]
        ago = _About(recency, LAST_ORDER, last, own, typical, lang).recency()
        # the longer ago the last order is, the fewer there are: a difference of the other sign
        turned = [one if one.difference is None else replace(one, difference=-one.difference) for one in ago]
        told = [replace(one, says=recency.group) for one in (*turned, *told)]
    compared = [one for one in told if one.difference is not None]
    return compared or told


@dataclass(frozen=True)
class _About:
    """Words the value of one feature of one customer."""

    subject: Subject
    name: str
    value: float
    own: Values
    typical: Values
    lang: Lang

    def say(self, english: str, chinese: str) -> str:
        return pick(self.lang, english, chinese)

    def days(self, days: float) -> str:
        return self.say(f"{number(days)} {plural(days, 'day', 'days')}", f"{number(days)} 天")

    def beside(self, first: str, second: str, value: float, other: float, mark: str = "; ") -> Statement:
        """Two halves of a sentence, and how their values compare."""
        return Statement(first + self.say(mark, "，") + second, (value > other) - (value < other))

    def beside_typical(self, first: str, shown: Callable[[float], str], value: float | None = None) -> Statement:
        """The value beside that of the typical customer, if it is known; about the same counts as equal."""
        middle = _number(self.typical, self.name)
        if middle is None or middle >= NEVER:
            return Statement(first)
        value = self.value if value is None else value
        alike = shown(value) == shown(middle) or abs(value - middle) < ALIKE * max(abs(value), abs(middle))
        second = self.say(f"{shown(middle)} is typical", f"一般客户为 {shown(middle)}")
        return self.beside(first, second, middle if alike else value, middle)

    def recency(self) -> Iterator[Statement]:
        en, zh = self.subject.en, self.subject.zh
        if self.value >= NEVER:
            yield Statement(self.say(f"no {en} on record", f"没有{zh}记录"))
            return
        days = math.floor(self.value)
        silent = self.say(f"no {en} for {self.days(days)}", f"已有 {days} 天未{zh}")
        recent = self.say(f"last {en} {self.days(days)} ago", f"{days} 天前{zh}过")
        if days < 1:
            silent = recent = self.say(f"last {en} less than a day ago", f"不到 1 天前{zh}过")
        gap = _own_gap(self.own) if self.name == LAST_ORDER else None
        if gap is not None:
            # "no order for 41 days; usually every 17", "last order 2 days ago; usually every 17 days"
            late = days > gap > 1
            usual = self.say(f"usually every {gap if late else self.days(gap)}", f"平时约每 {gap} 天一单")
            yield self.beside(silent if days > gap else recent, usual.replace("every 1 day", "every day"), days, gap)
        middle = _number(self.typical, self.name)
        first = silent if middle is None or days > middle else recent
        yield self.beside_typical(first, lambda some: self.days(math.floor(some)), days)

    def rhythm(self) -> Iterator[Statement]:
        if (gap := _own_gap({**self.own, MEAN_GAP: self.value})) is None:
            if self.own.get(ORDERS) == 1:
                yield Statement(self.say("only one order so far", "至今只有一单"))
            return
        window = split_window(self.name)[1]
        first = self.say(f"an order every {self.days(gap)}", f"平均每 {gap} 天一单")
        if window is not None:
            first = self.say(f"{first} in the last {self.days(window)}", f"近 {window} 天{first}")
        middle = _number(self.typical, self.name)
        if middle is None or middle >= NO_GAP:
            yield Statement(first)
            return
        usual = max(1, round(middle))
        if abs(gap - usual) < ALIKE * max(gap, usual):
            usual = gap
        second = self.say(f"every {usual} is typical", f"一般客户约每 {usual} 天一单")
        yield self.beside(first, second, gap, usual)

    def count(self) -> Iterator[Statement]:
        stem, days = split_window(self.name)
        singular, many = self.subject.en.split("|")
        shown, unit = number(self.value), self.say("", f" {self.subject.zh.partition('{}')[2].strip()[:1]}")
        noun = plural(self.value, singular, many) if shown != "0" else singular
        counted = self.say(f"{'no' if shown == '0' else shown} {noun}", self.subject.zh.format(shown))

        def with_unit(some: float) -> str:
            return number(some) + unit

        if days is None:
            yield self.beside_typical(self.say(f"{counted} so far", f"累计{counted}"), with_unit)
            return
        first = self.say(f"{counted} in the last {self.days(days)}", f"近 {days} 天{counted}")
        if (longer := _number(self.own, f"{stem}_{2 * days}d")) is not None:
            before = longer - self.value
            second = self.say(f"{number(before)} in the {days} before", f"再往前 {days} 天为 {number(before)}{unit}")
            yield self.beside(first, second, self.value, before, ", ")
        yield self.beside_typical(first, with_unit)

    def amount(self) -> Iterator[Statement]:
        stem, days = split_window(self.name)
        shown = money(self.value)
        if days is None:
            yield self.beside_typical(self.say(f"{shown} spent so far", f"累计消费 {shown}"), money)
            return
        first = self.say(f"{shown} spent in the last {self.days(days)}", f"近 {days} 天消费 {shown}")
        slope = _number(self.own, f"{stem}_slope_{days}d")  # change a day from the equally long window before
        before = self.value - days * slope if slope is not None else 0.0
        if before >= SMALLEST_AMOUNT:
            change = self.value / before - 1.0
            share = percent(abs(change))
            if self.value < SMALLEST_AMOUNT:
                first = self.say(f"nothing spent in the last {self.days(days)}", f"近 {days} 天没有消费")
                second = self.say(f"{money(before)} in the {days} before", f"再往前 {days} 天为 {money(before)}")
                yield self.beside(first, second, 0.0, before, ", ")
            elif share != percent(0.0):
                more = change > 0
                yield Statement(
                    self.say(
                        f"spends {share} {'more' if more else 'less'} than in the {days} days before",
                        f"近 {days} 天的消费比再往前 {days} 天{'多' if more else '少'} {share}",
                    ),
                    1 if more else -1,
                )
        yield self.beside_typical(first, money)

    def regularity(self) -> Iterator[Statement]:
        spread = number(round(self.value))
        varies = self.say(f"± {spread} days", f"波动 {spread} 天")
        told = self.beside_typical(varies, lambda some: number(round(some)) + self.say("", " 天"))
        how = {1: ("irregular orders", "下单不规律"), -1: ("regular orders", "下单规律")}
        en, zh = how.get(told.difference or 0, ("gaps between orders", "下单间隔"))
        yield replace(told, text=self.say(f"{en}: {told.text}", f"{zh}：{told.text}"))

    def record(self) -> Iterator[Statement]:
        en, zh = self.subject.en, self.subject.zh
        middle = _number(self.typical, self.name)
        difference = None if middle is None else (self.value > middle) - (self.value < middle)
        if self.value:
            yield Statement(self.say(f"no profile of the customer in {en}", f"{zh}没有该客户的资料"), difference)
        else:
            yield Statement(self.say(f"{en} has a profile of the customer", f"{zh}有该客户的资料"), difference)

    def measure(self, feature: Feature) -> Iterator[Statement]:
        if self.value == feature.default and self.value in (NEVER, NO_GAP):
            return
        of_days = "days" in split_window(self.name)[0].split("_") or self.subject.group == "tenure"

        def shown(some: float) -> str:
            if of_days:
                return self.days(round(some))
            if feature.unit == "currency":
                return money(some)
            return percent(some) if feature.unit == "0..1" else number(some)

        days = split_window(self.name)[1]
        if days is None or self.subject.en == feature.description:  # descriptions name their window
            first = self.say(f"{self.subject.en}: {shown(self.value)}", f"{self.subject.zh}：{shown(self.value)}")
        else:
            first = self.say(
                f"{self.subject.en} in the last {self.days(days)}: {shown(self.value)}",
                f"近 {days} 天{self.subject.zh}：{shown(self.value)}",
            )
        yield self.beside_typical(first, shown)


def _own_gap(own: Values) -> int | None:
    """Days between the customer's orders, rounded, at least 1; None with fewer than two orders."""
    gap, orders = _number(own, MEAN_GAP), _number(own, ORDERS)
    return None if gap is None or gap >= NO_GAP or (orders is not None and orders < 2) else max(1, round(gap))


def _number(values: Values, name: str) -> float | None:
    value = values.get(name)
    return value if isinstance(value, int | float) and math.isfinite(value) else None
