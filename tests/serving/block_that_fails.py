"""A block for the tests of worker processes, in a module that imports little, because each process imports it."""

from __future__ import annotations

import os
import signal
import sys
import time

import pyarrow as pa

from qianmian.errors import DataError

SCHEMA = pa.schema(
    [("one_id", pa.string()), ("process", pa.int64()), ("as_of", pa.timestamp("us")), ("model_version", pa.string())]
)


class Block:
    """A row per customer that names the process; fails, dies, waits or is interrupted at one customer."""

    def __init__(self, how: str = "", at: int = -1) -> None:
        self.how, self.at = how, at

    def __call__(self, start: int, stop: int) -> pa.Table:
        if start <= self.at < stop:
            if self.how == "fails":
                raise DataError("the block cannot be scored", got=start, hint="repair it")
            if self.how == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "interrupted":
                os.kill(os.getpid(), signal.SIGINT)
            if self.how == "waits":
                sys.stdout.write("waiting\n")
                sys.stdout.flush()
                time.sleep(600)
        n = stop - start
        columns = [[f"c{number}" for number in range(start, stop)], [os.getpid()] * n]
        return pa.table([*columns, pa.nulls(n, pa.timestamp("us")), ["1"] * n], schema=SCHEMA)
