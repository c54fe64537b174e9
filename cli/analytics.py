"""`qianmian analytics`: sessions, funnels and click paths, printed as tables."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import Output
from cli.features import SUFFIXES, check_suffix, write_table
from cli.options import AsOfOption, JsonOption, WorkspaceOption
from cli.times import as_of_or_default, note_empty_days
from qianmian.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from features.compute.builder import Builder
    from features.profiles.analytics import Rate
    from qianmian.settings import Settings

analytics = typer.Typer(
    help="Sessions, funnels and click paths, computed from behaviour events and purchases.", no_args_is_help=True
)

WindowOption = Annotated[
    int | None,
    typer.Option(
        "--window-days",
        metavar="N",
        min=1,
        help="Use only the last N days before --as-of. Default: all data.",
        show_default=False,
    ),
]
ByOption = Annotated[
    str | None, typer.Option("--by", metavar="TAG", help="Group the customers by a tag of their profile.")
]
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Also write the rows to this file: .parquet or .csv.")
]
MAX_GROUPS_SHOWN = 20


@analytics.command("sessions")
def sessions(
    as_of: AsOfOption = None,
    window_days: WindowOption = None,
    by: ByOption = None,
    out: OutOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print number, length and conversion of the sessions. --out writes one row per session."""
    check_suffix(out, SUFFIXES)
    from features.profiles.analytics import sessions as session_rows
    from features.profiles.analytics import summary

    output, builder, settings, moment = _open_lake(workspace, as_of, as_json)
    with output.working():
        views = builder.views(moment)
        tags = _tag_values(output, builder, settings, moment, by)
        output.step(f"computing the sessions before {moment:%Y-%m-%d %H:%M}")
        groups = summary(views, window_days, tags)
        if out is not None:
            output.step(f"writing {out}")
            table = session_rows(views, window_days).order_by(["one_id", "start", "session_id"]).to_pyarrow()
            write_table(builder.lake.workspace, table, out)
    output.result(
        {
            "as_of": moment,
            "window_days": window_days,
            "by": by,
            "groups": [group.as_dict() for group in groups],
            "out": out,
        }
    )
    columns = (
        "sessions",
        "customers",
        "sessions/customer",
        "events/session",
        "median s",
        "p90 s",
        "conversion",
        "bounce",
        "index",
    )
    rows = [
        [
            group.tag or "all customers",
            group.sessions,
            group.customers,
            group.sessions_per_customer,
            group.events_per_session,
            group.duration_seconds_median,
            group.duration_seconds_p90,
            format_percent(group.conversion),
            format_percent(group.bounce),
            format_index(group.index),
        ]
        for group in groups[: MAX_GROUPS_SHOWN + 1]
    ]
    output.table(f"sessions as of {moment}", (by or "", *columns), rows, right=columns)
    _note_truncation(output, len(groups) - 1)
    _print_footnotes(output, out)


