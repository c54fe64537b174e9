"""What the chosen industry pack adds: features, tags by rule, and what runs out when. Without a pack, nothing."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from features.compute.algebra import Condition, Feature, check
from features.definitions import FEATURES
from features.definitions.recency import NEVER
from qianmian.errors import ConfigError
from qianmian.packs import Cycle, Pack, PackFeature, PackTag, load_pack
from qianmian.settings import Settings

if TYPE_CHECKING:
    from features.profiles.tags.declare import Columns, Fitted, Given, Tag

OWN_ORDERS = 3  # so many orders show a customer's own cycle
ENOUGH_CUSTOMERS = 30  # so many such customers show that of the shop
LAPSED_CYCLES = 3.0  # not bought for so many cycles: bought elsewhere, or not needed any more
STATES = ("due", "overdue", "stocked", "lapsed")
ATTRIBUTE = "profile_"


def pack_of(settings: Settings) -> Pack | None:
    """The chosen pack."""
    return load_pack(settings.pack) if settings.pack else None


def replenishment(settings: Settings) -> dict[str, Cycle]:
    """Name of a cycle → how long its categories last, as the pack says before anything is learnt.

    Examples
    --------
    >>> replenishment(Settings())
    {}
    >>> replenishment(Settings(pack="beauty"))["serum"].days
    60.0
    """
    pack = pack_of(settings)
    return dict(pack.replenishment) if pack else {}


def features_for(settings: Settings) -> tuple[Feature, ...]:
    """The features the pack adds: its own, and three a replenishment cycle (orders, days since the first and since the last).

    Raises
    ------
    ConfigError
        All mistakes in the pack's features, and a rule of a tag about a feature nobody declares.
    """
    pack = pack_of(settings)
    if pack is None:
        return ()
    made = (
        *(part for name, cycle in pack.replenishment.items() for part in _cycle_features(name, cycle)),
        *map(_feature, pack.features),
    )
    problems = []
    taken = {feature.name for feature in FEATURES}
    problems += [f"features: '{feature.name}' is a feature already" for feature in made if feature.name in taken]
    try:
        check(tuple(feature for feature in (*FEATURES, *made) if feature in FEATURES or feature.name not in taken))
    except ConfigError as error:
        problems += [f"features: {problem}" for problem in error.problems]
    known = [*sorted(taken), *(feature.name for feature in made)]
    for tag in pack.tags:
        problems += [f"tags.{tag.name}: {problem}" for problem in _unknown(tag, known)]
    if problems:
        raise ConfigError(problems, where=f"the pack {Path(str(settings.pack)).name}")
    return made


def tags_for(settings: Settings) -> list[Tag]:
    """The house's tags, then those of the pack.

    Raises
    ------
    ConfigError
        All mistakes in the pack's tags.

    Examples
    --------
    >>> house = tags_for(Settings())
    >>> [tag.name for tag in tags_for(Settings(pack="fast_moving_goods"))[len(house):]][:2]
    ['replenishment_due', 'replenishment_state']
    """
    # tags are declared above the builder, which asks for the features here
    from features.profiles.tags import TAGS

    house = list(TAGS.values())
    pack = pack_of(settings)
    if pack is None:
        return house
    declared = (*FEATURES, *features_for(settings))
    made = _cycle_tags(pack.replenishment) if pack.replenishment else []
    problems = []
    for tag in pack.tags:
        try:
            made.append(_tag(tag, declared))
        except ConfigError as error:
            problems += [f"tags.{problem}" for problem in error.problems]
    names = [tag.name for tag in house]
    for tag_ in made:
        if tag_.name in names:
            problems.append(f"tags.{tag_.name}: is a tag already")
        names.append(tag_.name)
    if problems:
        raise ConfigError(problems, where=f"the pack {Path(str(settings.pack)).name}")
    return house + made


def _feature(given: PackFeature) -> Feature:
    where = tuple(
        Condition(one.column, one.operator, tuple(one.value) if isinstance(one.value, list) else one.value)  # type: ignore[arg-type]
        for one in given.where
    )
    rest: dict[str, Any] = given.model_dump(exclude={"where"})
    return Feature(**rest, where=where)


def _cycle_features(name: str, cycle: Cycle) -> Iterator[Feature]:
    categories = tuple(cycle.categories or [name])
    where = (Condition("category" if "/" in categories[0] else "category_top", "in", categories),)
    yield Feature(
        f"{name}_orders", "lines", "distinct", "order_id", where, unit="orders", description=f"orders with {name}, ever"
    )
    yield Feature(
        f"days_since_first_{name}",
        "lines",
        "age",
        where=where,
        unit="days",
        description=f"time since the first order with {name}",
    )
    yield Feature(
        f"days_since_{name}",
        "lines",
        "recency",
        where=where,
        default=NEVER,
        unit="days",
        description=f"time since the last order with {name}",
    )


def _unknown(tag: PackTag, known: list[str]) -> Iterator[str]:
    for number, value in enumerate(tag.values):
        for name in _asked(value.when):
            if name not in known and not name.startswith(ATTRIBUTE):
                close = difflib.get_close_matches(name, known, 1)
                yield f"values.{number}.when: there is no feature '{name}'" + (
                    f"; did you mean '{close[0]}'?" if close else ""
                )


def _asked(rule: Any) -> Iterator[str]:
    if isinstance(rule, Mapping):
        if isinstance(rule.get("feature"), str):
            yield rule["feature"]
        for part in rule.values():
            yield from _asked(part)
    elif isinstance(rule, list):
        for part in rule:
            yield from _asked(part)


def _tag(given: PackTag, declared: tuple[Feature, ...]) -> Tag:
    from features.profiles.tags.declare import tag_from_rule

    return tag_from_rule(
        given.name,
        given.category,
        given.description,
        [value.when for value in given.values],
        [value.value for value in given.values],
        given.owner,
        given.ttl_days,
        default=given.default,
        features=declared,
    )


# ---- what runs out ---------------------------------------------------------------------------------------------------


def _cycle_tags(cycles: Mapping[str, Cycle]) -> list[Tag]:
    from features.profiles.tags.declare import Tag

    uses = tuple(
        name.format(cycle) for cycle in cycles for name in ("{}_orders", "days_since_first_{}", "days_since_{}")
    )

    def fit(columns: Columns, _: Given) -> Fitted:
        return learnt(columns, cycles)

    def due(columns: Columns, given: Given) -> NDArray[Any]:
        names, state = most_due(columns, cycles, given.fitted)
        return np.where(np.isin(state, STATES[:2]), names, "")

    def state(columns: Columns, given: Given) -> NDArray[Any]:
        return most_due(columns, cycles, given.fitted)[1]

    return [
        Tag(
            "replenishment_due",
            "lifecycle",
            "what runs out now, by the customer's own cycle, else that of the shop, else that of the trade",
            uses=uses,
            rule=due,
            how="statistic",
            fit=fit,
            values=tuple(cycles),
        ),
        Tag(
            "replenishment_state",
            "lifecycle",
            "due, overdue, stocked or lapsed (not bought for three cycles), of what is nearest to running out",
            uses=uses,
            rule=state,
            how="statistic",
            fit=fit,
            values=STATES,
        ),
    ]


def own_cycle(columns: Columns, name: str) -> NDArray[np.float64]:
    """Mean days between a customer's orders of one cycle, (n,); not a number below `OWN_ORDERS` orders."""
    orders = np.asarray(columns[f"{name}_orders"], dtype=np.float64)
    span = columns[f"days_since_first_{name}"] - columns[f"days_since_{name}"]
    return np.where(orders >= OWN_ORDERS, span / np.maximum(orders - 1, 1), np.nan)


