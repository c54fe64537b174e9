"""Rows of one view that pass one filter, with running totals and factorized values shared by several windows."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.compute.algebra import COMPARISONS, PATH_SEPARATOR, Condition
from features.compute.online.recent import ViewRows
from features.compute.online.state import MISSING, Array, OnlineState
from qianmian.times import MICROSECONDS_PER_SECOND

MAX_DIRECT_CODES = 4_096
ARRAY_OPERATORS: dict[str, Callable[[Array, Any], NDArray[np.bool_]]] = {
    **COMPARISONS,
    "in": lambda a, b: np.isin(a, b),
    "under": lambda a, b: np.array([f"{text}{PATH_SEPARATOR}".startswith(f"{b}{PATH_SEPARATOR}") for text in a], bool),
}


class Selection:
    """Rows of one view that pass one filter."""

    def __init__(self, rows: ViewRows, where: tuple[Condition, ...], state: OnlineState) -> None:
        self._rows = rows
        mask: NDArray[np.bool_] | None = None
        for condition in where:
            test = _condition_mask(rows, condition, state)
            mask = test if mask is None else mask & test
        self._at = None if mask is None else mask.nonzero()[0]
        self.ts: NDArray[np.int64] = rows.ts if self._at is None else rows.ts[self._at]
        self._columns: dict[str, Array] = {}
        self._running_totals: dict[str, tuple[Array, Array]] = {}
        self._factorized: dict[str, tuple[Array, Array]] = {}

    def column(self, name: str) -> Array:
        """A column of the selected rows, shape (rows,)."""
        if name not in self._columns:
            whole = self._rows.column(name)
            self._columns[name] = whole if self._at is None else whole[self._at]
        return self._columns[name]

    def running_totals(self, name: str) -> tuple[Array, Array]:
        """Cumulative count of non-null values and cumulative sum of a column, shape (rows + 1,) each."""
        if name not in self._running_totals:
            column = self.column(name)
            known = column == column
            counts, totals = np.zeros(len(column) + 1, np.int64), np.zeros(len(column) + 1)
            np.cumsum(known, out=counts[1:])
            np.cumsum(np.where(known, column, 0.0), out=totals[1:])
            self._running_totals[name] = counts, totals
        return self._running_totals[name]

    def factorized(self, name: str) -> tuple[Array, Array]:
        """Distinct values of a column, and for each row the index of its value, −1 for null."""
        if name not in self._factorized:
            self._factorized[name] = factorized(self.column(name))
        return self._factorized[name]

    @cached_property
    def seconds(self) -> NDArray[np.float64]:
        """Seconds since 1970, rounded down, shape (rows,)."""
        return (self.ts // MICROSECONDS_PER_SECOND).astype(np.float64)


def factorized(column: Array) -> tuple[Array, Array]:
    """Distinct values and the index of each row's value, −1 for null.

    Small integers (codes of a short vocabulary, days, hours) are used as indexes directly, because sorting is
    expensive.
    """
    text = column.dtype == np.int32
    if not len(column):
        return column, np.zeros(0, dtype=np.int64)
    if text and int(column.max()) < MAX_DIRECT_CODES:
        return np.arange(int(column.max()) + 1, dtype=np.int32), column
    if not text:
        low, high = column.min(), column.max()
        if low == low and high - low < MAX_DIRECT_CODES and low % 1 == 0:
            numbers = column.astype(np.int64)
            if (numbers == column).all():
                return np.arange(low, high + 1.0), numbers - int(low)
    distinct, numbers = np.unique(column, return_inverse=True)
    absent = distinct == MISSING if text else distinct != distinct
    return distinct, np.where(absent[numbers], -1, numbers) if absent.any() else numbers


def _condition_mask(rows: ViewRows, condition: Condition, state: OnlineState) -> NDArray[np.bool_]:
    column, value = rows.column(condition.column), condition.value
    known: NDArray[np.bool_] = column != MISSING if column.dtype == np.int32 else column == column
    if condition.operator == "known":
        return known if value else ~known
    wanted: Any = value
    if column.dtype == np.int32:
        if condition.operator not in ("==", "!=", "in"):  # the others need the texts, not their codes
            texts = [state.text(condition.column, code) if code != MISSING else "" for code in column]
            return ARRAY_OPERATORS[condition.operator](np.asarray(texts, dtype=object), value) & known
        wanted = [state.code(condition.column, str(v)) for v in (value if isinstance(value, tuple) else (value,))]
        wanted = wanted if condition.operator == "in" else wanted[0]
    elif isinstance(value, tuple):
        wanted = [float(v) for v in value]
    return ARRAY_OPERATORS[condition.operator](column, wanted) & known
