"""Grouping records into customers: which sightings of one value link, which links are refused, and who was whose since when.

Everything is integers. Records are numbered by age (0 is the oldest), so that the smallest number of a group is its oldest record,
whose one_id the customer keeps. Links are taken level by level (an id type each, the most trusted first), all of a level at once;
only groups in which something contradicts are walked link by link, in the order of (time, left, right, tie).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

Ints = NDArray[np.int64]
Codes = NDArray[np.int32]
Flags = NDArray[np.bool_]

UNDATED = int(np.iinfo(np.int64).min)  # the time of what is undated: it held always
NO_VALUE = UNDATED
NO_RECORD = -1
UNMERGED = -1  # refused because somebody said so; any other reason is the position of the strong type
MAX_VECTORIZED_LINKS = 32  # groups with more links than this are finished one link at a time


@dataclass(frozen=True)
class IdTypeRule:
    """The rule of one id type: beyond `max_customers` a value links nobody; sightings further apart than `expires` (µs) do not link."""

    max_customers: int | None = None
    expires: int | None = None


@dataclass(frozen=True)
class IdentifierSightings:
    """Who held which value when, sorted by (level, value, time, record)."""

    level: NDArray[np.int8]
    value: Codes
    record: Codes
    time: Ints


@dataclass(frozen=True)
class CandidateLinks:
    """Candidate links; `left` is the older record, `time` when both ends had been seen."""

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


@dataclass(frozen=True)
class RecordClusters:
    """The outcome.

    Attributes
    ----------
    customer : int32 (n,)
        The oldest record of each record's customer, all times taken together.
    links : Links
        Every candidate link, refused ones too.
    accepted : bool (m,)
        The links that hold.
    rejected : int64 (r, 2)
        Link and why: position of the strong type, or `UNMERGED`.
    shared : int32 (s, 2)
        Values that link nobody, and how many customers hold them.
    merged_into, merged_at, merged_by : (n,)
        Whose a record's customer became when it stopped being the oldest of its own (or `NO_RECORD`), when, and by which link.
    """

    customer: Codes
    links: CandidateLinks
    accepted: Flags
    rejected: Ints
    shared: Codes
    merged_into: Codes
    merged_at: Ints
    merged_by: Codes


def cluster_records(
    count: int,
    levels: Sequence[IdTypeRule],
    sightings: IdentifierSightings,
    linkage_links: CandidateLinks,
    strong_values: Ints,
    unmerged_pairs: Codes,
    tie_break: Ints,
) -> RecordClusters:
    """Group `count` records.

    Parameters
    ----------
    linkage_links : Links
        Links somebody else found, of level ``len(levels)``: they come last.
    strong_values : int64 (s, n)
        The value each record holds of each strong type, or `NO_VALUE`.
    unmerged_pairs : int32 (k, 2)
        Pairs that must never become one.
    tie_break : int64 (v,)
        A number a value that does not depend on what else is there; breaks the last ties.

    Examples
    --------
    Two records hold value 0; the third one's claim contradicts the first one's, so value 1 does not link them.

    >>> zeros = np.zeros(4, dtype=np.int8)
    >>> seen = IdentifierSightings(zeros, np.int32([0, 0, 1, 1]), np.int32([0, 1, 1, 2]), np.int64([5, 6, 7, 8]))
    >>> strong_values = np.int64([[1, NO_VALUE, 2]])
    >>> found = cluster_records(3, [IdTypeRule()], seen, CandidateLinks.joined([]), strong_values, np.zeros((0, 2), np.int32), np.int64([0, 1]))
    >>> found.customer.tolist(), found.merged_at[1].item(), found.rejected.tolist()
    ([0, 0, 2], 6, [[1, 0]])
    """
    customer = np.arange(count, dtype=np.int32)
    strong_values = strong_values.copy()
    parts: list[CandidateLinks] = []
    rejected: list[tuple[int, int]] = []
    shared: list[Codes] = []
    offset = 0
    for number in range(len(levels) + 1):
        if number < len(levels):
            begin, end = np.searchsorted(sightings.level, [number, number + 1])
            part, over = _candidate_links(sightings, int(begin), int(end), levels[number], customer, number)
            shared.append(over)
        else:
            part = linkage_links
        if len(part):
            customer, kept_apart = _merge_level(customer, part, strong_values, unmerged_pairs, tie_break)
            rejected += [(offset + link, why) for link, why in kept_apart]
            parts.append(part)
            offset += len(part)
    links = CandidateLinks.joined(parts)
    accepted = customer[links.left] == customer[links.right]
    merged_into, merged_at, merged_by = _merge_history(customer, links, np.flatnonzero(accepted), tie_break)
    return RecordClusters(
        customer,
        links,
        accepted,
        np.array(rejected, dtype=np.int64).reshape(-1, 2),
        np.concatenate([np.zeros((0, 2), dtype=np.int32), *shared]),
        merged_into,
        merged_at,
        merged_by,
    )


def _candidate_links(
    sightings: IdentifierSightings, begin: int, end: int, level: IdTypeRule, customer: Codes, number: int
) -> tuple[CandidateLinks, Codes]:
    """Each sighting of a value to the one before it (the first undated one where that has expired); values held by too many to none."""
    value, record, time = (getattr(sightings, name)[begin:end] for name in ("value", "record", "time"))
    over = np.zeros((0, 2), dtype=np.int32)
    if not len(value):
        return CandidateLinks.joined([]), over
    starts = np.flatnonzero(np.concatenate([[True], value[1:] != value[:-1]]))
    sizes = np.diff(np.append(starts, len(value)))
    first = np.repeat(starts, sizes)
    links_somebody = np.ones(len(value), dtype=bool)
    if level.max_customers is not None and (crowded := sizes > level.max_customers).any():
        held = np.flatnonzero(np.repeat(crowded, sizes))
        pairs = np.unique(
            first[held].astype(np.int64) << 32 | customer[record[held]]
        )  # customers as more trusted types have them
        holders = np.bincount(pairs >> 32, minlength=len(value))
        shared_values = np.flatnonzero(holders > level.max_customers)
        over = np.column_stack([value[shared_values], holders[shared_values]]).astype(np.int32)
        links_somebody = holders[first] <= level.max_customers
    here = np.arange(len(value))
    before = here - 1
    possible = links_somebody & (here != first)
    if level.expires is not None:
        dated = (time != UNDATED) & (time[before] != UNDATED)
        expired = possible & dated & (np.where(dated, time, 0) - np.where(dated, time[before], 0) > level.expires)
        before = np.where(expired, first, before)
        possible &= ~expired | (time[first] == UNDATED)  # what is undated never expires
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


def _merge_level(
    customer: Codes, part: CandidateLinks, strong_values: Ints, unmerged_pairs: Codes, tie_break: Ints
) -> tuple[Codes, list[tuple[int, int]]]:
    """The customers after the links of one level; `strong_values` is kept up at the position of each customer. Also the refused links."""
    left, right = customer[part.left], customer[part.right]
    crossing = np.flatnonzero(left != right)
    if not len(crossing):
        return customer, []
    inside = np.zeros(len(customer), dtype=bool)
    inside[left[crossing]] = inside[right[crossing]] = True
    nodes = np.flatnonzero(inside).astype(np.int32)
    place = np.zeros(len(customer), dtype=np.int32)
    place[nodes] = np.arange(len(nodes), dtype=np.int32)
    ends = place[left[crossing]], place[right[crossing]]
    together = coo_matrix((np.ones(len(crossing), dtype=np.int8), ends), shape=(len(nodes), len(nodes)))
    number, component = connected_components(together, directed=False)
    oldest = np.zeros(number, dtype=np.int32)
    oldest[component[::-1]] = nodes[::-1]  # nodes ascend: the last one written is the smallest
    contradicts = np.zeros(number, dtype=bool)
    for strong_value in strong_values:
        has = np.flatnonzero(strong_value[nodes] != NO_VALUE)
        any_of = np.full(number, NO_VALUE)
        any_of[component[has]] = strong_value[nodes[has]]
        contradicts[component[has[strong_value[nodes[has]] != any_of[component[has]]]]] = True
    if len(unmerged_pairs):
        pair = customer[unmerged_pairs[inside[customer[unmerged_pairs]].all(axis=1)]]
        met = component[place[pair]]
        contradicts[met[met[:, 0] == met[:, 1], 0]] = True
    becomes = oldest[component]
    rejected: list[tuple[int, int]] = []
    odd = np.flatnonzero(contradicts[component[ends[0]]])
    if len(odd):
        slow = crossing[odd]
        order = np.lexsort((tie_break[part.value[slow]], part.right[slow], part.left[slow], part.time[slow]))
        parent_of, rejected = _merge_one_by_one(
            slow[order], left, right, strong_values, customer[unmerged_pairs] if len(unmerged_pairs) else unmerged_pairs
        )
        stays = np.flatnonzero(contradicts[component])
        becomes[stays] = [_find_root(parent_of, node) for node in nodes[stays].tolist()]
    for strong_value in strong_values:
        has = np.flatnonzero(strong_value[nodes] != NO_VALUE)
        strong_value[becomes[has]] = strong_value[nodes[has]]
    renamed = np.arange(len(customer), dtype=np.int32)
    renamed[nodes] = becomes
    return renamed[customer], rejected


def _find_root(parent_of: dict[int, int], node: int) -> int:
    top = node
    while (above := parent_of.get(top, top)) != top:
        top = above
    while (above := parent_of.get(node, node)) != top:  # the next question about these is short
        parent_of[node] = top
        node = above
    return top


def _merge_one_by_one(
    order: Ints, left: Codes, right: Codes, strong_values: Ints, unmerged_pairs: Codes
) -> tuple[dict[int, int], list[tuple[int, int]]]:
    """Join customers link by link; a link that would put a contradiction into one of them is refused."""
    parent_of: dict[int, int] = {}
    held = {
        int(node): strong_values[:, node].tolist() for node in np.unique(np.concatenate([left[order], right[order]]))
    }
    unmerged_from: dict[int, set[int]] = {}
    for one, other in unmerged_pairs.tolist():
        if one in held and other in held:
            unmerged_from.setdefault(one, set()).add(other)
            unmerged_from.setdefault(other, set()).add(one)
    rejected: list[tuple[int, int]] = []
    for link, one, other in zip(order.tolist(), left[order].tolist(), right[order].tolist(), strict=True):
        older, younger = sorted((_find_root(parent_of, one), _find_root(parent_of, other)))
        if older == younger:
            continue
        mine, theirs = held[older], held[younger]
        why = next(
            (at for at, (a, b) in enumerate(zip(mine, theirs, strict=True)) if NO_VALUE not in (a, b) and a != b), None
        )
        if why is None and any(_find_root(parent_of, enemy) == older for enemy in unmerged_from.get(younger, ())):
            why = UNMERGED
        if why is not None:
            rejected.append((link, why))
            continue
        parent_of[younger] = older
        held[older] = [b if a == NO_VALUE else a for a, b in zip(mine, theirs, strict=True)]
        if younger in unmerged_from:
            unmerged_from.setdefault(older, set()).update(unmerged_from[younger])
    return parent_of, rejected


def _merge_history(
    customer: Codes, links: CandidateLinks, accepted: Ints, tie_break: Ints
) -> tuple[Codes, Ints, Codes]:
    """Replay the accepted links in time: when did each record stop being the oldest of its customer, whose did it become, by which link."""
    merged_into = np.full(len(customer), NO_RECORD, dtype=np.int32)
    merged_by = np.full(len(customer), NO_RECORD, dtype=np.int32)
    merged_at = np.full(len(customer), UNDATED)
    if not len(accepted):
        return merged_into, merged_at, merged_by
    at = customer[links.left[accepted]]
    number = np.bincount(at, minlength=len(customer))
    alone = number[at] == 1
    several = accepted[~alone]
    keys = (
        tie_break[links.value[several]],
        links.right[several],
        links.left[several],
        links.level[several],
        links.time[several],
        at[~alone],
    )
    order = np.concatenate([accepted[alone], several[np.lexsort(keys)]])
    at = customer[links.left[order]]
    starts = np.flatnonzero(np.concatenate([[True], at[1:] != at[:-1]]))
    sizes = np.diff(np.append(starts, len(order)))
    top = np.arange(len(customer), dtype=np.int32)

    def join(positions: Ints) -> None:
        chosen = order[positions]
        one, other = _find_roots(top, links.left[chosen]), _find_roots(top, links.right[chosen])
        new = one != other
        older, younger = np.minimum(one, other)[new], np.maximum(one, other)[new]
        top[younger] = older
        merged_into[younger], merged_at[younger], merged_by[younger] = older, links.time[chosen[new]], chosen[new]

    for step in range(
        min(MAX_VECTORIZED_LINKS, int(sizes.max()))
    ):  # the n-th link of every customer at once: no two of them meet
        join(starts[sizes > step] + step)
    long = np.flatnonzero(sizes > MAX_VECTORIZED_LINKS)
    if len(long):
        parent_of = {int(node): int(top[node]) for node in np.flatnonzero(np.isin(customer, at[starts[long]]))}
        for start, size in zip(starts[long].tolist(), sizes[long].tolist(), strict=True):
            rest = order[start + MAX_VECTORIZED_LINKS : start + size]
            ends = zip(rest.tolist(), links.left[rest].tolist(), links.right[rest].tolist(), strict=True)
            for link, one, other in ends:
                older, younger = sorted((_find_root(parent_of, one), _find_root(parent_of, other)))
                if older != younger:
                    parent_of[younger] = older
                    merged_into[younger], merged_at[younger], merged_by[younger] = older, links.time[link], link
    return merged_into, merged_at, merged_by


def _find_roots(top: Codes, nodes: Codes) -> Codes:
    found = top[nodes]
    while ((above := top[found]) != found).any():
        found = above
    top[nodes] = found
    return found


def periods(clusters: RecordClusters, first_seen: Ints) -> tuple[Codes, Codes, Ints, Codes]:
    """The rows of `customers` of linked records: record, whose (the oldest record of that customer then), since when, by which link.

    A row that another one replaces at the same moment is left out; so is a record's own first row where it was linked when first seen.

    Returns
    -------
    tuple of arrays
        (k,) each: record int32, owner int32, since int64 (µs or `UNDATED`), link int32 (`NO_RECORD` for a record's own first row).
    """
    merged_into, merged_at, merged_by = clusters.merged_into, clusters.merged_at, clusters.merged_by
    joined = np.flatnonzero(merged_into != NO_RECORD).astype(np.int32)
    alone = np.flatnonzero((merged_into == NO_RECORD) | (merged_at > first_seen)).astype(np.int32)
    rows = [(alone, alone, first_seen[alone], np.full(len(alone), NO_RECORD, dtype=np.int32))]
    record, current = joined, joined
    while len(record):
        above = merged_into[current]
        ends = merged_into[above] == NO_RECORD
        lasting = ends | (merged_at[above] > merged_at[current])
        rows.append((record[lasting], above[lasting], merged_at[current[lasting]], merged_by[current[lasting]]))
        record, current = record[~ends], above[~ends]
    record, whose, moment, link = (np.concatenate(column) for column in zip(*rows, strict=True))
    return record, whose, moment, link
