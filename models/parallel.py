"""Who may use how many cores: the cores of a thread, and pieces of work beside each other."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

from threadpoolctl import ThreadpoolController, threadpool_limits

T = TypeVar("T")

MAX_PARALLEL = 4  # pieces of work at a time: each holds its own data
_thread_local = threading.local()


def thread_budget() -> int:
    """How many cores the calling thread may use: those of the process, or its share of them within `run_parallel`.

    Examples
    --------
    >>> run_parallel([thread_budget, thread_budget]) == [max(1, thread_budget() // 2)] * 2
    True
    """
    share: int | None = getattr(_thread_local, "thread_budget", None)
    if share is not None:
        return share
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_parallel(work: Sequence[Callable[[], T]]) -> list[T]:
    """The results of pieces of work, in their order; as many at a time as there are cores for, the first ones first.

    Everything that takes its time here leaves the interpreter (NumPy, SciPy, XGBoost, implicit, LightFM), so threads are enough, and what the pieces
    have in common is held once. Measured on two cores: 60 s and 57 s of fits one after the other take 63 s beside each other. One piece of
    work gains less from a second core (a ranker 39 s for 61, iALS 3.7 for 7.3, most others nothing), so a piece gets few and many run.

    Parameters
    ----------
    work : sequence of callable
        None may wait for another that comes after it.

    Raises
    ------
    Exception
        The first piece's that failed, in their order; what had not begun by then is left out.
    """
    at_once = min(MAX_PARALLEL, thread_budget(), len(work))
    if at_once < 2:
        return [piece() for piece in work]
    share = thread_budget() // at_once

    def claim() -> None:
        _thread_local.thread_budget = share

    import scipy.linalg  # noqa: F401  a library that is loaded later would not know the limit

    # BLAS has one number of threads for the whole process, whoever calls it; pieces that set it to one and restore it do not harm each other
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(at_once, initializer=claim) as pool:
        begun = [pool.submit(piece) for piece in work]
        try:
            return [future.result() for future in begun]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@cache
def blas() -> ThreadpoolController:
    """Sets how many threads BLAS takes. It has one number for the whole process: two that set and restore it at a time would mix it up."""
    return ThreadpoolController()  # looks through every loaded library once
