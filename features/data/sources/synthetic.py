"""A synthetic shop with known ground truth: preferences, repurchase cycles, churn and campaign effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from features.data.sources.base import RawTable, Source
from features.data.sources.synthetic_columns import make_ids, timestamps, with_account
from features.data.sources.synthetic_contents import generate_contents
from features.data.sources.synthetic_demand import DEMAND, draw_demand_types
from features.data.sources.synthetic_intent import intent_events
from features.data.sources.synthetic_orders import draw_items, draw_lines, draw_orders
from features.data.sources.synthetic_people import draw_accounts, draw_people
from features.data.sources.synthetic_records import (
    checkout_events,
    concat_events,
    draw_transactions,
    with_other_events,
)
from features.data.sources.synthetic_shop import SyntheticShop
from qianmian.errors import UsageError
from qianmian.packs import Pack
from qianmian.schema import DEMAND_TYPES


@dataclass(frozen=True)
class SyntheticData:
    """Generated raw tables, and the ground truth behind them."""

    tables: Mapping[str, pa.Table]
    truth: Mapping[str, pd.DataFrame]


class Synthetic(Source):
    """A synthetic shop with an app and a web store; a quarter of the people use both, with two user ids.

    Parameters
    ----------
    customers : int, optional
        Number of people, at least 20. Default: 1000, or that of the pack.
    days : int, optional
        Length of the history in days from 2024-01-01, at least 60. Default: 365, or that of the pack.
    seed : int, optional
        Random seed; the same seed gives the same rows. Default: 0, or that of the pack.
    pack : Pack, optional
        Industry pack whose shop is generated.
    gap_days : float, optional
        Median number of days between the orders of a person; persons differ between a third and five times of it.
        Default: 9, or that of the pack.
    season_strength : float, optional
        How much more often people buy in November and December than in a quiet month: 2 means three times as often.
        Default: 0, no season.
    intent : bool
        Whether views, carts and favourites come from needs that last minutes to days, and strangers visit the shop
        (`features.data.sources.synthetic_intent`). The orders are the same. Default: views and carts of the minutes
        before an order, and passing views.
    demand_types : bool
        Whether people have demand types, which what they view, buy and read follows
        (`features.data.sources.synthetic_demand`). Default: they differ by chance alone.

    Raises
    ------
    UsageError
        If there are too few customers or days, or an option is out of its range.

    Examples
    --------
    >>> truth = Synthetic(customers=20, days=60, seed=1).truth()
    >>> sorted(truth)
    ['accounts', 'cycles', 'effects', 'interests', 'persons', 'preferences', 'published']
    >>> float(truth["preferences"].groupby("person_id")["share"].sum().round(6).max())
    1.0
    """

    name = "synthetic"
    customers_timezone = "UTC"

    def __init__(
        self,
        customers: int | None = None,
        days: int | None = None,
        seed: int | None = None,
        pack: Pack | None = None,
        gap_days: float | None = None,
        season_strength: float | None = None,
        intent: bool = False,
        demand_types: bool = False,
    ) -> None:
        shop = pack.synthetic if pack is not None else None
        defaults = (shop.customers, shop.days, shop.seed) if shop is not None else (1000, 365, 0)
        customers, days, seed = (
            default if value is None else value
            for value, default in zip((customers, days, seed), defaults, strict=True)
        )
        self.synthetic_shop = (
            SyntheticShop.of(shop, pack.replenishment) if pack is not None and shop is not None else SyntheticShop()
        )
        # the raw rows have the event names of the industry, which are mapped as in the source `files`
        self.event_type = pack.event_type('"event_type"') if pack is not None else '"event_type"'
        if customers < 20 or days < 60:
            raise UsageError(
                "the synthetic shop is too small to train on",
                got=f"customers={customers}, days={days}",
                allowed="customers ≥ 20, days ≥ 60",
            )
        if gap_days is not None and not gap_days > 0:
            raise UsageError("people cannot order that often", got=f"gap_days={gap_days}", allowed="gap_days > 0")
        if season_strength is not None and not 0 <= season_strength < np.inf:
            raise UsageError(
                "there is no such season", got=f"season_strength={season_strength}", allowed="season_strength ≥ 0"
            )
        changes: dict[str, Any] = {}
        if gap_days is not None:
            changes["gap_days"] = (gap_days, gap_days / 3, gap_days * 5)
        if season_strength is not None:
            changes["season_strength"] = season_strength
        if intent:
            changes["intent"] = True
        if demand_types:
            changes["demand_types"] = True
        self.synthetic_shop = replace(self.synthetic_shop, **changes)
        self.customers, self.days, self.seed = customers, days, seed
        options = {"customers": customers, "days": days, "seed": seed, **changes}
        self.label = " ".join(["synthetic", *(f"{name}={value}" for name, value in options.items())])

    @cached_property
    def _data(self) -> SyntheticData:
        return generate(self.customers, self.days, self.seed, self.synthetic_shop)

    def truth(self) -> dict[str, pd.DataFrame]:
        """Return the ground truth, which no model may use.

        Returns
        -------
        dict of str to DataFrame
            - ``persons``: person_id, segment, started_at, churned_at (NaT if not churned), mean_gap_days; also
              child_born_at if the shop has child ages, and demand_type with `demand_types`
            - ``accounts``: person_id, source, source_user_id; with intents also those of visitors, who are no persons
            - ``preferences``: person_id, category, share (sums to 1 per person)
            - ``cycles``: person_id, item_id, cycle_days
            - ``effects``: campaign_id, person_id, variant, propensity, lift (expected change of the number of orders in
              the seven days after a contact)
            - ``interests``: person_id, topic, share (sums to 1 per person); not for the shop of a pack
            - ``published``: content_id, published_at, appeal; not for the shop of a pack
        """
        return {name: frame.copy() for name, frame in self._data.truth.items()}

    def tables(self, connection: duckdb.DuckDBPyConnection) -> Sequence[RawTable]:
        """Return the raw tables, registered with `connection` as Arrow tables."""
        raw = []
        for table, rows in self._data.tables.items():
            view = f"synthetic_{table}"
            connection.register(view, rows)
            columns = {name: f'"{name}"' for name in rows.column_names}
            if table == "events":
                columns["event_type"] = self.event_type
            if table == "identities":  # hashed by the source, as a company would export them
                columns["id_value"] = "sha256('synthetic' || id_value)"
            raw.append(
                RawTable(
                    table,
                    f"SELECT * FROM {view}",
                    columns,
                    (self.label,),
                    fixed="all" if table == "profiles" else frozenset(),  # each person is drawn once
                )
            )
        return raw


def generate(customers: int, days: int, seed: int, synthetic_shop: SyntheticShop | None = None) -> SyntheticData:
    """Generate a shop. Each part has its own random stream, so that the size of one part does not change another."""
    synthetic_shop = synthetic_shop or SyntheticShop()
    streams = np.random.default_rng(seed).spawn(11)
    items = draw_items(streams[0], synthetic_shop)
    people = draw_people(streams[1], customers, days, synthetic_shop)
    if synthetic_shop.child_months:
        # birthday of the person's child, from four years before to eight months after the start of the history
        people["born"] = streams[6].uniform(-1460.0, 240.0, customers)
    if synthetic_shop.demand_types:
        people |= draw_demand_types(streams[10], people, days)
    people["looks_only"] = streams[6].random(customers) < synthetic_shop.browsers_share
    accounts, identities, profiles = draw_accounts(streams[2], people)
    orders, touches, effects, campaigns = draw_orders(streams[3], people, days, synthetic_shop.season_strength)
    lines, cycles = draw_lines(streams[4], people, orders, items, days, synthetic_shop)
    transactions, second = draw_transactions(streams[5], people, orders, lines, items, accounts, days)
    visitors: dict[str, Any] = {"person_id": [], "source": [], "source_user_id": []}
    if synthetic_shop.intent:
        events, visitors = intent_events(
            streams[9], people, orders, lines, items, accounts, second, days, synthetic_shop
        )
    else:
        events = checkout_events(streams[5], people, orders, lines, items, accounts, second, synthetic_shop)
    if synthetic_shop.events_per_person:
        events = with_other_events(streams[7], events, people, items, accounts, days, synthetic_shop)
    content_data: Mapping[str, Any] = {}
    if not synthetic_shop.event_names:  # the shop of a pack has no contents
        content_data = generate_contents(streams[8], people, items, accounts, days, synthetic_shop.categories)
        events = concat_events(events, content_data["events"])
    touches = with_account(touches, accounts, np.zeros(len(touches["person"]), dtype=np.int64))
    person_ids = make_ids("p", np.arange(customers))
    truth = {
        "persons": pd.DataFrame(
            {
                "person_id": person_ids,
                "segment": people["segment"],
                "started_at": timestamps(people["start"]),
                "churned_at": timestamps(people["churn"]),
                "mean_gap_days": people["gap"],
                **({"demand_type": np.array(DEMAND_TYPES)[people[DEMAND]]} if DEMAND in people else {}),
                **({"child_born_at": timestamps(people["born"])} if "born" in people else {}),
            }
        ),
        "accounts": pd.DataFrame(
            {
                "person_id": [*person_ids[accounts["person"]], *visitors["person_id"]],
                "source": [*accounts["source"], *visitors["source"]],
                "source_user_id": [*accounts["source_user_id"], *visitors["source_user_id"]],
            }
        ),
        "preferences": pd.DataFrame(
            {
                "person_id": np.repeat(person_ids, len(synthetic_shop.categories)),
                "category": np.tile(np.array(synthetic_shop.categories), customers),
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
        **content_data.get("truth", {}),
    }
    tables = {
        "items": {name: items[name] for name in ("item_id", "category", "brand", "price", "available")},
        "profiles": profiles,
        "identities": identities,
        "campaigns": campaigns,
        "touches": touches,
        "transactions": transactions,
        "events": events,
        **({"contents": content_data["contents"]} if content_data else {}),
    }
    return SyntheticData({name: pa.table(dict(columns)) for name, columns in tables.items()}, truth)
