"""Rows of the lake in memory: read in batches, the texts dictionary-encoded, so that a long history takes little of it.

In a plain Arrow column, an id takes the memory of its text at every row. In a dictionary-encoded column each different
text is kept once, and a row has its 32-bit code.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

if TYPE_CHECKING:  # serving reads codes without a database
    import ibis.expr.types as ir

ENCODED = pa.dictionary(pa.int32(), pa.string())
BATCH_ROWS = 1_000_000


def read_encoded(rows: ir.Table, schema: pa.Schema) -> pa.Table:
    """Read the columns of `schema`, whose text columns are `ENCODED`.

    DuckDB never holds more than a batch of rows with their texts; Spark's reader holds them all for a moment.

    Parameters
    ----------
    rows : ibis table
        Has the columns; the numbers may be wider than in `schema`.
    """
    batches = rows.select(*schema.names).to_pyarrow_batches(chunk_size=BATCH_ROWS)
    return concat_encoded((_own_columns(batch, schema) for batch in batches), schema)


def concat_encoded(tables: Iterable[pa.Table], schema: pa.Schema) -> pa.Table:
    """One table of all rows; plain text columns, and encoded ones with other codes, get codes in common."""
    encoded = (table.select(schema.names).cast(schema) for table in tables)
    whole = pa.concat_tables([schema.empty_table(), *encoded])
    return pa.table([_in_common(column) for column in whole.columns], schema=schema)


def text_codes(column: pa.Array | pa.ChunkedArray) -> tuple[pa.Array, NDArray[np.int32]]:
    """The different texts of an encoded column, in no order, and the code of each of its m rows, −1 for null, (m,).

    Examples
    --------
    >>> texts, codes = text_codes(pa.array(["b", "a", None, "b"]).dictionary_encode())
    >>> texts.to_pylist(), codes.tolist()
    (['b', 'a'], [0, 1, -1, 0])
    """
    chunks = _in_common(column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])).chunks
    texts = chunks[0].dictionary if chunks else pa.array([], column.type.value_type)
    codes = [pc.fill_null(chunk.indices, -1).to_numpy() for chunk in chunks]
    return texts, np.concatenate([np.empty(0, np.int32), *codes])


def _in_common(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column with the same codes in all chunks. They are compared first: making them anew takes 20 × the time."""
    if not pa.types.is_dictionary(column.type):
        return column
    chunks = [chunk for chunk in column.chunks if len(chunk)]
    column = pa.chunked_array(chunks, column.type)
    same = all(chunk.dictionary.equals(chunks[0].dictionary) for chunk in chunks[1:])
    return column if same else column.unify_dictionaries()


def _own_columns(batch: pa.RecordBatch, schema: pa.Schema) -> pa.Table:
    """A copy of the columns: one that shares memory with the batch would keep its other columns too, the texts."""
    return pa.table(
        [
            pa.concat_arrays([batch[name]]) if batch[name].type == kind else batch[name].cast(kind)
            for name, kind in zip(schema.names, schema.types, strict=True)
        ],
        schema=schema,
    )
