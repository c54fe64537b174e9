"""Currencies: codes and signs in amounts, columns that name a currency, and rates that make one currency of several.

Amounts of several currencies are never added up: either a table gives a rate for each, or its rows are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from features.data.lake import literal

# The codes of ISO 4217 that shops use; three letters of any kind would take "12 PCS" for a currency.
CURRENCY_CODES = (
    *("AED", "ARS", "AUD", "BGN", "BRL", "CAD", "CHF", "CLP", "CNH", "CNY", "COP", "CZK", "DKK", "EGP", "EUR", "GBP"),
    *("HKD", "HRK", "HUF", "IDR", "ILS", "INR", "ISK", "JPY", "KES", "KRW", "KZT", "LKR", "MAD", "MOP", "MXN", "MYR"),
    *("NGN", "NOK", "NZD", "PEN", "PHP", "PKR", "PLN", "QAR", "RMB", "RON", "RSD", "RUB", "SAR", "SEK", "SGD", "THB"),
    *("TRY", "TWD", "UAH", "USD", "VND", "ZAR"),
)
_NAMES = "kr|Ft|Fr"
_OTHER_NAMES = r"元|円|圆|圓|원|zł|Kč|руб\.?|р\.?"  # `\b` of RE2 knows only ASCII letters
CURRENCY_TOKEN = (
    rf"({'|'.join(CURRENCY_CODES)}|(US|AU|CA|NZ|HK|NT|R|A|C|S|CN|JP)?\p{{Sc}}|({_NAMES})\b\.?|{_OTHER_NAMES})"
)
SIGN_CODES: Mapping[str, str] = {
    **{"€": "EUR", "£": "GBP", "₹": "INR", "₽": "RUB", "₩": "KRW", "원": "KRW", "₪": "ILS", "₫": "VND", "₺": "TRY"},
    **{"US$": "USD", "A$": "AUD", "AU$": "AUD", "C$": "CAD", "CA$": "CAD", "NZ$": "NZD", "HK$": "HKD", "NT$": "TWD"},
    **{"R$": "BRL", "S$": "SGD", "CN¥": "CNY", "JP¥": "JPY", "RMB": "CNY", "CNH": "CNY", "円": "JPY", "元": "CNY"},
    **{"zł": "PLN", "Kč": "CZK", "￥": "¥"},
}
# Columns of a file that hold the currency of its amounts, in the form that `features.data.personal_names.words` gives.
CURRENCY_COLUMNS = frozenset(
    {
        *("currency", "currency code", "currencycode", "order currency", "presentment currency", "cur", "ccy"),
        *("iso currency", "waehrung", "wahrung", "wahrungscode", "devise", "monnaie", "moneda", "divisa", "valuta"),
        *("moeda", "valuuta", "waluta", "mena", "valute", "币种", "货币", "幣種", "货币单位", "通貨", "통화", "валюта"),
    }
)
MONEY_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "transactions": ("amount", "discount", "coupon_discount"),
    "items": ("price",),
    "events": ("value",),
}


@dataclass(frozen=True)
class CurrencyRule:
    """The currency of the amounts of one table.

    Attributes
    ----------
    column : str or None
        SQL of the currency of a row; None: the sign or code inside the amount.
    to : str or None
        Currency in which amounts are stored.
    rates : mapping of str to float
        Currency → units of `to` for one unit of it; the rate of `to` itself is 1.
    """

    column: str | None = None
    to: str | None = None
    rates: Mapping[str, float] = field(default_factory=dict)

    def rate(self, currency: str) -> str:
        """SQL of the factor for an amount; `currency` is SQL of a code in the form of `currency_code`."""
        known = {code_of(name): rate for name, rate in self.rates.items()}
        if self.to:
            known.setdefault(code_of(self.to), 1.0)
        cases = " ".join(f"WHEN {literal(code)} THEN {rate!r}" for code, rate in known.items())
        return f"CASE {currency} {cases} END"


def code_of(text: str) -> str:
    """A currency code or sign in its normal form.

    Examples
    --------
    >>> [code_of(text) for text in ("eur", "€", "￥", "US$", "RMB")]
    ['EUR', 'EUR', '¥', 'USD', 'CNY']
    """
    text = text.strip().rstrip(".")
    return SIGN_CODES.get(text) or SIGN_CODES.get(text.upper()) or text.upper()


def currency_code(text: str) -> str:
    """SQL of `code_of` of the text of a cell; null for an empty cell."""
    cases = " ".join(f"WHEN {literal(sign)} THEN {literal(code)}" for sign, code in SIGN_CODES.items())
    return f"list_transform([rtrim(trim({text}), '.')], lambda c: nullif(CASE c {cases} ELSE upper(c) END, ''))[1]"


def currency_in_amount(text: str) -> str:
    """SQL of the currency sign or code inside an amount such as ``12.50 EUR``; null if there is none."""
    found = f"regexp_extract({text}, {literal(CURRENCY_TOKEN)})"
    return f"CASE WHEN regexp_matches({text}, '[^-+0-9.,'' ()]') THEN {currency_code(found)} END"


def listed(currencies: Iterable[str]) -> str:
    """Currencies for a message, at most five of them."""
    names = sorted(currencies)
    return ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
