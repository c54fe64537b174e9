"""Numbers, dates and fixed words of lists and reports, in English and Chinese."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import Literal, TypeAlias

from features.profiles.tags.chinese import YES_NO_ZH, ChineseTag
from qianmian.schema import CONSENT_CHANNELS
from serving.responses import NEVER_BOUGHT, UNKNOWN_CUSTOMER

Lang: TypeAlias = Literal["en", "zh"]
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
CHANNELS: Mapping[str, tuple[str, str]] = {
    "email": ("e-mail", "邮件"),
    "sms": ("SMS", "短信"),
    "push": ("push", "推送"),
}
YES_NO_UNKNOWN: Mapping[bool | None, tuple[str, str]] = {
    True: ("yes", YES_NO_ZH[True]),
    False: ("no", YES_NO_ZH[False]),
    None: ("unknown", "未知"),
}
SEPARATORS = {"en": " · ", "zh": "；"}
PREDICTION_NAMES: Mapping[str, tuple[str, str]] = {
    "lifecycle": ("lifecycle", "生命周期"),
    "churn": ("churn", "流失"),
    "left": ("having left", "离开"),
    "value": ("value", "价值"),
    "contact": ("contact", "触达"),
    "demand": ("demand type", "需求类型"),
    "propensity": ("propensities", "购买倾向"),
    "clusters": ("behaviour cluster", "行为分群"),
}
INACTIVE, SHARED = re.compile(r"no purchase in the last ([\d.]+) days?"), re.compile(r"shared account: (\d+%)")
LONG_WINDOW = re.compile(r"a window of (\d+) days, which a history of (\d+) days would be enough for")
TOO_LITTLE = re.compile(r"fewer than (\d+) (orders|days with an event)")
NO_SCORE_ZH = {
    NEVER_BOUGHT: "从未购买",
    UNKNOWN_CUSTOMER: "未知客户",
    "no order or event": "没有订单或行为记录",
    "too few purchases and events to tell a demand type": "购买和行为太少，无法判断需求类型",
}


def pick(lang: Lang, english: str, chinese: str) -> str:
    """The text of a language."""
    return chinese if lang == "zh" else english


def number(value: float) -> str:
    """A number for a sentence: at most one decimal place below 100, none above, with separators of thousands.

    Examples
    --------
    >>> [number(value) for value in (4.0, 8.54, 0.04, 123.4, 12345.6)]
    ['4', '8.5', '0', '123', '12,346']
    """
    rounded = round(value, 1) if abs(value) < 100 else round(value)
    return f"{rounded:,.0f}" if rounded == int(rounded) else f"{rounded:,.1f}"


def money(value: float) -> str:
    """An amount for a sentence: two decimal places below 100, none above; the data name no currency.

    Examples
    --------
    >>> [money(value) for value in (8.5, 12.0, 1234.4)]
    ['8.50', '12.00', '1,234']
    """
    return f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"


def percent(share: float, places: int = 0) -> str:
    """A share in percent.

    Examples
    --------
    >>> percent(0.384), percent(0.1279, 1)
    ('38%', '12.8%')
    """
    return f"{share:.{places}%}"


def plural(count: float, singular: str, many: str) -> str:
    """The word for a count as it is printed by `number`.

    Examples
    --------
    >>> plural(1, "order", "orders"), plural(0, "order", "orders"), plural(1.04, "order", "orders")
    ('order', 'orders', 'order')
    """
    return singular if number(count) == "1" else many


def day(moment: date | datetime, lang: Lang) -> str:
    """A date in words.

    Examples
    --------
    >>> day(datetime(2018, 1, 28), "en"), day(date(2018, 1, 28), "zh")
    ('28 January 2018', '2018年1月28日')
    """
    return pick(
        lang,
        f"{moment.day} {MONTHS[moment.month - 1]} {moment.year}",
        f"{moment.year}年{moment.month}月{moment.day}日",
    )


def day_of_text(value: str, lang: Lang) -> str:
    """A date of an ISO text in words; another text stays.

    Examples
    --------
    >>> day_of_text("2018-01-28", "en"), day_of_text("soon", "en")
    ('28 January 2018', 'soon')
    """
    try:
        return day(date.fromisoformat(value), lang)
    except ValueError:
        return value


def yes_no(value: bool | None, lang: Lang) -> str:
    """Yes, no or unknown."""
    return pick(lang, *YES_NO_UNKNOWN[value])


def tag_value(words: ChineseTag | None, value: object, lang: Lang) -> str:
    """The value of a tag in words, such as a stage or a band; open text stays.

    Parameters
    ----------
    words : ChineseTag or None
        The Chinese words of the tag.

    Examples
    --------
    >>> from features.profiles.tags.chinese import CHINESE
    >>> stage = CHINESE["lifecycle_stage"]
    >>> tag_value(stage, "at_risk", "en"), tag_value(stage, "at_risk", "zh"), tag_value(None, "GROCERY_A", "en")
    ('at risk', '流失预警', 'GROCERY_A')
    """
    if isinstance(value, bool):
        return yes_no(value, lang)
    chinese = words.value(value) if words is not None else None
    if chinese is None:
        return str(value)
    return pick(lang, str(value).replace("_", " "), chinese)


def channel_name(channel: str, lang: Lang) -> str:
    """A channel in words; one that is not known stays.

    Examples
    --------
    >>> channel_name("email", "en"), channel_name("sms", "zh"), channel_name("flyer", "zh")
    ('e-mail', '短信', 'flyer')
    """
    return pick(lang, *CHANNELS.get(channel, (channel, channel)))


def consent_words(consents: Mapping[str, bool | None], lang: Lang) -> str:
    """The consents of a customer by channel.

    Examples
    --------
    >>> consent_words({"email": True, "sms": False}, "en"), consent_words({"email": None}, "zh")
    ('e-mail: yes · SMS: no', '邮件：未知')
    """
    colon = pick(lang, ": ", "：")
    return SEPARATORS[lang].join(
        f"{channel_name(channel, lang)}{colon}{yes_no(consents[channel], lang)}"
        for channel in CONSENT_CHANNELS
        if channel in consents
    )


def no_score_words(reason: str, lang: Lang) -> str:
    """The reason why there is no score, as `serving.scoring` gives it, in words of the language.

    Examples
    --------
    >>> no_score_words("no purchase in the last 56 days", "zh"), no_score_words("never bought", "en")
    ('近 56 天没有购买', 'never bought')
    >>> no_score_words("shared account: 38% of all order lines, 6.0 orders a day", "zh")
    '共用账号：占全部订单行的 38%'
    """
    if lang == "en":
        return reason
    if found := INACTIVE.fullmatch(reason):
        return f"近 {found[1]} 天没有购买"
    if found := SHARED.match(reason):
        return f"共用账号：占全部订单行的 {found[1]}"
    if found := LONG_WINDOW.fullmatch(reason):
        return f"判定离开需观察 {found[1]} 天，至少要有 {found[2]} 天的历史数据"
    if found := TOO_LITTLE.fullmatch(reason):
        return f"不足 {found[1]} {'单' if found[2] == 'orders' else '个有行为的日子'}"
    return NO_SCORE_ZH.get(reason, reason)


def why_not(value: str | Mapping[str, str | None], lang: Lang) -> str:
    """Why there is no score, or for each of several predictions why there is none of it.

    Examples
    --------
    >>> why_not({"churn": "no purchase in the last 56 days", "value": None}, "zh")
    '流失：近 56 天没有购买'
    """
    if isinstance(value, str):
        return no_score_words(value, lang)
    colon = pick(lang, ": ", "：")
    return SEPARATORS[lang].join(
        f"{pick(lang, *PREDICTION_NAMES.get(name, (name, name)))}{colon}{no_score_words(reason, lang)}"
        for name, reason in value.items()
        if reason is not None
    )
