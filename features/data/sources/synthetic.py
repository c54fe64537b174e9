"""A made-up shop whose truth is known: what people like, how often they need it, when they leave, what a campaign does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from features.data.sources.base import RawTable, Source
from features.data.sources.market import Market
from features.data.sources.synthetic_columns import Floats, Ints, joined, names, when, with_account
from features.data.sources.synthetic_contents import contents_and_reading
from qianmian.errors import UsageError
from qianmian.packs import Pack

ITEMS_PER_CATEGORY = 20
FAVOURITES = 6  # items a person buys again and again
EFFECT_DAYS = 7  # a campaign works for so long
PROPENSITY = 0.5  # of being contacted, drawn by lot
CITIES = {"north": "Northam", "south": "Southend", "east": "Eastbourne", "west": "Westbury"}
ATTRIBUTE_FIDELITY = 0.7  # how often a person looks like the rest of the segment


@dataclass(frozen=True)
class World:
    """What was generated: raw tables, and the truth behind them."""

    tables: Mapping[str, pa.Table]
    truth: Mapping[str, pd.DataFrame]


class Synthetic(Source):
    """A seeded shop with an app and a web store; a quarter of the people use both, under two ids.

    Parameters
    ----------
    customers : int
        Persons, at least 20.
    days : int
        Length of the history from 2024-01-01, at least 60.
    seed : int
        The same seed gives the same rows.
    pack : Pack, optional
        Draw the shop of this trade; what is not given is as the pack says.

    Examples
    --------
    >>> truth = Synthetic(customers=20, days=60, seed=1).truth()
    >>> sorted(truth)
    ['accounts', 'cycles', 'effects', 'interests', 'persons', 'preferences', 'published']
    >>> float(truth["preferences"].groupby("person_id")["share"].sum().round(6).max())
    1.0
    """

    name = "synthetic"

    def __init__(
        self, customers: int | None = None, days: int | None = None, seed: int | None = None, pack: Pack | None = None
    ) -> None:
        shop = pack.synthetic if pack is not None else None
        usual = (shop.customers, shop.days, shop.seed) if shop is not None else (1000, 365, 0)
        customers, days, seed = (
            ours if given is None else given for given, ours in zip((customers, days, seed), usual, strict=True)
        )
        self.market = Market.of(shop, pack.replenishment) if pack is not None and shop is not None else Market()
        # raw rows carry the trade's names, and are read as `files` would read them
        self.event_type = pack.event_type('"event_type"') if pack is not None else '"event_type"'
        if customers < 20 or days < 60:
            raise UsageError(
                "too small a shop to learn from",
                got=f"customers={customers}, days={days}",
                allowed="customers ≥ 20, days ≥ 60",
            )
        self.customers, self.days, self.seed = customers, days, seed

    @cached_property
    def _world(self) -> World:
        return generate(self.customers, self.days, self.seed, self.market)

    def truth(self) -> dict[str, pd.DataFrame]:
        """What no model may see.

        Returns
        -------
        dict of str to DataFrame
            ``persons`` (person_id, segment, started_at, churned_at or NaT, mean_gap_days) ·
            ``accounts`` (person_id, source, source_user_id) ·
            ``preferences`` (person_id, category, share: sums to 1 a person) ·
            ``cycles`` (person_id, item_id, cycle_days) ·
            ``effects`` (campaign_id, person_id, variant, propensity, lift: expected change of the number of orders in the
            seven days after a contact) ·
            ``interests`` (person_id, topic, share: sums to 1 a person) ·
            ``published`` (content_id, published_at, appeal). The last two not for the shop of a pack.
        """
        return {name: frame.copy() for name, frame in self._world.truth.items()}

    def tables(self, connection: duckdb.DuckDBPyConnection) -> Sequence[RawTable]:
        """The raw tables, registered with `connection` as Arrow."""
        raw = []
        for table, rows in self._world.tables.items():
            view = f"synthetic_{table}"
            connection.register(view, rows)
            columns = {name: f'"{name}"' for name in rows.column_names}
            if table == "events":
                columns["event_type"] = self.event_type
            if table == "identities":  # as a company would hand them over: no telephone number in the clear
                columns["id_value"] = "sha256('synthetic' || id_value)"
            raw.append(
                RawTable(
                    table,
                    f"SELECT * FROM {view}",
                    columns,
                    (f"synthetic customers={self.customers} days={self.days} seed={self.seed}",),
                )
            )
        return raw


def generate(customers: int, days: int, seed: int, market: Market | None = None) -> World:
    """Draw a whole shop. Every part has its own random stream, so that one part's size does not change another part."""
    market = market or Market()
    streams = np.random.default_rng(seed).spawn(9)
    items = _items(streams[0], market)
    people = _people(streams[1], customers, days, market)
    if (
        market.child_months
    ):  # day on which the person's child is born, from eight months after the beginning to four years before
        people["born"] = streams[6].uniform(-1460.0, 240.0, customers)
    people["looks_only"] = streams[6].random(customers) < market.lookers
    accounts, identities, profiles = _accounts(streams[2], people)
    orders, touches, effects, campaigns = _orders(streams[3], people, days)
    lines, cycles = _lines(streams[4], people, orders, items, days, market)
    transactions, events = _records(streams[5], people, orders, lines, items, accounts, days, market)
    if market.events_per_person:
        events = _with_others(streams[7], events, people, items, accounts, days, market)
    reading: Mapping[str, Any] = {}
    if not market.event_names:  # the shop of a pack tells of its trade alone
        reading = contents_and_reading(streams[8], people, items, accounts, days, market.categories)
        events = _together(events, reading["events"])
    touches = with_account(touches, accounts, np.zeros(len(touches["person"]), dtype=np.int64))
    person_ids = names("p", np.arange(customers))
    truth = {
        "persons": pd.DataFrame(
            {
                "person_id": person_ids,
                "segment": people["segment"],
                "started_at": when(people["start"]),
                "churned_at": when(people["churn"]),
                "mean_gap_days": people["gap"],
                **({"child_born_at": when(people["born"])} if "born" in people else {}),
            }
        ),
        "accounts": pd.DataFrame(
            {
                "person_id": person_ids[accounts["person"]],
                "source": accounts["source"],
                "source_user_id": accounts["source_user_id"],
            }
        ),
        "preferences": pd.DataFrame(
            {
                "person_id": np.repeat(person_ids, len(market.categories)),
                "category": np.tile(np.array(market.categories), customers),
                "share": people["taste"].ravel(),
            }
        ),
        "cycles": pd.DataFrame(
            {
                "person_id": person_ids[cycles["person"]],
                "item_id": items["item_id"][cycles["item"]],
                "cycle_days": cycles["cycle"],
            }
        ),
        "effects": pd.DataFrame({**effects, "person_id": person_ids[effects["person_id"]]}),
        **reading.get("truth", {}),
    }
    tables = {
        "items": {name: items[name] for name in ("item_id", "category", "brand", "price", "available")},
        "profiles": profiles,
        "identities": identities,
        "campaigns": campaigns,
        "touches": touches,
        "transactions": transactions,
        "events": events,
        **({"contents": reading["contents"]} if reading else {}),
    }
    return World({name: pa.table(dict(columns)) for name, columns in tables.items()}, truth)


