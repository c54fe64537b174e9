"""`qianmian tags value`: what each tag tells about a business target, in customers and in bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import Output
from cli.options import AsOfOption, JsonOption, WorkspaceOption
from cli.times import as_of_or_default, parse_as_of
from qianmian.workspace import Workspace

if TYPE_CHECKING:
    from features.profiles.governance.lift import TagEnd, TagLift
    from features.profiles.governance.outcome import TargetLabels
    from features.profiles.governance.value import InformationGain, TagInformation

VALUES_SHOWN = 3


def value_(
    target: Annotated[
        str,
        typer.Option(
            "--target",
            metavar="churn|purchase|clv|item=ID|category=NAME|brand=NAME|event=TYPE",
            help="What the customers did after the tags: left, ordered, paid, bought an item or alike, did an event.",
        ),
    ] = "churn",
    as_of: AsOfOption = None,
    horizon_days: Annotated[
        int,
        typer.Option(
            "--horizon-days", min=1, max=365, help="Number of days after the tags in which the outcome is measured."
        ),
    ] = 28,
    top: Annotated[int, typer.Option("--top", min=1, help="Number of tags to print; --json lists all.")] = 15,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what each tag tells about a target: in customers and lift, and in bits, alone and on top of each other.

    The tags are those of --as-of (default: one horizon before the end of the data); the outcome is measured after it.
    """
    from features.data.lake import Lake
    from features.definitions.building import make_builder
    from features.profiles.building import snapshot_at
    from features.profiles.governance.lift import END_SHARE, tag_lifts
    from features.profiles.governance.outcome import find_target, horizon_end, target_labels
    from features.profiles.governance.value import information_gain
    from qianmian.config import load_settings

    find_target(target)
    output, located = Output(as_json), Workspace.locate(workspace).require()
    settings = load_settings(located.config_file)
    lake = Lake(located)
    moment = parse_as_of(as_of) or as_of_or_default(lake, None) - timedelta(days=horizon_days)
    horizon_end(lake, moment, horizon_days)
    builder = make_builder(lake, settings)
    with output.working():
        output.step(f"computing the tags as of {moment:%Y-%m-%d}")
        snapshot = snapshot_at(builder, moment, settings)
        output.step(f"computing the outcome in the {horizon_days} days after it")
        outcome = target_labels(
            builder, snapshot.table, moment, target, horizon_days, settings.churn.active_days or 2 * horizon_days
        )
        output.step(f"computing the information gain of {len(snapshot.tags)} tags")
        lists = ((name, list(values)) for name, values in snapshot.tags.items())  # read at once, not row by row
        values_by_tag = {name: [values[row] for row in outcome.rows] for name, values in lists}
        lifts = tag_lifts(values_by_tag, outcome.numbers, settings.seed)
        found = information_gain(values_by_tag, outcome.codes, settings.seed)
    counts = {label: int((outcome.codes == code).sum()) for code, label in enumerate(outcome.labels)}
    output.result(
        {
            "workspace": located.root,
            "target": target,
            "as_of": moment,
            "horizon_days": horizon_days,
            "customers": found.n,
            "outcome": counts,
            "overall": float(outcome.numbers.mean()),
            "end_share": END_SHARE,
            "entropy_bits": found.entropy_bits,
            "told_bits": found.information_bits,
            "keep": list(found.picked),
            "tags": [
                {**tag.as_dict(), "customers": lifts[tag.name].as_dict() if tag.name in lifts else None}
                for tag in found.tags
            ],
        }
    )
    classes = ", ".join(f"{label} {count:,}" for label, count in counts.items())
    output.say(
        f"{target} in the {horizon_days} days from {moment:%Y-%m-%d}: {found.n:,} customers ({classes}); "
        f"{found.entropy_bits:.3f} bits of entropy"
    )
    shown = [tag for position, tag in enumerate(found.tags) if position < top or tag.picked is not None]
    print_lifts(output, [tag.name for tag in shown], lifts, outcome)
    print_information(output, found, shown)


