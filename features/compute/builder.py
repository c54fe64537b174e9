"""The builder: the profiles of all customers known before `as_of`, as a table or as a feature matrix."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pyarrow as pa

from features.compute.algebra import NO_RECORD_PREFIX, PROFILE_PREFIX, Condition, Feature
from features.compute.engines import DuckDBEngine, Engine
from features.compute.spec import FeatureSpec, UserFeatures
from features.compute.views import CLOCK_TIME, DATED_TABLES, Views, is_supported, timestamp
from features.data.lake import Lake, TableState
from features.data.memory import MEMORY_GB
from features.data.personal_names import personal_data_type
from features.data.privacy import HASH_PREFIX
from qianmian.errors import DataError
from qianmian.schema import TABLES
from qianmian.timezones import UTC_ZONE

ID_COLUMNS = ("source", "source_user_id")


@dataclass(frozen=True)
class ProfileBuild:
    """Result of one profile build.

    Attributes
    ----------
    table : pyarrow.Table
        `one_id`, `user_id` and `user_source` (the first source record of the customer), then one column per feature:
        float64, or text for a categorical feature.
    features : tuple of Feature
        Declarations of the feature columns.
    unsupported : tuple of str
        Names of features left out because the lake has no data for them.
    as_of : datetime
        Cutoff, naive UTC.
    timezone : str
        Time zone of days and hours.
    """

    table: pa.Table
    features: tuple[Feature, ...]
    unsupported: tuple[str, ...]
    as_of: datetime
    timezone: str = UTC_ZONE

    def matrix(self, spec: FeatureSpec | None = None) -> UserFeatures:
        """The profiles encoded for a model; `spec` is that of the trained model, if any.

        Raises
        ------
        ArtifactError
            The model was trained on the days and hours of another time zone.
        """
        if spec is not None:
            spec.check_timezone(self.timezone)
        return UserFeatures.from_table(self.table, self.features, self.as_of, spec, self.timezone)


class Builder:
    """Builds profiles from one lake. One builder serves several cutoffs, because the engine is opened only once.

    Parameters
    ----------
    lake : Lake
    features : sequence of Feature
        Declared features: `features.definitions.pack_features.declared_features` of the settings.
    engine : Engine, optional
        Engine that runs the expressions; default: DuckDB in this process.
    timezone : str
        Time zone of days and hours in the default engine (`Settings.calendar_timezone`); an engine that is given has
        its own.
    allow_undated : collection of str
        Attributes of profiles without a date that are used at past moments all the same
        (`settings.profiles.allow_undated`).
    memory_gb : float
        As for `DuckDBEngine`, for the default engine.

    Raises
    ------
    DataError
        The lake has no customers.
    """

    def __init__(
        self,
        lake: Lake,
        features: Sequence[Feature],
        engine: Engine | None = None,
        timezone: str = UTC_ZONE,
        allow_undated: Collection[str] = (),
        memory_gb: float = MEMORY_GB,
    ) -> None:
        self.lake = lake
        states = lake.states()
        if not states.get("customers") or not states["customers"].rows:
            lake.state("customers")
            raise DataError(
                "the lake has no customers",
                where=str(lake.workspace.lake),
                hint="ingest transactions, events or profiles with a source_user_id",
            )
        self.declared = tuple(features)
        self.engine: Engine = engine or DuckDBEngine(lake, timezone, memory_gb)
        self.backend, self.rows = self.engine.backend, self.engine.rows
        self.rows.allow_undated = frozenset(allow_undated)
        self.timezone = self.rows.local_time.timezone
        self.states = {name: self._with_clock_time(state) for name, state in states.items()}
        self._states_at: dict[datetime, dict[str, TableState]] = {}
        self._first_moments: dict[str, dict[str, Any]] = {}

    def _with_clock_time(self, state: TableState) -> TableState:
        """The state of a table, with `CLOCK_TIME` among its filled columns if a row has more than a date."""
        if state.name not in DATED_TABLES or "ts" not in state.filled:
            return state
        if "date_only" in state.filled:
            t = self.backend.table(state.name)
            if not t.filter(~t.date_only.fill_null(False)).limit(1).count().to_pyarrow().as_py():
                return state
        return replace(state, filled=(*state.filled, CLOCK_TIME))

    def views(self, as_of: datetime) -> Views:
        """The rows before `as_of`, by view name."""
        return Views(self.rows, as_of)

    def states_at(self, as_of: datetime) -> dict[str, TableState]:
        """The table states at `as_of`: a column counts as filled only if rows or customers before `as_of` fill it.

        A table without rows before `as_of` has 0 rows; the others have the rows of the lake.
        """
        if as_of not in self._states_at:
            self._states_at[as_of] = {name: self._state_at(state, as_of) for name, state in self.states.items()}
        return dict(self._states_at[as_of])

    def _state_at(self, state: TableState, as_of: datetime) -> TableState:
        if state.name == "profiles":
            return self._profiles_at(state, as_of)
        if state.name not in DATED_TABLES or state.last is None or state.last < as_of:
            return state
        first = self._first_filled(state)
        filled = tuple(name for name in state.filled if first[name] is not None and first[name] < as_of)
        return replace(state, rows=state.rows if "ts" in filled else 0, filled=filled)

    def _first_filled(self, state: TableState) -> dict[str, Any]:
        """Column → moment of the first row that fills it, for the filled columns of a table; read once, not a cutoff.

        A column that only rows without a moment fill has None.
        """
        if state.name not in self._first_moments:
            t = self.backend.table(state.name)
            dated = ~t.date_only.fill_null(False) if "date_only" in state.filled else None
            moments = {
                name: t.ts.min(where=dated if name == CLOCK_TIME else t[name].notnull()) for name in state.filled
            }
            self._first_moments[state.name] = t.aggregate(**moments).to_pyarrow().to_pylist()[0]
        return self._first_moments[state.name]

    def _profiles_at(self, state: TableState, as_of: datetime) -> TableState:
        cutoff = timestamp(as_of)
        customers = self.backend.table("customers")
        customers = customers.filter(customers.valid_from.isnull() | (customers.valid_from < cutoff))
        customers = customers.select("source", "source_user_id").distinct()
        known = self.rows.known_profiles(as_of, cutoff).semi_join(customers, ["source", "source_user_id"])
        present = {name: known[name].count() for name in state.filled if name in known.columns}
        found = known.aggregate(known.count().name("_rows"), **present).to_pyarrow().to_pylist()[0]
        return replace(state, rows=found["_rows"], filled=tuple(name for name in present if found[name]))

    def attributes(self, states: Mapping[str, TableState] | None = None) -> tuple[Feature, ...]:
        """One feature per filled text or number column of `profiles`, and one missing indicator per source of them.

        The additional columns of a source are included. An indicator is 1 for a customer of whom none of the attributes
        that the source records is known: what is missing there is a record, and no value of an attribute.
        """
        filled = (states or self.states).get("profiles")
        if filled is None:
            return ()
        schema = self.backend.table("profiles").schema()
        own = [name for name in filled.filled if TABLES["profiles"].column(name) is None and schema[name].is_string()]
        hashed = self._hashed_attributes(own)
        found = []
        for name in filled.filled:
            column = TABLES["profiles"].column(name)
            if name in ID_COLUMNS or not (schema[name].is_string() or schema[name].is_numeric()):
                continue
            # a hash of personal data has another value for every customer
            if column is None and (name in hashed or personal_data_type(name) is not None):
                continue
            text = schema[name].is_string()
            found.append(
                Feature(
                    f"{PROFILE_PREFIX}{name}",
                    "profiles",
                    "attribute",
                    name,
                    default="" if text else 0.0,
                    unit=column.unit if column else "",
                    description=column.description if column else f"the source's own attribute '{name}'",
                )
            )
        return (*found, *self._missing_indicators([feature.column for feature in found]))

    def _missing_indicators(self, columns: Sequence[str]) -> Iterator[Feature]:
        """One feature per source that fills some of the columns.

        Sources that fill the same columns have one each, so that the names do not change when a source is added.
        """
        if not columns:
            return
        profiles = self.backend.table("profiles")
        counts = profiles.group_by("source").aggregate(**{name: profiles[name].count() for name in columns})
        for row in counts.order_by("source").to_pyarrow().to_pylist():
            recorded = tuple(name for name in columns if row[name])
            if recorded:
                yield Feature(
                    f"{NO_RECORD_PREFIX}{row['source']}",
                    "profiles",
                    "missing",
                    where=tuple(Condition(name, "known", False) for name in recorded),
                    default=1.0,
                    unit="0/1",
                    description=f"whether the source {row['source']} has no record of {', '.join(recorded)}",
                )

    def _hashed_attributes(self, names: Sequence[str]) -> set[str]:
        """Those text columns of `profiles` that contain hashes of personal data, whatever their names are."""
        if not names:
            return set()
        profiles = self.backend.table("profiles")
        hashes = [profiles[name].startswith(HASH_PREFIX).any().name(name) for name in names]
        row = profiles.aggregate(hashes).to_pyarrow().to_pylist()[0]
        return {name for name in names if row[name]}

    def supported(
        self, features: Sequence[Feature] | None = None, as_of: datetime | None = None
    ) -> tuple[tuple[Feature, ...], tuple[str, ...]]:
        """The features the lake supports (with the rows before `as_of`), and the names of the unsupported ones."""
        states = self.states if as_of is None else self.states_at(as_of)
        requested = (*self.declared, *self.attributes(states)) if features is None else tuple(features)
        kept: list[Feature] = []
        for feature in requested:
            names = {other.name for other in kept}
            if is_supported(feature, states) and (
                feature.aggregate != "quotient" or {feature.column, feature.over} <= names
            ):
                kept.append(feature)
        return tuple(kept), tuple(feature.name for feature in requested if feature not in kept)

    def build(self, as_of: datetime, features: Sequence[Feature] | None = None) -> ProfileBuild:
        """Build the profiles at `as_of` from rows with ``ts < as_of`` only.

        Parameters
        ----------
        as_of : datetime
            Cutoff, naive UTC.
        features : sequence of Feature, optional
            Features to build; default: all declared features and profile attributes the lake supports.

        Returns
        -------
        ProfileBuild

        Raises
        ------
        DataError
            No customer is known before `as_of`.
        """
        kept, unsupported = self.supported(features, as_of)
        table = self.engine.table(kept, as_of)
        if not table.num_rows:
            raise DataError(
                "no customer is known before this date",
                where=f"--as-of {as_of.date()}",
                hint=f"name a later date; the data ends at {self.lake.typical_end}",
            )
        return ProfileBuild(table, kept, unsupported, as_of, self.timezone)
