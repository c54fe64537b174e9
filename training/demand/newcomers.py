"""Newcomers at past moments: what their first sessions showed, and which demand type they showed after that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from features.compute.algebra import PRICE_LEVEL, Condition, Feature
from features.compute.builder import Builder
from features.compute.spec import FeatureSpec, UserFeatures
from features.definitions.content import CONTENT
from features.profiles.tags.declare import TagContext
from features.profiles.tags.transaction import MIN_PRICED_LINES, demand_type, fit_demand
from models.classify.demand import LOOKED_CONTENT, LOOKED_LEVEL

NEWCOMER_DAYS = 28  # since the first event; and the step between two moments, so that each newcomer is met once
MAX_ORDERS = 2
MIN_LOOKS = 3  # events; fewer show nothing
MIN_LATER_LINES = 8  # with a price level, after the moment; the tag `demand_type` waits for more
LOOKS = (LOOKED_LEVEL, LOOKED_CONTENT)
INPUTS = (
    *LOOKS,
    "viewed_price_level_events",
    "discounted_line_share_91d",
    "coupon_order_share_91d",
    "price_level_mean",
    "view_seconds_mean_28d",
    "content_seconds_91d",
    "search_events_91d",
    "cart_events_91d",
    "favourite_events_91d",
    "coupon_redeem_events_91d",
    "message_click_events_91d",
    "touches_clicked_91d",
)
WHO = ("days_since_first_event", "orders_total", "events_91d", "price_level_lines")


@dataclass(frozen=True)
class Newcomers:
    """Newcomers at one moment or several, n together.

    Attributes
    ----------
    X : ndarray of float32, shape (n, f)
        What their sessions before the moment showed.
    types : ndarray of str, shape (n,)
        Demand type by what they bought and read in the horizon after it.
    """

    X: NDArray[np.float32]
    types: NDArray[np.str_]

    @classmethod
    def joined(cls, parts: Sequence[Newcomers]) -> Newcomers:
        """All newcomers of several moments."""
        return cls(np.concatenate([part.X for part in parts]), np.concatenate([part.types for part in parts]))


def supported_inputs(builder: Builder, as_of: datetime) -> tuple[Feature, ...]:
    """The features of `INPUTS` and `WHO` that the rows before a moment support, `INPUTS` first."""
    kept = {feature.name: feature for feature in builder.supported(as_of=as_of)[0]}
    return tuple(kept[name] for name in (*INPUTS, *WHO) if name in kept)


def features_at(
    builder: Builder, as_of: datetime, features: Sequence[Feature], spec: FeatureSpec | None = None
) -> UserFeatures:
    """These features of all customers at a moment; those of `spec`, with defaults for what was not recorded by then."""
    return builder.build(as_of, features).matrix(spec)


def newcomers(builder: Builder, as_of: datetime, horizon: int, spec: FeatureSpec) -> Newcomers:
    """The newcomers at a moment whose purchases in the `horizon` days after it show a demand type.

    `spec` is that of the last moment, so that all moments have the same columns.
    """
    now = features_at(builder, as_of, spec.features, spec)
    new = now.column("days_since_first_event") <= NEWCOMER_DAYS
    rows = np.flatnonzero(new & (now.column("orders_total") <= MAX_ORDERS) & (now.column("events_91d") >= MIN_LOOKS))
    ids, types = later_types(builder, as_of, horizon)
    found = dict(zip(ids.tolist(), types.tolist(), strict=True))
    shown = np.array([found.get(one_id, "") for one_id in now.one_ids[rows].tolist()], dtype=np.str_)
    columns = input_columns(now.spec)
    return Newcomers(now.values[np.ix_(rows, columns)][shown != ""], shown[shown != ""])


def input_columns(spec: FeatureSpec) -> NDArray[np.int64]:
    """Columns of `INPUTS` that a spec has, in its order."""
    return np.flatnonzero(np.isin(spec.names, INPUTS))


def later_types(builder: Builder, as_of: datetime, horizon: int) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """one_ids, and the demand type that the rows of the `horizon` days after `as_of` show, '' if they are too few.

    It is the rule of the tag `demand_type` on these rows alone, so that what is predicted is not what was seen.
    """
    priced = (Condition(PRICE_LEVEL, "known", True),)
    wanted = {
        "discounted_line_share_182d": ("lines", "share", "", (Condition("discount", ">", 0),)),
        "price_level_mean": ("lines", "mean", PRICE_LEVEL, ()),
        "price_level_lines": ("lines", "count", "", priced),
        "content_event_share_91d": ("events", "share", "", CONTENT),
    }
    declared = [
        Feature(name, view, aggregate, column, where, window_days=horizon, description="label")  # type: ignore[arg-type]
        for name, (view, aggregate, column, where) in wanted.items()
    ]
    end = as_of + timedelta(days=horizon)
    later = features_at(builder, end, builder.supported(declared, end)[0])
    columns = {name: later.column(name) for name in later.spec.names}
    if not {"price_level_mean", "price_level_lines"} <= columns.keys():  # no prices were recorded by then
        return later.one_ids, np.full(len(later.one_ids), "", dtype=np.str_)
    context = TagContext(fitted=fit_demand(columns, TagContext(), MIN_LATER_LINES))
    return later.one_ids, demand_type(columns, context, MIN_LATER_LINES).astype(np.str_)


def undecided(features: UserFeatures) -> NDArray[np.int64]:
    """Rows of the customers who looked around, and whose purchases are too few for the tag `demand_type`."""
    few = features.column("price_level_lines") < MIN_PRICED_LINES
    return np.flatnonzero(few & (features.column("events_91d") >= MIN_LOOKS))
