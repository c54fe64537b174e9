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

ALWAYS = int(np.iinfo(np.int64).min)  # the time of what is undated: it held always
NO_CLAIM = ALWAYS
NOBODY = -1
APART = -1  # refused because somebody said so; any other reason is the position of the strong type
ROUNDS = 32  # groups with more links than this are finished one link at a time


@dataclass(frozen=True)
class Level:
    """The rule of one id type: beyond `max_customers` a value links nobody; sightings further apart than `expires` (µs) do not link."""

    max_customers: int | None = None
    expires: int | None = None


@dataclass(frozen=True)
class Sightings:
    """Who held which value when, sorted by (level, value, time, record)."""

    level: NDArray[np.int8]
    value: Codes
    record: Codes
    time: Ints


@dataclass(frozen=True)
class Links:
    """Candidate links; `left` is the older record, `time` when both ends had been seen."""

    left: Codes
    right: Codes
    time: Ints
    level: NDArray[np.int8]
    value: Codes

    @classmethod
    def joined(cls, parts: Sequence[Links]) -> Links:
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
class Grouping:
    """The outcome.

    Attributes
    ----------
    customer : int32 (n,)
        The oldest record of each record's customer, all times taken together.
    links : Links
        Every candidate link, refused ones too.
    accepted : bool (m,)
        The links that hold.
    refused : int64 (r, 2)
        Link and why: position of the strong type, or `APART`.
    shared : int32 (s, 2)
        Values that link nobody, and how many customers hold them.
    owner, since, by : (n,)
        Whose a record's customer became when it stopped being the oldest of its own (or `NOBODY`), when, and by which link.
    """

    customer: Codes
    links: Links
    accepted: Flags
    refused: Ints
    shared: Codes
    owner: Codes
    since: Ints
    by: Codes


def group(
    count: int, levels: Sequence[Level], sightings: Sightings, given: Links, claims: Ints, apart: Codes, tie: Ints
) -> Grouping:
    """Group `count` records.

    Parameters
    ----------
    given : Links
        Links somebody else found, of level ``len(levels)``: they come last.
    claims : int64 (s, n)
        The value each record holds of each strong type, or `NO_CLAIM`.
    apart : int32 (k, 2)
        Pairs that must never become one.
    tie : int64 (v,)
        A number a value that does not depend on what else is there; breaks the last ties.

    Examples
    --------
    Two records hold value 0; the third one's claim contradicts the first one's, so value 1 does not link them.

    >>> zeros = np.zeros(4, dtype=np.int8)
    >>> seen = Sightings(zeros, np.int32([0, 0, 1, 1]), np.int32([0, 1, 1, 2]), np.int64([5, 6, 7, 8]))
    >>> claims = np.int64([[1, NO_CLAIM, 2]])
    >>> found = group(3, [Level()], seen, Links.joined([]), claims, np.zeros((0, 2), np.int32), np.int64([0, 1]))
    >>> found.customer.tolist(), found.since[1].item(), found.refused.tolist()
    ([0, 0, 2], 6, [[1, 0]])
    """
    customer = np.arange(count, dtype=np.int32)
    claims = claims.copy()
    parts: list[Links] = []
    refused: list[tuple[int, int]] = []
    shared: list[Codes] = []
    offset = 0
    for number in range(len(levels) + 1):
        if number < len(levels):
            begin, end = np.searchsorted(sightings.level, [number, number + 1])
            part, over = _links_of(sightings, int(begin), int(end), levels[number], customer, number)
            shared.append(over)
        else:
            part = given
        if len(part):
            customer, kept_apart = _merged(customer, part, claims, apart, tie)
            refused += [(offset + link, why) for link, why in kept_apart]
            parts.append(part)
            offset += len(part)
    links = Links.joined(parts)
    accepted = customer[links.left] == customer[links.right]
    owner, since, by = _history(customer, links, np.flatnonzero(accepted), tie)
    return Grouping(
        customer,
        links,
        accepted,
        np.array(refused, dtype=np.int64).reshape(-1, 2),
        np.concatenate([np.zeros((0, 2), dtype=np.int32), *shared]),
        owner,
        since,
        by,
    )


