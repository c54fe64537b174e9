"""Output of a command: progress on stderr, results on stdout as tables or as one JSON object."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

PIPE_WIDTH = 160


class Output:
    """The output channels of one command.

    Parameters
    ----------
    as_json : bool
        Print the result as one JSON object, without tables and sentences.
    """

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        # a pipe has no width; this one is wide enough to keep each table row on one line
        self.out = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
        self.err = Console(stderr=True, highlight=False)
        self._progress: Progress | None = None
        self._task: Any = None

    # ---- progress ------------------------------------------------------------------------------------------------

    def step(self, line: str) -> None:
        """Announce the step that starts now: with a spinner on a terminal, otherwise as a plain line on stderr."""
        if self._progress is None:
            self.err.print(line, markup=False, soft_wrap=True)
            return
        self._finish_step()
        self._task = self._progress.add_task(escape(line), total=None)

    def _finish_step(self) -> None:
        if self._progress is not None and self._task is not None:
            task = next(task for task in self._progress.tasks if task.id == self._task)
            self._progress.console.print(f"[green]✓[/] {task.description} [dim]{task.elapsed or 0:.1f} s[/]")
            self._progress.remove_task(self._task)
            self._task = None

    @contextlib.contextmanager
    def working(self, total: int | None = None, what: str = "") -> Iterator[Output]:
        """Show progress on a terminal: a spinner per step, and a bar if `total` stages are known (see `advance`)."""
        if not self.err.is_terminal or self._progress is not None:
            yield self
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
        with Progress(*columns, console=self.err, transient=True) as progress:
            self._progress = progress
            self._bar = progress.add_task(what or "total", total=total) if total else None
            try:
                yield self
                self._finish_step()
            finally:
                self._progress = self._task = self._bar = None

    def advance(self) -> None:
        """Mark one of the `total` stages of `working` as done."""
        if self._progress is not None:
            self._finish_step()
            if self._bar is not None:
                self._progress.advance(self._bar)

    _bar: Any = None

    # ---- results -------------------------------------------------------------------------------------------------

    def result(self, value: Any) -> None:
        """Print the result as JSON; only with `--json`."""
        if self.as_json:
            import orjson  # writes NaN as null, because JSON has no NaN

            sys.stdout.write(orjson.dumps(value, default=to_jsonable, option=orjson.OPT_NON_STR_KEYS).decode() + "\n")
            sys.stdout.flush()

    def say(self, line: str = "", markup: bool = False) -> None:
        """Print a sentence; not with `--json`."""
        if not self.as_json:
            self.out.print(line, markup=markup, soft_wrap=True)

    def table(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[str] = ()
    ) -> None:
        """Print a table, the columns `right` right-aligned; not with `--json`."""
        if self.as_json:
            return
        table = Table(title=title or None, title_justify="left", title_style="bold")
        for column in columns:
            numeric = column in right
            table.add_column(column, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
        for row in rows:
            table.add_row(*(escape(format_cell(value)) for value in row))
        self.out.print(table)


def format_cell(value: object) -> str:
    """Format the value of a table cell.

    Examples
    --------
    >>> format_cell(12345), format_cell(0.12345), format_cell(None), format_cell(["a", "b"])
    ('12,345', '0.123', '', 'a, b')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds").removesuffix(" 00:00:00")
    if isinstance(value, list | tuple):
        return ", ".join(format_cell(part) for part in value)
    return str(value)


def to_jsonable(value: Any) -> Any:
    """Convert a value that JSON has no type for.

    Raises
    ------
    TypeError
        The value cannot be converted.
    """
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "as_dict"):
        return value.as_dict()
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
