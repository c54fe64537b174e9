"""`qianmian identity`: resolves records to customers, explains merges and corrects wrong ones."""

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

identity = typer.Typer(help="Identity resolution: resolve, link, explain and unmerge records.", no_args_is_help=True)
identity.command("link")(link)
RECORD_HELP = "SOURCE:USER_ID, a user id, a one_id, or ID_TYPE=VALUE such as phone=+44…"
ACTION_LABELS = {
    "merge": "merges: both records hold the identifier",
    "withdraw": "withdrawals: merges and findings that no longer hold",
    "conflict": "conflicts: rejected links",
    "shared": "shared identifiers, which link no records",
}


@identity.command("resolve")
def resolve(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would change, without changing it.")] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Resolve all customers again from all identifiers, by the current rules (`identity` in qianmian.yaml)."""
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
        str | None, typer.Argument(metavar="[OTHER]", help="A second record to compare with the first.")
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Explain why two records are or are not one customer, or which links formed the customer of one record."""
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
        typer.Argument(
            metavar="LEDGER_ID|RECORD", help="A decision (listed by `explain`), or the first of two records."
        ),
    ],
    other: Annotated[str | None, typer.Argument(metavar="[OTHER]", help="The second record.")] = None,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Reason, stored in the ledger. Do not enter personal data.")
    ] = "",
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Undo one merge permanently. Given the ledger_id of an unmerge, undo that unmerge.

    Profiles change with the next `qianmian features`.
    """
    from features.data.identity import find_record
    from features.data.identity import unmerge as unmerge_records

    output, (lake, settings) = Output(as_json), _opened(workspace)
    if not reason.strip():
        raise UsageError(
            "the reason is missing",
            where="--reason",
            hint='add a reason, such as --reason "sisters with one telephone"',
        )
    records = (find_record(lake, settings, decision), find_record(lake, settings, other)) if other else None
    with output.working():
        output.step("writing the decision and resolving customers")
        entry, found = unmerge_records(lake, settings, reason, utc_now(), None if records else decision, records)
    output.result({"workspace": lake.workspace.root, "entry": entry.as_dict(), "changes": found.as_dict()})
    names = " and ".join(":".join(record) for record in (entry.left, entry.right) if record)
    outcome = "may be one customer again" if entry.action == "remerge" else "are two customers, for all dates"
    note = "" if entry.action == "remerge" else " (unmerge that id to undo it)"
    output.say(f"{names} {outcome}. Ledger: {entry.ledger_id}{note}")
    show_changes(output, found, False)
    output.say("Next: qianmian features, which builds the profiles again")


def _opened(workspace: Path | None) -> tuple[Lake, Settings]:
    from features.data.lake import Lake
    from qianmian.config import load_settings

    located = Workspace.locate(workspace).require()
    return Lake(located), load_settings(located.config_file)


def show_changes(output: Output, found: ResolutionChanges, dry_run: bool) -> None:
    """Print the counts, then a few ledger entries of each action."""
    verb = "would become" if dry_run else "are now"
    output.say(
        f"{found.records:,} records: {found.customers_before:,} customers {verb} {found.customers:,}; "
        f"{found.renamed:,} records change one_id"
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
        output.say("no new ledger entries")


def _line(entry: dict[str, Any]) -> list[object]:
    ends = [
        f"{entry[f'{side}_source']}:{entry[f'{side}_source_user_id']}" if entry[f"{side}_source"] else None
        for side in ("left", "right")
    ]
    return [entry["ledger_id"], *ends, entry["id_type"], entry["id_value"], entry["observed_at"], entry["reason"]]


def show_explanation(output: Output, found: Explanation) -> None:
    """Print the customer, the chain of links or what prevents the merge, and the customer's records."""
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
            f"one_id of {names[0]} over time",
            ("one_id", "from", "ledger_id"),
            [[p.one_id, p.valid_from or "always", p.ledger_id] for p in found.periods],
        )
    if found.same is not False and found.size > 1:
        more = f" and {found.size - len(found.records):,} more" if found.size > len(found.records) else ""
        output.say("records: " + ", ".join(":".join(record) for record in found.records) + more)
