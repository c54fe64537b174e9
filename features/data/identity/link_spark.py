"""A Spark session for Splink, with the jar of its similarity functions; it leaves no files behind."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterator
from typing import Any

from qianmian.errors import UsageError

RECORDS_OF_A_PARTITION = 20_000
_started_here: list[bool] = []  # not empty once Spark was started here: it then has the jar until the process ends


@contextlib.contextmanager
def spark_api(records: int, master: str = "local[*]") -> Iterator[Any]:
    """Splink's Spark engine on a separate session, which is stopped at the end.

    Intermediate results contain names of people. They stay in memory or in Spark's spill files, which are deleted with
    the session.

    Parameters
    ----------
    records : int
        Number of records; one partition is used per `RECORDS_OF_A_PARTITION`.
    master : str
        Spark master URL.

    Raises
    ------
    UsageError
        If PySpark or Java is missing, or this process already runs Spark: the jar is loaded when Spark starts.
    """
    try:
        from pyspark import SparkContext
        from pyspark.errors import PySparkRuntimeError
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise UsageError(
            "PySpark is not installed",
            where="backend spark",
            hint="run pip install 'qianmian[spark]' and install Java 17",
        ) from error
    from splink import SparkAPI
    from splink.backends.spark import similarity_jar_location

    if SparkContext._gateway is not None and not _started_here:
        raise UsageError(
            "this process already runs Spark without Splink's functions",
            where="backend spark",
            hint="run `qianmian identity link --backend spark` in a separate process, or use the backend duckdb",
        )
    partitions = str(max(1, math.ceil(records / RECORDS_OF_A_PARTITION)))
    with tempfile.TemporaryDirectory(prefix="qianmian-spark-") as scratch:
        builder = SparkSession.builder.master(master).appName("qianmian identity link")
        options = {
            "spark.jars": similarity_jar_location(),
            "spark.sql.session.timeZone": "UTC",
            "spark.ui.enabled": "false",
            "spark.sql.shuffle.partitions": partitions,
            "spark.default.parallelism": partitions,
            "spark.local.dir": scratch,
            "spark.sql.warehouse.dir": scratch,
            "spark.sql.execution.arrow.pyspark.enabled": "true",
            "spark.log.level": "ERROR",
            "spark.ui.showConsoleProgress": "false",
        }
        for name, value in options.items():
            builder = builder.config(name, value)
        try:
            session = builder.getOrCreate()
            _started_here.append(True)
        except PySparkRuntimeError as error:
            raise UsageError(
                "Spark cannot be started",
                where="backend spark",
                got=str(error)[:200],
                hint="install Java 17 and set JAVA_HOME",
            ) from error
        try:
            api: Any = SparkAPI
            yield api(
                spark_session=session, break_lineage_method="persist", num_partitions_on_repartition=int(partitions)
            )
        finally:
            session.stop()
