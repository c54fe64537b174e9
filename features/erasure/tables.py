"""Erasing a customer from the tables of the lake, the identity files, the quarantine and other files of rows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import duckdb

from features.data.identity.ledger import Ledger
from features.data.identity.tables import links_path
from features.data.lake import Lake, literal, quote
from features.data.pii_key import load_key
from features.data.privacy import PersonalDataHasher
from features.data.tables import LAKE_TABLES
from features.erasure.customer import Erased, ErasedCustomer
from features.erasure.files import SUFFIXES, erase_files
from features.erasure.matching import (
    CODES,
    Mention,
    described,
    erasing_connection,
    holds_text,
    is_of_customer,
    mention_of,
    mentions,
)
from qianmian.paths import exact_pattern
from qianmian.workspace import Workspace, atomic_path

# folders of a workspace whose files have an eraser of their own
OWN_FOLDERS = ("lake", "quarantine", "online", "identity", "mlartifacts", "erasures", "secrets")


def erase_lake(workspace: Workspace, customer: ErasedCustomer) -> Erased:
    """Rewrite the tables that hold rows of the customer, all in one commit; the former files are removed.

    A mention in a text of somebody else, such as a page or `properties`, is replaced.
    """
    lake = Lake(workspace)
    removed, queries = 0, {}
    with erasing_connection(workspace, customer) as connection:
        states = lake.states()
        lake.attach(connection, "lake_", [name for name in LAKE_TABLES if name in states])
        for name, state in states.items():
            types = described(connection, f"lake_{name}")
            columns = {column: types[column] for column in state.columns}
            found, query = _without(connection, f"lake_{name}", columns, customer)
            if found:
                removed += found
                queries[name] = query
        if queries:
            lake.commit(connection, queries)
    lake.sweep()
    return Erased(removed)


def erase_identity(workspace: Workspace, customer: ErasedCustomer) -> Erased:
    """Rewrite the files of the merge ledger, and the links and reviews of record linkage."""
    folder, ledger = links_path(workspace).parent, Ledger(workspace)
    others = (file for file in _files([folder]) if file.parent != ledger.folder)
    found = erase_files(others, customer, workspace.root)
    # a decision about two others stays, whatever reason a person gave for it
    return Erased(found.removed + _erase_ledger(workspace, customer, ledger.files()), found.not_reached)


def erase_other_files(workspace: Workspace, customer: ErasedCustomer) -> Erased:
    """Rewrite all other Parquet and CSV files of the workspace, such as exported profiles, scores and reviews."""
    folders = [folder for folder in workspace.root.iterdir() if folder.is_dir() and folder.name not in OWN_FOLDERS]
    loose = {file for file in workspace.root.iterdir() if file.suffix in SUFFIXES and file.is_file()}
    return erase_files({*loose, *_files(folders)}, customer, workspace.root)


def erase_quarantine(workspace: Workspace, customer: ErasedCustomer) -> Erased:
    """Remove all rejected rows that name the customer, in any of their values."""
    removed = 0
    if not workspace.quarantine.exists():
        return Erased(0)
    with erasing_connection(workspace, customer) as connection:
        personal = PersonalDataHasher(load_key(workspace), ())
        personal.set_key_variables(connection)
        # an id in a column that is personal by its name was hashed
        hashed = personal.masked("source_user_id")
        connection.execute(
            "CREATE TEMP TABLE named AS SELECT source_user_id AS value FROM erased_users UNION "
            f"SELECT {hashed} FROM erased_users UNION SELECT id FROM erased_ids WHERE kind IS NOT NULL"
        )
        for file in sorted(workspace.quarantine.rglob("[!.]*.parquet")):
            scan = f"read_parquet({literal(exact_pattern(file))}, hive_partitioning=false)"
            mention = mention_of(customer)
            listed = "json_extract_string(CASE WHEN json_valid(row) THEN row END, '$.*')"
            values = f"list_transform({listed}, lambda value: trim(value))"
            named = f"(list_has_any({values}, (SELECT list(value) FROM named)) IS TRUE)"
            texts = " OR ".join(
                mentions({"row": "VARCHAR", "file": "VARCHAR"}, mention, name) for name in ("row", "file")
            )
            kept = f"SELECT * FROM {scan} WHERE NOT ({named} OR {texts})"
            before, after = _count(connection, f"SELECT * FROM {scan}"), _count(connection, kept)
            if before != after:
                removed += before - after
                _replace_rejected(connection, file, kept, after)
    return Erased(removed)


def _replace_rejected(connection: duckdb.DuckDBPyConnection, file: Path, kept: str, rows: int) -> None:
    """Write the rows that are left under the name that an ingest would give them, and remove the file."""
    if rows:
        digest = connection.execute(f"SELECT bit_xor(hash(file, position, reason, row)) FROM ({kept})").fetchone()
        name = file.stem.rpartition("-")[0]
        _write(connection, kept, file.with_name(f"{name}-{int(digest[0]) if digest else 0:016x}.parquet"))
    file.unlink()


def _erase_ledger(workspace: Workspace, customer: ErasedCustomer, files: Iterable[Path]) -> int:
    removed = 0
    with erasing_connection(workspace, customer) as connection:
        for file in sorted(files):
            scan = f"read_parquet({literal(exact_pattern(file))}, hive_partitioning=false)"
            found, query = _without(connection, scan, described(connection, scan), customer)
            if found:
                removed += found
                _write(connection, query, file)
    return removed


def _without(
    connection: duckdb.DuckDBPyConnection, relation: str, columns: Mapping[str, str], customer: ErasedCustomer
) -> tuple[int, str]:
    """How many rows are of the customer or mention them, and a SELECT of what is left, in its order.

    A row of somebody else stays, and the mention in its text is replaced; one in a nested value cannot be.
    """
    mention = mention_of(customer)
    told = [name for name, kind in columns.items() if name not in CODES and holds_text(kind)]
    texts = {name for name in told if columns[name] == "VARCHAR"}
    dropped = " OR ".join(
        [is_of_customer(columns), *(mentions(columns, mention, name) for name in told if name not in texts)]
    )
    changed = " OR ".join([dropped, *(mentions(columns, mention, name) for name in texts)])
    kept = [_edited(name, mention) if mention is not None and name in texts else quote(name) for name in columns]
    count = _count(connection, f"SELECT 1 FROM {relation} WHERE {changed}")
    return count, f"SELECT {', '.join(kept)} FROM {relation} WHERE NOT ({dropped})"


def _edited(name: str, mention: Mention) -> str:
    return f"{mention.edited_in_sql(quote(name))} AS {quote(name)}"


def _files(folders: Iterable[Path]) -> set[Path]:
    found = set()
    for folder in folders:
        for place, _, names in os.walk(folder):
            found |= {Path(place, name) for name in names if name.endswith(SUFFIXES) and not name.startswith(".")}
    return found


def _write(connection: duckdb.DuckDBPyConnection, query: str, target: Path) -> None:
    with atomic_path(target) as temporary:
        connection.execute(f"COPY ({query}) TO {literal(temporary)} (FORMAT parquet, COMPRESSION zstd)")


def _count(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM ({query})").fetchone()
    return int(row[0]) if row else 0
