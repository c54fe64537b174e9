"""Taking a customer out of files of rows, Parquet and CSV, which otherwise stay as they are."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.erasure.customer import ErasedCustomer
from features.erasure.matching import REPLACEMENT, pattern, words
from qianmian.workspace import atomic_path

SUFFIXES = (".parquet", ".csv")
USER_ID, SOURCE = "user_id", "source"


def erase_rows(path: Path, customer: ErasedCustomer) -> int:
    """Remove the rows of a customer from a Parquet or CSV file; returns how many were removed or edited.

    A row is the customer's if a cell is one of the `one_id` or identifiers of the customer, or if it has a user id of
    the customer in a column of user ids (``user_id``, ``source_user_id``, ``left_source_user_id``) and the source that
    goes with it, where the file has a column of sources. All other rows keep their order; a Parquet file keeps its
    schema, row groups and compression, and a CSV file its bytes, but for mentions of the customer in their texts, which
    are replaced and count too.
    """
    return _erase_csv(path, customer) if path.suffix == ".csv" else _erase_parquet(path, customer)


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


def _erase_parquet(path: Path, customer: ErasedCustomer) -> int:
    mention = pattern(words(customer))
    with pq.ParquetFile(path) as file:
        tables = (file.read_row_group(group) for group in range(file.num_row_groups))
        if not any(pc.any(_of_customer(table, customer)).as_py() or _mentions(table, mention) for table in tables):
            return 0
        removed, compression = 0, file.metadata.row_group(0).column(0).compression
        with (
            atomic_path(path) as temporary,
            pq.ParquetWriter(temporary, file.schema_arrow, compression=compression) as writer,
        ):
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                left = table.filter(pc.invert(_of_customer(table, customer)))
                removed += len(table) - len(left)
                if found := _mentions(left, mention):
                    removed += found
                    left = _without_mentions(left, mention)
                if len(left):
                    writer.write_table(_without_unused_texts(left))
            temporary.chmod(path.stat().st_mode & 0o777)
    return removed


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


def _mentions(table: pa.Table, mention: str | None) -> int:
    """How many texts mention the customer."""
    if mention is None:
        return 0
    columns = [table[field.name].cast(pa.string()) for field in table.schema if _is_text(field.type)]
    return sum(pc.sum(pc.match_substring_regex(column, mention)).as_py() or 0 for column in columns)


def _without_mentions(table: pa.Table, mention: str | None) -> pa.Table:
    for place, field in enumerate(table.schema):
        if _is_text(field.type):
            texts = table.column(place).cast(pa.string())
            edited = pc.replace_substring_regex(texts, pattern=mention, replacement=REPLACEMENT)
            made = edited.dictionary_encode() if pa.types.is_dictionary(field.type) else edited
            table = table.set_column(place, field, made.cast(field.type))
    return table


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


def _erase_csv(path: Path, customer: ErasedCustomer) -> int:
    known, users = {*customer.one_ids, *customer.identifiers}, set(customer.users)
    ids = {user for _, user in customer.users}
    found = pattern(words(customer))
    mention = re.compile(found) if found is not None else None
    removed = 0
    with atomic_path(path) as temporary:
        with path.open(encoding="utf-8", newline="") as read, temporary.open("w", encoding="utf-8", newline="") as kept:
            records = _records(read)
            header = next(records, None)
            if header is None:
                return 0
            names = header[1]
            place = {name: number for number, name in enumerate(names)}
            columns = [(place[name], None if of is None else place[of]) for name, of in user_columns(names)]
            kept.write(header[0])
            for raw, cells in records:
                mine = not known.isdisjoint(cells) or any(
                    (cells[of], cells[user]) in users if of is not None else cells[user] in ids for user, of in columns
                )
                removed += mine
                if not mine:
                    text, times = mention.subn(REPLACEMENT, raw) if mention is not None else (raw, 0)
                    removed += times
                    kept.write(text)
        temporary.chmod(path.stat().st_mode & 0o777)
        if not removed:
            temporary.unlink()
            temporary.hardlink_to(path)  # the file stays the one that it was
    return removed


def _records(lines: Iterator[str]) -> Iterator[tuple[str, list[str]]]:
    """Each record of a CSV file as it is written, and its cells; a line break may lie within quotation marks."""
    raw = ""
    for line in lines:
        raw += line
        if raw.count('"') % 2 == 0:
            yield raw, next(csv.reader([raw.rstrip("\r\n")]), [])
            raw = ""
    if raw:
        yield raw, next(csv.reader([raw]), [])
