"""Column expressions of `sources.yaml`.

They are checked before any row is read. An expression can only compute one value per row from that row.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import duckdb

from features.data.lake import quote
from features.data.sources.casting_times import bound
from features.data.sources.cells import value_text
from features.data.sources.expression_times import TimeRewriter
from features.data.sources.numbers import number_cell
from qianmian.errors import did_you_mean
from qianmian.schema import DType

TIME = "time"  # kind of a text column that is used as a time

# A text column that is used as a number (`Quantity * UnitPrice` over a CSV) is cast to a number; the same for times
# (`TimeRewriter`). If the cast of a value fails, only its row is rejected.
_CAST_NOUNS = {"DOUBLE": "a number"}
_FORBIDDEN_NODES = {
    "SUBQUERY": "a subquery is not allowed",
    "WINDOW": "a window function reads other rows; only the row itself may be used",
    "STAR": "name one column instead of *",
    "PARAMETER": "a parameter without a value is not allowed",
    "DEFAULT": "DEFAULT has no meaning here",
}
# DuckDB declares these consistent, but they do not depend on the row
_FORBIDDEN_FUNCTIONS = {"getvariable", "current_setting", "getenv"}
# functions that remove or change separators, so that their result may be 100 times the number in the file
_EDITING_FUNCTIONS = {"replace", "regexp_replace", "translate"}


@dataclass(frozen=True)
class Expression:
    """A checked expression.

    Attributes
    ----------
    value : str
        SQL of the value; null where an error condition holds.
    sql_type : str
        SQL type of the value.
    error_conditions : tuple of (str, str)
        (SQL condition, reason) of rows whose value cannot be computed.
    naive_conditions : tuple of str
        SQL conditions of rows whose times have no offset and are read in the time zone of the source.
    number_columns : tuple of str
        Text columns that are cast to numbers.
    edited_columns : tuple of str
        Text columns whose characters the expression replaces.
    common : tuple of str
        Parts that occur in several of the above: see `RawTable`.
    """

    value: str
    sql_type: str
    error_conditions: tuple[tuple[str, str], ...] = ()
    naive_conditions: tuple[str, ...] = ()
    number_columns: tuple[str, ...] = ()
    edited_columns: tuple[str, ...] = ()
    common: tuple[str, ...] = ()


class ExpressionChecker:
    """Checks expressions against the columns of one input, in a DuckDB without access to files.

    Parameters
    ----------
    columns : mapping of str to str
        Column name → SQL type.
    timezone : str
        Zone of texts without an offset that an expression uses as times.

    Examples
    --------
    >>> checker = ExpressionChecker({"Quantity": "VARCHAR", "Unit Price": "VARCHAR"})
    >>> checker.check("unit price").value
    '"Unit Price"'
    >>> checker.check('QUANTITY * "Unit Price"').sql_type
    'DOUBLE'
    >>> checker.check("Quantty * 2")
    Traceback (most recent call last):
    ...
    ValueError: unknown column Quantty (did you mean Quantity?); the columns are Quantity, Unit Price
    """

    def __init__(self, columns: Mapping[str, str], timezone: str = "UTC") -> None:
        self.columns, self.timezone = dict(columns), timezone
        self._by_lower = {name.lower(): name for name in columns}
        self._connection = duckdb.connect(config={"enable_external_access": "false"})
        listed = ", ".join(f"{quote(name)} {sql_type}" for name, sql_type in columns.items())
        self._connection.execute(f"SET TimeZone='UTC'; CREATE TABLE _probe (_probe_row INTEGER, {listed})")

    def close(self) -> None:
        self._connection.close()

    def check(self, text: str, dtype: DType | None = None) -> Expression:
        """Check one expression and return it ready to run, in a session whose time zone is that of the source.

        Parameters
        ----------
        text : str
            The expression.
        dtype : DType, optional
            What its value is to be: in an expression for a time, texts are ordered as times.

        Raises
        ------
        ValueError
            With the problem, if the expression is invalid.
        """
        name = self._spelled(text)
        if name in self.columns:  # a column name may contain blanks and special characters
            return Expression(quote(name), self.columns[name])
        tree = self._parse(text)
        for node in _nodes(tree):
            if node.get("class") == "COLUMN_REF":
                node["column_names"][-1] = self._spelled(node["column_names"][-1])
        self._check_allowed(tree, text)
        used = sorted({name for name in _column_names(tree) if self.columns.get(name) == "VARCHAR"})
        failure: duckdb.Error | None = None
        for text_casts, local in itertools.product(_text_cast_candidates(used), (False, True)):
            numbers = {name: kind for name, kind in text_casts.items() if kind != TIME}
            rewriter = TimeRewriter(
                text,
                self.columns,
                self.timezone,
                dtype,
                self._node,
                self._sql,
                self._type_of,
                local,
            )
            try:
                node = self._with_casts(tree["statements"][0]["node"]["select_list"][0], numbers)
                node = rewriter.rewrite(node, frozenset(text_casts.keys() - numbers.keys()))
                sql = self._sql(node)
                sql_type = self._bind(sql)
            except duckdb.Error as error:
                failure = failure or error
                continue
            return self._expression(text, sql, sql_type, numbers, rewriter, _edited_columns(tree, used))
        raise ValueError(self._explain(tree, failure))

    def _spelled(self, name: str) -> str:
        """The column that is meant, as the input spells it; case is ignored, as in DuckDB."""
        return name if name in self.columns else self._by_lower.get(name.lower(), name)

    def _parse(self, text: str) -> dict[str, Any]:
        parsed = self._serialized(f"SELECT {text}")
        if parsed["error"]:
            raise ValueError(
                "it is neither a column nor a valid expression: "
                f"{_first_line(parsed['error_message'])}; {self._listing()}"
            )
        node = parsed["statements"][0]["node"]
        plain = (
            len(parsed["statements"]) == 1
            and node["type"] == "SELECT_NODE"
            and node["from_table"]["type"] == "EMPTY"
            and not any(
                node[part] for part in ("modifiers", "where_clause", "group_expressions", "having", "qualify", "sample")
            )
            and not node["cte_map"]["map"]
        )
        if not plain or len(node["select_list"]) != 1:
            raise ValueError("it must be one expression over the columns of the file, not a query or a list")
        if node["select_list"][0].get("alias"):
            raise ValueError(f"remove the alias (AS {node['select_list'][0]['alias']}); {self._listing()}")
        return parsed

    def _check_allowed(self, tree: dict[str, Any], text: str) -> None:
        functions = set()
        for node in _nodes(tree["statements"][0]["node"]["select_list"]):
            if node.get("class") in _FORBIDDEN_NODES:
                raise ValueError(_FORBIDDEN_NODES[node["class"]])
            if node.get("class") == "FUNCTION":
                functions.add(str(node["function_name"]).lower())
            if node.get("class") == "COLUMN_REF" and node["column_names"][-1] not in self.columns:
                functions.add(str(node["column_names"][-1]).lower())  # functions such as current_date need no brackets
        if not functions:
            return
        rows = self._connection.execute(
            "SELECT function_name, bool_and(function_type = 'aggregate'), "
            "bool_or(coalesce(stability, 'CONSISTENT') <> 'CONSISTENT') "
            "FROM duckdb_functions() WHERE list_contains(?, function_name) GROUP BY 1 ORDER BY 1",
            [sorted(functions)],
        ).fetchall()
        for name, is_aggregate, is_volatile in rows:
            if is_aggregate:
                raise ValueError(f"{name}() reads other rows; only the row itself may be used")
            if is_volatile or name in _FORBIDDEN_FUNCTIONS:
                raise ValueError(
                    f"{name}() does not depend on the row alone, so the same file would not always give the same data"
                )

    def _with_casts(self, node: Any, casts: Mapping[str, str]) -> Any:
        if isinstance(node, list):
            return [self._with_casts(part, casts) for part in node]
        if not isinstance(node, dict):
            return node
        if node.get("class") == "COLUMN_REF" and node["column_names"][-1] in casts:
            name = node["column_names"][-1]
            return self._node(_try_cast(name, casts[name]))
        return {key: self._with_casts(value, casts) for key, value in node.items()}

    def _node(self, sql: str) -> dict[str, Any]:
        """Tree of an SQL expression."""
        node: dict[str, Any] = self._serialized(f"SELECT {sql}")["statements"][0]["node"]["select_list"][0]
        return node

    def _serialized(self, sql: str) -> dict[str, Any]:
        row = self._connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchone()
        parsed: dict[str, Any] = json.loads(row[0]) if row else {"error": True, "error_message": "no result"}
        return parsed

    def _sql(self, node: dict[str, Any]) -> str:
        """SQL of the tree of an expression."""
        statement = self._serialized("SELECT 1")
        statement["statements"][0]["node"]["select_list"] = [node]
        row = self._connection.execute("SELECT json_deserialize_sql(?::JSON)", [json.dumps(statement)]).fetchone()
        return str(row[0] if row else "").removeprefix("SELECT ")

    def _type_of(self, node: dict[str, Any]) -> str | None:
        """SQL type of the tree of an expression; None if it cannot be bound by itself."""
        if node.get("class") == "COLUMN_REF":
            return self.columns.get(node["column_names"][-1])
        try:
            described = self._connection.execute(f"DESCRIBE SELECT {self._sql(node)} FROM _probe").fetchall()
        except duckdb.Error:
            return None
        return str(described[0][1])

    def _bind(self, sql: str) -> str:
        # because of the second column, an aggregate inside a macro fails here
        described = self._connection.execute(
            f"DESCRIBE SELECT {sql} AS v, TRY(struct_pack(v := {sql})) AS t, _probe_row FROM _probe"
        ).fetchall()
        return str(described[0][1])

    def _expression(
        self,
        text: str,
        sql: str,
        sql_type: str,
        text_casts: Mapping[str, str],
        rewriter: TimeRewriter,
        edited: tuple[str, ...],
    ) -> Expression:
        cast_columns = {name: self._sql(self._node(_try_cast(name, kind))) for name, kind in text_casts.items()}
        # CASE, because both sides of AND are computed for all rows
        error_conditions = [
            (
                f"CASE WHEN {as_kind} IS NULL THEN {value_text(quote(name))} IS NOT NULL END",
                f"{name} is not {_CAST_NOUNS[text_casts[name]]} (in {text})",
            )
            for name, as_kind in cast_columns.items()
        ]
        error_conditions += rewriter.conditions
        # TRY turns an error into null; with a struct around the value, an error differs from a null value
        attempt = f"TRY({bound('0', '_none', f'struct_pack(v := {sql})')})"
        failures = [*rewriter.failure_conditions, ("true", f"{text} cannot be computed")]
        error_conditions += [
            (f"CASE WHEN {attempt} IS NULL THEN {condition} END", reason) for condition, reason in failures
        ]
        return Expression(
            f"struct_extract({attempt}, 'v')",
            sql_type,
            tuple(error_conditions),
            tuple(rewriter.naive_conditions),
            tuple(name for name, kind in text_casts.items() if kind == "DOUBLE"),
            edited,
            tuple(dict.fromkeys([*cast_columns.values(), *rewriter.read_columns, attempt])),
        )

    def _explain(self, tree: dict[str, Any], failure: duckdb.Error | None) -> str:
        lower = {name.lower() for name in self.columns}
        for name in _column_names(tree):
            if name.lower() not in lower and "not found" in str(failure):
                return f"unknown column {name}{did_you_mean(name, self.columns)}; {self._listing()}"
        return f"DuckDB rejects it: {_first_line(str(failure))}; {self._listing()}"

    def _listing(self) -> str:
        return "the columns are " + ", ".join(self.columns)


def in_expression(name: str) -> str:
    """A column name as one writes it inside an expression: in double quotes where it is no plain word.

    Examples
    --------
    >>> in_expression("price"), in_expression("Unit Price"), in_expression("order")
    ('price', '"Unit Price"', '"order"')
    """
    return name if re.fullmatch(r"[A-Za-z_]\w*", name) and name.lower() not in _reserved_words() else quote(name)


@cache
def _reserved_words() -> frozenset[str]:
    """The words that SQL does not take for a column name."""
    with duckdb.connect() as connection:
        words = connection.execute(
            "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category IN ('reserved', 'type_function')"
        ).fetchall()
    return frozenset({"user", *(str(word) for (word,) in words)})  # `user` is read as the function


def _try_cast(name: str, sql_type: str) -> str:
    if sql_type == "DOUBLE":
        return number_cell(name)
    return f"TRY_CAST({value_text(quote(name))} AS {sql_type})"


def _text_cast_candidates(names: list[str]) -> Iterator[dict[str, str]]:
    """All ways to cast text columns to numbers or times: fewest casts first, numbers before times."""
    kinds = ("VARCHAR", "DOUBLE", TIME) if len(names) <= 5 else ("VARCHAR", "DOUBLE")
    candidates = itertools.product(kinds, repeat=min(len(names), 10))
    for types in sorted(candidates, key=lambda types: (sum(k != "VARCHAR" for k in types), types.count(TIME))):
        yield {name: kind for name, kind in zip(names, types, strict=False) if kind != "VARCHAR"}


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


def _edited_columns(tree: Any, columns: list[str]) -> tuple[str, ...]:
    """Those of `columns` that are arguments of an editing function."""
    calls = [node for node in _nodes(tree) if str(node.get("function_name", "")).lower() in _EDITING_FUNCTIONS]
    return tuple(sorted({name for call in calls for name in _column_names(call) if name in columns}))


def _column_names(tree: Any) -> list[str]:
    return [str(node["column_names"][-1]) for node in _nodes(tree) if node.get("class") == "COLUMN_REF"]


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0].removesuffix(".") if text.strip() else text
