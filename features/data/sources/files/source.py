"""The source `files`: CSV and Parquet files, mapped onto the canonical tables by a `sources.yaml`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import duckdb
from pydantic import ValidationError

from features.data.lake import literal
from features.data.sources.base import RawTable, Source, ValueRules
from features.data.sources.casting import DTYPE_NOUNS, attribute_dtype, missing_columns
from features.data.sources.casting import cast as cast_sql
from features.data.sources.currencies import CurrencyRule, code_of
from features.data.sources.databases import DatabaseQuery, column_types, copy_rows, shown_url, url_problem
from features.data.sources.declared import without_customers, without_merchandise
from features.data.sources.expressions import Expression, ExpressionChecker
from features.data.sources.files.csv_files import read_csv_files
from features.data.sources.files.input_files import InputFiles
from features.data.sources.files.parquet_files import is_parquet, read_parquet_files
from features.data.sources.files.paths import expand_paths
from features.data.sources.files.settings import CurrencySettings, FilesSettings, TableSettings
from qianmian.errors import ConfigError, DataError, did_you_mean
from qianmian.packs import Pack
from qianmian.paths import exact_pattern
from qianmian.schema import TABLES, Table
from qianmian.settings import Section, problems_of, read_yaml


class FileSource(Source):
    """A source described by a YAML file.

    Parameters
    ----------
    config_path : str or Path
        The `sources.yaml`; relative paths in it are resolved against its folder.
    pack : Pack, optional
        Industry pack whose names of event types are accepted.

    Raises
    ------
    ConfigError
        With all problems of the file: unknown tables and columns, missing required columns, paths without a match,
        invalid expressions, unknown time zones.
    """

    def __init__(self, config_path: str | Path, pack: Pack | None = None) -> None:
        self.pack = pack
        self.config_path = Path(config_path).expanduser().absolute()
        if not self.config_path.is_file():
            raise ConfigError(
                ["the file is missing"], where=str(self.config_path), hint="write one; docs/data.md shows how"
            )
        loaded = read_yaml(self.config_path)
        declared, problems = _validated(FilesSettings, loaded if loaded is not None else {}, "")
        given: dict[str, Any] = loaded if isinstance(loaded, dict) else {}
        self.name, self.timezone = str(given.get("source")), str(given.get("timezone", "UTC"))
        self.declares_timezone = "timezone" in given
        self._tables: list[RawTable] = []
        self._empty: dict[str, str] = {}
        self._databases: dict[str, tuple[str, DatabaseQuery]] = {}
        problems += _timezone_problems(self.timezone)
        # The entries are checked even if another key is invalid, so that one run reports all problems.
        tables = given.get("tables")
        for name, entry in tables.items() if isinstance(tables, dict) else ():
            problems += self._add(str(name), entry)
        if problems:
            raise ConfigError(problems, where=str(self.config_path))
        self._tables = without_customers(self._tables, declared.no_customer)
        self._tables = without_merchandise(self._tables, declared.not_merchandise)

    def tables(self, connection: duckdb.DuckDBPyConnection) -> Sequence[RawTable]:
        """Return the tables of the configuration.

        Raises
        ------
        DataError
            If all files of a table are empty.
        """
        for table, path in self._empty.items():
            raise DataError(
                "the file is empty (0 bytes)" if Path(path).is_file() else "all files are empty (0 bytes)",
                where=path,
                got=f"no data for {table}",
                hint=f"export it again, or leave {table} out of {self.config_path.name}; the lake is unchanged",
            )
        self._read_databases(connection)
        return self._tables

    def _add(self, name: str, entry: Any) -> list[str]:
        """Check one entry and add its raw table; return the problems."""
        where = f"tables.{name}"
        if name not in TABLES:
            return [f"{where}: unknown table{did_you_mean(name, TABLES)}; the tables are {', '.join(TABLES)}"]
        return self._add_table(TABLES[name], entry, where)

    def _add_table(self, table: Table, entry: Any, where: str) -> list[str]:
        name = table.name
        settings, problems = _validated(TableSettings, entry, where)
        if settings is None:
            return problems
        problems += _name_problems(table, settings.columns, where)
        if settings.url is not None:
            return problems + self._add_database(table, settings, where)
        files, missing = expand_paths(self.config_path.parent, settings.path or [])
        problems += [f"{where}.path: {problem}" for problem in missing]
        filled = [file for file in files if file.stat().st_size]
        if files and not filled:
            self._empty[name] = str(files[0]) if len(files) == 1 else str(settings.path)
        if filled:
            input_files = (
                read_parquet_files(filled) if is_parquet(filled[0]) else read_csv_files(filled, settings, name)
            )
            if isinstance(input_files, str):
                problems.append(f"{where}.path: {input_files}")
            else:
                problems += self._map(table, settings, input_files, [str(file) for file in filled], where)
        return problems

    def _add_database(self, table: Table, settings: TableSettings, where: str) -> list[str]:
        """Check one table of a database and add its raw table; it is read when the ingest begins."""
        rows = DatabaseQuery(str(settings.url), settings.table, settings.query, settings.watermark, settings.overlap)
        problem = url_problem(rows.url)
        if problem:
            return [f"{where}.url: {problem}"]
        try:
            columns = column_types(rows)
        except DataError as error:
            return [f"{where}.url: {error}"]
        problems = []
        if rows.watermark is not None and rows.watermark not in columns:
            problems.append(
                f"{where}.watermark: unknown column {rows.watermark}{did_you_mean(rows.watermark, columns)}; "
                f"the columns are {', '.join(columns)}"
            )
        name = f"{shown_url(rows.url)} {rows.table or 'query'}"
        view = f"database_{table.name}"
        self._databases[table.name] = (view, rows)
        input_files = InputFiles(f"SELECT *, {literal(name)} AS _file FROM {view}", columns, None)
        return problems + self._map(table, settings, input_files, [name], where)

    def _read_databases(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Copy the new rows of each database table to the scratch folder, and make views of them."""
        reached = {}
        for table, (view, rows) in self._databases.items():
            target = (self.scratch or Path(tempfile.mkdtemp())) / f"{view}.parquet"
            mark = copy_rows(rows, target, self.watermarks.get(table), self.limit)
            parquet = f"read_parquet({literal(exact_pattern(target))}, hive_partitioning=false)"
            connection.execute(f"CREATE OR REPLACE TEMP VIEW {view} AS SELECT * FROM {parquet}")
            if mark is not None:
                reached[table] = mark
        self.reached = reached

    def _map(
        self, table: Table, settings: TableSettings, input_files: InputFiles, files: list[str], where: str
    ) -> list[str]:
        problems: list[str] = []
        columns: dict[str, str] = {}
        error_conditions: dict[tuple[str, str], None] = {}
        expressions: dict[str, Expression] = {}
        currency = None
        checker = ExpressionChecker(input_files.columns)
        try:
            for name, given in settings.columns.items():
                text = str(given).lower() if isinstance(given, bool) else str(given)
                try:
                    expression = checker.check(text)
                except ValueError as error:
                    problems.append(f"{where}.columns.{name}: {text!r}: {error}")
                    continue
                column = table.column(name)
                dtype = column.dtype if column else attribute_dtype(expression.sql_type)
                unsupported_reason = cast_sql(dtype, expression.sql_type, "x", "UTC").unsupported_reason
                if unsupported_reason:
                    problems.append(
                        f"{where}.columns.{name}: {text!r} is {expression.sql_type}, "
                        f"not {DTYPE_NOUNS[dtype]}: {unsupported_reason}"
                    )
                expressions[name] = expression
                columns[name] = expression.value
                if self.pack is not None and (table.name, name) == ("events", "event_type"):
                    columns[name] = self.pack.event_type(expression.value)
                error_conditions.update(dict.fromkeys(expression.error_conditions))
            currency, faults = _currency_rule(settings.currency, checker, where)
            problems += faults
        finally:
            checker.close()
        self._tables.append(
            RawTable(
                table.name,
                input_files.relation,
                columns,
                tuple(files),
                tuple(error_conditions),
                "_file",
                input_files.rejects,
                settings.hashed,
                settings.max_rejected,
                _value_rules(table, settings, expressions, currency),
            )
        )
        return problems


