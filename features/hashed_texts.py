"""`HashedTexts`: where a text stands among millions, without a Python object for each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 65_536  # texts that are Python objects at a time
EMPTY = -1  # in the place of a row
REMEMBERED = 32_768  # texts looked up last, some 200 bytes each: customers who come back do so within minutes


class HashedTexts:
    """The rows of each text of a sequence, in order.

    An open hash table with linear probing, of rows only: the texts stay where they are, and a text that is looked up is
    compared with those at the rows of its hash. It takes 8 to 16 bytes for a text, a dictionary more than 150. Finding
    a text takes a microsecond, or as long as in a dictionary if it is one of those looked up last.

    Parameters
    ----------
    texts : sequence of str, or ndarray of str
        Each at few rows.

    Examples
    --------
    >>> index = HashedTexts(["b", "a", "b"])
    >>> index.rows("b"), index.get("a", -1), index.get("x", -1), "x" in index
    ((0, 2), 1, -1, False)
    """

    def __init__(self, texts: Sequence[str] | NDArray[np.str_]) -> None:
        blocks = (texts[start : start + BLOCK] for start in range(0, len(texts), BLOCK))
        hashes = np.fromiter(map(hash, chain.from_iterable(blocks)), np.int64, len(texts))
        self._texts = texts
        self._read: Callable[[int], str] = texts.item if isinstance(texts, np.ndarray) else texts.__getitem__
        self._mask = (1 << (2 * len(texts)).bit_length()) - 1  # at least half of the places stay empty
        self._places: Any = _places(hashes & self._mask, self._mask).data  # a memoryview: read faster than an array

        self.rows: Callable[[str], tuple[int, ...]] = lru_cache(REMEMBERED)(self._rows)  # all rows of a text

    def __reduce__(self) -> tuple[Any, ...]:
        return HashedTexts, (self._texts,)  # another process has other hashes

    def __contains__(self, wanted: str) -> bool:
        return bool(self.rows(wanted))

    def get(self, wanted: str, default: int) -> int:
        """The first row of a text, as `dict.get`."""
        rows = self.rows(wanted)
        return rows[0] if rows else default

    def _rows(self, wanted: str) -> tuple[int, ...]:
        read, places, mask = self._read, self._places, self._mask
        found: list[int] = []
        place = hash(wanted) & mask
        while (row := places[place]) >= 0:
            if read(row) == wanted:
                found.append(row)
            place = (place + 1) & mask
        return tuple(found)


def _places(wanted: NDArray[np.int64], mask: int) -> NDArray[np.int32]:
    """The table: each row at the place that it wants, or at the first empty one after it."""
    table = np.full(mask + 1, EMPTY, dtype=np.int32)
    rows, places = np.arange(len(wanted), dtype=np.int32), wanted
    while len(rows):
        empty = table[places] == EMPTY
        # of the rows that want the same empty place the first gets it, so that the rows of a text stay in order
        table[places[empty][::-1]] = rows[empty][::-1]
        moved = table[places] != rows
        rows, places = rows[moved], (places[moved] + 1) & mask
    return table
