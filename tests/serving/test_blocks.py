"""Scores that are written by blocks: equal to one table, and an interrupted run continues."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from serving.scoring.blocks import BlockScores, write_blocks
from serving.scoring.tables import PROVENANCE

SCHEMA = pa.schema([("one_id", pa.string()), ("score", pa.float64()), *PROVENANCE])
ROOT = Path(__file__).resolve().parents[2]


def rows(start: int, stop: int) -> pa.Table:
    """Two rows for each customer."""
    numbers = [number for number in range(start, stop) for _ in range(2)]
    columns = [[f"c{number}" for number in numbers], [number / 2 for number in numbers]]
    return pa.table([*columns, pa.nulls(len(numbers), pa.timestamp("us")), ["1"] * len(numbers)], schema=SCHEMA)


class Counted:
    """Scores of 25 customers by blocks of ten, which remember the blocks that were computed."""

    def __init__(self, fails_at: int | None = None, version: str = "1") -> None:
        self.computed: list[int] = []
        self.fails_at = fails_at
        self.scores = BlockScores(SCHEMA, 25, self.block, {"model": version}, 10)

    def block(self, start: int, stop: int) -> pa.Table:
        if start == self.fails_at:
            raise RuntimeError("the power failed")
        self.computed.append(start)
        return rows(start, stop)


@pytest.mark.parametrize("name", ["scores.parquet", "scores.csv"])
def test_the_file_equals_the_table(tmp_path, name):
    counted, seen = Counted(), []
    written = write_blocks(counted.scores, tmp_path / name, lambda done, of: seen.append((done, of)))
    assert (written.rows, written.customers, written.resumed) == (50, 25, 0)
    assert seen == [(10, 25), (20, 25), (25, 25)]
    read = pq.read_table if name.endswith("parquet") else pa_csv.read_csv
    whole = counted.scores.table()
    assert read(tmp_path / name).select(["one_id", "score"]).equals(whole.select(["one_id", "score"]))
    assert [file.name for file in tmp_path.iterdir()] == [name], "no block is left"


def test_a_failed_run_leaves_no_file_and_continues_after_its_last_block(tmp_path):
    out = tmp_path / "scores.parquet"
    failing = Counted(fails_at=20)
    with pytest.raises(RuntimeError):
        write_blocks(failing.scores, out)
    assert failing.computed == [0, 10]
    assert not out.exists()
    again = Counted()
    written = write_blocks(again.scores, out)
    assert again.computed == [20]
    assert (written.customers, written.resumed) == (25, 20)
    assert pq.read_table(out).equals(rows(0, 25))
    assert [file.name for file in tmp_path.iterdir()] == [out.name]


@pytest.mark.parametrize("change", [{"model": "2"}, {"size": 9}, {"customers": 24}])
def test_other_scores_do_not_take_over_the_blocks(tmp_path, change):
    out = tmp_path / "scores.parquet"
    with pytest.raises(RuntimeError):
        write_blocks(Counted(fails_at=20).scores, out)
    other = Counted(version=change.get("model", "1"))
    scores = replace(other.scores, **{name: value for name, value in change.items() if name != "model"})
    assert write_blocks(scores, out).resumed == 0
    assert other.computed == [start for start, _ in scores.ranges]
    assert [file.name for file in tmp_path.iterdir()] == [out.name], "the blocks of the first run are removed too"


def test_a_killed_process_is_continued(tmp_path):
    """The process is killed in the middle of its third block, as by the kernel when memory is short."""
    script = f"""
import os, signal, sys
sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]
from pathlib import Path
from test_blocks import Counted, write_blocks
counted = Counted()
block = counted.block
def killed(start, stop):
    if start == 20:
        os.kill(os.getpid(), signal.SIGKILL)
    return block(start, stop)
object.__setattr__(counted.scores, "block", killed)
write_blocks(counted.scores, Path({str(tmp_path / "scores.parquet")!r}))
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    assert not (tmp_path / "scores.parquet").exists()
    again = Counted()
    assert write_blocks(again.scores, tmp_path / "scores.parquet").resumed == 20
    assert again.computed == [20]
    assert pq.read_table(tmp_path / "scores.parquet").equals(rows(0, 25))


def test_no_customers_give_an_empty_file_with_the_columns(tmp_path):
    written = write_blocks(replace(Counted().scores, customers=0), tmp_path / "scores.parquet")
    assert (written.rows, written.customers, written.as_of) == (0, 0, None)
    assert pq.read_table(tmp_path / "scores.parquet").schema.names == SCHEMA.names
