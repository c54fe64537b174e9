"""Files that Spark reads and writes: paths as URIs, and data frames written atomically by the executors."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qianmian.errors import WorkspaceError
from qianmian.workspace import atomic_path, explain_os_errors

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

CSV_OPTIONS: dict[str, str | bool] = {"header": True, "quoteAll": True, "escape": '"', "emptyValue": ""}


def write_frame(frame: DataFrame, out: Path, order: Sequence[str], counts: Mapping[str, Column]) -> dict[str, int]:
    """Write a data frame atomically on the executors; nothing is written if it has no row.

    Parameters
    ----------
    frame : DataFrame
    out : Path
        ``NAME.parquet`` or ``NAME.csv`` for one sorted file, which one task gathers and writes. A name without suffix
        for a folder of Parquet part files, each sorted and written by the task that computed it. On a cluster the path
        must be on storage that all machines share.
    order : sequence of str
        Columns to sort by.
    counts : mapping of str to Column
        Aggregates of the rows, computed while they are written.

    Returns
    -------
    dict of str to int
        Value of each of the `counts`.

    Raises
    ------
    WorkspaceError
        If `out` is not on shared storage.
    """
    from pyspark.sql import Observation

    observed = Observation()
    frame = frame.observe(observed, *(column.alias(name) for name, column in counts.items()))
    if out.suffix:
        frame = frame.repartition(1)
    frame = frame.sortWithinPartitions(*order)
    ending = out.suffix or ".parquet"
    parts = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.parts")
    try:
        with explain_os_errors(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            if ending == ".csv":
                frame.write.options(**CSV_OPTIONS).csv(file_uri(parts))
            else:
                frame.write.option("compression", "zstd").parquet(file_uri(parts))
        found = {name: int(observed.get[name] or 0) for name in counts}
        if not any(found.values()):
            return found
        written = sorted(parts.glob(f"part-*{ending}"))
        if not written:
            raise WorkspaceError(
                "the Spark cluster wrote to a folder that is not visible on this machine",
                where=str(out),
                hint="name an --out on storage that all machines of the cluster share",
            )
        with atomic_path(out) as temporary:
            (written[0] if out.suffix else parts).replace(temporary)
    finally:
        shutil.rmtree(parts, ignore_errors=True)
    return found


def file_uri(path: Path, pattern: bool = False) -> str:
    """The `file://` URI of a path, so that Spark does not use its default file system.

    Wildcard characters are escaped if `pattern` is true, for calls in which Spark reads the URI as a pattern.
    """
    text = path.absolute().as_posix()
    if pattern:
        text = "".join(f"\\{letter}" if letter in "*?[]{}\\" else letter for letter in text)
    return f"file://{text}"
