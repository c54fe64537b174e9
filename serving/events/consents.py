"""Consents that accepted events give or withdraw: in the profile at once, and never one that was withdrawn."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from features.event_log.rows import EventRow
from features.profiles.snapshot import Snapshot
from qianmian.schema import TABLES
from serving.events.customers import ReadRows

TABLE = "profiles"
CATEGORY = "basic"  # of the tags
COLUMNS = tuple(name for name in TABLES[TABLE].names if name.startswith("consent_"))


class _Told(NamedTuple):
    """What an event tells of a consent. Of two the greater holds: the newest, at the same time the withdrawal."""

    ts: datetime
    is_withdrawn: bool


def live_consents(read: ReadRows, snapshot: Snapshot, log_id: str | None) -> dict[str, bool]:
    """The consents of a customer that follow from accepted events; for all others the profile holds.

    Events that were in the lake when the profiles were built, and before their `as_of`, are left to the profile. A
    grant from before the `as_of` that came late is too, because the lake may know that it was withdrawn later. A
    withdrawal that came late counts: at worst a consent is shown too late.

    Parameters
    ----------
    read : ReadRows
        The events of the customer.
    snapshot : Snapshot
        The profiles.
    log_id : str or None
        Name of the log that the events are from.
    """
    position = snapshot.log_position
    known_through = position[1] if position is not None and position[0] == log_id else 0
    unknown = (
        row
        for seq, row in zip(read.seqs, read.rows, strict=True)
        if row.table == TABLE and (seq > known_through or row.values["ts"] >= snapshot.as_of)
    )
    return {
        name: not told.is_withdrawn
        for name, told in _newest(unknown).items()
        if told.is_withdrawn or told.ts >= snapshot.as_of
    }


def _newest(rows: Iterable[EventRow]) -> dict[str, _Told]:
    newest: dict[str, _Told] = {}
    for row in rows:
        for name in COLUMNS:
            granted = row.values.get(name)
            if granted is not None:
                told = _Told(row.values["ts"], not granted)
                newest[name] = max(told, newest.get(name, told))
    return newest
