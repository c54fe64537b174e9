"""Features of the configured industry pack: its own features, and three per replenishment cycle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from features.compute.algebra import PROFILE_PREFIX, Condition, Feature, check
from features.definitions import FEATURES
from features.definitions.recency import NEVER
from features.definitions.target_features import target_features
from qianmian.errors import ConfigError, did_you_mean
from qianmian.packs import Pack, PackFeature, PackTag, ReplenishmentCycle, load_pack
from qianmian.settings import Settings


def pack_of(settings: Settings) -> Pack | None:
    """The configured industry pack; None without one."""
    return load_pack(settings.pack) if settings.pack else None


def replenishment_cycles(settings: Settings) -> dict[str, ReplenishmentCycle]:
    """Replenishment cycles of the pack by name, before they are learnt from data.

    Examples
    --------
    >>> replenishment_cycles(Settings())
    {}
    >>> replenishment_cycles(Settings(pack="beauty"))["serum"].days
    60.0
    """
    pack = pack_of(settings)
    return dict(pack.replenishment) if pack else {}


def features_for(settings: Settings) -> tuple[Feature, ...]:
    """Features that the pack adds: its own, and three per replenishment cycle; empty without a pack.

    The features of a cycle are the number of orders, and the days since the first and since the last order.

    Raises
    ------
    ConfigError
        With all problems of the pack's features, and of tag rules that refer to an unknown feature.
    """
    pack = pack_of(settings)
    if pack is None:
        return ()
    pack_features = (
        *(feature for name, cycle in pack.replenishment.items() for feature in _cycle_features(name, cycle)),
        *map(_feature, pack.features),
    )
    problems = []
    builtin_names = {feature.name for feature in FEATURES}
    problems += [
        f"features: '{feature.name}' is a feature already" for feature in pack_features if feature.name in builtin_names
    ]
    try:
        check((*FEATURES, *(feature for feature in pack_features if feature.name not in builtin_names)))
    except ConfigError as error:
        problems += [f"features: {problem}" for problem in error.problems]
    known = [*sorted(builtin_names), *(feature.name for feature in pack_features)]
    for tag in pack.tags:
        problems += [f"tags.{tag.name}: {problem}" for problem in _unknown_feature_problems(tag, known)]
    if problems:
        raise ConfigError(problems, where=f"the pack {Path(str(settings.pack)).name}")
    return pack_features


def declared_features(settings: Settings) -> tuple[Feature, ...]:
    """All features declared under these settings: the built-in ones, those of the pack, those of propensity targets."""
    return (*FEATURES, *features_for(settings), *target_features(settings))


def _feature(pack_feature: PackFeature) -> Feature:
    where = tuple(
        Condition(one.column, one.operator, tuple(one.value) if isinstance(one.value, list) else one.value)  # type: ignore[arg-type]
        for one in pack_feature.where
    )
    rest: dict[str, Any] = pack_feature.model_dump(exclude={"where"})
    return Feature(**rest, where=where)


def _cycle_features(name: str, cycle: ReplenishmentCycle) -> Iterator[Feature]:
    categories = tuple(cycle.categories or [name])
    where = (Condition("category" if "/" in categories[0] else "category_top", "in", categories),)
    yield Feature(
        f"{name}_orders",
        "lines",
        "distinct",
        "order_id",
        where,
        unit="orders",
        description=f"orders with {name}, ever",
        grows_with_calendar=True,
    )
    yield Feature(
        f"days_since_first_{name}",
        "lines",
        "age",
        where=where,
        unit="days",
        description=f"time since the first order with {name}",
        grows_with_calendar=True,
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


def _unknown_feature_problems(tag: PackTag, known: list[str]) -> Iterator[str]:
    for number, value in enumerate(tag.values):
        for name in _referenced_features(value.when):
            if name not in known and not name.startswith(PROFILE_PREFIX):
                yield f"values.{number}.when: there is no feature '{name}'{did_you_mean(name, known)}"


def _referenced_features(rule: Any) -> Iterator[str]:
    if isinstance(rule, Mapping):
        if isinstance(rule.get("feature"), str):
            yield rule["feature"]
        for part in rule.values():
            yield from _referenced_features(part)
    elif isinstance(rule, list):
        for part in rule:
            yield from _referenced_features(part)
