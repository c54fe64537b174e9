"""Words in times: months, halves of a day and time zones, and the expressions that turn them into numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable

from features.data.lake import literal

_ENGLISH = (
    *("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november"),
    "december",
)
# the months in other languages, as dates write them (genitive in Polish and Russian); abbreviations begin like them
_MONTHS: tuple[tuple[str, ...], ...] = tuple(
    tuple(months.split())
    for months in (
        "januar februar märz april mai juni juli august september oktober november dezember",
        "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
        "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
        "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
        "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
        "januari februari maart april mei juni juli augustus september oktober november december",
        "stycznia lutego marca kwietnia maja czerwca lipca sierpnia września października listopada grudnia",
        "января февраля марта апреля мая июня июля августа сентября октября ноября декабря",
    )
)
_STEM = 3  # letters that tell months apart, or one more
HALVES = {"上午": "AM", "下午": "PM", "午前": "AM", "午後": "PM", "오전": "AM", "오후": "PM"}
# names of zones with one usual offset; CST, EST, IST and BST have several
_OFFSETS = {
    **{"GMT": "+0000", "UTC": "+0000", "PST": "-0800", "PDT": "-0700", "MDT": "-0600", "EDT": "-0400"},
    **{"CET": "+0100", "CEST": "+0200", "JST": "+0900"},
}


def month_words(words: Iterable[str], column: str) -> tuple[str, str] | None:
    """Code of `strptime` for the months of the given words, and the text that it reads; None for an unknown language.

    Examples
    --------
    >>> month_words(["Jan", "Feb"], "date"), month_words(["March"], "date")
    (('%b', 'date'), ('%B', 'date'))
    """
    found = {word.casefold() for word in words}
    if found <= {month[:3] for month in _ENGLISH}:
        return "%b", column
    if found <= set(_ENGLISH):
        return "%B", column
    months = next((names for names in _MONTHS if all(any(n.startswith(w) for n in names) for w in found)), None)
    if months is None or any(len(word) < _STEM for word in found):
        return None
    stems = [name[: _STEM + (sum(other[:_STEM] == name[:_STEM] for other in months) > 1)] for name in months]
    alternatives = "|".join(stems)
    stem = f"regexp_extract(lower({column}), '{alternatives}')"
    word = rf"regexp_extract(lower({column}), '({alternatives})\pL*')"
    # without `coalesce` an unknown month would be a missing time and no error
    number = f"coalesce(list_position([{', '.join(map(literal, stems))}], {stem})::VARCHAR, '?')"
    return "%m", f"replace(lower({column}), {word}, {number})"


def half_days(words: Iterable[str], text: str) -> str:
    """Expression of a text in which AM and PM stand for halves of a day in Chinese, Japanese or Korean."""
    found = set(words)
    pair = next(pair for pair in (("上午", "下午"), ("午前", "午後"), ("오전", "오후")) if found & set(pair))
    for word in pair:
        text = f"replace({text}, '{word}', '{HALVES[word]} ')"
    return text


def zone_names(ends: Iterable[str], text: str) -> tuple[str, str] | None:
    """Expression of a text in which offsets stand for the names of zones, and the names with a doubtful offset.

    Parameters
    ----------
    ends : iterable of str
        What follows the clock times: names of zones or offsets.

    Returns
    -------
    tuple of (str, str) or None
        The expression and the assumption in words, empty if there is none; None if a name may mean several offsets.
    """
    names = sorted({end.strip() for end in ends if not re.fullmatch(r" ?[+-]\d{2}:?\d{2}", end)})
    if not set(names) <= _OFFSETS.keys():
        return None
    for name in names:
        text = f"replace({text}, '{name}', '{_OFFSETS[name]}')"
    doubtful = [f"{name} is read as {_OFFSETS[name]}" for name in names if _OFFSETS[name] != "+0000"]
    return text, ", ".join(doubtful)
