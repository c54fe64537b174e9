"""`qianmian tags`: lists, audits and validates the tags, and says what they tell about a target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import Output
from cli.options import STRICT_EXIT, AsOfOption, JsonOption, Lang, LangOption, WorkspaceOption
from cli.profiles import load_profiles
from cli.tags_validate import validate_
from cli.tags_value import value_
from cli.times import utc_now
from qianmian.errors import UsageError
from qianmian.schema import TAG_CATEGORIES
from qianmian.workspace import Workspace

if TYPE_CHECKING:
    from features.profiles.governance.catalogue import CatalogueEntry
    from features.profiles.snapshot import Snapshot

HOW_ZH = {"rule": "规则", "statistic": "统计", "model": "模型"}
CATALOGUE_WORDS = {
    Lang.EN: {
        "title": "{} tags of {} customers as of {}",
        "columns": "tag|category|meaning|how|coverage|values|top value|checked",
        "unchecked": "no tag is checked against what followed yet: `qianmian tags validate`",
        "absent": "{} more tags are absent, because their inputs are missing:",
    },
    Lang.ZH: {
        "title": "{} 个标签，{} 位客户，截至 {}",
        "columns": "标签|名称|类别|含义|方式|覆盖率|取值数|最常见取值|验证",
        "unchecked": "尚未用之后发生的事实验证标签：`qianmian tags validate`",
        "absent": "另有 {} 个标签缺少所需数据，因而不提供：",
    },
}
NAMES_SHOWN = 6
tags = typer.Typer(
    help="List the tags, audit them, check them against what followed, and rank them by what they tell about a target.",
    no_args_is_help=True,
)
tags.command("validate")(validate_)


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
            "tags": [{**entry.as_dict(), "checked": snapshot.checked.get(entry.name)} for entry in entries],
        }
    )
    print_catalogue(output, snapshot, entries, lang)


def print_catalogue(output: Output, snapshot: Snapshot, entries: Sequence[CatalogueEntry], lang: Lang) -> None:
    """Print the present tags as a table, and the absent ones with their reasons."""
    from features.profiles.tags.chinese import CATEGORIES_ZH, VERDICTS_ZH

    words = CATALOGUE_WORDS[lang]
    rows = []
    for entry in entries:
        if entry.coverage is None:
            continue
        meaning: list[object] = [entry.category, entry.description, entry.how]
        top: object = entry.top_value
        verdict = snapshot.checked.get(entry.name)
        if lang is Lang.ZH:
            chinese = entry.chinese
            meaning = [
                chinese.name if chinese is not None else None,
                CATEGORIES_ZH[entry.category],
                chinese.description if chinese is not None else entry.description,
                HOW_ZH[entry.how],
            ]
            top = (chinese.value(top) if chinese is not None and top is not None else None) or top
            verdict = VERDICTS_ZH.get(verdict or "", verdict)
        rows.append([entry.name, *meaning, format_percent(entry.coverage), entry.values, top, verdict])
    title = words["title"].format(len(rows), f"{len(snapshot.one_ids):,}", snapshot.as_of)
    columns = words["columns"].split("|")
    output.table(title, columns, rows, columns[-4:-2])
    if not snapshot.checked:
        output.say(words["unchecked"])
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


tags.command("value")(value_)


def format_percent(share: float | None) -> str:
    """Format a share in percent; empty for None.

    Examples
    --------
    >>> format_percent(0.4567)
    '45.7%'
    """
    return "" if share is None else f"{share:.1%}"


def join_names(names: Any) -> str:
    """Join the first names, with the total number if some are left out.

    Examples
    --------
    >>> join_names(["a", "b"]), join_names("abcdefgh")
    ('a, b', 'a, b, c, d, e, f, … (8)')
    """
    listed = list(names)
    return ", ".join(listed[:NAMES_SHOWN]) + (f", … ({len(listed)})" if len(listed) > NAMES_SHOWN else "")
