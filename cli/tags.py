"""`qianmian tags`: what tags there are, what is wrong with them, and which of them are worth keeping."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import Output
from cli.options import AsOfOption, JsonOption, WorkspaceOption
from cli.times import as_of_or_default, parse_as_of, utc_now
from qianmian.errors import UsageError
from qianmian.schema import TAG_CATEGORIES
from qianmian.workspace import Workspace

if TYPE_CHECKING:
    from features.profiles.governance.value import InformationGain
    from features.profiles.snapshot import Snapshot

STRICT_EXIT = 3
NAMES_SHOWN = 6
tags = typer.Typer(
    help="List the tags, audit them, and rank them by what they tell about a business goal.", no_args_is_help=True
)


@tags.command("list")
def list_(
    category: Annotated[
        str | None, typer.Option("--category", metavar="|".join(TAG_CATEGORIES), help="Only these.")
    ] = None,
    as_of: AsOfOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Every declared tag: how it is made, who answers for it, how many customers have it."""
    from qianmian.config import load_settings

    if category is not None and category not in TAG_CATEGORIES:
        raise UsageError(
            "there is no such category", where="--category", got=category, allowed=", ".join(TAG_CATEGORIES)
        )
    from features.profiles.governance.catalogue import catalogue
    from features.profiles.tags.tagging import declared_tags

    output, located = Output(as_json), Workspace.locate(workspace).require()
    snapshot = load_profiles(output, located, as_of)
    declared = [tag for tag in declared_tags(load_settings(located.config_file)) if category in (None, tag.category)]
    entries = catalogue(declared, snapshot)
    output.result(
        {
            "workspace": located.root,
            "as_of": snapshot.as_of,
            "customers": len(snapshot.one_ids),
            "tags": [entry.as_dict() for entry in entries],
        }
    )
    columns = ["tag", "category", "kind", "how", "owner", "ttl", "coverage", "values", "top value", "made of"]
    rows = [
        [
            one.name,
            one.category,
            one.kind,
            one.how,
            one.owner,
            one.ttl_days,
            format_percent(one.coverage),
            one.values,
            one.top_value,
            join_names(one.needs),
        ]
        for one in entries
        if one.coverage is not None
    ]
    output.table(
        f"{len(rows)} tags of {len(snapshot.one_ids):,} customers as of {snapshot.as_of}", columns, rows, columns[5:8]
    )
    absent = [one for one in entries if one.coverage is None]
    if absent:
        output.say(f"{len(absent)} more are absent, because the data holds nothing to make them of:")
        for one in absent:
            output.say(f"  {one.name}: {join_names(one.lacks)}")


