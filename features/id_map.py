"""`IdMap`: the one way from ids to rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.encoded_rows import text_codes
from features.hashed_texts import HashedTexts

Ids = Sequence[str] | NDArray[np.str_]


class IdMap:
    """The row of each of n unique ids, which may be in any order.

    One id is looked up in a dictionary, built at the first such call. Many ids at a time are looked up by Arrow.

    Examples
    --------
    >>> ids = IdMap(["b", "a"])
    >>> ids.row("a"), ids.row("x"), ids.rows(["a", "x", "b"]).tolist(), ids.split(["x", "a", "a"])
    (1, -1, [1, -1, 0], (array([1]), ['x']))
    """

    def __init__(self, ids: Ids) -> None:
        self._ids = ids

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, wanted: str) -> bool:
        return wanted in self._row_of

    def row(self, wanted: str | None) -> int:
        """The row of one id, −1 where it is unknown or None."""
        return -1 if wanted is None else self._row_of.get(wanted, -1)

    def rows(self, wanted: Ids | pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
        """The row of each of m ids, −1 where it is unknown or null, (m,)."""
        if not isinstance(wanted, (pa.Array, pa.ChunkedArray)):
            wanted = pa.array(wanted, pa.string())
        if pa.types.is_dictionary(wanted.type):  # each different text is looked up once
            texts, codes = text_codes(wanted)
            return np.append(self.rows(texts), -1)[codes]
        found = pc.index_in(wanted, value_set=pa.array(self._ids, pa.string()))
        return np.asarray(found.fill_null(-1), dtype=np.int64)

    def split(self, wanted: Iterable[str]) -> tuple[NDArray[np.int64], list[str]]:
        """The rows of the known ids, in order and once each, and the unknown ids, once each."""
        known: dict[int, None] = {}
        unknown: dict[str, None] = {}
        for one in wanted:
            row = self._row_of.get(one, -1)
            if row < 0:
                unknown[one] = None
            else:
                known[row] = None
        return np.fromiter(known, dtype=np.int64, count=len(known)), list(unknown)

    @cached_property
    def _row_of(self) -> dict[str, int] | HashedTexts:
        ids = self._ids.tolist() if isinstance(self._ids, np.ndarray) else self._ids
        return {one: row for row, one in enumerate(ids)}


class CustomerMap(IdMap):
    """The row of each customer, of which there may be millions.

    One id is found by `HashedTexts`: a dictionary would take ten times the memory or more.
    """

    @cached_property
    def _row_of(self) -> HashedTexts:
        return HashedTexts(self._ids)
