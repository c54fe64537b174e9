"""SQL that recognises personal data by its values: e-mail addresses, telephone numbers, documents, cards, addresses."""

from __future__ import annotations

import re
from collections.abc import Mapping

import duckdb

from features.data.lake import literal, quote
from features.data.personal_names import type_of_columns

EMAIL_PATTERN = r"[^@\s\"\\,;:<>]+@[^@\s\"\\,;:<>]+\.[A-Za-z]{2,}"
PHONE_PATTERN = r"\+[0-9][0-9 ().-]{7,18}"
# Mobile numbers in the national form of their country; blanks, dashes and slashes are removed first.
_NATIONAL_MOBILES = (
    *(
        r"1[3-9][0-9]{9}",
        r"01[567][0-9]{8,9}",
        r"07[0-9]{9}",
        r"0[67][0-9]{8}",
        r"0[789]0[0-9]{8}",
        r"01[016789][0-9]{7,8}",
    ),
    *(r"04[0-9]{8}", r"(00)?861[3-9][0-9]{9}"),
)
NATIONAL_MOBILE_PATTERN = "|".join(_NATIONAL_MOBILES)
# Forms that only telephone numbers are written in: an area code in brackets, the groups of North America.
WRITTEN_PHONE_PATTERN = (
    r"([0-9]{1,3} ?)?\(0?[0-9]{2,4}\)[ -]?[0-9]{3,5}([ -]?[0-9]{2,5}){0,3}|"
    r"(1[-. ])?[2-9][0-9]{2}[-.][2-9][0-9]{2}[-.][0-9]{4}"
)
# A number with a plus, also behind a word such as "tel:"
NAMED_PHONE_PATTERN = rf"(?i)((tel|phone|mobile|whatsapp|sms|fax)[:. ]*)?{PHONE_PATTERN}"
# Identity numbers that are known by their form: the Brazilian CPF and the American SSN as they are written, the Italian
# codice fiscale with the letter of its month.
WRITTEN_DOCUMENT_PATTERN = (
    r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}|(00[1-9]|0[1-9][0-9]|[1-57-9][0-9]{2}|6[0-57-9][0-9]|66[0-57-9])-[0-9]{2}-[0-9]{4}|"
    r"(?i:[A-Z]{6}[0-9LMNPQRSTUV]{2}[A-EHLMPRST][0-9LMNPQRSTUV]{2}[A-Z][0-9LMNPQRSTUV]{3}[A-Z])"
)
_STREET_WORDS = (
    "stra(ß|ss)e|str\\.|gasse|allee|platz|weg|street|st\\.?|avenue|ave\\.?|road|rd\\.?|lane|drive|rue|boulevard|"
    "calle|avenida|via|viale|piazza|rua|straat|laan|ulica|ul\\."
)
ADDRESS_PATTERN = (
    rf"(?i).*({_STREET_WORDS})[ ,]+.*[0-9].*|[0-9]+[a-z]?,? .*\b({_STREET_WORDS})( .*|,.*)?|"
    r".*[\p{Han}](路|街|道|巷|弄|小区|大厦|花园|村|镇).*[0-9]+.*(号|室|栋|幢|楼|单元|弄).*"
)
SHARE = 0.5  # of the values of a column; a note that holds one address does not make the column personal
ID_SHARE = 0.8  # customer numbers of eleven digits may look like a few mobile numbers
SAMPLE_ROWS = 20_000
_CHINESE_ID = r"[1-9][0-9]{5}(19|20)[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])[0-9]{3}[0-9Xx]"
_CARD_PREFIXES = "4[0-9]{15}|5[1-5][0-9]{14}|2[2-7][0-9]{14}|3[47][0-9]{13}|62[0-9]{14,17}"
_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


def _compact(text: str) -> str:
    return rf"regexp_replace({text}, '[ ()./-]', '', 'g')"


def is_phone(text: str) -> str:
    """SQL condition: a telephone number, international or a mobile number in a national form.

    Examples
    --------
    >>> import duckdb
    >>> texts = ("13800138000", "0171 2345678", "+44 7700 900123", "10001", "2024-01-05")
    >>> [duckdb.execute(f"SELECT {is_phone('v')} FROM (SELECT ? AS v)", [text]).fetchone()[0] for text in texts]
    [True, True, True, False, False]
    """
    return (
        f"regexp_full_match(trim({text}), {literal(f'{NAMED_PHONE_PATTERN}|{WRITTEN_PHONE_PATTERN}')}) "
        f"OR regexp_full_match({_compact(text)}, {literal(NATIONAL_MOBILE_PATTERN)})"
    )