def learnt(columns: Columns, cycles: Mapping[str, Cycle]) -> Fitted:
    """Days and spread of each cycle from the customers who show one: their median, and 1.4826 × the median absolute deviation.

    A cycle that fewer than `ENOUGH_CUSTOMERS` customers show is left out: the pack's value stays.
    """
    found: Fitted = {}
    for name in cycles:
        if f"{name}_orders" not in columns:
            continue
        own = own_cycle(columns, name)
        own = own[np.isfinite(own) & (own > 0)]
        if len(own) >= ENOUGH_CUSTOMERS:
            days = float(np.median(own))
            spread = 1.4826 * float(np.median(np.abs(own - days)))
            found[name] = [round(days, 4), round(min(max(spread, 0.05 * days), 0.9 * days), 4)]
    return found


def most_due(
    columns: Columns, cycles: Mapping[str, Cycle], fitted: Mapping[str, list[float]]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """For each customer the cycle nearest to running out and its state, (n,) each; '' for who bought none of them.

    Within one spread of the cycle it is due, after that overdue, after `LAPSED_CYCLES` lapsed, before it stocked. Due goes
    before overdue, then stocked, then lapsed; within a state the one nearest to its day, then by the pack's order.
    """
    there = [name for name in cycles if f"{name}_orders" in columns]
    n = len(next(iter(columns.values())))
    if not there:
        return np.full(n, ""), np.full(n, "")
    ranks = np.full((len(there), n), np.inf)
    states = np.empty((len(there), n), dtype=object)
    for row, name in enumerate(there):
        days, spread = fitted.get(name, [cycles[name].days, cycles[name].spread])
        own = own_cycle(columns, name)
        shows = np.isfinite(own) & (own > 0)
        each = np.where(shows, own, days)
        silent = np.asarray(columns[f"days_since_{name}"], dtype=np.float64)
        off = (silent - each) / np.maximum(each * spread / days, 1e-9)  # a long own cycle varies more than a short one
        state = np.select([silent > LAPSED_CYCLES * each, off > 1, off >= -1], [3, 1, 0], default=2)
        states[row] = np.asarray(STATES, dtype=object)[state]
        near = np.abs(off) / (1 + np.abs(off))
        ranks[row] = np.where(np.asarray(columns[f"{name}_orders"]) > 0, state + near, np.inf)
    best = ranks.argmin(axis=0)
    bought = np.isfinite(ranks.min(axis=0))
    each_one = np.arange(n)
    return np.where(bought, np.asarray(there, dtype=object)[best], ""), np.where(bought, states[best, each_one], "")
