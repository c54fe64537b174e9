"""Contents of the made-up shop and who reads them: topics a person likes, how long they stay, new contents nobody has met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.data.sources.synthetic_columns import Floats, Ints, joined, names, when, with_account

GENERAL = ("recipes", "savings", "health", "season")  # topics that belong to no category
TYPES, SHARES = ("article", "banner", "message"), (0.55, 0.25, 0.20)
FIRST = 40  # contents there are on the first day
A_DAY = 0.6  # that come every day
FADES_DAYS = 25.0  # a content is shown less and less
OFFERED = 8  # contents a visit shows
READERS = 0.75  # share of people who ever read
VISITS_A_WEEK = 2.0
OWN_TASTE = 0.4  # how far what people read differs from what they buy
TAKES = 0.10  # clicks an offer of average appeal, to somebody of average interest
AGAIN = 0.15  # of the clicks on what was opened before


def contents_and_reading(
    rng: np.random.Generator,
    people: Mapping[str, Any],
    items: Mapping[str, Any],
    accounts: Mapping[str, Any],
    days: int,
    categories: Sequence[str],
) -> dict[str, Any]:
    """Draw contents and reading.

    Returns
    -------
    dict
        ``contents`` and ``events``, columns by name; ``truth``: the data frames ``interests`` and ``published``.
    """
    topics = [category.split("/")[-1] for category in categories] + list(GENERAL)
    made, about, published, appeal, seconds = _contents(rng, items, days, categories, topics)
    interest = _interests(rng, people["taste"], len(topics))
    clicks = _clicks(rng, people, about, published, appeal, interest, days)
    person_ids = names("p", np.arange(len(interest)))
    truth = {
        "interests": pd.DataFrame(
            {
                "person_id": np.repeat(person_ids, len(topics)),
                "topic": np.tile(np.array(topics), len(interest)),
                "share": interest.ravel(),
            }
        ),
        "published": pd.DataFrame(
            {"content_id": made["content_id"], "published_at": when(published), "appeal": appeal}
        ),
    }
    return {"contents": made, "events": _events(rng, clicks, made, seconds, accounts), "truth": truth}


def _contents(
    rng: np.random.Generator, items: Mapping[str, Any], days: int, categories: Sequence[str], topics: Sequence[str]
) -> tuple[dict[str, Any], Floats, Floats, Floats, Floats]:
    count = FIRST + int(days * A_DAY)
    published = np.sort(np.concatenate([rng.uniform(-60.0, 0.0, FIRST), rng.uniform(0.0, days, count - FIRST)]))
    main = rng.integers(0, len(categories), count)
    about = np.zeros((count, len(topics)))
    about[np.arange(count), main] = 1.0
    second, general = rng.random(count) < 0.4, rng.random(count) < 0.5
    about[second, rng.integers(0, len(categories), count)[second]] = 1.0
    about[general, len(categories) + rng.integers(0, len(GENERAL), count)[general]] = 1.0
    per_category = len(items["item_id"]) // len(categories)
    shown = [
        items["item_id"][main[row] * per_category + rng.choice(per_category, number, replace=False)]
        for row, number in enumerate(rng.choice(4, count, p=(0.35, 0.30, 0.20, 0.15)).tolist())
    ]
    made = {
        "content_id": names("t", np.arange(count), width=5),
        "type": rng.choice(TYPES, count, p=SHARES),
        "topics": np.array(["|".join(topics[place] for place in np.flatnonzero(row).tolist()) for row in about]),
        "item_ids": np.array(["|".join(own) for own in shown]),
        "channel": rng.choice(("app", "web"), count),
        "language": np.repeat(np.array(["en"]), count),
    }
    return made, about, published, rng.lognormal(0.0, 0.5, count), rng.lognormal(np.log(60.0), 0.6, count)


def _interests(rng: np.random.Generator, taste: Floats, count: int) -> Floats:
    """What a person likes to read: partly what they buy."""
    own = rng.gamma(0.5, size=(len(taste), count))
    own /= own.sum(axis=1, keepdims=True)
    bought = np.zeros((len(taste), count))
    bought[:, : taste.shape[1]] = taste
    mixed = (1.0 - OWN_TASTE) * bought + OWN_TASTE * own
    return np.asarray(mixed / mixed.sum(axis=1, keepdims=True))


def _clicks(
    rng: np.random.Generator,
    people: Mapping[str, Any],
    about: Floats,
    published: Floats,
    appeal: Floats,
    interest: Floats,
    days: int,
) -> dict[str, Any]:
    """Who opened what and when, and how much it was theirs."""
    count = len(interest)
    end = np.where(np.isnan(people["churn"]), float(days), people["churn"])
    reads = (rng.random(count) < READERS) * rng.gamma(2.0, VISITS_A_WEEK / 2.0, count)
    visitor = np.repeat(np.arange(count), rng.poisson(reads * np.maximum(end - people["start"], 0.0) / 7.0))
    at = people["start"][visitor] + (end - people["start"])[visitor] * rng.random(len(visitor))
    visit, content = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    by_day = np.argsort(at, kind="stable")
    bounds = np.searchsorted(at[by_day], np.arange(days + 1))
    for day in range(days):
        today, out = by_day[bounds[day] : bounds[day + 1]], np.flatnonzero(published <= day)
        if not len(today) or not len(out):
            continue
        prominence = np.cumsum(appeal[out] * (np.exp(-(day - published[out]) / FADES_DAYS) + 0.02))
        offered = out[np.searchsorted(prominence / prominence[-1], rng.random(len(today) * OFFERED))]
        pairs = np.unique(np.repeat(today, OFFERED) * len(about) + offered)
        visit.append(pairs // len(about))
        content.append(pairs % len(about))
    visits, contents = np.concatenate(visit), np.concatenate(content)
    match = (interest @ (about / about.sum(axis=1, keepdims=True)).T * interest.shape[1])[visitor[visits], contents]
    taken = rng.random(len(visits)) < 1.0 - np.exp(-TAKES * appeal[contents] * match)
    visits, contents, match = visits[taken], contents[taken], match[taken]
    order = np.lexsort((at[visits], contents, visitor[visits]))
    visits, contents, match = visits[order], contents[order], match[order]
    pair = visitor[visits] * np.int64(len(about)) + contents
    before = np.concatenate([[False], pair[1:] == pair[:-1]]) if len(pair) else np.empty(0, bool)
    kept = ~before | (rng.random(len(pair)) < AGAIN)
    minutes = rng.random(len(pair)) * 20.0 / 1440.0
    return {
        "person": visitor[visits][kept],
        "visit": visits[kept],
        "content": contents[kept],
        "match": match[kept],
        "at": (at[visits] + minutes)[kept],
    }


def _events(
    rng: np.random.Generator,
    clicks: Mapping[str, Any],
    made: Mapping[str, Any],
    seconds: Floats,
    accounts: Mapping[str, Any],
) -> dict[str, Any]:
    """Views with the time spent, messages opened and followed, now and then something kept or passed on."""
    number, content, match = len(clicks["person"]), clicks["content"], clicks["match"]
    message = made["type"][content] == "message"
    spent = np.round(
        np.clip(seconds[content] * rng.lognormal(0.0, 0.5, number) * (0.4 + 0.4 * np.minimum(match, 2.5)), 1.0, 3600.0),
        1,
    )
    follows = message & (rng.random(number) < 0.25 + 0.2 * np.minimum(match, 2.0))
    kept, passed = (~message & (rng.random(number) < chance * np.minimum(match, 3.0)) for chance in (0.04, 0.02))
    every: list[tuple[str, NDArray[np.bool_], float, bool]] = [
        ("view", ~message, 0.0, True),
        ("message_open", message, 0.0, False),
        ("message_click", follows, 0.5, True),
        ("favourite", kept, 1.0, False),
        ("share", passed, 1.5, False),
    ]
    of: Ints = np.concatenate([np.flatnonzero(which) for _, which, _, _ in every])
    sizes = [int(which.sum()) for _, which, _, _ in every]
    timed = np.repeat([has for *_, has in every], sizes)
    columns = {
        "person": clicks["person"][of],
        "event_type": np.repeat([kind for kind, *_ in every], sizes),
        "ts": when(clicks["at"][of] + np.repeat([later for *_, later, _ in every], sizes) / 1440.0),
        "content_id": made["content_id"][content[of]],
        "session_id": joined(np.array(["r"]), names("", clicks["visit"][of], width=8)),
        "duration_seconds": np.where(timed, spent[of], np.nan),
    }
    return with_account(columns, accounts, (rng.random(number) < 0.4).astype(np.int64)[of])