def is_chinese_id(text: str) -> str:
    """SQL condition: a Chinese identity number with its check digit (GB 11643, ISO 7064 mod 11-2)."""
    weights = ", ".join(str(weight) for weight in _ID_WEIGHTS)
    total = f"list_sum(list_transform(range(1, 18), lambda i: substr({text}, i, 1)::INTEGER * [{weights}][i]))"
    check = f"substr('10X98765432', (({total}) % 11 + 1)::INTEGER, 1) = upper(right({text}, 1))"
    return f"CASE WHEN regexp_full_match({text}, {literal(_CHINESE_ID)}) THEN {check} ELSE false END"


def is_card_number(text: str) -> str:
    """SQL condition: a payment card number of 15 to 19 digits with its check digit (Luhn)."""
    digits = f"reverse({_compact(text)})"
    doubled = "(d * 2) // 10 + (d * 2) % 10"
    digit = f"substr({digits}, i, 1)::INTEGER"
    total = (
        f"list_sum(list_transform(range(1, length({digits}) + 1), "
        f"lambda i: list_transform([{digit}], lambda d: CASE WHEN i % 2 = 0 THEN {doubled} ELSE d END)[1]))"
    )
    return (
        f"CASE WHEN regexp_full_match({_compact(text)}, {literal(_CARD_PREFIXES)}) THEN {total} % 10 = 0 ELSE false END"
    )


def is_cpf(text: str) -> str:
    """SQL condition: a Brazilian CPF of eleven digits with its two check digits (mod 11)."""
    digit = f"substr({text}, i, 1)::INTEGER"
    checks = " AND ".join(
        f"(10 * list_sum(list_transform(range(1, {at}), lambda i: {digit} * ({at} + 1 - i)))) % 11 % 10 "
        f"= substr({text}, {at}, 1)::INTEGER"
        for at in (10, 11)
    )
    repeated = f"replace({text}, left({text}, 1), '') = ''"
    return f"CASE WHEN regexp_full_match({text}, '[0-9]{{11}}') THEN NOT {repeated} AND {checks} ELSE false END"


def is_document(text: str) -> str:
    """SQL condition: an identity or account number, known by its check digits or by a form that nothing else has.

    Examples
    --------
    >>> import duckdb
    >>> texts = ("529.982.247-25", "52998224725", "52998224726", "RSSMRA85T10A562S", "078-05-1120", "000-12-3456")
    >>> [duckdb.execute(f"SELECT {is_document('v')} FROM (SELECT ? AS v)", [text]).fetchone()[0] for text in texts]
    [True, True, False, True, True, False]
    """
    written = f"regexp_full_match({text}, {literal(WRITTEN_DOCUMENT_PATTERN)})"
    return f"{written} OR {is_chinese_id(text)} OR {is_cpf(text)} OR {is_iban(text)}"


def is_iban(text: str) -> str:
    """SQL condition: an IBAN with its check digits (ISO 13616)."""
    bare = f"upper(replace({text}, ' ', ''))"
    moved = f"substr({bare}, 5) || left({bare}, 4)"
    digits = (
        f"list_aggregate(list_transform(string_split({moved}, ''), lambda c: "
        "CASE WHEN c BETWEEN 'A' AND 'Z' THEN (ascii(c) - 55)::VARCHAR ELSE c END), 'string_agg', '')"
    )
    # the remainder digit by digit, because the number has up to 64 digits
    remainder = (
        f"list_reduce(list_transform(string_split({digits}, ''), lambda c: c::INTEGER), lambda a, d: (a * 10 + d) % 97)"
    )
    return (
        f"CASE WHEN regexp_full_match({bare}, '[A-Z]{{2}}[0-9]{{2}}[A-Z0-9]{{11,30}}') THEN {remainder} = 1 "
        "ELSE false END"
    )


RECOGNISERS: Mapping[str, tuple[str, ...]] = {
    "email": (f"regexp_matches(v, {literal(EMAIL_PATTERN)})",),
    "phone": (is_phone("v"),),
    "document": (is_document("v"),),
    "card": (is_card_number("v"),),
    "address": (f"regexp_full_match(trim(v), {literal(ADDRESS_PATTERN)})",),
}


