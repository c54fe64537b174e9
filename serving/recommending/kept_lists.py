"""`KeptLists`: the lists of the customers that were asked for last, so that their next plain request is a look-up."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from models.ranked import Ranked

LENGTH = 50  # items of a kept list; a longer one is computed for each request
Key = tuple[str, int, str]  # scene, row of the customer, purchased option


class KeptLists:
    """Lists of requests that say nothing but customer, scene and purchased option, which follow from the model alone.

    The models and the availability of items do not change while a process serves them, so a list stays right. The list
    that was used least recently makes room for a new one. Threads may share an object.

    Parameters
    ----------
    most : int
        Number of lists, each of about 1.5 KB; 0 keeps none.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._lists: OrderedDict[Key, Ranked] = OrderedDict()
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
        with self._lock:
            found = self._lists.get(key)
            if found is not None:
                self._lists.move_to_end(key)
        if found is None:
            found = rank(LENGTH)
            with self._lock:
                self._lists[key] = found
                if len(self._lists) > self.most:
                    self._lists.popitem(last=False)
        return found.first(k)