def print_lifts(output: Output, names: Sequence[str], lifts: Mapping[str, TagLift], outcome: TargetLabels) -> None:
    """Print the outcome of the customers at both ends of each tag, and the first tag as a sentence."""
    from features.profiles.governance.lift import END_SHARE

    verb, overall = outcome.verb, float(outcome.numbers.mean())
    text = format_money if verb == "paid" else format_share

    def end_text(end: TagEnd) -> str:
        return f"{text(end.mean)} ({text(end.low)} – {text(end.high)})"

    rows = [
        [
            name,
            join_values(lifts[name].most.values),
            end_text(lifts[name].most),
            None if lifts[name].lift is None else f"{lifts[name].lift:.2f}",
            join_values(lifts[name].least.values),
            end_text(lifts[name].least),
        ]
        for name in names
        if name in lifts
    ]
    tenth = f"{END_SHARE * 100:.0f} %"
    most, least = ("paying most", "paying least") if verb == "paid" else ("most likely", "least likely")
    columns = ["tag", f"{tenth} {most}", verb, "lift", f"{tenth} {least}", f"{verb} "]
    output.table("", columns, rows, columns[2:4] + columns[5:])
    if rows:
        first = lifts[str(rows[0][0])]
        customers = f"{tenth} of the customers ({END_SHARE * len(outcome.rows):,.0f})"
        of = "" if verb == "paid" else "of "
        upper, lower, everybody = (says(verb, text(mean)) for mean in (first.most.mean, first.least.mean, overall))
        output.say(
            f"for example {rows[0][0]}: {of}the {customers} {most} by it ({rows[0][1]}) {upper}, "
            f"{of}the {tenth} {least} by it ({rows[0][4]}) {lower}; overall {everybody}"
        )


def print_information(output: Output, found: InformationGain, shown: Sequence[TagInformation]) -> None:
    """Print the information of the tags in bits, and the tags to keep."""
    columns = ["tag", "bits", "95 % interval", "chance", "of all", "values", "pick", "adds", "95 % interval "]
    rows = [
        [
            tag.name,
            bits(tag.bits),
            f"{bits(tag.low)} – {bits(tag.high)}",
            bits(tag.chance),
            f"{tag.share:.1%}",
            tag.values,
            tag.picked,
            bits(tag.adds),
            f"{bits(tag.adds_low)} – {bits(tag.adds_high)}",
        ]
        for tag in shown
    ]
    output.table("", columns, rows, columns[1:])
    output.say("bits: information of the tag alone; chance: 95th percentile of the bits of an unrelated tag")
    output.say("adds: cross-validated information on top of the picks before it; on top of all picks for other tags")
    if found.picked:
        gain = f"{found.information_bits:.3f} of {found.entropy_bits:.3f} bits"
        output.say(f"keep: {', '.join(found.picked)}; together they provide {gain}")
    else:
        output.say("keep: none, because no tag is significantly better than chance")


def says(verb: str, text: str) -> str:
    """What is said of some customers, such as ``41 % left``.

    Examples
    --------
    >>> says("left", "41 %"), says("paid", "12.50")
    ('41 % left', 'paid 12.50 on average')
    """
    return f"paid {text} on average" if verb == "paid" else f"{text} {verb}"


def format_share(share: float) -> str:
    """Format a share in percent, with a decimal below 10 %.

    Examples
    --------
    >>> format_share(0.4149), format_share(0.034)
    ('41 %', '3.4 %')
    """
    return f"{share * 100:.{0 if share >= 0.0995 else 1}f} %"


def format_money(amount: float) -> str:
    """Format an amount.

    Examples
    --------
    >>> format_money(1234.5)
    '1,234.50'
    """
    return f"{amount:,.2f}"


def join_values(values: Sequence[str]) -> str:
    """Join the first values of an end.

    Examples
    --------
    >>> join_values(["a", "b", "c", "d"])
    'a, b, c, …'
    """
    return ", ".join(values[:VALUES_SHOWN]) + (", …" if len(values) > VALUES_SHOWN else "")


def bits(value: float) -> str:
    """Format an amount of information.

    Examples
    --------
    >>> bits(0.12345), bits(-0.00004)
    ('0.123', '0.000')
    """
    return f"{value if abs(value) >= 0.0005 else 0.0:.3f}"
