"""`qianmian analytics`: visits, funnels and click paths of the customers, printed as tables."""

from __future__ import annotations

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
    help="Visits, funnels and click paths, from behaviour events and purchases.", no_args_is_help=True
)

WindowOption = Annotated[
    int | None,
    typer.Option(
        "--window-days",
        metavar="N",
        min=1,
        help="Only the last N days before --as-of. [default: everything]",
        show_default=False,
    ),
]
ByOption = Annotated[
    str | None, typer.Option("--by", metavar="TAG", help="Split the customers by a tag of their profile.")
]
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Write the rows here too: .parquet or .csv.")
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
    """How many visits, how long, how many of them buy. --out writes a row a visit."""
    check_suffix(out, SUFFIXES)
    from features.profiles.analytics import sessions as visits
    from features.profiles.analytics import summary

    output, builder, settings, moment = _open_lake(workspace, as_of, as_json)
    with output.working():
        views = builder.views(moment)
        tags = _tag_values(output, builder, settings, moment, by)
        output.step(f"visits before {moment:%Y-%m-%d %H:%M}")
        found = summary(views, window_days, tags)
        if out is not None:
            output.step(f"writing {out}")
            write_table(visits(views, window_days).order_by(["one_id", "start", "session_id"]).to_pyarrow(), out)
    output.result(
        {
            "as_of": moment,
            "window_days": window_days,
            "by": by,
            "groups": [group.as_dict() for group in found],
            "out": out,
        }
    )
    columns = (
        "visits",
        "customers",
        "visits/customer",
        "events/visit",
        "median s",
        "90 % s",
        "conversion",
        "bounce",
        "index",
    )
    rows = [
        [
            group.tag or "everybody",
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
        for group in found[: MAX_GROUPS_SHOWN + 1]
    ]
    output.table(f"visits as of {moment}", (by or "", *columns), rows, right=columns)
    _note_truncation(output, len(found) - 1)
    _print_footnotes(output, out)


@analytics.command("funnel")
def funnel(
    steps: Annotated[
        str,
        typer.Option("--steps", metavar="A,B,…", help="Event types in order; 'buy' is a paid order or purchase event."),
    ] = "view,cart,buy",
    per: Annotated[
        str,
        typer.Option(
            "--per", metavar="customer|session|item", help="What is counted; item: customer and item together."
        ),
    ] = "customer",
    within_days: Annotated[
        float | None, typer.Option("--within-days", metavar="N", help="The whole way takes at most so long.")
    ] = None,
    within_session: Annotated[bool, typer.Option("--within-session", help="The whole way lies in one visit.")] = False,
    as_of: AsOfOption = None,
    window_days: WindowOption = None,
    by: ByOption = None,
    out: OutOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """How many get from one step to the next, how fast, and (--by TAG) who falls out where."""
    check_suffix(out, SUFFIXES)
    from features.profiles.analytics import funnel as compute

    output, builder, settings, moment = _open_lake(workspace, as_of, as_json)
    with output.working():
        tags = _tag_values(output, builder, settings, moment, by)
        output.step(f"funnel {steps} a {per}")
        names = [name.strip() for name in steps.split(",") if name.strip()]
        found = compute(
            builder.views(moment),
            names,
            window_days=window_days,
            within_days=within_days,
            within_session=within_session,
            per=per,  # type: ignore[arg-type] # the function checks it
            tags=tags,
        )
        if out is not None:
            write_table(found.as_table(), out)
    options = {"window_days": window_days, "within_days": within_days, "within_session": within_session, "by": by}
    output.result({"as_of": moment, **options, **found.as_dict(), "out": out})
    columns: tuple[str, ...] = (f"{per}s", "of the step before", "of the first", "median hours", "90 % hours")
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
            f"by {by}; drop-off index: 100 is everybody's, above falls out more",
            (by or "", *columns),
            grouped,
            right=columns,
        )
        _note_truncation(output, len(found.groups))
    if not found.steps[0].reached:
        output.say(
            f"nobody reached '{found.steps[0].step}': the data may hold no such event; "
            "`qianmian analytics paths` shows which there are, --steps chooses others"
        )
    _print_footnotes(output, out)


@analytics.command("paths")
def paths(
    of: Annotated[
        str, typer.Option("--of", metavar="event_type|category|category_top|page", help="What a step of a path is.")
    ] = "event_type",
    depth: Annotated[int, typer.Option("--depth", min=1, max=50, help="Tell a path to its first so many steps.")] = 5,
    top: Annotated[int, typer.Option("--top", min=1, max=1000, help="So many paths and states.")] = 20,
    keep_repeats: Annotated[
        bool, typer.Option("--keep-repeats", help="The same step several times in a row stays several.")
    ] = False,
    as_of: AsOfOption = None,
    window_days: WindowOption = None,
    out: OutOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """The most frequent ways through a visit, what follows what, and where visits begin and end."""
    check_suffix(out, SUFFIXES)
    from features.profiles.analytics import paths as compute

    output, builder, _, moment = _open_lake(workspace, as_of, as_json)
    with output.working():
        output.step(f"paths of {of}")
        found = compute(
            builder.views(moment), of, depth=depth, top=top, window_days=window_days, keep_repeats=keep_repeats
        )
        if out is not None:
            write_table(found.as_table(), out)
    output.result({"as_of": moment, "window_days": window_days, **found.as_dict(), "out": out})
    ways = [
        [
            " > ".join(way.path) + (" > …" if way.longer else ""),
            way.sessions,
            format_percent(way.share),
            format_percent(way.conversion),
        ]
        for way in found.paths
    ]
    columns: tuple[str, ...] = ("visits", "share", "of these buy")
    output.table(f"paths of {found.sessions:,} visits as of {moment}", ("path", *columns), ways, right=columns)
    columns = ("times", "visits begin", "visits end")
    ends = [[end.state, end.occurrences, f"{end.entry_share:.1%}", f"{end.exit_share:.1%}"] for end in found.ends]
    output.table("where visits begin and end", (of, *columns), ends, right=columns)
    frequent = sorted(found.transitions, key=lambda way: (-way.count, way.state, way.next))[:top]
    columns = ("times", "share")
    output.table(
        "what follows what",
        (of, "next", *columns),
        [[t.state, t.next, t.count, f"{t.share:.1%}"] for t in frequent],
        right=columns,
    )
    _print_footnotes(output, out)


def format_percent(found: Rate | None) -> str:
    """A share with its interval.

    Examples
    --------
    >>> from features.profiles.analytics import rate
    >>> format_percent(rate(1, 10)), format_percent(rate(0, 0)), format_percent(None)
    ('10.0 % (1.8–40.4)', '–', '')
    """
    if found is None:
        return ""
    return (
        f"{100 * found.value:.1f} % ({100 * found.low:.1f}–{100 * found.high:.1f})"
        if found.n and found.value == found.value
        else "–"
    )


def format_index(found: Rate | None) -> str:
    """An index with its interval."""
    if found is None:
        return ""
    return f"{found.value:.0f} ({found.low:.0f}–{found.high:.0f})" if found.n and found.value == found.value else "–"


def _open_lake(workspace: Path | None, as_of: str | None, as_json: bool) -> tuple[Output, Builder, Settings, datetime]:
    from features.compute.builder import Builder
    from features.data.lake import Lake
    from features.definitions.pack_features import declared_features
    from qianmian.config import load_settings

    output = Output(as_json)
    place = Workspace.locate(workspace).require()
    lake, settings = Lake(place), load_settings(place.config_file)
    moment = as_of_or_default(lake, as_of)
    note_empty_days(output, lake, moment)
    return output, Builder(lake, declared_features(settings)), settings, moment


def _tag_values(
    output: Output, builder: Builder, settings: Settings, moment: datetime, by: str | None
) -> pa.Table | None:
    """The tag's value of every customer at `moment`; profiles of another moment are made anew and not published."""
    if by is None:
        return None
    from features.profiles.analytics import tag_column
    from features.profiles.snapshot import snapshot_at

    output.step(f"tags as of {moment:%Y-%m-%d %H:%M}")
    snapshot = snapshot_at(builder, moment, settings)
    return tag_column(by, snapshot.one_ids, snapshot.tags)


def _note_truncation(output: Output, groups: int) -> None:
    if groups > MAX_GROUPS_SHOWN:
        output.say(f"the largest {MAX_GROUPS_SHOWN} of {groups} groups; --json has all")


def _print_footnotes(output: Output, out: Any) -> None:
    output.say("intervals: 95 %, a customer's visits counted as belonging together")
    if out is not None:
        output.say(f"written: {out}")
