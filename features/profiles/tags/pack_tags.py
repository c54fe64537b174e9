"""Tags of the selected industry pack: tags by rule, and replenishment tags. Without a pack there are none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.compute.algebra import Feature
from features.definitions.pack_features import declared_features, pack_of
from features.profiles.tags import TAGS
from features.profiles.tags.built_in_claims import ORDERED
from features.profiles.tags.chinese import ChineseTag
from features.profiles.tags.claims import Ordering, Preference
from features.profiles.tags.declare import Columns, Fitted, Tag, TagContext
from features.profiles.tags.rule_tags import tag_from_rule
from features.profiles.tags.target_tags import target_tags
from qianmian.errors import ConfigError
from qianmian.packs import PackTag, ReplenishmentCycle
from qianmian.settings import Settings

RESERVED_NAMES = ("one_id", "user_id", "user_source", "as_of")  # columns of `qianmian score tags`
MIN_CYCLE_ORDERS = 3  # minimum orders of a customer to estimate their own cycle
MIN_CYCLE_CUSTOMERS = 30  # minimum customers with a cycle to estimate that of the shop
LAPSED_CYCLES = 3.0  # not bought for this many cycles: bought elsewhere, or no longer needed
REPLENISHMENT_STATES = ("due", "overdue", "stocked", "lapsed")


def tags_for(settings: Settings) -> list[Tag]:
    """The built-in tags, those of propensity targets, then those of the pack.

    Raises
    ------
    ConfigError
        Tags of the pack are invalid; the error lists all mistakes.

    Examples
    --------
    >>> builtin_tags = tags_for(Settings())
    >>> [tag.name for tag in tags_for(Settings(pack="fast_moving_goods"))[len(builtin_tags):]][:2]
    ['replenishment_due', 'replenishment_state']
    """
    builtin_tags = [*TAGS.values(), *target_tags(settings)]
    pack = pack_of(settings)
    if pack is None:
        return builtin_tags
    declared = declared_features(settings)
    made = _cycle_tags(pack.replenishment) if pack.replenishment else []
    problems = []
    for tag in pack.tags:
        try:
            made.append(_tag(tag, declared))
        except ConfigError as error:
            problems += [f"tags.{problem}" for problem in error.problems]
    names = [tag.name for tag in builtin_tags]
    for tag_ in made:
        if tag_.name in RESERVED_NAMES:
            problems.append(f"tags.{tag_.name}: is the name of a column of the files with tags")
        if tag_.name in names:
            problems.append(f"tags.{tag_.name}: is the name of a built-in tag or another tag of the pack")
        names.append(tag_.name)
    if problems:
        raise ConfigError(problems, where=f"the pack {Path(str(settings.pack)).name}")
    return builtin_tags + made


def _tag(pack_tag: PackTag, declared: tuple[Feature, ...]) -> Tag:
    zh = pack_tag.zh
    tag = tag_from_rule(
        pack_tag.name,
        pack_tag.category,
        pack_tag.description,
        [value.when for value in pack_tag.values],
        [value.value for value in pack_tag.values],
        pack_tag.owner,
        pack_tag.ttl_days,
        default=pack_tag.default,
        features=declared,
    )
    return replace(tag, chinese=ChineseTag(zh.name, zh.description, zh.values) if zh is not None else None)


# ---- replenishment ---------------------------------------------------------------------------------------------------


def _cycle_tags(cycles: Mapping[str, ReplenishmentCycle]) -> list[Tag]:
    optional_features = tuple(
        name.format(cycle) for cycle in cycles for name in ("{}_orders", "days_since_first_{}", "days_since_{}")
    )

    def fit(columns: Columns, _: TagContext) -> Fitted:
        return fit_cycles(columns, cycles)

    def due(columns: Columns, context: TagContext) -> NDArray[Any]:
        names, state = next_due_cycle(columns, cycles, context.fitted)
        return np.where(np.isin(state, REPLENISHMENT_STATES[:2]), names, "")

    def state(columns: Columns, context: TagContext) -> NDArray[Any]:
        return next_due_cycle(columns, cycles, context.fitted)[1]

    return [
        Tag(
            "replenishment_due",
            "lifecycle",
            "what runs out now, by the customer's own cycle, else that of the shop, else that of the trade",
            optional_features=optional_features,
            rule=due,
            how="statistic",
            fit=fit,
            values=tuple(cycles),
            claim=_due_claim(cycles),
            chinese=ChineseTag(
                "该补货的品类",
                "现在该补货的品类，依次按客户自己的周期、本店的周期、行业的周期判断",
                {name: cycle.zh for name, cycle in cycles.items() if cycle.zh},
            ),
        ),
        Tag(
            "replenishment_state",
            "lifecycle",
            "due, overdue, stocked or lapsed (not bought for three cycles), of what is nearest to running out",
            optional_features=optional_features,
            rule=state,
            how="statistic",
            fit=fit,
            values=REPLENISHMENT_STATES,
            claim=Ordering(ORDERED, (("due", "lapsed"),)),
            chinese=ChineseTag(
                "补货状态",
                "最接近用完的品类处于什么状态：该补货、已逾期、尚充足、已中断（三个周期没有购买）",
                dict(zip(REPLENISHMENT_STATES, ("该补货", "已逾期", "尚充足", "已中断"), strict=True)),
            ),
        ),
    ]


def _due_claim(cycles: Mapping[str, ReplenishmentCycle]) -> Preference | None:
    """What is due is bought more often than by others; None if categories of different depths would have to be compared."""
    names = tuple((name, tuple(cycle.categories or [name])) for name, cycle in cycles.items())
    depths = {"category" if "/" in category else "category_top" for _, categories in names for category in categories}
    return Preference("lines", depths.pop(), names) if len(depths) == 1 else None


def customer_cycle_days(columns: Columns, name: str) -> NDArray[np.float64]:
    """Mean days between each customer's orders of one cycle, shape (n,); NaN below `MIN_CYCLE_ORDERS` orders."""
    orders = np.asarray(columns[f"{name}_orders"], dtype=np.float64)
    span = columns[f"days_since_first_{name}"] - columns[f"days_since_{name}"]
    return np.where(orders >= MIN_CYCLE_ORDERS, span / np.maximum(orders - 1, 1), np.nan)


