"""`KeptLists`: the lists of the customers that were asked for last, so that their next plain request is a look-up."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from models.ranked import Ranked

LENGTH = 50  # items of a kept list; a longer one is computed for each request
Key = tuple[str, int, str]  # scene, row of the customer, purchased option


@dataclass(slots=True)
class KeptList:
    """One list, and the JSON (without braces) of its first `k` items as they were shown last."""

    ranked: Ranked
    k: int = 0
    json: bytes = b""


class KeptLists:
    """Lists of requests that say nothing but customer, scene and purchased option, which follow from the model alone.

    The models and the availability of items do not change while they are served, so a list stays right. The list
    that was used least recently makes room for a new one. Threads may share an object.

    Parameters
    ----------
    most : int
        Number of lists, each of about 1.5 KB, and their JSON of 1 KB for 10 items, 5 KB for `LENGTH`; 0 keeps none.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._lists: OrderedDict[Key, KeptList] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._lists)

    def get(self, key: Key, k: int, rank: Callable[[int], Ranked]) -> Ranked:
        """Return the first k items of a kept list.

        Parameters
        ----------
        key : tuple
            What the list depends on.
        k : int
            Length of the result.
        rank : callable
            Ranks as many items as its argument says; called for a list that is not kept.

        Returns
        -------
        Ranked
            Shape (1, k).
        """
        if k > LENGTH or not self.most:
            return rank(k)
        found = self._found(key)
        if found is None:
            found = KeptList(rank(LENGTH))
            with self._lock:
                self._lists[key] = found
                if len(self._lists) > self.most:
                    self._lists.popitem(last=False)
        return found.ranked.first(k)

    @property
    def is_full(self) -> bool:
        """Whether a further list would take the place of another."""
        return len(self._lists) >= self.most

    def __contains__(self, key: Key) -> bool:
        return key in self._lists

    def fill(self, key: Key, ranked: Ranked) -> bool:
        """Keep a list of `LENGTH` items as the one used least recently, unless it is kept or there is no room."""
        with self._lock:
            if key in self._lists or self.is_full:
                return False
            self._lists[key] = KeptList(ranked)
            self._lists.move_to_end(key, last=False)
            return True

    def json(self, key: Key, k: int) -> bytes | None:
        """Return the JSON of the first k items of a kept list, None if it is not kept."""
        found = self._found(key) if k <= LENGTH else None
        return found.json if found is not None and found.k == k else None

    def keep_json(self, key: Key, k: int, json: bytes) -> None:
        """Keep the JSON of the first k items of a list, at most `LENGTH`, beside the list, if that is kept.

        It replaces the JSON of another length.
        """
        if k > LENGTH:
            return
        with self._lock:
            if key in self._lists:
                self._lists[key] = KeptList(self._lists[key].ranked, k, json)

    def _found(self, key: Key) -> KeptList | None:
        with self._lock:
            found = self._lists.get(key)
            if found is not None:
                self._lists.move_to_end(key)
        return found
