"""Values of people's records that stand for "not known": they are left out before records are compared."""

from __future__ import annotations

import duckdb

from features.data.lake import literal, quote
from features.data.placeholders import EMAIL_PLACEHOLDER_PATTERN, is_placeholder

# First and last days of calendars and computers, and the first of January 1900, in the form "yearmonthday".
PLACEHOLDER_BIRTH_DATES = (
    *("19000101", "19000102", "18991230", "18991231", "19010101", "19700101", "19691231", "00010101", "00000000"),
    *("15821015", "16010101", "17530101", "18000101", "99991231", "20991231", "11111111"),
)
MIN_HOLDERS = 10  # fewer records may be one person and those who share the birthday by chance
# A birth date that so many of the records share is the default of a form; a first of January is one more often.
MAX_SHARE, MAX_SHARE_FIRST_OF_JANUARY = 0.05, 0.01


def remove_placeholders(connection: duckdb.DuckDBPyConnection, table: str) -> dict[str, int]:
    """Set placeholders in `birth_date`, `national_id` and `email` of the cleaned records to null.

    Parameters
    ----------
    table : str
        Table of the connection with the cleaned records.

    Returns
    -------
    dict of str to int
        Field → number of records whose value was a placeholder; fields without one are left out.
    """
    dates = ", ".join(literal(date) for date in PLACEHOLDER_BIRTH_DATES)
    share = f"CASE WHEN ends_with(birth_date, '0101') THEN {MAX_SHARE_FIRST_OF_JANUARY} ELSE {MAX_SHARE} END"
    shared = (
        f"SELECT birth_date FROM {table} WHERE birth_date IS NOT NULL GROUP BY 1 "
        f"HAVING count(*) > greatest({MIN_HOLDERS}, {share} * (SELECT count(birth_date) FROM {table}))"
    )
    conditions = {
        "birth_date": f"birth_date IN ({dates}) OR birth_date IN ({shared})",
        "national_id": "length(national_id) >= 4 AND replace(national_id, left(national_id, 1), '') = '' OR "
        + is_placeholder("national_id", "national_id"),
        "email": f"regexp_full_match(email, {literal(EMAIL_PLACEHOLDER_PATTERN)})",
    }
    found = {}
    for name, condition in conditions.items():
        row = connection.execute(f"SELECT count(*) FROM {table} WHERE {condition}").fetchone()
        if row and row[0]:
            found[name] = int(row[0])
            connection.execute(f"UPDATE {table} SET {quote(name)} = NULL WHERE {condition}")
    return found