def types_by_value(
    connection: duckdb.DuckDBPyConnection, rows: str, columns: list[str], share: float = SHARE
) -> dict[str, str]:
    """Type of personal data of each column of which at least `share` of the values are such data.

    Parameters
    ----------
    rows : str
        SELECT with the columns, as text.

    Returns
    -------
    dict of str to str
        Column → type; columns that hold no personal data are left out.
    """
    found = {}
    for name in columns:
        counts = ", ".join(f"count(*) FILTER ({' OR '.join(conditions)})" for conditions in RECOGNISERS.values())
        sample = f"SELECT trim({quote(name)}) AS v FROM ({rows}) WHERE trim({quote(name)}) <> '' LIMIT {SAMPLE_ROWS}"
        row = connection.execute(f"SELECT count(*), {counts} FROM ({sample})").fetchone() or (0,)
        for kind, count in zip(RECOGNISERS, row[1:], strict=False):
            if row[0] and count >= share * row[0]:
                found[name] = kind
                break
    return found


# What an id in a column looks like whose name says that it holds personal data; other ids of the column are numbers or
# codes. An e-mail address is refused wherever it stands, and a loyalty card or a login is a good customer id.
_IDEOGRAPHS = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]{2}"
_NAMED_FORMS: Mapping[str, str] = {
    "phone": f"regexp_full_match({_compact('v')}, '[+]?[0-9]{{7,15}}')",
    "document": "regexp_full_match(v, '[0-9A-Za-z ./-]{6,24}') AND regexp_matches(v, '([0-9][^0-9]*){5}')",
    "name": rf"regexp_matches(v, '\p{{L}}[ .,''-]+\p{{L}}|^[^0-9]*\p{{L}}[^0-9]*$|{_IDEOGRAPHS}')",
    "address": rf"regexp_matches(v, '\p{{L}}.*[ ,].*[0-9]|[0-9].*[ ,].*\p{{L}}|{_IDEOGRAPHS}')",
}
_NICKNAMES = "(?i)nick|昵称|暱稱|旺旺|wangwang"  # logins, as shops call them


def customer_ids_are_personal(connection: duckdb.DuckDBPyConnection, rows: str, mapped: str) -> str | None:
    """SQL condition of the customer ids that are personal data other than e-mail addresses; None if there are none.

    Numbers of customers may look like telephone numbers, so the whole column decides: nearly all ids look like mobile
    numbers and are spread as such, or are in a form that only telephone or identity numbers have; or many look like
    the personal data that the column of the file is called after.

    Parameters
    ----------
    rows : str
        SELECT with the column ``source_user_id``, as text.
    mapped : str
        SQL of the expression that the source maps to it.
    """
    digits = "regexp_replace(v, '[^0-9]', '', 'g')"
    sample = (
        # first the distinct texts, because trimming is slow
        f"SELECT DISTINCT trim(v) AS v FROM (SELECT DISTINCT source_user_id AS v FROM ({rows})) WHERE trim(v) <> '' "
        f"LIMIT {SAMPLE_ROWS}"
    )
    kind = None if re.search(_NICKNAMES, mapped) else type_of_columns(mapped)
    named = _NAMED_FORMS.get(kind or "", "false")
    phone, document = is_phone("v"), f"{is_document('v')} OR {is_card_number('v')}"
    # no customer number is written with blanks, brackets or dashes as a telephone number is
    written = f"({phone}) AND regexp_matches(v, '[ ()./-]')"
    row = connection.execute(
        f"SELECT count(*), count(*) FILTER ({named}), count(*) FILTER ({document}), count(*) FILTER ({written}), "
        f"count(*) FILTER ({phone}), max(TRY_CAST({digits} AS HUGEINT)) - min(TRY_CAST({digits} AS HUGEINT)) "
        f"FROM ({sample})"
    ).fetchone()
    total, like_name, documents, written_phones, phones, spread = row or (0, 0, 0, 0, 0, 0)
    if not total:
        return None
    if like_name >= SHARE * total:
        return _over("source_user_id", named)
    if documents >= ID_SHARE * total:
        return _over("source_user_id", document)
    # numbers that were given out one after the other lie close together
    spread_out = phones >= ID_SHARE * total and total > 1 and spread > 100 * total
    if spread_out or written_phones >= ID_SHARE * total:
        return _over("source_user_id", phone)
    return None


def _over(column: str, condition: str) -> str:
    """A condition over ``v`` as one over the trimmed text of a column."""
    return f"coalesce(list_transform([trim({quote(column)})], lambda v: {condition})[1], false)"
