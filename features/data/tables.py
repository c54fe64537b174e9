"""The tables of the lake that no source maps, because ingest makes them from the others."""

from __future__ import annotations

from collections.abc import Mapping

from qianmian.schema import TABLES, Column, Table

CUSTOMERS = Table(
    "customers",
    ("source", "source_user_id"),
    (
        Column("one_id", "string", "customer id", required=True),
        Column("source", "string", "source system"),
        Column("source_user_id", "string", "user id in the source system", required=True),
        Column("valid_from", "timestamp", "first seen; null (always valid) if any row is undated", unit="UTC"),
        Column("ledger_id", "string", "merge decision that made the row"),
    ),
)
TOLD = "_told"
LOGGED = "_logged"  # in a lake with accepted events: true for the rows that only they have told
_KEY = ("source", "source_user_id", "valid_from")
# A row with `valid_from` holds the changing attributes from then to the next row of the record; a row without it holds
# the fixed ones, which are always valid.
PROFILE_HISTORY = Table(
    "profile_history",
    _KEY,
    (
        Column("source", "string", "source system"),
        Column("source_user_id", "string", "user id in the source system", required=True),
        Column("valid_from", "timestamp", "the values hold from then on; null: always", unit="UTC"),
        Column(TOLD, "string", "the cells that rows of the input told, and when (features.data.ingest.observations)"),
        *(column for column in TABLES["profiles"].columns if column.name not in _KEY),
    ),
    keeps_extra_columns=True,
)
LAKE_TABLES: dict[str, Table] = {**TABLES, CUSTOMERS.name: CUSTOMERS, PROFILE_HISTORY.name: PROFILE_HISTORY}
FIXED_BY_NATURE = ("birth_date", "gender", "registered_at")  # a registration date is not known before that date


def undated_history(
    columns: Mapping[str, str], profiles: str, timestamp: str = "TIMESTAMP", text: str = "VARCHAR"
) -> str:
    """SELECT of the profile history of a lake without that table: what is fixed by nature, and nothing else.

    Parameters
    ----------
    columns : mapping of str to str
        Columns of `profiles`, with their quoted names.
    profiles : str
        Name of the relation with the current profiles.
    timestamp, text : str
        Names of the types of a timestamp without zone, and of a text.

    Examples
    --------
    >>> undated_history({"gender": "gender", "city": "city"}, "profiles").split("_told, ")[1]
    'gender, CASE WHEN false THEN city END AS city FROM profiles WHERE gender IS NOT NULL'
    """
    attributes = [name for name in columns if name not in _KEY]
    chosen = [
        columns[name] if name in FIXED_BY_NATURE else f"CASE WHEN false THEN {columns[name]} END AS {columns[name]}"
        for name in attributes
    ]
    known = " OR ".join(f"{name} IS NOT NULL" for name in FIXED_BY_NATURE if name in columns)
    moments = f"CAST(NULL AS {timestamp}) AS valid_from, CAST(NULL AS {text}) AS {TOLD}"
    return f"SELECT {', '.join(['source, source_user_id', moments, *chosen])} FROM {profiles} WHERE {known or 'false'}"
