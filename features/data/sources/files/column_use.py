"""Which columns of the input the right side of a mapping uses, and whether a file has what it needs."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import duckdb

from features.data.sources.files.csv_format import name_key
from qianmian.errors import did_you_mean

_IDENTIFIER = re.compile(r'"((?:[^"]|"")*)"')
# of these the result is meaningful although some arguments are null
_TOLERANT = {"concat", "concat_ws", "coalesce", "ifnull"}


class ColumnUse:
    """Column references of the right sides of one mapping.

    Parameters
    ----------
    columns : collection of str
        All columns of the input.

    Examples
    --------
    >>> use = ColumnUse(["InvoiceNo", "Invoice", "Qty"])
    >>> use.missing("coalesce(InvoiceNo, Invoice)", ["Invoice", "Qty"]), use.missing("InvoiceNo", ["Invoice"])
    ((), ('InvoiceNo',))
    """

    def __init__(self, columns: Collection[str]) -> None:
        self.columns = list(columns)
        self._trees: dict[str, Any] = {}

    def names(self, text: str) -> list[str]:
        """Columns that a right side names; of a text that is neither a column nor SQL, the text itself."""
        if text in self.columns:
            return [text]
        tree = self._tree(text)
        return list(dict.fromkeys(_references(tree))) if tree is not None else [text]

    def missing(self, text: str, present: Collection[str]) -> tuple[str, ...]:
        """Columns without which the right side is null in a file with the columns `present`."""
        keys = set(map(name_key, present))
        if text in self.columns:
            return () if name_key(text) in keys else (text,)
        tree = self._tree(text)
        return tuple(dict.fromkeys(_missing(tree, keys))) if tree is not None else ()

    def resolved(self, text: str) -> str:
        """The right side with each column name as the header has it: white space counts as one blank, without case.

        Examples
        --------
        >>> ColumnUse(["Order\\nNo"]).resolved("order No")
        'Order\\nNo'
        """
        if text in self.columns:
            return text
        by_name: dict[str, list[str]] = {}
        for name in self.columns:
            by_name.setdefault(name_key(name), []).append(name)
        found = by_name.get(name_key(text), [])
        if len(found) == 1:
            return found[0]

        def exact(match: re.Match[str]) -> str:
            name = match[1].replace('""', '"')
            names = by_name.get(name_key(name), [])
            return match[0] if name in self.columns or len(names) != 1 else '"' + names[0].replace('"', '""') + '"'

        return _IDENTIFIER.sub(exact, text)

    def _tree(self, text: str) -> Any:
        if text not in self._trees:
            row = _parser().cursor().execute("SELECT json_serialize_sql(?)", [f"SELECT {text}"]).fetchone()
            parsed: dict[str, Any] = json.loads(row[0]) if row else {"error": True}
            self._trees[text] = None if parsed["error"] else parsed["statements"][0]["node"].get("select_list")
        return self._trees[text]


@functools.lru_cache(maxsize=1)
def _parser() -> duckdb.DuckDBPyConnection:
    """A DuckDB without data, which only parses; opening one takes as long as parsing a hundred texts."""
    return duckdb.connect()


def missing_columns_text(missing: Iterable[str], present: Collection[str]) -> str:
    """`the column InvoiceNo (did you mean Invoice?)`, for each missing column."""
    return ", ".join(f"the column {name!r}{did_you_mean(name, present)}" for name in missing)


def _references(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        if tree.get("class") == "COLUMN_REF":
            yield str(tree["column_names"][-1])
        for value in tree.values():
            yield from _references(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _references(value)


def _missing(tree: Any, present: set[str]) -> list[str]:
    if isinstance(tree, list):
        return [name for value in tree for name in _missing(value, present)]
    if not isinstance(tree, dict):
        return []
    if tree.get("class") == "COLUMN_REF":
        name = str(tree["column_names"][-1])
        return [] if name_key(name) in present else [name]
    if tree.get("type") == "OPERATOR_COALESCE" or str(tree.get("function_name", "")).lower() in _TOLERANT:
        parts = [(_missing(child, present), list(_references(child))) for child in tree.get("children", [])]
        if any(names and not missing for missing, names in parts):  # one argument comes from this file
            return []
        return [name for missing, _ in parts for name in missing]
    return [name for value in tree.values() for name in _missing(value, present)]
