"""A text is found among many, at each of its rows, whatever the others are, and in another process as well."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from features import hashed_texts
from features.arrow_column import ArrowColumn, EncodedColumn, TextColumn
from features.hashed_texts import HashedTexts


@pytest.mark.parametrize("kind", [list, np.array, lambda texts: ArrowColumn(pa.array(texts))])
def test_each_of_many_texts_is_at_its_rows(kind, monkeypatch):
    monkeypatch.setattr(hashed_texts, "BLOCK", 1_000)
    numbers = np.random.default_rng(0).integers(0, 4_000, 10_000)
    index = HashedTexts(kind([f"用户{number}" for number in numbers]))
    for _ in range(2):  # from the table, then as remembered
        for number in range(4_100):
            assert index.rows(f"用户{number}") == tuple(np.flatnonzero(numbers == number))


def test_texts_of_the_same_hash_are_told_apart(monkeypatch):
    monkeypatch.setattr(hashed_texts, "hash", lambda text: -7, raising=False)
    index = HashedTexts(["b", "a", "b", ""])
    assert [index.rows(text) for text in ("b", "a", "", "x")] == [(0, 2), (1,), (3,), ()]


def test_no_texts():
    assert HashedTexts([]).rows("a") == ()


def test_it_is_used_in_a_process_with_other_hashes():
    stored = pickle.dumps(HashedTexts([f"u{number}" for number in range(100)]))
    read = "import pickle, sys; index = pickle.load(sys.stdin.buffer); print(index.rows('u17'), index.rows('x'))"
    done = subprocess.run(
        [sys.executable, "-c", read],
        input=stored,
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.decode().split("\n")[0] == "(17,) ()"


@pytest.mark.parametrize("values", [["b", None, "a", "b"], [None, None], [], ["", "b"]])
def test_a_column_is_a_sequence_of_its_values(values):
    array = pa.chunked_array([values[:1], values[1:]], pa.string())
    columns = [ArrowColumn(array), EncodedColumn(array.dictionary_encode())]
    for column in columns if None in values else [*columns, TextColumn(array)]:
        assert column == values
        assert [column[row] for row in range(len(values))] == column[:] == values
        assert column != [*values, "b"]
        assert column == ArrowColumn(array)
        assert pa.array(column, pa.string()).to_pylist() == pa.table({"a": column})["a"].to_pylist() == values
        assert pickle.loads(pickle.dumps(column)) == values
        assert pa.array(column).type == pa.string()
