"""The rows of the synthetic shop: transactions with their refunds, and events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from features.data.sources.synthetic_columns import Ints, join_ids, make_ids, timestamps, with_account
from features.data.sources.synthetic_demand import chosen_items, discount_rate
from features.data.sources.synthetic_orders import ITEMS_PER_CATEGORY, sample_items
from features.data.sources.synthetic_shop import SyntheticShop


def draw_transactions(
    rng: np.random.Generator,
    people: Mapping[str, Any],
    orders: Mapping[str, Any],
    lines: Mapping[str, Any],
    items: Mapping[str, Any],
    accounts: Mapping[str, Any],
    days: int,
) -> tuple[dict[str, Any], Ints]:
    """Generate transactions with refunds.

    Also return for each order 1 if it was placed with the second account of the person, else 0.
    """
    order, item = lines["order"], lines["item"]
    number = len(order)
    second = (rng.random(len(orders["at"])) < 0.4).astype(
        np.int64
    )  # a person with two accounts alternates between them
    quantity = 1.0 + rng.poisson(0.3, number)
    full = items["price"][item] * quantity
    discount = np.round(
        np.where(rng.random(number) < discount_rate(people, orders["person"][order]), full * 0.15, 0.0), 2
    )
    coupon = np.round(np.where(rng.random(number) < 0.05, full * 0.10, 0.0), 2)
    bought = {
        "person": orders["person"][order],
        "order_id": make_ids("o", order, width=8),
        "line_no": np.arange(number) - np.searchsorted(order, order) + 1,
        "ts": timestamps(orders["at"][order]),
        "item_id": items["item_id"][item],
        "quantity": quantity,
        "amount": np.round(full - discount - coupon, 2),
        "discount": discount,
        "coupon_discount": coupon,
        "status": np.repeat(np.array(["paid"]), number),
    }
    back = np.flatnonzero((rng.random(number) < 0.02) & (orders["at"][order] < days - 15))
    returned = {name: values[back] for name, values in bought.items()}
    returned["order_id"] = join_ids(returned["order_id"], np.repeat(np.array(["R"]), len(back)))
    returned["ts"] = timestamps(orders["at"][order][back] + 1.0 + rng.random(len(back)) * 13.0)
    returned["status"] = np.repeat(np.array(["refunded"]), len(back))
    transactions = {name: np.concatenate([bought[name], returned[name]]) for name in bought}
    transactions = with_account(transactions, accounts, np.concatenate([second[order], second[order][back]]))
    return transactions, second


def checkout_events(
    rng: np.random.Generator,
    people: Mapping[str, Any],
    orders: Mapping[str, Any],
    lines: Mapping[str, Any],
    items: Mapping[str, Any],
    accounts: Mapping[str, Any],
    second: Ints,
    synthetic_shop: SyntheticShop,
) -> dict[str, Any]:
    """Generate the views and carts of the minutes before each order, and passing views."""
    order, item = lines["order"], lines["item"]
    number = len(order)
    # a purchase usually follows a view and a cart event; many views lead to no purchase
    viewed, carted = rng.random(number) < 0.9, rng.random(number) < 0.8
    visits = rng.poisson(1.5, len(orders["at"]))
    idle = np.repeat(np.arange(len(orders["at"])), visits)
    idle_at = np.maximum(orders["at"][idle] - rng.exponential(3.0, len(idle)), people["start"][orders["person"][idle]])
    viewed_at = orders["at"][order][viewed] - (10.0 + 20.0 * rng.random(viewed.sum())) / 1440.0
    carted_at = orders["at"][order][carted] - (1.0 + 8.0 * rng.random(carted.sum())) / 1440.0
    idle_item = sample_items(rng, people["taste"], orders["person"][idle])
    idle_item = chosen_items(people, items, orders["person"][idle], idle_item, ITEMS_PER_CATEGORY)
    groups = [
        ("view", order[viewed], item[viewed], viewed_at),
        ("cart", order[carted], item[carted], carted_at),
        ("view", idle, idle_item, idle_at),
    ]
    source_order = np.concatenate([group[1] for group in groups])
    at = np.concatenate([group[3] for group in groups])
    session = np.concatenate(
        [np.repeat(np.array(["b"]), viewed.sum() + carted.sum()), np.repeat(np.array(["v"]), len(idle))]
    )
    within = np.concatenate([order[viewed], order[carted], np.arange(len(idle))])
    events = {
        "person": orders["person"][source_order],
        "event_type": np.repeat(
            np.array([synthetic_shop.event_names.get(group[0], group[0]) for group in groups]),
            [len(group[1]) for group in groups],
        ),
        "ts": timestamps(at),
        "item_id": items["item_id"][np.concatenate([group[2] for group in groups])],
        "session_id": join_ids(session, make_ids("", within, width=8)),
        "duration_seconds": np.round(rng.exponential(40.0, len(at)), 1),
    }
    by_time = np.argsort(at, kind="stable")
    events = with_account(events, accounts, second[source_order])
    return {name: values[by_time] for name, values in events.items()}


def with_other_events(
    rng: np.random.Generator,
    events: Mapping[str, Any],
    people: Mapping[str, Any],
    items: Mapping[str, Any],
    accounts: Mapping[str, Any],
    days: int,
    synthetic_shop: SyntheticShop,
) -> dict[str, Any]:
    """Add events of the other types of the shop, at random times and without effect on purchases."""
    count = len(people["segment"])
    end = np.where(np.isnan(people["churn"]), float(days), people["churn"])
    parts = []
    for kind, mean in synthetic_shop.events_per_person.items():
        person = np.repeat(np.arange(count), rng.poisson(mean, count))
        at = people["start"][person] + (end - people["start"])[person] * rng.random(len(person))
        columns = {
            "person": person,
            "event_type": np.repeat(np.array([synthetic_shop.event_names.get(kind, kind)]), len(person)),
            "ts": timestamps(at),
            "item_id": items["item_id"][sample_items(rng, people["taste"], person)],
            "session_id": join_ids(np.array([kind]), make_ids("", np.arange(len(person)), 8)),
            "duration_seconds": np.round(rng.exponential(90.0, len(person)), 1),
        }
        parts.append(with_account(columns, accounts, np.zeros(len(person), dtype=np.int64)))
    both = {name: np.concatenate([events[name], *(part[name] for part in parts)]) for name in events}
    by_time = np.argsort(both["ts"], kind="stable")
    return {name: values[by_time] for name, values in both.items()}


def concat_events(events: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, pa.Array]:
    """Concatenate events about items and about contents, ordered by time; missing columns become null."""
    parts = [dict(part) for part in (events, others)]
    for name in {*events, *others}:
        for part in parts:
            part.setdefault(name, np.full(len(part["ts"]), None, dtype=object))
    by_time = np.argsort(np.concatenate([part["ts"] for part in parts]), kind="stable")
    return {
        name: pa.array(np.concatenate([part[name] for part in parts])[by_time], from_pandas=True) for name in parts[0]
    }
