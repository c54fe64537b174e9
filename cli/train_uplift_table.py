"""`qianmian train uplift --data`: the options of the table of a randomised test, and the training of its model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import Output
from cli.times import utc_now
from qianmian.errors import UsageError
from qianmian.workspace import Workspace

if TYPE_CHECKING:
    from training import JobResult

UPLIFT = "uplift"
TreatmentOption = Annotated[
    str | None,
    typer.Option(
        "--treatment",
        metavar="COLUMN",
        help="uplift --data: the column that says who was contacted, as drawn at random.",
        show_default=False,
    ),
]
ControlOption = Annotated[
    str | None,
    typer.Option(
        "--control",
        metavar="VALUE",
        help="uplift --data: the value of the treatment that means no contact. Default: the one of two that means no.",
        show_default=False,
    ),
]
OutcomeOption = Annotated[
    str | None,
    typer.Option(
        "--outcome",
        metavar="OUTCOME",
        help="uplift: what the contact is to change: order, orders, amount, item=ID, category=NAME, brand=NAME or "
        "event=TYPE (default: uplift.outcome of the settings); with --data, the column of a yes or no or an amount.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class UpliftTableOptions:
    """The options of `train uplift --data`."""

    data: Path | None
    treatment: str | None
    outcome: str | None
    control: str | None
    id_column: str | None
    exclude: list[str] | None
    name: str | None

    def is_wanted(self, job: str) -> bool:
        """Whether the job is that of a table.

        Raises
        ------
        UsageError
            An option of a randomised test is given without a table, or with another job.
        """
        own = {"--treatment": self.treatment, "--control": self.control}
        given = [option for option, value in own.items() if value]
        if job == UPLIFT and self.data is not None:
            return True
        if given:
            raise UsageError(
                f"{given[0]} is an option of uplift with the table of a randomised test",
                got=job if job != UPLIFT else "no --data",
                hint=f"omit {given[0]}, or: qianmian train uplift --data FILE --treatment COLUMN --outcome COLUMN",
            )
        return False

    def check(self, needless: Mapping[str, object]) -> None:
        """Check that the columns are named and nothing is given that a table has no use for.

        Parameters
        ----------
        needless : mapping of str to object
            The other options of `train`, and their values.

        Raises
        ------
        UsageError
        """
        if given := [option for option, value in needless.items() if value]:
            raise UsageError(f"{given[0]} is no option of uplift --data", hint=f"omit {given[0]}")
        required = {"--treatment": self.treatment, "--outcome": self.outcome}
        if missing := [option for option, value in required.items() if value is None]:
            raise UsageError(
                "uplift --data needs the columns of the treatment and of the outcome",
                got=f"no {missing[0]}",
                hint="qianmian train uplift --data FILE --treatment COLUMN --outcome COLUMN",
            )


def train_uplift_of_table(
    output: Output, workspace: Path | None, options: UpliftTableOptions, promote: bool | None
) -> tuple[JobResult, dict[str, Any]]:
    """Train the uplift model of a table; its workspace is made if it is missing.

    Returns
    -------
    JobResult
    dict
        Further fields of the JSON.
    """
    from qianmian.config import load_settings
    from training.uplift.table import UpliftTask, train_uplift_table

    assert options.data is not None
    assert options.treatment is not None
    assert options.outcome is not None
    located = Workspace.locate(workspace)
    task = UpliftTask(
        options.data,
        options.treatment,
        options.outcome,
        options.control,
        options.id_column,
        options.name,
        tuple(options.exclude or ()),
    )
    with output.working():
        result = train_uplift_table(
            located,
            task,
            settings=load_settings(located.config_file),
            clock=utc_now,
            progress=output.step,
            promote=promote,
        )
    return result, {"workspace": located.root, "data": options.data, "results": [result.as_dict()]}
