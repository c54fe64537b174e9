"""Deterministic identity resolution: records that share an identifier are one customer, unless a rule forbids it.

The strings stay in DuckDB; `features.data.identity.components` clusters numbers. The customer of a record depends only
on the records it is connected with, directly or indirectly. When rows are added, only the connected records are
resolved again; the rows of all other records are kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.data.identity.components import RecordClusters, cluster_records
from features.data.identity.decisions import pending_entries, record_decisions
from features.data.identity.ledger import Ledger
from features.data.identity.links import (
    NO_RECORD,
    NO_VALUE,
    UNDATED,
    CandidateLinks,
    IdentifierSightings,
    IdTypeRule,
)
from features.data.identity.one_id import CUSTOMER_COLUMNS, FIRST_SEEN_SQL, ONE_ID_SQL, Resolution
from features.data.identity.periods import periods
from features.data.identity.tables import PROBABILISTIC, RECORD_COLUMNS, links_path, register, row_count, timestamps
from features.data.lake import literal
from qianmian.errors import DataError
from qianmian.paths import exact_pattern
from qianmian.schema import ANONYMOUS_ID
from qianmian.settings import IdType, Settings
from qianmian.workspace import Workspace

LINK_COLUMNS = (
    "left_source",
    "left_source_user_id",
    "right_source",
    "right_source_user_id",
    "probability",
    "decided_at",
    "link_id",
)
MAX_HOPS = 30  # if connected records are further apart, resolving all records is faster


@dataclass(frozen=True)
class KnownCustomers:
    """Result of an earlier resolution, as SQL relations.

    Attributes
    ----------
    customers : str
        The complete table `customers`.
    changed : str
        SELECT (source, source_user_id) of the records with new identifiers or links since then.
    """

    customers: str
    changed: str


class GraphResolver:
    """Links records by their identifiers, by the rules of `identity.id_types` and the unmerges of the ledger.

    Parameters
    ----------
    workspace : Workspace
        Workspace with the merge ledger and the links of record linkage.
    settings : Settings
        `settings.identity.id_types` are the link rules.
    decided_at : datetime, optional
        Decision time for the ledger, naive UTC.
    """

    def __init__(self, workspace: Workspace, settings: Settings, decided_at: datetime | None = None) -> None:
        self.workspace, self.decided_at = workspace, decided_at
        self.id_types = sorted(settings.identity.id_types, key=lambda kind: (kind.priority, kind.type))
        self.ledger = Ledger(workspace)

    def rules_digest(self) -> str:
        """Digest of all inputs of a resolution except the rows: rules, unmerges and links of record linkage."""
        links = links_path(self.workspace)
        links_digest = hashlib.sha256(links.read_bytes()).hexdigest() if links.exists() else ""
        rules = json.dumps(
            [[kind.model_dump() for kind in self.id_types], self.ledger.digest(), links_digest], sort_keys=True
        )
        return hashlib.sha256(rules.encode()).hexdigest()[:16]

    def plan(self, connection: duckdb.DuckDBPyConnection, known: KnownCustomers | None = None) -> Resolution:
        """Resolve the records in the views of `connection`; nothing is written to the lake.

        Parameters
        ----------
        connection : DuckDBPyConnection
            Connection with one view per canonical table.
        known : KnownCustomers, optional
            Customers before some rows were added: only records connected with these rows are resolved again.

        Returns
        -------
        Resolution
            The table `customers` and the new ledger entries.

        Raises
        ------
        DataError
            If the lake contains an undeclared id type.
        """
        self._refuse_undeclared(connection)
        connection.execute(f"CREATE OR REPLACE TEMP TABLE identity_seen AS {FIRST_SEEN_SQL}")
        self._prepare(connection)
        scoped = known is not None and self._scope(connection, known)
        self._load_rows(connection, scoped)
        clusters = self._group(connection)
        record_decisions(connection, clusters, self.id_types, self.decided_at)
        others = (
            f"SELECT {CUSTOMER_COLUMNS} FROM {known.customers} "
            f"ANTI JOIN identity_scope USING ({RECORD_COLUMNS}) UNION ALL "
            if scoped and known
            else ""
        )
        inside = f" SEMI JOIN identity_scope USING ({RECORD_COLUMNS})" if scoped else ""
        # a table, because the query would otherwise run twice: once to count the rows, once to write them
        connection.execute(f"""
            CREATE OR REPLACE TEMP TABLE identity_customers AS {others}
            SELECT {ONE_ID_SQL} AS one_id, {RECORD_COLUMNS}, first_seen AS valid_from, NULL::VARCHAR AS ledger_id
            FROM (SELECT *, rowid AS seen FROM identity_seen{inside})
            WHERE seen NOT IN (SELECT seen FROM identity_records)
            UNION ALL
            SELECT o.one_id, r.source, r.source_user_id, p.valid_from, d.ledger_id
            FROM identity_periods AS p JOIN identity_records AS r ON r.record = p.record
            JOIN identity_records AS o ON o.record = p.owner
            LEFT JOIN identity_decisions AS d ON d.link = p.link
            ORDER BY source, source_user_id, valid_from NULLS FIRST""")
        pending = pending_entries(connection, self.ledger, self.decided_at, scoped)
        return Resolution("SELECT * FROM identity_customers", f"SELECT * FROM {pending}")

    def inspect(self, connection: duckdb.DuckDBPyConnection, records: Sequence[tuple[str, str]]) -> RecordClusters:
        """Cluster the given records and all records connected with them; the temp tables stay in `connection`."""
        self._refuse_undeclared(connection)
        connection.execute(f"CREATE OR REPLACE TEMP TABLE identity_seen AS {FIRST_SEEN_SQL}")
        self._prepare(connection)
        connection.execute("CREATE OR REPLACE TEMP TABLE identity_scope (source VARCHAR, source_user_id VARCHAR)")
        connection.executemany("INSERT INTO identity_scope VALUES (?, ?)", records)
        self._load_rows(connection, self._spread(connection))
        clusters = self._group(connection)
        record_decisions(connection, clusters, self.id_types, self.decided_at)
        return clusters

    def _refuse_undeclared(self, connection: duckdb.DuckDBPyConnection) -> None:
        declared = {kind.type for kind in self.id_types}
        rows = connection.execute("SELECT DISTINCT id_type FROM identities ORDER BY 1").fetchall()
        if unknown := [str(row[0]) for row in rows if str(row[0]) not in declared]:
            # text of any other form may be personal data, for example a telephone number
            named = [name for name in unknown if name.isidentifier() and name.isascii()]
            raise DataError(
                "the lake contains undeclared id types",
                where="identities",
                got=", ".join(named) or f"{len(unknown)} types that are not shown, because they may be personal data",
                allowed=", ".join(declared),
                hint="declare them under identity.id_types in qianmian.yaml of the workspace",
            )

    def _prepare(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Create `identity_levels` (id type → level), `identity_rules` (level → type, rule) and `identity_links`."""
        position = {kind.type: number for number, kind in enumerate(self.id_types)}
        counted = [(kind.type, position[kind.type]) for kind in self.id_types]
        counted += [(kind.type, position[kind.counts_as]) for kind in self.id_types if kind.counts_as]
        rules = [(number, kind.type, kind.max_customers, _rule(kind)) for number, kind in enumerate(self.id_types)]
        rules.append((len(rules), PROBABILISTIC, None, "match probability above the threshold of record linkage"))
        connection.execute("CREATE OR REPLACE TEMP TABLE identity_levels (id_type VARCHAR, level TINYINT)")
        connection.executemany("INSERT INTO identity_levels VALUES (?, ?)", counted)
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE identity_rules "
            "(level TINYINT, id_type VARCHAR, max_customers INTEGER, rule VARCHAR)"
        )
        connection.executemany("INSERT INTO identity_rules VALUES (?, ?, ?, ?)", rules)
        file = links_path(self.workspace)
        source = (
            f"read_parquet({literal(exact_pattern(file))}, hive_partitioning=false)"
            if file.exists()
            else f"(SELECT {', '.join(f'NULL AS {n}' for n in LINK_COLUMNS)} WHERE false)"
        )
        kinds = {"probability": "DOUBLE", "decided_at": "TIMESTAMP"}
        columns = ", ".join(f"{name}::{kinds.get(name, 'VARCHAR')} AS {name}" for name in LINK_COLUMNS)
        connection.execute(f"""
            CREATE OR REPLACE TEMP TABLE identity_links AS SELECT {columns} FROM {source} AS l
            SEMI JOIN identity_seen AS a ON a.source = l.left_source AND a.source_user_id = l.left_source_user_id
            SEMI JOIN identity_seen AS b ON b.source = l.right_source AND b.source_user_id = l.right_source_user_id""")

    def _scope(self, connection: duckdb.DuckDBPyConnection, known: KnownCustomers) -> bool:
        """Create `identity_scope`, the new or changed records and all records connected with them.

        False if that takes too many steps; resolving all records is faster then.
        """
        connection.execute(f"""
            CREATE OR REPLACE TEMP TABLE identity_scope AS
            SELECT {RECORD_COLUMNS} FROM identity_seen LEFT JOIN (
                SELECT {RECORD_COLUMNS}, true AS is_known,
                    CASE WHEN count(valid_from) = count(*) THEN min(valid_from) END AS since
                FROM {known.customers} GROUP BY {RECORD_COLUMNS}) USING ({RECORD_COLUMNS})
            WHERE is_known IS NULL OR since IS DISTINCT FROM first_seen
            UNION SELECT {RECORD_COLUMNS} FROM ({known.changed})""")
        return self._spread(connection)

    def _spread(self, connection: duckdb.DuckDBPyConnection) -> bool:
        """Add all connected records to `identity_scope`; False if that takes more than `MAX_HOPS` steps."""
        connection.execute("CREATE OR REPLACE TEMP TABLE identity_frontier AS SELECT * FROM identity_scope")
        connection.execute("CREATE OR REPLACE TEMP TABLE identity_reached (level TINYINT, id_value VARCHAR)")
        rows = "(SELECT * FROM identities JOIN identity_levels USING (id_type))"
        for _ in range(MAX_HOPS):
            connection.execute(f"""
                CREATE OR REPLACE TEMP TABLE identity_hop AS
                SELECT DISTINCT level, id_value FROM {rows} SEMI JOIN identity_frontier USING ({RECORD_COLUMNS})
                ANTI JOIN identity_reached USING (level, id_value)""")
            connection.execute("INSERT INTO identity_reached SELECT * FROM identity_hop")
            one, other = (
                f"SELECT {a}_source AS source, {a}_source_user_id AS source_user_id "
                f"FROM identity_links AS l SEMI JOIN identity_frontier AS f "
                f"ON f.source = l.{b}_source AND f.source_user_id = l.{b}_source_user_id"
                for a, b in (("left", "right"), ("right", "left"))
            )
            connection.execute(f"""
                CREATE OR REPLACE TEMP TABLE identity_next AS SELECT * FROM (
                    SELECT {RECORD_COLUMNS} FROM {rows} SEMI JOIN identity_hop USING (level, id_value)
                    UNION {one} UNION {other})
                ANTI JOIN identity_scope USING ({RECORD_COLUMNS})""")
            connection.execute("INSERT INTO identity_scope SELECT * FROM identity_next")
            connection.execute("CREATE OR REPLACE TEMP TABLE identity_frontier AS SELECT * FROM identity_next")
            if not row_count(connection, "identity_frontier"):
                return True
        return False

    def _load_rows(self, connection: duckdb.DuckDBPyConnection, scoped: bool) -> None:
        """Create the tables that `_group` reads: values of several records, their sightings, and the records by age.

        `seen` is the row of a record in `identity_seen`; joins on text happen only here.
        """
        inside = f" SEMI JOIN identity_scope USING ({RECORD_COLUMNS})" if scoped else ""
        connection.execute(f"""
            CREATE OR REPLACE TEMP TABLE identity_rows AS SELECT s.rowid AS seen, level, id_value, observed_at
            FROM (SELECT * FROM identities WHERE source_user_id IS NOT NULL AND id_value IS NOT NULL){inside}
            JOIN identity_levels USING (id_type)
            JOIN identity_seen AS s USING ({RECORD_COLUMNS})""")
        strong = ", ".join(str(number) for number, kind in enumerate(self.id_types) if kind.strong) or "NULL"
        # of several values of a strong type, a record keeps only the first one
        connection.execute(f"""
            CREATE OR REPLACE TEMP TABLE identity_contradictions AS
            WITH several AS (
                SELECT seen, level FROM identity_rows WHERE level IN ({strong})
                GROUP BY seen, level HAVING min(id_value) <> max(id_value))
            SELECT *, row_number() OVER (PARTITION BY seen, level ORDER BY since NULLS FIRST, id_value) AS place FROM (
                SELECT seen, level, id_value, CASE WHEN count(observed_at) = count(*) THEN min(observed_at) END AS since
                FROM identity_rows SEMI JOIN several USING (seen, level) GROUP BY seen, level, id_value)""")
        if row_count(connection, "identity_contradictions"):
            connection.execute("""
                DELETE FROM identity_rows WHERE (seen, level, id_value) IN (
                    SELECT (seen, level, id_value) FROM identity_contradictions WHERE place > 1)""")
        connection.execute("""
            CREATE OR REPLACE TEMP TABLE identity_values AS
            SELECT level, id_value, hash(id_value) AS tie, row_number() OVER () - 1 AS value FROM (
                SELECT level, id_value FROM identity_rows GROUP BY level, id_value HAVING min(seen) <> max(seen))""")
        connection.execute("""
            CREATE OR REPLACE TEMP TABLE identity_held AS
            SELECT level, value, seen, observed_at FROM identity_rows JOIN identity_values USING (level, id_value)""")
        ends = " ".join(
            f"JOIN identity_seen AS {name} "
            f"ON {name}.source = l.{side}_source AND {name}.source_user_id = l.{side}_source_user_id"
            for name, side in (("a", "left"), ("b", "right"))
        )
        within = (
            " SEMI JOIN identity_scope AS s ON s.source = l.left_source AND s.source_user_id = l.left_source_user_id"
            if scoped
            else ""
        )
        connection.execute(f"""
            CREATE OR REPLACE TEMP TABLE identity_given AS
            SELECT a.rowid AS one, b.rowid AS other, l.decided_at, link_id,
                row_number() OVER (ORDER BY link_id, {", ".join(LINK_COLUMNS[:4])}) - 1
                    + (SELECT count(*) FROM identity_values) AS value
            FROM (SELECT * FROM identity_links AS l{within}) AS l {ends} WHERE a.rowid <> b.rowid""")
        connection.execute(
            f"INSERT INTO identity_values "
            f"SELECT {len(self.id_types)}, link_id, hash(link_id), value FROM identity_given"
        )
        # ordered by age, so that the row number is the number of the record
        connection.execute(f"""
            CREATE OR REPLACE TEMP TABLE identity_aged AS
            SELECT s.rowid AS seen, {RECORD_COLUMNS}, first_seen, {ONE_ID_SQL} AS one_id FROM identity_seen AS s
            WHERE s.rowid IN (
                SELECT seen FROM identity_held
                UNION SELECT one FROM identity_given UNION SELECT other FROM identity_given)
            ORDER BY first_seen NULLS FIRST, {RECORD_COLUMNS}""")
        connection.execute(
            "CREATE OR REPLACE TEMP VIEW identity_records AS SELECT rowid::INTEGER AS record, * FROM identity_aged"
        )

    def _group(self, connection: duckdb.DuckDBPyConnection) -> RecordClusters:
        """Cluster the records and create `identity_periods`, the customers of each linked record over time."""

        def numbers(query: str, *kinds: type[np.generic]) -> list[NDArray[Any]]:
            """Columns of a query as arrays of the given dtypes."""
            columns = connection.execute(query).fetchnumpy()
            return [np.asarray(column, dtype=kind) for column, kind in zip(columns.values(), kinds, strict=True)]

        def moment(column: str) -> str:
            """SQL of a timestamp in microseconds, `UNDATED` for null."""
            return f"coalesce(epoch_us({column}), ({UNDATED})::BIGINT)"

        of_visitors = next((at for at, kind in enumerate(self.id_types) if kind.type == ANONYMOUS_ID), NO_RECORD)
        sightings = numbers(
            f"""
            SELECT level, value, record, {moment("observed_at")},
                coalesce(visitor = source || ':' || source_user_id, false)
            FROM identity_held JOIN identity_records USING (seen)
            LEFT JOIN (SELECT value, id_value AS visitor FROM identity_values WHERE level = {of_visitors}) USING (value)
            ORDER BY 1, 2, 4, 3""",
            np.int8,
            np.int32,
            np.int32,
            np.int64,
            np.bool_,
        )
        linkage_links = numbers(
            f"""
            SELECT least(a.record, b.record), greatest(a.record, b.record), {moment("decided_at")},
                {len(self.id_types)}, value
            FROM identity_given AS g JOIN identity_records AS a ON a.seen = g.one
            JOIN identity_records AS b ON b.seen = g.other ORDER BY value""",
            np.int32,
            np.int32,
            np.int64,
            np.int8,
            np.int32,
        )
        (tie_break,) = numbers("SELECT (tie >> 1)::BIGINT FROM identity_values ORDER BY value", np.int64)
        (first,) = numbers(f"SELECT {moment('first_seen')} FROM identity_records ORDER BY record", np.int64)
        unmerged_pairs = numbers(
            f"""
            SELECT a.record, b.record AS other FROM ({self.ledger.unmerged_pairs()}) AS u
            JOIN identity_records AS a ON a.source = u.left_source AND a.source_user_id = u.left_source_user_id
            JOIN identity_records AS b ON b.source = u.right_source AND b.source_user_id = u.right_source_user_id""",
            np.int32,
            np.int32,
        )
        strong = [number for number, kind in enumerate(self.id_types) if kind.strong]
        strong_values = np.full((len(strong), len(first)), NO_VALUE)
        for position, level in enumerate(strong):
            record, strong_value = numbers(
                f"""
                SELECT record, (hash(min(id_value)) >> 1)::BIGINT
                FROM identity_rows JOIN identity_records USING (seen)
                WHERE level = {level} GROUP BY record""",
                np.int32,
                np.int64,
            )
            strong_values[position, record] = strong_value
        levels = [IdTypeRule.of(kind) for kind in self.id_types]
        clusters = cluster_records(
            len(first),
            levels,
            IdentifierSightings(*sightings),
            CandidateLinks(*linkage_links),
            strong_values,
            np.column_stack(unmerged_pairs),
            tie_break,
        )
        record, owner, valid_from, link = periods(clusters, first)
        register(
            connection,
            "identity_periods",
            {
                "record": record,
                "owner": owner,
                "valid_from": timestamps(valid_from),
                "link": pa.array(link, mask=link == NO_RECORD),
            },
        )
        connection.execute("DROP TABLE identity_rows")
        return clusters


def _rule(kind: IdType) -> str:
    parts = [
        f"priority {kind.priority}",
        f"at most {kind.max_customers} customers" if kind.max_customers else "any number of customers",
    ]
    parts += [] if kind.expires_days is None else [f"within {kind.expires_days:g} days"]
    parts += ["strong"] * kind.strong
    return f"{kind.type}: {', '.join(parts)}"
