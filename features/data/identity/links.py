"""Candidate links between records: a value that several records have, unless too many customers share it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qianmian.settings import IdType
from qianmian.times import MICROSECONDS_PER_DAY

Ints = NDArray[np.int64]
Codes = NDArray[np.int32]
Flags = NDArray[np.bool_]

UNDATED = int(np.iinfo(np.int64).min)  # time of a sighting without a time: it is always valid
NO_VALUE = UNDATED
NO_RECORD = -1
VISITOR = np.iinfo(np.int32).max  # instead of a customer: the visitor whose id the value is


@dataclass(frozen=True)
class IdTypeRule:
    """Link rule of one id type.

    Attributes
    ----------
    max_customers : int or None
        A value held by more customers is shared and links no records. None: no limit.
    expires : int or None
        Two sightings further apart than this (µs) do not link. None: no limit.
    """

    max_customers: int | None = None
    expires: int | None = None

    @classmethod
    def of(cls, kind: IdType) -> IdTypeRule:
        """The rule of a declared id type."""
        days = kind.expires_days
        return cls(kind.max_customers, None if days is None else round(days * MICROSECONDS_PER_DAY))


@dataclass(frozen=True)
class IdentifierSightings:
    """Sightings of values by records, parallel arrays of shape (k,), sorted by (level, value, time, record).

    `by_visitor` marks the sightings of an `anonymous_id` by the visitor whose id it is; by default there are none.
    """

    level: NDArray[np.int8]
    value: Codes
    record: Codes
    time: Ints
    by_visitor: Flags | None = None


@dataclass(frozen=True)
class CandidateLinks:
    """Candidate links, parallel arrays of shape (m,); `left` is the older record.

    `time` (µs) is the moment from which both records have been seen with the value.
    """

    left: Codes
    right: Codes
    time: Ints
    level: NDArray[np.int8]
    value: Codes

    @classmethod
    def joined(cls, parts: Sequence[CandidateLinks]) -> CandidateLinks:
        if not parts:
            empty = np.zeros(0, dtype=np.int32)
            return cls(empty, empty, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int8), empty)
        return cls(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("left", "right", "time", "level", "value")
            )
        )

    def __len__(self) -> int:
        return len(self.left)


def candidate_links(
    sightings: IdentifierSightings, begin: int, end: int, level: IdTypeRule, customer: Codes, number: int
) -> tuple[CandidateLinks, Codes]:
    """Link each sighting of a value to the previous one; also the shared values with their number of customers.

    Where the previous sighting has expired, the link goes to the first sighting if that one is undated. A shared value
    gives no links.
    """
    value, record, time = (getattr(sightings, name)[begin:end] for name in ("value", "record", "time"))
    over = np.zeros((0, 2), dtype=np.int32)
    if not len(value):
        return CandidateLinks.joined([]), over
    starts = np.flatnonzero(np.concatenate([[True], value[1:] != value[:-1]]))
    sizes = np.diff(np.append(starts, len(value)))
    first = np.repeat(starts, sizes)
    gives_links = np.ones(len(value), dtype=bool)
    if level.max_customers is not None:
        visitors = np.flatnonzero(sightings.by_visitor[begin:end]) if sightings.by_visitor is not None else starts[:0]
        holders = _holders(record, first, sizes, visitors, customer, level.max_customers)
        shared_values = np.flatnonzero(holders > level.max_customers)
        over = np.column_stack([value[shared_values], holders[shared_values]]).astype(np.int32)
        gives_links = holders[first] <= level.max_customers
    here = np.arange(len(value))
    before = here - 1
    possible = gives_links & (here != first)
    if level.expires is not None:
        dated = (time != UNDATED) & (time[before] != UNDATED)
        expired = possible & dated & (np.where(dated, time, 0) - np.where(dated, time[before], 0) > level.expires)
        before = np.where(expired, first, before)
        possible &= ~expired | (time[first] == UNDATED)  # an undated sighting never expires
    possible &= record != record[before]
    one, other = record[possible], record[before[possible]]
    kept = CandidateLinks(
        np.minimum(one, other),
        np.maximum(one, other),
        time[possible],
        np.full(len(one), number, dtype=np.int8),
        value[possible],
    )
    return kept, over


def _holders(record: Codes, first: Ints, sizes: Ints, visitors: Ints, customer: Codes, max_customers: int) -> Ints:
    """Number of customers that hold each value, at the place of its first sighting; elsewhere 0.

    Where there are certainly not more than `max_customers`, it is 0 too. A visitor counts beside the accounts, even if
    it is one of them by a more trusted identifier: else a second one would be one customer with the first. A visitor
    who has logged in is an account too, and counts as both.
    """
    none = np.zeros(len(record), dtype=np.int64)
    starts = first[np.concatenate([[True], first[1:] != first[:-1]])]
    accounts = visitors[np.isin(record[visitors], np.delete(record, visitors))] if len(visitors) else visitors
    at_most = sizes + np.bincount(np.searchsorted(starts, first[accounts]), minlength=len(starts))
    crowded = at_most > max_customers
    if not crowded.any():
        return none
    held = np.flatnonzero(np.repeat(crowded, sizes))
    # counts customers, not records: the more trusted levels have already merged records
    holder = customer[record]
    accounts = accounts[np.isin(accounts, held)]
    of_accounts = first[accounts].astype(np.int64) << 32 | holder[accounts]
    holder[visitors] = VISITOR
    pairs = np.unique(np.concatenate([first[held].astype(np.int64) << 32 | holder[held], of_accounts]))
    return np.bincount(pairs >> 32, minlength=len(record))
