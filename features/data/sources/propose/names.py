"""Which canonical column the name of a column means, and which canonical value a value means."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Mapping

from features.data.sources.currencies import CURRENCY_CODES
from features.data.sources.propose.words import NAMES, ONLY_WHOLE, OTHER_WORDS

_BRACKETS = re.compile(r"\([^()]*\)|\[[^\[\]]*\]|\{[^{}]*\}|【[^】]*】")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")  # languages that write no blanks between words
_LETTERS = str.maketrans({"ł": "l", "ø": "o", "đ": "d", "ı": "i"})
_UNITS = frozenset(
    {*(code.lower() for code in CURRENCY_CODES), "in", "pcs", "kg", "utc", "gmt", "元", "円", "원", "件"}
)
_OF = frozenset({"de", "da", "do", "di", "del", "du", "des", "d", "of", "per", "por", "pro", "par", "за"})
# a name that matches as a whole is more certain than its first words, and these more than its last ones
_HEAD, _LAST = 1_000, 2_000


def simplified(text: str) -> str:
    """A text without case, accents and full-width forms; Japanese and Korean characters keep their marks.

    Examples
    --------
    >>> simplified("Quantité"), simplified("ＳＫＵ"), simplified("Ilość"), simplified("주문")
    ('quantite', 'sku', 'ilosc', '주문')
    """
    decomposed = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", text).casefold().translate(_LETTERS))
    return unicodedata.normalize("NFC", re.sub("[\u0300-\u036f]", "", decomposed))


def words(name: str) -> list[str]:
    """The words of a column name without text in brackets and without units at its end.

    Examples
    --------
    >>> words("Quantity (- Refund)"), words("orderId"), words("event_value_in_usd"), words("金额(元)")
    (['quantity'], ['order', 'id'], ['event', 'value'], ['金额'])
    """
    name = unicodedata.normalize("NFKC", name)
    name = _BRACKETS.sub(" ", name).strip() or name
    found = [word for word in re.split(r"[\W_]+", simplified(_CAMEL.sub(" ", name))) if word]
    while len(found) > 1 and found[-1] in _UNITS:
        found.pop()
    return found


def plain(name: str) -> str:
    """A column name without case, accents, blanks, punctuation, text in brackets and units.

    Examples
    --------
    >>> plain("Order-ID "), plain("订单 编号")
    ('orderid', '订单编号')
    """
    return "".join(words(name))


def rank_of(column: str, name: str) -> int | None:
    """Place of a name among those of a canonical column, 0 for the most certain; None if it is none of them.

    A name is compared as a whole, then without what follows `of`, then by its last words. Its last words do not count
    if another word says that the column is about something else.

    Examples
    --------
    >>> rank_of("order_id", "Order ID"), rank_of("order_id", "Colour"), rank_of("amount", "Shipping Amount")
    (0, None, None)
    >>> rank_of("ts", "Data da venda") < rank_of("ts", "Data de emissão") < rank_of("ts", "Reporting Date")
    True
    """
    known, parts = _known(column), words(name)
    if "".join(parts) in known:
        return known["".join(parts)]
    other = _other_words(column)
    if any(word in other for word in parts) or (
        _UNSPACED.search(name) and any(word in "".join(parts) for word in other if _UNSPACED.match(word))
    ):
        return None
    head = next((parts[:at] for at, word in enumerate(parts) if word in _OF), [])
    if "".join(head) in known:
        return _HEAD + known["".join(head)]
    for start in range(max(len(parts) - 3, 1), len(parts)):
        last = "".join(parts[start:])
        if last in known and last not in _only_whole():
            return _LAST + known[last]
    if parts and _UNSPACED.search(parts[-1]):
        ends = [
            place
            for known_name, place in known.items()
            if len(known_name) > 1 and _UNSPACED.match(known_name) and parts[-1].endswith(known_name)
        ]
        return _LAST + min(ends) if ends else None
    return None


def has_no_blanks(name: str) -> bool:
    """Whether a name is in Chinese, Japanese or Korean."""
    return bool(_UNSPACED.search(name))


@functools.lru_cache(maxsize=10_000)
def is_known(name: str) -> bool:
    """Whether a text is a name of a canonical column."""
    return any(rank_of(column, name) is not None for column in NAMES)


@functools.cache
def _known(column: str) -> dict[str, int]:
    """Plain name → its place among the names of a column."""
    return {plain(name): place for place, name in reversed(list(enumerate(NAMES[column].split(", "))))}


@functools.cache
def _other_words(column: str) -> frozenset[str]:
    return frozenset(simplified(word) for word in OTHER_WORDS.get(column, "").split(", ") if word)


@functools.cache
def _only_whole() -> frozenset[str]:
    return frozenset(plain(name) for name in ONLY_WHOLE.split(", "))


def canonical_of(value: str, known: Mapping[str, str]) -> str | None:
    """The canonical value that a value of the file means, None if it is not known.

    Examples
    --------
    >>> from features.data.sources.propose.words import BEHAVIOURS, STATUSES
    >>> canonical_of("交易关闭", STATUSES), canonical_of("PV", BEHAVIOURS), canonical_of("Partially-Refunded", STATUSES)
    ('cancelled', 'view', 'paid')
    """
    wanted = _letters(value)
    return next((canonical for canonical, listed in known.items() if wanted in _value_words(listed)), None)


def _letters(value: str) -> str:
    """A value without case, accents, blanks and punctuation, with text in brackets: `(deleted) paid` is not `paid`."""
    return re.sub(r"[\W_]+", "", simplified(value))


@functools.cache
def _value_words(listed: str) -> frozenset[str]:
    return frozenset(_letters(word) for word in listed.split(", "))
