"""Which columns are personal data and stored as hashes, and which customer ids and identifiers are refused."""

from __future__ import annotations

from collections.abc import Mapping

import duckdb

from features.data.lake import literal, quote
from features.data.personal_names import personal_data_type, type_of_columns
from features.data.personal_values import EMAIL_PATTERN, NAMED_PHONE_PATTERN, customer_ids_are_personal, types_by_value
from features.data.placeholders import is_empty_identifier
from features.data.privacy import HASH_PATTERN, HASH_PREFIX, SOURCE_HASH_PATTERN, PersonalDataHasher
from features.data.sources.base import RawTable
from features.data.sources.cells import is_null_word
from qianmian.errors import DataError
from qianmian.schema import Table

CONTACT_AS_ID_REASON = (
    "source_user_id is an e-mail address or a telephone number: map the customer number of your system, or a hash of it"
)
PERSONAL_AS_ID_REASON = (
    "source_user_id is personal data (a name, an address, a telephone, identity or card number): map the customer "
    "number of your system, or a hash of it"
)


def personal_columns(
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    raw_table: RawTable,
    rows: str,
    types: Mapping[str, str],
    stored: Mapping[str, str],
) -> dict[str, str]:
    """Columns that are stored as hashes, with the type of personal data that is the hash domain.

    Identifiers are; attributes of a profile are if they are declared private, or their name, the name of their column
    in the file or most of their values indicate personal data, or the lake already has hashes of the attribute. The
    type of these hashes stays, so that equal values have equal hashes whatever a later file looks like.

    Parameters
    ----------
    rows : str
        SELECT of the raw values by canonical column.
    types : mapping of str to str
        SQL type of each of them.
    stored : mapping of str to str
        Attribute that the lake stores as hashes → type of personal data.

    Raises
    ------
    DataError
        If a declared attribute is not mapped.
    """
    if table.name == "identities":
        return {"id_value": "id_value"}
    rules = raw_table.values
    if table.name != "profiles":
        return {}
    for key, declared in (("private", rules.private), ("readable", rules.readable)):
        wrong = [name for name in declared if name not in types or table.column(name) is not None]
        if wrong:
            raise DataError(
                f"tables.{table.name}.{key} names a column that is no mapped attribute",
                got=", ".join(wrong),
                allowed=", ".join(name for name in types if table.column(name) is None) or "no attribute is mapped",
                hint="attributes are the columns that Qianmian does not define itself",
            )
    own = [name for name in types if table.column(name) is None and name not in rules.readable]
    found: dict[str, str] = {}
    unknown = []
    for name in own:
        kind = personal_data_type(name) or type_of_columns(raw_table.columns[name])
        if name in rules.private or (types[name] != "BOOLEAN" and (kind or name in stored)):
            found[name] = stored.get(name) or kind or name
        elif types[name] == "VARCHAR":
            unknown.append(name)
    told = ", ".join(
        f"CASE WHEN NOT {is_null_word(quote(name))} THEN {quote(name)} END AS {quote(name)}" for name in unknown
    )
    found |= types_by_value(connection, f"SELECT {told} FROM ({rows})", unknown)
    return found | {name: name for name in _hashed_in_lake(connection, unknown) if name not in found}


def _hashed_in_lake(connection: duckdb.DuckDBPyConnection, names: list[str]) -> list[str]:
    """Those attributes of which the lake has hashes; one that an earlier version wrote does not know their types."""
    known = {str(row[0]) for row in connection.execute("DESCRIBE lake_profiles").fetchall()}
    names = [name for name in names if name in known]
    if not names:
        return []
    counts = ", ".join(f"bool_or(starts_with({quote(name)}::VARCHAR, {literal(HASH_PREFIX)}))" for name in names)
    found = connection.execute(f"SELECT {counts} FROM lake_profiles").fetchone() or ()
    return [name for name, hashed in zip(names, found, strict=True) if hashed]


def personal_id_cases(
    connection: duckdb.DuckDBPyConnection, raw_table: RawTable, rows: str, types: Mapping[str, str]
) -> list[tuple[str, str]]:
    """(SQL condition, reason) of rows whose customer id is personal data."""
    if "source_user_id" not in types:
        return []
    contact = (
        f"CASE WHEN contains(source_user_id, '@') THEN regexp_matches(source_user_id, {literal(EMAIL_PATTERN)}) "
        "WHEN contains(source_user_id, '+') "
        f"THEN regexp_full_match(trim(source_user_id), {literal(NAMED_PHONE_PATTERN)}) ELSE false END"
    )
    cases = [(contact, CONTACT_AS_ID_REASON)]
    ids = f"SELECT source_user_id::VARCHAR AS source_user_id FROM ({rows})"
    national = customer_ids_are_personal(connection, ids, raw_table.columns["source_user_id"])
    if national is not None:
        cases.append((national, PERSONAL_AS_ID_REASON))
    return cases


def identity_cases(personal: PersonalDataHasher, hashed: bool) -> list[tuple[str, str]]:
    """(SQL condition, reason) of sightings whose type or identifier is invalid; a placeholder is valid and no value."""
    # A reason contains neither type nor value: if the two columns were swapped, the type is a telephone number.
    id_type = "lower(trim(id_type))"
    cases = [
        (
            f"NOT ({personal.is_declared(id_type)})",
            f"id_type is not one that identity.id_types declares ({personal.declared})",
        )
    ]
    secret = (
        f"{personal.is_personal(id_type)} AND NOT regexp_matches(id_value, {literal(HASH_PATTERN)}) "
        f"AND NOT ({is_empty_identifier(id_type, 'id_value')})"
    )
    if hashed:
        cases.append(
            (
                f"{secret} AND NOT regexp_matches(id_value, {literal(SOURCE_HASH_PATTERN)})",
                "id_value is not a hash, although the source sets hashed: true",
            )
        )
    else:
        cases.append(
            (f"{secret} AND {personal.normalized(id_type, 'id_value')} = ''", "id_value is empty after normalisation")
        )
    return cases
