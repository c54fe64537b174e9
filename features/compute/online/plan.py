"""The online plan: the partial aggregates that a set of features needs, and which of them each feature reads.

A feature without a window reads all rows of a customer. Its old rows are stored as a summary (the *base* of a partial
aggregate), its recent rows as rows (the *tail*, as long as the longest window). The merged summary of both must equal
the summary of all rows, so a partial aggregate must be mergeable. The table lists the kinds, with the aggregates of the
algebra that give the base at the build (`BASE_AGGREGATES`).

=========  ==========================================================  =====================================
kind       summary of the rows that pass the filter                    base (auxiliary features)
=========  ==========================================================  =====================================
rows       count                                                       count
total      count and sum of a column where it is not null              count, sum
moments    count, mean, sum of squared deviations                      count, mean, std
min, max   of a column                                                 min, max
first/last of a column, ordered by time                                first, last
times      count, first and last time                                  count, age, recency
gaps       as times, and squared deviations of the gaps between rows   count, age, recency, gap_std
values     weight of each value of a column                            counts per value
repeats    of each value: number, first and last time                  none: it always has a window
=========  ==========================================================  =====================================

Merging means and deviations: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample
variances" (1979).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from features.compute.algebra import TWO_WINDOW_AGGREGATES, VALUE_COUNT_AGGREGATES, Aggregate, Condition, Feature

Kind = Literal["rows", "total", "moments", "min", "max", "first", "last", "times", "gaps", "values", "repeats"]
NULL_TEXT = "\x1f"  # marks "no such row" in a text column of the base
NAN = float("nan")

# kind → number of the summary → aggregate that computes it
BASE_AGGREGATES: dict[Kind, dict[str, Aggregate]] = {
    "rows": {"n": "count"},
    "total": {"n": "count", "total": "sum"},
    "moments": {"n": "count", "mean": "mean", "std": "std"},
    "min": {"value": "min"},
    "max": {"value": "max"},
    "first": {"value": "first"},
    "last": {"value": "last"},
    "times": {"n": "count", "age": "age", "recency": "recency"},
    "gaps": {"n": "count", "age": "age", "recency": "recency", "std": "gap_std"},
    "values": {},
    "repeats": {},
}
KIND_OF: dict[str, Kind] = {
    "sum": "total",
    "mean": "total",
    "std": "moments",
    "min": "min",
    "max": "max",
    "first": "first",
    "last": "last",
    "recency": "times",
    "age": "times",
    "gap_mean": "times",
    "gap_std": "gaps",
    "expected": "repeats",
    **dict.fromkeys(VALUE_COUNT_AGGREGATES, "values"),
}


@dataclass(frozen=True)
class PartialAggregate:
    """One summary of the rows of a view that pass a filter and lie in a window, `windows_back` windows earlier."""

    view: str
    where: tuple[Condition, ...]
    days: int | None
    windows_back: int
    kind: Kind
    column: str = ""
    over: str = ""
    text: bool = False

    @property
    def columns(self) -> frozenset[str]:
        """The columns of the view that the summary reads."""
        return frozenset({self.column, self.over, *(condition.column for condition in self.where)} - {""})

    @property
    def covers_old_rows(self) -> bool:
        """Whether rows before the tail are included."""
        return self.days is None

    def base_features(self, name: str) -> dict[str, Feature]:
        """Number of the summary → feature that computes it from the rows before the tail; empty for `values`."""
        made = {}
        for number, aggregate in BASE_AGGREGATES[self.kind].items():
            known = self.column and aggregate == "count"
            where = (*self.where, Condition(self.column, "known", True)) if known else self.where
            default: float | str = 0.0 if aggregate == "count" else NULL_TEXT if self.text else NAN
            column = self.column if aggregate not in ("count", "age", "recency", "gap_std") else ""
            made[number] = Feature(
                f"{name}.{number}", self.view, aggregate, column, where, default=default, description="state"
            )
        return made


@dataclass(frozen=True)
class OnlinePlan:
    """Partial aggregates of a set of features.

    Attributes
    ----------
    features : tuple of Feature
        Features in order; a quotient after its parts.
    partials : tuple of PartialAggregate
        Distinct partial aggregates.
    partial_indexes : tuple of tuple of int
        Indexes into `partials` that each feature reads.

    Examples
    --------
    >>> both = (Feature("a", "orders", "mean", "amount"), Feature("b", "orders", "sum", "amount"))
    >>> len(OnlinePlan.of(both).partials), OnlinePlan.of(both).tail_days
    (1, 0)
    """

    features: tuple[Feature, ...]
    partials: tuple[PartialAggregate, ...] = ()
    partial_indexes: tuple[tuple[int, ...], ...] = field(default=())

    @classmethod
    def of(cls, features: Sequence[Feature], *, share_of_all_rows: bool = False) -> OnlinePlan:
        """The plan of declarations that pass `features.compute.algebra.check`.

        With `share_of_all_rows`, a share of hours divides by rows without a clock time too, as earlier versions did.
        """
        at: dict[PartialAggregate, int] = {}
        partial_indexes = tuple(
            tuple(at.setdefault(partial, len(at)) for partial in _partials_of(feature, share_of_all_rows))
            for feature in features
        )
        return cls(tuple(features), tuple(at), partial_indexes)

    @cached_property
    def selections(self) -> tuple[tuple[str, tuple[Condition, ...]], ...]:
        """The distinct (view, filter) pairs of the partial aggregates."""
        return tuple(dict.fromkeys((partial.view, partial.where) for partial in self.partials))

    @cached_property
    def slices(self) -> tuple[tuple[int, int | None, int], ...]:
        """The distinct (selection, window, windows back) triples of the partial aggregates."""
        at = {pair: number for number, pair in enumerate(self.selections)}
        return tuple(
            dict.fromkeys(
                (at[partial.view, partial.where], partial.days, partial.windows_back) for partial in self.partials
            )
        )

    @cached_property
    def slice_of(self) -> tuple[int, ...]:
        """Index of the slice of each partial aggregate."""
        at = {pair: number for number, pair in enumerate(self.selections)}
        of = {slice_: number for number, slice_ in enumerate(self.slices)}
        return tuple(
            of[at[partial.view, partial.where], partial.days, partial.windows_back] for partial in self.partials
        )

    @property
    def tail_days(self) -> int:
        """Length of the tail in days: how far back rows must be stored as rows."""
        return max(
            (partial.days * (partial.windows_back + 1) for partial in self.partials if partial.days is not None),
            default=0,
        )

    def columns(self, view: str) -> tuple[str, ...]:
        """The columns of a view that any partial aggregate reads, sorted."""
        return tuple(sorted({name for partial in self.partials if partial.view == view for name in partial.columns}))

    @property
    def views(self) -> tuple[str, ...]:
        """The views that any partial aggregate reads."""
        return tuple(dict.fromkeys(partial.view for partial in self.partials))


def _partials_of(feature: Feature, share_of_all_rows: bool) -> list[PartialAggregate]:
    aggregate = feature.aggregate
    if aggregate == "quotient" or feature.view == "profiles":
        return []
    partial = PartialAggregate(feature.view, feature.where, feature.window_days, 0, "rows")
    amount = replace(partial, kind="total", column=feature.column) if feature.column else partial
    if aggregate == "count":
        return [partial]
    if aggregate == "share":
        return [amount, replace(amount, where=() if share_of_all_rows else feature.divisor)]
    if aggregate == "ratio":
        return [amount, replace(amount, column=feature.over)]
    if aggregate in TWO_WINDOW_AGGREGATES:
        return [amount, replace(amount, windows_back=1)]
    kind = KIND_OF[aggregate]
    if kind in ("times", "gaps"):
        return [replace(partial, kind=kind)]
    over = feature.over if kind in ("values", "repeats") else ""
    text = feature.categorical and kind in ("first", "last")
    return [replace(partial, kind=kind, column=feature.column, over=over, text=text)]
