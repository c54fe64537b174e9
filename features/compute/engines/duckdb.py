"""The embedded engine: DuckDB in this process.

With 190 features, Ibis takes about as long to generate the SQL as DuckDB takes to run it over 1.4 million lines
(measured on two cores). Therefore the SQL of a set of features is generated once, with the cutoff as a variable. With
more than `PreparedTables.MAX_CACHED_ROWS` rows, every pass would read the Parquet files again and DuckDB would hold one
hash table per pass. Therefore a large lake is first partitioned into buckets of whole customers, in one pass, and built
bucket by bucket, so that memory is bounded by one bucket.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import duckdb
import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.compute as pc

from features.compute.algebra import PRICE_LEVEL, Feature
from features.compute.compile_ibis import compile_profiles
from features.compute.local_time import LocalTime
from features.compute.views import VIEW_TABLES, PreparedTables, Views
from features.data.lake import Lake, literal, quote
from features.data.memory import MEMORY_GB, bounded_memory, spill_to
from features.data.tables import LAKE_TABLES
from qianmian.errors import ConfigError
from qianmian.paths import exact_pattern
from qianmian.timezones import UTC_ZONE
from qianmian.workspace import explain_os_errors

BUCKET_ROWS = 2_000_000
BUCKETED = ("transactions", "events", "touches", "profiles", "profile_history")
FEW_FEATURES = 20  # up to this number, reading the files directly is faster and needs no more memory
# columns of a canonical table that features may need without naming them
REQUIRED_COLUMNS = {
    "transactions": ("source", "source_user_id", "order_id", "line_no", "ts", "date_only", "item_id", "status"),
    "events": (
        "source",
        "source_user_id",
        "event_id",
        "event_type",
        "ts",
        "date_only",
        "item_id",
        "content_id",
        "category",
        "session_id",
    ),
    "touches": ("source", "source_user_id", "touch_id", "ts"),
}
DERIVED_FROM = {"units": ("quantity",), "full_amount": ("amount", "discount", "coupon_discount")}
CUTOFF = "as_of"  # variable
# generated queries, shared by all lakes of this process with the same tables; the oldest entry is evicted first
_SQL_CACHE: dict[tuple[Any, ...], str] = {}
SQL_CACHE_SIZE = 32


@ibis.udf.scalar.builtin(signature=((str,), "timestamp"))
def getvariable(called):  # type: ignore[no-untyped-def]
    """The DuckDB function `getvariable`."""


def variable(name: str) -> ir.TimestampScalar:
    """A moment that `DuckDBEngine.set_variables` sets."""
    return cast("ir.TimestampScalar", getvariable(name))


def cutoff_variable() -> ir.TimestampScalar:
    """The cutoff, as a variable."""
    return variable(CUTOFF)


class DuckDBEngine:
    """DuckDB over the Parquet files of one lake.

    Parameters
    ----------
    lake : Lake
    timezone : str
        Time zone of days and hours: IANA name, or UTC.
    memory_gb : float
        Memory of DuckDB if the lake is so large that its tables are not kept in memory
        (`Settings.database_memory_gb`).

    Raises
    ------
    ConfigError
        DuckDB does not know the time zone.
    """

    name = "duckdb"

    def __init__(self, lake: Lake, timezone: str = UTC_ZONE, memory_gb: float = MEMORY_GB) -> None:
        self.lake, self.states = lake, lake.states()
        self.backend: Any = lake.connect()
        # one folder for the life of the connection, because tables that stay may lie in it; DuckDB makes and removes it
        self.connection.execute(spill_to(lake.workspace.root / f".spill-{uuid.uuid4().hex[:8]}"))
        if timezone != UTC_ZONE:
            self._check_timezone(timezone)
        self.rows = PreparedTables(self.backend, self.states, LocalTime(timezone))
        self._built_few = False
        if self._is_large:
            self.connection.execute(bounded_memory(memory_gb))

    def _check_timezone(self, timezone: str) -> None:
        try:
            self.connection.execute(f"SELECT timezone({literal(timezone)}, TIMESTAMPTZ '2024-01-01')")
        except duckdb.Error as error:
            problem = f"timezone: the installed DuckDB does not know {timezone!r}; update duckdb, or name another city"
            raise ConfigError([problem], where=str(self.lake.workspace.config_file)) from error

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        return cast(duckdb.DuckDBPyConnection, self.backend.con)

    def set_variables(self, **moments: datetime) -> None:
        """Set the moments that generated queries name."""
        for name, moment in moments.items():
            self.connection.execute(f"SET VARIABLE {name} = TIMESTAMP {literal(moment.isoformat(sep=' '))}")

    def table(self, features: Sequence[Feature], as_of: datetime) -> pa.Table:
        """See `features.compute.engines.base.Engine`."""
        self.set_variables(as_of=as_of)
        if self._is_large and len(features) > FEW_FEATURES:
            return self._by_bucket(features, as_of)
        if len(features) <= FEW_FEATURES and not self._built_few:
            # tables that are read once are not kept: keeping all columns of 4.4 million lines costs more than the query
            self._built_few = True
            rows = self.rows
            read_directly = PreparedTables(
                self.backend, self.states, rows.local_time, allow_undated=rows.allow_undated, kept=False
            )
            return self._run(features, read_directly, as_of)
        return self._run(features, self.rows, as_of)

    @property
    def _is_large(self) -> bool:
        """Whether the lake is built by buckets, because its tables are not kept in memory."""
        rows = max((self.states[name].rows for name in BUCKETED if name in self.states), default=0)
        return rows > self.rows.MAX_CACHED_ROWS

    def _run(self, features: Sequence[Feature], rows: PreparedTables, as_of: datetime) -> pa.Table:
        rows.cache(VIEW_TABLES[feature.view] for feature in features if feature.view)
        reads_past = rows.is_past(as_of) and any(feature.view == "profiles" for feature in features)
        key = (tuple(features), rows.schema_key, reads_past)
        if key not in _SQL_CACHE:
            views = Views(rows, as_of, cutoff_variable())
            while len(_SQL_CACHE) >= SQL_CACHE_SIZE:
                _SQL_CACHE.pop(next(iter(_SQL_CACHE)))
            _SQL_CACHE[key] = str(ibis.to_sql(compile_profiles(features, views), dialect="duckdb"))
        return self.connection.execute(_SQL_CACHE[key]).to_arrow_table()

    # ---- a lake larger than memory -------------------------------------------------------------------------------

    def _by_bucket(self, features: Sequence[Feature], as_of: datetime) -> pa.Table:
        root = self.lake.workspace.root
        with explain_os_errors(root), tempfile.TemporaryDirectory(dir=root, prefix=".build-") as scratch:
            self.connection.execute("SET preserve_insertion_order=false")
            try:
                parts = list(self._bucket_tables(features, as_of, Path(scratch)))
            finally:
                self.connection.execute("SET preserve_insertion_order=true")
        whole = pa.concat_tables(parts)
        ids = whole["one_id"]
        in_order = len(ids) < 2 or pc.all(pc.less(ids.slice(0, len(ids) - 1), ids.slice(1))).as_py()
        return whole if in_order else whole.sort_by("one_id")

    def _bucket_tables(self, features: Sequence[Feature], as_of: datetime, scratch: Path) -> Iterator[pa.Table]:
        count = self._write_buckets(features, as_of, scratch)
        if any(PRICE_LEVEL in feature.columns for feature in features):
            levels = ibis.to_sql(Views(self.rows, as_of, cutoff_variable()).price_levels, dialect="duckdb")
            self.connection.execute(f"CREATE OR REPLACE TEMP TABLE bucket_price_levels AS {levels}")
        for bucket in range(count):
            self._open_bucket(features, bucket, scratch)
            rows = PreparedTables(self.backend, self.states, self.rows.local_time, "bucket_", self.rows.allow_undated)
            yield self._run(features, rows, as_of)
            for name in BUCKETED:
                self.connection.execute(f"DROP TABLE IF EXISTS {rows.cached_table_name(name)}")

    def _write_buckets(self, features: Sequence[Feature], as_of: datetime, scratch: Path) -> int:
        """Write the rows before `as_of` into one folder per bucket, all rows of a customer into the same bucket."""
        count = -(-max(self.states[name].rows for name in BUCKETED if name in self.states) // BUCKET_ROWS)
        latest = (
            "SELECT source, source_user_id, arg_max(one_id, coalesce(valid_from, TIMESTAMP '0001-01-01')) AS one_id "
            "FROM customers GROUP BY ALL"
        )
        self.connection.execute(
            f"CREATE OR REPLACE TEMP TABLE bucket_of AS WITH latest AS ({latest}), "
            f"ids AS (SELECT one_id, ntile({count}) OVER (ORDER BY one_id) - 1 AS bucket "
            "FROM (SELECT DISTINCT one_id FROM latest)) "
            "SELECT source, source_user_id, bucket FROM latest JOIN ids USING (one_id)"
        )
        for name in BUCKETED:
            if name not in self.states:
                continue
            columns = ", ".join(f"t.{quote(column)}" for column in self._columns(name, features))
            before = f" WHERE t.ts < getvariable('{CUTOFF}')" if "ts" in self.states[name].filled else ""
            self.connection.execute(
                f"COPY (SELECT {columns}, b.bucket "
                f"FROM {name} AS t JOIN bucket_of AS b USING (source, source_user_id){before}) "
                f"TO {literal(scratch / name)} (FORMAT parquet, PARTITION_BY (bucket))"
            )
        return count

    def _columns(self, name: str, features: Sequence[Feature]) -> list[str]:
        present = self.states[name].columns
        if name in ("profiles", "profile_history"):
            return list(present)
        named = {
            column
            for feature in features
            if feature.view and VIEW_TABLES[feature.view] == name
            for column in feature.columns
        }
        named |= {column for derived in named for column in DERIVED_FROM.get(derived, ())}
        return [column for column in present if column in named or column in REQUIRED_COLUMNS[name]]

    def _open_bucket(self, features: Sequence[Feature], bucket: int, scratch: Path) -> None:
        """Create the views `bucket_<table>` of one bucket."""
        for name in BUCKETED:
            known = {column.name: column for column in LAKE_TABLES[name].columns}
            files = sorted((scratch / name / f"bucket={bucket}").glob("*.parquet")) if name in self.states else []
            kept = self._columns(name, features) if name in self.states else []
            if files:
                paths = ", ".join(literal(exact_pattern(file)) for file in files)
                described = self.connection.execute(f"DESCRIBE {name}").fetchall()
                left_out = [row[0] for row in described if row[0] not in kept]
                source = f"read_parquet([{paths}], hive_partitioning=false)"
                chosen = "".join(
                    f", (SELECT {quote(column)} FROM {name} WHERE false) AS {quote(column)}"
                    for column in left_out
                    if column in known
                )
                query = f"SELECT {', '.join(quote(column) for column in kept)}{chosen} FROM {source}"
            elif name == "profile_history" and "profiles" in self.states:  # of a lake without that table
                query = f"SELECT * FROM {name} SEMI JOIN bucket_profiles USING (source, source_user_id)"
            else:
                query = f"SELECT * FROM {name} WHERE false"
            self.connection.execute(f"CREATE OR REPLACE TEMP VIEW bucket_{name} AS {query}")
        self.connection.execute(
            "CREATE OR REPLACE TEMP TABLE bucket_customers AS SELECT c.* FROM customers AS c JOIN bucket_of AS b "
            f"USING (source, source_user_id) WHERE b.bucket = {bucket}"
        )
