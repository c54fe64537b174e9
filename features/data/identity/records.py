"""Store records of people: read them from files and clean them for comparison.

Nothing in this module writes to the workspace.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from features.data.identity.placeholder_fields import remove_placeholders
from features.data.lake import literal, quote
from features.data.placeholders import is_scientific
from features.data.sources.base import RawTable
from features.data.sources.casting import cast
from features.data.sources.files import FileSource
from qianmian.errors import ConfigError, DataError
from qianmian.schema import Column, Table

RECORD_KEY = ("source", "source_user_id")
RECORDS = Table(
    "records",
    ("source_user_id",),
    (
        Column("source_user_id", "string", "id of the record in its source system", required=True),
        Column("full_name", "string", "given name and surname in one column"),
        Column("given_name", "string", "first name"),
        Column("surname", "string", "family name"),
        Column("birth_date", "string", "date, or text with the digits of year, month and day in this order"),
        Column("street_number", "string", "house number"),
        Column("address", "string", "street, first line of the address"),
        Column("address_2", "string", "second line of the address"),
        Column("suburb", "string", "suburb, town or city"),
        Column("postcode", "string", "postal code"),
        Column("state", "string", "state, province or region"),
        Column("phone", "string", "telephone number in any format"),
        Column("email", "string", "e-mail address in any format"),
        Column("national_id", "string", "identity card, social security or tax number"),
    ),
)
FIELDS = tuple(column.name for column in RECORDS.columns if column.name not in RECORD_KEY)
_SHAPE = "records: [{source: …, path: …, columns: {source_user_id: …, surname: …}}, …]"


@dataclass(frozen=True)
class ReadRecords:
    """Records as read, and the number of skipped rows.

    Attributes
    ----------
    table : pa.Table
        `source`, `source_user_id` and the mapped columns of `FIELDS`, all text.
    skipped : dict of str to int
        Reason → number of skipped rows.
    """

    table: pa.Table
    skipped: dict[str, int]


class RecordFiles(FileSource):
    """Files listed in a `records.yaml`; its entries are those of a `sources.yaml`, each with its own `source`.

    Raises
    ------
    ConfigError
        With all problems of the file.
    """

    def __init__(self, config_path: str | Path) -> None:
        self._open(config_path, None, "docs/linking.md")  # records have no event types
        self.sources: list[str] = []
        loaded = self._yaml.data
        entries = loaded.get("records") if isinstance(loaded, dict) else None
        if not isinstance(entries, list) or not entries:
            raise ConfigError(
                [f"records: a list with one entry per system is required: {_SHAPE}"], where=str(self.config_path)
            )
        problems = [f"{key}: unknown key; the only key is records" for key in loaded if key != "records"]
        for number, entry in enumerate(entries):
            problems += self._add_entry(number, entry)
        if problems:
            raise ConfigError(problems, where=str(self.config_path))

    def read(self) -> ReadRecords:
        """Read all records of all systems into memory.

        Raises
        ------
        DataError
            If the files contain no record.
        """
        skipped: dict[str, int] = {}
        parts = []
        # copies of files in other encodings; readable by this user only, and removed at once
        with tempfile.TemporaryDirectory(prefix="qianmian-records-") as scratch:
            self.scratch = Path(scratch)
            with private_connection() as connection:
                tables = self.tables(connection)
            for source, raw in zip(self.sources, tables, strict=True):
                # one each, because the tables of unreadable lines share a name
                with private_connection() as connection:
                    parts.append(_read(connection, source, raw, skipped))
        table = pa.concat_tables(parts, promote_options="default")
        if table.num_rows == 0:
            raise DataError(
                "the files contain no record",
                where=str(self.config_path),
                got=skipped or None,
                hint="check source_user_id and path",
            )
        return ReadRecords(table, skipped)

    def _add_entry(self, number: int, entry: Any) -> list[str]:
        where = f"records[{number}]"
        if not isinstance(entry, dict):
            return [f"{where}: an entry is required: {_SHAPE}"]
        source = str(entry.get("source") or "").strip()
        problems = [] if source else [f"{where}.source: required; the name of the system as in `ingest`"]
        before = len(self._entries)
        given = {key: value for key, value in entry.items() if key != "source"}
        problems += self._add_table(RECORDS, given, where, ("records", number))
        if not problems and len(self._entries) > before:
            self.sources.append(source)
        return problems


def private_connection() -> duckdb.DuckDBPyConnection:
    """Open an in-memory DuckDB that never spills to disk, because it contains names and addresses of people."""
    return duckdb.connect(config={"temp_directory": ""})


def _read(connection: duckdb.DuckDBPyConnection, source: str, raw: RawTable, skipped: dict[str, int]) -> pa.Table:
    values = ", ".join(f"{value} AS {quote(name)}" for name, value in raw.columns.items())
    connection.execute(f"CREATE OR REPLACE TEMP TABLE raw_records AS SELECT {values} FROM ({raw.relation})")
    types = {row[0]: str(row[1]) for row in connection.execute("DESCRIBE raw_records").fetchall()}
    texts = []
    for name, sql_type in types.items():
        column, kind = quote(name), sql_type
        if name == "birth_date" and sql_type.startswith("TIMESTAMP"):
            column, kind = f"{column}::DATE", "DATE"
        texts.append(f"({cast('string', kind, column, 'UTC').value})::VARCHAR AS {quote(name)}")
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE records AS "
        f"SELECT {literal(source)} AS source, {', '.join(texts)} FROM raw_records"
    )
    counts = {"source_user_id is missing": "SELECT count(*) FROM records WHERE source_user_id IS NULL"}
    if raw.rejects:
        counts["line cannot be read"] = f"SELECT count(*) FROM ({raw.rejects})"
    for reason, query in counts.items():
        row = connection.execute(query).fetchone()
        if row and row[0]:
            skipped[f"{source}: {reason}"] = skipped.get(f"{source}: {reason}", 0) + int(row[0])
    return connection.execute("SELECT * FROM records WHERE source_user_id IS NOT NULL").to_arrow_table()


def validate_records(records: pa.Table) -> pa.Table:
    """Check records and return them as text, ordered by their key, with all columns of `FIELDS` (null if missing).

    Compatibility characters (full-width digits, ligatures) are replaced by plain ones (Unicode NFKC).

    Raises
    ------
    DataError
        If a column is unknown, a key column is missing, a record has no key, or two records have the same key.
    """
    where = "records"
    unknown = [name for name in records.column_names if name not in (*RECORD_KEY, *FIELDS)]
    if unknown:
        raise DataError(
            "unknown column",
            where=where,
            got=unknown,
            allowed=", ".join((*RECORD_KEY, *FIELDS)),
            hint="map it to an allowed column, or drop it",
        )
    missing = [name for name in RECORD_KEY if name not in records.column_names]
    if missing:
        raise DataError(
            "a key column is missing",
            where=where,
            got=records.column_names,
            allowed=", ".join(RECORD_KEY),
            hint="both columns together identify a record",
        )
    columns = {name: _text(records, name) for name in (*RECORD_KEY, *FIELDS)}
    table = pa.table({**columns, **{name: pc.utf8_normalize(columns[name], form="NFKC") for name in FIELDS}})
    missing_values = sum(table[name].null_count for name in RECORD_KEY)
    if missing_values:
        raise DataError(
            "a record has no key",
            where=where,
            got=f"{missing_values} empty value(s)",
            hint="every record needs source and source_user_id",
        )
    table = table.sort_by([(name, "ascending") for name in RECORD_KEY])
    distinct = table.group_by(list(RECORD_KEY)).aggregate([]).num_rows
    if distinct < table.num_rows:
        raise DataError(
            "two records have the same key",
            where=where,
            got=f"{table.num_rows - distinct} record(s) too many",
            allowed="one record for each (source, source_user_id)",
            hint="export each record once, or give each system its own source name",
        )
    return table


def _text(records: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in records.column_names:
        return pa.chunked_array([pa.nulls(records.num_rows, pa.string())])
    column = records[name]
    if pa.types.is_timestamp(column.type):
        column = pc.cast(column, pa.date32(), safe=False)
    return pc.cast(column, pa.string())


def _normalized_text(column: str, gap: str = " ") -> str:
    """SQL of lower-case text without accents; characters that are neither letter nor digit are replaced by `gap`."""
    plain = f"strip_accents(lower({column}))"
    return rf"nullif(trim(regexp_replace({plain}, '[^\p{{L}}\p{{N}}]+', {literal(gap)}, 'g')), '')"


def soundex(column: str) -> str:
    """SQL of the American Soundex code (Russell 1918) of normalised text; text without Latin letters is unchanged.

    Examples
    --------
    >>> import duckdb
    >>> names = ("robert", "rupert", "ashcraft", "tymczak", "李")
    >>> [duckdb.sql("SELECT " + soundex(f"'{name}'")).fetchone()[0] for name in names]
    ['r163', 'r163', 'a261', 't522', '李']
    """
    letters = f"regexp_replace({column}, '[^a-z]', '', 'g')"
    without_hw = f"left({letters}, 1) || regexp_replace(substr({letters}, 2), '[hw]', '', 'g')"
    codes = f"translate({without_hw}, 'bfpvcgjkqsxzdtlmnraeiouyhw', '11112222222233455600000000')"
    for digit in "0123456":
        codes = f"regexp_replace({codes}, '{digit}+', '{digit}', 'g')"
    code = f"left({letters}, 1) || left(replace(substr({codes}, 2), '0', ''), 3)"
    return f"CASE WHEN {letters} = '' THEN {column} ELSE {code} END"


def _normalized_columns() -> dict[str, str]:
    """SQL of each comparable column over the checked records."""
    name = _normalized_text("full_name")
    # "Millar, Naomi" or "Naomi Millar"; a name in Chinese characters begins with the surname and has no blank
    comma = "position(',' IN full_name) > 0"
    ideographs = r"regexp_full_match(full_name, '\p{Han}{2,}')"
    first, last = f"split_part({name}, ' ', 1)", f"split_part({name}, ' ', -1)"
    before, after = _normalized_text("split_part(full_name, ',', 1)"), _normalized_text("split_part(full_name, ',', 2)")
    given = (
        f"CASE WHEN {comma} THEN {after} WHEN {ideographs} THEN substr(full_name, 2) "
        f"WHEN {name} LIKE '% %' THEN {first} END"
    )
    surname = f"CASE WHEN {comma} THEN {before} WHEN {ideographs} THEN left(full_name, 1) ELSE {last} END"
    unsplit = "given_name IS NULL AND surname IS NULL"
    # "13800138000.0" is how a data frame writes a number; in scientific notation the digits are lost
    written = f"CASE WHEN {is_scientific('phone')} THEN NULL ELSE regexp_replace(trim(phone), '\\.0+$', '') END"
    digits = f"regexp_replace({written}, '[^0-9]', '', 'g')"
    # Formats of one number differ in country code and leading zero, not in the last digits. A text of one repeated
    # digit is a placeholder.
    is_number = f"length({digits}) >= 6 AND length(replace({digits}, left({digits}, 1), '')) > 0"
    phone = f"CASE WHEN {is_number} THEN right({digits}, 9) END"
    email = "lower(trim(email))"
    cleaned = {
        "given_name": f"coalesce({_normalized_text('given_name')}, CASE WHEN {unsplit} THEN {given} END)",
        "surname": f"coalesce({_normalized_text('surname')}, CASE WHEN {unsplit} THEN {surname} END)",
        "phone": phone,
        "email": f"CASE WHEN {email} LIKE '_%@_%' THEN {email} END",
    }
    cleaned |= {column: _normalized_text(column) for column in ("address", "address_2", "suburb", "state")}
    cleaned |= {
        column: _normalized_text(column, "") for column in ("birth_date", "street_number", "postcode", "national_id")
    }
    return cleaned


@dataclass(frozen=True)
class PreparedRecords:
    """Comparable records, ready for either engine.

    Attributes
    ----------
    table : pa.Table
        `rid` (int64, position in the order of the key), `source`, `source_user_id`, the comparable columns, and `keys`
        (list of int64): two records are compared if they share a key.
    filled : frozenset of str
        Comparable columns with at least one value.
    pairs : int
        Upper bound of the number of pairs to compare.
    oversized_blocks : int
        Number of keys that are not used because too many records share them.
    placeholders : dict of str to int
        Field → number of records whose value stands for "not known" and is not compared.
    """

    table: pa.Table
    filled: frozenset[str]
    pairs: int
    oversized_blocks: int
    placeholders: dict[str, int]


def prepare_records(
    connection: duckdb.DuckDBPyConnection, records: pa.Table, blocking_keys: Sequence[str], max_block_records: int
) -> PreparedRecords:
    """Clean records and compute their blocking keys, in the table `comparable` of `connection`.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        From `private_connection`.
    records : pa.Table
        From `validate_records`.
    blocking_keys : sequence of str
        SQL expressions over the comparable columns; two records that agree on one are compared.
    max_block_records : int
        A key value shared by more records than this (the shop's own telephone number) is not used.
    """
    connection.register("checked_records", records)
    cleaned = ", ".join(f"{sql} AS {quote(name)}" for name, sql in _normalized_columns().items())
    connection.execute(f"""
        CREATE OR REPLACE TABLE cleaned AS
        SELECT row_number() OVER (ORDER BY source, source_user_id) AS rid, source, source_user_id, {cleaned}
        FROM checked_records""")
    placeholders = remove_placeholders(connection, "cleaned")
    connection.execute(f"""
        CREATE OR REPLACE TABLE sounding AS
        SELECT *, {soundex("given_name")} AS given_sound, {soundex("surname")} AS surname_sound FROM cleaned""")
    connection.execute("CREATE OR REPLACE TABLE record_keys (rid BIGINT, key BIGINT)")
    for number, blocking_key in enumerate(blocking_keys):
        connection.execute(f"""
            INSERT INTO record_keys SELECT rid, (hash({number}, key_value) >> 1)::BIGINT
            FROM (SELECT rid, {blocking_key} AS key_value FROM sounding) WHERE key_value IS NOT NULL""")
    connection.execute(
        "CREATE OR REPLACE TABLE blocks AS SELECT key, count(*) AS n FROM record_keys GROUP BY key HAVING count(*) > 1"
    )
    counts = connection.execute(
        "SELECT coalesce(sum(n * (n - 1) // 2) FILTER (n <= $1), 0)::BIGINT, count(*) FILTER (n > $1) FROM blocks",
        [max_block_records],
    ).fetchone()
    pairs, oversized_blocks = counts if counts else (0, 0)
    connection.execute(f"""
        CREATE OR REPLACE TABLE comparable AS
        SELECT cleaned.*, coalesce(keys, []) AS keys FROM cleaned LEFT JOIN (
            SELECT rid, list(key ORDER BY key) AS keys
            FROM record_keys SEMI JOIN (FROM blocks WHERE n <= {int(max_block_records)}) USING (key)
            GROUP BY rid) USING (rid) ORDER BY rid""")
    table = connection.execute("SELECT * FROM comparable ORDER BY rid").to_arrow_table()
    filled = frozenset(name for name in _normalized_columns() if table[name].null_count < table.num_rows)
    return PreparedRecords(table, filled, int(pairs), int(oversized_blocks), placeholders)
