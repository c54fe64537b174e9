"""Undoing one decision about who is who, for all moments and for good; and undoing that."""

from __future__ import annotations

from datetime import datetime

from features.data.identity.explain import explain
from features.data.identity.ledger import MERGE, REMERGE, UNMERGE, Ledger, LedgerEntry, RecordKey
from features.data.identity.resolve import ResolutionChanges, resolve_and_compare
from features.data.lake import Lake, literal
from features.data.locking import exclusive_writer
from qianmian.errors import NotFound, UsageError
from qianmian.settings import Settings


def unmerge(
    lake: Lake,
    settings: Settings,
    reason: str,
    decided_at: datetime | None,
    ledger_id: str | None = None,
    records: tuple[RecordKey, RecordKey] | None = None,
) -> tuple[LedgerEntry, ResolutionChanges]:
    """Undo a merge, by its ledger_id or by two of the customer's records, and resolve the lake again.

    The two records of the decision will never be one customer again, whatever links them: everybody else of that customer goes with
    the one they are linked with first. The ledger_id of an unmerge undoes that one.

    Returns
    -------
    tuple of Entry and Changes
        The line written into the ledger, and what it changed.

    Raises
    ------
    NotFound
        The ledger has no such decision.
    UsageError
        It has been undone already, or the two records are not one customer.
    """
    ledger = Ledger(lake.workspace)
    lake.state("customers")
    entry = _decision(ledger, ledger_id) if ledger_id is not None else None
    if entry is not None:
        assert entry.left is not None
        assert entry.right is not None  # `_decision` gives nothing else
        records = entry.left, entry.right
    assert records is not None
    if entry is None and not explain(lake, settings, *records).same:
        raise UsageError(
            "the two records are not one customer",
            got=" and ".join(":".join(record) for record in records),
            hint="`qianmian identity explain` says why not; `qianmian identity resolve` takes over what the lake does not know yet",
        )
    with exclusive_writer(lake.workspace):
        if entry is not None and entry.action == UNMERGE:
            written = ledger.remerge(entry, reason, decided_at)
        else:
            written = ledger.unmerge(*records, reason, decided_at, ledger_id)
    return written, resolve_and_compare(lake, settings, decided_at, dry_run=False)


def _decision(ledger: Ledger, ledger_id: str) -> LedgerEntry:
    """The decision of that name that is in force."""
    found = ledger.entries(f"ledger_id = {literal(ledger_id)}")
    if not found:
        raise NotFound(
            "the ledger has no such decision",
            where=str(ledger.folder),
            got=ledger_id,
            hint="`qianmian identity explain RECORD` lists them",
        )
    last = found[-1]
    undone = ledger.entries(f"refers_to = {literal(ledger_id)}")
    if last.action == UNMERGE:
        if any(entry.action == REMERGE for entry in undone):
            raise UsageError(
                "that unmerge has been undone already", got=ledger_id, hint="unmerge the records anew, by their names"
            )
    elif last.action != MERGE or last.right is None:
        raise UsageError(
            "that line of the ledger is no merge in force",
            got=f"{ledger_id}: {last.action}",
            allowed="a merge, or an unmerge to be undone",
            hint="`qianmian identity explain RECORD` lists the decisions that made a customer",
        )
    return last
