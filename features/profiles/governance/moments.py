"""The tags of past moments, each computed only from rows before it, and what followed until the end of the data."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.compute.algebra import Feature
from features.compute.builder import Builder
from features.profiles.governance.later import LaterRows
from features.profiles.tags.claims import Later, needed_tags
from features.profiles.tags.declare import Tag, TagValue
from features.profiles.tags.tagging import make_tags
from qianmian.errors import DataError
from qianmian.settings import Settings
from qianmian.times import SECONDS_PER_DAY, is_stale

MAX_CUSTOMERS = 50_000
HISTORY_DAYS = 91  # history that a moment needs, the longest window of most tags
MAX_STEPS_APART = 3
HASH_BUCKETS = 1 << 32


@dataclass(frozen=True)
class Moment:
    """Tags of n customers at one moment.

    Attributes
    ----------
    as_of : datetime
        The moment, naive UTC.
    one_ids : pyarrow.Array
        The n customers.
    tags : dict of str to ndarray of object
        Tag name → n values, None if unknown.
    builder : Builder
    end : datetime
        Rows at or after it are not read.
    """

    as_of: datetime
    one_ids: pa.Array
    tags: dict[str, NDArray[np.object_]]
    builder: Builder
    end: datetime

    @property
    def local_as_of(self) -> datetime:
        """The moment in the time zone of the workspace, in which tags give dates."""
        zone = ZoneInfo(self.builder.timezone)
        return self.as_of.replace(tzinfo=UTC).astimezone(zone).replace(tzinfo=None)

    @property
    def seen_days(self) -> float:
        """Days from the moment to the end of the data."""
        return (self.end - self.as_of).total_seconds() / SECONDS_PER_DAY

    @cached_property
    def _cache(self) -> dict[tuple[Any, ...], Any]:
        return {}

    def _rows(self, days: int) -> LaterRows:
        key = ("rows", days)
        if key not in self._cache:
            self._cache[key] = LaterRows(self.builder, self.as_of, self.as_of + timedelta(days=days), self.one_ids)
        return self._cache[key]  # type: ignore[no-any-return]

    def prepare(self, wanted: Iterable[tuple[Later, int]]) -> None:
        """Compute measures together, those of one horizon and view in one query."""
        by_days: dict[int, list[Later]] = {}
        for later, days in wanted:
            if days <= self.seen_days and later.aggregate != "named_share":
                by_days.setdefault(days, []).append(later)
        for days, group in by_days.items():
            found = self._rows(days).measures(group)
            self._cache.update(((later, days), values) for later, values in zip(group, found, strict=True))

    def measure(self, later: Later, days: int) -> NDArray[np.float64]:
        """Values of a measure in the `days` after the moment, shape (n,); NaN for customers without one."""
        if (later, days) not in self._cache:
            self.prepare([(later, days)])
        return self._cache[later, days]  # type: ignore[no-any-return]

    def value_counts(
        self, view: str, column: str, days: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], list[Any], NDArray[np.float64]]:
        """See `LaterRows.value_counts`; kept for the tags that share a column."""
        key = (view, column, days)
        if key not in self._cache:
            self._cache[key] = self._rows(days).value_counts(view, column)
        return self._cache[key]  # type: ignore[no-any-return]

    @cached_property
    def days_to_order(self) -> NDArray[np.float64]:
        """Days to the next order, shape (n,); NaN for customers without one before the end."""
        return LaterRows(self.builder, self.as_of, self.end, self.one_ids).days_to_order()


def choose_moments(start: datetime, end: datetime, horizon_days: int, count: int) -> list[datetime]:
    """Moments whose horizons do not overlap, latest first.

    The horizon of the latest one ends at `end`. They are as many as the data allow, at most `count`, and up to
    `MAX_STEPS_APART` horizons apart, so that they differ in season and some of them are followed by a longer time.

    Raises
    ------
    DataError
        No moment has `HISTORY_DAYS` days of data before it and a horizon after it.

    Examples
    --------
    >>> [f"{at:%m-%d}" for at in choose_moments(datetime(2024, 1, 1), datetime(2024, 12, 31), 28, 4)]
    ['12-03', '10-08', '08-13', '06-18']
    """
    step = timedelta(days=horizon_days)
    room = (end - step - start - timedelta(days=HISTORY_DAYS)) // step
    if room < 0:
        raise DataError(
            "the data is too short to check tags at a past moment",
            where=f"[{start:%Y-%m-%d}, {end:%Y-%m-%d})",
            got=f"{(end - start).days} days",
            allowed=f"at least {HISTORY_DAYS + horizon_days} days: {HISTORY_DAYS} before the moment, the horizon after",
            hint="choose a shorter --horizon-days or a later --as-of, or ingest a longer history",
        )
    wanted = min(count, room + 1)
    apart = min(max(room // max(wanted - 1, 1), 1), MAX_STEPS_APART)
    return [end - step - number * apart * step for number in range(wanted)]


def needed_names(tags: Sequence[Tag], chosen: Collection[str]) -> list[str]:
    """The chosen tags and those that their claims read."""
    names = {other for tag in tags if tag.name in chosen and tag.claim for other in needed_tags(tag.claim)}
    return [tag.name for tag in tags if tag.name in names.union(chosen)]


def tags_at(
    builder: Builder,
    as_of: datetime,
    end: datetime,
    tags: Sequence[Tag],
    settings: Settings,
    share: float = 1.0,
) -> Moment:
    """Compute tags at a moment.

    Parameters
    ----------
    tags : sequence of Tag
        Tags to compute; a model tag has values if a model published some before the moment that are not stale then.
    share : float
        Share of the customers to keep, chosen by a hash of their one_id, the same at every moment.
    """
    built = builder.build(as_of, _features(builder, as_of, tags))
    values, facts = make_tags(builder, built, settings)
    one_ids = built.table["one_id"].combine_chunks()
    kept = np.arange(len(one_ids))
    if share < 1:
        kept = np.flatnonzero([_hash(one_id) < share * HASH_BUCKETS for one_id in one_ids.to_pylist()])
        one_ids = one_ids.take(pa.array(kept))
    found = {
        tag.name: _objects(values[tag.name])[kept]
        for tag in tags
        if tag.name in values and not is_stale(facts[tag.name].as_of, as_of, tag.ttl_days)
    }
    return Moment(as_of, one_ids, found, builder, end)


def _features(builder: Builder, as_of: datetime, tags: Sequence[Tag]) -> list[Feature] | None:
    """The features of these tags and the parts of quotients; None (all) if a tag reads a column that is no feature."""
    needed = {name for tag in tags for name in tag.inputs}
    known = [*builder.declared, *builder.attributes(builder.states_at(as_of))]
    if not needed <= {feature.name for feature in known}:
        return None
    for feature in reversed(known):
        if feature.name in needed and feature.aggregate == "quotient":
            needed |= {feature.column, feature.over}
    return [feature for feature in known if feature.name in needed]


def _objects(values: Sequence[TagValue]) -> NDArray[np.object_]:
    result = np.empty(len(values), dtype=object)
    result[:] = values
    return result


def _hash(one_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(one_id.encode(), digest_size=4).digest(), "big")