@tags.command("audit")
def audit_(
    strict: Annotated[bool, typer.Option("--strict", help=f"Exit with {STRICT_EXIT} when anything is found.")] = False,
    threshold: Annotated[
        float,
        typer.Option(
            "--threshold", min=0.5, max=1.0, help="Normalised mutual information from which two tags are nearly equal."
        ),
    ] = 0.9,
    as_of: AsOfOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """What is wrong: duplicate, nearly equal, empty, constant, never used, expired and ownerless tags, names against the rules."""
    from features.profiles.governance.audit import audit
    from features.profiles.governance.usage import tag_usage
    from features.profiles.tags import INPUTS
    from features.profiles.tags.tagging import declared_tags
    from qianmian.config import load_settings

    output, located = Output(as_json), Workspace.locate(workspace).require()
    usage = tag_usage(located)
    snapshot = load_profiles(output, located, as_of)
    declared = declared_tags(load_settings(located.config_file))
    found = audit(
        declared, snapshot.tags, snapshot.tag_facts, utc_now(), usage, {*INPUTS, *snapshot.spec.names}, threshold
    )
    output.result(
        {
            "workspace": located.root,
            "as_of": snapshot.as_of,
            "tags": len(declared),
            "present": len(snapshot.tags),
            "findings": [finding.as_dict() for finding in found],
        }
    )
    output.say(
        f"{len(declared)} tags declared, {len(snapshot.tags)} present as of {snapshot.as_of}; {len(found)} findings"
    )
    for finding in found:
        output.say(f"\n{finding.rule}: {join_names(finding.tags)}")
        for word, text in (("found", finding.what), ("why it matters", finding.why), ("to mend", finding.mend)):
            output.say(f"  {word}: {text}")
    if found and strict:
        raise typer.Exit(STRICT_EXIT)


@tags.command("value")
def value_(
    target: Annotated[str, typer.Option("--target", metavar="churn|purchase|clv", help="The business goal.")] = "churn",
    as_of: AsOfOption = None,
    horizon_days: Annotated[
        int, typer.Option("--horizon-days", min=1, max=365, help="The outcome is of so many days after the tags.")
    ] = 28,
    top: Annotated[int, typer.Option("--top", min=1, help="How many tags to print; --json has all.")] = 15,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Which tags tell something about a goal, alone and on top of each other: the few that matter.

    Tags are those of --as-of (default: a horizon before the end of the data), the outcome is what happened in the days after it.
    """
    from features.compute.builder import Builder
    from features.data.lake import Lake
    from features.definitions.pack_features import declared_features
    from features.profiles.governance.outcome import TARGETS, horizon_end, target_labels
    from features.profiles.governance.value import information_gain
    from features.profiles.snapshot import snapshot_at
    from qianmian.config import load_settings

    TARGETS[target]
    output, located = Output(as_json), Workspace.locate(workspace).require()
    settings = load_settings(located.config_file)
    lake = Lake(located)
    moment = parse_as_of(as_of) or as_of_or_default(lake, None) - timedelta(days=horizon_days)
    horizon_end(lake, moment, horizon_days)
    builder = Builder(lake, declared_features(settings))
    with output.working():
        output.step(f"tags as of {moment:%Y-%m-%d}")
        snapshot = snapshot_at(builder, moment, settings)
        output.step(f"what happened in the {horizon_days} days after it")
        outcome = target_labels(
            builder, snapshot.table, moment, target, horizon_days, settings.churn.active_days or 2 * horizon_days
        )
        output.step(f"what {len(snapshot.tags)} tags tell about it")
        found = information_gain(
            {name: [values[row] for row in outcome.rows] for name, values in snapshot.tags.items()},
            outcome.codes,
            settings.seed,
        )
    counts = {label: int((outcome.codes == code).sum()) for code, label in enumerate(outcome.labels)}
    output.result(
        {
            "workspace": located.root,
            "target": target,
            "as_of": moment,
            "horizon_days": horizon_days,
            "customers": found.n,
            "outcome": counts,
            "entropy_bits": found.entropy_bits,
            "told_bits": found.information_bits,
            "keep": list(found.picked),
            "tags": [one.as_dict() for one in found.tags],
        }
    )
    print_tag_ranking(
        output, found, f"{target} in the {horizon_days} days from {moment:%Y-%m-%d}: {found.n:,} customers", counts, top
    )


def print_tag_ranking(output: Output, found: InformationGain, title: str, counts: dict[str, int], top: int) -> None:
    """The ranking, and the few that matter."""
    told = ", ".join(f"{label} {count:,}" for label, count in counts.items())
    output.say(f"{title} ({told}); {found.entropy_bits:.3f} bits to be known of each")
    columns = ["tag", "bits", "95 % interval", "chance", "of all", "values", "pick", "adds", "95 % interval "]
    rows = [
        [
            one.name,
            bits(one.bits),
            f"{bits(one.low)} – {bits(one.high)}",
            bits(one.chance),
            f"{one.share:.1%}",
            one.values,
            one.picked,
            bits(one.adds),
            f"{bits(one.adds_low)} – {bits(one.adds_high)}",
        ]
        for position, one in enumerate(found.tags)
        if position < top or one.picked is not None
    ]
    output.table("", columns, rows, columns[1:])
    output.say("bits: told by the tag alone; chance: what a tag without connection stays under in 95 of 100 cases")
    output.say(
        "adds: told to a model that has the picks before it (all picks, for a tag that is none), of customers it has not seen"
    )
    if found.picked:
        output.say(
            f"keep: {', '.join(found.picked)}; together they tell {found.information_bits:.3f} of {found.entropy_bits:.3f} bits"
        )
    else:
        output.say("keep: none of them tells anything about it that is surely more than chance")


def load_profiles(output: Output, located: Workspace, as_of: str | None) -> Snapshot:
    """The profiles that are served; those of another moment are built and not published."""
    from features.compute.builder import Builder
    from features.data.lake import Lake
    from features.definitions.pack_features import declared_features
    from features.profiles.snapshot import current_snapshot_name, load_current, snapshot_at
    from qianmian.config import load_settings

    if as_of is None and current_snapshot_name(located) is not None:
        return load_current(located)
    settings = load_settings(located.config_file)
    builder = Builder(Lake(located), declared_features(settings))
    moment = as_of_or_default(builder.lake, as_of)
    with output.working():
        output.step(f"building profiles as of {moment:%Y-%m-%d %H:%M}")
        return snapshot_at(builder, moment, settings)


def format_percent(share: float | None) -> str:
    """A share as people read it.

    Examples
    --------
    >>> format_percent(0.4567)
    '45.7%'
    """
    return "" if share is None else f"{share:.1%}"


def bits(value: float) -> str:
    """Information as people read it.

    Examples
    --------
    >>> bits(0.12345), bits(-0.00004)
    ('0.123', '0.000')
    """
    return f"{value if abs(value) >= 0.0005 else 0.0:.3f}"


def join_names(names: Any) -> str:
    """Some names, and how many more there are.

    Examples
    --------
    >>> join_names(["a", "b"]), join_names("abcdefgh")
    ('a, b', 'a, b, c, d, e, f, … (8)')
    """
    listed = list(names)
    return ", ".join(listed[:NAMES_SHOWN]) + (f", … ({len(listed)})" if len(listed) > NAMES_SHOWN else "")
