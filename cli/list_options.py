"""Options of `qianmian score` that make a list for people of a file for machines."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import Lang
from cli.scoring import write_scores
from cli.times import utc_now
from qianmian.errors import UsageError

if TYPE_CHECKING:
    from datetime import datetime

    from cli.console import Output
    from features.profiles.snapshot import Snapshot
    from qianmian.settings import Settings
    from qianmian.workspace import Workspace
    from serving.scoring.blocks import BlockScores, WrittenScores
    from serving.scoring.lists.columns import TagWords
    from serving.scoring.lists.files import PeopleList
    from serving.scoring.lists.words import Lang as Language

HELP_PANEL = "A list for people"


class Sort(StrEnum):
    """What a churn list is sorted by."""

    VALUE_AT_RISK = "value_at_risk"
    RISK = "risk"


ListLangOption = Annotated[
    Lang | None,
    typer.Option(
        "--lang",
        help="Write a list for people: headings, values, dates and reasons in this language.",
        show_default=False,
        rich_help_panel=HELP_PANEL,
    ),
]
ColumnsOption = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="A,B,C",
        help="Columns of the list, in this order; tags are columns too. one_id is always the last.",
        show_default=False,
        rich_help_panel=HELP_PANEL,
    ),
]
TopOption = Annotated[
    int | None,
    typer.Option(
        "--top",
        min=1,
        metavar="N",
        help="Only the first N rows; of a report, customers.",
        show_default=False,
        rich_help_panel=HELP_PANEL,
    ),
]
BomOption = Annotated[
    bool,
    typer.Option(
        "--bom", help="Begin the CSV with a byte order mark, as spreadsheets want it.", rich_help_panel=HELP_PANEL
    ),
]
SortOption = Annotated[
    Sort | None,
    typer.Option(
        "--sort",
        help="What comes first. Default: value_at_risk, where the data have amounts.",
        show_default=False,
        rich_help_panel=HELP_PANEL,
    ),
]
ReportOption = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE.html",
        help="Also write a report for people as one HTML file: who, how sure, why, value at risk, whom not to contact.",
        show_default=False,
        rich_help_panel=HELP_PANEL,
    ),
]


@dataclass(frozen=True)
class PeopleListOptions:
    """What a list is to be like; without any of it, the file is one for machines.

    Attributes
    ----------
    lang : Lang or None
    columns : str or None
        Names separated by commas.
    top : int or None
    bom : bool
    sort : Sort or None
        Of churn only.
    """

    lang: Lang | None = None
    columns: str | None = None
    top: int | None = None
    bom: bool = False
    sort: Sort | None = None

    @property
    def wanted(self) -> bool:
        """Whether any option of a list is given."""
        return self != PeopleListOptions()

    @property
    def language(self) -> Language:
        """The language of the list; English if only other options are given."""
        return "zh" if self.lang is Lang.ZH else "en"

    @property
    def names(self) -> list[str] | None:
        """The columns, None for the default ones."""
        return [name.strip() for name in self.columns.split(",")] if self.columns is not None else None

    def check(self, out: Path | None, engine: str = "duckdb", workers: int = 1, report: Path | None = None) -> None:
        """Check the options before the work starts.

        Raises
        ------
        UsageError
            They do not fit the file or the engine.
        """
        if self.names is not None and not all(self.names):
            raise UsageError("a column has no name", where="--columns", got=self.columns, allowed="a,b,c")
        if self.bom and (out is None or out.suffix != ".csv"):
            raise UsageError(
                "only CSV has a byte order mark",
                where="--bom",
                got=out.name if out is not None else None,
                hint="name a .csv file in --out, or omit --bom",
            )
        if self.columns is not None and out is None:
            raise UsageError("columns are those of a list", where="--columns", hint="name its file in --out")
        if not self.wanted and report is None:
            return
        what = "a list for people" if self.wanted else "a report"
        if engine == "spark":
            raise UsageError(
                f"{what} is written by this machine, from scores of all customers in memory",
                where="--engine",
                got="spark",
                hint="omit --engine spark, or omit --lang, --columns, --top, --bom, --sort and --report",
            )
        if workers > 1 and (self.wanted or out is None):
            raise UsageError(f"{what} is made by one process", where="--workers", got=workers, hint="omit --workers")

    def write(
        self,
        output: Output,
        located: Workspace,
        scores: BlockScores,
        out: Path,
        settings: Settings,
        snapshot: Snapshot | None = None,
        workers: int = 1,
    ) -> WrittenScores:
        """Write scores: for machines, or as a list if one is wanted.

        Parameters
        ----------
        snapshot : Snapshot, optional
            Profiles of the moment of the scores, whose tags may be columns of the list.
        workers : int
            Number of processes, without a list.
        """
        if not self.wanted:
            return write_scores(output, located, scores, out, workers)
        from serving.scoring.blocks import WrittenScores
        from serving.scoring.lists.tables import list_of_table

        table = scores.table()
        people = list_of_table(table, self.language, tag_words(settings), self.names, self.top, snapshot)
        return write_list(located, people, out, self.bom, WrittenScores.of(table).as_of)


def tag_words(settings: Settings) -> TagWords:
    """Each declared tag → its Chinese words."""
    from features.profiles.tags.tagging import declared_tags

    return {tag.name: tag.chinese for tag in declared_tags(settings)}


def write_list(located: Workspace, people: PeopleList, out: Path, bom: bool, as_of: datetime | None) -> WrittenScores:
    """Write a list, and note it in the index of written files."""
    from features.erasure.exports import begin_export, record_export
    from serving.scoring.blocks import WrittenScores
    from serving.scoring.lists import files

    begin_export(located, out, utc_now())
    files.write_list(people, out, bom=bom)
    record_export(located, out, utc_now())
    return WrittenScores(len(people), len(set(people.values["one_id"])), tuple(people.headings), as_of)
