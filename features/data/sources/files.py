"""The source `files`: CSV and Parquet files, mapped onto the canonical tables by a `sources.yaml`."""

from __future__ import annotations

import contextlib
import csv
import glob
import gzip
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any, Literal, cast

import duckdb
from pydantic import Field, ValidationError

from features.data.lake import literal
from features.data.privacy import EMAIL_PATTERN, PHONE_PATTERN
from features.data.sources.base import RawTable, Source
from features.data.sources.casting import DTYPE_NOUNS, attribute_dtype, missing_columns
from features.data.sources.casting import cast as cast_sql
from features.data.sources.dated_rows import (
    file_date_problems,
    file_date_sql,
    fixed_attributes,
    fixed_problems,
)
from features.data.sources.expressions import ExpressionChecker, csv_rejects, csv_relation
from qianmian.errors import ConfigError, DataError, did_you_mean
from qianmian.packs import Pack
from qianmian.schema import TABLES, Table
from qianmian.settings import Section, problems_of, read_yaml

CSV_ENDINGS = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
CONTACT_PATTERN = re.compile(f"{EMAIL_PATTERN}|{PHONE_PATTERN}")
PARQUET_ENDINGS = (".parquet", ".pq")


class TableSettings(Section):
    """One entry of `tables` in a `sources.yaml`."""

    path: str | list[str] = Field(description="file, glob or a list of them, relative to the YAML file")
    columns: dict[str, str | int | float | bool] = Field(
        min_length=1, description="canonical column → column of the file, or expression over its columns"
    )
    delimiter: str | None = Field(
        None, min_length=1, max_length=4, description="CSV: by default the most frequent of , ; tab | in the first line"
    )
    encoding: Literal["utf-8", "latin-1"] = "utf-8"
    header: list[str] | None = Field(None, min_length=1, description="CSV without a header line: column names")
    hashed: bool = Field(False, description="identities: the source already hashed the personal identifiers")
    file_date: str | None = Field(
        None, description="the date in the names of the files, e.g. people_%Y-%m.csv; their rows hold from then on"
    )
    fixed: list[str] | Literal["all"] = Field([], description="profiles: attributes that never change, or all")


class FilesSettings(Section):
    """A `sources.yaml`; `tables` is validated entry by entry, so that all problems are reported at once."""

    source: str = Field(pattern=r"^\w[\w.\-]{0,63}$", description="name of the system; also a folder of the quarantine")
    timezone: str = "UTC"
    tables: dict[str, Any] = Field(min_length=1)


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
        _, problems = _validated(FilesSettings, loaded if loaded is not None else {}, "")
        given: dict[str, Any] = loaded if isinstance(loaded, dict) else {}
        self.name, self.timezone = str(given.get("source")), str(given.get("timezone", "UTC"))
        self._tables: list[RawTable] = []
        self._empty: dict[str, str] = {}
        problems += _timezone_problems(self.timezone)
        # The entries are checked even if another key is invalid, so that one run reports all problems.
        tables = given.get("tables")
        for name, entry in tables.items() if isinstance(tables, dict) else ():
            problems += self._add(str(name), entry)
        if problems:
            raise ConfigError(problems, where=str(self.config_path))

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
        problems += [f"{where}.{problem}" for problem in fixed_problems(settings.fixed, table, settings.columns)]
        files, missing = self._expand(settings.path)
        problems += [f"{where}.path: {problem}" for problem in missing]
        filled = [file for file in files if file.stat().st_size]
        if files and not filled:
            self._empty[name] = str(files[0]) if len(files) == 1 else str(settings.path)
        dates = file_date_problems(settings.file_date, table, settings.columns, [str(file) for file in filled])
        problems += [f"{where}.{problem}" for problem in dates]
        if filled:
            input_files = _parquet(filled) if _is_parquet(filled[0]) else _csv(filled, settings, name)
            if isinstance(input_files, str):
                problems.append(f"{where}.path: {input_files}")
            else:
                problems += self._map(table, settings, input_files, [str(file) for file in filled], where)
        return problems

    def _map(
        self, table: Table, settings: TableSettings, input_files: _InputFiles, files: list[str], where: str
    ) -> list[str]:
        problems: list[str] = []
        columns: dict[str, str] = {}
        error_conditions: dict[tuple[str, str], None] = {}
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
                columns[name] = expression.value
                if self.pack is not None and (table.name, name) == ("events", "event_type"):
                    columns[name] = self.pack.event_type(expression.value)
                error_conditions.update(dict.fromkeys(expression.error_conditions))
        finally:
            checker.close()
        if settings.file_date is not None:
            columns["valid_from"] = file_date_sql(settings.file_date)
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
                fixed_attributes(settings.fixed),
            )
        )
        return problems

    def _expand(self, path: str | list[str]) -> tuple[list[Path], list[str]]:
        files: list[Path] = []
        problems = []
        for pattern in [path] if isinstance(path, str) else path:
            absolute = self.config_path.parent / Path(pattern).expanduser()
            matches = [Path(match) for match in sorted(glob.glob(str(absolute), recursive=True))]
            if absolute.exists():  # a file name may contain brackets, which are no pattern then
                matches = [absolute]
            if not matches:
                problems.append(f"{pattern!r} matches no file (searched for {absolute})")
            folders = [match for match in matches if not match.is_file()]
            unknown = [
                match
                for match in matches
                if match.is_file() and not _is_parquet(match) and not match.name.lower().endswith(CSV_ENDINGS)
            ]
            if folders:
                problems.append(f"{folders[0]} is a folder: use {pattern.rstrip('/')}/*.parquet or /*.csv")
            if unknown:
                problems.append(
                    f"{unknown[0].name}: unknown file type; allowed: {', '.join((*PARQUET_ENDINGS, *CSV_ENDINGS))}"
                )
            files += [
                match for match in matches if match not in folders and match not in unknown and match not in files
            ]
        if len({_is_parquet(file) for file in files}) > 1:
            return [], [
                *problems,
                "CSV and Parquet files cannot be mixed in one table: use two YAML files, one per file type",
            ]
        return files, problems


