"""Taking a customer out of files of rows, Parquet and CSV, which otherwise stay as they are."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from html import escape
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.data.lake import quote
from features.erasure.customer import Erased, ErasedCustomer
from features.erasure.matching import CODES, Mention, mention_of
from qianmian.errors import QianmianError
from qianmian.workspace import atomic_path

FAILURES = (
    OSError,
    QianmianError,
    pa.ArrowException,
    duckdb.Error,
    UnicodeDecodeError,
    csv.Error,
)  # of a file that is no table

SUFFIXES = (".parquet", ".csv")
REPORT_SUFFIX = ".html"
ROW_ATTRIBUTE = "data-one-id"  # of a table row of a report: the customer whom the row is about
USER_ID, SOURCE = "user_id", "source"
DELIMITERS = ",;\t|"


def erase_files(files: Iterable[Path], customer: ErasedCustomer, root: Path) -> Erased:
    """Take a customer out of files that may be no table of the product: a row that mentions the customer goes.

    One that cannot be read or written is named in `not_reached`, by its path below `root`.
    """
    removed, not_reached = 0, list[str]()
    for file in sorted(files):
        try:
            removed += erase_rows(file, customer, whole_rows=True)
        except FAILURES as error:
            name = file.relative_to(root)
            not_reached.append(
                f"{name}: cannot be read or written ({type(error).__name__}); remove the customer by hand"
            )
    return Erased(removed, tuple(not_reached))


def erase_rows(path: Path, customer: ErasedCustomer, whole_rows: bool = False) -> int:
    """Remove the rows of a customer from a Parquet or CSV file; returns how many were removed or edited.

    A row is the customer's if a cell is one of the `one_id` or identifiers of the customer, or if it has a user id of
    the customer in a column of user ids (``user_id``, ``source_user_id``, ``left_source_user_id``) and the source that
    goes with it, where the file has a column of sources. All other rows keep their order; a Parquet file keeps its
    schema, row groups and compression, and a CSV file its bytes, but for mentions of the customer in their texts, which
    are replaced and count too. With `whole_rows`, and in nested values, the row goes with the mention. A report (HTML)
    loses the lines with rows of the customer, which `ROW_ATTRIBUTE` marks.
    """
    if path.suffix == REPORT_SUFFIX:
        return _erase_report(path, customer)
    erase = _erase_csv if path.suffix == ".csv" else _erase_parquet
    return erase(path, customer, mention_of(customer), whole_rows)


def user_columns(names: list[str]) -> Iterator[tuple[str, str | None]]:
    """The columns of user ids, each with the column of its sources if there is one.

    Examples
    --------
    >>> list(user_columns(["user_id", "user_source", "one_id"]))
    [('user_id', 'user_source')]
    >>> list(user_columns(["left_source", "left_source_user_id", "user_id"]))
    [('left_source_user_id', 'left_source'), ('user_id', None)]
    """
    for name in names:
        if name.endswith(USER_ID):
            before = name.removesuffix(USER_ID)
            candidates = (f"{before}user_{SOURCE}", before.removesuffix("_"))
            yield name, next((one for one in candidates if one and one in names), None)


def _erase_parquet(path: Path, customer: ErasedCustomer, mention: Mention | None, whole_rows: bool) -> int:
    with pq.ParquetFile(path) as file:
        names = _free_texts(file.schema_arrow) if mention is not None else []
        nested = _nested_texts(file.schema_arrow) if mention is not None else []

        def dropped(table: pa.Table) -> pa.ChunkedArray | pa.Array:
            found = _of_customer(table, customer)
            if mention is not None and nested:
                found = pc.or_(found, _in_nested(table.select(nested), mention))
            return _any([found, *_mentioned(table, names)]) if whole_rows else found

        def _mentioned(table: pa.Table, columns: list[str]) -> list[Any]:
            texts = [table[name].cast(pa.string()) for name in columns]
            return [] if mention is None else [pc.fill_null(mention.in_arrow(text), False) for text in texts]

        def changes(table: pa.Table) -> bool:
            return bool(pc.any(_any([dropped(table), *_mentioned(table, names)])).as_py())

        tables = (file.read_row_group(group) for group in range(file.num_row_groups))
        if not any(changes(table) for table in tables):
            return 0
        removed, compression = 0, file.metadata.row_group(0).column(0).compression
        with (
            atomic_path(path) as temporary,
            pq.ParquetWriter(temporary, file.schema_arrow, compression=compression) as writer,
        ):
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                left = table.filter(pc.invert(dropped(table)))
                removed += len(table) - len(left)
                for name, found in zip(names, _mentioned(left, names), strict=False):
                    if times := pc.sum(found).as_py():
                        removed += times
                        left = _edited(left, name, mention)
                if len(left):
                    writer.write_table(_without_unused_texts(left))
            temporary.chmod(path.stat().st_mode & 0o777)
    return removed


def _any(masks: Sequence[Any]) -> Any:
    return reduce(pc.or_, masks)


def _of_customer(table: pa.Table, customer: ErasedCustomer) -> pa.ChunkedArray | pa.Array:
    """Which rows are the customer's, bool, (n,)."""
    found = pa.chunked_array([pa.repeat(pa.scalar(False), len(table))])
    known = pa.array([*customer.one_ids, *customer.identifiers], pa.string())
    texts = {field.name: table[field.name].cast(pa.string()) for field in table.schema if _is_text(field.type)}
    for column in texts.values():
        found = pc.or_(found, pc.is_in(column, value_set=known))
    for name, source in user_columns(list(texts)):
        for own_source in {source_name for source_name, _ in customer.users}:
            ids = pa.array([user for of, user in customer.users if of == own_source], pa.string())
            same = pc.is_in(texts[name], value_set=ids)
            if source is not None:
                same = pc.and_(same, pc.fill_null(pc.equal(texts[source], own_source), False))
            found = pc.or_(found, same)
    return found


