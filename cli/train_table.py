"""`qianmian train classify`: the options of a snapshot table, and the training of its classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import Output
from cli.times import utc_now
from qianmian.errors import UsageError
from qianmian.workspace import Workspace

if TYPE_CHECKING:
    from training import JobResult

CLASSIFY = "classify"
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="FILE",
        help="classify, uplift: CSV or Parquet file with one row a customer.",
        show_default=False,
    ),
]
LabelOption = Annotated[
    str | None,
    typer.Option("--label", metavar="COLUMN", help="classify: the column to predict, a yes or no.", show_default=False),
]
IdOption = Annotated[
    str | None,
    typer.Option(
        "--id",
        metavar="COLUMN",
        help="classify, uplift: the column that names the customers; not learnt.",
        show_default=False,
    ),
]
PositiveOption = Annotated[
    str | None,
    typer.Option(
        "--positive",
        metavar="VALUE",
        help="classify: the value of the label whose probability is predicted. Default: the one that means yes.",
        show_default=False,
    ),
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="COLUMN",
        help="classify, uplift: a column not to learn from, such as one that is filled after the label is known or the "
        "contact is made; repeatable.",
        show_default=False,
    ),
]
NameOption = Annotated[
    str | None,
    typer.Option(
        "--name",
        metavar="NAME",
        help="classify, uplift: register the model as qianmian-classify-NAME or qianmian-uplift-NAME.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class TableOptions:
    """The options of `train classify`."""

    data: Path | None
    label: str | None
    id_column: str | None
    positive: str | None
    exclude: list[str] | None
    name: str | None

    def check(self, job: str, of_other_jobs: Mapping[str, object]) -> None:
        """Check that the options fit the job.

        Parameters
        ----------
        job : str
        of_other_jobs : mapping of str to object
            The options that a table has no use for, and their values.

        Raises
        ------
        UsageError
            An option of `classify` with another job or the reverse, or a required one is missing.
        """
        if job == CLASSIFY:
            if needless := [option for option, value in of_other_jobs.items() if value]:
                raise UsageError(f"{needless[0]} is no option of classify", hint=f"omit {needless[0]}")
            if self.data is None or self.label is None:
                raise UsageError(
                    "classify needs a table and its label",
                    got=f"no {'--data' if self.data is None else '--label'}",
                    hint="qianmian train classify --data FILE --label COLUMN",
                )
            return
        given = [one.name for one in fields(self) if getattr(self, one.name)]
        if given:
            option = f"--{given[0].removesuffix('_column')}"
            jobs = "classify" if given[0] in ("label", "positive") else "classify and of uplift --data"
            raise UsageError(f"{option} is an option of {jobs}", got=job, hint=f"omit {option}")


def train_table(
    output: Output, workspace: Path | None, options: TableOptions, promote: bool | None
) -> tuple[JobResult, dict[str, Any]]:
    """Train the classifier of a table; its workspace is made if it is missing.

    Returns
    -------
    JobResult
    dict
        Further fields of the JSON.
    """
    from qianmian.config import load_settings
    from training.classify.run import SnapshotTask, train_classify

    assert options.data is not None
    assert options.label is not None
    located = Workspace.locate(workspace)
    task = SnapshotTask(
        options.data, options.label, options.id_column, options.positive, options.name, tuple(options.exclude or ())
    )
    with output.working():
        result = train_classify(
            located,
            task,
            settings=load_settings(located.config_file),
            clock=utc_now,
            progress=output.step,
            promote=promote,
        )
    return result, {"workspace": located.root, "data": options.data, "results": [result.as_dict()]}
