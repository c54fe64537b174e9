"""Features of the propensity targets that the settings declare: how often and how lately a customer had each."""

from __future__ import annotations

from features.compute.algebra import Condition, Feature
from features.definitions.recency import NEVER
from qianmian.propensity_targets import PropensityTarget
from qianmian.settings import Settings

# models learn from several cutoffs, at most of which a longer window would be filled in part
WINDOWS = (28, 91, 182)


def target_features(settings: Settings) -> tuple[Feature, ...]:
    """The features of all declared targets; none without targets.

    Examples
    --------
    >>> settings = Settings.model_validate({"propensity": {"targets": ["event=cart"]}})
    >>> [feature.name for feature in target_features(settings)][-2:]
    ['event_cart_share_91d', 'days_since_event_cart']
    """
    return tuple(feature for target in settings.propensity.declared for feature in features_of(target))


def features_of(target: PropensityTarget) -> tuple[Feature, ...]:
    """Counts in three windows, the share of the rows of the last 91 days, and the days since the last one."""
    where, orders = (target_condition(target),), target.view == "lines"
    unit = "orders" if orders else "events"
    counted = f"orders with {target}" if orders else f"'{target.name}' events"
    return (
        *(
            Feature(
                count_name(target, days),
                target.view,
                "distinct" if orders else "count",
                "order_id" if orders else "",
                where=where,
                window_days=days,
                unit=unit,
                description=f"{counted} in the last {days} days",
            )
            for days in WINDOWS
        ),
        Feature(
            f"{target.slug}_share_91d",
            target.view,
            "share",
            where=where,
            window_days=91,
            unit="0..1",
            description=f"share of {target} among the {'order lines' if orders else 'events'} of the last 91 days",
        ),
        Feature(
            f"days_since_{target.slug}",
            target.view,
            "recency",
            where=where,
            default=NEVER,
            unit="days",
            description=f"time since the last of the {counted}",
        ),
    )


def count_name(target: PropensityTarget, days: int) -> str:
    """Name of the feature with the count of a window of `WINDOWS`."""
    return f"{target.slug}_{'orders' if target.view == 'lines' else 'events'}_{days}d"


def target_condition(target: PropensityTarget) -> Condition:
    """The condition on the rows of a target; a category includes those below it."""
    return Condition(target.column, "under" if target.kind == "category" else "==", target.name)
