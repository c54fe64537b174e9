"""Blocks that are scored by worker processes: equal to those of one process, and safe when a process ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qianmian.errors import DataError, WorkspaceError
from serving.recommending import batch
from serving.recommending.request_options import parse_list_options
from serving.scoring import blocks, workers
from serving.scoring.blocks import BlockScores, write_blocks
from serving.scoring.churn import score_churn
from serving.scoring.predictions import score_predictions
from tests.serving.block_that_fails import SCHEMA, Block

ROOT = Path(__file__).resolve().parents[2]


def scores(how: str = "", at: int = -1) -> BlockScores:
    return BlockScores(SCHEMA, 25, Block(how, at), {"model": "1"}, 5)


def test_blocks_are_shared_out_and_stay_in_order(tmp_path):
    out, seen = tmp_path / "scores.parquet", []
    written = write_blocks(scores(), out, lambda done, of: seen.append((done, of)), workers=2)
    assert (written.rows, written.customers, written.resumed) == (25, 25, 0)
    assert seen == [(5, 25), (10, 25), (15, 25), (20, 25), (25, 25)]
    table = pq.read_table(out)
    assert table["one_id"].to_pylist() == [f"c{number}" for number in range(25)]
    assert os.getpid() not in table["process"].to_pylist()
    assert len(set(table["process"].to_pylist())) == 2
    assert [file.name for file in tmp_path.iterdir()] == [out.name], "nothing is left"


def many_lists(champions):
    options = {"exploration": {"share": 0.2, "pool": 20, "seed": 4}, "diversity": {"max_per": {"category": 3}}}
    return batch.score_recommend(champions, scene="discover", options=parse_list_options(options))


@pytest.mark.parametrize("prepare", [many_lists, score_churn, score_predictions])
def test_the_file_is_the_same_with_any_number_of_processes(champions, tmp_path, prepare):
    files = [tmp_path / f"{number}.parquet" for number in (1, 2)]
    for number, file in enumerate(files, 1):
        write_blocks(replace(prepare(champions), size=97), file, workers=number)
    one, two = (pq.read_table(file) for file in files)
    assert one.num_rows >= champions.customers.table.num_rows
    assert two.equals(one)


def test_a_failed_block_gives_its_error_and_the_finished_blocks_are_kept(tmp_path):
    out = tmp_path / "scores.parquet"
    with pytest.raises(DataError, match="cannot be scored") as raised:
        write_blocks(scores("fails", 24), out, workers=2)
    assert raised.value.hint == "repair it"
    assert not out.exists()
    assert write_blocks(scores(), out, workers=2).resumed >= 15
    assert pq.read_table(out)["one_id"].to_pylist() == [f"c{number}" for number in range(25)]


def test_a_killed_process_is_an_error_that_says_how_to_continue(tmp_path):
    with pytest.raises(WorkspaceError, match="SIGKILL") as raised:
        write_blocks(scores("dies", 12), tmp_path / "scores.parquet", workers=2)
    assert raised.value.where == "customers 10 to 15"
    assert "fewer --workers" in str(raised.value)


def test_an_error_that_cannot_be_pickled_keeps_its_text():
    class Local(Exception):
        pass

    found = workers._portable(Local("no memory left"))
    assert isinstance(found, RuntimeError)
    assert "no memory left" in str(found)


def processes_of(group: int) -> bool:
    """Whether the process group still has a process."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def run_with_workers(folder: Path, how: str) -> subprocess.Popen[str]:
    """A run with two processes, in a process group of its own, of which one does `how` within its block."""
    script = f"""
import sys
if __name__ == "__main__":  # the processes import this file too
    sys.path[:0] = [{str(ROOT)!r}]
    from pathlib import Path
    from serving.scoring.blocks import BlockScores, write_blocks
    from tests.serving.block_that_fails import SCHEMA, Block
    scores = BlockScores(SCHEMA, 25, Block({how!r}, 12), {{"model": "1"}}, 5)
    write_blocks(scores, Path({str(folder / "scores.parquet")!r}), workers=2)
"""
    file = folder / "script.py"
    file.write_text(script)
    return subprocess.Popen(
        [sys.executable, str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def waiting_run(folder: Path) -> subprocess.Popen[str]:
    """A run with two processes of which one waits within its block."""
    running = run_with_workers(folder, "waits")
    assert running.stdout is not None
    assert running.stdout.readline() == "waiting\n"
    assert len(list(folder.glob(".*.blocks/workers-*/*"))) == 1, "the processes share a file"
    return running


def wait_for_end(group: int) -> None:
    """Wait for the end of a process group; the resource tracker of multiprocessing ends after the main process."""
    deadline = time.monotonic() + 30
    while processes_of(group):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_ctrl_c_ends_all_processes_at_once(tmp_path):
    running = waiting_run(tmp_path)
    os.killpg(running.pid, signal.SIGINT)  # as the terminal does: every process of the group receives it
    interrupted = time.perf_counter()
    _, error = running.communicate(timeout=60)
    assert time.perf_counter() - interrupted < 5
    assert error.count("Traceback") == 1, "only the main process is interrupted"
    wait_for_end(running.pid)
    assert write_blocks(scores(), tmp_path / "scores.parquet").customers == 25


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="Windows has no signal masks")
def test_workers_never_receive_an_interrupt(tmp_path):
    _, error = run_with_workers(tmp_path, "interrupted").communicate(timeout=60)
    assert error == ""
    assert pq.read_table(tmp_path / "scores.parquet").num_rows == 25


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_to_the_main_process_ends_all_and_leaves_blocks_only(tmp_path, number):
    running = waiting_run(tmp_path)
    running.send_signal(number)
    running.communicate(timeout=60)
    assert running.returncode == (-number if number == signal.SIGKILL else 128 + number)
    wait_for_end(running.pid)
    assert list(tmp_path.glob(".*.blocks/workers-*")) == [], "the model and the profiles are removed"
    assert (
        write_blocks(scores(), tmp_path / "scores.parquet").resumed >= 5
    )  # the process that waits had finished another block


def test_a_run_leaves_the_blocks_of_a_running_one_alone_and_removes_those_of_a_killed_one(tmp_path):
    running, out = waiting_run(tmp_path), tmp_path / "scores.parquet"
    try:
        with pytest.raises(WorkspaceError, match="another process is writing these scores"):
            write_blocks(scores(), out)
        write_blocks(replace(scores(), depends_on={"model": "2"}), out)
        assert len(list(tmp_path.glob(".*.blocks/workers-*/*"))) == 1
    finally:
        os.killpg(running.pid, signal.SIGKILL)  # no process is left that could remove anything
        running.communicate(timeout=60)
    assert len(list(tmp_path.glob(".*.blocks/workers-*/*"))) == 1
    seen = []

    def progress(done, of):
        seen.append(list(tmp_path.glob(".*.blocks/workers-*")))

    write_blocks(replace(scores(), depends_on={"model": "2"}), out, progress)
    assert not any(seen), "removed before the first block"
    assert {file.name for file in tmp_path.iterdir()} == {out.name, "script.py"}


def test_handlers_of_the_program_stay():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
    try:
        with workers._signals_raise():
            os.kill(os.getpid(), signal.SIGHUP)
            with pytest.raises(SystemExit) as raised:
                signal.raise_signal(signal.SIGTERM)
        assert raised.value.code == 128 + signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_shared_arrays_are_mapped_and_may_be_changed(tmp_path):
    value = {"numbers": np.arange(1_000.0), "table": pa.table({"a": ["x", None]}), "text": "y"}
    workers._dump(value, tmp_path / "shared")
    one, two = (workers._load(tmp_path / "shared") for _ in range(2))
    np.testing.assert_array_equal(one["numbers"], value["numbers"])
    assert one["table"].equals(value["table"])
    one["numbers"][0] = 5
    assert two["numbers"][0] == 0


def test_blocks_refer_to_one_model_and_few_tags(champions):
    kept = blocks.only_needed(champions, [champions.require("lifecycle")], ["lifecycle_stage"])
    assert list(kept.models) == ["lifecycle"]
    assert list(kept.customers.tags) == ["lifecycle_stage"]
