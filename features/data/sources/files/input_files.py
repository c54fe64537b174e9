"""`InputFiles`: what the readers of one file type give to the mapping."""

from __future__ import annotations

from collections.abc import Iterable


class InputFiles:
    """Files of one table: SELECT of their rows, columns with SQL types, SELECT of the unreadable lines."""

    def __init__(self, relation: str, columns: dict[str, str], rejects: str | None) -> None:
        self.relation, self.columns, self.rejects = relation, columns, rejects


def name_clash(names: Iterable[str]) -> str | None:
    """Problem with column names: DuckDB ignores case, and two names are reserved. None if there is no problem."""
    seen: dict[str, str] = {}
    for name in names:
        if name.lower() in ("rowid", "_file"):
            return f"the column name {name} is reserved: rename the column"
        if name.lower() in seen:
            return f"two columns have the same name: {seen[name.lower()]!r} and {name!r} (case is ignored): rename one"
        seen[name.lower()] = name
    return None
