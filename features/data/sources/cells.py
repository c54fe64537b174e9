"""SQL of the text of one cell as people and spreadsheets write it: Excel's wrappings and words that mean "no value"."""

from __future__ import annotations

import re
from collections.abc import Iterable

from features.data.lake import literal

# One character that is not seen: white space, control and format characters (also those of right-to-left text), blanks
# that count as letters. A class of DuckDB's regular expressions.
INVISIBLE = r"[\p{Z}\p{Cc}\p{Cf}\x{034F}\x{115F}\x{1160}\x{180E}\x{2800}\x{3164}\x{FE00}-\x{FE0F}\x{FFA0}]"
# What databases, spreadsheets and data frames write for a missing value; in any case, also in brackets or quotes.
NULL_WORDS = ("null", "\\n", "nan", "nat", "none", "nil", "na", "n/a")
# What a spreadsheet shows where a formula failed or a column is too narrow: "#N/A", "#NV", "#NAME?", "#¡VALOR!", "###"
ERROR_PATTERN = r"#n/?[adv]|#n/\p{L}+|#[¡¿]?[\p{L}/0]+[!?]|#{2,}"
_OPENING, _CLOSING = r"[\[({<\"'`]*", r"[\])}>\"'`]*"


def enclosed(words: Iterable[str]) -> str:
    """Regular expression of one of `words`, also in brackets or quotes."""
    return f"{_OPENING}(?:{'|'.join(map(re.escape, words))}){_CLOSING}"


NULL_PATTERN = rf"(?i)(?:{enclosed(NULL_WORDS)}|{ERROR_PATTERN})"


def trimmed(text: str) -> str:
    """SQL of `text` without invisible characters at its ends."""
    return f"regexp_replace({text}, {literal(f'^{INVISIBLE}+|{INVISIBLE}+$')}, '', 'g')"


def unwrapped(text: str) -> str:
    r"""SQL of `text` without the wrappings that keep Excel from changing a long number; other text is unchanged.

    They are ``="00412"``, a leading apostrophe and a tab at either end. A blank belongs to the text.

    Examples
    --------
    >>> import duckdb
    >>> cells = ('="00412"', "'00412", "00412\t", "o'neill", " 00412")
    >>> [duckdb.execute(f"SELECT {unwrapped('v')} FROM (SELECT ? AS v)", [cell]).fetchone()[0] for cell in cells]
    ['00412', '00412', '00412', "o'neill", ' 00412']
    """
    # inside a lambda, because DuckDB computes what occurs twice in a query for all rows, also where no row needs it
    bare = (
        "CASE WHEN regexp_full_match(b, '=\"[^\"]*\"') THEN trim(substr(b, 3, length(b) - 3), '\t') "
        r"WHEN regexp_full_match(b, '''[\p{L}\p{N}][^''\s]*') THEN substr(b, 2) ELSE b END"
    )
    return (
        f"CASE WHEN {may_be_wrapped(text)} THEN list_transform([trim({text}, '\t')], lambda b: {bare})[1] "
        f"ELSE {text} END"
    )


def may_be_wrapped(text: str) -> str:
    """SQL condition: `text` has a character of a wrapping at one of its ends; cheap."""
    ends = " OR ".join(f"starts_with({text}, {literal(one)})" for one in ("=", "'", "\t"))
    return f"({ends} OR ends_with({text}, '\t'))"


def value_text(text: str) -> str:
    """SQL of the text of a number, time or truth value: without wrappings and outer blanks, null for `NULL_PATTERN`.

    Examples
    --------
    >>> import duckdb
    >>> cells = ("2024-01-06\\t", '="12.50"', " 3 ", "#N/A", "[NULL]", "nope")
    >>> [duckdb.execute(f"SELECT {value_text('v')} FROM (SELECT ? AS v)", [cell]).fetchone()[0] for cell in cells]
    ['2024-01-06', '12.50', '3', None, None, 'nope']
    """
    bare = (
        "CASE WHEN b = '' OR n THEN NULL "
        "WHEN starts_with(b, '=\"') AND ends_with(b, '\"') AND length(b) > 3 THEN trim(substr(b, 3, length(b) - 3)) "
        "WHEN starts_with(b, '''') AND length(b) > 1 THEN substr(b, 2) ELSE b END"
    )
    # The first case holds for nearly all numbers and times and is cheap. The regular expressions are outside of the
    # lambda, which would compile them for every chunk of rows.
    return (
        f"CASE WHEN regexp_matches({text}, '^[0-9](.*[0-9])?$') THEN {text} "
        f"ELSE list_transform([{trimmed(text)}], lambda b: list_transform([{is_null_word(text)}], "
        f"lambda n: {bare})[1])[1] END"
    )


def is_null_word(text: str) -> str:
    """SQL condition: `text` is a word or an error value that means "no value" (`NULL_PATTERN`), with outer blanks."""
    return f"regexp_full_match({text}, {literal(f'{INVISIBLE}*{NULL_PATTERN}{INVISIBLE}*')})"
