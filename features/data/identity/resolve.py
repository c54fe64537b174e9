"""Resolving a lake: the `customers` table and the merge ledger change together, all at once or for the rows that came in."""

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
_LATEST = "SELECT source, source_user_id, arg_max(one_id, coalesce(valid_from, TIMESTAMP '0001-01-01')) AS one_id FROM {} GROUP BY ALL"


@dataclass(frozen=True)
class ResolutionChanges:
    """What resolving would change, or has changed.

    Attributes
    ----------
    records, customers_before, customers : int
        Records the lake knows, and customers they are, in the lake and by the rules of now.
    merged, withdrawn, conflicts, shared : int
        New lines for the ledger: links that make customers, links that no longer do, links refused, values that link nobody.
    renamed : int
        Records whose customer has another one_id now.
    samples : mapping of str to list
        A few lines of each sort.
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
    """Rebuild the `customers` table of the lake from all its rows and return its state.

    Parameters
    ----------
    resolver : Resolver, optional
        Default: the graph over identifiers, with these settings and the ledger and links of the lake's workspace.
    decided_at : datetime, optional
        When, for the ledger.
    """
    with exclusive_writer(lake.workspace), lake_connection(lake) as connection:
        return commit(lake, connection, {}, resolver or GraphResolver(lake.workspace, settings, decided_at))[
            "customers"
        ]


def resolve_and_compare(
    lake: Lake, settings: Settings, decided_at: datetime | None = None, dry_run: bool = True
) -> ResolutionChanges:
    """Resolve the lake anew and say what that changes; with `dry_run` nothing is written."""
    lake.state("customers")
    resolver = GraphResolver(lake.workspace, settings, decided_at)
    with exclusive_writer(lake.workspace), lake_connection(lake) as connection:
        plan = resolver.plan(connection)
        entries = plan.entries or ""
        found = _compare_customers(connection, entries)
        if not dry_run:
            resolver.ledger.append(connection, entries)
            lake.commit(connection, {"customers": plan.customers})
            _save_resolved_state(lake, resolver)
    return found


def commit(
    lake: Lake,
    connection: duckdb.DuckDBPyConnection,
    queries: Mapping[str, str],
    resolver: Resolver,
    changed: str | None = None,
) -> dict[str, TableState]:
    """Write new table contents and the customers they make, in one commit.

    Parameters
    ----------
    connection : DuckDBPyConnection
        With a view a canonical table as it is about to be, and the customers of before in the view ``lake_customers``.
    queries : mapping of str to str
        As for `Lake.commit`.
    changed : str, optional
        A SELECT (source, source_user_id) of the records with new identifiers: who is not connected with them is not resolved again.
    """
    if isinstance(resolver, GraphResolver):
        known = (
            KnownCustomers("lake_customers", changed)
            if changed is not None and _is_resolved_state_current(lake, resolver)
            else None
        )
        plan = resolver.plan(connection, known)
        # the ledger first: a customer's ledger_id never names a decision that is not there
        if plan.entries is not None:
            resolver.ledger.append(connection, plan.entries)
    else:
        plan = resolver.plan(connection)
    states = lake.commit(connection, {**queries, "customers": plan.customers})
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
    """A connection to the lake that spills into the workspace, not into the folder somebody happens to stand in."""
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
    files = resolver.ledger.files()  # one more than noted: it was told of a commit that never came
    return {"rules": resolver.rules_digest(), "ledger": files[-1].name if files else "", **digests}


def _save_resolved_state(lake: Lake, resolver: GraphResolver) -> None:
    """Note by which rules the lake's customers were made, so that the next rows need not resolve everybody."""
    write_json(_state_file(lake.workspace), _resolved_state(lake, resolver))


def _is_resolved_state_current(lake: Lake, resolver: GraphResolver) -> bool:
    file = _state_file(lake.workspace)
    try:
        return file.exists() and bool(json.loads(file.read_text(encoding="utf-8")) == _resolved_state(lake, resolver))
    except ValueError:  # whoever damaged it: everybody is resolved again, which is always right
        return False
