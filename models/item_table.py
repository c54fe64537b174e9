"""`ItemTable`: the attributes of all items; computes the masks of filters (`models.filters`) and groups of items."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial, reduce
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.filters import (
    AttributeCondition,
    FilterExpression,
    FilterGroup,
    Problem,
    conditions,
    kinds_of,
    raise_problems,
    shown,
)
from models.text_index import TextIndex, levels

KEPT_VALUES = 200  # a filter with more values is not cached, because its key may take a megabyte
MASK_BYTES = 64_000_000  # memory limit of the cached masks
SEPARATOR = "|"
PATH_ATTRIBUTES = ("category",)  # attributes whose values are paths: a value also matches the values below it
ITEM_ID = "item_id"
Kind = Literal["text", "number", "boolean"]
Mask = NDArray[np.bool_]

_ORDERED: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_ARTICLE: dict[Kind, str] = {"text": "a text", "number": "a number", "boolean": "true or false"}


class ItemTable:
    """Attributes of all items, prepared for filtering and grouping.

    Parameters
    ----------
    attributes : mapping of str to ndarray, each (n_items,)
        As `TrainingSet.item_attributes`: text ('' is missing), float (NaN is missing), bool or int8 (−1 is missing).
    item_ids : sequence of str, (n_items,)
        Values of the attribute ``item_id``.

    Examples
    --------
    >>> from models.filters import parse
    >>> table = ItemTable({"price": np.array([1.0, 3.0, np.nan]), "brand": np.array(["A", "B", ""])}, ["x", "y", "z"])
    >>> table.mask(parse({"not": {"attribute": "price", "op": ">", "value": 2}})).tolist()
    [True, False, True]
    """

    def __init__(self, attributes: Mapping[str, NDArray[Any]], item_ids: Sequence[str] | NDArray[Any]) -> None:
        self._columns = {name: np.asarray(values) for name, values in attributes.items()}
        self._columns.setdefault(ITEM_ID, np.asarray(item_ids, dtype=np.str_))
        self._n_items = len(item_ids)
        self._texts: dict[str, tuple[NDArray[np.str_], NDArray[np.int64]]] = {}
        self._indices: dict[tuple[str, bool], TextIndex] = {}
        self._given: dict[str, Mask] = {}
        # caches of bound methods would refer back to the table, so that only the garbage collector could free it
        table: ItemTable = weakref.proxy(self)
        n_masks = int(np.clip(MASK_BYTES // max(self._n_items, 1), 4, 256))
        self._mask = lru_cache(maxsize=n_masks)(lambda given: table._evaluated(given))
        self._codes = lru_cache(maxsize=16)(lambda name, depth: table._coded(name, depth))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the attributes without the lookups, which the copy computes again."""
        return type(self), (self._columns, self._columns[ITEM_ID])

    def replacing(self, name: str, values: NDArray[Any]) -> ItemTable:
        """Return a table with other values of a boolean attribute, which shares all lookups of texts with this one."""
        other = type(self)({**self._columns, name: values}, self._columns[ITEM_ID])
        other._texts, other._indices, other._given = self._texts, self._indices, self._given
        return other

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the attributes, sorted."""
        return tuple(sorted(self._columns))

    def kind(self, name: str) -> Kind:
        """Return the kind of the values of an attribute."""
        letter = self._columns[name].dtype.kind
        return "text" if letter in "USO" else "number" if letter == "f" else "boolean"

    def warm(self) -> None:
        """Compute the lookups of all text attributes now instead of at their first use."""
        for name in self._columns:
            if self.kind(name) == "text":
                for by_part in (False, True):
                    self._index(name, by_part=by_part)

    def distinct(self, name: str) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
        """Return the distinct values of a text attribute, and the index of the value of each item, (n_items,)."""
        if name == ITEM_ID:  # every item has its own value
            return self._columns[name].astype(np.str_, copy=False), np.arange(self._n_items)
        if name not in self._texts:
            # an attribute has far fewer values than items, so filters match the distinct values
            values, codes = np.unique(self._columns[name].astype(np.str_), return_inverse=True)
            self._texts[name] = (values, codes.astype(np.int64))
        return self._texts[name]

    def check(self, given: FilterExpression | None) -> None:
        """Check that every comparison of a filter applies to this table.

        Raises
        ------
        InvalidRequest
            The filter names an unknown attribute or compares an attribute with a value of another kind. The message
            lists all problems; `field` is the path of the first.
        """
        raise_problems([problem for condition in conditions(given) for problem in self._problems(condition)])

    def _problems(self, condition: AttributeCondition) -> Iterator[Problem]:
        name, op, value = condition.attribute, condition.operator, condition.value
        if name not in self._columns:
            yield condition.path, f"unknown attribute '{name}'; allowed: {', '.join(self.names)}"
            return
        kind = self.kind(name)
        if op == "known":
            return
        if (kind != "text" and op == "contains") or (kind == "boolean" and op not in ("==", "!=", "in")):
            yield condition.path, f"'{op}' does not apply to '{name}', which is {_ARTICLE[kind]}"
        elif kinds_of(value if isinstance(value, tuple) else (value,)) != {kind}:
            compared = shown(list(value) if isinstance(value, tuple) else value)
            yield condition.path, f"'{name}' is {_ARTICLE[kind]} and cannot be compared with {compared}"

    def mask(self, given: FilterExpression) -> Mask:
        """Return which items pass a filter, bool, (n_items,), read-only; small filters are cached.

        The filter must have passed `check`.
        """
        n_values = sum(
            len(condition.value) if isinstance(condition.value, tuple) else 1 for condition in conditions(given)
        )
        return self._mask(given) if n_values <= KEPT_VALUES else self._evaluated(given)

    def codes(self, name: str, depth: int | None = None) -> NDArray[np.int64]:
        """Return the group of each item by the value of an attribute, (n_items,); −1 where the value is missing.

        Parameters
        ----------
        name : str
            A text or boolean attribute.
        depth : int, optional
            Number of levels of a path to group by: 1 groups ``GROCERY/SOUP`` as ``GROCERY``.
        """
        return self._codes(name, depth)

    def _coded(self, name: str, depth: int | None) -> NDArray[np.int64]:
        if self.kind(name) == "boolean":
            return self._columns[name].astype(np.int64)
        values, codes = self.distinct(name)
        groups = np.arange(len(values))
        if depth is not None:
            heads = np.asarray(["/".join(value.split("/")[:depth]) for value in values.tolist()], dtype=np.str_)
            groups = np.unique(heads, return_inverse=True)[1]
        found: NDArray[np.int64] = np.where(values != "", groups, -1)[codes].astype(np.int64)
        found.flags.writeable = False
        return found

    def _evaluated(self, given: FilterExpression) -> Mask:
        if isinstance(given, FilterGroup):
            parts = [self._evaluated(part) for part in given.filters]
            if given.how == "not":
                found = ~parts[0]
            else:
                found = reduce(operator.and_ if given.how == "all" else operator.or_, parts)
        elif self.kind(given.attribute) == "text":
            found = self._text_mask(given)[self.distinct(given.attribute)[1]]
        else:
            found = _number_mask(self._columns[given.attribute], given)
        found.flags.writeable = False
        return found

    def _text_mask(self, condition: AttributeCondition) -> Mask:
        """Return which of the distinct texts pass; '' is a missing value."""
        op, name = condition.operator, condition.attribute
        values, known = self.distinct(name)[0], self._known(name)
        if op == "known":
            return np.asarray(known == condition.value)
        operands = condition.value if isinstance(condition.value, tuple) else (condition.value,)
        wanted = [str(value) for value in operands]
        if op not in ("==", "!=", "in", "contains"):
            return np.asarray(known & _compare(op, values, np.asarray(wanted, dtype=np.str_)))
        found = self._index(name, by_part=op == "contains").having(wanted)
        return np.asarray(known & (~found if op == "!=" else found))

    def _known(self, name: str) -> Mask:
        """Return which distinct texts of an attribute are not missing."""
        if name not in self._given:
            self._given[name] = np.asarray(self.distinct(name)[0] != "")
        return self._given[name]

    def _index(self, name: str, *, by_part: bool) -> TextIndex:
        """The distinct texts of an attribute by their parts, or else whole; paths by themselves and those above."""
        if (name, by_part) not in self._indices:
            texts = self.distinct(name)[0]
            parts_of = levels if name in PATH_ATTRIBUTES and not by_part else None
            if by_part and np.any(np.char.find(texts, SEPARATOR) >= 0):
                parts_of = partial(str.split, sep=SEPARATOR)
            if by_part and parts_of is None and name not in PATH_ATTRIBUTES:  # every text is its only part
                self._indices[name, by_part] = self._index(name, by_part=False)
            else:
                self._indices[name, by_part] = TextIndex.of(texts, parts_of)
        return self._indices[name, by_part]


def _number_mask(values: NDArray[Any], condition: AttributeCondition) -> Mask:
    """Return which of the numbers (NaN is missing) or booleans (−1 is missing) pass."""
    op, known = condition.operator, ~np.isnan(values) if values.dtype.kind == "f" else values >= 0
    if op == "known":
        return np.asarray(known == condition.value)
    operands = condition.value if isinstance(condition.value, tuple) else (condition.value,)
    with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite, which compares correctly
        wanted = np.asarray([float(value) for value in operands]).astype(values.dtype)
    return np.asarray(known & _compare(op, values, wanted))


def _compare(op: str, values: NDArray[Any], wanted: NDArray[Any]) -> Mask:
    if op in ("==", "in"):
        return np.isin(values, wanted)
    if op == "!=":
        return ~np.isin(values, wanted)
    if op == "between":
        return np.asarray((values >= wanted[0]) & (values <= wanted[1]))
    return np.asarray(_ORDERED[op](values, wanted[0]))
