"""Spark: the same expressions over the same Parquet, on this machine or on a cluster.

One plan of forty joins would shuffle each of its forty parts, and Spark would plan the rest anew after every one of them (measured on
1.4 million lines, two cores: 140 s). So the rows before `as_of` are laid out once by customer and kept by the executors; every
part of the plan then finds its customers where they lie, and the whole build is one stage without a shuffle.
Nothing comes to the driver but counts, until the profiles are written, by the executors.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from features.compute.algebra import SORT_KEYS, Feature
from features.compute.compile_ibis import compile_profiles
from features.compute.views import VIEW_TABLES, PreparedTables, Views
from features.data.lake import CUSTOMERS, Lake
from qianmian.errors import ArtifactError, DataError, UsageError, WorkspaceError
from qianmian.schema import TABLES, Table
from qianmian.workspace import atomic_path, explain_os_errors

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

LOCAL_MASTER = "local[*]"
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
MEMORY_SHARE, MAX_MEMORY_GB = 0.5, 8  # of this machine, for a local session
# what the views are made of besides the columns features name
REQUIRED_COLUMNS = {
    "transactions": (
        "one_id",
        "status",
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
# the build is one stage of some hundred operators; these are settings of the whole Spark application, given when it starts
SINGLE_STAGE_OPTIONS = {
    "spark.sql.codegen.cache.maxEntries": "5000",  # it makes more classes than are kept by default, and every task would make them again
    "spark.buffer.pageSize": "2m",  # each operator holds pages: of the default size a task with 0.5 GB is out of memory before its first row
}
CSV_OPTIONS: dict[str, str | bool] = {"header": True, "quoteAll": True, "escape": '"', "emptyValue": ""}
FILE_SUFFIXES = (".parquet", ".csv")


class SparkEngine:
    """A Spark session over the Parquet files of one lake.

    Parameters
    ----------
    lake : Lake
        Its folder must be at the same path on every machine of the cluster.
    master : str
        Spark's master URL: `local[*]`, `spark://host:7077`, `yarn`, `k8s://…`.
    options : mapping of str to str, optional
        Settings of Spark over those chosen here.

    Raises
    ------
    UsageError
        When PySpark or Java is not there, or the master does not answer.

    Notes
    -----
    A context manager: at its end the session is stopped when the engine started it, and what it kept is let go.
    """

    name = "spark"

    def __init__(self, lake: Lake, master: str = LOCAL_MASTER, options: Mapping[str, str] | None = None) -> None:
        self.lake, self.states, self.master = lake, lake.states(), master
        self._scratch = tempfile.TemporaryDirectory(prefix="qianmian-spark-")
        self._cached_frames: list[DataFrame] = []
        self._session, self._started = start_session(master, self._scratch.name, options or {})
        self._session.conf.set("spark.sql.shuffle.partitions", self.partitions)
        # a class is made and compiled for every stage of the plan: over few rows that takes longer than it saves
        self._session.conf.set("spark.sql.codegen.wholeStage", self._rows > CODEGEN_MIN_ROWS)
        for table in (*TABLES.values(), CUSTOMERS):
            self._open(table).createOrReplaceTempView(table.name)
        self.backend: Any = ibis.pyspark.connect(self._session)
        self.rows: PreparedTables = LazyTables(self.backend, self.states)

    def __enter__(self) -> SparkEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of what was kept, and stop the session when this engine started it."""
        self._release_cache()
        if self._started:
            self._session.stop()
        self._scratch.cleanup()

    def _open(self, table: Table) -> DataFrame:
        """A canonical table; one never ingested, or a column the source has not, is empty but typed (as `Lake.attach`)."""
        from pyspark.errors import AnalysisException
        from pyspark.sql import functions

        state = self.states.get(table.name)
        if state is None:
            return self._session.createDataFrame(
                [], ", ".join(f"`{column.name}` {SPARK_TYPES[column.dtype]}" for column in table.columns)
            )
        path = Path(self.lake.parquet_path(state))
        # a table cut into days is a folder of folders; the day is made of `ts` where it is wanted
        folder = Path(*path.parts[: path.parts.index("**")]) if "**" in path.parts else path
        try:
            frame = self._session.read.option("recursiveFileLookup", "true").parquet(file_uri(folder, pattern=True))
        except AnalysisException as error:
            raise ArtifactError(
                f"the lake's {table.name} cannot be read by Spark",
                where=str(folder),
                got=str(error).splitlines()[0],
                hint="ingest again, or see to it that the workspace lies at this path on every machine of the cluster",
            ) from error
        missing = {column.name: column for column in table.columns if column.name not in state.columns}
        return frame.withColumns(
            {name: functions.lit(None).cast(SPARK_TYPES[column.dtype]) for name, column in missing.items()}
        )

    # ---- building ------------------------------------------------------------------------------------------------

    @cached_property
    def partitions(self) -> int:
        """In how many parts the customers are laid out: as many as there are cores, more when the lake is large."""
        return max(self._session.sparkContext.defaultParallelism, math.ceil(self._rows / ROWS_PER_PARTITION))

    @property
    def _rows(self) -> int:
        return max((self.states[name].rows for name in REQUIRED_COLUMNS if name in self.states), default=0)

    def frame(self, features: Sequence[Feature], as_of: datetime) -> DataFrame:
        """The profiles as a Spark data frame, not computed yet, in no order: `one_id`, `user_id`, `user_source`, a column a feature."""
        self._release_cache()
        views = CachedViews(self, features, as_of)
        expression = compile_profiles(features, views, ordered=False)
        with self._without_broadcast_joins():
            return self._session.sql(self.backend.compile(expression))

    def table(self, features: Sequence[Feature], as_of: datetime) -> pa.Table:
        """See `features.compute.engines.base.Engine`; this collects."""
        frame = self.frame(features, as_of)
        with self._without_broadcast_joins():
            return frame.toArrow().sort_by("one_id")

    def write(self, features: Sequence[Feature], as_of: datetime, out: Path) -> int:
        """Write the profiles whole or not at all, by the executors, and give the number of customers.

        Parameters
        ----------
        out : Path
            ``NAME.parquet`` or ``NAME.csv``: one file, written by one task, in order of `one_id`. A name without an ending: a folder of
            Parquet part files, each written by the task that computed it and in order for itself. On a cluster the place must be one
            all its machines share.
        """
        from pyspark.sql import Observation, functions

        counted = Observation()
        frame = self.frame(features, as_of).observe(counted, functions.count("one_id").alias("customers"))
        if out.suffix:
            frame = frame.repartition(1)
        frame = frame.sortWithinPartitions("one_id")
        ending = out.suffix or ".parquet"
        parts = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.parts")
        try:
            with explain_os_errors(out), self._without_broadcast_joins(), explain_spark_errors(out):
                out.parent.mkdir(parents=True, exist_ok=True)
                if ending == ".csv":
                    frame.write.options(**CSV_OPTIONS).csv(file_uri(parts))
                else:
                    frame.write.option("compression", "zstd").parquet(file_uri(parts))
            customers = int(counted.get["customers"])
            if not customers:
                raise DataError(
                    "no customer is known yet at that time",
                    where=f"--as-of {as_of.date()}",
                    hint=f"the data begins later; it ends at {self.lake.last}",
                )
            written = sorted(parts.glob(f"part-*{ending}"))
            if not written:
                raise WorkspaceError(
                    "Spark's machines wrote the profiles somewhere this one does not see",
                    where=str(out),
                    hint="name an --out on storage all machines of the cluster share",
                )
            with atomic_path(out) as temporary:
                (written[0] if out.suffix else parts).replace(temporary)
        finally:
            shutil.rmtree(parts, ignore_errors=True)
        return customers

    def cache_by_customer(self, expression: ir.Table, name: str) -> ir.Table:
        """Lay rows out by customer and keep them with the executors, in memory or on their disks."""
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
        """Parts that lie together already are joined where they lie instead of being sent around."""
        name = "spark.sql.autoBroadcastJoinThreshold"
        before = str(self._session.conf.get(name))
        self._session.conf.set(name, "-1")
        try:
            yield
        finally:
            self._session.conf.set(name, before)


