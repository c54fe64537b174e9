"""`qianmian score classify`: probabilities, bands and reasons for the rows of a snapshot table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import Output
from cli.features import SUFFIXES, check_suffix
from cli.options import JsonOption, WorkspaceOption
from cli.score_table import score_table
from cli.train_table import CLASSIFY, NameOption
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
    from training.classify.run import job_name

    hint = f"qianmian train {CLASSIFY} --data FILE --label COLUMN{f' --name {name}' if name else ''}"
    located = Workspace.locate(workspace).require()
    score_table(Output(as_json), located, job_name(name), data, out, hint, _scores)


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