@analytics.command("funnel")
def funnel(
    steps: Annotated[
        str | None,
        typer.Option(
            "--steps",
            metavar="A,B,…",
            help="Event types in order; 'buy' is a paid order or purchase event. Default: those of view,cart,buy that "
            "are recorded, or all recorded ones if these are fewer than two.",
            show_default=False,
        ),
    ] = None,
    per: Annotated[
        str,
        typer.Option(
            "--per", metavar="customer|session|item", help="What is counted; item counts pairs of customer and item."
        ),
    ] = "customer",
    within_days: Annotated[
        float | None, typer.Option("--within-days", metavar="N", help="At most N days from the first to the last step.")
    ] = None,
    within_session: Annotated[bool, typer.Option("--within-session", help="All steps are in one session.")] = False,
    as_of: AsOfOption = None,
    window_days: WindowOption = None,
    by: ByOption = None,
    out: OutOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print conversion, time and drop-off from step to step; --by TAG compares groups of customers."""
    check_suffix(out, SUFFIXES)
    from features.profiles.analytics import choose_steps
    from features.profiles.analytics import funnel as compute

    output, builder, settings, moment = _open_lake(workspace, as_of, as_json)
    views = builder.views(moment)
    with output.working():
        if steps is None:
            names = list(choose_steps(views, per, window_days))  # type: ignore[arg-type] # `compute` checks the unit
        else:
            names = [name.strip() for name in steps.split(",") if name.strip()]
        tags = _tag_values(output, builder, settings, moment, by)
        output.step(f"computing the funnel {' → '.join(names)} by {per}")
        found = compute(
            views,
            names,
            window_days=window_days,
            within_days=within_days,
            within_session=within_session,
            per=per,  # type: ignore[arg-type] # the function checks it
            tags=tags,
        )
        if out is not None:
            write_table(builder.lake.workspace, found.as_table(), out)
    options = {"window_days": window_days, "within_days": within_days, "within_session": within_session, "by": by}
    output.result({"as_of": moment, **options, **found.as_dict(), "out": out})
    columns: tuple[str, ...] = (f"{per}s", "of previous step", "of first step", "median hours", "p90 hours")
    rows = [
        [
            s.step,
            s.reached,
            format_percent(s.conversion),
            format_percent(s.overall if s.conversion else None),
            s.hours_median,
            s.hours_p90,
        ]
        for s in found.steps
    ]
    output.table(f"funnel as of {moment}", ("step", *columns), rows, right=columns)
    if found.groups:
        later = [step.step for step in found.steps[1:]]
        columns = (
            "customers",
            found.steps[0].step,
            *(text for step in later for text in (step, f"{step} %", f"drop-off index {step}")),
        )
        grouped: list[list[object]] = []
        for group in found.groups[:MAX_GROUPS_SHOWN]:
            after = zip(group.reached[1:], group.conversion, group.drop_off_index, strict=True)
            parts = [
                part
                for reached, share, index in after
                for part in (reached, format_percent(share), format_index(index))
            ]
            grouped.append([group.tag, group.customers, group.reached[0], *parts])
        output.table(
            f"by {by}; drop-off index: 100 is the average of all customers, a higher value is more drop-off",
            (by or "", *columns),
            grouped,
            right=columns,
        )
        _note_truncation(output, len(found.groups))
    if steps is None:
        output.say(f"steps that the data have: {' → '.join(names)}; --steps selects others")
    if not found.steps[0].reached:
        output.say(
            f"no {per} reached '{found.steps[0].step}': the data may contain no such event; "
            "`qianmian analytics paths` shows the event types, and --steps selects others"
        )
    _print_footnotes(output, out)


@analytics.command("paths")
def paths(
    of: Annotated[
        str, typer.Option("--of", metavar="event_type|category|category_top|page", help="What a state of a path is.")
    ] = "event_type",
    depth: Annotated[int, typer.Option("--depth", min=1, max=50, help="Number of states shown per path.")] = 5,
    top: Annotated[int, typer.Option("--top", min=1, max=1000, help="Number of paths and states shown.")] = 20,
    keep_repeats: Annotated[
        bool, typer.Option("--keep-repeats", help="Do not merge consecutive equal states.")
    ] = False,
    as_of: AsOfOption = None,
    window_days: WindowOption = None,
    out: OutOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the most frequent click paths, the transitions, and where sessions begin and end."""
    check_suffix(out, SUFFIXES)
    from features.profiles.analytics import paths as compute

    output, builder, _, moment = _open_lake(workspace, as_of, as_json)
    with output.working():
        output.step(f"computing the paths of {of}")
        found = compute(
            builder.views(moment), of, depth=depth, top=top, window_days=window_days, keep_repeats=keep_repeats
        )
        if out is not None:
            write_table(builder.lake.workspace, found.as_table(), out)
    output.result({"as_of": moment, "window_days": window_days, **found.as_dict(), "out": out})
    rows = [
        [
            " > ".join(path.path) + (" > …" if path.longer else ""),
            path.sessions,
            format_percent(path.share),
            format_percent(path.conversion),
        ]
        for path in found.paths
    ]
    columns: tuple[str, ...] = ("sessions", "share", "conversion")
    output.table(f"paths of {found.sessions:,} sessions as of {moment}", ("path", *columns), rows, right=columns)
    columns = ("count", "entry share", "exit share")
    ends = [[end.state, end.occurrences, f"{end.entry_share:.1%}", f"{end.exit_share:.1%}"] for end in found.ends]
    output.table("where sessions begin and end", (of, *columns), ends, right=columns)
    frequent = sorted(found.transitions, key=lambda t: (-t.count, t.state, t.next))[:top]
    columns = ("count", "share")
    output.table(
        "transitions",
        (of, "next", *columns),
        [[t.state, t.next, t.count, f"{t.share:.1%}"] for t in frequent],
        right=columns,
    )
    _print_footnotes(output, out)


def format_percent(rate: Rate | None) -> str:
    """Format a share in percent with its interval.

    Examples
    --------
    >>> from features.profiles.analytics import rate
    >>> format_percent(rate(1, 10)), format_percent(rate(0, 0)), format_percent(None)
    ('10.0 % (1.8–40.4)', '–', '')
    """
    if rate is None:
        return ""
    if not rate.n or math.isnan(rate.value):
        return "–"
    return f"{100 * rate.value:.1f} % ({100 * rate.low:.1f}–{100 * rate.high:.1f})"


def format_index(rate: Rate | None) -> str:
    """Format an index with its interval."""
    if rate is None:
        return ""
    if not rate.n or math.isnan(rate.value):
        return "–"
    return f"{rate.value:.0f} ({rate.low:.0f}–{rate.high:.0f})"


def _open_lake(workspace: Path | None, as_of: str | None, as_json: bool) -> tuple[Output, Builder, Settings, datetime]:
    from features.data.lake import Lake
    from features.definitions.building import make_builder
    from qianmian.config import load_settings

    output = Output(as_json)
    located = Workspace.locate(workspace).require()
    lake, settings = Lake(located), load_settings(located.config_file)
    moment = as_of_or_default(lake, as_of)
    note_empty_days(output, lake, moment)
    return output, make_builder(lake, settings), settings, moment


def _tag_values(
    output: Output, builder: Builder, settings: Settings, moment: datetime, by: str | None
) -> pa.Table | None:
    """Value of tag `by` for every customer at `moment`; profiles of another date are built but not published."""
    if by is None:
        return None
    from features.profiles.analytics import tag_column
    from features.profiles.building import snapshot_at

    output.step(f"computing the tags as of {moment:%Y-%m-%d %H:%M}")
    snapshot = snapshot_at(builder, moment, settings)
    return tag_column(by, snapshot.one_ids, snapshot.tags)


def _note_truncation(output: Output, groups: int) -> None:
    if groups > MAX_GROUPS_SHOWN:
        output.say(f"only the largest {MAX_GROUPS_SHOWN} of {groups} groups are shown; --json lists all")


def _print_footnotes(output: Output, out: Any) -> None:
    output.say("intervals: 95 %, corrected for the correlation of one customer's sessions")
    if out is not None:
        output.say(f"written: {out}")
