"""Explain why two records are one customer (the chain of links between them) or why they are not."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import duckdb
import numpy as np

from features.data.identity.components import UNMERGED, RecordClusters
from features.data.identity.graph import GraphResolver
from features.data.identity.ledger import Ledger, RecordKey
from features.data.identity.links import UNDATED
from features.data.identity.resolve import lake_connection
from features.data.lake import Lake, literal
from features.data.privacy import hash_value
from qianmian.errors import NotFound, UsageError
from qianmian.settings import Settings

SHOWN = 20


@dataclass(frozen=True)
class Step:
    """One link of the chain.

    `ledger_id` is None if another link had merged the two customers before this one.
    """

    left: RecordKey
    right: RecordKey
    id_type: str
    id_value: str
    since: datetime | None
    rule: str
    ledger_id: str | None


@dataclass(frozen=True)
class Period:
    """Customer of a record from `valid_from` on (None: always)."""

    one_id: str
    valid_from: datetime | None
    ledger_id: str | None


@dataclass(frozen=True)
class Explanation:
    """Explanation of the customer of one record, or of the relation between two records.

    Attributes
    ----------
    asked : tuple of RecordKey
        The one or two records to explain.
    one_ids : tuple of str
        Customer of each of these records at the end of all data.
    periods : tuple of Period
        Customers of the first record over time.
    same : bool or None
        Whether the two records are one customer; None for a single record.
    steps : tuple of Step
        Shortest chain of links between two records; for a single record, the links that formed its customer, at most
        `SHOWN`.
    reasons : tuple of str
        Why two records are not one customer.
    records : tuple of RecordKey
        Records of the first record's customer, oldest first, at most `SHOWN`.
    size : int
        Number of records of that customer.
    """

    asked: tuple[RecordKey, ...]
    one_ids: tuple[str, ...]
    periods: tuple[Period, ...]
    same: bool | None
    steps: tuple[Step, ...]
    reasons: tuple[str, ...]
    records: tuple[RecordKey, ...]
    size: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def find_record(lake: Lake, settings: Settings, text: str) -> RecordKey:
    """Find the record that `text` refers to.

    Parameters
    ----------
    text : str
        ``SOURCE:USER_ID``, a user id that only one source has, a one_id, or ``ID_TYPE=VALUE`` (hashed before the
        lookup).

    Raises
    ------
    NotFound
        If no record matches. The message does not contain the value of an identifier.
    UsageError
        If records of several customers match.
    """
    lake.state("customers")
    id_type, equals, value = text.partition("=")
    kinds = {kind.type for kind in GraphResolver(lake.workspace, settings).id_types}
    latest = "arg_max(one_id, coalesce(valid_from, TIMESTAMP '0001-01-01'))"
    with lake_connection(lake) as connection:
        if equals and id_type in kinds:
            missing = f"no record has this {id_type}"
            where = (
                "(source, source_user_id) IN (SELECT (source, source_user_id) FROM identities "
                f"WHERE id_type = {literal(id_type)} AND id_value = ?)"
            )
            values = [hash_value(lake.workspace, settings, id_type, value)]
        else:
            missing = f"unknown record {text}"
            where, values = "source || ':' || source_user_id = ? OR source_user_id = ? OR one_id = ?", [text] * 3
        rows = connection.execute(
            f"SELECT source, source_user_id, {latest}, min(valid_from) AS since FROM customers WHERE {where} "
            "GROUP BY 1, 2 ORDER BY 4 NULLS FIRST, 1, 2",
            values,
        ).fetchall()
    exact = [row for row in rows if f"{row[0]}:{row[1]}" == text] or rows
    if not exact:
        raise NotFound(
            missing,
            where=str(lake.workspace.lake),
            allowed="SOURCE:USER_ID, a user id, a one_id, or ID_TYPE=VALUE such as phone=+44…",
            hint="check the spelling and the source",
        )
    if len({row[2] for row in exact}) > 1:
        raise UsageError(
            "records of several customers match",
            got=", ".join(f"{row[0]}:{row[1]}" for row in exact[:5]),
            allowed="one record",
            hint="give one of them as SOURCE:USER_ID",
        )
    return str(exact[0][0]), str(exact[0][1])


def explain(lake: Lake, settings: Settings, record: RecordKey, other: RecordKey | None = None) -> Explanation:
    """Resolve the records connected with `record` and `other` again and explain the result; nothing is written.

    Parameters
    ----------
    record : RecordKey
        Record to explain.
    other : RecordKey, optional
        Second record: explain why the two are, or are not, one customer.
    """
    resolver = GraphResolver(lake.workspace, settings)
    asked = (record,) if other is None else (record, other)
    with lake_connection(lake) as connection:
        clusters = resolver.inspect(connection, asked)
        one_ids = tuple(_periods(connection, key)[-1].one_id for key in asked)
        numbers = [_record_number(connection, key) for key in asked]
        same = None
        if other is not None:
            same = record == other or (None not in numbers and len({clusters.customer[n] for n in numbers}) == 1)
        steps: tuple[Step, ...] = ()
        reasons: tuple[str, ...] = ()
        first = numbers[0]
        if other is None:
            steps = _merge_steps(connection, clusters, first)
        elif same and record != other:
            steps = _chain(connection, clusters, *numbers)  # type: ignore[arg-type]
        elif not same:
            reasons = _why_not(connection, resolver, clusters, asked, numbers)
        members = (
            np.array([], dtype=np.int64)
            if first is None
            else np.flatnonzero(clusters.customer == clusters.customer[first])
        )
        records = tuple(_records(connection, members[:SHOWN])) or (record,)
        return Explanation(
            asked, one_ids, _periods(connection, record), same, steps, reasons, records, max(len(members), 1)
        )


def _periods(connection: duckdb.DuckDBPyConnection, record: RecordKey) -> tuple[Period, ...]:
    rows = connection.execute(
        "SELECT one_id, valid_from, ledger_id FROM customers WHERE source = ? AND source_user_id = ? "
        "ORDER BY valid_from NULLS FIRST",
        record,
    ).fetchall()
    return tuple(Period(*row) for row in rows)


def _record_number(connection: duckdb.DuckDBPyConnection, record: RecordKey) -> int | None:
    """Number of the record in `RecordClusters`; None if it shares no identifier with another record."""
    row = connection.execute(
        "SELECT record FROM identity_records WHERE source = ? AND source_user_id = ?", record
    ).fetchone()
    return int(row[0]) if row else None


def _records(connection: duckdb.DuckDBPyConnection, numbers: np.ndarray) -> list[RecordKey]:
    listed = ", ".join(str(int(number)) for number in numbers)
    if not listed:
        return []
    rows = connection.execute(
        f"SELECT source, source_user_id FROM identity_records WHERE record IN ({listed}) ORDER BY record"
    ).fetchall()
    return [(str(source), str(user)) for source, user in rows]


def _steps(connection: duckdb.DuckDBPyConnection, clusters: RecordClusters, chosen: list[int]) -> tuple[Step, ...]:
    """Links as steps, with the names of records, id types and values."""
    links, steps = clusters.links, []
    for link in chosen:
        left, right = _records(connection, np.array([links.left[link]])) + _records(
            connection, np.array([links.right[link]])
        )
        row = connection.execute(
            "SELECT t.id_type, v.id_value, t.rule, d.ledger_id "
            "FROM identity_values AS v JOIN identity_rules AS t ON t.level = v.level "
            f"LEFT JOIN identity_decisions AS d ON d.link = {link} WHERE v.value = {int(links.value[link])}"
        ).fetchone()
        assert row is not None
        since = (
            connection.execute("SELECT make_timestamp(?)", [int(links.time[link])]).fetchone()
            if links.time[link] != UNDATED
            else None
        )
        steps.append(Step(left, right, str(row[0]), str(row[1]), since[0] if since else None, str(row[2]), row[3]))
    return tuple(steps)


def _merge_steps(
    connection: duckdb.DuckDBPyConnection, clusters: RecordClusters, record: int | None
) -> tuple[Step, ...]:
    if record is None:
        return ()
    members = np.flatnonzero(clusters.customer == clusters.customer[record])
    decisions = [int(clusters.merged_by[member]) for member in members if clusters.merged_by[member] >= 0]
    return _steps(connection, clusters, sorted(decisions, key=lambda link: int(clusters.links.time[link]))[:SHOWN])


def _chain(connection: duckdb.DuckDBPyConnection, clusters: RecordClusters, start: int, end: int) -> tuple[Step, ...]:
    """Shortest chain of links from one record to the other; among equals, decisions first, then more trusted links."""
    links = clusters.links
    decisions = set(clusters.merged_by[clusters.merged_by >= 0].tolist())
    inside = np.flatnonzero(clusters.accepted & (clusters.customer[links.left] == clusters.customer[start]))
    ordered = sorted(
        inside.tolist(), key=lambda link: (link not in decisions, int(links.level[link]), int(links.time[link]), link)
    )
    neighbours: dict[int, list[tuple[int, int]]] = {}
    for link in ordered:
        left, right = int(links.left[link]), int(links.right[link])
        neighbours.setdefault(left, []).append((right, link))
        neighbours.setdefault(right, []).append((left, link))
    reached_from: dict[int, tuple[int, int]] = {start: (start, -1)}
    queue = deque([start])
    while queue and end not in reached_from:
        node = queue.popleft()
        for neighbour, link in neighbours.get(node, ()):
            if neighbour not in reached_from:
                reached_from[neighbour] = (node, link)
                queue.append(neighbour)
    chosen, node = [], end
    while node != start:
        node, link = reached_from[node]
        chosen.append(link)
    return _steps(connection, clusters, chosen[::-1])


def _why_not(
    connection: duckdb.DuckDBPyConnection,
    resolver: GraphResolver,
    clusters: RecordClusters,
    asked: tuple[RecordKey, ...],
    numbers: list[int | None],
) -> tuple[str, ...]:
    if None in numbers:
        unlinked = asked[numbers.index(None)]
        return (f"{unlinked[0]}:{unlinked[1]} shares no identifier with another record",)
    links, customer = clusters.links, clusters.customer
    mine, theirs = (int(customer[number]) for number in numbers if number is not None)
    reasons = [
        _unmerge_reason(ledger_id, at, why)
        for ledger_id, at, why in _unmerges_between(connection, resolver.ledger, customer, mine, theirs)
    ]
    strong = [kind.type for kind in resolver.id_types if kind.strong]
    rejected = {
        int(links.value[link]): why
        for link, why in clusters.rejected.tolist()
        if {int(customer[links.left[link]]), int(customer[links.right[link]])} == {mine, theirs}
    }
    shared = dict(clusters.shared.tolist())
    for value, level, id_type, id_value in _shared_values(connection, customer, mine, theirs):
        kind = resolver.id_types[level]
        held = f"both hold {id_type} {id_value}"
        if value in shared:
            reasons.append(
                f"{held}, but {shared[value]} customers hold it (more than {kind.max_customers}): "
                "a shared identifier links no records"
            )
        elif rejected.get(value, UNMERGED) != UNMERGED:
            reasons.append(f"{held}, but their customers have different values of {strong[rejected[value]]}")
        elif value not in rejected:
            reasons.append(
                f"{held}, but another record held it in between, "
                f"or the sightings are more than {kind.expires_days} days apart"
            )
    for record in asked:
        for (id_type,) in _contradicting_id_types(connection, record):
            reasons.append(
                f"{record[0]}:{record[1]} was seen with several values of the strong type {id_type}: "
                "only the first value links records"
            )
    return tuple(reasons) or ("they have no identifier in common",)


def _unmerge_reason(ledger_id: str, at: datetime | None, why: str) -> str:
    return f"they were unmerged{f' on {at:%Y-%m-%d}' if at else ''}: {why} ({ledger_id})"


def _unmerges_between(
    connection: duckdb.DuckDBPyConnection, ledger: Ledger, customer: np.ndarray, mine: int, theirs: int
) -> list[tuple[Any, ...]]:
    rows = connection.execute(f"""
        SELECT u.ledger_id, u.decided_at, u.reason, a.record, b.record FROM ({ledger.unmerged_pairs()}) AS u
        JOIN identity_records AS a ON a.source = u.left_source AND a.source_user_id = u.left_source_user_id
        JOIN identity_records AS b ON b.source = u.right_source AND b.source_user_id = u.right_source_user_id
        ORDER BY u.sequence""").fetchall()
    return [row[:3] for row in rows if {int(customer[row[3]]), int(customer[row[4]])} == {mine, theirs}]


def _contradicting_id_types(connection: duckdb.DuckDBPyConnection, record: RecordKey) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT DISTINCT t.id_type FROM identity_contradictions AS c JOIN identity_seen AS s ON s.rowid = c.seen "
        "JOIN identity_rules AS t ON t.level = c.level WHERE s.source = ? AND s.source_user_id = ? ORDER BY 1",
        record,
    ).fetchall()


def _shared_values(
    connection: duckdb.DuckDBPyConnection, customer: np.ndarray, mine: int, theirs: int
) -> list[tuple[Any, ...]]:
    """Rows (value, level, id_type, id_value) of the values that records of both customers hold."""
    listed = [", ".join(str(member) for member in np.flatnonzero(customer == side)) for side in (mine, theirs)]
    held = "SELECT value FROM identity_held JOIN identity_records USING (seen) WHERE record IN ({})"
    return connection.execute(
        "SELECT value, level, id_type, id_value FROM identity_values JOIN identity_rules USING (level) "
        f"WHERE value IN ({held.format(listed[0])}) AND value IN ({held.format(listed[1])}) "
        f"ORDER BY level, id_value LIMIT {SHOWN}"
    ).fetchall()
