"""Arrays of models are mapped from their file, and are those that were written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models.persist import ALIGNMENT, is_mapped, load_arrays, save_arrays
from qianmian.errors import ArtifactError

SMAPS = Path("/proc/self/smaps_rollup")
STATE = {
    "numbers": np.arange(7, dtype=np.int32),
    "张": np.array(["x", "张三", ""]),
    "columns": np.asfortranarray(np.arange(12, dtype=np.float64).reshape(3, 4)),
    "none": np.empty((0, 3), np.float32),
    "one": np.asarray(3.5),
    "flags": np.ones(1_000, dtype=bool),
    "a_long_name_" * 20: np.arange(3, dtype=np.int8),
}


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape


def test_what_was_written_is_mapped(tmp_path):
    save_arrays(tmp_path / "state.npz", STATE)
    found = load_arrays(tmp_path / "state.npz")
    assert_same(found, STATE)
    assert all(array.ctypes.data % ALIGNMENT == 0 and is_mapped(array) for array in found.values())
    with np.load(tmp_path / "state.npz") as plain:  # it is an ordinary npz file
        assert_same(dict(plain), STATE)


@settings(max_examples=50, deadline=None)
@given(
    array=arrays.arrays(
        st.sampled_from([np.float32, np.int64, np.uint8, np.bool_, "U3"]),
        arrays.array_shapes(min_dims=0, max_dims=3, min_side=0),
    ),
    names=st.lists(st.text("ab_é", min_size=1, max_size=9), min_size=1, max_size=4, unique=True),
)
def test_any_arrays(array, names, tmp_path_factory):
    path = tmp_path_factory.mktemp("any") / "state.npz"
    state = dict.fromkeys(names, array)
    save_arrays(path, state)
    found = load_arrays(path)
    assert_same(found, state)
    assert all(map(is_mapped, found.values()))


def test_equal_arrays_make_equal_files(tmp_path):
    for name in ("a", "b"):
        save_arrays(tmp_path / name, STATE)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_change_stays_in_the_process(tmp_path):
    path = tmp_path / "state.npz"
    save_arrays(path, STATE)
    before = path.read_bytes()
    found = load_arrays(path)
    found["numbers"][0] = 9
    assert found["numbers"][0] == 9
    assert load_arrays(path)["numbers"][0] == 0
    assert path.read_bytes() == before


def test_a_file_may_be_replaced_or_removed_while_it_is_mapped(tmp_path):
    path = tmp_path / "state.npz"
    save_arrays(path, {"a": np.arange(100_000)})
    found = load_arrays(path)
    save_arrays(path, {"a": np.zeros(3)})
    assert load_arrays(path)["a"].tolist() == [0, 0, 0]
    path.unlink()
    np.testing.assert_array_equal(found["a"], np.arange(100_000))


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_files_of_earlier_versions_are_read(tmp_path, write):
    write(tmp_path / "state.npz", **{name: array for name, array in STATE.items() if name.isidentifier()})
    found = load_arrays(tmp_path / "state.npz")
    assert_same(found, STATE)
    assert not any(map(is_mapped, found.values()))


@pytest.mark.parametrize("kept", [0, 1, 100, 3_000, -1])
def test_a_damaged_file_is_refused(tmp_path, kept):
    path = tmp_path / "state.npz"
    save_arrays(path, STATE)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_arrays(path)


@pytest.mark.skipif(not SMAPS.exists(), reason="only Linux says what memory is shared")
def test_two_processes_share_the_memory(tmp_path):
    """The private memory of a second process that reads all values is a small part of the file."""
    path = tmp_path / "state.npz"
    save_arrays(path, {"a": np.ones(20_000_000, dtype=np.int8)})
    code = (
        "import sys, re; from pathlib import Path; from models.persist import load_arrays\n"
        "private = lambda: sum(map(int, re.findall(r'Private_Dirty: +(\\d+)', Path('/proc/self/smaps_rollup').read_text())))\n"
        "before = private(); print(load_arrays(Path(sys.argv[1]))['a'].sum(), private() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    total, kilobytes = map(int, done.stdout.split())
    assert total == 20_000_000
    assert kilobytes < 5_000
    assert os.path.getsize(path) > 20_000_000
