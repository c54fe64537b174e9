"""The Spark session of the engine: found or started, its memory, and its errors without the Java stack trace."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from qianmian.errors import UsageError, WorkspaceError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LOCAL_MASTER = "local[*]"
MEMORY_SHARE, MAX_MEMORY_GB = 0.5, 8  # share of the memory of this machine, for a local session
# The build is one stage of some hundred operators. These options apply to the whole Spark application.
SINGLE_STAGE_OPTIONS = {
    # the stage generates more classes than the default cache holds, and every task would compile them again
    "spark.sql.codegen.cache.maxEntries": "5000",
    # each operator holds pages; with the default page size a task with 0.5 GB has no memory left for its first row
    "spark.buffer.pageSize": "2m",
}


def start_session(master: str, scratch: str, options: Mapping[str, str]) -> tuple[SparkSession, bool]:
    """A new session with its own views and settings, and whether this call started Spark."""
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
        if master.startswith("local"):
            os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # instead of the first python3 of the PATH
        builder = SparkSession.builder.master(master).appName("qianmian")
        defaults = {
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.log.level": "OFF",  # errors are raised, and their stack traces would hide what they say
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
                hint="install Java 17 and set JAVA_HOME to its folder",
            ) from error
        except Py4JError as error:
            raise UsageError(
                "the Spark master cannot be used",
                where="--spark-master",
                got=f"{master}: {first_line(error)}",
                allowed="local[*], spark://HOST:PORT, yarn, k8s://URL",
                hint="omit --spark-master to compute on this machine, or see docs/spark.md",
            ) from error
    else:
        root = running
    session = root.newSession()
    settings = {
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.timestampType": "TIMESTAMP_NTZ",  # times are naive UTC everywhere
        "spark.sql.caseSensitive": "true",  # a source may have both `City` and `city`
        "spark.sql.parquet.inferTimestampNTZ.enabled": "true",
        "spark.sql.adaptive.enabled": "false",  # the cache of an adaptive plan does not expose its partitioning
        # rows partitioned by customer are also partitioned by customer and time
        "spark.sql.requireAllClusterKeysForCoPartition": "false",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
    }
    for name, value in settings.items():
        session.conf.set(name, value)
    return session, running is None


@contextlib.contextmanager
def explain_spark_errors(out: Path, could_not: str = "build the profiles") -> Iterator[None]:
    """Turn errors of Spark into a `WorkspaceError`, without the Java stack trace.

    Parameters
    ----------
    out : Path
        What was to be written.
    could_not : str
        What Spark could not do, for the message.
    """
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        yield
    except (Py4JError, PySparkException) as error:
        raise WorkspaceError(
            f"Spark could not {could_not}",
            where=str(out),
            got=first_line(error),
            hint="nothing was written; put the workspace and --out on storage that all machines of the cluster share, "
            "and see docs/spark.md for memory settings",
        ) from error


def first_line(error: BaseException) -> str:
    """First line of a Java error message, without the stack trace; of an error in Python, the line that names it."""
    cause = getattr(error, "java_exception", None)
    lines = str(cause.getMessage() if cause is not None else error).strip().splitlines()
    begun = next((number for number, line in enumerate(lines) if line.startswith("Traceback")), None)
    if begun is not None:  # the error stands behind the calls, which are indented
        lines = [line for line in lines[begun + 1 :] if line[:1].strip()] or lines
    return lines[0][:200]


def driver_memory(master: str) -> dict[str, str]:
    """Memory option for a local session, half of this machine, unless the Spark configuration sets it."""
    variables = {"SPARK_DRIVER_MEMORY", "SPARK_CONF_DIR", "PYSPARK_SUBMIT_ARGS"}
    if not master.startswith("local") or variables & set(os.environ):
        return {}
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"spark.driver.memory": f"{max(1, min(MAX_MEMORY_GB, int(total * MEMORY_SHARE)))}g"}
