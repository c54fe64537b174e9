"""SQL of the text of one cell as people and spreadsheets write it: Excel's wrappings and words that mean "no value"."""

from __future__ import annotations

from features.data.lake import literal

# blanks, tabs, line breaks, no-break and zero-width spaces, byte order mark
EDGES = " \t\r\n\u00a0\u2007\u2009\u200b\u200c\u200d\u202f\u2060\u3000\ufeff"
# What databases, spreadsheets and data frames write for a missing number, time or truth value.
NULL_WORDS = (
    *("null", "(null)", "<null>", "\\n", "nan", "nat", "<na>", "none", "nil", "na", "n/a", "#n/a", "#na", "#nv"),
    *("#value!", "#wert!", "#ref!", "#bezug!", "#null!"),
)


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
    """SQL of the text of a number, time or truth value: without wrappings and outer blanks, null for a `NULL_WORDS`.

    Examples
    --------
    >>> import duckdb
    >>> cells = ("2024-01-06\\t", '="12.50"', " 3 ", "#N/A", "NULL", "nope")
    >>> [duckdb.execute(f"SELECT {value_text('v')} FROM (SELECT ? AS v)", [cell]).fetchone()[0] for cell in cells]
    ['2024-01-06', '12.50', '3', None, None, 'nope']
    """
    words = ", ".join(literal(word) for word in NULL_WORDS)
    edges = literal(EDGES)
    bare = (
        f"CASE WHEN lower(b) IN ('', {words}) THEN NULL "
        f"WHEN starts_with(b, '=\"') AND ends_with(b, '\"') AND length(b) > 3 "
        f"THEN trim(substr(b, 3, length(b) - 3), {edges}) "
        "WHEN starts_with(b, '''') AND length(b) > 1 THEN substr(b, 2) ELSE b END"
    )
    # the first case holds for nearly all numbers and times and is cheap
    return (
        f"CASE WHEN regexp_matches({text}, '^[0-9](.*[0-9])?$') THEN {text} "
        f"ELSE list_transform([trim({text}, {edges})], lambda b: {bare})[1] END"
    )


def is_null_word(text: str) -> str:
    """SQL condition: `text` is one of `NULL_WORDS`, in any case and with outer blanks."""
    words = ", ".join(literal(word) for word in NULL_WORDS)
    return f"lower(trim({text})) IN ({words})"