def _together(events: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, pa.Array]:
    """Events about items and events about contents, by time; what a kind does not have is null."""
    parts = [dict(part) for part in (events, others)]
    for name in {*events, *others}:
        for part in parts:
            part.setdefault(name, np.full(len(part["ts"]), None, dtype=object))
    by_time = np.argsort(np.concatenate([part["ts"] for part in parts]), kind="stable")
    return {
        name: pa.array(np.concatenate([part[name] for part in parts])[by_time], from_pandas=True) for name in parts[0]
    }


def _items(rng: np.random.Generator, market: Market) -> dict[str, Any]:
    count = len(market.categories) * ITEMS_PER_CATEGORY
    category = np.repeat(np.arange(len(market.categories)), ITEMS_PER_CATEGORY)
    drawn = rng.lognormal(1.5, 0.5, len(market.categories))
    level = (np.array(market.prices) if market.prices else drawn)[category]
    return {
        "item_id": names("i", np.arange(count)),
        "category": np.array(market.categories)[category],
        "brand": names("brand", rng.integers(0, 8, count), width=1),
        "price": np.round(level * rng.lognormal(0.0, 0.4, count) + 0.5, 2),
        "available": rng.random(count) > 0.02,
    }


def _people(rng: np.random.Generator, count: int, days: int, market: Market) -> dict[str, Any]:
    kinds = market.segments
    segment = (
        rng.integers(0, len(kinds), count) if market.shares is None else rng.choice(len(kinds), count, p=market.shares)
    )
    liking = np.full((len(kinds), len(market.categories)), 0.25)
    for number in range(len(kinds)):  # each kind of people has three categories of its own
        liking[number, list(market.likes[number]) if market.likes else slice(number * 3, number * 3 + 3)] = 3.0
    taste = rng.gamma(liking[segment])
    taste /= taste.sum(axis=1, keepdims=True)
    start = np.where(rng.random(count) < 0.7, 0.0, rng.random(count) * days * 0.6)
    median, least, most = market.gap_days
    gap = np.clip(rng.lognormal(np.log(median), 0.5, count), least, most)
    leaving = start + 30.0 + rng.exponential(days * 0.6, count)
    churn = np.where((rng.random(count) < 0.6) & (leaving < days), leaving, np.nan)
    looks = {
        name: np.where(rng.random(count) < ATTRIBUTE_FIDELITY, segment, rng.integers(0, len(kinds), count))
        for name in ("gender", "age_band", "region", "income_band")
    }
    attributes = {name: np.array([kind[name] for kind in kinds])[chosen] for name, chosen in looks.items()}
    hour = np.clip(rng.normal(17.0, 3.5, count), 6.0, 23.0)
    return {
        "segment": segment,
        "taste": taste,
        "start": start,
        "gap": gap,
        "churn": churn,
        "hour": hour,
        "attributes": attributes,
        "lift": np.array([kind["lift"] for kind in kinds])[segment],
    }


