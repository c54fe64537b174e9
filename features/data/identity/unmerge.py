"""Undo a merge for all dates, and undo an unmerge."""

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
    """Undo a merge, given by its ledger_id or by two records of the customer, and resolve the lake again.

    The two records of the decision will not be one customer again, whatever identifiers they share. Each other record
    of the customer stays with the one it was linked to first. The ledger_id of an unmerge reverses the unmerge.

    Parameters
    ----------
    reason : str
        Reason for the ledger.
    decided_at : datetime or None
        Decision time for the ledger, naive UTC.
    ledger_id : str, optional
        Merge to undo, or unmerge to reverse.
    records : tuple of RecordKey, optional
        Two records of one customer; required without `ledger_id`.

    Returns
    -------
    tuple of LedgerEntry and ResolutionChanges
        The new ledger entry, and the changes it causes.

    Raises
    ------
    NotFound
        If the ledger has no such decision.
    UsageError
        If the decision is already undone, or the two records are not one customer.
    """
    ledger = Ledger(lake.workspace)
    lake.state("customers")
    entry = _decision(ledger, ledger_id) if ledger_id is not None else None
    if entry is not None:
        assert entry.left is not None
        assert entry.right is not None  # `_decision` returns only entries with two records
        records = entry.left, entry.right
    assert records is not None
    if entry is None and not explain(lake, settings, *records).same:
        raise UsageError(
            "the two records are not one customer",
            got=" and ".join(":".join(record) for record in records),
            hint="`qianmian identity explain` gives the reason; "
            "`qianmian identity resolve` applies rules and links that changed since the last ingest",
        )
    with exclusive_writer(lake.workspace):
        if entry is not None and entry.action == UNMERGE:
            written = ledger.remerge(entry, reason, decided_at)
        else:
            written = ledger.unmerge(*records, reason, decided_at, ledger_id)
    return written, resolve_and_compare(lake, settings, decided_at, dry_run=False)


def _decision(ledger: Ledger, ledger_id: str) -> LedgerEntry:
    """The merge or unmerge with this id, if it is in force."""
    entries = ledger.entries(f"ledger_id = {literal(ledger_id)}")
    if not entries:
        raise NotFound(
            "the ledger has no such decision",
            where=str(ledger.folder),
            got=ledger_id,
            hint="`qianmian identity explain RECORD` lists the decisions",
        )
    last = entries[-1]
    undone = ledger.entries(f"refers_to = {literal(ledger_id)}")
    if last.action == UNMERGE:
        if any(entry.action == REMERGE for entry in undone):
            raise UsageError(
                "the unmerge is already undone", got=ledger_id, hint="unmerge the two records by their names"
            )
    elif last.action != MERGE or last.right is None:
        raise UsageError(
            "the ledger entry is not a merge in force",
            got=f"{ledger_id}: {last.action}",
            allowed="a merge, or an unmerge to be reversed",
            hint="`qianmian identity explain RECORD` lists the decisions that formed a customer",
        )
    return last
