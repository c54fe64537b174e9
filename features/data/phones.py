"""Normalisation of telephone numbers: the spellings of one number become one text, before it is hashed."""

from __future__ import annotations

from collections.abc import Mapping

from features.data.lake import literal

# The prefix of a national number that is left out in its international form; elsewhere it is "0".
_TRUNK_PREFIXES: Mapping[str, str] = {
    **{"1": "1", "7": "8", "36": "06", "39": "", "378": ""},
    **dict.fromkeys(("30", "34", "45", "47", "48", "65", "351", "352", "420", "852", "853"), ""),
}
MIN_NATIONAL_DIGITS = 8  # a number that begins with the calling code has at least so many digits after it
_MIN_NATIONAL_DIGITS: Mapping[str, int] = {"39": 9}  # Italian mobile numbers begin with 39, too


def normalized_phone(value: str, country: str | None = None) -> str:
    """SQL of the digits of a telephone number, with ``+`` and the calling code if it has one; '' if it has no digit.

    Parameters
    ----------
    value : str
        SQL of the text; it has no letters.
    country : str, optional
        Calling code of numbers without one. With it, all spellings of one number are equal: ``138 0013 8000``,
        ``+86 138…``, ``0086 138…`` and ``86138…``. Without it, a number in national form stays as it is.

    Examples
    --------
    >>> import duckdb
    >>> texts = ("13800138000", "+86 138 0013 8000", "8613800138000", "13800138000.0", "010-65001234")
    >>> def read(country):
    ...     query = f"SELECT {normalized_phone('v', country)} FROM (SELECT ? AS v)"
    ...     return [duckdb.execute(query, [text]).fetchone()[0] for text in texts]
    >>> read("86")
    ['+8613800138000', '+8613800138000', '+8613800138000', '+8613800138000', '+861065001234']
    >>> read(None)
    ['13800138000', '+8613800138000', '8613800138000', '13800138000', '01065001234']
    """
    # a data frame with missing numbers writes whole numbers as 13800138000.0
    whole = rf"regexp_replace(trim({value}), '^([+]?[0-9]{{5,}})\.0+$', '\1')"
    digits = f"regexp_replace(replace({whole}, '(0)', ''), '[^0-9]', '', 'g')"
    international = f"regexp_matches(trim({value}), '^(\\+|00)')"
    return (
        f"CASE WHEN {digits} = '' THEN '' WHEN {international} THEN '+' || ltrim({digits}, '0') "
        f"ELSE {_with_country(digits, country) if country else digits} END"
    )


def _with_country(digits: str, country: str) -> str:
    trunk = _TRUNK_PREFIXES.get(country, "0")
    shortest = len(country) + _MIN_NATIONAL_DIGITS.get(country, MIN_NATIONAL_DIGITS)
    national = f"regexp_replace({digits}, {literal('^' + trunk)}, '')" if trunk else digits
    return (
        f"CASE WHEN starts_with({digits}, {literal(country)}) AND length({digits}) >= {shortest} THEN '+' || {digits} "
        f"ELSE {literal('+' + country)} || {national} END"
    )
