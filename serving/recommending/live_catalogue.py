"""`LiveCatalogue`: the catalogue of a recommender with the availability of its items that accepted events say."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from models.filters import FilterExpression, conditions
from models.item_table import ItemTable
from models.rerank import Similarity
from serving.recommending.catalogue import AVAILABLE, Catalogue, Mask


class LiveCatalogue(Catalogue):
    """A catalogue in which only the availability of the items differs from another one; what is costly is shared.

    Parameters
    ----------
    base : Catalogue
        The catalogue as the model was trained; warm, so that its lookups are not computed again.
    values : ndarray of int8, shape (n_items,), or None
        1 available, 0 not, −1 unknown, which counts as available; None as in `base`.
    version : int
        Number of the changes so far.
    """

    def __init__(self, base: Catalogue, values: NDArray[np.int8] | None, version: int) -> None:
        self.__dict__.update(base.__dict__)
        self.__dict__.pop("available", None)
        self._base, self._changed = base, values
        self.version = version

    @cached_property
    def values(self) -> NDArray[np.int8]:
        """1 available, 0 not, −1 unknown, shape (n_items,)."""
        if self._changed is not None:
            return self._changed
        known = self._bundle.item_attributes.get(AVAILABLE)
        if known is None or known.dtype.kind not in "biu":
            return np.full(len(self.item_ids), -1, dtype=np.int8)
        return known.astype(np.int8)

    @cached_property
    def available(self) -> Mask | None:
        """Mask of the items that are available now, shape (n_items,); None if all are."""
        return None if (self.values != 0).all() else self.values != 0

    @cached_property
    def similarity(self) -> Similarity:
        """See `Catalogue.similarity`."""
        return self._base.similarity

    @cached_property
    def levels(self) -> NDArray[np.int64]:
        """See `Catalogue.levels`."""
        return self._base.levels

    @cached_property
    def _fallback_sources(self) -> dict[int, tuple[bool, ...]]:
        return self._base._fallback_sources

    @cached_property
    def _with_availability(self) -> ItemTable:
        return self.items.replacing(AVAILABLE, self.values)

    def _table_for(self, expression: FilterExpression) -> ItemTable:
        is_live = self._changed is not None and any(each.attribute == AVAILABLE for each in conditions(expression))
        return self._with_availability if is_live else self.items
