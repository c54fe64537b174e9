"""Reading of a snapshot table: a CSV or Parquet file with one row a customer, whose cells are read as text."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from features.data.sources.files.csv_format import UnreadableFile, describe_csv, open_binary
from features.data.sources.files.settings import TableSettings
from features.data.sources.files.text_encodings import codec_name, guess_encoding
from qianmian.errors import DataError, UsageError, did_you_mean

# cells that mean "not known"; words such as `unknown` or `none` are answers in many tables and stay
MISSING_CELLS = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "?")

AS_NUMBERS = {b"qianmian.type": b"number"}  # of the field of a column that has been numbers before it was text
NO_MAPPING = {"source_user_id": "source_user_id"}  # the settings of a file need one; nothing reads it here


def read_snapshot_table(path: Path) -> pa.Table:
    """Read all columns of a file as text without outer blanks; cells without a value are null.

    Encoding, byte order mark and separator of a CSV file are found by looking at it.

    Raises
    ------
    UsageError
        The file is missing.
    DataError
        The file cannot be read, has a column twice or has no rows.
    """
    if not path.is_file():
        raise UsageError("the file is missing", where="--data", got=str(path), hint="name a CSV or Parquet file")
    try:
        table = as_texts(pq.read_table(path) if path.suffix.lower() == ".parquet" else _read_csv(path))
    except (pa.ArrowException, UnreadableFile, UnicodeDecodeError, OSError) as error:
        raise DataError(
            "the table cannot be read",
            where=str(path),
            got=str(error).splitlines()[0],
            hint="use Parquet, or CSV in UTF-8 with one header line",
        ) from error
    names = table.column_names
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise DataError("a column occurs twice", where=str(path), got=", ".join(repeated), hint="rename one of them")
    if not table.num_rows:
        raise DataError("the table has no rows", where=str(path), hint="one row a customer is needed")
    return table


def file_digest(path: Path) -> str:
    """Return the digest of the bytes of a file, by which a run names the table that it has learnt from."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def as_texts(table: pa.Table) -> pa.Table:
    """Return all columns as text without outer blanks; cells without a value, and lists, are null.

    The fields of numbers are marked with `AS_NUMBERS`: their decimal separator is a dot, whatever that of other files.
    """
    columns = [_as_text(table.column(place)) for place in range(table.num_columns)]
    fields = [
        pa.field(field.name, pa.string(), metadata=AS_NUMBERS if _is_number(field.type) else None)
        for field in table.schema
    ]
    return pa.table(columns, schema=pa.schema(fields))


def require_column(table: pa.Table, name: str, option: str, path: Path) -> pa.ChunkedArray:
    """Return a column of the table.

    Raises
    ------
    UsageError
        There is no such column; the error names a similar one.
    """
    if name not in table.column_names:
        raise UsageError(
            f"the table has no column {name}{did_you_mean(name, table.column_names)}",
            where=f"{option} {path.name}",
            allowed=", ".join(table.column_names),
        )
    return table[name]


def _read_csv(path: Path) -> pa.Table:
    with open_binary(path) as handle:
        raw = handle.read()
    encoding = None
    try:
        found = describe_csv(path, TableSettings(path=str(path), columns=NO_MAPPING), ())
        text = raw[len(found.bom) :].decode(found.encoding)
    except (UnicodeDecodeError, UnreadableFile):
        encoding = guess_encoding(raw)
        if encoding is None:
            raise
        found = describe_csv(path, TableSettings(path=str(path), columns=NO_MAPPING, encoding=encoding), ())
        text = raw[len(found.bom) :].decode(codec_name(encoding))
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return pa_csv.read_csv(
        io.BytesIO(lines.encode()),
        pa_csv.ReadOptions(skip_rows=found.skipped + found.header_lines, column_names=list(found.names)),
        pa_csv.ParseOptions(delimiter=found.delimiter, newlines_in_values=True),
        pa_csv.ConvertOptions(column_types=dict.fromkeys(found.names, pa.string()), strings_can_be_null=False),
    )


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_nested(column.type) or pa.types.is_null(column.type):
        return pa.chunked_array([pa.nulls(len(column), pa.string())])
    if pa.types.is_timestamp(column.type):
        column = pc.strftime(column, format="%Y-%m-%dT%H:%M:%S")
    text = pc.utf8_trim_whitespace(column.cast(pa.string()))
    return pc.if_else(pc.is_in(text, value_set=pa.array(MISSING_CELLS)), pa.scalar(None, pa.string()), text)
