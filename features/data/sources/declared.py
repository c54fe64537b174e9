"""Ids that a source declares to be no customer (walk-in, guest) or no merchandise (bag, deposit, shipping)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from features.data.lake import literal
from features.data.sources.base import RawTable

DECLARED = "_declared"  # column of the rows that stand for declared items which the catalogue lacks


def without_customers(tables: Sequence[RawTable], ids: Sequence[str]) -> list[RawTable]:
    """The tables with a null in place of each customer id of `ids`."""
    if not ids:
        return list(tables)
    listed = _listed(ids)
    return [
        _with_columns(raw, source_user_id=f"CASE WHEN trim(({given})::VARCHAR) NOT IN ({listed}) THEN {given} END")
        if (given := raw.columns.get("source_user_id"))
        else raw
        for raw in tables
    ]


def without_merchandise(tables: Sequence[RawTable], ids: Sequence[str]) -> list[RawTable]:
    """The tables with ``items.merchandise = false`` for each item of `ids`; items the catalogue lacks are added."""
    if not ids:
        return list(tables)
    declared = f"SELECT unnest([{_listed(ids)}]) AS {DECLARED}"
    items = next((raw for raw in tables if raw.table == "items"), None)
    if items is None:
        columns = {"item_id": DECLARED, "merchandise": "false"}
        return [*tables, RawTable("items", declared, columns, ("not_merchandise of the configuration",))]
    file = f", {literal(items.files[0])} AS {items.file_column}" if items.file_column else ""
    given = items.columns["item_id"]
    listed = f"SELECT trim(({given})::VARCHAR) FROM ({items.relation}) WHERE ({given}) IS NOT NULL"
    added = f"SELECT *{file} FROM ({declared}) WHERE {DECLARED} NOT IN ({listed})"
    merchandise = items.columns.get("merchandise", "NULL::BOOLEAN")
    changed = _with_columns(
        replace(items, relation=f"({items.relation}) UNION ALL BY NAME ({added})"),
        item_id=f"coalesce({DECLARED}, ({given})::VARCHAR)",
        merchandise=f"CASE WHEN coalesce({DECLARED}, trim(({given})::VARCHAR)) IN ({_listed(ids)}) THEN 'false' "
        f"ELSE ({merchandise})::VARCHAR END",
    )
    return [changed if raw is items else raw for raw in tables]


def _with_columns(raw: RawTable, **columns: str) -> RawTable:
    changed: Mapping[str, str] = {**raw.columns, **columns}
    return replace(raw, columns=changed)


def _listed(ids: Sequence[str]) -> str:
    return ", ".join(literal(value.strip()) for value in ids)
