"""Worker processes that compute and write blocks of scores.

Each process is started anew ("spawn"): a fork would copy the locks of the threads of DuckDB, Arrow and OpenMP without
the threads that release them. What the blocks need (models, profiles) is written once to a file beside them. Every
process maps the arrays of this file, so that their pages are in memory once for all of them until one is changed.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import pickle
import shutil
import signal
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from models.parallel import limit_threads, thread_budget
from qianmian.errors import WorkspaceError
from qianmian.workspace import atomic_path

SHARED_PREFIX = "workers-"  # of the folder of what the processes share
ALIGNMENT = 64  # bytes; arrays begin at multiples of it, as NumPy and Arrow expect
Block = Callable[[int, int], pa.Table]


@dataclass(frozen=True)
class BlockTask:
    """A block that is still to be computed: its first customer, the one after its last, and its file."""

    start: int
    stop: int
    file: Path


def write_block(block: Block, task: BlockTask) -> None:
    """Compute a block and write it to its file, which appears when it is complete."""
    with atomic_path(task.file) as temporary:
        pq.write_table(block(task.start, task.stop), temporary, compression="zstd")


def write_in_workers(block: Block, tasks: Sequence[BlockTask], workers: int) -> Iterator[BlockTask]:
    """Compute and write blocks in worker processes.

    Parameters
    ----------
    block : callable
        Computes the scores of the customers from one number up to another. It must be possible to pickle it.
    tasks : sequence of BlockTask
        At least one; their files are in one folder.
    workers : int
        Number of processes, at least 1; not more are started than there are tasks.

    Yields
    ------
    BlockTask
        A task whose file is complete, in the order in which they end.

    Raises
    ------
    WorkspaceError
        If a process ends without an answer.
    Exception
        The exception of the first block that failed, with the traceback of the worker as a note.

    Notes
    -----
    If the generator ends for whatever reason, Ctrl-C, SIGTERM and SIGHUP included, the processes are terminated at once
    and what they shared is removed. If this process is killed, they see to both themselves.
    """
    context = multiprocessing.get_context("spawn")
    workers = min(workers, len(tasks))
    threads = max(1, thread_budget() // workers)
    left = iter(tasks)
    running: dict[Connection, _Worker] = {}
    with _signals_raise(), tempfile.TemporaryDirectory(dir=tasks[0].file.parent, prefix=SHARED_PREFIX) as folder:
        shared = Path(folder) / "block"
        _dump(block, shared)
        try:
            with _interrupts_held_back():  # the mask is inherited: Ctrl-C reaches this process only, which ends them
                for _ in range(workers):
                    ours, theirs = context.Pipe()
                    process = context.Process(target=_serve, args=(theirs, shared, threads), daemon=True)
                    process.start()
                    theirs.close()
                    running[ours] = _Worker(process)
            for connection, worker in running.items():
                worker.give(connection, next(left, None))
            while busy := [connection for connection, worker in running.items() if worker.task is not None]:
                for ready in wait(busy):
                    connection = cast(Connection, ready)
                    worker = running[connection]
                    done = worker.take(connection)
                    worker.give(connection, next(left, None))
                    yield done
        finally:
            for worker in running.values():
                worker.process.terminate()
            for worker in running.values():
                worker.process.join()


@dataclass
class _Worker:
    """A process and the task that it works on, None if it has none."""

    process: BaseProcess
    task: BlockTask | None = field(default=None)

    def give(self, connection: Connection, task: BlockTask | None) -> None:
        """Give the process a task; without one it stays idle until it is terminated."""
        self.task = task
        try:
            if task is not None:
                connection.send(task)
        except OSError:
            pass  # the process has ended; `take` says so

    def take(self, connection: Connection) -> BlockTask:
        """Receive the answer to the task.

        Raises
        ------
        WorkspaceError
            If the process has ended.
        Exception
            If the block failed.
        """
        assert self.task is not None
        try:
            error = connection.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            killed = code is not None and code < 0
            raise WorkspaceError(
                "a process that scored customers ended before it was done",
                where=f"customers {self.task.start:,} to {self.task.stop:,}",
                got=f"signal {signal.Signals(-code).name}" if killed and code is not None else f"exit code {code}",
                hint="each process needs memory for its block and for what it changes of the model; use fewer "
                "--workers, and give the same command again to continue after the finished blocks",
            ) from None
        if error is not None:
            raise error
        return self.task


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Let Ctrl-C wait until the end of the context; processes that are started within never receive it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        resource_tracker.ensure_running()  # starting it lifts the mask; else the first process that is spawned does so
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise SystemExit within the context, so that it can be left in order.

    Outside the main thread, which alone may set handlers, and where the program has a handler of its own or ignores the
    signal (`nohup`), nothing changes.
    """
    names = ("SIGTERM", "SIGHUP") if threading.current_thread() is threading.main_thread() else ()
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]  # Windows has no SIGHUP
    numbers = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]

    def end(number: int, _frame: object) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)  # a second signal would interrupt the end
        raise SystemExit(128 + number)

    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _end_with_parent(folder: Path) -> None:
    """Wait until the main process has ended without terminating this one; then remove what it shared, and end."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    shutil.rmtree(folder, ignore_errors=True)  # the other processes do the same
    os._exit(1)


def _serve(connection: Connection, shared: Path, threads: int) -> None:
    """Body of a worker process: compute and write blocks until the process is terminated, or the main process ends."""
    threading.Thread(target=_end_with_parent, args=(shared.parent,), daemon=True).start()
    warnings.simplefilter("ignore")  # the main process says what there is to say
    try:
        block = _load(shared)
        limit_threads(threads)  # after loading, because the limit applies only to libraries that are loaded
        task: BlockTask
        while True:
            task = connection.recv()
            write_block(block, task)
            connection.send(None)
    except (EOFError, BrokenPipeError):
        return
    except Exception as error:  # noqa: BLE001 every error is raised in the main process
        connection.send(_portable(error))


def _portable(error: Exception) -> Exception:
    """The error with its traceback as a note, or one with its text if it cannot be pickled."""
    error.add_note(traceback.format_exc())
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 an exception may fail to pickle in any way
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _dump(value: Any, path: Path) -> None:
    """Pickle a value; its arrays follow one another in the file, so that `_load` maps them instead of reading them."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    index = pickle.dumps((len(head), [view.nbytes for view in views]))
    with path.open("wb") as file:
        file.write(len(index).to_bytes(8, "little"))
        file.write(index)
        file.write(head)
        for view in views:
            file.write(b"\0" * (-file.tell() % ALIGNMENT))
            file.write(view)


def _load(path: Path) -> Any:
    """The inverse of `_dump`. The arrays may be changed; the file does not change with them."""
    with path.open("rb") as file:
        mapped = memoryview(mmap.mmap(file.fileno(), os.path.getsize(path), access=mmap.ACCESS_COPY))
    at = 8 + int.from_bytes(mapped[:8], "little")
    head_size, sizes = pickle.loads(mapped[8:at])
    head, at = mapped[at : at + head_size], at + head_size
    buffers = []
    for size in sizes:
        at += -at % ALIGNMENT
        buffers.append(mapped[at : at + size])
        at += size
    return pickle.loads(head, buffers=buffers)