def _links_of(
    sightings: Sightings, begin: int, end: int, level: Level, customer: Codes, number: int
) -> tuple[Links, Codes]:
    """Each sighting of a value to the one before it (the first undated one where that has expired); values held by too many to none."""
    value, record, time = (getattr(sightings, name)[begin:end] for name in ("value", "record", "time"))
    over = np.zeros((0, 2), dtype=np.int32)
    if not len(value):
        return Links.joined([]), over
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
        places = np.flatnonzero(holders > level.max_customers)
        over = np.column_stack([value[places], holders[places]]).astype(np.int32)
        links_somebody = holders[first] <= level.max_customers
    here = np.arange(len(value))
    before = here - 1
    possible = links_somebody & (here != first)
    if level.expires is not None:
        dated = (time != ALWAYS) & (time[before] != ALWAYS)
        expired = possible & dated & (np.where(dated, time, 0) - np.where(dated, time[before], 0) > level.expires)
        before = np.where(expired, first, before)
        possible &= ~expired | (time[first] == ALWAYS)  # what is undated never expires
    possible &= record != record[before]
    one, other = record[possible], record[before[possible]]
    kept = Links(
        np.minimum(one, other),
        np.maximum(one, other),
        time[possible],
        np.full(len(one), number, dtype=np.int8),
        value[possible],
    )
    return kept, over


def _merged(customer: Codes, part: Links, claims: Ints, apart: Codes, tie: Ints) -> tuple[Codes, list[tuple[int, int]]]:
    """The customers after the links of one level; `claims` is kept up at the position of each customer. Also the refused links."""
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
    for claim in claims:
        has = np.flatnonzero(claim[nodes] != NO_CLAIM)
        any_of = np.full(number, NO_CLAIM)
        any_of[component[has]] = claim[nodes[has]]
        contradicts[component[has[claim[nodes[has]] != any_of[component[has]]]]] = True
    if len(apart):
        pair = customer[apart[inside[customer[apart]].all(axis=1)]]
        met = component[place[pair]]
        contradicts[met[met[:, 0] == met[:, 1], 0]] = True
    becomes = oldest[component]
    refused: list[tuple[int, int]] = []
    odd = np.flatnonzero(contradicts[component[ends[0]]])
    if len(odd):
        slow = crossing[odd]
        order = np.lexsort((tie[part.value[slow]], part.right[slow], part.left[slow], part.time[slow]))
        forest, refused = _walk(slow[order], left, right, claims, customer[apart] if len(apart) else apart)
        stays = np.flatnonzero(contradicts[component])
        becomes[stays] = [_root(forest, node) for node in nodes[stays].tolist()]
    for claim in claims:
        has = np.flatnonzero(claim[nodes] != NO_CLAIM)
        claim[becomes[has]] = claim[nodes[has]]
    renamed = np.arange(len(customer), dtype=np.int32)
    renamed[nodes] = becomes
    return renamed[customer], refused


def _root(forest: dict[int, int], node: int) -> int:
    top = node
    while (above := forest.get(top, top)) != top:
        top = above
    while (above := forest.get(node, node)) != top:  # the next question about these is short
        forest[node] = top
        node = above
    return top


def _walk(
    order: Ints, left: Codes, right: Codes, claims: Ints, apart: Codes
) -> tuple[dict[int, int], list[tuple[int, int]]]:
    """Join customers link by link; a link that would put a contradiction into one of them is refused."""
    forest: dict[int, int] = {}
    held = {int(node): claims[:, node].tolist() for node in np.unique(np.concatenate([left[order], right[order]]))}
    enemies: dict[int, set[int]] = {}
    for one, other in apart.tolist():
        if one in held and other in held:
            enemies.setdefault(one, set()).add(other)
            enemies.setdefault(other, set()).add(one)
    refused: list[tuple[int, int]] = []
    for link, one, other in zip(order.tolist(), left[order].tolist(), right[order].tolist(), strict=True):
        older, younger = sorted((_root(forest, one), _root(forest, other)))
        if older == younger:
            continue
        mine, theirs = held[older], held[younger]
        why = next(
            (at for at, (a, b) in enumerate(zip(mine, theirs, strict=True)) if NO_CLAIM not in (a, b) and a != b), None
        )
        if why is None and any(_root(forest, enemy) == older for enemy in enemies.get(younger, ())):
            why = APART
        if why is not None:
            refused.append((link, why))
            continue
        forest[younger] = older
        held[older] = [b if a == NO_CLAIM else a for a, b in zip(mine, theirs, strict=True)]
        if younger in enemies:
            enemies.setdefault(older, set()).update(enemies[younger])
    return forest, refused


