"""The Spark session that the tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from features.compute.engines.spark_session import SINGLE_STAGE_OPTIONS


@contextmanager
def spark_on_two_cores(memory: str, log_level: str) -> Iterator[Any]:
    """A local session with two cores, stopped at the end."""
    from pyspark.sql import SparkSession

    settings = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": log_level,
        "spark.driver.memory": memory,
        **SINGLE_STAGE_OPTIONS,
    }
    builder = SparkSession.builder.master("local[2]").appName("tests")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    yield session
    session.stop()
