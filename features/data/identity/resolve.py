"""Resolve a lake: write the table `customers` and the merge ledger together.

All records are resolved, or only those connected with the rows that were added.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import duckdb

from features.data.identity.graph import GraphResolver, KnownCustomers
from features.data.identity.ledger import CONFLICT, MERGE, SHARED, WITHDRAW
from features.data.identity.one_id import Resolver
from features.data.lake import Lake, TableState, literal
from features.data.locking import exclusive_writer
from qianmian.settings import Settings
from qianmian.workspace import Workspace, write_json

SAMPLES = 5
_LATEST = (
    "SELECT source, source_user_id, arg_max(one_id, coalesce(valid_from, TIMESTAMP '0001-01-01')) AS one_id "
    "FROM {} GROUP BY ALL"
)


@dataclass(frozen=True)
class ResolutionChanges:
    """Changes that a resolution makes, or would make.

    Attributes
    ----------
    records : int
        Number of records in the lake.
    customers_before, customers : int
        Number of customers before and after the resolution.
    merged, withdrawn, conflicts, shared : int
        Number of new ledger entries: merges, withdrawn decisions, rejected links, shared values.
    renamed : int
        Number of records whose one_id changes.
    samples : mapping of str to list
        Up to `SAMPLES` new ledger entries per action.
    """

    records: int
    customers_before: int
    customers: int
    merged: int
    withdrawn: int
    conflicts: int
    shared: int
    renamed: int
    samples: Mapping[str, list[dict[str, Any]]]

    def as_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)


def resolve(
    lake: Lake, settings: Settings, resolver: Resolver | None = None, decided_at: datetime | None = None
) -> TableState:
    """Rebuild the table `customers` of the lake from all rows and return its state.

    Parameters
    ----------
    resolver : Resolver, optional
        Default: `GraphResolver` with these settings, and the ledger and links of the workspace.
    decided_at : datetime, optional
        Decision time for the ledger, naive UTC.
    """
    resolver = resolver or GraphResolver(lake.workspace, settings, decided_at)
    with exclusive_writer(lake.workspace), lake_connection(lake) as connection:
        return commit(lake, connection, {}, resolver)["customers"]


def resolve_and_compare(
    lake: Lake, settings: Settings, decided_at: datetime | None = None, dry_run: bool = True
) -> ResolutionChanges:
    """Resolve the lake again and return the changes; with `dry_run` nothing is written."""
    lake.state("customers")
    resolver = GraphResolver(lake.workspace, settings, decided_at)
    with exclusive_writer(lake.workspace), lake_connection(lake) as connection:
        plan = resolver.plan(connection)
        entries = plan.entries or ""
        changes = _compare_customers(connection, entries)
        if not dry_run:
            resolver.ledger.append(connection, entries)
            lake.commit(connection, {"customers": plan.customers})
            _save_resolved_state(lake, resolver)
    return changes


def commit(
    lake: Lake,
    connection: duckdb.DuckDBPyConnection,
    queries: Mapping[str, str],
    resolver: Resolver,
    changed: str | None = None,
    notes: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, TableState]:
    """Write new table contents and the resulting customers in one commit.

    Parameters
    ----------
    connection : DuckDBPyConnection
        Connection with one view per canonical table with its new content, and the previous customers in the view
        ``lake_customers``.
    queries : mapping of str to str
        As for `Lake.commit`.
    resolver : Resolver
        Resolver of the records.
    changed : str, optional
        SELECT (source, source_user_id) of the records with new identifiers: only connected records are resolved again.
    notes : mapping, optional
        As for `Lake.commit`.
    """
    if isinstance(resolver, GraphResolver):
        known = None
        if changed is not None and _is_resolved_state_current(lake, resolver):
            known = KnownCustomers("lake_customers", changed)
        plan = resolver.plan(connection, known)
        # the ledger is written first, so that the ledger_id of a customer always refers to an existing entry
        if plan.entries is not None:
            resolver.ledger.append(connection, plan.entries)
    else:
        plan = resolver.plan(connection)
    states = lake.commit(connection, {**queries, "customers": plan.customers}, notes)
    if isinstance(resolver, GraphResolver):
        _save_resolved_state(lake, resolver)
    return states


def _compare_customers(connection: duckdb.DuckDBPyConnection, entries: str) -> ResolutionChanges:
    before, now = _LATEST.format("customers"), _LATEST.format("identity_customers")
    facts = connection.execute(f"""
        SELECT count(*), count(DISTINCT b.one_id), count(DISTINCT n.one_id), count(*) FILTER (b.one_id <> n.one_id)
        FROM ({before}) AS b FULL JOIN ({now}) AS n USING (source, source_user_id)""").fetchone() or (0, 0, 0, 0)
    numbers = dict(connection.execute(f"SELECT action, count(*) FROM ({entries}) GROUP BY 1").fetchall())
    samples = {}
    for action in numbers:
        rows = connection.execute(
            f"SELECT * FROM ({entries}) WHERE action = {literal(action)} ORDER BY ledger_id LIMIT {SAMPLES}"
        )
        names = [column[0] for column in rows.description or ()]
        samples[action] = [dict(zip(names, row, strict=True)) for row in rows.fetchall()]
    records, customers_before, customers, renamed = facts
    return ResolutionChanges(
        records,
        customers_before,
        customers,
        numbers.get(MERGE, 0),
        numbers.get(WITHDRAW, 0),
        numbers.get(CONFLICT, 0),
        numbers.get(SHARED, 0),
        renamed,
        samples,
    )


@contextlib.contextmanager
def lake_connection(lake: Lake) -> Iterator[duckdb.DuckDBPyConnection]:
    """Connect to the lake; the connection spills to the workspace, not to the current folder."""
    connection = cast(duckdb.DuckDBPyConnection, lake.connect().con)
    scratch = lake.workspace.root / f".ingest-{uuid.uuid4().hex[:8]}"
    try:
        connection.execute(
            f"SET temp_directory={literal(scratch)}; SET enable_progress_bar=false; SET preserve_insertion_order=false"
        )
        yield connection
    finally:
        connection.close()
        shutil.rmtree(scratch, ignore_errors=True)


def _state_file(workspace: Workspace) -> Any:
    return workspace.root / "identity" / "resolved.json"


def _resolved_state(lake: Lake, resolver: GraphResolver) -> dict[str, str]:
    states = lake.states()
    digests = {name: states[name].digest if name in states else "" for name in ("customers", "identities")}
    files = resolver.ledger.files()  # one more than saved if the commit after the ledger entry failed
    return {"rules": resolver.rules_digest(), "ledger": files[-1].name if files else "", **digests}


def _save_resolved_state(lake: Lake, resolver: GraphResolver) -> None:
    """Save the rules and data that the customers result from, so that an ingest need not resolve all records."""
    write_json(_state_file(lake.workspace), _resolved_state(lake, resolver))


def _is_resolved_state_current(lake: Lake, resolver: GraphResolver) -> bool:
    file = _state_file(lake.workspace)
    try:
        return file.exists() and bool(json.loads(file.read_text(encoding="utf-8")) == _resolved_state(lake, resolver))
    except ValueError:  # a damaged file: all records are resolved again, which is always correct
        return False
