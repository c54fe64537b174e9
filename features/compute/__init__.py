"""From a declared feature to its value, in three executions: DuckDB or Spark, segment rules, online."""