def _accounts(
    rng: np.random.Generator, people: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    count = len(people["segment"])
    use = rng.random(count)
    has_app, has_web = use < 0.85, use >= 0.60  # 60 % app only, 15 % web only, 25 % both
    app, web = np.flatnonzero(has_app), np.flatnonzero(has_web)
    person = np.concatenate([app, web])
    # web ids are numbered in another order: nothing in an id tells who is who
    web_number = rng.permutation(count)[web]
    accounts = {
        "person": person,
        "source": np.repeat(np.array(["app", "web"]), [len(app), len(web)]),
        "source_user_id": np.concatenate([names("a", app), names("w", web_number)]),
        "first": np.where(has_app, np.cumsum(has_app) - 1, len(app) + np.cumsum(has_web) - 1),
        "second": np.where(has_web, len(app) + np.cumsum(has_web) - 1, np.cumsum(has_app) - 1),
    }
    start = people["start"][person]
    phone = np.where(
        (np.arange(len(person)) < len(app)) | (rng.random(len(person)) < 0.8), person, count + person
    )  # some give another number
    parts = [
        ("phone", names("+44", phone, width=9), rng.random(len(person)) < 0.9),
        (
            "device",
            names("d", np.where(rng.random(len(person)) < 0.5, person, count + np.arange(len(person)))),
            rng.random(len(person)) < 0.8,
        ),
        ("email", names("mail", person), accounts["source"] == "web"),
    ]
    identities = {
        "source": np.concatenate([accounts["source"][kept] for _, _, kept in parts]),
        "source_user_id": np.concatenate([accounts["source_user_id"][kept] for _, _, kept in parts]),
        "id_type": np.concatenate([np.repeat(np.array([kind]), kept.sum()) for kind, _, kept in parts]),
        "id_value": np.concatenate([value[kept] for _, value, kept in parts]),
        "observed_at": np.concatenate([when(start[kept]) for _, _, kept in parts]),
    }
    attributes = {name: values[person] for name, values in people["attributes"].items()}
    profiles = {
        "source": accounts["source"],
        "source_user_id": accounts["source_user_id"],
        **attributes,
        "city": np.array([CITIES[str(region)] for region in CITIES])[
            pd.Index(list(CITIES)).get_indexer(attributes["region"])
        ],
        "registered_at": when(start),
        "member_tier": np.where(people["gap"][person] < 7.0, "gold", "silver"),
        "consent_email": rng.random(len(person)) < 0.7,
        "consent_push": rng.random(len(person)) < 0.5,
    }
    return accounts, identities, profiles


def _orders(rng: np.random.Generator, people: Mapping[str, Any], days: int) -> tuple[dict[str, Any], ...]:
    count = len(people["segment"])
    end = np.where(np.isnan(people["churn"]), float(days), people["churn"])
    most = int(days / people["gap"].min() * 1.3) + 5
    gaps = rng.gamma(4.0, 1.0, (count, most)) * (people["gap"][:, None] / 4.0)
    time = people["start"][:, None] + np.cumsum(gaps, axis=1) - gaps[:, :1] * rng.random((count, 1))
    alive = time < end[:, None]
    person, time = np.broadcast_to(np.arange(count)[:, None], time.shape)[alive], time[alive]
    sent = np.arange(30.0, days - EFFECT_DAYS, 45.0)
    kept = np.ones(len(time), dtype=bool)
    extra_person, extra_time, touched, effects = [], [], [], []
    lift = people["lift"]
    for number, day in enumerate(sent):  # a handful of campaigns
        asked = np.flatnonzero((people["start"] <= day) & (end > day + EFFECT_DAYS))
        treated = rng.random(len(asked)) < PROPENSITY
        chosen = np.zeros(count, dtype=bool)
        chosen[asked[treated]] = True
        within = (time >= day) & (time < day + EFFECT_DAYS)
        # annoyed people order less, pleased ones order once more; nobody changes what they like
        kept &= ~(within & chosen[person] & (rng.random(len(time)) < -lift[person]))
        moved = np.flatnonzero(chosen & (rng.random(count) < lift))
        extra_person.append(moved)
        extra_time.append(day + rng.random(len(moved)) * EFFECT_DAYS)
        touched.append((number, asked, treated, day + 9.0 / 24.0))
        expected = np.where(lift[asked] < 0, lift[asked] * EFFECT_DAYS / people["gap"][asked], lift[asked])
        effects.append((number, asked, treated, expected))
    person = np.concatenate([person[kept], *extra_person])
    time = np.concatenate([time[kept], *extra_time])
    hour = np.clip(people["hour"][person] + rng.normal(0.0, 1.5, len(person)), 0.0, 23.9)
    at = np.floor(time) + hour / 24.0
    stays = at < end[person]  # the hour may not carry an order past the leaving
    person, at = person[stays], at[stays]
    order = np.lexsort((person, at))
    asked, treated = (np.concatenate([part[position] for part in touched]) for position in (1, 2))
    campaign = np.repeat(names("c", np.arange(len(sent)), width=2), [len(part[1]) for part in touched])
    variant = np.where(treated, "contact", "control")
    opened = treated & (rng.random(len(asked)) < 0.4)
    touches = {
        "person": asked,
        "touch_id": joined(campaign, names("p", asked)),
        "campaign_id": campaign,
        "ts": when(np.repeat([part[3] for part in touched], [len(part[1]) for part in touched])),
        "variant": variant,
        "propensity": np.where(treated, PROPENSITY, 1 - PROPENSITY),
        "delivered": treated,
        "opened": opened,
        "clicked": opened & (rng.random(len(asked)) < 0.3),
    }
    truth = {
        "campaign_id": campaign,
        "person_id": asked,
        "variant": variant,
        "propensity": touches["propensity"],
        "lift": np.concatenate([part[3] for part in effects]),
    }
    campaigns = {
        "campaign_id": names("c", np.arange(len(sent)), width=2),
        "kind": np.repeat(np.array(["message"]), len(sent)),
        "start": when(sent),
        "end": when(sent + EFFECT_DAYS),
        "channel": np.repeat(np.array(["push"]), len(sent)),
    }
    return {"person": person[order], "at": at[order]}, touches, truth, campaigns


def _lines(
    rng: np.random.Generator,
    people: Mapping[str, Any],
    orders: Mapping[str, Any],
    items: Mapping[str, Any],
    days: int,
    market: Market,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Which items each order holds: what ran out since, and what caught the eye."""
    count, total = len(people["segment"]), len(items["item_id"])
    owner = np.repeat(np.arange(count), FAVOURITES)
    favourite = _choose(rng, people["taste"], owner)
    unique = np.unique(owner * total + favourite)
    owner, favourite = unique // total, unique % total
    if market.cycles:  # what lasts so long is one thing at a time: the first favourite of each category
        _, first = np.unique(owner * len(market.categories) + favourite // ITEMS_PER_CATEGORY, return_index=True)
        owner, favourite = owner[first], favourite[first]
    varies = rng.lognormal(0.7, 0.5, len(owner))
    cycle = np.clip(people["gap"][owner] * varies, 4.0, 120.0)
    if market.cycles:  # the trade's own, with its spread between people
        known = [
            (cycle_days, spread / cycle_days) if pair else (np.nan, 0.0)
            for pair in market.cycles
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
    # bought with the first order after it ran out
    by_person = np.lexsort((orders["at"], orders["person"]))
    scale = float(days + 10)
    keys = (orders["person"] * scale + orders["at"])[by_person]
    found = np.searchsorted(keys, owner[pair] * scale + due)
    inside = found < len(keys)
    position = by_person[found[inside]]
    same = orders["person"][position] == owner[pair][inside]
    repeat_order, repeat_item = position[same], favourite[pair][inside][same]
    tried_order = np.repeat(np.arange(len(orders["at"])), 1 + rng.poisson(market.tries, len(orders["at"])))
    tried_item = _choose(rng, people["taste"], orders["person"][tried_order])
    if market.cycles:  # nobody tries what they still have
        lasts = np.array([pair is not None for pair in market.cycles])[tried_item // ITEMS_PER_CATEGORY]
        tried_order, tried_item = tried_order[~lasts], tried_item[~lasts]
    both = np.unique(np.concatenate([repeat_order * total + repeat_item, tried_order * total + tried_item]))
    both = both[~people["looks_only"][orders["person"][both // total]]]
    if market.child_months:
        months = (orders["at"][both // total] - people["born"][orders["person"][both // total]]) / 30.4
        low, high = np.array([span or (-np.inf, np.inf) for span in market.child_months])[
            both % total // ITEMS_PER_CATEGORY
        ].T
        both = both[(months >= low) & (months < high)]
    return {"order": both // total, "item": both % total}, {"person": owner, "item": favourite, "cycle": cycle}


def _choose(rng: np.random.Generator, taste: Floats, person: Ints) -> Ints:
    """An item for each of `person`: a category by taste, then an item of it by popularity (1 / rank)."""
    steps = np.cumsum(taste, axis=1)
    category = np.minimum((rng.random(len(person))[:, None] > steps[person]).sum(axis=1), taste.shape[1] - 1)
    popularity = np.cumsum(1.0 / np.arange(1, ITEMS_PER_CATEGORY + 1))
    rank = np.searchsorted(popularity / popularity[-1], rng.random(len(person)))
    return np.asarray(category * ITEMS_PER_CATEGORY + rank, dtype=np.int64)


def _records(
    rng: np.random.Generator,
    people: Mapping[str, Any],
    orders: Mapping[str, Any],
    lines: Mapping[str, Any],
    items: Mapping[str, Any],
    accounts: Mapping[str, Any],
    days: int,
    market: Market,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Transactions (with refunds) and the events around them."""
    order, item = lines["order"], lines["item"]
    number = len(order)
    second = (rng.random(len(orders["at"])) < 0.4).astype(np.int64)  # who has two accounts uses now this, now that
    quantity = 1.0 + rng.poisson(0.3, number)
    full = items["price"][item] * quantity
    discount = np.round(np.where(rng.random(number) < 0.2, full * 0.15, 0.0), 2)
    coupon = np.round(np.where(rng.random(number) < 0.05, full * 0.10, 0.0), 2)
    bought = {
        "person": orders["person"][order],
        "order_id": names("o", order, width=8),
        "line_no": np.arange(number) - np.searchsorted(order, order) + 1,
        "ts": when(orders["at"][order]),
        "item_id": items["item_id"][item],
        "quantity": quantity,
        "amount": np.round(full - discount - coupon, 2),
        "discount": discount,
        "coupon_discount": coupon,
        "status": np.repeat(np.array(["paid"]), number),
    }
    back = np.flatnonzero((rng.random(number) < 0.02) & (orders["at"][order] < days - 15))
    returned = {name: values[back] for name, values in bought.items()}
    returned["order_id"] = joined(returned["order_id"], np.repeat(np.array(["R"]), len(back)))
    returned["ts"] = when(orders["at"][order][back] + 1.0 + rng.random(len(back)) * 13.0)
    returned["status"] = np.repeat(np.array(["refunded"]), len(back))
    transactions = {name: np.concatenate([bought[name], returned[name]]) for name in bought}
    transactions = with_account(transactions, accounts, np.concatenate([second[order], second[order][back]]))
    # before a purchase comes a look and usually the cart; many looks lead nowhere
    viewed, carted = rng.random(number) < 0.9, rng.random(number) < 0.8
    visits = rng.poisson(1.5, len(orders["at"]))
    idle = np.repeat(np.arange(len(orders["at"])), visits)
    idle_at = np.maximum(orders["at"][idle] - rng.exponential(3.0, len(idle)), people["start"][orders["person"][idle]])
    groups = [
        (
            "view",
            order[viewed],
            item[viewed],
            orders["at"][order][viewed] - (10.0 + 20.0 * rng.random(viewed.sum())) / 1440.0,
        ),
        (
            "cart",
            order[carted],
            item[carted],
            orders["at"][order][carted] - (1.0 + 8.0 * rng.random(carted.sum())) / 1440.0,
        ),
        ("view", idle, _choose(rng, people["taste"], orders["person"][idle]), idle_at),
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
            np.array([market.event_names.get(group[0], group[0]) for group in groups]),
            [len(group[1]) for group in groups],
        ),
        "ts": when(at),
        "item_id": items["item_id"][np.concatenate([group[2] for group in groups])],
        "session_id": joined(session, names("", within, width=8)),
        "duration_seconds": np.round(rng.exponential(40.0, len(at)), 1),
    }
    by_time = np.argsort(at, kind="stable")
    events = with_account(events, accounts, second[source_order])
    return transactions, {name: values[by_time] for name, values in events.items()}


def _with_others(
    rng: np.random.Generator,
    events: Mapping[str, Any],
    people: Mapping[str, Any],
    items: Mapping[str, Any],
    accounts: Mapping[str, Any],
    days: int,
    market: Market,
) -> dict[str, Any]:
    """The events together with those of other types, which lead to nothing and come at any time."""
    count = len(people["segment"])
    end = np.where(np.isnan(people["churn"]), float(days), people["churn"])
    parts = []
    for kind, mean in market.events_per_person.items():
        person = np.repeat(np.arange(count), rng.poisson(mean, count))
        at = people["start"][person] + (end - people["start"])[person] * rng.random(len(person))
        own = {
            "person": person,
            "event_type": np.repeat(np.array([market.event_names.get(kind, kind)]), len(person)),
            "ts": when(at),
            "item_id": items["item_id"][_choose(rng, people["taste"], person)],
            "session_id": joined(np.array([kind]), names("", np.arange(len(person)), 8)),
            "duration_seconds": np.round(rng.exponential(90.0, len(person)), 1),
        }
        parts.append(with_account(own, accounts, np.zeros(len(person), dtype=np.int64)))
    both = {name: np.concatenate([events[name], *(part[name] for part in parts)]) for name in events}
    by_time = np.argsort(both["ts"], kind="stable")
    return {name: values[by_time] for name, values in both.items()}
