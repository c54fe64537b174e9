"""Memory of DuckDB: bounded by a setting, not by the data."""

from __future__ import annotations

from pathlib import Path

from features.data.lake import literal

MEMORY_GB = 1.5  # default of `Settings.database_memory_gb`


def bounded_memory(memory_gb: float) -> str:
    """SQL that bounds the memory of a DuckDB connection; what exceeds it is written to the folder of `spill_to`.

    Parameters
    ----------
    memory_gb : float
        `Settings.database_memory_gb`. The process itself, and what DuckDB does not count, come on top: 0.2 to 0.5 GB.
    """
    return f"SET memory_limit='{memory_gb:g}GB';"


def spill_to(folder: Path) -> str:
    """SQL that names the folder of a DuckDB connection for what does not fit into memory; it need not exist."""
    return f"SET temp_directory={literal(folder)};"
