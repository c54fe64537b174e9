"""Engines, which run the compiled expressions; all engines compute the same feature values.

An engine opens the lake as Ibis tables, caches what does not depend on the cutoff
(`features.compute.views.PreparedTables`), and turns declarations into a table. The meaning of a feature is defined in
`features.compute.compile_ibis`, never here. To add an engine, add a file to this folder and a line to `ENGINES`.
"""

from __future__ import annotations

from collections.abc import Callable

from features.compute.engines.base import Engine
from features.compute.engines.duckdb import DuckDBEngine
from features.compute.engines.spark import SparkEngine
from qianmian.registry import Registry

ENGINES: Registry[Callable[..., Engine]] = Registry("engine", {"duckdb": DuckDBEngine, "spark": SparkEngine})

__all__ = ["ENGINES", "DuckDBEngine", "Engine", "SparkEngine"]
