"""`qianmian score classify`: probabilities, bands and reasons for the rows of a snapshot table."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import Output
from cli.features import SUFFIXES, check_suffix, write_table
from cli.options import JsonOption, WorkspaceOption
from cli.train_table import CLASSIFY, NameOption
from qianmian.errors import DataError
from qianmian.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from models.bundle import ModelBundle

N_REASONS = 3


def classify(
    data: Annotated[Path, typer.Option("--data", metavar="FILE", help="CSV or Parquet file with one row a customer.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Output file: .parquet or .csv.")],
    name: NameOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the probability of each row of a table, with a band and reasons, by the model of `train classify`."""
    check_suffix(out, SUFFIXES)
    import pyarrow as pa

    from features.data.locking import workspace_lock
    from features.snapshot_table import read_snapshot_table
    from models.bundle import ModelBundle
    from serving.model_registry import bundle_folder, version_of
    from training.classify.run import job_name

    output, located, begun = Output(as_json), Workspace.locate(workspace).require(), time.perf_counter()
    job = job_name(name)
    version = version_of(located, job)
    if version is None:
        raise DataError(
            f"no model is registered as qianmian-{job}",
            where=str(located.root),
            hint=f"run `qianmian train {CLASSIFY} --data FILE --label COLUMN{f' --name {name}' if name else ''}`",
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
        scored = pa.table({**columns, **_scores(bundle, table), "model_version": [version] * table.num_rows})
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


def _scores(bundle: ModelBundle, table: pa.Table) -> dict[str, Any]:
    """Probability, band and reasons of each row."""
    from models.classify.risk_bands import bands_of_model

    X = bundle.model.encode(table)
    p = bundle.model.predict_proba(X)[:, 1]
    return {
        "probability": p,
        "band": bands_of_model(bundle.facts).of(p),
        "reasons": _reasons(bundle, table, bundle.model.explain(X)),
    }


def _reasons(bundle: ModelBundle, table: pa.Table, contributions: NDArray[np.float32]) -> list[str]:
    """The columns that raise or lower the log-odds most, such as ``Contract Two year (-1.31); tenure 70 (-0.92)``."""
    import numpy as np

    names = [column.name for column in bundle.model.columns]
    texts = [table[name].to_pylist() for name in names]
    order = np.argsort(-np.abs(contributions), axis=1)[:, :N_REASONS]
    return [
        "; ".join(f"{names[j]} {texts[j][row] or 'missing'} ({contributions[row, j]:+.2f})" for j in places)
        for row, places in enumerate(order.tolist())
    ]
