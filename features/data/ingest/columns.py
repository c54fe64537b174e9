"""SQL of column lists that the merges of facts and dimensions share."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from features.data.lake import quote
from features.data.tables import LOGGED
from qianmian.schema import Column, Table

# Key columns that a row may leave empty: a sighting needs no time, and a promotion names an item or a category
OPTIONAL_KEYS = {
    ("identities", "observed_at"),
    *(("promotions", name) for name in ("item_id", "category", "kind", "end", "plan_id")),
}


def needs_value(table: Table, column: Column) -> bool:
    """Whether every row needs a value of a column, if its source maps it."""
    return column.required or (column.name in table.key and (table.name, column.name) not in OPTIONAL_KEYS)


def derived(name: str, kind: str, date_only: str | None) -> str:
    """SQL of a column that the source does not map; `date_only` says it of `ts`, if the source maps that."""
    if name == LOGGED:
        return "true"
    return date_only if name == "date_only" and date_only else f"NULL::{kind}"


def column_list(names: Iterable[str]) -> str:
    return ", ".join(quote(name) for name in names)


def content_hash(names: Iterable[str]) -> str:
    """SQL of the hash of some columns; a constant if there are none, because rows that tell nothing are alike."""
    return f"hash({column_list(names) or '0'})"


def common_columns(new: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    """Columns of either side with their SQL types; an attribute whose type changed becomes text."""
    return {
        name: new.get(name, sql_type) if known.get(name, sql_type) == new.get(name, sql_type) else "VARCHAR"
        for name, sql_type in {**new, **known}.items()
    }


def cast_columns(columns: Mapping[str, str], present: Mapping[str, str]) -> str:
    parts = []
    for name, sql_type in columns.items():
        if name not in present:
            parts.append(f"NULL::{sql_type} AS {quote(name)}")
        else:
            parts.append(quote(name) if present[name] == sql_type else f"{quote(name)}::{sql_type} AS {quote(name)}")
    return ", ".join(parts)


def content_columns(table: Table, columns: Iterable[str]) -> list[str]:
    """The columns that tell two versions of a row apart: all but its date and those that ingest derives."""
    no_content = {column.name for column in table.columns if column.derived or column.dates_row}
    return [name for name in columns if name not in no_content]


def told_columns(table: Table, columns: Iterable[str], mapped: Collection[str]) -> list[str]:
    """The columns by which rows of a fact are compared: a column that the source does not map says nothing."""
    told = {*mapped, *table.key, *(column.name for column in table.columns if column.allowed)}
    return [name for name in content_columns(table, columns) if name in told]
