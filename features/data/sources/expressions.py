"""Column expressions of a user's configuration: checked before any row is read, and unable to do more than compute one value a row."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from features.data.lake import literal, quote
from qianmian.errors import did_you_mean

# A text column that is used as a number (`Quantity * UnitPrice` over a CSV) is read as one; the same for times.
# A value that is not one refuses its own row only.
_CAST_NOUNS = {"DOUBLE": "a number", "TIMESTAMP": "a time"}
_FORBIDDEN_NODES = {
    "SUBQUERY": "a query inside it is not allowed",
    "WINDOW": "it looks at other rows; only the row itself may be used",
    "STAR": "name one column instead of *",
    "PARAMETER": "it has a parameter without a value",
    "DEFAULT": "DEFAULT means nothing here",
}
_FORBIDDEN_FUNCTIONS = {
    "getvariable",
    "current_setting",
    "getenv",
}  # consistent in DuckDB's eyes, but not functions of the row


@dataclass(frozen=True)
class Expression:
    """A checked right-hand side.

    Attributes
    ----------
    value : str
        SQL of the value; null where `error_conditions` apply.
    sql_type : str
        Its type.
    error_conditions : tuple of (str, str)
        (condition, reason) of rows whose value cannot be computed.
    """

    value: str
    sql_type: str
    error_conditions: tuple[tuple[str, str], ...] = ()


class ExpressionChecker:
    """Checks right-hand sides against the columns of one input, in a DuckDB that can reach no file.

    Parameters
    ----------
    columns : mapping of str to str
        Column → SQL type.

    Examples
    --------
    >>> checker = ExpressionChecker({"Quantity": "VARCHAR", "Unit Price": "VARCHAR"})
    >>> checker.check("Unit Price").value
    '"Unit Price"'
    >>> checker.check('Quantity * "Unit Price"').sql_type
    'DOUBLE'
    >>> checker.check("Quantty * 2")
    Traceback (most recent call last):
    ...
    ValueError: there is no column Quantty (did you mean Quantity?); the columns are Quantity, Unit Price
    """

    def __init__(self, columns: Mapping[str, str]) -> None:
        self.columns = dict(columns)
        self._connection = duckdb.connect(config={"enable_external_access": "false"})
        listed = ", ".join(f"{quote(name)} {sql_type}" for name, sql_type in columns.items())
        self._connection.execute(f"SET TimeZone='UTC'; CREATE TABLE _probe (_probe_row INTEGER, {listed})")

    def close(self) -> None:
        self._connection.close()

    def check(self, text: str) -> Expression:
        """The expression, ready to run.

        Raises
        ------
        ValueError
            Saying what is wrong with it.
        """
        if text in self.columns:  # exactly a column, blanks and odd characters included
            return Expression(quote(text), self.columns[text])
        tree = self._parse(text)
        self._check_allowed(tree, text)
        used = sorted({name for name in _column_names(tree) if self.columns.get(name) == "VARCHAR"})
        failure: duckdb.Error | None = None
        for text_casts in _text_cast_candidates(used):
            sql = self._sql(tree, text_casts)
            try:
                sql_type = self._bind(sql)
            except duckdb.Error as error:
                failure = failure or error
                continue
            return self._expression(text, sql, sql_type, text_casts)
        raise ValueError(self._explain(tree, failure))

    def _parse(self, text: str) -> dict[str, Any]:
        row = self._connection.execute("SELECT json_serialize_sql(?)", [f"SELECT {text}"]).fetchone()
        parsed: dict[str, Any] = json.loads(row[0]) if row else {"error": True, "error_message": "nothing was parsed"}
        if parsed["error"]:
            raise ValueError(
                f"it is neither a column nor an expression: {_first_line(parsed['error_message'])}; {self._listing()}"
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
            raise ValueError(f"leave out the name after it (AS {node['select_list'][0]['alias']}); {self._listing()}")
        return parsed

    def _check_allowed(self, tree: dict[str, Any], text: str) -> None:
        functions = set()
        for node in _nodes(tree["statements"][0]["node"]["select_list"]):
            if node.get("class") in _FORBIDDEN_NODES:
                raise ValueError(_FORBIDDEN_NODES[node["class"]])
            if node.get("class") == "FUNCTION":
                functions.add(str(node["function_name"]).lower())
            if node.get("class") == "COLUMN_REF" and node["column_names"][-1] not in self.columns:
                functions.add(str(node["column_names"][-1]).lower())  # current_date and the like need no brackets
        if not functions:
            return
        rows = self._connection.execute(
            "SELECT function_name, bool_and(function_type = 'aggregate'), bool_or(coalesce(stability, 'CONSISTENT') <> 'CONSISTENT') "
            "FROM duckdb_functions() WHERE list_contains(?, function_name) GROUP BY 1 ORDER BY 1",
            [sorted(functions)],
        ).fetchall()
        for name, aggregates, unsteady in rows:
            if aggregates:
                raise ValueError(f"{name}() looks at other rows; only the row itself may be used")
            if unsteady or name in _FORBIDDEN_FUNCTIONS:
                raise ValueError(
                    f"{name}() does not depend on the row alone, so the same file would not give the same data twice"
                )

    def _sql(self, tree: dict[str, Any], text_casts: Mapping[str, str]) -> str:
        casts = {}
        for name, sql_type in text_casts.items():
            row = self._connection.execute(
                "SELECT json_serialize_sql(?)", [f"SELECT {_try_cast(name, sql_type)}"]
            ).fetchone()
            casts[name] = json.loads(row[0])["statements"][0]["node"]["select_list"][0] if row else None
        row = self._connection.execute(
            "SELECT json_deserialize_sql(?::JSON)", [json.dumps(_with_casts(tree, casts))]
        ).fetchone()
        return str(row[0] if row else "").removeprefix("SELECT ")

    def _bind(self, sql: str) -> str:
        # the second column makes an aggregate that hides in a macro fail
        described = self._connection.execute(
            f"DESCRIBE SELECT {sql} AS v, TRY(struct_pack(v := {sql})) AS t, _probe_row FROM _probe"
        ).fetchall()
        return str(described[0][1])

    def _expression(self, text: str, sql: str, sql_type: str, text_casts: Mapping[str, str]) -> Expression:
        error_conditions = [
            (
                f"nullif(trim({quote(name)}), '') IS NOT NULL AND {_try_cast(name, kind)} IS NULL",
                f"{name} is not {_CAST_NOUNS[kind]} (in {text})",
            )
            for name, kind in text_casts.items()
        ]
        # TRY turns an error into null; around a struct it tells an error from a value that is null
        attempt = f"TRY(struct_pack(v := {sql}))"
        error_conditions.append((f"{attempt} IS NULL", f"{text} cannot be computed"))
        return Expression(f"struct_extract({attempt}, 'v')", sql_type, tuple(error_conditions))

    def _explain(self, tree: dict[str, Any], failure: duckdb.Error | None) -> str:
        lower = {name.lower() for name in self.columns}
        for name in _column_names(tree):
            if name.lower() not in lower and "not found" in str(failure):
                return f"there is no column {name}{did_you_mean(name, self.columns)}; {self._listing()}"
        return f"DuckDB refuses it: {_first_line(str(failure))}; {self._listing()}"

    def _listing(self) -> str:
        return "the columns are " + ", ".join(self.columns)


def _try_cast(name: str, sql_type: str) -> str:
    return f"TRY_CAST(nullif(trim({quote(name)}), '') AS {sql_type})"


def _text_cast_candidates(names: list[str]) -> Iterator[dict[str, str]]:
    """All ways to read text columns as numbers or times, fewest changes first, numbers before times."""
    kinds = ("VARCHAR", "DOUBLE", "TIMESTAMP") if len(names) <= 5 else ("VARCHAR", "DOUBLE")
    ways = itertools.product(kinds, repeat=min(len(names), 10))
    for way in sorted(ways, key=lambda way: (sum(kind != "VARCHAR" for kind in way), way.count("TIMESTAMP"))):
        yield {name: kind for name, kind in zip(names, way, strict=False) if kind != "VARCHAR"}


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


def _column_names(tree: Any) -> list[str]:
    return [str(node["column_names"][-1]) for node in _nodes(tree) if node.get("class") == "COLUMN_REF"]


def _with_casts(tree: Any, casts: Mapping[str, Any]) -> Any:
    if isinstance(tree, dict):
        if tree.get("class") == "COLUMN_REF" and tree["column_names"][-1] in casts:
            return casts[tree["column_names"][-1]]
        return {key: _with_casts(value, casts) for key, value in tree.items()}
    return [_with_casts(value, casts) for value in tree] if isinstance(tree, list) else tree


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0].removesuffix(".") if text.strip() else text


def csv_relation(
    files: list[str], columns: list[str], delimiter: str, encoding: str, header: bool, rejects: str
) -> str:
    """A SELECT over CSV files with the same columns: every value as text, lines that do not fit into the table `rejects`."""
    named = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in columns)
    listed = ", ".join(literal(file) for file in files)
    # nothing is sniffed: a guess may change with the first rows of the file, and ids lose their leading zeros
    return (
        f"SELECT * FROM read_csv([{listed}], columns={{{named}}}, auto_detect=false, header={str(header).lower()}, delim={literal(delimiter)}, "
        f"quote='\"', escape='\"', encoding={literal(encoding)}, filename='_file', store_rejects=true, rejects_limit=0, "
        f"rejects_table={literal(rejects)}, rejects_scan={literal(rejects + '_scan')})"
    )


def csv_rejects(rejects: str) -> str:
    """A SELECT (file, reason, row) of the lines `csv_relation` could not split; a line with two faults is one line."""
    return (
        f"SELECT file_path AS file, 'line cannot be read: ' || lower(replace(any_value(error_type::VARCHAR), '_', ' ')) AS reason, "
        f"json_object('line', line, 'text', any_value(csv_line))::VARCHAR AS row "
        f"FROM {rejects} JOIN {rejects}_scan USING (scan_id, file_id) GROUP BY file_path, line"
    )
