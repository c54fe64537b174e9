"""The people of the synthetic shop: preferences, start and churn dates, and accounts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from features.data.sources.synthetic_columns import make_ids, timestamps
from features.data.sources.synthetic_shop import SyntheticShop

CITIES = {"north": "Northam", "south": "Southend", "east": "Eastbourne", "west": "Westbury"}
LATE_ARRIVALS = 0.6  # part of the history in which people arrive
ATTRIBUTE_FIDELITY = 0.7  # probability that an attribute of a person is that of the segment


def draw_people(rng: np.random.Generator, count: int, days: int, synthetic_shop: SyntheticShop) -> dict[str, Any]:
    kinds = synthetic_shop.segments
    segment = (
        rng.integers(0, len(kinds), count)
        if synthetic_shop.shares is None
        else rng.choice(len(kinds), count, p=synthetic_shop.shares)
    )
    liking = np.full((len(kinds), len(synthetic_shop.categories)), 0.25)
    for number in range(len(kinds)):  # by default each segment prefers three categories
        likes = list(synthetic_shop.likes[number]) if synthetic_shop.likes else slice(number * 3, number * 3 + 3)
        liking[number, likes] = 3.0
    taste = rng.gamma(liking[segment])
    taste /= taste.sum(axis=1, keepdims=True)
    start = np.where(rng.random(count) < 0.7, 0.0, rng.random(count) * days * LATE_ARRIVALS)
    median, least, most = synthetic_shop.gap_days
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


def draw_accounts(
    rng: np.random.Generator, people: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    count = len(people["segment"])
    use = rng.random(count)
    has_app, has_web = use < 0.85, use >= 0.60  # 60 % app only, 15 % web only, 25 % both
    app, web = np.flatnonzero(has_app), np.flatnonzero(has_web)
    person = np.concatenate([app, web])
    # web ids are numbered in random order, so that equal numbers do not identify a person
    web_number = rng.permutation(count)[web]
    accounts = {
        "person": person,
        "source": np.repeat(np.array(["app", "web"]), [len(app), len(web)]),
        "source_user_id": np.concatenate([make_ids("a", app), make_ids("w", web_number)]),
        "first": np.where(has_app, np.cumsum(has_app) - 1, len(app) + np.cumsum(has_web) - 1),
        "second": np.where(has_web, len(app) + np.cumsum(has_web) - 1, np.cumsum(has_app) - 1),
    }
    start = people["start"][person]
    # on the web, a fifth of the people give another telephone number
    same_phone = (np.arange(len(person)) < len(app)) | (rng.random(len(person)) < 0.8)
    phone = np.where(same_phone, person, count + person)
    parts = [
        ("phone", make_ids("+44", phone, width=9), rng.random(len(person)) < 0.9),
        (
            "device",
            make_ids("d", np.where(rng.random(len(person)) < 0.5, person, count + np.arange(len(person)))),
            rng.random(len(person)) < 0.8,
        ),
        ("email", make_ids("mail", person), accounts["source"] == "web"),
    ]
    identities = {
        "source": np.concatenate([accounts["source"][kept] for _, _, kept in parts]),
        "source_user_id": np.concatenate([accounts["source_user_id"][kept] for _, _, kept in parts]),
        "id_type": np.concatenate([np.repeat(np.array([kind]), kept.sum()) for kind, _, kept in parts]),
        "id_value": np.concatenate([value[kept] for _, value, kept in parts]),
        "observed_at": np.concatenate([timestamps(start[kept]) for _, _, kept in parts]),
    }
    attributes = {name: values[person] for name, values in people["attributes"].items()}
    profiles = {
        "source": accounts["source"],
        "source_user_id": accounts["source_user_id"],
        **attributes,
        "city": np.array([CITIES[str(region)] for region in CITIES])[
            pd.Index(list(CITIES)).get_indexer(attributes["region"])
        ],
        "registered_at": timestamps(start),
        "member_tier": np.where(people["gap"][person] < 7.0, "gold", "silver"),
        "consent_email": rng.random(len(person)) < 0.7,
        "consent_push": rng.random(len(person)) < 0.5,
    }
    return accounts, identities, profiles