class _InputFiles:
    """Files of one table: SELECT of their rows, columns with SQL types, SELECT of the unreadable lines."""

    def __init__(self, relation: str, columns: dict[str, str], rejects: str | None) -> None:
        self.relation, self.columns, self.rejects = relation, columns, rejects


def _parquet(files: Sequence[Path]) -> _InputFiles | str:
    listed = ", ".join(literal(file) for file in files)
    relation = f"SELECT * FROM read_parquet([{listed}], union_by_name=true, hive_partitioning=false, filename='_file')"
    try:
        with duckdb.connect() as connection:
            rows = connection.execute(f"DESCRIBE {relation}").fetchall()
    except duckdb.Error as error:
        return f"cannot be read as Parquet: {' '.join(str(error).split())[:300]}"
    columns = {row[0]: str(row[1]) for row in rows if row[0] != "_file"}
    return _name_clash(columns) or _InputFiles(relation, columns, None)


def _csv(files: Sequence[Path], settings: TableSettings, table: str) -> _InputFiles | str:
    groups: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for file in files:
        try:
            names, delimiter = _header(file, settings)
        except (OSError, UnicodeDecodeError, csv.Error, EOFError) as error:
            return f"{file.name}: the first line cannot be read: {error}"
        clash = _name_clash(names)
        if clash:
            return f"{file.name}: {clash}"
        # checked here, so that no message about missing columns quotes personal data
        if any(CONTACT_PATTERN.search(name) for name in names):
            return (
                f"{file.name}: the first line contains an e-mail address or a telephone number: "
                "name the columns with `header: [...]`"
            )
        groups.setdefault((names, delimiter), []).append(str(file))
    relations, rejects = [], []
    for number, ((names, delimiter), members) in enumerate(groups.items()):
        rejected = f"rejected_{table}_{number}"
        relations.append(
            csv_relation(members, list(names), delimiter, settings.encoding, settings.header is None, rejected)
        )
        rejects.append(csv_rejects(rejected))
    columns = {name: "VARCHAR" for names, _ in groups for name in names}
    return _InputFiles(
        " UNION ALL BY NAME ".join(f"({relation})" for relation in relations), columns, " UNION ALL ".join(rejects)
    )


def _header(file: Path, settings: TableSettings) -> tuple[tuple[str, ...], str]:
    """Column names and delimiter of a CSV file, from its first line."""
    with contextlib.ExitStack() as stack:
        if file.name.lower().endswith(".gz"):
            handle: IO[bytes] = cast(IO[bytes], stack.enter_context(gzip.open(file, "rb")))
        else:
            handle = stack.enter_context(file.open("rb"))
        # only the first line must be valid text; an invalid line further down is rejected on its own
        first = handle.readline().decode("utf-8-sig" if settings.encoding == "utf-8" else settings.encoding)
        delimiter = settings.delimiter or max((",", ";", "\t", "|"), key=first.count)
        if settings.header is not None:
            return tuple(settings.header), delimiter
        row = (
            next(csv.reader([first], delimiter=delimiter), [])
            if len(delimiter) == 1
            else first.strip("\r\n").split(delimiter)
        )
    return tuple(name.strip() or f"column{position}" for position, name in enumerate(row)), delimiter


def _name_clash(names: Iterable[str]) -> str | None:
    """Problem with column names: DuckDB ignores case, and two names are reserved. None if there is no problem."""
    seen: dict[str, str] = {}
    for name in names:
        if name.lower() in ("rowid", "_file"):
            return f"the column name {name} is reserved: rename the column"
        if name.lower() in seen:
            return f"two columns have the same name: {seen[name.lower()]!r} and {name!r} (case is ignored): rename one"
        seen[name.lower()] = name
    return None


def _is_parquet(file: Path) -> bool:
    return file.name.lower().endswith(PARQUET_ENDINGS)


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
