"""Decisions of a resolution as ledger entries: merges, conflicts, shared values, and withdrawals of earlier ones."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import duckdb
import numpy as np

from features.data.identity.components import UNMERGED, RecordClusters
from features.data.identity.ledger import CONFLICT, MERGE, SHARED, WITHDRAW, Ledger
from features.data.identity.links import NO_RECORD, CandidateLinks, Ints
from features.data.identity.tables import PROBABILISTIC, RECORD_COLUMNS, register, row_count, timestamps
from features.data.lake import literal
from qianmian.settings import IdType


def record_decisions(
    connection: duckdb.DuckDBPyConnection,
    clusters: RecordClusters,
    id_types: Sequence[IdType],
    decided_at: datetime | None,
) -> None:
    """Create the temp tables `identity_decisions` and `identity_found`.

    `identity_decisions` has one row per link that merged customers. `identity_found` has these merges, the conflicts
    and the shared values as ledger entries.
    """
    links = clusters.links
    used = np.unique(clusters.merged_by[clusters.merged_by != NO_RECORD])
    conflicts = clusters.rejected[clusters.rejected[:, 1] != UNMERGED]
    register(connection, "identity_used", _link_columns(links, used, np.full(len(used), NO_RECORD)))
    register(connection, "identity_refused", _link_columns(links, conflicts[:, 0], conflicts[:, 1]))
    register(connection, "identity_shared", {"value": clusters.shared[:, 0], "holders": clusters.shared[:, 1]})
    strong = [kind.type for kind in id_types if kind.strong]
    connection.execute("CREATE OR REPLACE TEMP TABLE identity_strong (why INTEGER, strong VARCHAR)")
    if strong:
        connection.executemany("INSERT INTO identity_strong VALUES (?, ?)", list(enumerate(strong)))
    named = """
        SELECT k.link, k.why, a.source AS left_source, a.source_user_id AS left_source_user_id,
            b.source AS right_source, b.source_user_id AS right_source_user_id,
            t.id_type, v.id_value, k.observed_at, t.rule, t.level
        FROM {} AS k JOIN identity_records AS a ON a.record = k.a JOIN identity_records AS b ON b.record = k.b
        JOIN identity_values AS v ON v.value = k.value JOIN identity_rules AS t ON t.level = k.level"""
    both = "left_source, left_source_user_id, right_source, right_source_user_id, id_type, id_value"
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE identity_decisions AS
        SELECT {_decision_id("m", both + ", observed_at")} AS ledger_id, *,
            CASE WHEN level = {len(id_types)} THEN '{PROBABILISTIC}' ELSE 'deterministic' END AS source
        FROM ({named.format("identity_used")})""")
    decided = f"{_moment(decided_at)} AS decided_at"
    unlinked = f"""
        SELECT {RECORD_COLUMNS}, level, id_value, since
        FROM identity_contradictions AS c JOIN identity_seen AS s ON s.rowid = c.seen WHERE place > 1"""
    connection.execute(f"""
        CREATE OR REPLACE TEMP VIEW identity_found AS
        SELECT ledger_id, '{MERGE}' AS action, {both}, observed_at, {decided}, rule,
            'both hold this ' || id_type AS reason, source, NULL::VARCHAR AS refers_to
        FROM identity_decisions
        UNION ALL
        SELECT {_decision_id("c", both + ", strong")}, '{CONFLICT}', {both}, min(observed_at), {decided},
            any_value(rule), 'not linked: their customers have different values of ' || strong, 'deterministic', NULL
        FROM ({named.format("identity_refused")}) JOIN identity_strong USING (why) GROUP BY {both}, strong
        UNION ALL
        SELECT {_decision_id("c", "source, source_user_id, id_type, id_value")}, '{CONFLICT}', source, source_user_id,
            NULL, NULL, id_type, id_value, since, {decided}, rule,
            'the record has two values of ' || id_type || ': the first value seen counts', 'deterministic', NULL
        FROM ({unlinked}) JOIN identity_rules USING (level)
        UNION ALL
        SELECT {_decision_id("s", "id_type, id_value")}, '{SHARED}', r.source, r.source_user_id,
            NULL, NULL, id_type, id_value, NULL, {decided}, rule,
            'shared, links no records: held by ' || holders || ' customers, more than ' || max_customers,
            'deterministic', NULL
        FROM identity_shared JOIN identity_values USING (value) JOIN identity_rules USING (level) JOIN (
            SELECT value, min(record) AS record FROM identity_held SEMI JOIN identity_shared USING (value)
            JOIN identity_records USING (seen) GROUP BY value) USING (value)
        JOIN identity_records AS r USING (record)""")


