"""`qianmian tags`: lists the tags, audits them, and ranks them by information gain."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import Output
from cli.options import AsOfOption, JsonOption, Lang, LangOption, WorkspaceOption
from cli.profiles import load_profiles
from cli.times import as_of_or_default, parse_as_of, utc_now
from qianmian.errors import UsageError
from qianmian.schema import TAG_CATEGORIES
from qianmian.workspace import Workspace

if TYPE_CHECKING:
    from features.profiles.governance.catalogue import CatalogueEntry
    from features.profiles.governance.value import InformationGain
    from features.profiles.snapshot import Snapshot

STRICT_EXIT = 3
HOW_ZH = {"rule": "规则", "statistic": "统计", "model": "模型"}
CATALOGUE_WORDS = {
    Lang.EN: {
        "title": "{} tags of {} customers as of {}",
        "columns": "tag|category|meaning|how|coverage|values|top value",
        "absent": "{} more tags are absent, because their inputs are missing:",
    },
    Lang.ZH: {
        "title": "{} 个标签，{} 位客户，截至 {}",
        "columns": "标签|名称|类别|含义|方式|覆盖率|取值数|最常见取值",
        "absent": "另有 {} 个标签缺少所需数据，因而不提供：",
    },
}
NAMES_SHOWN = 6
tags = typer.Typer(
    help="List the tags, audit them, and rank them by what they tell about a target.",
    no_args_is_help=True,
)


@tags.command("list")
def list_(
    category: Annotated[
        str | None, typer.Option("--category", metavar="|".join(TAG_CATEGORIES), help="List only this category.")
    ] = None,
    lang: LangOption = Lang.EN,
    as_of: AsOfOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """List all declared tags: what each means, how it is computed, and its coverage; --json has the inputs too."""
    from qianmian.config import load_settings

    if category is not None and category not in TAG_CATEGORIES:
        raise UsageError("unknown category", where="--category", got=category, allowed=", ".join(TAG_CATEGORIES))
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
    print_catalogue(output, snapshot, entries, lang)


def print_catalogue(output: Output, snapshot: Snapshot, entries: Sequence[CatalogueEntry], lang: Lang) -> None:
    """Print the present tags as a table, and the absent ones with their reasons."""
    from features.profiles.tags.chinese import CATEGORIES_ZH

    words = CATALOGUE_WORDS[lang]
    rows = []
    for entry in entries:
        if entry.coverage is None:
            continue
        meaning: list[object] = [entry.category, entry.description, entry.how]
        top: object = entry.top_value
        if lang is Lang.ZH:
            chinese = entry.chinese
            meaning = [
                chinese.name if chinese is not None else None,
                CATEGORIES_ZH[entry.category],
                chinese.description if chinese is not None else entry.description,
                HOW_ZH[entry.how],
            ]
            top = (chinese.value(top) if chinese is not None and top is not None else None) or top
        rows.append([entry.name, *meaning, format_percent(entry.coverage), entry.values, top])
    title = words["title"].format(len(rows), f"{len(snapshot.one_ids):,}", snapshot.as_of)
    columns = words["columns"].split("|")
    output.table(title, columns, rows, columns[-3:-1])
    absent = [entry for entry in entries if entry.coverage is None]
    if absent:
        output.say(words["absent"].format(len(absent)))
        for entry in absent:
            output.say(f"  {entry.name}: {join_names(entry.lacks)}")


@tags.command("audit")
def audit_(
    strict: Annotated[bool, typer.Option("--strict", help=f"Exit with {STRICT_EXIT} if there is a finding.")] = False,
    threshold: Annotated[
        float,
        typer.Option(
            "--threshold", min=0.5, max=1.0, help="Normalised mutual information at which two tags are nearly equal."
        ),
    ] = 0.9,
    as_of: AsOfOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find duplicate, nearly equal, empty, constant, one-sided, unused, expired, ownerless and badly named tags."""
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
        for label, text in (("found", finding.what), ("why it matters", finding.why), ("fix", finding.mend)):
            output.say(f"  {label}: {text}")
    if found and strict:
        raise typer.Exit(STRICT_EXIT)


@tags.command("value")
def value_(
    target: Annotated[str, typer.Option("--target", metavar="churn|purchase|clv", help="Target to predict.")] = "churn",
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
    """Rank the tags by information gain about a target, alone and on top of each other.

    The tags are those of --as-of (default: one horizon before the end of the data); the outcome is measured after it.
    """
    from features.data.lake import Lake
    from features.definitions.pack_features import make_builder
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
    builder = make_builder(lake, settings)
    with output.working():
        output.step(f"computing the tags as of {moment:%Y-%m-%d}")
        snapshot = snapshot_at(builder, moment, settings)
        output.step(f"computing the outcome in the {horizon_days} days after it")
        outcome = target_labels(
            builder, snapshot.table, moment, target, horizon_days, settings.churn.active_days or 2 * horizon_days
        )
        output.step(f"computing the information gain of {len(snapshot.tags)} tags")
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
            "tags": [tag.as_dict() for tag in found.tags],
        }
    )
    title = f"{target} in the {horizon_days} days from {moment:%Y-%m-%d}: {found.n:,} customers"
    print_tag_ranking(output, found, title, counts, top)


def print_tag_ranking(output: Output, found: InformationGain, title: str, counts: dict[str, int], top: int) -> None:
    """Print the ranking and the tags to keep."""
    classes = ", ".join(f"{label} {count:,}" for label, count in counts.items())
    output.say(f"{title} ({classes}); {found.entropy_bits:.3f} bits of entropy")
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
        for position, tag in enumerate(found.tags)
        if position < top or tag.picked is not None
    ]
    output.table("", columns, rows, columns[1:])
    output.say("bits: information of the tag alone; chance: 95th percentile of the bits of an unrelated tag")
    output.say("adds: cross-validated information on top of the picks before it; on top of all picks for other tags")
    if found.picked:
        gain = f"{found.information_bits:.3f} of {found.entropy_bits:.3f} bits"
        output.say(f"keep: {', '.join(found.picked)}; together they provide {gain}")
    else:
        output.say("keep: none, because no tag is significantly better than chance")


def format_percent(share: float | None) -> str:
    """Format a share in percent; empty for None.

    Examples
    --------
    >>> format_percent(0.4567)
    '45.7%'
    """
    return "" if share is None else f"{share:.1%}"


def bits(value: float) -> str:
    """Format an amount of information.

    Examples
    --------
    >>> bits(0.12345), bits(-0.00004)
    ('0.123', '0.000')
    """
    return f"{value if abs(value) >= 0.0005 else 0.0:.3f}"


def join_names(names: Any) -> str:
    """Join the first names, with the total number if some are left out.

    Examples
    --------
    >>> join_names(["a", "b"]), join_names("abcdefgh")
    ('a, b', 'a, b, c, d, e, f, … (8)')
    """
    listed = list(names)
    return ", ".join(listed[:NAMES_SHOWN]) + (f", … ({len(listed)})" if len(listed) > NAMES_SHOWN else "")
