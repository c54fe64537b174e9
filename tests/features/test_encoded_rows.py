"""Rows read in batches, with codes for texts, are those of plain columns."""

from __future__ import annotations

import ibis
import pyarrow as pa
import pytest

from features import encoded_rows
from features.encoded_rows import ENCODED, concat_encoded, read_encoded, text_codes
from features.id_map import IdMap

SCHEMA = pa.schema({"one_id": ENCODED, "basket": ENCODED, "age_days": pa.float64(), "amount": pa.float32()})
ROWS = pa.table(
    {
        "amount": [1.5, None, 2.5, 3.5, 4.5],
        "one_id": ["b", "a", "b", "c", "a"],
        "basket": [None, "1", "2", None, "1"],
        "age_days": [0.1, 0.2, 0.3, 0.4, 0.5],
    }
)


def read(rows: pa.Table) -> pa.Table:
    backend = ibis.duckdb.connect()
    backend.con.register("lines", rows)
    return read_encoded(backend.table("lines"), SCHEMA)


@pytest.mark.parametrize(("batch_rows", "batches"), [(2_048, 8), (1_000_000, 1)])
def test_batches_have_codes_in_common(monkeypatch, batch_rows, batches):
    """DuckDB gives at least 2,048 rows a batch. The third of the texts is in the last batches only."""
    monkeypatch.setattr(encoded_rows, "BATCH_ROWS", batch_rows)
    whole = pa.concat_tables([ROWS.slice(0, 3)] * 2_500 + [ROWS] * 1_500)
    found = read(whole)
    assert found.schema == SCHEMA
    assert found.to_pylist() == whole.select(SCHEMA.names).to_pylist()
    assert found["one_id"].num_chunks == batches
    assert {tuple(chunk.dictionary.to_pylist()) for chunk in found["one_id"].chunks} == {("b", "a", "c")}


def test_no_rows():
    found = read(ROWS.slice(0, 0))
    texts, codes = text_codes(found["one_id"])
    assert (found.schema, len(found), len(texts), len(codes)) == (SCHEMA, 0, 0, 0)
    assert IdMap(["a"]).rows(found["one_id"]).tolist() == []


def test_tables_with_codes_of_their_own_and_with_plain_texts():
    other = pa.table({"one_id": ["d", "b"], "basket": ["9", None], "age_days": [1.0, 2.0], "amount": [None, 1.0]})
    whole = concat_encoded([read(ROWS), other, read(ROWS.slice(3))], SCHEMA)
    assert whole["one_id"].to_pylist() == ["b", "a", "b", "c", "a", "d", "b", "c", "a"]
    assert whole["basket"].to_pylist() == [None, "1", "2", None, "1", "9", None, None, "1"]
    texts, codes = text_codes(whole["one_id"])
    assert codes.tolist() == [0, 1, 0, 2, 1, 3, 0, 2, 1]
    assert texts.to_pylist() == ["b", "a", "c", "d"]


def test_ids_of_an_encoded_column_are_looked_up():
    chunks = [pa.array(["b", None, "x"]).dictionary_encode(), pa.array(["a", "b"]).dictionary_encode()]
    assert IdMap(["a", "b"]).rows(pa.chunked_array(chunks)).tolist() == [1, -1, -1, 0, 1]
    assert IdMap(["a", "b"]).rows(chunks[0]).tolist() == [1, -1, -1]


def test_columns_share_no_memory_with_the_batch():
    """Arrow frees an imported batch, its texts too, only when no column of it is in use."""
    batch = ROWS.to_batches()[0]
    addresses = {name: batch[name].buffers()[-1].address for name in ("age_days", "amount")}
    found = encoded_rows._own_columns(batch, SCHEMA)
    assert all(found[name].chunk(0).buffers()[-1].address != address for name, address in addresses.items())