def pending_entries(
    connection: duckdb.DuckDBPyConnection, ledger: Ledger, decided_at: datetime | None, scoped: bool
) -> str:
    """Name of a table with the entries to append: decisions the ledger lacks, and withdrawals of those that ended.

    Parameters
    ----------
    scoped : bool
        Whether only the records of `identity_scope` were resolved; only their decisions can be withdrawn then.
    """
    if not ledger.files():
        return "identity_found"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE identity_standing AS {ledger.active_decisions()}")
    names = (
        "ledger_id, action, left_source, left_source_user_id, right_source, right_source_user_id, "
        "id_type, id_value, observed_at"
    )
    inside = "true"
    if scoped:
        inside = " OR ".join(
            f"EXISTS (SELECT 1 FROM identity_scope AS s "
            f"WHERE s.source = g.{side}_source AND s.source_user_id = g.{side}_source_user_id)"
            for side in ("left", "right")
        )
    decided = _moment(decided_at)
    whose = (
        "SELECT source, source_user_id, arg_max(one_id, coalesce(valid_from, TIMESTAMP '0001-01-01')) AS one_id "
        "FROM identity_customers GROUP BY ALL"
    )
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE identity_pending AS
        SELECT * FROM identity_found
        ANTI JOIN (FROM identity_standing WHERE action <> '{WITHDRAW}') USING (ledger_id)""")
    withdrawn = f"""
        SELECT g.* FROM identity_standing AS g ANTI JOIN identity_found USING (ledger_id)
        WHERE action <> '{WITHDRAW}' AND ({inside})"""
    connection.execute(f"CREATE OR REPLACE TEMP TABLE identity_gone AS {withdrawn}")
    if not row_count(connection, "identity_gone"):
        return "identity_pending"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE identity_whose AS {whose}")
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE identity_undone AS
        SELECT g.ledger_id FROM identity_gone AS g JOIN ({ledger.unmerged_pairs()}) AS u
        ON (u.left_source, u.left_source_user_id, u.right_source, u.right_source_user_id) IN (
            (g.left_source, g.left_source_user_id, g.right_source, g.right_source_user_id),
            (g.right_source, g.right_source_user_id, g.left_source, g.left_source_user_id))""")
    kept = ", ".join(f"'{WITHDRAW}'" if name == "action" else f"g.{name}" for name in names.split(", "))
    connection.execute(f"""
        INSERT INTO identity_pending SELECT {kept}, {decided}, g.rule, 'was ' || g.action || ': ' || CASE
            WHEN g.action <> '{MERGE}' THEN 'it no longer holds'
            WHEN g.ledger_id IN (SELECT ledger_id FROM identity_undone) THEN 'unmerged by a person'
            WHEN a.one_id = b.one_id THEN 'another link came first'
            ELSE 'the link no longer holds' END, g.source, NULL
        FROM identity_gone AS g
        LEFT JOIN identity_whose AS a ON a.source = g.left_source AND a.source_user_id = g.left_source_user_id
        LEFT JOIN identity_whose AS b ON b.source = g.right_source AND b.source_user_id = g.right_source_user_id""")
    return "identity_pending"


def _decision_id(letter: str, columns: str) -> str:
    """SQL of the ledger_id of a decision, a digest of its content."""
    parts = ", ".join(f"coalesce({column}::VARCHAR, '')" for column in columns.split(", "))
    return f"'{letter}' || substr(md5(concat_ws(chr(31), {parts})), 1, 16)"


def _link_columns(links: CandidateLinks, chosen: Ints, why: Ints) -> dict[str, Any]:
    return {
        "link": chosen.astype(np.int32),
        "a": links.left[chosen],
        "b": links.right[chosen],
        "level": links.level[chosen],
        "value": links.value[chosen],
        "observed_at": timestamps(links.time[chosen]),
        "why": why.astype(np.int32),
    }


def _moment(moment: datetime | None) -> str:
    """SQL of a timestamp, or of a null timestamp."""
    return f"{literal(moment.isoformat(sep=' ')) if moment else 'NULL'}::TIMESTAMP"
