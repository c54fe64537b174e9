"""Thread budgets, parallel execution of tasks in threads that share the budget, and the return of their memory."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController, threadpool_limits

T = TypeVar("T")

KEPT_BYTES = 3 << 30  # resident memory up to which freed memory is kept for the next use
MAX_PARALLEL = 4  # tasks at a time, because each holds its own data in memory
_thread_local = threading.local()
_limit = 0  # of the threads of this process; 0 for one on each core


def thread_budget() -> int:
    """Return how many cores the calling thread may use: its share within `run_parallel`, else all of the process.

    `limit_threads` limits those of the process.

    Examples
    --------
    >>> run_parallel([thread_budget, thread_budget]) == [max(1, thread_budget() // 2)] * 2
    True
    """
    share: int | None = getattr(_thread_local, "thread_budget", None)
    if share is not None:
        return share
    return _limit or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def limit_threads(threads: int) -> None:
    """Limit this process, and the numerical libraries that are loaded, to this many threads from now on."""
    global _limit
    _limit = threads
    threadpool_limits(threads)


def run_parallel(work: Sequence[Callable[[], T]]) -> list[T]:
    """Run tasks in threads and return their results in order; tasks start in order, as cores become free.

    The long computations release the interpreter lock (NumPy, SciPy, XGBoost, implicit, LightFM), so threads suffice,
    and data shared by the tasks are held once. Measured on two cores: fits of 60 s and 57 s together take 63 s. A
    single task gains less from a second core (a ranker takes 39 s instead of 61 s, iALS 3.7 s instead of 7.3 s, most
    others gain nothing), so many tasks run at a time with few cores each.

    Parameters
    ----------
    work : sequence of callable
        The tasks. A task must not wait for a later one.

    Raises
    ------
    Exception
        The exception of the first task, in order, that failed; tasks that have not started by then are cancelled.
    KeyboardInterrupt
        At once, without waiting for the tasks that run.
    """
    at_once = min(MAX_PARALLEL, thread_budget(), len(work))
    if at_once < 2:
        return [piece() for piece in work]
    share = thread_budget() // at_once

    def claim() -> None:
        _thread_local.thread_budget = share

    with one_blas_thread():
        pool = ThreadPoolExecutor(at_once, initializer=claim)
        begun = [pool.submit(piece) for piece in work]
        try:
            results = [future.result() for future in begun]
        except KeyboardInterrupt:
            # a fit cannot be stopped; the process ends without it (`cli.main.main`)
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        pool.shutdown()
        return results


def return_freed_memory(*, always: bool = False) -> None:
    """Give memory that this process has freed back to the operating system.

    glibc keeps freed blocks of up to 32 MB for each thread, and Arrow keeps some as well. Measured on 12 million
    interactions: 0.2 to 0.7 GB after each fit of a model, which the fits of other threads cannot use. While the process
    holds less than `KEPT_BYTES`, or a quarter of the machine's memory, nothing is returned, because the next fit would
    get the same pages from the system again: on 1.3 million interactions, returning them took 7 of 186 CPU seconds of
    `train recommend` and changed its peak by 1 %.

    Parameters
    ----------
    always : bool
        Return it also while the process holds little.
    """
    if not always and _holds_little():
        return
    import pyarrow as pa  # which a server does not need

    pa.default_memory_pool().release_unused()
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:  # glibc only
        trim(0)


def _holds_little() -> bool:
    """Whether this process holds little memory (`return_freed_memory`); False where the system does not say."""
    try:
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
    except OSError:  # not Linux, or /proc is hidden
        return False
    return pages < min(KEPT_BYTES // os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES") // 4)


_blas_lock = threading.Lock()
_blas_limits: list[Any] = []  # one for each caller inside `one_blas_thread`; the first one restores


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread per task.

    Its threads wait for work in a loop that uses their core. BLAS has one thread count per process, so the count before
    returns when the last of several callers, also in other threads, has left.
    """
    with _blas_lock:
        _blas_limits.append(blas().limit(limits=1, user_api="blas"))
    try:
        yield
    finally:
        with _blas_lock:
            first, *others = _blas_limits
            if others:
                _blas_limits.pop()  # what the first one found is restored at the end
            else:
                _blas_limits.clear()
                first.restore_original_limits()


@cache
def blas() -> ThreadpoolController:
    """Return the controller of the BLAS thread count.

    The count applies to the whole process, so threads must not set and restore it concurrently (`one_blas_thread`).
    """
    import scipy.linalg  # noqa: F401  the controller knows only libraries that are already loaded

    return ThreadpoolController()  # it takes 3 ms to inspect every loaded library, so it is created once
