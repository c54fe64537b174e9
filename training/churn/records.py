"""Whether customers had a record at past moments: attributes that models read beside the rhythm of the orders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from features.compute.builder import Builder, ProfileBuild
from features.compute.spec import FeatureSpec

STEP_DAYS = 28  # between two builds before the first with all features; 0.3 CPU s each on Complete Journey
NO_RECORD = 1.0


@dataclass(frozen=True)
class Records:
    """Indicators that customers have no record, at some dates.

    Attributes
    ----------
    names : tuple of str
        Features with `aggregate` "missing".
    found : dict of datetime to (ndarray of str of shape (n,), ndarray of float32 of shape (n, len(names)))
        Customers, sorted, and their values at each date.
    """

    names: tuple[str, ...] = ()
    found: dict[datetime, tuple[NDArray[np.str_], NDArray[np.float32]]] = field(default_factory=dict)

    def values(self, as_of: datetime, one_ids: NDArray[np.str_]) -> NDArray[np.float32]:
        """Values as they were known at a moment, shape (n, len(names)): those of the last date at or before it.

        A customer who was not there yet had no record.
        """
        made = np.full((len(one_ids), len(self.names)), NO_RECORD, dtype=np.float32)
        dates = [date for date in self.found if date <= as_of]
        if dates and self.names:
            known, values = self.found[max(dates)]
            places = np.minimum(np.searchsorted(known, one_ids), max(len(known) - 1, 0))
            rows = np.flatnonzero(known[places] == one_ids) if len(known) else np.empty(0, dtype=np.int64)
            made[rows] = values[places[rows]]
        return made


def read_records(
    builder: Builder, spec: FeatureSpec, first: datetime, built: Mapping[datetime, ProfileBuild]
) -> Records:
    """The indicators of `spec` at the dates whose profiles are built, and every four weeks before them.

    Parameters
    ----------
    spec : FeatureSpec
        Features that models may read; without an indicator among them, there are no records.
    first : datetime
        First moment to learn from.
    built : mapping of datetime to ProfileBuild
        Profiles with all features, at least one.
    """
    indicators = [feature for feature in spec.features if feature.aggregate == "missing"]
    names = tuple(feature.name for feature in indicators)
    if not names:
        return Records()
    builds, date = dict(built), min(built)
    while date > first:
        date = max(date - timedelta(days=STEP_DAYS), first)
        builds[date] = builder.build(date, indicators)
    found = {}
    for date, build in builds.items():
        profile = build.matrix()
        order = np.argsort(profile.one_ids)
        columns = np.column_stack([profile.column(name) for name in names]).astype(np.float32)
        found[date] = (profile.one_ids[order], columns[order])
    return Records(names, found)
