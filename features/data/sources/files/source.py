"""The source `files`: CSV and Parquet files, mapped onto the canonical tables by a `sources.yaml`."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import duckdb
from pydantic import ValidationError

from features.data.sources.base import InputWarning, RawTable, Source
from features.data.sources.casting import missing_columns
from features.data.sources.dated_rows import file_date_problems, fixed_problems
from features.data.sources.declared import without_customers, without_merchandise
from features.data.sources.files.column_use import ColumnUse
from features.data.sources.files.csv_files import CsvInput
from features.data.sources.files.csv_format import UnreadableFile, Wanted, matches
from features.data.sources.files.database_input import DatabaseInput
from features.data.sources.files.input_files import ReadRequest, TableInput
from features.data.sources.files.mapping import TableEntry, check_files, map_columns
from features.data.sources.files.parquet_files import ParquetInput, is_parquet
from features.data.sources.files.paths import equal_files, expand_paths, is_blank
from features.data.sources.files.remote_files import can_fetch, fetch, is_address, missing_extension
from features.data.sources.files.settings import OWN_KEYS, FilesSettings, TableSettings
from qianmian.errors import ConfigError, DataError, did_you_mean
from qianmian.model_settings import Section
from qianmian.packs import Pack
from qianmian.schema import TABLES, Table
from qianmian.settings import problems_of
from qianmian.timezones import UTC_ZONE, timezone_problem
from qianmian.yaml_files import YamlFile, missing_blank


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
        files whose header lacks a column, invalid expressions, unknown time zones.
    """

    _declared: FilesSettings | None = None

    def __init__(self, config_path: str | Path, pack: Pack | None = None) -> None:
        self._open(config_path, pack, "docs/data.md")
        loaded = self._yaml.data
        declared, problems = _validated(FilesSettings, loaded if loaded is not None else {}, "")
        self._declared = declared
        given: dict[str, Any] = loaded if isinstance(loaded, dict) else {}
        self.name, self.timezone = str(given.get("source")), str(given.get("timezone", "UTC"))
        self.declares_timezone = "timezone" in given
        zone_problem = timezone_problem(self.timezone)
        if zone_problem:
            problems.append(f"timezone: {zone_problem}")
            self.timezone = "UTC"  # only to check the rest
        elif self.timezone != UTC_ZONE:
            self.customers_timezone = self.timezone  # the customers of a shop live by its clocks, unless told otherwise
        # The entries are checked even if another key is invalid, so that one run reports all problems.
        tables = given.get("tables")
        for name, entry in tables.items() if isinstance(tables, dict) else ():
            problems += self._add(str(name), entry)
        if problems:
            raise ConfigError(problems, where=str(self.config_path))

    def _open(self, config_path: str | Path, pack: Pack | None, guide: str) -> None:
        """Read the YAML file; `guide` shows how to write one."""
        self.pack = pack
        self.config_path = Path(config_path).expanduser().absolute()
        if not self.config_path.is_file():
            raise ConfigError(
                ["the file is missing"], where=str(self.config_path), hint=f"write one; {guide} shows how"
            )
        self._yaml = YamlFile(self.config_path)
        self._entries: list[TableEntry] = []
        self._empty: dict[str, str] = {}

    def tables(self, connection: duckdb.DuckDBPyConnection) -> Sequence[RawTable]:
        """Return the tables of the configuration; files that DuckDB cannot read as they are are copied first.

        Raises
        ------
        DataError
            If all files of a table are empty, or a file cannot be read as it is described.
        """
        for table, path in self._empty.items():
            raise DataError(
                "the file is empty" if Path(path).is_file() else "all files are empty",
                where=path,
                got=f"no data for {table}",
                hint=f"export it again, or leave {table} out of {self.config_path.name}; the lake is unchanged",
            )
        if self.scratch is None:  # not called by an ingest
            self.scratch = Path(tempfile.mkdtemp(prefix="qianmian-"))
            weakref.finalize(self, shutil.rmtree, self.scratch, ignore_errors=True)
        tables, reached = [], {}
        for number, entry in enumerate(self._entries):
            folder, mark = self.scratch / f"input-{number}", self.watermarks.get(entry.table.name)
            raw, last = entry.raw_table(ReadRequest(connection, folder, self.limit, mark))
            tables.append(raw)
            if last is not None:
                reached[raw.table] = last
        self.reached = reached
        if self._declared is not None:
            tables = without_customers(tables, self._declared.no_customer)
            tables = without_merchandise(tables, self._declared.not_merchandise)
        return tables

    def _add(self, name: str, entry: Any) -> list[str]:
        """Check one entry and add its raw table; return the problems."""
        where = f"tables.{name}"
        if name not in TABLES:
            return [f"{where}: unknown table{did_you_mean(name, TABLES)}; the tables are {', '.join(TABLES)}"]
        return self._add_table(TABLES[name], entry, where, ("tables", name))

    def _add_table(self, table: Table, entry: Any, where: str, keys: tuple[str | int, ...]) -> list[str]:
        """Check one entry, whose path in the YAML file is `keys`."""
        problems = self._text_problems(entry, where, keys)
        if problems:  # what follows from them would hide them
            return problems
        settings, problems = _validated(TableSettings, entry, where)
        if settings is None:
            return problems
        problems += _name_problems(table, settings.columns, where)
        problems += [f"{where}.{problem}" for problem in fixed_problems(settings.fixed, table, settings.columns)]
        problems += [
            f"{where}.{key}: only tables.{owner} has this key"
            for owner, own_keys in OWN_KEYS.items()
            for key in own_keys
            if owner != table.name and key in settings.model_fields_set
        ]
        if settings.complete and settings.watermark:
            problems.append(f"{where}.complete: with `watermark` only new rows are read; remove one of the two keys")
        if settings.url is not None:
            found, problem = DatabaseInput.open(settings, table.name)
            if found is None:
                return [*problems, f"{where}.{problem}"]
            return problems + self._map(table, settings, found, [], keys, where)
        local, shown, missing = self._local_paths(settings.path or [])
        files, unknown = expand_paths(self.config_path.parent, local)
        problems += [f"{where}.path: {problem}" for problem in missing + unknown]
        filled = [file for file in files if not is_blank(file)]
        if files and not filled:
            self._empty[table.name] = str(files[0]) if len(files) == 1 else str(settings.path)
        if not filled:
            return problems
        names = [shown.get(str(file), str(file)) for file in filled]
        dates = file_date_problems(settings.file_date, table, settings.columns, names)
        problems += [f"{where}.{problem}" for problem in dates]
        try:
            read = _read_input(filled, settings, table.name)
        except UnreadableFile as error:
            return [*problems, f"{where}.path: {error}"]
        return problems + self._map(table, settings, read, filled, keys, where, shown)

    def _local_paths(self, path: str | list[str]) -> tuple[list[str], dict[str, str], list[str]]:
        """The paths with local copies of addresses, copy → address, and the problems with addresses."""
        local: list[str] = []
        shown: dict[str, str] = {}
        problems: list[str] = []
        for pattern in [path] if isinstance(path, str) else path:
            if not is_address(pattern):
                local.append(pattern)
            elif not can_fetch():
                problems.append(missing_extension(pattern))
            else:
                folder = Path(tempfile.mkdtemp(prefix="qianmian-"))
                weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
                try:
                    copies = fetch(pattern, folder)
                except duckdb.Error as error:
                    problems.append(f"{pattern} cannot be read: {' '.join(str(error).split())[:200]}")
                    continue
                shown |= {str(copy): address for copy, address in copies.items()}
                local += [str(copy) for copy in copies]
        return local, shown, problems

    def _map(
        self,
        table: Table,
        settings: TableSettings,
        found: TableInput,
        files: Sequence[Path],
        keys: tuple[str | int, ...],
        where: str,
        shown: Mapping[str, str] = MappingProxyType({}),
    ) -> list[str]:
        mapped = dict(settings.columns)
        after = {str(key): scalar.after for key, scalar in self._yaml.scalars(*keys, "columns")}
        use = ColumnUse(found.columns)
        hint = _header_doubt(_wanted(settings), found)
        if hint:
            return [f"{where}.path: {hint}"]
        problems, absent, warnings = check_files(table, mapped, use, found)
        problems = [f"{where}.path: {problem}" for problem in problems]
        warnings += [
            InputWarning(
                "equal_files",
                f"{one.name} has the same bytes as {other.name}",
                "remove one of them, unless both are meant",
            )
            for one, other in equal_files(files)
        ]
        entry, more = map_columns(table, settings, mapped, use, found, after, self.pack, self.timezone)
        entry.absent, entry.warnings, entry.shown = absent, warnings + entry.warnings, shown
        self._entries.append(entry)
        return problems + [f"{where}.{problem}" for problem in more]

    def _text_problems(self, entry: Any, where: str, keys: tuple[str | int, ...]) -> list[str]:
        """Values that are meant as text and that YAML reads as something else."""
        if isinstance(entry, dict) and isinstance(entry.get("columns"), str):
            spaced = missing_blank(entry["columns"])
            if spaced:
                return [f"{where}.columns: a blank is missing after the colon: {spaced}"]
        return [problem for part in ("columns", "header", "fill_down") for problem in self._yaml.unquoted(*keys, part)]


def _read_input(files: Sequence[Path], settings: TableSettings, table: str) -> TableInput:
    return ParquetInput(files) if is_parquet(files[0]) else CsvInput(files, settings, table, _wanted(settings))


def _wanted(settings: TableSettings) -> Wanted:
    use = ColumnUse(())
    return [(text, use.names(text)) for text in settings.columns.values()]


def _header_doubt(wanted: Wanted, found: TableInput) -> str:
    """What is wrong if the header has less than half of the columns that the mapping uses, and another line has."""
    named = [(text, names) for text, names in wanted if names]  # a constant names none
    if 2 * matches(found.columns, named) >= len(named):
        return ""
    return found.missing_column_hint(named)


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
