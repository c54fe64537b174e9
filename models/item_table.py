"""`ItemTable`: the attributes of all items, answering filters (`models.filters`) with masks and grouping items by value."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, reduce
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

KEPT_VALUES = 200  # a filter of more values is not kept: it may be a megabyte itself
MASK_BYTES = 64_000_000  # of masks kept for filters that were asked before
SEPARATOR = "|"
PATH_ATTRIBUTES = ("category",)  # attributes whose value is a path; what lies below a value belongs to it
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
    """The attributes of all items, ready to be filtered and grouped by.

    Parameters
    ----------
    attributes : mapping of str to ndarray, each (n_items,)
        As `TrainingSet.item_attributes`: text ('' unknown), float (NaN unknown), bool or int8 (−1 unknown).
    item_ids : sequence of str, (n_items,)
        Becomes the attribute ``item_id``.

    Examples
    --------
    >>> from models.filters import parse
    >>> table = ItemTable({"price": np.array([1.0, 3.0, np.nan]), "brand": np.array(["A", "B", ""])}, ["x", "y", "z"])
    >>> table.mask(parse({"not": {"attribute": "price", "op": ">", "value": 2}})).tolist()
    [True, False, True]
    """

    def __init__(self, attributes: Mapping[str, NDArray[Any]], item_ids: Sequence[str]) -> None:
        self._columns = {name: np.asarray(values) for name, values in attributes.items()}
        self._columns.setdefault(ITEM_ID, np.asarray(item_ids, dtype=np.str_))
        self._n_items = len(item_ids)
        self._texts: dict[str, tuple[NDArray[np.str_], NDArray[np.int64]]] = {}
        self._mask = lru_cache(maxsize=int(np.clip(MASK_BYTES // max(self._n_items, 1), 4, 256)))(self._evaluated)
        self._codes = lru_cache(maxsize=16)(self._coded)

    @property
    def names(self) -> tuple[str, ...]:
        """The attributes there are, sorted."""
        return tuple(sorted(self._columns))

    def kind(self, name: str) -> Kind:
        """What its values are."""
        letter = self._columns[name].dtype.kind
        return "text" if letter in "USO" else "number" if letter == "f" else "boolean"

    def warm(self) -> None:
        """Make every lookup now."""
        for name in self._columns:
            if self.kind(name) == "text":
                self.distinct(name)

    def distinct(self, name: str) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
        """The distinct values of a text attribute, and which of them each item has, (n_items,)."""
        if name == ITEM_ID:  # each its own
            return self._columns[name].astype(np.str_, copy=False), np.arange(self._n_items)
        if name not in self._texts:
            # a category has hundreds of values and a catalogue tens of thousands of items: match the values, not the items
            values, codes = np.unique(self._columns[name].astype(np.str_), return_inverse=True)
            self._texts[name] = (values, codes.astype(np.int64))
        return self._texts[name]

    def check(self, given: FilterExpression | None) -> None:
        """Every comparison can be answered here.

        Raises
        ------
        InvalidRequest
            It names an attribute there is not, or compares one with a value of another kind; all of it, the first in `field`.
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
            yield condition.path, f"'{op}' cannot be asked of '{name}', which is {_ARTICLE[kind]}"
        elif kinds_of(value if isinstance(value, tuple) else (value,)) != {kind}:
            yield (
                condition.path,
                f"'{name}' is {_ARTICLE[kind]} and is compared with {shown(list(value) if isinstance(value, tuple) else value)}",
            )

    def mask(self, given: FilterExpression) -> Mask:
        """Which items pass, (n_items,), not to be written to; a filter asked before is answered from memory.

        The filter must have passed `check`.
        """
        values = sum(len(one.value) if isinstance(one.value, tuple) else 1 for one in conditions(given))
        return self._mask(given) if values <= KEPT_VALUES else self._evaluated(given)

    def codes(self, name: str, depth: int | None = None) -> NDArray[np.int64]:
        """Which group each item is in by an attribute, −1 where it is not known, (n_items,).

        Parameters
        ----------
        depth : int, optional
            Only so many levels of a path: 1 for ``GROCERY`` of ``GROCERY/SOUP``.
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
            found = (
                ~parts[0]
                if given.how == "not"
                else reduce(operator.and_ if given.how == "all" else operator.or_, parts)
            )
        elif self.kind(given.attribute) == "text":
            values, codes = self.distinct(given.attribute)
            found = _text_mask(values, given)[codes]
        else:
            found = _number_mask(self._columns[given.attribute], given)
        found.flags.writeable = False
        return found


def _text_mask(values: NDArray[np.str_], condition: AttributeCondition) -> Mask:
    """Which of the distinct texts pass; '' is not known."""
    op, known = condition.operator, values != ""
    if op == "known":
        return np.asarray(known == condition.value)
    operands = condition.value if isinstance(condition.value, tuple) else (condition.value,)
    wanted = np.asarray([str(value) for value in operands], dtype=np.str_)
    if op == "contains":
        joined = np.char.add(np.char.add(SEPARATOR, values), SEPARATOR)
        passing = reduce(
            operator.or_, [np.char.find(joined, f"{SEPARATOR}{value}{SEPARATOR}") >= 0 for value in wanted.tolist()]
        )
    else:
        passing = _compare(op, values, wanted)
        if condition.attribute in PATH_ATTRIBUTES and op in ("==", "!=", "in"):
            below = reduce(operator.or_, [np.char.startswith(values, value + "/") for value in wanted.tolist()])
            passing = passing & ~below if op == "!=" else passing | below
    return np.asarray(known & passing)


def _number_mask(values: NDArray[Any], condition: AttributeCondition) -> Mask:
    """Which of the numbers (NaN not known), or of true, false and −1, pass."""
    op, known = condition.operator, ~np.isnan(values) if values.dtype.kind == "f" else values >= 0
    if op == "known":
        return np.asarray(known == condition.value)
    operands = condition.value if isinstance(condition.value, tuple) else (condition.value,)
    with np.errstate(over="ignore"):  # beyond float32 is infinite, which compares as it should
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
