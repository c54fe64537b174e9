"""Scores of the rows of a table by a registered model of tables, for `score classify` and `score uplift`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.console import Output
from cli.features import write_table
from qianmian.errors import DataError
from qianmian.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from models.bundle import ModelBundle

Scores = Callable[["ModelBundle", "pa.Table"], dict[str, Any]]


def score_table(
    output: Output, located: Workspace, job: str, data: Path, out: Path, train_hint: str, of: Scores
) -> None:
    """Write what a model says of each row of a table, with the id of the customer where the table has it.

    Parameters
    ----------
    output : Output
    located : Workspace
        With the model registry.
    job : str
        Name of the registered model, without its prefix.
    data, out : Path
        The table, and the file that is written.
    train_hint : str
        The command that trains the model.
    of : callable
        Bundle and table → columns.

    Raises
    ------
    DataError
        No such model is registered, or the table lacks columns that it reads.
    """
    import pyarrow as pa

    from features.data.locking import workspace_lock
    from features.snapshot_table import read_snapshot_table
    from models.bundle import ModelBundle
    from serving.model_registry import bundle_folder, version_of

    begun = time.perf_counter()
    version = version_of(located, job)
    if version is None:
        raise DataError(
            f"no model is registered as qianmian-{job}", where=str(located.root), hint=f"run `{train_hint}`"
        )
    with output.working(), workspace_lock(located):
        with bundle_folder(located, job, version) as folder:
            bundle = ModelBundle.load(folder)
        output.step(f"scoring {data}")
        table = read_snapshot_table(data)
        columns: dict[str, Any] = {}
        id_column = str(bundle.facts["id_column"])
        if id_column in table.column_names:
            columns["user_id"] = table[id_column]  # the name that an erasure knows
        scored = pa.table({**columns, **of(bundle, table), "model_version": [version] * table.num_rows})
        write_table(located, scored, out)
    seconds = round(time.perf_counter() - begun, 3)
    output.result(
        {
            "workspace": located.root,
            "out": out,
            "rows": scored.num_rows,
            "columns": scored.column_names,
            "model": job,
            "model_version": version,
            "seconds": seconds,
        }
    )
    output.say(f"{out}: {scored.num_rows:,} rows, {job} version {version}, {seconds:.1f} s")
