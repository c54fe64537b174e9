"""DuckDB's progress bar, which writes to the standard output: that of a command belongs to its result."""

from __future__ import annotations

import duckdb


def hide_progress_bar(connection: duckdb.DuckDBPyConnection) -> None:
    """Print no progress of queries that take longer than two seconds.

    In a notebook without ipywidgets, DuckDB disables its progress bar itself and then rejects the setting.
    """
    if connection.execute("SELECT current_setting('enable_progress_bar')").fetchone() == (True,):
        connection.execute("SET enable_progress_bar=false")
