"""Items and orders of the synthetic shop: order times, campaign effects, and the items of each order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from features.data.sources.synthetic_columns import START_TIME, Floats, Ints, join_ids, make_ids, timestamps
from features.data.sources.synthetic_demand import chosen_items
from features.data.sources.synthetic_shop import SyntheticShop, season_factors

ITEMS_PER_CATEGORY = 20
FAVOURITES = 6  # items that a person buys repeatedly
EFFECT_DAYS = 7  # duration of a campaign effect
PROPENSITY = 0.5  # probability of being contacted


def draw_items(rng: np.random.Generator, synthetic_shop: SyntheticShop) -> dict[str, Any]:
    count = len(synthetic_shop.categories) * ITEMS_PER_CATEGORY
    category = np.repeat(np.arange(len(synthetic_shop.categories)), ITEMS_PER_CATEGORY)
    sampled = rng.lognormal(1.5, 0.5, len(synthetic_shop.categories))
    level = (np.array(synthetic_shop.prices) if synthetic_shop.prices else sampled)[category]
    return {
        "item_id": make_ids("i", np.arange(count)),
        "category": np.array(synthetic_shop.categories)[category],
        "brand": make_ids("brand", rng.integers(0, 8, count), width=1),
        "price": np.round(level * rng.lognormal(0.0, 0.4, count) + 0.5, 2),
        "available": rng.random(count) > 0.02,
    }


def season_clock(days: int, strength: float) -> Floats:
    """Return for the start of each day, and the end of the last one, the sum of the season factors of the days before.

    A person whose orders are equally spread on this clock buys at a rate that the month multiplies.
    """
    months = (START_TIME.astype("datetime64[D]") + np.arange(days)).astype("datetime64[M]").astype(np.int64) % 12
    return np.concatenate([[0.0], np.cumsum(np.array(season_factors(strength))[months])])


def draw_orders(
    rng: np.random.Generator, people: Mapping[str, Any], days: int, season_strength: float = 0.0
) -> tuple[dict[str, Any], ...]:
    """Draw the times of the orders, the contacts of the campaigns, and the effects of these on the orders.

    Without a season, the gaps between the orders of a person are gamma-distributed around the person's mean. With one,
    they are so on the clock of `season_clock`.
    """
    count = len(people["segment"])
    end = np.where(np.isnan(people["churn"]), float(days), people["churn"])
    clock = season_clock(days, season_strength) if season_strength else np.arange(days + 1.0)
    most = int(np.ceil(clock[-1]) / people["gap"].min() * 1.3) + 5
    gaps = rng.gamma(4.0, 1.0, (count, most)) * (people["gap"][:, None] / 4.0)
    start = np.interp(people["start"], np.arange(days + 1.0), clock) if season_strength else people["start"]
    time = start[:, None] + np.cumsum(gaps, axis=1) - gaps[:, :1] * rng.random((count, 1))
    if season_strength:  # times after the last day stay after it
        time = np.interp(time, clock, np.arange(days + 1.0), right=days + 1.0)
    alive = time < end[:, None]
    person, time = np.broadcast_to(np.arange(count)[:, None], time.shape)[alive], time[alive]
    sent = np.arange(30.0, days - EFFECT_DAYS, 45.0)
    kept = np.ones(len(time), dtype=bool)
    extra_person, extra_time, touched, effects = [], [], [], []
    lift = people["lift"]
    for number, day in enumerate(sent):
        eligible = np.flatnonzero((people["start"] <= day) & (end > day + EFFECT_DAYS))
        treated = rng.random(len(eligible)) < PROPENSITY
        chosen = np.zeros(count, dtype=bool)
        chosen[eligible[treated]] = True
        within = (time >= day) & (time < day + EFFECT_DAYS)
        # a negative lift removes orders, a positive lift adds one; preferences do not change
        kept &= ~(within & chosen[person] & (rng.random(len(time)) < -lift[person]))
        moved = np.flatnonzero(chosen & (rng.random(count) < lift))
        extra_person.append(moved)
        extra_time.append(day + rng.random(len(moved)) * EFFECT_DAYS)
        touched.append((number, eligible, treated, day + 9.0 / 24.0))
        expected = np.where(lift[eligible] < 0, lift[eligible] * EFFECT_DAYS / people["gap"][eligible], lift[eligible])
        effects.append((number, eligible, treated, expected))
    person = np.concatenate([person[kept], *extra_person])
    time = np.concatenate([time[kept], *extra_time])
    hour = np.clip(people["hour"][person] + rng.normal(0.0, 1.5, len(person)), 0.0, 23.9)
    at = np.floor(time) + hour / 24.0
    before_end = at < end[person]  # the hour of the day must not move an order past the churn date
    person, at = person[before_end], at[before_end]
    order = np.lexsort((person, at))
    eligible, treated = (np.concatenate([part[position] for part in touched]) for position in (1, 2))
    campaign = np.repeat(make_ids("c", np.arange(len(sent)), width=2), [len(part[1]) for part in touched])
    variant = np.where(treated, "contact", "control")
    opened = treated & (rng.random(len(eligible)) < 0.4)
    touches = {
        "person": eligible,
        "touch_id": join_ids(campaign, make_ids("p", eligible)),
        "campaign_id": campaign,
        "ts": timestamps(np.repeat([part[3] for part in touched], [len(part[1]) for part in touched])),
        "variant": variant,
        "propensity": np.where(treated, PROPENSITY, 1 - PROPENSITY),
        "delivered": treated,
        "opened": opened,
        "clicked": opened & (rng.random(len(eligible)) < 0.3),
    }
    truth = {
        "campaign_id": campaign,
        "person_id": eligible,
        "variant": variant,
        "propensity": touches["propensity"],
        "lift": np.concatenate([part[3] for part in effects]),
    }
    campaigns = {
        "campaign_id": make_ids("c", np.arange(len(sent)), width=2),
        "kind": np.repeat(np.array(["message"]), len(sent)),
        "start": timestamps(sent),
        "end": timestamps(sent + EFFECT_DAYS),
        "channel": np.repeat(np.array(["push"]), len(sent)),
    }
    return {"person": person[order], "at": at[order]}, touches, truth, campaigns


def draw_lines(
    rng: np.random.Generator,
    people: Mapping[str, Any],
    orders: Mapping[str, Any],
    items: Mapping[str, Any],
    days: int,
    synthetic_shop: SyntheticShop,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draw the items of each order, which say whether they are repurchases or trials, and the repurchase cycles."""
    count, total = len(people["segment"]), len(items["item_id"])
    owner = np.repeat(np.arange(count), FAVOURITES)
    favourite = sample_items(rng, people["taste"], owner)
    favourite = chosen_items(people, items, owner, favourite, ITEMS_PER_CATEGORY)
    unique = np.unique(owner * total + favourite)
    owner, favourite = unique // total, unique % total
    if synthetic_shop.cycles:  # only one item per category is in use at a time: the first favourite
        _, first = np.unique(
            owner * len(synthetic_shop.categories) + favourite // ITEMS_PER_CATEGORY, return_index=True
        )
        owner, favourite = owner[first], favourite[first]
    varies = rng.lognormal(0.7, 0.5, len(owner))
    cycle = np.clip(people["gap"][owner] * varies, 4.0, 120.0)
    if synthetic_shop.cycles:  # cycles of the industry pack, with their spread between people
        known = [
            (cycle_days, spread / cycle_days) if pair else (np.nan, 0.0)
            for pair in synthetic_shop.cycles
            for cycle_days, spread in [pair or (1, 0)]
        ]
        typical, relative = np.array(known)[favourite // ITEMS_PER_CATEGORY].T
        cycle = np.where(
            np.isnan(typical), cycle, np.maximum(typical * np.exp(relative * (np.log(varies) - 0.7) / 0.5), 2.0)
        )
    most = int(days / cycle.min()) + 2
    due = people["start"][owner][:, None] + cycle[:, None] * (
        rng.random((len(owner), 1)) + np.arange(most)[None, :] * rng.normal(1.0, 0.03, (len(owner), most))
    )
    needed = due < days
    pair, due = np.broadcast_to(np.arange(len(owner))[:, None], due.shape)[needed], due[needed]
    # an item is bought with the first order after it ran out
    by_person = np.lexsort((orders["at"], orders["person"]))
    scale = float(days + 10)
    keys = (orders["person"] * scale + orders["at"])[by_person]
    next_order = np.searchsorted(keys, owner[pair] * scale + due)
    inside = next_order < len(keys)
    position = by_person[next_order[inside]]
    same = orders["person"][position] == owner[pair][inside]
    repeat_order, repeat_item = position[same], favourite[pair][inside][same]
    tried_order = np.repeat(
        np.arange(len(orders["at"])), 1 + rng.poisson(synthetic_shop.trial_items, len(orders["at"]))
    )
    tried_item = sample_items(rng, people["taste"], orders["person"][tried_order])
    tried_item = chosen_items(people, items, orders["person"][tried_order], tried_item, ITEMS_PER_CATEGORY)
    if synthetic_shop.cycles:  # items with a cycle are bought only when they ran out, never as a trial
        lasts = np.array([pair is not None for pair in synthetic_shop.cycles])[tried_item // ITEMS_PER_CATEGORY]
        tried_order, tried_item = tried_order[~lasts], tried_item[~lasts]
    repurchases = repeat_order * total + repeat_item
    both = np.unique(np.concatenate([repurchases, tried_order * total + tried_item]))
    both = both[~people["looks_only"][orders["person"][both // total]]]
    if synthetic_shop.child_months:
        months = (orders["at"][both // total] - people["born"][orders["person"][both // total]]) / 30.4
        low, high = np.array([span or (-np.inf, np.inf) for span in synthetic_shop.child_months])[
            both % total // ITEMS_PER_CATEGORY
        ].T
        both = both[(months >= low) & (months < high)]
    lines = {"order": both // total, "item": both % total, "repurchased": np.isin(both, repurchases)}
    return lines, {"person": owner, "item": favourite, "cycle": cycle}


def sample_items(rng: np.random.Generator, taste: Floats, person: Ints) -> Ints:
    """Draw an item for each entry of `person`: a category by preference, then an item by popularity (1 / rank)."""
    steps = np.cumsum(taste, axis=1)
    category = np.minimum((rng.random(len(person))[:, None] > steps[person]).sum(axis=1), taste.shape[1] - 1)
    popularity = np.cumsum(1.0 / np.arange(1, ITEMS_PER_CATEGORY + 1))
    rank = np.searchsorted(popularity / popularity[-1], rng.random(len(person)))
    return np.asarray(category * ITEMS_PER_CATEGORY + rank, dtype=np.int64)
