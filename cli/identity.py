"""`qianmian identity`: who is who, why, and how a wrong merge is mended."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import Output
from cli.identity_link import link
from cli.options import JsonOption, WorkspaceOption
from cli.times import utc_now
from qianmian.errors import UsageError
from qianmian.workspace import Workspace

if TYPE_CHECKING:
    from features.data.identity import Explanation, ResolutionChanges
    from features.data.lake import Lake
    from qianmian.settings import Settings

identity = typer.Typer(help="Which records are one customer: resolve, link, explain, unmerge.", no_args_is_help=True)
identity.command("link")(link)
RECORD_HELP = "SOURCE:USER_ID, a user id, a one_id, or ID_TYPE=VALUE such as phone=+44…"
ACTION_LABELS = {
    "merge": "merges: both hold the identifier",
    "withdraw": "withdrawn: merges and findings that no longer hold",
    "conflict": "conflicts: links refused",
    "shared": "shared: identifiers that link nobody",
}


@identity.command("resolve")
def resolve(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Work out anew who is who from all identifiers, by the rules of now (`identity` in qianmian.yaml)."""
    from features.data.identity import resolve_and_compare

    output, (lake, settings) = Output(as_json), _opened(workspace)
    with output.working():
        output.step("resolving customers" + (" (nothing is written)" if dry_run else ""))
        found = resolve_and_compare(lake, settings, utc_now(), dry_run)
    output.result({"workspace": lake.workspace.root, "dry_run": dry_run, **found.as_dict()})
    show_changes(output, found, dry_run)


@identity.command("explain")
def explain(
    record: Annotated[str, typer.Argument(metavar="RECORD", help=RECORD_HELP)],
    other: Annotated[
        str | None, typer.Argument(metavar="[OTHER]", help="A second record: why the two are one, or are not.")
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Why two records are one customer, or what made one record's customer."""
    from features.data.identity import explain as explain_records
    from features.data.identity import find_record

    output, (lake, settings) = Output(as_json), _opened(workspace)
    found = explain_records(
        lake, settings, find_record(lake, settings, record), find_record(lake, settings, other) if other else None
    )
    output.result(found.as_dict())
    show_explanation(output, found)


@identity.command("unmerge")
def unmerge(
    decision: Annotated[
        str,
        typer.Argument(metavar="LEDGER_ID|RECORD", help="A decision (`explain` names them), or one of two records."),
    ],
    other: Annotated[str | None, typer.Argument(metavar="[OTHER]", help="The second record.")] = None,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; the ledger keeps it. Write no personal data here.")
    ] = "",
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Undo one merge for good; the ledger_id of an unmerge undoes that one. Profiles follow with the next `qianmian features`."""
    from features.data.identity import find_record
    from features.data.identity import unmerge as unmerge_records

    output, (lake, settings) = Output(as_json), _opened(workspace)
    if not reason.strip():
        raise UsageError(
            "say why", where="--reason", hint='add --reason "two sisters with one telephone": the ledger keeps it'
        )
    records = (find_record(lake, settings, decision), find_record(lake, settings, other)) if other else None
    with output.working():
        output.step("undoing and resolving customers")
        entry, found = unmerge_records(lake, settings, reason, utc_now(), None if records else decision, records)
    output.result({"workspace": lake.workspace.root, "entry": entry.as_dict(), "changes": found.as_dict()})
    names = " and ".join(":".join(record) for record in (entry.left, entry.right) if record)
    told = "may be one customer again" if entry.action == "remerge" else "are two customers, for all moments"
    output.say(
        f"{names} {told}. Ledger: {entry.ledger_id}"
        + ("" if entry.action == "remerge" else " (unmerge that id to undo it)")
    )
    show_changes(output, found, False)
    output.say("Next: qianmian features, which builds the profiles again")


def _opened(workspace: Path | None) -> tuple[Lake, Settings]:
    from features.data.lake import Lake
    from qianmian.config import load_settings

    place = Workspace.locate(workspace).require()
    return Lake(place), load_settings(place.config_file)


def show_changes(output: Output, found: ResolutionChanges, dry_run: bool) -> None:
    """Counts, then a few lines of each sort."""
    verb = "would become" if dry_run else "are now"
    output.say(
        f"{found.records:,} records: {found.customers_before:,} customers {verb} {found.customers:,}; {found.renamed:,} records change one_id"
    )
    counts: dict[str, int] = {
        "merge": found.merged,
        "withdraw": found.withdrawn,
        "conflict": found.conflicts,
        "shared": found.shared,
    }
    for action, count in counts.items():
        if not count:
            continue
        columns = ("ledger_id", "left", "right", "id_type", "id_value", "since", "reason")
        rows = [_line(entry) for entry in found.samples.get(action, [])]
        output.table(
            f"{count:,} new {ACTION_LABELS[action]}" + (f" (the first {len(rows)})" if count > len(rows) else ""),
            columns,
            rows,
        )
    if not any(counts.values()):
        output.say("nothing new for the ledger")


def _line(entry: dict[str, Any]) -> list[object]:
    ends = [
        f"{entry[f'{side}_source']}:{entry[f'{side}_source_user_id']}" if entry[f"{side}_source"] else None
        for side in ("left", "right")
    ]
    return [entry["ledger_id"], *ends, entry["id_type"], entry["id_value"], entry["observed_at"], entry["reason"]]


def show_explanation(output: Output, found: Explanation) -> None:
    """The customer, the chain of links or what refused it, and the customer's records."""
    names = [":".join(record) for record in found.asked]
    if found.same is None:
        output.say(f"{names[0]} is customer {found.one_ids[0]}, with {found.size:,} record(s)")
    elif found.same:
        output.say(f"{names[0]} and {names[1]} are one customer, {found.one_ids[0]}")
    else:
        output.say(f"{names[0]} ({found.one_ids[0]}) and {names[1]} ({found.one_ids[1]}) are two customers:")
    for reason in found.reasons:
        output.say(f"  {reason}")
    if found.steps:
        rows = [
            [
                ":".join(step.left),
                ":".join(step.right),
                step.id_type,
                step.id_value,
                step.since or "always",
                step.ledger_id,
                step.rule,
            ]
            for step in found.steps
        ]
        output.table("linked by", ("left", "right", "id_type", "id_value", "since", "ledger_id", "rule"), rows)
    if len(found.periods) > 1:
        output.table(
            f"{names[0]} in time",
            ("one_id", "from", "ledger_id"),
            [[p.one_id, p.valid_from or "always", p.ledger_id] for p in found.periods],
        )
    if found.same is not False and found.size > 1:
        more = f" and {found.size - len(found.records):,} more" if found.size > len(found.records) else ""
        output.say("records: " + ", ".join(":".join(record) for record in found.records) + more)
