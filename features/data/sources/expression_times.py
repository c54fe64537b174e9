"""Times inside the expressions of `sources.yaml`: an offset in a text is never thrown away.

DuckDB casts `2024-05-01T23:30:00+08:00` to the TIMESTAMP 23:30 and forgets the offset. Before an expression is run, its
casts of texts to times are therefore replaced: the text becomes an instant (TIMESTAMP WITH TIME ZONE), and a text
without an offset is read in the time zone of the source. Ingest computes with instants in that zone, so that
`date_trunc('day', …)` is a local day. What would still lose an offset is refused, before any row is read or row by row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from features.data.lake import quote
from features.data.sources.casting_times import (
    bound,
    date_of_text,
    has_offset,
    instant_of_column,
    instant_of_text,
    is_time,
    naive_of_text,
    text_faults,
    trimmed,
    utc_of_instant,
)
from qianmian.schema import DType
from qianmian.timezones import timezone_problem

Node = dict[str, Any]

INSTANT = "TIMESTAMP WITH TIME ZONE"
_NAIVE = ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS")
_TIMES = (*_NAIVE, "DATE", INSTANT)
# they return UTC without saying so
_UTC_FUNCTIONS = {"epoch_ms", "make_timestamp", "make_timestamp_ms", "make_timestamp_ns"}
_PARSERS = {"strptime", "try_strptime"}
_ORDERINGS = {
    *("COMPARE_LESSTHAN", "COMPARE_GREATERTHAN", "COMPARE_LESSTHANOREQUALTO", "COMPARE_GREATERTHANOREQUALTO"),
    *("COMPARE_BETWEEN", "least", "greatest"),
}
_SAME_TYPE = {"OPERATOR_COALESCE", "COMPARE_IN", "COMPARE_NOT_IN", "least", "greatest", "nullif"}
# what follows the last directive of a format: a zone in words or figures, which the result forgets
_FORMAT_END = re.compile(r"\s*(Z|UTC|GMT|[+-]\d{2}:?(?:\d{2})?|[A-Z]{3,5})\s*$")
_UTC_NAMES = ("Z", "UTC", "GMT")
OWN_OFFSET = "has an offset of its own: remove AT TIME ZONE"


class TimeRewriter:
    """Rewrites the tree of one expression so that times keep their instants.

    Parameters
    ----------
    columns : mapping of str to str
        Column name → SQL type.
    timezone : str
        Zone of the source.
    dtype : DType or None
        What the value of the expression is to be.
    parse, sql : callable
        SQL text → node of an expression, and back.
    type_of : callable
        SQL type of a node; None if it cannot be bound by itself, as inside a lambda.
    local : bool
        Cast texts to local times instead of instants, for functions that take no instants.

    Attributes
    ----------
    conditions : list of (str, str)
        (SQL condition, reason) of rows to reject.
    failure_conditions : list of (str, str)
        The same, but only for rows whose value cannot be computed.
    naive_conditions : list of str
        SQL conditions of rows whose times have no offset and are read in the zone of the source.
    read_columns : list of str
        SQL of the columns that were read as times; it occurs in the conditions and in the rewritten tree.
    """

    def __init__(
        self,
        text: str,
        columns: Mapping[str, str],
        timezone: str,
        dtype: DType | None,
        parse: Callable[[str], Node],
        sql: Callable[[Node], str],
        type_of: Callable[[Node], str | None],
        local: bool = False,
    ) -> None:
        self._text, self._columns, self._timezone, self._dtype = text, columns, timezone, dtype
        self._is_time = dtype in ("timestamp", "date")
        self._parse, self._sql, self._type_of, self._local = parse, sql, type_of, local
        self.conditions: list[tuple[str, str]] = []
        self.failure_conditions: list[tuple[str, str]] = []
        self.naive_conditions: list[str] = []
        self.read_columns: list[str] = []
        self._instants: list[Node] = []  # trees of texts that were read with their offsets

    def rewrite(self, tree: Node, times: frozenset[str]) -> Node:
        """Rewrite a tree; text columns in `times` are cast to times wherever they occur.

        Raises
        ------
        ValueError
            If the expression loses the offset of every row.
        """
        rewritten: Node = self._rewrite(tree, times, naive=False)
        if self._dtype == "timestamp" and self._type_of(rewritten) == "VARCHAR" and not _is_column(tree):
            self._forbid_lost_offset(rewritten, self._tried(rewritten))
        return rewritten

    def _rewrite(self, node: Any, times: frozenset[str], naive: bool) -> Any:
        if isinstance(node, list):
            return [self._rewrite(part, times, naive) for part in node]
        if not isinstance(node, dict):
            return node
        if _is_column(node):
            name = node["column_names"][-1]
            return self._column(name, naive) if name in times else node
        function = str(node.get("function_name", "")).lower() if node.get("class") == "FUNCTION" else ""
        inside = naive or function == "timezone"
        node = {key: self._rewrite(value, times, inside) for key, value in node.items()}
        if node.get("class") == "CAST":
            return self._cast(node, naive)
        if function == "timezone":
            self._check_timezone(node, naive)
        elif function in _UTC_FUNCTIONS and len(node["children"]) == 1 and not naive:
            if self._type_of(node) in _NAIVE:
                return self._parse(self._as_wanted(f"timezone('UTC', CAST({self._sql(node)} AS TIMESTAMP))"))
        elif function in _PARSERS:
            return self._strptime(node, naive)
        elif function == "date_trunc" and self._timezone == "UTC" and self._is_instant(node["children"][1]):
            unit, instant = map(self._sql, node["children"])
            # in UTC the same as over the instant, which asks the calendar of the zone and takes ten times as long
            return self._parse(f"make_timestamptz(epoch_us(date_trunc({unit}, {utc_of_instant(instant)})))")
        return self._same_type(node, function, naive)

    def _read(self, sql: str) -> Node:
        self._instants.append(self._parse(sql))
        return self._instants[-1]

    def _is_instant(self, node: Any) -> bool:
        """Whether a node is a text that was read as an instant."""
        return any(node is read for read in self._instants) and self._type_of(node) == INSTANT

    def _cut_columns(self, node: Any) -> set[str]:
        """Text columns of a tree, without those that were read as instants."""
        if any(node is instant for instant in self._instants):
            return set()
        if _is_column(node):
            name = str(node["column_names"][-1])
            return {name} if self._columns.get(name) == "VARCHAR" else set()
        parts = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        return {name for part in parts for name in self._cut_columns(part)}

    def _tried(self, node: Node) -> str:
        """SQL of the text of a node, null where it raises an error; for conditions, which are not within TRY."""
        return trimmed(f"TRY({bound('0', '_none', f'CAST({self._sql(node)} AS VARCHAR)')})")

    def _as_wanted(self, instant: str) -> str:
        return f"CAST({instant} AS TIMESTAMP)" if self._local else instant

    def _column(self, name: str, naive: bool) -> Node:
        """A text column that a function takes for a time; a text that is none gives null, and its row is rejected."""
        text = trimmed(quote(name))
        value, _, faults = self._reader("_text", "TIMESTAMP", naive)
        read = bound(text, "_text", value) if naive else instant_of_column(quote(name), self._timezone)
        read = self._sql(self._parse(read))
        self.read_columns.append(read)
        conditions = self._not_read(text, name, f"({value}) IS NOT NULL" if naive else is_time("_text"), faults)
        # what is wrong is asked only where the column was not read
        self.conditions += [(f"CASE WHEN {read} IS NULL THEN {wrong} END", reason) for wrong, reason in conditions]
        if not naive:
            self.naive_conditions.append(_without_offset(quote(name), text))
        return self._read(read if naive else self._as_wanted(read))

    def _not_read(self, text: str, name: str, read: str, faults: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
        """(SQL condition, reason) of rows whose text is no time; `read` (is one) and `faults` are over `_text`."""
        unread = f"_text IS NOT NULL AND ({read}) IS NOT true"
        return [
            (bound(text, "_text", condition), f"{name} {what} (in {self._text})")
            for condition, what in (*faults, (unread, "is not a time"))
        ]

    def _cast(self, node: Node, naive: bool) -> Node:
        target, child = str(node["cast_type"]["id"]), node["child"]
        child_type = self._type_of(child)
        if target == "TIME" and child_type == INSTANT:  # DuckDB has no such cast
            return self._parse(f"CAST(CAST({self._sql(child)} AS TIMESTAMP) AS TIME)")
        constant = child.get("class") == "CONSTANT"
        if (target not in _TIMES and target != "TIME") or child_type not in ("VARCHAR", None):
            return node
        if constant and not re.search(r":\d\d.*([Zz]|[+-]\d\d(:?\d\d)?)$", str(child["value"].get("value", ""))):
            return node
        return self._read(self._cast_text(child, target, bool(node["try_cast"]), naive))

    def _cast_text(self, child: Node, target: str, null_on_error: bool, naive: bool = False) -> str:
        """SQL of a text as a time; a text that is none raises an error, unless `null_on_error`."""
        text = trimmed(f"CAST({self._sql(child)} AS VARCHAR)")
        value, kind, faults = self._reader("_text", target, naive)
        if target == "TIME":
            return self._clock_of_text(text, value, null_on_error)
        if self._type_of(child) is not None:  # else it is inside a lambda, of which no condition can speak
            seen = text if _is_column(child) else self._tried(child)
            if target != "DATE":
                self._forbid_lost_offset(child, seen)
            if not naive:
                self.naive_conditions.append(_without_offset(seen, seen))
            if not null_on_error:
                label = child["column_names"][-1] if _is_column(child) else self._sql(child)
                self.failure_conditions += self._not_read(seen, label, f"({value}) IS NOT NULL", faults)
        if not null_on_error:
            read = f"CASE WHEN _text IS NOT NULL AND _time IS NULL THEN {_raise('_text', kind)} ELSE _time END"
            value = bound(value, "_time", read)
        value = bound(text, "_text", value)
        return self._as_wanted(value) if kind == INSTANT else value

    def _clock_of_text(self, text: str, instant: str, null_on_error: bool) -> str:
        """SQL of the clock time of a text; an offset without a date is an error."""
        lost = "NULL" if null_on_error else _raise("_text", "TIME")
        clock = (
            f"CASE WHEN {has_offset('_text')} THEN {lost} ELSE {'TRY_' if null_on_error else ''}CAST(_text AS TIME) END"
        )
        return bound(text, "_text", f"coalesce(CAST(CAST(({instant}) AS TIMESTAMP) AS TIME), {clock})")

    def _reader(self, text: str, target: str, naive: bool) -> tuple[str, str, tuple[tuple[str, str], ...]]:
        """SQL of a text as a time, its SQL type, and the faults of a text that is none."""
        if naive and target in _NAIVE:
            return naive_of_text(text), "TIMESTAMP", ((has_offset(text), OWN_OFFSET),)
        faults = text_faults(text, self._timezone)
        if target == "DATE":
            return date_of_text(text, self._timezone), "DATE", faults[:1]
        return instant_of_text(text, self._timezone), INSTANT, faults

    def _forbid_lost_offset(self, node: Node, text: str) -> None:
        """Reject the rows where a column used in `node` has an offset, and the text made of it has none."""
        if _is_column(node) or self._type_of(node) is None:
            return
        for name in sorted(self._cut_columns(node)):
            kept = f"{text} IS NOT NULL AND NOT {has_offset(text)}"
            lost = f"CASE WHEN {has_offset(trimmed(quote(name)))} THEN {kept} END"
            what = "has an offset from UTC that the expression cuts off: use the whole text, or cast it ::TIMESTAMP"
            self.conditions.append((lost, f"{name} {what} (in {self._text})"))

    def _check_timezone(self, node: Node, naive: bool) -> None:
        zone = node["children"][0]
        named = str(zone["value"]["value"]) if zone.get("class") == "CONSTANT" else None
        problem = timezone_problem(named) if named is not None else None
        if problem:
            raise ValueError(f"AT TIME ZONE: {problem}")
        if self._is_time and not naive and named != self._timezone and self._type_of(node) in _NAIVE:
            raise ValueError(
                f"AT TIME ZONE makes a local time of an instant here, which would be read again in the time zone of "
                f"the source ({self._timezone}): remove AT TIME ZONE, an instant is converted by itself"
            )

    def _strptime(self, node: Node, naive: bool) -> Node:
        formats = [
            str(part["value"]["value"])
            for part in (node["children"][1], *node["children"][1].get("children", ()))
            if part.get("class") == "CONSTANT"
        ]
        self._forbid_lost_offset(node["children"][0], self._tried(node["children"][0]))
        if any("%Z" in given for given in formats):
            raise ValueError(
                "strptime: the names that %Z reads mean several zones: read an offset with %z, or replace the name by "
                "an offset, as in replace(column, ' CST', ' +0800')"
            )
        if naive:
            return node
        ends = {found.group(1) for given in formats if "%z" not in given and (found := _zone_at_end(given))}
        if not ends:
            if any("%z" not in given for given in formats):
                self.naive_conditions.append("true")
            return node
        if ends <= set(_UTC_NAMES) and len(formats) == 1:
            return self._parse(self._as_wanted(f"timezone('UTC', {self._sql(node)})"))
        raise ValueError(
            f"strptime: {' and '.join(sorted(ends))} at the end of the format is only compared, and the time is read "
            f"in {self._timezone}: write %z for an offset, or add AT TIME ZONE 'Area/City' after strptime(…)"
        )

    def _same_type(self, node: Node, function: str, naive: bool) -> Node:
        """Cast texts that are compared, or exchanged, with times."""
        kind = function or str(node.get("type", ""))
        comparison = node.get("class") in ("COMPARISON", "BETWEEN")
        if not (comparison or kind in _SAME_TYPE or node.get("class") == "CASE"):
            return node
        operands = _operands(node)
        types = [self._type_of(operand) for operand in operands]
        texts = [
            at
            for at, (operand, sql_type) in enumerate(zip(operands, types, strict=True))
            if sql_type == "VARCHAR" and operand.get("class") != "CONSTANT"
        ]
        ordered = self._is_time and kind in _ORDERINGS and set(types) == {"VARCHAR"} and len(texts) > 1
        if texts and (ordered or any(sql_type in _TIMES for sql_type in types)):
            for at in texts:
                target = "TIMESTAMP" if naive else INSTANT
                operands[at] = self._read(self._cast_text(operands[at], target, False, naive))
            return _with_operands(node, operands)
        return node


def _without_offset(text: str, trimmed_text: str) -> str:
    """SQL condition: the text is not blank and has no offset; trimming, which is slow, comes last."""
    return f"CASE WHEN {has_offset(text)} THEN false ELSE {trimmed_text} IS NOT NULL END"


def _raise(text: str, kind: str) -> str:
    """SQL that raises an error for this row."""
    return f"CAST('no time: ' || {text} AS {kind})"


def _zone_at_end(given: str) -> re.Match[str] | None:
    literal_end = re.split(r"%-?[A-Za-z%]", given)[-1]
    return _FORMAT_END.fullmatch(literal_end)


def _is_column(node: Any) -> bool:
    return isinstance(node, dict) and node.get("class") == "COLUMN_REF"


def _operands(node: Node) -> list[Node]:
    """The parts of a comparison, a choice or a CASE whose types DuckDB makes the same."""
    if node["class"] == "COMPARISON":
        return [node["left"], node["right"]]
    if node["class"] == "BETWEEN":
        return [node["input"], node["lower"], node["upper"]]
    if node["class"] == "CASE":
        return [*(check["then_expr"] for check in node["case_checks"]), node["else_expr"]]
    return list(node["children"])


def _with_operands(node: Node, operands: list[Node]) -> Node:
    if node["class"] == "COMPARISON":
        return {**node, "left": operands[0], "right": operands[1]}
    if node["class"] == "BETWEEN":
        return {**node, "input": operands[0], "lower": operands[1], "upper": operands[2]}
    if node["class"] == "CASE":
        checks = zip(node["case_checks"], operands, strict=False)
        return {
            **node,
            "case_checks": [{**check, "then_expr": operand} for check, operand in checks],
            "else_expr": operands[-1],
        }
    return {**node, "children": operands}
