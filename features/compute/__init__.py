"""Computation of declared features, in three executions: DuckDB or Spark, segment rules, and online."""