def fit_cycles(columns: Columns, cycles: Mapping[str, ReplenishmentCycle]) -> Fitted:
    """Days and spread of each cycle: median and 1.4826 × median absolute deviation of the customers' own cycles.

    A cycle with fewer than `MIN_CYCLE_CUSTOMERS` such customers is left out, so that the value of the pack applies.
    """
    found: Fitted = {}
    for name in cycles:
        if f"{name}_orders" not in columns:
            continue
        own = customer_cycle_days(columns, name)
        own = own[np.isfinite(own) & (own > 0)]
        if len(own) >= MIN_CYCLE_CUSTOMERS:
            days = float(np.median(own))
            spread = 1.4826 * float(np.median(np.abs(own - days)))
            found[name] = [round(days, 4), round(min(max(spread, 0.05 * days), 0.9 * days), 4)]
    return found


def next_due_cycle(
    columns: Columns, cycles: Mapping[str, ReplenishmentCycle], fitted: Mapping[str, list[float]]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Names and states of the cycle that runs out next for each customer, shape (n,) each; '' without purchases.

    A cycle is due within one spread of its length, overdue after that, lapsed after `LAPSED_CYCLES` cycles, and stocked
    before. Due cycles take precedence over overdue, then stocked, then lapsed ones. Within a state, the cycle nearest
    to its due day is chosen, then the first one of the pack.
    """
    present = [name for name in cycles if f"{name}_orders" in columns]
    n = len(next(iter(columns.values())))
    if not present:
        return np.full(n, ""), np.full(n, "")
    ranks = np.full((len(present), n), np.inf)
    states = np.empty((len(present), n), dtype=object)
    for row, name in enumerate(present):
        days, spread = fitted.get(name, [cycles[name].days, cycles[name].spread])
        own = customer_cycle_days(columns, name)
        cycle_days = np.where(np.isfinite(own) & (own > 0), own, days)
        recency = np.asarray(columns[f"days_since_{name}"], dtype=np.float64)
        # the spread is proportional to the cycle of the customer
        spreads_late = (recency - cycle_days) / np.maximum(cycle_days * spread / days, 1e-9)
        lapsed = recency > LAPSED_CYCLES * cycle_days
        state = np.select([lapsed, spreads_late > 1, spreads_late >= -1], [3, 1, 0], default=2)
        states[row] = np.asarray(REPLENISHMENT_STATES, dtype=object)[state]
        near = np.abs(spreads_late) / (1 + np.abs(spreads_late))
        ranks[row] = np.where(np.asarray(columns[f"{name}_orders"]) > 0, state + near, np.inf)
    best = ranks.argmin(axis=0)
    bought = np.isfinite(ranks.min(axis=0))
    names = np.where(bought, np.asarray(present, dtype=object)[best], "")
    return names, np.where(bought, states[best, np.arange(n)], "")