def _value_rules(
    table: Table, settings: TableSettings, expressions: Mapping[str, Expression], currency: CurrencyRule | None
) -> ValueRules:
    """How the values of a table are read: the keys of its entry, and the columns that its expressions cast or edit."""
    numbers = {name for expression in expressions.values() for name in expression.number_columns}
    edited = {}
    for name, expression in expressions.items():
        column = table.column(name)
        if column is not None and column.dtype in ("float64", "int64") and expression.edited_columns:
            edited[name] = expression.edited_columns
    return ValueRules(
        settings.decimal, tuple(sorted(numbers)), edited, currency, tuple(settings.private), tuple(settings.readable)
    )


def _currency_rule(
    given: str | CurrencySettings | None, checker: ExpressionChecker, where: str
) -> tuple[CurrencyRule | None, list[str]]:
    """The rule of the key `currency`, and the problems with it."""
    if given is None:
        return None, []
    if isinstance(given, str):
        return CurrencyRule(to=code_of(given)), []
    column = None
    if given.column is not None:
        try:
            column = checker.check(given.column).value
        except ValueError as error:
            return None, [f"{where}.currency.column: {given.column!r}: {error}"]
    return CurrencyRule(column, code_of(given.to), given.rates), []


def _name_problems(table: Table, columns: Iterable[str], where: str) -> list[str]:
    """Problems with the canonical columns of a mapping: unknown columns, and required columns that are missing."""
    problems = []
    mapped = list(columns)
    for name in mapped:
        column = table.column(name)
        if column is not None:
            if column.derived:
                problems.append(f"{where}.columns.{name}: ingest computes this column; remove the line")
            continue
        if not table.keeps_extra_columns:
            problems.append(
                f"{where}.columns.{name}: unknown column of {table.name}{did_you_mean(name, table.names)}; "
                f"the columns are {', '.join(table.names)}"
            )
        elif not name.isidentifier() or name.startswith("_"):
            problems.append(
                f"{where}.columns.{name}: the name of an attribute consists of letters, digits and _ "
                "and begins with a letter"
            )
        elif name.lower() in {other.lower() for other in (*table.names, *mapped) if other != name}:
            problems.append(f"{where}.columns.{name}: case is ignored, and another column is named {name.lower()}")
    missing = missing_columns(table, dict.fromkeys(mapped, ""))
    return problems + [
        f"{where}.columns: {name} is required ({cast(Any, table.column(name)).description})" for name in missing
    ]


def _validated(model: type[Section], value: Any, where: str) -> tuple[Any, list[str]]:
    """Validate `value`: the model or None, and all problems. An unknown key does not hide problems of other keys."""
    unknown: list[str] = []
    if isinstance(value, dict):
        unknown = [str(key) for key in value if key not in model.model_fields]
        value = {key: part for key, part in value.items() if key in model.model_fields}
    problems = [
        f"{key}: unknown key{did_you_mean(key, model.model_fields)}; the keys are {', '.join(model.model_fields)}"
        for key in unknown
    ]
    validated = None
    try:
        validated = model.model_validate(value)
    except ValidationError as error:
        problems += problems_of(error)
    return validated, [f"{where}.{problem}" if where else problem for problem in problems]


def _timezone_problems(timezone: str) -> list[str]:
    with duckdb.connect() as connection:
        zones = {row[0] for row in connection.execute("SELECT name FROM pg_timezone_names()").fetchall()}
    if timezone in zones:
        return []
    return [
        f"timezone: {timezone!r} is not a time zone{did_you_mean(timezone, zones)}; "
        "use an IANA name such as Europe/London or Asia/Shanghai"
    ]