class LazyTables(PreparedTables):
    """Rows that stay queries: what is worth keeping depends on the moment (`CachedViews`)."""

    MAX_CACHED_ROWS = -1


class CachedViews(Views):
    """Views whose rows lie by customer, with the columns that are asked for."""

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
            columns = [column for column in rows.columns if column in named or column in REQUIRED_COLUMNS[table]]
            self._partitioned[table] = self._engine.cache_by_customer(rows.select(columns), table)
        return self._partitioned[table]

    def _orders(self) -> ir.Table:
        return self._engine.cache_by_customer(super()._orders(), "orders")

    def _profiles(self) -> ir.Table:
        return self._engine.cache_by_customer(super()._profiles(), "profiles")


def file_uri(path: Path, pattern: bool = False) -> str:
    """A path of the file system all machines share, as Spark takes it; never its default file system, never a pattern."""
    text = path.absolute().as_posix()
    return "file://" + (
        "".join(f"\\{letter}" if letter in "*?[]{}\\" else letter for letter in text) if pattern else text
    )


def start_session(master: str, scratch: str, options: Mapping[str, str]) -> tuple[SparkSession, bool]:
    """A session of our own, with its own views and settings, and whether Spark was started for it."""
    try:
        from py4j.protocol import Py4JError  # type: ignore[import-untyped]
        from pyspark.errors import PySparkRuntimeError
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise UsageError(
            "PySpark is not installed",
            where="--engine spark",
            hint="pip install 'qianmian[spark]', and install Java 17",
        ) from error
    running = SparkSession.getActiveSession()
    if running is None:
        builder = SparkSession.builder.master(master).appName("qianmian features")
        defaults = {
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.log.level": "ERROR",
            "spark.sql.warehouse.dir": scratch,
            **SINGLE_STAGE_OPTIONS,
            **(driver_memory(master) if "spark.driver.memory" not in options else {}),
        }
        for name, value in {**defaults, **options}.items():
            builder = builder.config(name, value)
        try:
            root = builder.getOrCreate()
        except PySparkRuntimeError as error:
            raise UsageError(
                "Spark does not start",
                where="--engine spark",
                got=first_line(error),
                hint="install Java 17 and let JAVA_HOME point to it",
            ) from error
        except Py4JError as error:
            raise UsageError(
                "the Spark master cannot be used",
                where="--spark-master",
                got=f"{master}: {first_line(error)}",
                allowed="local[*], spark://HOST:PORT, yarn, k8s://URL",
                hint="leave --spark-master out to compute on this machine, or see docs/spark.md",
            ) from error
    else:
        root = running
    session = root.newSession()
    settings = {
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.timestampType": "TIMESTAMP_NTZ",  # times are naive UTC everywhere
        "spark.sql.caseSensitive": "true",  # a source may have both `City` and `city`
        "spark.sql.parquet.inferTimestampNTZ.enabled": "true",
        "spark.sql.adaptive.enabled": "false",  # what is kept by an adaptive plan does not say how it is laid out
        "spark.sql.requireAllClusterKeysForCoPartition": "false",  # rows that lie by customer also lie by customer and time
        "spark.sql.execution.arrow.pyspark.enabled": "true",
    }
    for name, value in settings.items():
        session.conf.set(name, value)
    return session, running is None


@contextlib.contextmanager
def explain_spark_errors(out: Path) -> Iterator[None]:
    """What failed on Spark's machines, without their stacks."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        yield
    except (Py4JError, PySparkException) as error:
        raise WorkspaceError(
            "Spark could not build the profiles",
            where=str(out),
            got=first_line(error),
            hint="nothing was written; see that the workspace and --out lie on storage all its machines share, and docs/spark.md for memory",
        ) from error


def first_line(error: BaseException) -> str:
    """What a Java error says, without its stack."""
    cause = getattr(error, "java_exception", None)
    return str(cause.getMessage() if cause is not None else error).strip().splitlines()[0][:200]


def driver_memory(master: str) -> dict[str, str]:
    """Half of this machine for a session in this process, unless Spark's own settings say something."""
    if not master.startswith("local") or {"SPARK_DRIVER_MEMORY", "SPARK_CONF_DIR", "PYSPARK_SUBMIT_ARGS"} & set(
        os.environ
    ):
        return {}
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"spark.driver.memory": f"{max(1, min(MAX_MEMORY_GB, int(total * MEMORY_SHARE)))}g"}
