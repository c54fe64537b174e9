"""What customers did after a moment: measures, values and the next order, aggregated by the engine."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.compute.builder import Builder
from features.compute.compile_ibis import all_of, row_filter
from features.compute.views import PreparedTables, Views, days_before, timestamp
from features.profiles.tags.claims import ZERO_WITHOUT_ROWS, Later

Floats = NDArray[np.float64]


class LaterViews(Views):
    """The rows in ``[as_of, end)`` of the customers known before `as_of`, under the one_id they had then."""

    def __init__(self, rows: PreparedTables, as_of: datetime, end: datetime) -> None:
        super().__init__(rows, end)
        self.begin = as_of

    @cached_property
    def customers(self) -> ir.Table:
        """Records known before `begin`, with their customer at that time."""
        return Views(self.rows, self.begin).customers

    def _before_cutoff(self, table: str) -> ir.Table:
        t = super()._before_cutoff(table)
        return t.filter(t.ts >= timestamp(self.begin))


@dataclass(frozen=True)
class LaterRows:
    """The later rows of n customers.

    Parameters
    ----------
    builder : Builder
    as_of, end : datetime
        The rows are those in ``[as_of, end)``, naive UTC.
    one_ids : pyarrow.Array
        The n customers.
    """

    builder: Builder
    as_of: datetime
    end: datetime
    one_ids: pa.Array

    @cached_property
    def _views(self) -> LaterViews:
        return LaterViews(self.builder.rows, self.as_of, self.end)

    @cached_property
    def _tables(self) -> dict[str, ir.Table]:
        return {}

    def _rows(self, view: str) -> ir.Table:
        """The rows of a view with `place`, the row of the customer in `one_ids`.

        They are written to a temporary table once, because a large lake would be read again for each measure.
        """
        if view not in self._tables:
            people = ibis.memtable(pa.table({"one_id": self.one_ids, "place": pa.array(range(len(self.one_ids)))}))
            rows = self._views[view].inner_join(people, "one_id")
            name = f"later_{view}_{uuid.uuid4().hex}"
            self._tables[view] = self.builder.backend.create_table(name, rows, temp=True)
        return self._tables[view]

    def measures(self, wanted: Sequence[Later]) -> list[Floats]:
        """Values of each measure except ``named_share``, shape (n,); NaN for a customer without one."""
        found: dict[Later, Floats] = {}
        for view in dict.fromkeys(later.view for later in wanted):
            group = list(dict.fromkeys(later for later in wanted if later.view == view))
            t = self._rows(view)
            names = {f"m{number}": aggregate(t, later) for number, later in enumerate(group)}
            table = self.builder.backend.to_pyarrow(t.group_by("place").aggregate(**names))
            place = table["place"].to_numpy()
            for name, later in zip(names, group, strict=True):
                missing = 0.0 if later.aggregate in ZERO_WITHOUT_ROWS else np.nan
                values = np.full(len(self.one_ids), missing)
                column = table[name].cast(pa.float64()).to_numpy()
                values[place] = np.where(np.isnan(column), missing, column)
                found[later] = values
        return [found[later] for later in wanted]

    def value_counts(self, view: str, column: str) -> tuple[NDArray[np.int64], NDArray[np.int64], list[Any], Floats]:
        """Rows by customer and value of a column.

        Returns
        -------
        tuple
            Row of the customer in `one_ids`, number of the value, both of shape (m,), the values, and the counts of
            shape (m,). Rows without a value are left out.
        """
        t = self._rows(view)
        t = t.filter(t[column].notnull())
        counts = t.group_by("place", value=t[column]).aggregate(n=t.count())
        table = self.builder.backend.to_pyarrow(counts)
        coded = table["value"].combine_chunks().dictionary_encode()
        codes = np.asarray(coded.indices.to_numpy(), dtype=np.int64)
        return (
            table["place"].to_numpy().astype(np.int64),
            codes,
            coded.dictionary.to_pylist(),
            table["n"].to_numpy().astype(np.float64),
        )

    def days_to_order(self) -> Floats:
        """Days from `as_of` to the first order, shape (n,); NaN for customers without an order before `end`."""
        t = self._rows("orders")
        first = t.group_by("place").aggregate(days=-days_before(timestamp(self.as_of), t.ts.min()))
        table = self.builder.backend.to_pyarrow(first)
        days = np.full(len(self.one_ids), np.nan)
        days[table["place"].to_numpy()] = table["days"].to_numpy()
        return days


def aggregate(t: ir.Table, later: Later) -> ir.Scalar:
    """The aggregate of a measure over the rows of a customer, as an expression."""
    among, where = row_filter(t, later.among), row_filter(t, later.where)
    whole = t.count() if among is None else t.count(where=among)
    if later.aggregate == "any":
        return (whole > 0).cast("float64")
    if later.aggregate == "count":
        return whole
    if later.aggregate in ("sum", "mean"):
        return getattr(t[later.column], later.aggregate)(where=among)
    if later.aggregate == "share":
        return _quotient(t.count(where=all_of(among, where)), whole)
    if later.aggregate == "ratio":
        return _quotient(t[later.column].sum(where=among), t[later.over].sum(where=among))
    if later.aggregate == "rows_per":
        known = all_of(among, t[later.column].notnull())
        return _quotient(t.count(where=known), t[later.column].nunique(where=known))
    raise AssertionError(later.aggregate)


def _quotient(a: ir.NumericValue, b: ir.NumericValue) -> ir.FloatingValue:
    return a.cast("float64") / b.cast("float64").nullif(0.0)
