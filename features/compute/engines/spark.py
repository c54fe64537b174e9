"""The Spark engine: the same expressions over the same Parquet files, on this machine or on a cluster.

One plan of forty joins would shuffle each of its forty parts, and Spark would plan the rest again after each of them
(measured on 1.4 million lines, two cores: 140 s). Therefore the rows before `as_of` are partitioned by customer once
and cached by the executors. All parts of the plan are then joined within a partition, and the build is one stage
without a shuffle. The driver receives only counts; the executors write the profiles.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from features.compute.algebra import PRICE_LEVEL, SORT_KEYS, Feature
from features.compute.compile_ibis import compile_profiles
from features.compute.engines.spark_files import file_uri, write_frame
from features.compute.engines.spark_session import LOCAL_MASTER, explain_spark_errors, start_session
from features.compute.local_time import SparkLocalTime
from features.compute.price_levels import with_price_levels
from features.compute.views import VIEW_TABLES, PreparedTables, Views
from features.data.lake import Lake
from features.data.tables import LAKE_TABLES, PROFILE_HISTORY, undated_history
from qianmian.errors import ArtifactError, DataError
from qianmian.schema import Table
from qianmian.timezones import UTC_ZONE

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

SPARK_TYPES = {
    "string": "STRING",
    "int64": "BIGINT",
    "float64": "DOUBLE",
    "bool": "BOOLEAN",
    "timestamp": "TIMESTAMP_NTZ",
    "date": "DATE",
    "json": "STRING",
}
ROWS_PER_PARTITION = 250_000
CODEGEN_MIN_ROWS = 5_000_000
# columns that the views need besides those that features name
REQUIRED_COLUMNS = {
    "transactions": (
        "one_id",
        "status",
        "date_only",
        *SORT_KEYS["lines"],
        "quantity",
        "amount",
        "discount",
        "coupon_discount",
        "store_id",
        "channel",
    ),
    "events": ("one_id", *SORT_KEYS["events"]),
    "touches": ("one_id", *SORT_KEYS["touches"]),
}


class SparkEngine:
    """A Spark session over the Parquet files of one lake.

    Parameters
    ----------
    lake : Lake
        Lake whose folder is at the same path on every machine of the cluster.
    master : str
        Master URL of Spark: `local[*]`, `spark://host:7077`, `yarn`, `k8s://…`.
    options : mapping of str to str, optional
        Spark options that override those set here.
    timezone : str
        Time zone of days and hours: IANA name, or UTC.

    Raises
    ------
    UsageError
        PySpark or Java is not installed, or the master does not respond.

    Notes
    -----
    The engine is a context manager: at the end it releases its cache, and stops the session if it started the session.
    """

    name = "spark"

    def __init__(
        self,
        lake: Lake,
        master: str = LOCAL_MASTER,
        options: Mapping[str, str] | None = None,
        timezone: str = UTC_ZONE,
    ) -> None:
        self.lake, self.states, self.master = lake, lake.states(), master
        self._scratch = tempfile.TemporaryDirectory(prefix="qianmian-spark-")
        self._cached_frames: list[DataFrame] = []
        self._session, self._started = start_session(master, self._scratch.name, options or {})
        self._session.conf.set("spark.sql.shuffle.partitions", self.partitions)
        # code generation compiles a class for every stage, which takes longer than it saves on few rows
        self._session.conf.set("spark.sql.codegen.wholeStage", self._rows > CODEGEN_MIN_ROWS)
        for table in LAKE_TABLES.values():
            self._open(table).createOrReplaceTempView(table.name)
        self.backend: Any = ibis.pyspark.connect(self._session)
        self.rows: PreparedTables = LazyTables(self.backend, self.states, SparkLocalTime(timezone))

    def __enter__(self) -> SparkEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the cache, and stop the session if this engine started it."""
        self._release_cache()
        if self._started:
            self._session.stop()
        self._scratch.cleanup()

    def _open(self, table: Table) -> DataFrame:
        """Open a canonical table; missing tables and columns are empty but typed, as in `Lake.attach`."""
        from pyspark.errors import AnalysisException
        from pyspark.sql import functions

        state = self.states.get(table.name)
        if state is None and table is PROFILE_HISTORY and "profiles" in self.states:
            quoted = {name: f"`{name}`" for name in self._session.table("profiles").columns}
            rows = undated_history(quoted, "profiles", SPARK_TYPES["timestamp"], SPARK_TYPES["string"])
            return self._session.sql(rows)
        if state is None:
            return self._session.createDataFrame(
                [], ", ".join(f"`{column.name}` {SPARK_TYPES[column.dtype]}" for column in table.columns)
            )
        path = Path(self.lake.parquet_path(state))
        # a table partitioned by day is a folder of folders; the day is derived from `ts`, not from the folder name
        folder = Path(*path.parts[: path.parts.index("**")]) if "**" in path.parts else path
        try:
            frame = self._session.read.option("recursiveFileLookup", "true").parquet(file_uri(folder, pattern=True))
        except AnalysisException as error:
            raise ArtifactError(
                f"Spark cannot read the table {table.name} of the lake",
                where=str(folder),
                got=str(error).splitlines()[0],
                hint="ingest again, or make the workspace available at this path on every machine of the cluster",
            ) from error
        missing = {column.name: column for column in table.columns if column.name not in state.columns}
        return frame.withColumns(
            {name: functions.lit(None).cast(SPARK_TYPES[column.dtype]) for name, column in missing.items()}
        )

    # ---- building ------------------------------------------------------------------------------------------------

    @cached_property
    def partitions(self) -> int:
        """Number of customer partitions: the number of cores, or more for a large lake."""
        return max(self._session.sparkContext.defaultParallelism, math.ceil(self._rows / ROWS_PER_PARTITION))

    @property
    def _rows(self) -> int:
        return max((self.states[name].rows for name in REQUIRED_COLUMNS if name in self.states), default=0)

    def frame(self, features: Sequence[Feature], as_of: datetime) -> DataFrame:
        """The profiles as a lazy, unordered Spark data frame.

        Columns are `one_id`, `user_id`, `user_source` and one per feature.
        """
        self._release_cache()
        views = CachedViews(self, features, as_of)
        expression = compile_profiles(features, views, ordered=False)
        with self._without_broadcast_joins():
            return self._session.sql(self.backend.compile(expression))

    def table(self, features: Sequence[Feature], as_of: datetime) -> pa.Table:
        """See `features.compute.engines.base.Engine`; collects the rows on the driver."""

        frame = self.frame(features, as_of)
        with self._without_broadcast_joins():
            return frame.toArrow().sort_by("one_id")

    def write(self, features: Sequence[Feature], as_of: datetime, out: Path) -> int:
        """Write the profiles atomically on the executors.

        Parameters
        ----------
        features : sequence of Feature
            Features to compute.
        as_of : datetime
            Cutoff, naive UTC.
        out : Path
            File or folder, see `features.compute.engines.spark_files.write_frame`.

        Returns
        -------
        int
            Number of customers written.

        Raises
        ------
        DataError
            No customer is known before `as_of`.
        WorkspaceError
            Spark fails, or `out` is not on shared storage.
        """
        from pyspark.sql import functions

        frame = self.frame(features, as_of)
        with self._without_broadcast_joins(), explain_spark_errors(out):
            customers = write_frame(frame, out, ["one_id"], {"customers": functions.count("one_id")})["customers"]
        if not customers:
            raise DataError(
                "no customer is known before this date",
                where=f"--as-of {as_of.date()}",
                hint=f"name a later date; the data ends at {self.lake.typical_end}",
            )
        return customers

    def cache_by_customer(self, expression: ir.Table, name: str) -> ir.Table:
        """Partition rows by customer and cache them on the executors, in memory or on disk."""
        frame = self._session.sql(self.backend.compile(expression)).repartition(self.partitions, "one_id").persist()
        self._cached_frames.append(frame)
        view = f"kept_{name}"
        frame.createOrReplaceTempView(view)
        return self.backend.table(view)

    def _release_cache(self) -> None:
        while self._cached_frames:
            self._cached_frames.pop().unpersist()

    @contextlib.contextmanager
    def _without_broadcast_joins(self) -> Iterator[None]:
        """Disable broadcast joins: the tables are already partitioned by customer and are joined in place."""
        name = "spark.sql.autoBroadcastJoinThreshold"
        before = str(self._session.conf.get(name))
        self._session.conf.set(name, "-1")
        try:
            yield
        finally:
            self._session.conf.set(name, before)


