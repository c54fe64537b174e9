"""`Catalogue`: the users and items of a recommender by the ids callers use, and filters over the items."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from models.bundle import ModelBundle
from models.recommend.hybrid import HybridRecommender

FROM_HISTORY = ("repeat", "ials", "hybrid")  # stages that answer a customer with a history from it
Matcher = Callable[[str, str], bool]


def is_path_below(value: str, wanted: str) -> bool:
    """The category is the one wanted or lies below it.

    Examples
    --------
    >>> is_path_below("GROCERY/SOUP", "GROCERY"), is_path_below("GROCERY 2", "GROCERY")
    (True, False)
    """
    return value == wanted or value.startswith(wanted + "/")


MATCHERS: dict[str, Matcher] = {"category": is_path_below, "brand": lambda value, wanted: value == wanted}  # filterable attributes


class Catalogue:
    """Lookups over a recommender's bundle.

    Parameters
    ----------
    bundle : ModelBundle
        Of kind ``chain``.
    """

    def __init__(self, bundle: ModelBundle) -> None:
        self.item_ids: list[str] = bundle.item_ids.tolist()
        self._bundle = bundle

    @cached_property
    def user_index(self) -> dict[str, int]:
        """one_id → row of the model."""
        return {one_id: row for row, one_id in enumerate(self._bundle.user_ids.tolist())}

    @cached_property
    def item_index(self) -> dict[str, int]:
        """item_id → column of the model."""
        return {item_id: column for column, item_id in enumerate(self.item_ids)}

    @cached_property
    def known_attributes(self) -> frozenset[str]:
        """``attribute=value`` of every customer trait a cold answer can be made of."""
        return frozenset(self._hybrid.attribute_names_.tolist()) if self._hybrid is not None else frozenset()

    @cached_property
    def _hybrid(self) -> HybridRecommender | None:
        return next((stage for stage in self._bundle.model.models if isinstance(stage, HybridRecommender)), None)

    @cached_property
    def _history_lengths(self) -> NDArray[np.int64]:
        return np.asarray(np.diff(self._bundle.model.history_.indptr), dtype=np.int64)

    @cached_property
    def _coded(self) -> dict[str, tuple[list[str], NDArray[np.int64]]]:
        # a category has hundreds of values and a catalogue tens of thousands of items: match the values, not the items
        coded = {}
        for name in MATCHERS:
            values = self._bundle.item_attributes.get(name, np.full(len(self.item_ids), "", dtype=np.str_))
            distinct, codes = np.unique(values, return_inverse=True)
            coded[name] = (distinct.tolist(), codes.astype(np.int64))
        return coded

    def warm(self) -> None:
        """Make every lookup now."""
        for lookup in (self.user_index, self.item_index, self.known_attributes, self._history_lengths, self._coded):
            len(lookup)

    def user_row(self, one_id: str | None) -> int:
        """Row of a customer, −1 for one the model has never seen."""
        return -1 if one_id is None else self.user_index.get(one_id, -1)

    def has_history(self, row: int) -> bool:
        """The model knows something the customer did."""
        return row >= 0 and bool(self._history_lengths[row])

    def from_history(self, row: int, source: str) -> bool:
        """That stage of the chain answers this customer from what they did, not from what they are."""
        return source in FROM_HISTORY and self.has_history(row)

    def columns_of(self, item_ids: Iterable[str]) -> tuple[NDArray[np.int64], list[str]]:
        """Columns of the items the model knows, in order and once each, and the ids it does not know."""
        known: dict[int, None] = {}
        unknown: dict[str, None] = {}
        for item_id in item_ids:
            column = self.item_index.get(item_id)
            if column is None:
                unknown[item_id] = None
            else:
                known[column] = None
        return np.fromiter(known, dtype=np.int64, count=len(known)), list(unknown)

    def allowed(self, filters: Mapping[str, Sequence[str]]) -> NDArray[np.bool_] | None:
        """Which items pass every filter, (n_items,); None where there is no filter. An item passes one of the values listed."""
        mask: NDArray[np.bool_] | None = None
        for name, wanted in filters.items():
            distinct, codes = self._coded[name]
            matcher = MATCHERS[name]
            passing = np.array([any(matcher(value, one) for one in wanted) for value in distinct], dtype=bool)
            mask = passing[codes] if mask is None else mask & passing[codes]
        return mask

    def restricted(self, item_ids: Iterable[str]) -> NDArray[np.bool_]:
        """A mask of these items, (n_items,)."""
        mask = np.zeros(len(self.item_ids), dtype=bool)
        mask[self.columns_of(item_ids)[0]] = True
        return mask
