"""The mapping of one table: checked expressions over the columns of its input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from features.data.lake import literal
from features.data.sources.base import InputWarning, RawTable, ValueRules
from features.data.sources.casting import DTYPE_NOUNS, attribute_dtype
from features.data.sources.casting import cast as cast_sql
from features.data.sources.dated_rows import file_date_sql, fixed_attributes
from features.data.sources.expressions import Expression, ExpressionChecker
from features.data.sources.files.column_use import ColumnUse, missing_columns_text
from features.data.sources.files.csv_files import CsvInput
from features.data.sources.files.fill_down import fill_down_problems, filled_relation, first_line_columns
from features.data.sources.files.input_files import ReadRequest, TableInput
from features.data.sources.files.settings import TableSettings
from features.data.sources.files.value_rules import currency_rule, value_rules
from features.data.sources.watermarks import Watermark
from qianmian.packs import Pack
from qianmian.schema import Table
from qianmian.yaml_files import quoted

UNANSWERED = "?"  # right side of a column that `qianmian ingest init` could not find
# a file without one of these would lose its rows, or its sales
_ESSENTIAL = ("ts", "item_id", "source_user_id", "amount")


@dataclass
class TableEntry:
    """One entry of `tables`, checked and ready to read.

    Attributes
    ----------
    columns : mapping of str to str
        Canonical column → SQL over the columns of the input.
    error_conditions : tuple of (str, str)
        (SQL condition, reason) of rows whose value cannot be computed.
    order_columns : tuple of str
        Columns that `order_id` reads.
    shown : mapping of str to str
        Local copy → address that it was copied from.
    naive_conditions, values, common
        As in `RawTable`.
    """

    table: Table
    settings: TableSettings
    input: TableInput
    columns: Mapping[str, str]
    error_conditions: tuple[tuple[str, str], ...]
    order_columns: tuple[str, ...] = ()
    absent: Mapping[str, frozenset[str]] = field(default_factory=dict)
    warnings: list[InputWarning] = field(default_factory=list)
    shown: Mapping[str, str] = field(default_factory=dict)
    naive_conditions: Mapping[str, str] = field(default_factory=dict)
    values: ValueRules = field(default_factory=ValueRules)
    common: tuple[str, ...] = ()

    def raw_table(self, request: ReadRequest) -> tuple[RawTable, Watermark | None]:
        """Prepare the input for reading; the second value is the last watermark that was read."""
        found = self.input.read(request)
        relation = found.relation
        if self.settings.fill_down:
            relation = filled_relation(relation, self.settings.fill_down, self.columns["order_id"], self.order_columns)
        rejects = found.rejects
        if self.shown:
            cases = " ".join(f"WHEN {literal(copy)} THEN {literal(address)}" for copy, address in self.shown.items())
            relation = f"SELECT * REPLACE (CASE _file {cases} ELSE _file END AS _file) FROM ({relation})"
            if rejects:
                rejects = f"SELECT * REPLACE (CASE file {cases} ELSE file END AS file) FROM ({rejects})"
        raw = RawTable(
            self.table.name,
            relation,
            self.columns,
            tuple(self.shown.get(file, file) for file in self.input.files),
            self.error_conditions,
            "_file",
            rejects,
            self.settings.hashed,
            self.settings.max_rejected,
            naive_conditions=self.naive_conditions,
            shared=self.settings.shared,
            complete=False if self.settings.watermark else self.settings.complete,  # only new rows are read
            max_vanished=self.settings.max_vanished,
            refunds=self.settings.refunds,
            values=self.values,
            fixed=fixed_attributes(self.settings.fixed),
            absent={self.shown.get(file, file): names for file, names in self.absent.items()},
            warnings=(*self.warnings, *found.warnings),
            common=self.common,
        )
        return raw, found.reached


def map_columns(
    table: Table,
    settings: TableSettings,
    mapped: Mapping[str, str],
    use: ColumnUse,
    found: TableInput,
    after: Mapping[str, str],
    pack: Pack | None,
    timezone: str,
) -> tuple[TableEntry, list[str]]:
    """Check the right side of each column.

    Parameters
    ----------
    after : mapping of str to str
        Canonical column → what stands on its line after the unquoted value.
    timezone : str
        Time zone of times without an offset.

    Returns
    -------
    TableEntry, list of str
        The entry, and the problems.
    """
    problems: list[str] = []
    columns: dict[str, str] = {}
    error_conditions: dict[tuple[str, str], None] = {}
    naive: dict[str, str] = {}
    expressions: dict[str, Expression] = {}
    currency = None
    checker = ExpressionChecker(found.columns, timezone)
    try:
        for name, text in mapped.items():
            cut = _cut_at_comment(text, after.get(name, ""), found.columns)
            if cut:
                problems.append(f"columns.{name}: the value is cut at ' #': write it in quotes: {name}: {quoted(cut)}")
                continue
            if text.strip() == UNANSWERED:
                problems.append(f"columns.{name}: {_unanswered(name, mapped, use)}")
                continue
            column = table.column(name)
            try:
                expression = checker.check(use.resolved(text), column.dtype if column else None)
            except ValueError as error:
                problems.append(f"columns.{name}: {text!r}: {error}")
                continue
            if expression.naive_conditions:
                naive[name] = " OR ".join(f"({condition})" for condition in dict.fromkeys(expression.naive_conditions))
            dtype = column.dtype if column else attribute_dtype(expression.sql_type)
            unsupported_reason = cast_sql(dtype, expression.sql_type, "x", "UTC").unsupported_reason
            if unsupported_reason:
                problems.append(
                    f"columns.{name}: {text!r} is {expression.sql_type}, not {DTYPE_NOUNS[dtype]}: {unsupported_reason}"
                )
            columns[name] = expression.value
            expressions[name] = expression
            if pack is not None and (table.name, name) == ("events", "event_type"):
                columns[name] = pack.event_type(expression.value)
            error_conditions.update(dict.fromkeys(expression.error_conditions))
        currency, faults = currency_rule(settings.currency, checker)
        problems += faults
    finally:
        checker.close()
    if settings.file_date is not None:
        columns["valid_from"] = file_date_sql(settings.file_date)
    order = tuple(use.names(use.resolved(mapped["order_id"]))) if "order_id" in mapped else ()
    entry = TableEntry(table, settings, found, columns, tuple(error_conditions), order, naive_conditions=naive)
    entry.values = value_rules(table, settings, expressions, currency)
    entry.common = tuple(dict.fromkeys(text for expression in expressions.values() for text in expression.common))
    return entry, problems + _fill_down(entry, mapped, use)


def _unanswered(name: str, mapped: Mapping[str, str], use: ColumnUse) -> str:
    """The question that a proposed mapping leaves to its author, with the columns that are not mapped yet."""
    used = {part for text in mapped.values() for part in use.names(use.resolved(text))}
    candidates = [column for column in use.columns if column not in used]
    return (
        f"this question is not answered: which column is the {name}? Not mapped yet: "
        f"{', '.join(map(quoted, candidates)) or 'none'}; write one of them, or remove the line if the file has none"
    )


def _cut_at_comment(text: str, after: str, columns: Mapping[str, str]) -> str | None:
    """The column whose name YAML has cut at ` #`, if `text` is its beginning and the line goes on with the rest."""
    if text in columns or not after.lstrip().startswith("#"):
        return None
    return next((name for name in columns if "#" in name and (text + after).startswith(name)), None)


def _fill_down(entry: TableEntry, mapped: Mapping[str, str], use: ColumnUse) -> list[str]:
    """Problems with `fill_down`, or its absence; a column that needs it is warned about, status is a problem."""
    settings, found = entry.settings, entry.input
    if settings.fill_down is not None:
        return [f"fill_down: {text}" for text in fill_down_problems(settings.fill_down, mapped, list(found.columns))]
    if not isinstance(found, CsvInput):
        return []
    file, csv_format = next(iter(found.formats.items()))
    resolved = {name: use.resolved(text) for name, text in mapped.items()}
    names = first_line_columns(Path(file), csv_format, settings, resolved, use)
    if not names:
        return []
    listed = ", ".join(quoted(name) for name in names)
    said = f"{Path(file).name}: the cells of {listed} are filled only in the first line of an order"
    fix = f"add `fill_down: [{listed}]` beside `path`, or `fill_down: []` if the other lines are meant to be blank"
    if "status" in resolved and set(names) & set(use.names(resolved["status"])):
        return [f"fill_down: {said}, so the status of its other lines is wrong: {fix}"]
    entry.warnings.append(InputWarning("first_line_cells", said, fix))
    return []


def check_files(
    table: Table, mapped: Mapping[str, str], use: ColumnUse, found: TableInput
) -> tuple[list[str], dict[str, frozenset[str]], list[InputWarning]]:
    """Compare the columns of each file with what the mapping needs.

    Returns
    -------
    problems : list of str
        Files without a column that rows cannot do without.
    absent : dict of str to frozenset of str
        File → canonical columns that it cannot give.
    warnings : list of InputWarning
        The same for the user.
    """
    problems: list[str] = []
    absent: dict[str, frozenset[str]] = {}
    warnings: list[InputWarning] = []
    if len(found.columns_of_file) < 2:
        return problems, absent, warnings
    everything = set(found.columns)
    for file, present in found.columns_of_file.items():
        needs = {name: use.missing(use.resolved(text), present) for name, text in mapped.items()}
        # what no file has is an unknown column
        missing = {name: lacking for name, lacking in needs.items() if lacking and set(lacking) <= everything}
        essential = {name: lacking for name, lacking in missing.items() if _is_essential(table, name)}
        if essential:
            lacking = dict.fromkeys(part for parts in essential.values() for part in parts)
            problems.append(
                f"{Path(file).name} lacks {missing_columns_text(lacking, sorted(present))}, "
                f"of which {', '.join(essential)} is made; {found.count_rows(file):,} rows: rename it in the file, "
                "or leave the file out, or use coalesce(one name, the other name)"
            )
        elif missing:
            absent[file] = frozenset(missing)
            lacking = dict.fromkeys(part for parts in missing.values() for part in parts)
            warnings.append(
                InputWarning(
                    "file_without_column",
                    f"{Path(file).name} lacks {missing_columns_text(lacking, sorted(present))}: "
                    f"{', '.join(missing)} has no value in its rows",
                    "nothing, if the file never had it; otherwise rename the column in the file",
                    found.count_rows(file),
                )
            )
    return problems, absent, warnings


def _is_essential(table: Table, name: str) -> bool:
    column = table.column(name)
    if name in table.key or (column is not None and column.required):
        return True
    return name in _ESSENTIAL and table.name in ("transactions", "events", "touches")