class LazyTables(PreparedTables):
    """Prepared tables without a cache; `CachedViews` caches the rows of one cutoff instead."""

    MAX_CACHED_ROWS = -1


class CachedViews(Views):
    """Views partitioned by customer, with only the columns that the features need."""

    def __init__(self, engine: SparkEngine, features: Sequence[Feature], as_of: datetime) -> None:
        super().__init__(engine.rows, as_of)
        self._engine, self._features = engine, features
        self._partitioned: dict[str, ir.Table] = {}

    @cached_property
    def customers(self) -> ir.Table:
        return self._engine.cache_by_customer(super().customers, "customers")

    def _before_cutoff(self, table: str) -> ir.Table:
        if table not in self._partitioned:
            rows = super()._before_cutoff(table)
            mine = (feature for feature in self._features if feature.view and VIEW_TABLES[feature.view] == table)
            named = {column for feature in mine for column in feature.columns}
            if PRICE_LEVEL in named:
                rows = with_price_levels(rows, self.price_levels)
            columns = [column for column in rows.columns if column in named or column in REQUIRED_COLUMNS[table]]
            self._partitioned[table] = self._engine.cache_by_customer(rows.select(columns), table)
        return self._partitioned[table]

    def _orders(self) -> ir.Table:
        return self._engine.cache_by_customer(super()._orders(), "orders")

    def _profiles(self) -> ir.Table:
        return self._engine.cache_by_customer(super()._profiles(), "profiles")
