"""Cluster records into customers: candidate links from shared values, rejected links, and the merge history.

All data are integers. Records are numbered by age (0 is the oldest), so that the smallest number of a cluster is its
oldest record, whose one_id the customer keeps. Links are processed level by level (one id type per level, the most
trusted first), all links of a level at once. Only clusters with a contradiction are processed link by link, in the
order (time, left, right, tie break).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from features.data.identity.links import (
    NO_RECORD,
    NO_VALUE,
    UNDATED,
    CandidateLinks,
    Codes,
    Flags,
    IdentifierSightings,
    IdTypeRule,
    Ints,
    candidate_links,
)

UNMERGED = -1  # a link rejected by an unmerge; any other reason is the position of the strong type
MAX_VECTORIZED_LINKS = 32  # the remaining links of larger clusters are processed one at a time


@dataclass(frozen=True)
class RecordClusters:
    """Records clustered into customers.

    Attributes
    ----------
    customer : int32 array, shape (n,)
        Oldest record of each record's customer at the end of all data.
    links : CandidateLinks
        All m candidate links, including rejected ones.
    accepted : bool array, shape (m,)
        Links whose two records are one customer.
    rejected : int64 array, shape (r, 2)
        Rejected link, and the reason: position of the strong type, or `UNMERGED`.
    shared : int32 array, shape (s, 2)
        Shared value, and the number of customers that hold it.
    merged_into, merged_at, merged_by : array, shape (n,)
        The merge at which a record stopped being the oldest of its customer: oldest record of the other customer
        (`NO_RECORD` if there was no such merge), time in µs, and link.
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
    """Cluster `count` records into customers.

    Parameters
    ----------
    count : int
        Number of records n.
    levels : sequence of IdTypeRule
        Rules of the id types, the most trusted first.
    sightings : IdentifierSightings
        Sightings of values by records.
    linkage_links : CandidateLinks
        Links from record linkage, of level ``len(levels)``: they are processed last.
    strong_values : int64 array, shape (s, n)
        Value of each record for each strong type, or `NO_VALUE`.
    unmerged_pairs : int32 array, shape (k, 2)
        Pairs of records that must never be one customer.
    tie_break : int64 array, shape (v,)
        A number per value that does not depend on the other values; it breaks the remaining ties.

    Examples
    --------
    Records 0 and 1 hold value 0. Records 0 and 2 have different strong values, so value 1 does not link 1 and 2.

    >>> zeros = np.zeros(4, dtype=np.int8)
    >>> seen = IdentifierSightings(zeros, np.int32([0, 0, 1, 1]), np.int32([0, 1, 1, 2]), np.int64([5, 6, 7, 8]))
    >>> no_links, no_pairs = CandidateLinks.joined([]), np.zeros((0, 2), np.int32)
    >>> strong_values, tie_break = np.int64([[1, NO_VALUE, 2]]), np.int64([0, 1])
    >>> clusters = cluster_records(3, [IdTypeRule()], seen, no_links, strong_values, no_pairs, tie_break)
    >>> clusters.customer.tolist(), clusters.merged_at[1].item(), clusters.rejected.tolist()
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
            part, over = candidate_links(sightings, int(begin), int(end), levels[number], customer, number)
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


def _merge_level(
    customer: Codes, part: CandidateLinks, strong_values: Ints, unmerged_pairs: Codes, tie_break: Ints
) -> tuple[Codes, list[tuple[int, int]]]:
    """Customers after the links of one level, and the rejected links with their reason.

    `strong_values` is updated in place, at the position of each customer's oldest record.
    """
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
    oldest[component[::-1]] = nodes[::-1]  # the nodes ascend, so the last one written is the smallest
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
    contradicting = np.flatnonzero(contradicts[component[ends[0]]])
    if len(contradicting):
        slow = crossing[contradicting]
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
    while (above := parent_of.get(node, node)) != top:  # path compression: the next search is short
        parent_of[node] = top
        node = above
    return top


def _merge_one_by_one(
    order: Ints, left: Codes, right: Codes, strong_values: Ints, unmerged_pairs: Codes
) -> tuple[dict[int, int], list[tuple[int, int]]]:
    """Merge customers link by link (union-find); a link whose merge would contain a contradiction is rejected.

    Returns
    -------
    tuple of dict and list
        Parent of each merged customer; rejected links with their reason.
    """
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
        if why is None and any(_find_root(parent_of, node) == older for node in unmerged_from.get(younger, ())):
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
    """Replay the accepted links in time order: `merged_into`, `merged_at` and `merged_by` of `RecordClusters`."""
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

    # the n-th links of all customers at once: they belong to different customers, so they do not interact
    for step in range(min(MAX_VECTORIZED_LINKS, int(sizes.max()))):
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
    roots = top[nodes]
    while ((above := top[roots]) != roots).any():
        roots = above
    top[nodes] = roots
    return roots
