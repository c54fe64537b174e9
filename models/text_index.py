"""`TextIndex`: which of many texts have one of some wanted parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Self

import numpy as np
from numpy.typing import NDArray


class TextIndex:
    """The parts of n texts, sorted, so that wanted ones are found without a comparison with every text.

    Examples
    --------
    >>> index = TextIndex.of(np.array(["a|b", "b", "c"]), lambda text: text.split("|"))
    >>> index.having(["b", "x"]).tolist()
    [True, True, False]
    """

    def __init__(self, parts: NDArray[np.str_], owners: NDArray[np.int64], n: int) -> None:
        self._parts, codes = np.unique(parts, return_inverse=True)
        by_part = np.argsort(codes, kind="stable")
        self._owners, self._n = owners[by_part], n
        self._starts = np.searchsorted(codes[by_part], np.arange(len(self._parts) + 1))
        self._width = self._parts.dtype.itemsize // np.dtype("U1").itemsize

    @classmethod
    def of(cls, texts: NDArray[np.str_], parts_of: Callable[[str], Iterable[str]] | None = None) -> Self:
        """Index texts, (n,), by the parts that a function returns; by the whole text without one."""
        if parts_of is None:
            return cls(texts, np.arange(len(texts)), len(texts))
        parts = [list(parts_of(text)) for text in texts.tolist()]
        owners = np.repeat(np.arange(len(texts)), [len(found) for found in parts])
        return cls(np.asarray([part for found in parts for part in found], dtype=np.str_), owners, len(texts))

    def having(self, wanted: Iterable[str]) -> NDArray[np.bool_]:
        """Return which texts have one of the wanted parts, bool, (n,)."""
        mask = np.zeros(self._n, dtype=bool)
        # a longer text is no part, and NumPy would give all parts its length to compare them
        texts = np.asarray([text for text in wanted if len(text) <= self._width], dtype=self._parts.dtype)
        if not len(self._parts) or not len(texts):
            return mask
        place = np.minimum(np.searchsorted(self._parts, texts), len(self._parts) - 1)
        for part in np.unique(place[self._parts[place] == texts]).tolist():
            mask[self._owners[self._starts[part] : self._starts[part + 1]]] = True
        return mask


def levels(path: str) -> list[str]:
    """Return a path and all those above it.

    Examples
    --------
    >>> levels("food/tea/green")
    ['food', 'food/tea', 'food/tea/green']
    """
    return [path[:place] for place, letter in enumerate(path) if letter == "/"] + [path]
