"""A Spark session for Splink: its similarity functions come as a jar, and nothing of it outlives the run."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterator
from typing import Any

from qianmian.errors import UsageError

RECORDS_OF_A_PARTITION = 20_000
_started_here: list[bool] = []  # once Spark was started here, it has the jar for as long as the process lives


@contextlib.contextmanager
def spark_api(records: int, master: str = "local[*]") -> Iterator[Any]:
    """Splink's Spark engine on a session of its own, stopped at the end.

    Intermediate results stay in memory (or in Spark's own spill files, which go with the session): they hold people's names.

    Parameters
    ----------
    records : int
        How many there are: a partition for every 20,000, so that small data is not cut into crumbs.
    master : str
        Spark's master URL.

    Raises
    ------
    UsageError
        When PySpark or Java is not there, or when this process runs Spark already: the jar is loaded when Spark starts.
    """
    try:
        from pyspark import SparkContext
        from pyspark.errors import PySparkRuntimeError
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise UsageError(
            "PySpark is not installed", where="backend spark", hint="pip install 'qianmian[spark]', and Java 17"
        ) from error
    from splink import SparkAPI
    from splink.backends.spark import similarity_jar_location

    if SparkContext._gateway is not None and not _started_here:
        raise UsageError(
            "this process runs Spark already, without Splink's functions",
            where="backend spark",
            hint="run `qianmian identity link --backend spark` in a process of its own, or leave the backend out",
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
                "Spark does not start",
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
