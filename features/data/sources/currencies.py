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
_SIGNS: Mapping[str, str] = {
    **{
        "EUR": "€ euro euros 欧元 歐元 ユーロ 유로 евро",
        "GBP": "£ sterling 英镑 英鎊 ポンド 파운드",
        "INR": "₹ rupee 卢比",
    },
    **{
        "RUB": "₽ р руб рубль 卢布 盧布 ルーブル",
        "KRW": "₩ 원 won 韩元 韓元 ウォン",
        "ILS": "₪ shekel",
        "VND": "₫ đ 越南盾",
    },
    **{
        "TRY": "₺ tl lira",
        "USD": "$ us$ dollar dollars доллар 美元 美金 ドル 米ドル 달러",
        "AUD": "a$ au$ 澳元",
        "PLN": "zł",
    },
    **{"CAD": "c$ ca$ 加元", "NZD": "nz$ 新西兰元", "HKD": "hk$ 港币 港幣 港元", "TWD": "nt$ 新台币 新臺幣 台币 臺幣"},
    **{
        "BRL": "r$ real",
        "SGD": "s$ 新加坡元 新币",
        "JPY": "jp¥ 円 yen 日元 日圆 日圓 엔",
        "CZK": "kč",
        "HUF": "ft forint",
    },
    **{"CNY": "cn¥ 元 圆 rmb cnh yuan renminbi 人民币 人民幣 人民元 위안 юань", "CHF": "fr sfr franken 瑞士法郎"},
    **{"THB": "฿ baht 泰铢 泰銖 バーツ", "¥": "￥"},
}
# What stands for a currency, in capital letters → its code. "¥" is yen or yuan, and "kr" a krone of several countries.
CODES: Mapping[str, str] = {sign.upper(): code for code, signs in _SIGNS.items() for sign in signs.split()} | {
    f"{country} DOLLAR": code for country, code in {"US": "USD", "AUSTRALIAN": "AUD", "CANADIAN": "CAD"}.items()
}
# Columns of a file that hold the currency of its amounts, as `features.data.personal_names.spelled` writes them.
CURRENCY_COLUMNS = frozenset(
    {
        *("currency", "currency code", "currencycode", "order currency", "presentment currency", "cur", "ccy"),
        *("iso currency", "waehrung", "wahrung", "wahrungscode", "devise", "monnaie", "moneda", "divisa", "valuta"),
        *("moeda", "valuuta", "waluta", "mena", "valute", "币种", "货币", "幣種", "货币单位", "通貨", "통화", "валюта"),
    }
)
# In the first ones, three digits after a separator are always thousands; in the others they are after a comma.
NO_DECIMALS, COMMA_GROUPS = "JPY|KRW|VND|₩|원|円|₫", "[¥￥元圆]|CNY|RMB"
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
    >>> [code_of(text) for text in ("eur", "€", "￥", "US$", "$", "RMB", "Fr.", "日元", "XOF")]
    ['EUR', 'EUR', '¥', 'USD', 'USD', 'CNY', 'CHF', 'JPY', 'XOF']
    """
    text = text.strip().rstrip(".").upper()
    return CODES.get(text, text)


def currency_code(text: str) -> str:
    """SQL of `code_of` of the text of a cell; null for an empty cell."""
    cases = " ".join(f"WHEN {literal(sign)} THEN {literal(code)}" for sign, code in CODES.items())
    return f"list_transform([upper(rtrim(trim({text}), '.'))], lambda c: nullif(CASE c {cases} ELSE c END, ''))[1]"


def is_currency(text: str) -> str:
    """SQL condition: `text` is a known code, sign or name of a currency."""
    known = ", ".join(literal(text) for text in sorted({*CURRENCY_CODES, *CODES.values(), *CODES}))
    return f"upper(rtrim(trim({text}), '.')) IN ({known})"


def currency_in_amount(text: str) -> str:
    """SQL of the currency sign or code inside an amount such as ``12.50 EUR``; null if there is none."""
    found = f"regexp_extract({text}, {literal(CURRENCY_TOKEN)})"
    return f"CASE WHEN regexp_matches({text}, '[^-+0-9.,'' ()]') THEN {currency_code(found)} END"


def listed(currencies: Iterable[str]) -> str:
    """Currencies for a message, at most five of them."""
    names = sorted(currencies)
    return ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