def _edited(table: pa.Table, name: str, mention: Mention | None) -> pa.Table:
    """The table without the mentions in a column of texts."""
    place = table.schema.get_field_index(name)
    field, texts = table.schema.field(place), table.column(place).cast(pa.string())
    edited = texts if mention is None else mention.edited_in_arrow(texts)
    made = edited.dictionary_encode() if pa.types.is_dictionary(field.type) else edited
    return table.set_column(place, field, made.cast(field.type))


def _in_nested(table: pa.Table, mention: Mention) -> pa.Array:
    """Which rows mention the customer in a list or structure, bool, (n,)."""
    conditions = " OR ".join(f"{mention.in_sql(f'{quote(name)}::VARCHAR')} IS TRUE" for name in table.column_names)
    with duckdb.connect(config={"temp_directory": ""}) as connection:
        connection.execute("SET preserve_insertion_order=true")
        connection.register("rows_", table)
        found = connection.execute(f"SELECT ({conditions}) AS found FROM rows_").to_arrow_table()
    return found["found"].combine_chunks()


def _free_texts(schema: pa.Schema) -> list[str]:
    """The columns of texts that are neither ids nor codes: a word that is replaced in those would break the row."""
    return [field.name for field in schema if _is_text(field.type) and not _is_code(field.name)]


def _nested_texts(schema: pa.Schema) -> list[str]:
    return [field.name for field in schema if pa.types.is_nested(field.type) and "string" in str(field.type)]


def _is_code(name: str) -> bool:
    return name in CODES or name.endswith(USER_ID)


def _is_text(kind: pa.DataType) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value))


def _without_unused_texts(table: pa.Table) -> pa.Table:
    """The table with dictionaries of only those texts that its rows have."""
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            plain = table.column(place).cast(field.type.value_type)
            table = table.set_column(place, field, plain.dictionary_encode().cast(field.type))
    return table


def _erase_csv(path: Path, customer: ErasedCustomer, mention: Mention | None, whole_rows: bool) -> int:
    known, users = {*customer.one_ids, *customer.identifiers}, set(customer.users)
    ids = {user for _, user in customer.users}
    removed = 0
    with atomic_path(path) as temporary:
        with path.open(encoding="utf-8", newline="") as read, temporary.open("w", encoding="utf-8", newline="") as kept:
            records = _records(read)
            header = next(records, None)
            if header is None:
                return 0
            delimiter = max(DELIMITERS, key=header.count)
            names = [name.removeprefix("\ufeff") for name in _cells(header, delimiter)]
            place = {name: number for number, name in enumerate(names)}
            columns = [(place[name], None if of is None else place[of]) for name, of in user_columns(names)]
            codes = {number for name, number in place.items() if _is_code(name)}
            kept.write(header)
            for raw in records:
                cells = _cells(raw, delimiter)
                edited = (
                    cells
                    if mention is None
                    else [cell if number in codes else mention.edited(cell) for number, cell in enumerate(cells)]
                )
                cell_of = dict(enumerate(cells)).get  # a line may be shorter than the header
                mine = not known.isdisjoint(cells) or any(
                    (cell_of(of), cell_of(user)) in users if of is not None else cell_of(user) in ids
                    for user, of in columns
                )
                changed = sum(one != other for one, other in zip(cells, edited, strict=True))
                if mine or (changed and whole_rows):
                    removed += 1
                elif changed:
                    removed += changed
                    end = raw[len(raw.rstrip("\r\n")) :]
                    csv.writer(kept, delimiter=delimiter, lineterminator=end).writerow(edited)
                else:
                    kept.write(raw)
        temporary.chmod(path.stat().st_mode & 0o777)
        if not removed:
            temporary.unlink()
            temporary.hardlink_to(path)  # the file stays the one that it was
    return removed


def _erase_report(path: Path, customer: ErasedCustomer) -> int:
    """Remove the table rows of a customer from a report, in which each is a line of its own."""
    marks = [f'{ROW_ATTRIBUTE}="{escape(one_id)}"' for one_id in customer.one_ids]
    text = path.read_text(encoding="utf-8")
    lines = text.split("\n")
    kept = [line for line in lines if not any(mark in line for mark in marks)]
    if len(kept) == len(lines):
        return 0
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(kept), encoding="utf-8")
        temporary.chmod(path.stat().st_mode & 0o777)
    return len(lines) - len(kept)


def _records(lines: Iterator[str]) -> Iterator[str]:
    """Each record of a CSV file as it is written; a line break may lie within quotation marks."""
    raw: list[str] = []
    marks = 0
    for line in lines:
        raw.append(line)
        marks += line.count('"')
        if marks % 2 == 0:
            yield "".join(raw)
            raw, marks = [], 0
    if raw:
        yield "".join(raw)


def _cells(record: str, delimiter: str) -> list[str]:
    return next(csv.reader([record.rstrip("\r\n")], delimiter=delimiter), [])
