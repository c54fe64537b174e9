"""Engines: what runs the compiled expressions. One file and one line here adds another; all give the same features.

An engine opens the lake as Ibis tables, keeps what does not depend on the moment (`features.compute.views.PreparedTables`), and turns
declarations into a table. What a feature means is decided in `features.compute.compile_ibis`, never here.
"""

from __future__ import annotations

from collections.abc import Callable

from features.compute.engines.base import Engine
from features.compute.engines.duckdb import DuckDBEngine
from features.compute.engines.spark import SparkEngine
from qianmian.registry import Registry

ENGINES: Registry[Callable[..., Engine]] = Registry("engine", {"duckdb": DuckDBEngine, "spark": SparkEngine})

__all__ = ["ENGINES", "DuckDBEngine", "Engine", "SparkEngine"]
