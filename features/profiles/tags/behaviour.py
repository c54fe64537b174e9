"""Behaviour tags: times, channels, progress towards a purchase, and response to messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.profiles.tags.declare import Columns, Tag, TagContext, yes_no
from qianmian.schema import CONTACT_SLOTS, WEEKDAYS

DAY_PARTS = ("night", "morning", "afternoon", "evening")
# events of a customer who looks around, and of one who visits at all; a coupon may be redeemed at a till
BROWSING_EVENTS = ("view", "cart", "favourite", "search", "share")
VISIT_EVENTS = (*BROWSING_EVENTS, "register", "login", "lead")
CONTACT_TIMES = tuple(f"{day}_{slot}" for day in WEEKDAYS for slot in CONTACT_SLOTS)
ABANDONED_DAYS = 14.0  # an older cart does not count as abandoned


def busiest_day_part(share: str) -> Callable[[Columns, TagContext], NDArray[Any]]:
    """The part of the day with the largest share; unknown without rows that have a clock time."""

    def rule(columns: Columns, _: TagContext) -> NDArray[Any]:
        shares = np.array([columns[share.format(part)] for part in DAY_PARTS])
        return np.where(shares.max(axis=0) > 0, np.asarray(DAY_PARTS)[np.argmax(shares, axis=0)], "")

    return rule


def weekday(columns: Columns, _: TagContext) -> NDArray[Any]:
    """The name of the weekday."""
    number = np.array([int(value) if value else -1 for value in columns["top_weekday"]], dtype=np.int64)
    return np.asarray([*WEEKDAYS, ""])[number]


def abandoned_cart(columns: Columns, _: TagContext) -> NDArray[Any]:
    """Whether the customer filled a cart recently and has not bought since."""
    cart = columns["days_since_last_cart"]
    bought = np.min(
        [columns[name] for name in ("days_since_last_order", "days_since_last_purchase") if name in columns]
        or [np.inf * np.ones(len(cart))],
        axis=0,
    )
    return yes_no((cart <= ABANDONED_DAYS) & (bought > cart))


def funnel_stop(columns: Columns, _: TagContext) -> NDArray[Any]:
    """The furthest step of the last 91 days: viewing, filling the cart, buying."""
    bought = np.any([columns[name] > 0 for name in ("purchase_events_91d", "orders_91d") if name in columns], axis=0)
    reached = [bought, columns["cart_events_91d"] > 0, columns["view_events_91d"] > 0]
    return np.select(reached, ["buys", "fills_cart", "looks"], default="")


def message_response(columns: Columns, _: TagContext) -> NDArray[Any]:
    """Response to the delivered contacts of the last 91 days; unknown without any."""
    arrived = columns["touches_delivered_91d"] > 0
    clicked = columns.get("touches_clicked_91d", np.zeros(len(arrived)))
    return np.select(
        [~arrived, clicked > 0, columns["touches_opened_91d"] > 0], ["", "clicks", "opens"], default="ignores"
    )


# fmt: off
TAGS = (
    Tag("active_hours", "behaviour", "part of the day with most orders, in the time zone of the workspace", tuple(f"{part}_order_share" for part in DAY_PARTS), busiest_day_part("{}_order_share"), values=DAY_PARTS),
    Tag("browsing_hours", "behaviour", "part of the day with most events of the last 91 days, in the time zone of the workspace", tuple(f"{part}_event_share_91d" for part in DAY_PARTS), busiest_day_part("{}_event_share_91d"), values=DAY_PARTS, requires_recorded=(VISIT_EVENTS,)),
    Tag("favourite_weekday", "behaviour", "weekday with most orders", ("top_weekday",), weekday, values=WEEKDAYS),
    Tag("weekend_shopper", "behaviour", "at least half of the orders fall on a weekend", ("weekend_order_share", "orders_total"), lambda c, _: yes_no(c["weekend_order_share"] >= 0.5, c["orders_total"] > 0)),
    Tag("preferred_channel", "behaviour", "most used order channel", ("top_channel",), lambda c, _: c["top_channel"]),
    Tag("preferred_visit_channel", "behaviour", "channel of most events of the last 28 days", ("top_visit_channel_28d",), lambda c, _: c["top_visit_channel_28d"], requires_recorded=(VISIT_EVENTS,)),
    Tag("preferred_device", "behaviour", "device of most events of the last 28 days", ("top_device_28d",), lambda c, _: c["top_device_28d"], requires_recorded=(VISIT_EVENTS,)),
    Tag("browsing", "behaviour", "behaviour events in the last 28 days: none, light (1–4), regular (5–49), heavy", ("events_28d",), lambda c, _: np.select([c["events_28d"] >= 50, c["events_28d"] >= 5, c["events_28d"] > 0], ["heavy", "regular", "light"], default="none"), values=("none", "light", "regular", "heavy"), requires_recorded=(BROWSING_EVENTS,)),
    Tag("visit_frequency", "behaviour", "days with an event in the last 28: none, seldom (1–3), weekly (4–19), daily (20 and more)", ("event_days_28d",), lambda c, _: np.select([c["event_days_28d"] >= 20, c["event_days_28d"] >= 4, c["event_days_28d"] > 0], ["daily", "weekly", "seldom"], default="none"), values=("none", "seldom", "weekly", "daily"), requires_recorded=(VISIT_EVENTS,)),
    Tag("session_depth", "behaviour", "events a session, last 91 days: glance (under 3), browse (under 10), deep", ("events_per_session",), lambda c, _: np.select([c["events_per_session"] <= 0, c["events_per_session"] < 3, c["events_per_session"] < 10], ["", "glance", "browse"], default="deep"), values=("glance", "browse", "deep"), requires_recorded=(VISIT_EVENTS,)),
    Tag("abandoned_cart", "behaviour", "filled a cart in the last 14 days and bought nothing since", ("days_since_last_cart",), abandoned_cart, optional_features=("days_since_last_order", "days_since_last_purchase"), ttl_days=7),
    Tag("funnel_stop", "behaviour", "how far the last 91 days went: looks, fills the cart, buys", ("view_events_91d", "cart_events_91d"), funnel_stop, optional_features=("purchase_events_91d", "orders_91d"), values=("looks", "fills_cart", "buys"), requires_recorded=(("purchase", "order"),)),
    Tag("coupon_redeemer", "behaviour", "redeemed a coupon in the last 91 days", ("coupon_redeem_events_91d",), lambda c, _: yes_no(c["coupon_redeem_events_91d"] > 0)),
    Tag("message_response", "behaviour", "clicks, opens or ignores the contacts of the last 91 days that arrived", ("touches_delivered_91d", "touches_opened_91d"), message_response, optional_features=("touches_clicked_91d",), values=("clicks", "opens", "ignores")),
    Tag("contact_pressure", "behaviour", "campaign contacts in the last 28 days: none, light (1–2), normal (3–8), heavy", ("touches_28d",), lambda c, _: np.select([c["touches_28d"] > 8, c["touches_28d"] > 2, c["touches_28d"] > 0], ["heavy", "normal", "light"], default="none"), values=("none", "light", "normal", "heavy")),
    Tag("best_channel", "behaviour", "channel through which the customer responds most, of those that were not refused", how="model"),
    Tag("behaviour_cluster", "behaviour", "group of customers who behave alike, by its stable id; its name is in the predictions", how="model", ttl_days=35),
    Tag("best_contact_time", "behaviour", "weekday and part of the day at which the customer responds most, in the time zone of the workspace", how="model", values=CONTACT_TIMES),
)
# fmt: on
