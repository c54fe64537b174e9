"""The builder: the profile of every customer known before `as_of`, as a table (for people) or a matrix (for models)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pyarrow as pa

from features.algebra import Feature
from features.compile_ibis import compile_features
from features.definitions import FEATURES
from features.lake import Lake, TableState, quote
from features.spec import FeatureSpec, UserFeatures
from features.views import Rows, Views, is_supported
from qianmian.errors import DataError
from qianmian.schema import TABLES

NOT_ATTRIBUTES = ("source", "source_user_id")
DATED = ("transactions", "events", "touches")


@dataclass(frozen=True)
class Built:
    """What one build gave.

    Attributes
    ----------
    table : pyarrow.Table
        `one_id`, `user_id` and `user_source` (the first source record of the customer), then a column a feature: float64, or text for a category.
    features : tuple of Feature
        The declarations behind the columns.
    off : tuple of str
        Features left out because the lake holds nothing to make them of.
    """

    table: pa.Table
    features: tuple[Feature, ...]
    off: tuple[str, ...]
    as_of: datetime

    def matrix(self, spec: FeatureSpec | None = None) -> UserFeatures:
        """Encoded for a model; `spec` is what that model was trained on."""
        return UserFeatures.from_table(self.table, self.features, self.as_of, spec)


class Builder:
    """Builds profiles from one lake; keep it for several moments, the connection is opened once."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.states = lake.states()
        if not self.states.get("customers") or not self.states["customers"].rows:
            lake.state("customers")
            raise DataError(
                "the lake knows no customer",
                where=str(lake.workspace.lake),
                hint="ingest transactions, events or profiles with a source_user_id",
            )
        self.backend: Any = lake.connect()
        self.rows = Rows(self.backend, self.states)

    def views(self, as_of: datetime) -> Views:
        """The rows before `as_of`, by view name."""
        return Views(self.rows, as_of)

    def states_at(self, as_of: datetime) -> dict[str, TableState]:
        """The tables as they were known at `as_of`: what only later rows (or later customers) fill is not filled yet."""
        states, moment = dict(self.states), f"TIMESTAMP '{as_of.isoformat(sep=' ')}'"
        known = {name: f"ts < {moment}" for name in DATED if (last := states[name].last if name in states else None) and last >= as_of}
        if "profiles" in states:
            people = f"SELECT source, source_user_id FROM customers WHERE valid_from IS NULL OR valid_from < {moment}"
            known["profiles"] = f"(source, source_user_id) IN ({people})"
        for name, condition in known.items():
            counts = ", ".join(["count(*)", *(f"count({quote(column)})" for column in states[name].filled)])
            rows, *filled = self.backend.con.execute(f"SELECT {counts} FROM {name} WHERE {condition}").fetchone()
            columns = tuple(column for column, count in zip(states[name].filled, filled, strict=True) if count)
            states[name] = replace(states[name], rows=rows, filled=columns)
        return states

    def attributes(self, states: Mapping[str, TableState] | None = None) -> tuple[Feature, ...]:
        """A feature for every filled column of `profiles` that is text or a number, open attributes included."""
        filled = (states or self.states).get("profiles")
        if filled is None:
            return ()
        schema = self.backend.table("profiles").schema()
        found = []
        for name in filled.filled:
            column = TABLES["profiles"].column(name)
            if name in NOT_ATTRIBUTES or not (schema[name].is_string() or schema[name].is_numeric()):
                continue
            text = schema[name].is_string()
            found.append(Feature(f"profile_{name}", "profiles", "attribute", name, default="" if text else 0.0,
                                 unit=column.unit if column else "", description=column.description if column else f"the source's own attribute '{name}'"))  # fmt: skip
        return tuple(found)

    def supported(
        self, features: Sequence[Feature] | None = None, as_of: datetime | None = None
    ) -> tuple[tuple[Feature, ...], tuple[str, ...]]:
        """The features this lake can give (from what was known at `as_of`), and the names of those it cannot."""
        states = self.states if as_of is None else self.states_at(as_of)
        asked = (*FEATURES, *self.attributes(states)) if features is None else tuple(features)
        kept: list[Feature] = []
        for feature in asked:
            names = {other.name for other in kept}
            if is_supported(feature, states) and (feature.aggregate != "quotient" or {feature.column, feature.over} <= names):
                kept.append(feature)
        return tuple(kept), tuple(feature.name for feature in asked if feature not in kept)

    def build(self, as_of: datetime, features: Sequence[Feature] | None = None) -> Built:
        """The profiles at `as_of` (naive UTC): rows with ``ts < as_of`` only.

        Parameters
        ----------
        features : sequence of Feature, optional
            Default: every declared feature and every profile attribute the lake supports.

        Raises
        ------
        DataError
            When no customer is known before `as_of`.
        """
        kept, off = self.supported(features, as_of)
        views = self.views(as_of)
        table = compile_features(kept, views).to_pyarrow()
        if not table.num_rows:
            raise DataError(
                "no customer is known yet at that time",
                where=f"--as-of {as_of.date()}",
                hint=f"the data begins later; it ends at {self.lake.last}",
            )
        people = views.customers
        first = (
            people.group_by("one_id").aggregate(key=(people.source + "\x1f" + people.source_user_id).min()).order_by("one_id").to_pyarrow()
        )
        pairs = [key.split("\x1f", 1) for key in first["key"].to_pylist()]
        table = table.add_column(1, "user_id", pa.array([user for _, user in pairs])).add_column(
            2, "user_source", pa.array([source for source, _ in pairs])
        )
        return Built(table, kept, off, as_of)
