"""CSV files of one table: one relation over files of different formats."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from features.data.lake import literal, quote
from features.data.sources.base import InputWarning
from features.data.sources.files.csv_blocks import is_clean
from features.data.sources.files.csv_copy import CsvCopy, copy_clean
from features.data.sources.files.csv_format import (
    CsvFormat,
    UnreadableFile,
    Wanted,
    describe_csv,
    header_hint,
    name_key,
    open_binary,
    read_head,
    shortened,
)
from features.data.sources.files.input_files import InputFiles, ReadRequest, TableInput, name_clash
from features.data.sources.files.settings import TableSettings
from qianmian.errors import DataError
from qianmian.paths import exact_pattern

CSV_ENDINGS = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
MAX_RUN = 50  # files that one `read_csv` reads when copies stand for some of them


@dataclass(frozen=True)
class _Part:
    """One file as DuckDB reads it: itself, or a copy of it."""

    file: str
    found: CsvFormat
    copy: CsvCopy | None

    @property
    def path(self) -> str:
        return str(self.copy.path) if self.copy else self.file

    @property
    def options(self) -> tuple[object, ...]:
        """What one `read_csv` needs to be the same for all of its files."""
        header = self.copy is None and self.found.header_lines > 0
        return (self.found.names, self.found.delimiter, self.found.quote, header)


class CsvInput(TableInput):
    """CSV files of one table; columns are matched by name, rows stay in the order of the files.

    Parameters
    ----------
    wanted : sequence of (str, sequence of str)
        Right sides of the mapping and the columns they name.

    Raises
    ------
    UnreadableFile
        The header of a file cannot be read.
    """

    def __init__(self, files: Sequence[Path], settings: TableSettings, table: str, wanted: Wanted) -> None:
        self.settings, self.table = settings, table
        self.files = tuple(str(file) for file in files)
        self.formats: dict[str, CsvFormat] = {}
        spellings: dict[str, str] = {}
        for file in files:
            try:
                found = describe_csv(file, settings, wanted)
            except UnreadableFile as error:
                raise UnreadableFile(f"{file.name}: {error}") from error
            names = _spelled_alike(found.names, spellings)
            clash = name_clash(found.names) or name_clash(names)
            if clash:
                raise UnreadableFile(f"{file.name}: {clash}")
            self.formats[str(file)] = replace(found, names=names)
        self.columns = {name: "VARCHAR" for found in self.formats.values() for name in found.names}
        self.columns_of_file = {file: frozenset(found.names) for file, found in self.formats.items()}

    def count_rows(self, file: str) -> int:
        found = self.formats[file]
        with open_binary(Path(file)) as handle:
            ends = b"\r" if found.only_cr else b"\n"
            lines = sum(block.count(ends) for block in iter(lambda: handle.read(1 << 20), b""))
        return max(lines - found.skipped - found.header_lines, 0)

    def missing_column_hint(self, wanted: Wanted) -> str:
        file, found = next(iter(self.formats.items()))
        hint = header_hint(Path(file), self.settings, found, wanted)
        if not hint:
            return ""
        first = read_head(Path(file), self.settings.encoding).lines[found.skipped]
        return f"{Path(file).name}: line {found.skipped + 1} was taken for the header: {shortened(first)}; {hint}"

    def read(self, request: ReadRequest) -> InputFiles:
        parts = [self._part(file, request, number) for number, file in enumerate(self.files)]
        runs = list(_runs(parts))
        relations, rejects = [], []
        for number, run in enumerate(runs):
            name = f"rejected_{self.table}_{number}"
            relations.append(_relation(run, name))
            rejects.append(_rejects(run, name))
            rejects += [_refused_lines(part.copy, part.found) for part in run if part.copy and part.copy.refused]
        return InputFiles(
            " UNION ALL BY NAME ".join(f"({relation})" for relation in relations),
            " UNION ALL ".join(rejects),
            tuple(warning for part in parts if part.copy for warning in _warnings(part.copy, part.found)),
        )

    def _part(self, file: str, request: ReadRequest, number: int) -> _Part:
        found = self.formats[file]
        try:
            if is_clean(Path(file), found):
                return _Part(file, found, None)
            request.scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
            target = request.scratch / f"{self.table}-{number:06}.csv"
            return _Part(file, found, copy_clean(Path(file), found, target, request.limit))
        except UnreadableFile as error:
            raise DataError(
                str(error), where=file, hint="correct it in the YAML file and ingest again; the lake is unchanged"
            ) from error
        except EOFError as error:
            raise DataError(f"the file is not complete: {error}", where=file, hint="export or copy it again") from error


def _spelled_alike(names: Sequence[str], spellings: dict[str, str]) -> tuple[str, ...]:
    """The column names of a file, spelled as in the files before it; adds the new ones to `spellings`.

    Examples
    --------
    >>> _spelled_alike(("ORDER", "Order  Date"), {"order": "Order", "order date": "Order Date"})
    ('Order', 'Order Date')
    """
    keys = Counter(map(name_key, names))
    spelled = []
    for name in names:
        # names of one file that differ in their blanks only are told apart by them
        key = name_key(name) if keys[name_key(name)] == 1 else name.lower()
        spelled.append(spellings.setdefault(key, name))
    return tuple(spelled)


def _runs(parts: Sequence[_Part]) -> Iterator[list[_Part]]:
    """Neighbours that one `read_csv` can read, so that the rows stay in the order of the files."""
    for _, group in itertools.groupby(parts, key=lambda part: part.options):
        members = list(group)
        size = MAX_RUN if any(part.copy for part in members) else len(members)
        for start in range(0, len(members), size):
            yield members[start : start + size]


def _relation(run: Sequence[_Part], rejects: str) -> str:
    """SELECT over CSV files with the same columns, every value as text; malformed lines go to the table `rejects`."""
    _, delimiter, quoted, header = run[0].options
    named = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in run[0].found.names)
    listed = ", ".join(literal(exact_pattern(part.path)) for part in run)
    # no type detection: its result depends on the first rows of the file, and ids would lose their leading zeros
    relation = (
        f"SELECT * FROM read_csv([{listed}], columns={{{named}}}, auto_detect=false, header={str(header).lower()}, "
        f"delim={literal(str(delimiter))}, quote={literal(str(quoted))}, escape={literal(str(quoted))}, "
        # a folder such as `item_id=5` in the path would replace a column of the file
        "filename='_file', hive_partitioning=false, "
        f"store_rejects=true, rejects_limit=0, rejects_table={literal(rejects)}, "
        f"rejects_scan={literal(rejects + '_scan')})"
    )
    original = _original(run, "_file")
    return f"SELECT * REPLACE ({original} AS _file) FROM ({relation})" if original != "_file" else relation


def _original(run: Sequence[_Part], column: str) -> str:
    """SQL of the file that a path stands for."""
    copies = [part for part in run if part.copy]
    if not copies:
        return column
    if len(run) == 1:
        return literal(run[0].file)
    cases = " ".join(f"WHEN {literal(part.path)} THEN {literal(part.file)}" for part in copies)
    return f"CASE {column} {cases} ELSE {column} END"


def _rejects(run: Sequence[_Part], rejects: str) -> str:
    """SELECT (file, reason, row) of the lines that `_relation` could not split; one row per line."""
    error = "lower(replace(any_value(error_type::VARCHAR), '_', ' '))"
    line = "line"
    for part in run:
        if part.copy:
            # the last distance that was noted at or before the line
            noted = _own_csv(part.copy.lines_path, copied="BIGINT", original="BIGINT")
            distance = f"SELECT max_by(original - copied, copied) FROM {noted} WHERE copied <= line"
            line = f"CASE WHEN file_path = {literal(part.path)} THEN line + ({distance}) ELSE {line} END"
    return (
        f"SELECT {_original(run, 'file_path')} AS file, 'line cannot be read: ' || {error} AS reason, "
        f"json_object('line', {line}, 'text', any_value(csv_line))::VARCHAR AS row "
        f"FROM {rejects} JOIN {rejects}_scan USING (scan_id, file_id) GROUP BY file_path, line"
    )


def _own_csv(path: Path, **columns: str) -> str:
    """SQL that reads a file which `copy_clean` wrote; `columns` are their SQL types."""
    typed = ", ".join(f"{quote(name)}: {literal(sql_type)}" for name, sql_type in columns.items())
    return (
        f"read_csv({literal(exact_pattern(path))}, columns={{{typed}}}, auto_detect=false, header=false, delim=',', "
        "quote='\"', escape='\"', hive_partitioning=false, max_line_size=16777216)"
    )


def _refused_lines(copy: CsvCopy, found: CsvFormat) -> str:
    """SELECT (file, reason, row) of the lines that were left out of the copy."""
    undecodable = f"invalid encoding: not {found.encoding}"
    if copy.guess:
        undecodable += f"; it looks like {copy.guess}: add `encoding: {copy.guess}` beside `path`"
    return (
        f"SELECT {literal(copy.file)} AS file, "
        f"'line cannot be read: ' || coalesce(nullif(reason, ''), {literal(undecodable)}) AS reason, "
        "json_object('line', line, 'text', text)::VARCHAR AS row "
        f"FROM {_own_csv(copy.rejected_path, line='BIGINT', reason='VARCHAR', text='VARCHAR')}"
    )


def _warnings(copy: CsvCopy, found: CsvFormat) -> Iterator[InputWarning]:
    name = Path(copy.file).name
    if copy.undecodable:
        yield InputWarning(
            "undecodable_lines",
            f"{name}: {copy.undecodable:,} lines are not valid {found.encoding}, the first is line "
            f"{copy.first_undecodable}",
            f"add `encoding: {copy.guess}` beside `path`"
            if copy.guess
            else f"repair these lines, or declare the `encoding` of the file if it is not {found.encoding}",
            copy.undecodable,
        )
    if copy.seems_utf8:
        yield InputWarning(
            "declared_encoding_is_wrong",
            f"{name} is read as {found.encoding}, but all of its bytes are valid UTF-8",
            "leave out `encoding`; files of different encodings need an entry of their own",
            copy.rows,
        )
    if copy.several_lines or copy.refused > copy.undecodable:
        yield InputWarning(
            "lines_and_rows",
            f"{name}: {copy.lines:,} lines became {copy.rows:,} rows and {copy.refused:,} refused lines; "
            f"{copy.several_lines:,} rows have a quoted cell with line breaks"
            + (f", the first in line {copy.first_several}" if copy.several_lines else ""),
            "nothing, if such cells are addresses or comments; otherwise repair the quotes of these lines",
            copy.lines - copy.rows,
        )
