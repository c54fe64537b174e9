"""Whom to contact and whom not, with the reason: every customer of a list is one or the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.definitions.recency import NEVER
from qianmian.model_settings import ListsSettings
from qianmian.schema import CONSENT_CHANNELS, RISK_BANDS
from serving.responses import NEVER_BOUGHT
from serving.scoring.lists.words import CHANNELS, Lang, no_score_words, number, pick, plural

CONTACT = "contact"
# why not, in the order in which the reasons are looked for: code → heading of the group, English and Chinese
NOT_CONTACTED: Mapping[str, tuple[str, str]] = {
    "shared_account": ("shared account, no single customer", "共用账号，不是单个客户"),
    "never_bought": ("no score: never bought", "无评分：从未购买"),
    "not_active": ("no score: no purchase for too long", "无评分：太久没有购买"),
    "no_score": ("no score for another reason", "无评分：其他原因"),
    "no_consent": ("no consent for any channel", "所有渠道均未许可触达"),
    "recently_contacted": ("contacted too recently", "近期刚触达过"),
    "unlikely_to_return": ("unlikely to return", "回头可能性很低"),
    "low_risk": ("low risk: likely to order anyway", "低风险：不触达也很可能下单"),
}
NO_SCORE = tuple(NOT_CONTACTED)[:4]


@dataclass(frozen=True)
class Contacts:
    """Whether to contact each of n customers.

    Attributes
    ----------
    codes : ndarray of str, shape (n,)
        `CONTACT`, or a key of `NOT_CONTACTED`.
    words : callable
        Row and language → why, in words.
    """

    codes: NDArray[np.str_]
    words: Callable[[int, Lang], str]

    @property
    def counts(self) -> dict[str, int]:
        """Number of customers of each code that occurs; they add up to all customers."""
        found = {code: int((self.codes == code).sum()) for code in (CONTACT, *NOT_CONTACTED)}
        return {code: count for code, count in found.items() if count}


def contacts_of(
    no_score_reasons: Sequence[str | None],
    bands: Sequence[str | None],
    consents: Mapping[str, Sequence[bool | None]],
    contacted_days: NDArray[np.float32] | None,
    left: NDArray[np.float64] | None,
    settings: ListsSettings,
) -> Contacts:
    """Decide for n customers.

    Parameters
    ----------
    no_score_reasons : sequence of n str or None
        Why a customer has no score.
    bands : sequence of n str or None
        Risk bands.
    consents : mapping of str to sequence
        Channel → consent of each customer; channels without any are missing.
    contacted_days : ndarray of float32, shape (n,), optional
        Days since the last campaign contact.
    left : ndarray of float64, shape (n,), optional
        Probability that the customer has left, NaN where it is unknown.
    settings : ListsSettings
    """
    n = len(no_score_reasons)
    given = np.zeros(n, dtype=bool)
    refused = np.zeros(n, dtype=bool)
    for values in consents.values():
        given |= np.array([value is True for value in values], dtype=bool)
        refused |= np.array([value is False for value in values], dtype=bool)
    days = np.full(n, NEVER) if contacted_days is None else contacted_days
    unlikely = np.zeros(n, dtype=bool) if left is None else np.nan_to_num(left) >= settings.unlikely_to_return
    codes = np.full(n, CONTACT, dtype=object)
    for code, applies in (  # the last one that applies stays, so the order is that of `NOT_CONTACTED` from its end
        ("low_risk", np.array([band == RISK_BANDS[0] for band in bands], dtype=bool)),
        ("unlikely_to_return", unlikely),
        ("recently_contacted", days < settings.contact_pause_days),
        ("no_consent", refused & ~given),  # a channel of which nothing is told does not outweigh a refusal
    ):
        codes[applies] = code
    for row, reason in enumerate(no_score_reasons):
        if reason is not None:
            codes[row] = _no_score_code(reason)

    def words(row: int, lang: Lang) -> str:
        code = str(codes[row])
        reason = no_score_reasons[row]
        if reason is not None:
            return no_score_words(reason, lang)
        if code == "recently_contacted":
            ago = int(days[row])
            return pick(
                lang,
                f"contacted {number(ago)} {plural(ago, 'day', 'days')} ago" if ago else "contacted less than a day ago",
                f"{ago} 天前触达过" if ago else "不到 1 天前触达过",
            )
        if code != CONTACT:
            return pick(lang, *NOT_CONTACTED[code])
        allowed = [channel for channel in CONSENT_CHANNELS if channel in consents and consents[channel][row] is True]
        if not allowed:
            return pick(lang, "no consent on record: check before writing", "没有许可记录，触达前请核实")
        names = pick(lang, ", ", "、").join(pick(lang, *CHANNELS[channel]) for channel in allowed)
        return pick(lang, f"allowed: {names}", f"许可渠道：{names}")

    return Contacts(codes.astype(np.str_), words)


def _no_score_code(reason: str) -> str:
    if reason.startswith("shared account"):
        return "shared_account"
    if reason.startswith("no purchase"):
        return "not_active"
    return "never_bought" if reason == NEVER_BOUGHT else "no_score"
