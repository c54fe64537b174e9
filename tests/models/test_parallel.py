"""Pieces of work beside each other: their results in order, their share of the cores, their errors."""

from __future__ import annotations

import os
import platform
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from features.interactions import TrainingSet
from models import parallel
from models.parallel import one_blas_thread, run_parallel, thread_budget


@pytest.fixture
def four_cores(monkeypatch):
    monkeypatch.setattr(parallel.os, "sched_getaffinity", lambda _: range(4), raising=False)


def blas_threads():
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.mark.skipif(sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="memory as glibc keeps it")
def test_freed_memory_returns_to_the_system_when_the_process_holds_much(monkeypatch):
    def resident_mb() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    arrays = [np.ones(8_000) for _ in range(3_000)]  # 192 MB in blocks that glibc keeps
    last = arrays.pop()
    del arrays
    before = resident_mb()
    monkeypatch.setattr(parallel, "KEPT_BYTES", 1 << 50)
    parallel.return_freed_memory()
    assert before - resident_mb() < 100, "the next fit uses it"
    monkeypatch.setattr(parallel, "KEPT_BYTES", 0)
    parallel.return_freed_memory()
    assert len(last) == 8_000
    assert before - resident_mb() > 100


def test_results_come_in_the_order_of_the_work(four_cores):
    def late(value):
        time.sleep(0.02 * (3 - value))
        return value

    assert run_parallel([partial(late, value) for value in range(4)]) == [0, 1, 2, 3]
    assert run_parallel([]) == []


def test_they_run_at_the_same_time(four_cores):
    meeting = threading.Barrier(2, timeout=20)
    run_parallel([meeting.wait, meeting.wait])


def test_the_cores_are_shared_and_given_back(four_cores):
    before = blas_threads()
    assert run_parallel([thread_budget, thread_budget]) == [2, 2]
    assert run_parallel([thread_budget] * 9) == [1] * 9
    assert run_parallel([lambda: thread_budget()]) == [4], "one piece alone has them all"
    assert run_parallel([partial(run_parallel, [thread_budget, thread_budget])] * 2) == [[1, 1]] * 2
    assert all(found == {1} for found in run_parallel([blas_threads] * 2))
    assert (thread_budget(), blas_threads()) == (4, before)


def test_a_limit_holds_for_all_threads_of_the_process(monkeypatch):
    monkeypatch.setattr(parallel, "_limit", 0)  # and is put back afterwards
    with threadpool_limits(None):
        parallel.limit_threads(1)
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(parallel.thread_budget).result() == parallel.thread_budget() == 1


def test_an_interrupt_does_not_wait_for_the_work_that_runs(four_cores):
    release, before = threading.Event(), blas_threads()
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    started = time.perf_counter()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_parallel([partial(release.wait, 30)] * 3)
        assert time.perf_counter() - started < 10
        assert blas_threads() == before
    finally:
        release.set()


def test_the_first_error_is_raised_and_the_cores_are_given_back(four_cores):
    before, begun = blas_threads(), []

    def failing(name, seconds):
        begun.append(name)
        time.sleep(seconds)
        raise ValueError(name)

    with pytest.raises(ValueError, match="first"):
        run_parallel(
            [
                partial(failing, "first", 0.1),
                partial(failing, "second", 0.0),
                *(partial(failing, "late", 0.2) for _ in range(30)),
            ]
        )
    assert len(begun) < 30, "what had not begun is left out"
    assert (thread_budget(), blas_threads()) == (4, before)


def test_two_that_ask_for_the_same_get_one(four_cores):
    data, made = TrainingSet.from_arrays(np.array([0]), np.array([0]), n_users=1, n_items=1), []

    def work():
        time.sleep(0.05)
        made.append(1)
        return object()

    first, second, third = run_parallel([partial(data.memoize, "key", work)] * 3)
    assert first is second is third
    assert made == [1]


def test_what_failed_is_tried_again():
    data = TrainingSet.from_arrays(np.array([0]), np.array([0]), n_users=1, n_items=1)
    with pytest.raises(ZeroDivisionError):
        data.memoize("key", lambda: 1 // 0)
    assert data.memoize("key", lambda: None) is None
    assert data.memoize("key", lambda: 5) is None


def test_blas_has_its_threads_back_when_the_last_task_has_left():
    """The first of two tasks to enter leaves first; BLAS stays at one thread until the other has left too."""
    before = blas_threads()
    inside, leave = threading.Event(), threading.Event()

    def second():
        with one_blas_thread():
            inside.set()
            leave.wait(10)

    other = threading.Thread(target=second)
    with one_blas_thread():
        other.start()
        assert inside.wait(10)
    assert blas_threads() == {1}
    leave.set()
    other.join()
    assert blas_threads() == before
