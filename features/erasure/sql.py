"""Tombstones in DuckDB, for whole tables."""

from __future__ import annotations

import duckdb
import pyarrow as pa

from features.data.lake import literal
from features.data.pii_key import load_key
from features.data.privacy import PersonalDataHasher
from features.data.progress_bar import hide_progress_bar
from features.erasure.tombstones import DIGITS, DOMAIN, read_tombstones
from qianmian.workspace import Workspace


def tombstone_sql(source: str, source_user_id: str) -> str:
    """SQL of the tombstone; the key is in the variables that `PersonalDataHasher.set_key_variables` sets."""
    text = f"{literal(DOMAIN)} || chr(31) || {source} || chr(31) || {source_user_id}"
    return f"substr(sha256(getvariable('pii_outer') || sha256(getvariable('pii_inner') || {text})), 1, {DIGITS})"


def without_erased(workspace: Workspace, rows: pa.Table) -> pa.Table:
    """The rows, each with `source` and `source_user_id`, but for those of erased users."""
    tombstones = sorted(read_tombstones(workspace))
    if not tombstones:
        return rows
    with duckdb.connect(config={"temp_directory": ""}) as connection:  # the rows may be personal data
        hide_progress_bar(connection)
        PersonalDataHasher(load_key(workspace), ()).set_key_variables(connection)
        connection.register("rows_", rows.select(["source", "source_user_id"]))
        erased = f"{tombstone_sql('source', 'source_user_id')} IN (SELECT unnest($1))"
        kept = connection.execute(f"SELECT NOT ({erased}) AS kept FROM rows_", [tombstones]).to_arrow_table()
    return rows.filter(kept["kept"])
