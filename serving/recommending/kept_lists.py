"""`KeptLists`: the lists of the customers that were asked for last, so that their next plain request is a look-up."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.ranked import Ranked
from serving.metrics import KEPT, Increments, count, one_more

HIT, MISS = one_more(KEPT, "hit"), one_more(KEPT, "miss")
LENGTH = 50  # items of a kept list; a longer one is computed for each request
Key = tuple[str, int, str]  # scene, row of the customer, purchased option


class ShownList(NamedTuple):
    """The JSON (without braces) of a list, and what the metrics count whenever it is shown, fresh or stale."""

    json: bytes
    counts: Increments
    stale_counts: Increments


@dataclass(slots=True)
class KeptList:
    """One list, and its first `k` items as they were shown last.

    `version` is that of the catalogue that it was made from (`Catalogue.version`).
    """

    ranked: Ranked
    version: int | None = None
    k: int = 0
    shown: ShownList | None = None


class KeptLists:
    """Lists of requests that say nothing but customer, scene and purchased option, which follow from the model alone.

    The models do not change while they are served. If the availability of items does, `apply` drops the lists that this
    makes wrong, and no others. Whatever reads the catalogue names its version, so that no list stays that was computed
    meanwhile from the catalogue before. The list that was used least recently makes room for a new one. Threads may
    share an object.

    Parameters
    ----------
    most : int
        Number of lists, each of about 1.5 KB, and their JSON of 1 KB for 10 items, 5 KB for `LENGTH`; 0 keeps none.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._lists: OrderedDict[Key, KeptList] = OrderedDict()
        self._lock = threading.Lock()
        # all lists are right for the first, and new ones have to be for the second, which is higher during `apply`
        self._version = self._next_version = 0

    def __len__(self) -> int:
        return len(self._lists)

    def get(self, key: Key, k: int, rank: Callable[[int], Ranked], version: int | None = None) -> Ranked:
        """Return the first k items of a kept list.

        Parameters
        ----------
        key : tuple
            What the list depends on.
        k : int
            Length of the result.
        rank : callable
            Ranks as many items as its argument says; called for a list that is not kept.
        version : int, optional
            Version of the catalogue that `rank` reads; None if it does not change.

        Returns
        -------
        Ranked
            Shape (1, k).
        """
        if k > LENGTH or not self.most:
            return rank(k)
        found = self._found(key) if version is None or version == self._version else None
        count(HIT if found is not None else MISS)
        if found is None:
            found = KeptList(rank(LENGTH), version)
            with self._lock:
                if self._may_keep(version):
                    self._lists[key] = found
                    if len(self._lists) > self.most:
                        self._lists.popitem(last=False)
        return found.ranked.first(k)

    def apply(self, version: int, off: Sequence[int] = (), back_from: int | None = None) -> None:
        """Drop the lists that a change of the availability of items makes wrong.

        Until this returns, it may be that lists from before are still read.

        Parameters
        ----------
        version : int
            Version of the catalogue from now on.
        off : sequence of int
            Columns of items that are available no more: lists that contain one are dropped.
        back_from : int, optional
            Items are available again that were not from this version on: lists made meanwhile are dropped.
        """
        with self._lock:
            self._next_version = version
            lists = [(key, kept) for key, kept in self._lists.items() if kept.version is not None]
        wrong = _with_any([kept.ranked for _, kept in lists], off) if off else np.zeros(len(lists), dtype=bool)
        if back_from is not None:
            wrong |= np.array([(kept.version or 0) >= back_from for _, kept in lists], dtype=bool)
        short = [one for one in lists if one[1].k > one[1].ranked.valid[0]]
        with self._lock:
            for key, kept in short:  # whose JSON says how many items are available
                if self._lists.get(key) is kept:
                    self._lists[key] = KeptList(kept.ranked, kept.version)
            for place in np.flatnonzero(wrong).tolist():
                key, kept = lists[place]
                now = self._lists.get(key)
                if now is not None and now.ranked is kept.ranked:  # it may have got JSON meanwhile
                    del self._lists[key]
            self._version = version

    def _may_keep(self, version: int | None) -> bool:
        return version is None or version >= self._next_version

    @property
    def is_full(self) -> bool:
        """Whether a further list would take the place of another."""
        return len(self._lists) >= self.most

    def __contains__(self, key: Key) -> bool:
        return key in self._lists

    def fill(self, key: Key, ranked: Ranked, version: int | None = None) -> bool:
        """Keep a list of `LENGTH` items as the one used least recently, unless it is kept or there is no room."""
        with self._lock:
            if key in self._lists or self.is_full or not self._may_keep(version):
                return False
            self._lists[key] = KeptList(ranked, version)
            self._lists.move_to_end(key, last=False)
            return True

    def shown(self, key: Key, k: int) -> ShownList | None:
        """Return the first k items of a kept list as they were shown last, None if they are not kept."""
        found = self._found(key) if k <= LENGTH else None
        return found.shown if found is not None and found.k == k else None

    def keep_shown(self, key: Key, k: int, shown: ShownList, version: int | None = None) -> None:
        """Keep how the first k items of a list, at most `LENGTH`, are shown, beside the list, if that is kept.

        It replaces what is kept of another length.
        """
        if k > LENGTH:
            return
        with self._lock:
            kept = self._lists.get(key)
            if kept is not None and self._may_keep(version):
                self._lists[key] = KeptList(kept.ranked, kept.version, k, shown)

    def _found(self, key: Key) -> KeptList | None:
        with self._lock:
            found = self._lists.get(key)
            if found is not None:
                self._lists.move_to_end(key)
        return found


def _with_any(lists: Sequence[Ranked], columns: Sequence[int]) -> NDArray[np.bool_]:
    """Which lists contain any of these columns, shape (n,)."""
    if not lists:
        return np.zeros(0, dtype=bool)
    begins = np.cumsum([0, *(ranked.ids.shape[1] for ranked in lists[:-1])])
    found = np.isin(np.concatenate([ranked.ids for ranked in lists], axis=1)[0], columns)
    return np.logical_or.reduceat(found, begins)