def _history(customer: Codes, links: Links, accepted: Ints, tie: Ints) -> tuple[Codes, Ints, Codes]:
    """Replay the accepted links in time: when did each record stop being the oldest of its customer, whose did it become, by which link."""
    owner = np.full(len(customer), NOBODY, dtype=np.int32)
    by = np.full(len(customer), NOBODY, dtype=np.int32)
    since = np.full(len(customer), ALWAYS)
    if not len(accepted):
        return owner, since, by
    at = customer[links.left[accepted]]
    number = np.bincount(at, minlength=len(customer))
    alone = number[at] == 1
    several = accepted[~alone]
    keys = (
        tie[links.value[several]],
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
        one, other = _tops(top, links.left[chosen]), _tops(top, links.right[chosen])
        new = one != other
        older, younger = np.minimum(one, other)[new], np.maximum(one, other)[new]
        top[younger] = older
        owner[younger], since[younger], by[younger] = older, links.time[chosen[new]], chosen[new]

    for step in range(min(ROUNDS, int(sizes.max()))):  # the n-th link of every customer at once: no two of them meet
        join(starts[sizes > step] + step)
    long = np.flatnonzero(sizes > ROUNDS)
    if len(long):
        forest = {int(node): int(top[node]) for node in np.flatnonzero(np.isin(customer, at[starts[long]]))}
        for start, size in zip(starts[long].tolist(), sizes[long].tolist(), strict=True):
            rest = order[start + ROUNDS : start + size]
            ends = zip(rest.tolist(), links.left[rest].tolist(), links.right[rest].tolist(), strict=True)
            for link, one, other in ends:
                older, younger = sorted((_root(forest, one), _root(forest, other)))
                if older != younger:
                    forest[younger] = older
                    owner[younger], since[younger], by[younger] = older, links.time[link], link
    return owner, since, by


def _tops(top: Codes, nodes: Codes) -> Codes:
    found = top[nodes]
    while ((above := top[found]) != found).any():
        found = above
    top[nodes] = found
    return found


def periods(grouping: Grouping, first_seen: Ints) -> tuple[Codes, Codes, Ints, Codes]:
    """The rows of `customers` of linked records: record, whose (the oldest record of that customer then), since when, by which link.

    A row that another one replaces at the same moment is left out; so is a record's own first row where it was linked when first seen.

    Returns
    -------
    tuple of arrays
        (k,) each: record int32, owner int32, since int64 (µs or `ALWAYS`), link int32 (`NOBODY` for a record's own first row).
    """
    owner, since, by = grouping.owner, grouping.since, grouping.by
    joined = np.flatnonzero(owner != NOBODY).astype(np.int32)
    alone = np.flatnonzero((owner == NOBODY) | (since > first_seen)).astype(np.int32)
    rows = [(alone, alone, first_seen[alone], np.full(len(alone), NOBODY, dtype=np.int32))]
    record, current = joined, joined
    while len(record):
        above = owner[current]
        ends = owner[above] == NOBODY
        lasting = ends | (since[above] > since[current])
        rows.append((record[lasting], above[lasting], since[current[lasting]], by[current[lasting]]))
        record, current = record[~ends], above[~ends]
    record, whose, moment, link = (np.concatenate(column) for column in zip(*rows, strict=True))
    return record, whose, moment, link
