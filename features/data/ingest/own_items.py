"""Item ids of a source whose goods are its own: ``hardware:1001``, so that they do not meet those of another source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import duckdb

from features.data.lake import literal
from features.data.sources.base import RawTable
from qianmian.errors import DataError

ITEM_COLUMNS = ("item_id", "item_ids")  # of any table; the second is a list joined by |


def prefixed(name: str, value: str, prefix: str) -> str:
    """SQL of an item id, or of a list of them, with the prefix of its source; `value` if there is no prefix.

    Examples
    --------
    >>> prefixed("item_id", "c.item_id", "hardware:"), prefixed("item_id", "c.item_id", "")
    ("'hardware:' || c.item_id", 'c.item_id')
    """
    if not prefix or name not in ITEM_COLUMNS:
        return value
    if name == "item_id":
        return f"{literal(prefix)} || {value}"
    ids = f"list_filter(string_split({value}, '|'), lambda id: trim(id) <> '')"
    return f"array_to_string(list_transform({ids}, lambda id: {literal(prefix)} || trim(id)), '|')"


def with_own_items(connection: duckdb.DuckDBPyConnection, source: str, tables: Sequence[RawTable]) -> list[RawTable]:
    """The tables with the prefix of the item ids, if the items of the source are its own.

    They are if its table of items says ``shared: false``, and from then on also in files without a table of items.

    Parameters
    ----------
    connection : DuckDBPyConnection
        With the views ``lake_<table>``.

    Raises
    ------
    DataError
        If the lake holds ids of the source that contradict `shared`.
    """
    shared = next((raw.shared for raw in tables if raw.table == "items"), None)
    prefix = f"{source}:"
    of_source, own = f"source = {literal(source)}", f"starts_with(item_id, {literal(prefix)})"
    known = connection.execute(
        f"SELECT count(*), count(*) FILTER ({own}) FROM lake_items WHERE {of_source}"
    ).fetchone() or (0, 0)
    is_own = shared is False or (known[0] > 0 and known[0] == known[1])
    if shared and is_own:
        raise DataError(
            f"the items of {source} are stored as its own",
            where="tables.items.shared",
            got=f"shared: true, and {known[1]:,} items such as {prefix}… in the lake",
            hint="write `shared: false`, or ingest into a new workspace; the lake is unchanged",
        )
    if not is_own:
        return list(tables)
    for table in ("items", "transactions", "events", "promotions"):
        row = connection.execute(
            f"SELECT count(*), any_value(item_id) FROM lake_{table} WHERE {of_source} AND NOT {own}"
        ).fetchone()
        if row and row[0]:
            raise DataError(
                f"`shared: false` comes too late for {source}: the lake holds its items under their plain ids",
                where=f"{table} in the lake",
                got=f"{row[0]:,} rows, for example of item {row[1]}",
                hint="write `shared: false` for the other source, or ingest into a new workspace; "
                "the lake is unchanged",
            )
    return [replace(raw, item_prefix=prefix) for raw in tables]
