"""Ids in any order become rows, one at a time or many, from lists, arrays and Arrow columns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from features.arrow_column import ArrowColumn
from features.id_map import CustomerMap, IdMap

WANTED = ["张", "x", "a", "a", ""]
ROWS = [2, -1, 1, 1, -1]


@pytest.fixture(params=[IdMap, CustomerMap])
def kind(request):
    return request.param


@pytest.fixture(params=[list, np.array, lambda ids: ArrowColumn(pa.array(ids))], ids=["list", "array", "arrow"])
def ids(request, kind) -> IdMap:
    return kind(request.param(["b", "a", "张"]))


def test_one_id(ids):
    assert [ids.row(one) for one in WANTED] == ROWS
    assert ids.row(None) == -1
    assert "张" in ids
    assert "x" not in ids
    assert len(ids) == 3


@pytest.mark.parametrize("column", [list, np.array, pa.array, lambda ids: pa.chunked_array([ids[:2], ids[2:]])])
def test_many_ids(ids, column):
    rows = ids.rows(column(WANTED))
    assert rows.tolist() == ROWS
    assert rows.dtype == np.int64


def test_a_null_is_unknown(ids):
    assert ids.rows(pa.array(["a", None])).tolist() == [1, -1]


def test_known_and_unknown_ids_once_each(ids):
    rows, unknown = ids.split(["x", "张", "a", "y", "张", "x"])
    assert rows.tolist() == [2, 1]
    assert unknown == ["x", "y"]
    assert ids.split([])[0].tolist() == []


def test_no_ids(kind):
    nothing = kind(np.array([], dtype=np.str_))
    assert nothing.rows(["a"]).tolist() == [-1]
    assert nothing.row("a") == -1
    assert IdMap(["a"]).rows(np.array([], dtype=np.str_)).tolist() == []
