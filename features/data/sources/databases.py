"""Tables of a database as input: PostgreSQL, MySQL, SQLite and whatever else SQLAlchemy opens.

Rows are read in chunks and written to a Parquet file in the scratch folder of the ingest, so that memory is bounded
and everything after it is the same as for files. A password never stands in the `sources.yaml`: the URL names an
environment variable, `postgresql+psycopg://reader:${SHOP_PASSWORD}@db/shop`, and no message shows its value.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy
from sqlalchemy.engine import URL, Connection, Engine, make_url

from features.data.lake import quote
from features.data.sources.watermarks import Watermark
from qianmian.errors import DataError

CHUNK_ROWS = 50_000
SAMPLE_ROWS = 1_000  # rows from which the types of the columns are read
DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "mysql": "mysql+pymysql"}
_EXACT = Context(prec=60)
_VARIABLE = re.compile(r"\$\{(\w+)\}")
SQL_TYPES = {"string": "VARCHAR", "int64": "BIGINT", "double": "DOUBLE", "bool": "BOOLEAN", "date32[day]": "DATE"}


@dataclass(frozen=True)
class DatabaseQuery:
    """The rows of one table of a `sources.yaml` that names a database.

    Attributes
    ----------
    url : str
        SQLAlchemy URL; ``${NAME}`` stands for an environment variable.
    table, query : str or None
        Table (``schema.table``) or SELECT; one of them is given.
    watermark : str or None
        Column that grows with every change: only rows from its last value on are read again.
    overlap : float or None
        How far before the last value reading begins: seconds of a time, or numbers. Transactions become visible later
        than the time or number they were given; rows that are read twice are duplicates.
    """

    url: str
    table: str | None = None
    query: str | None = None
    watermark: str | None = None
    overlap: float | None = None


def url_problem(text: str) -> str | None:
    """What is wrong with a database URL, without any secret in it; None if it can be opened."""
    missing = [name for name in _VARIABLE.findall(text) if name not in os.environ]
    if missing:
        return f"the environment variable {missing[0]} is not set: export it before the command"
    try:
        declared, url = make_url(text), _expanded(text)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        return "this is not a database URL: write e.g. postgresql://reader:${SHOP_PASSWORD}@host/database"
    if declared.password and not _VARIABLE.search(str(declared.password)):
        return (
            "the password stands in the file: put it into an environment variable and write "
            f"{declared.set(password='${SHOP_PASSWORD}').render_as_string(hide_password=False)}"
        )
    try:
        sqlalchemy.create_engine(url)
    except sqlalchemy.exc.NoSuchModuleError:
        return f"SQLAlchemy knows no database {url.drivername!r}: use postgresql, mysql or sqlite"
    except ModuleNotFoundError as error:
        return f"the driver {error.name} is not installed: pip install 'qianmian[databases]'"
    return None


def shown_url(text: str) -> str:
    """The URL without a password, for messages."""
    try:
        return make_url(_VARIABLE.sub("***", text)).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return "the database"


def column_types(source: DatabaseQuery) -> dict[str, str]:
    """Column name → SQL type in DuckDB, read from the first rows.

    Raises
    ------
    DataError
        If the database cannot be reached or the query fails.
    """
    schema = _schema(source)
    return {field.name: _sql_type(field.type) for field in schema}


def copy_rows(source: DatabaseQuery, target: Path, start: Watermark | None, limit: int | None) -> Watermark | None:
    """Write the rows from the watermark `start` on to a Parquet file.

    Parameters
    ----------
    target : Path
        Parquet file; its folder is created.
    start : Watermark or None
        Last value of the previous ingest; None reads all rows.
    limit : int or None
        Read only so many rows.

    Returns
    -------
    Watermark or None
        The largest value of the watermark column, or `start`; None without a watermark column.

    Raises
    ------
    DataError
        If the database cannot be reached, the query fails, or a column changes its type between rows.
    """
    schema, reached, read = _schema(source), start, 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(target, schema) as writer, _connected(source) as connection:
        for rows in _chunks(connection, source, start):
            kept_rows = rows if limit is None else rows[: limit - read]
            writer.write_table(_table(source, kept_rows, schema))
            read += len(kept_rows)
            if source.watermark:
                at = schema.get_field_index(source.watermark)
                reached = Watermark.largest(reached, (row[at] for row in kept_rows))
            if limit is not None and read >= limit:
                break
    return reached


def _expanded(text: str) -> URL:
    def filled(value: Any) -> str | None:
        return None if value is None else _VARIABLE.sub(lambda found: os.environ[found[1]], str(value))

    url = make_url(text)
    return url.set(
        drivername=DRIVERS.get(url.drivername, url.drivername),
        username=filled(url.username),
        password=filled(url.password),
        host=filled(url.host),
        database=filled(url.database),
    )


@contextmanager
def _connected(source: DatabaseQuery) -> Iterator[Connection]:
    """A connection; its errors name the database without secrets."""
    url = _expanded(source.url)
    engine: Engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    try:
        with engine.connect() as connection:
            yield connection
    except sqlalchemy.exc.SQLAlchemyError as error:
        text = " ".join(str(getattr(error, "orig", None) or error).split())
        if url.password:
            text = text.replace(str(url.password), "***")
        raise DataError(
            "the database cannot be read",
            where=shown_url(source.url),
            got=text[:300],
            hint="check the URL, the table or query, and that the user may read it; the lake is unchanged",
        ) from None
    finally:
        engine.dispose()


def _schema(source: DatabaseQuery) -> pa.Schema:
    """Arrow schema of the rows; SQLite has no column types, so all its columns are text."""
    with _connected(source) as connection:
        result = connection.execution_options(stream_results=True).execute(
            sqlalchemy.text(f"SELECT * FROM {_relation(connection, source)} AS q")
        )
        names = list(result.keys())
        rows = result.fetchmany(SAMPLE_ROWS)
        typed = connection.dialect.name != "sqlite"
        result.close()
    columns = zip(*rows, strict=True) if rows else ((),) * len(names)
    return pa.schema(
        [
            (name, _arrow_type([v for v in values if v is not None]) if typed else pa.string())
            for name, values in zip(names, columns, strict=True)
        ]
    )


def _chunks(connection: Connection, source: DatabaseQuery, start: Watermark | None) -> Iterator[Sequence[Any]]:
    query, values = f"SELECT * FROM {_relation(connection, source)} AS q", {}
    if source.watermark:
        column = f"q.{connection.dialect.identifier_preparer.quote(source.watermark)}"
        if start is not None:
            # rows without a value would never be read again otherwise; those that are known are duplicates
            query += f" WHERE {column} >= :start OR {column} IS NULL"
            values = {"start": start.less(source.overlap).value}
        query += f" ORDER BY {column}"
    result = connection.execution_options(stream_results=True, yield_per=CHUNK_ROWS).execute(
        sqlalchemy.text(query), values
    )
    yield from result.partitions()


def _relation(connection: Connection, source: DatabaseQuery) -> str:
    if source.query is not None:
        return f"({source.query.strip().rstrip(';')})"
    return ".".join(connection.dialect.identifier_preparer.quote(part) for part in str(source.table).split("."))


def _arrow_type(values: list[Any]) -> pa.DataType:
    kinds = {type(value) for value in values}
    if kinds == {bool}:
        return pa.bool_()
    if kinds == {int}:
        return pa.int64() if all(abs(value) < 2**63 for value in values) else pa.string()
    if kinds == {float} or kinds == {int, float}:
        return pa.float64()
    if kinds == {Decimal}:  # exact, because ids are kept as NUMERIC too
        whole = all(value.is_finite() and value == value.to_integral_value() for value in values)
        return pa.decimal128(38, 0 if whole else 10)
    if kinds == {datetime}:
        return pa.timestamp("us", tz="UTC" if values[0].tzinfo else None)
    if kinds == {date}:
        return pa.date32()
    return pa.string()


def _sql_type(kind: pa.DataType) -> str:
    if pa.types.is_decimal(kind):
        return f"DECIMAL({kind.precision},{kind.scale})"
    if pa.types.is_timestamp(kind):
        return "TIMESTAMP WITH TIME ZONE" if kind.tz else "TIMESTAMP"
    return SQL_TYPES[str(kind)]


def _table(source: DatabaseQuery, rows: Sequence[Any], schema: pa.Schema) -> pa.Table:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    arrays = []
    for field, values in zip(schema, columns, strict=True):
        try:
            arrays.append(_array(values, field.type))
        except (pa.ArrowInvalid, pa.ArrowTypeError, ArithmeticError, ValueError):
            raise DataError(
                "a column changes its type between the rows",
                where=f"{field.name} in {shown_url(source.url)}",
                got=f"a value that is not {_sql_type(field.type)} like the first rows",
                hint=f"cast it in a `query:`, for example CAST({quote(field.name)} AS text)",
            ) from None
    return pa.Table.from_arrays(arrays, schema=schema)


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_string(kind):
        return pa.array([_text(value) for value in values], kind)
    if pa.types.is_decimal(kind):
        unit = Decimal(1).scaleb(-kind.scale)
        rounded = [None if value is None else value.quantize(unit, context=_EXACT) for value in values]
        if kind.scale == 0 and any(a is not None and a != b for a, b in zip(rounded, values, strict=True)):
            raise ValueError("a fraction")
        return pa.array(rounded, kind)
    return pa.array(values, kind)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes | memoryview):
        return bytes(value).decode("utf-8", "backslashreplace")
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    return format(value, "f") if isinstance(value, Decimal) else str(value)
