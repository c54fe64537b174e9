"""Words, numbers and addresses that stand where an id should be: they mean "no value" and never link two records."""

from __future__ import annotations

import re

from features.data.lake import literal
from features.data.sources.cells import NULL_WORDS

PLACEHOLDER_WORDS = (
    *NULL_WORDS,
    *("undefined", "unknown", "unknown?", "missing", "empty", "not available", "not set", "(not set)", "(none)"),
    *("(empty)", "(unknown)", "-", "--", "---", "?", "??", ".", "...", "/", "_", "n.a.", "k.a.", "keine angabe"),
    *("keine", "unbekannt", "inconnu", "desconocido", "sconosciuto", "desconhecido", "onbekend"),
    *("00000000-0000-0000-0000-000000000000", "无", "無", "空", "空值", "未知", "暂无", "暫無", "不详", "没有", "缺失"),
    *("なし", "不明", "없음"),
)
# In a customer id, zero is what shops write for a guest.
CUSTOMER_WORDS = ("0", "0.0", "-1")
# "1.38001E+10", "1,38001E+10", "1.38E10"; not "12E5" or "6E10", which may be article numbers
SCIENTIFIC_PATTERN = r"[+-]?[0-9]+([.,][0-9]+)?[eE]\+[0-9]{1,3}|[+-]?[0-9][.,][0-9]+[eE][0-9]{1,3}"
# e-mail addresses of nobody: a mailbox that says so, or a name and a domain that are both made up
_NO_MAILBOX = (
    r"(none|null|nomail|noemail|no[-_.]?e?mail|no[-_.]?reply|do[-_.]?not[-_.]?reply|nobody|unknown|undefined|n/a)"
)
_MADE_UP = r"(test|tester|e?mail|e-mail|user|name|example|abcd?|xx+|aa+|asdf?|no|na|nil|nan|n/a|a|x)"
_NO_DOMAIN = r"(none|noe?mail|no-email|null|invalid|localhost|test|example|domain|email|na|no|abcd?|xx+|aa+|asdf?|a|x)"
EMAIL_PLACEHOLDER_PATTERN = (
    rf"{_NO_MAILBOX}@.*|{_MADE_UP}@{_NO_DOMAIN}(\.[a-z.]+)?|.*@(none|noe?mail|no-email|null|invalid|localhost)(\.[a-z]+)?"
    r"|.*@.*\.invalid"
)
REPEATED_DIGIT_DOMAINS = ("phone", "phone_verified", "card")
MIN_REPEATED_DIGITS = 7


def is_placeholder(name: str, text: str, blank: bool = False) -> str:
    """SQL condition: the id `text` of column `name` is a word for "no value", or with `blank` has no character.

    Examples
    --------
    >>> import duckdb
    >>> texts = ("NULL", "n/a", "无", "0", "1", "11", "123.0")
    >>> condition = is_placeholder("source_user_id", "v")
    >>> [duckdb.execute(f"SELECT {condition} FROM (SELECT ? AS v)", [text]).fetchone()[0] for text in texts]
    [True, True, True, True, False, False, False]
    """
    words = PLACEHOLDER_WORDS + (CUSTOMER_WORDS if name == "source_user_id" else ())
    # a pattern, because DuckDB joins the rows with a list of so many words, also where no row needs it
    pattern = rf"(?i)\p{{Zs}}*(?:{'|'.join(map(re.escape, words))}){'?' if blank else ''}\p{{Zs}}*"
    return f"regexp_full_match({text}, {literal(pattern)})"


def is_scientific(text: str) -> str:
    """SQL condition: `text` is a number in scientific notation."""
    # cheap conditions first: it begins with a blank, a sign or a digit, and has an E
    return (
        f"CASE WHEN {text} >= ':' AND {text} < '~' THEN false WHEN contains({text}, 'E') OR contains({text}, 'e') "
        f"THEN regexp_full_match(trim({text}), {literal(SCIENTIFIC_PATTERN)}) ELSE false END"
    )


def is_empty_identifier(id_type: str, text: str) -> str:
    """SQL condition: the identifier `text` is a value that many people have: a placeholder of its type.

    Parameters
    ----------
    id_type, text : str
        SQL of the normalised id type, and of the value.
    """
    domains = ", ".join(literal(domain) for domain in REPEATED_DIGIT_DOMAINS)
    repeated = (
        f"list_transform([regexp_replace({text}, '[^0-9]', '', 'g')], "
        f"lambda d: length(d) >= {MIN_REPEATED_DIGITS} AND replace(d, left(d, 1), '') = '')[1]"
    )
    mail = f"regexp_full_match(lower(trim({text})), {literal(EMAIL_PLACEHOLDER_PATTERN)})"
    return (
        f"{is_placeholder('id_value', text)} OR {is_scientific(text)} OR CASE WHEN contains({text}, '@') THEN {mail} "
        f"WHEN {id_type} IN ({domains}) AND NOT regexp_matches({text}, '[[:alpha:]]') THEN {repeated} ELSE false END"
    )
