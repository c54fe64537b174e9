"""Contents of the synthetic shop and their readers: topics of interest, dwell times, and new contents every day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.data.sources.synthetic_columns import Floats, Ints, join_ids, make_ids, timestamps, with_account
from features.data.sources.synthetic_demand import reading_factor

GENERAL_TOPICS = ("recipes", "savings", "health", "season")  # topics without a category
CONTENT_TYPES, CONTENT_TYPE_SHARES = ("article", "banner", "message"), (0.55, 0.25, 0.20)
INITIAL_CONTENTS = 40  # contents on the first day
NEW_CONTENTS_PER_DAY = 0.6
VISIBILITY_DECAY_DAYS = 25.0  # time constant with which a content is shown less often
IMPRESSIONS_PER_VISIT = 8
READER_SHARE = 0.75  # share of people who read at all
VISITS_PER_WEEK = 2.0  # mean over the readers
INTEREST_DIVERGENCE = 0.4  # weight of reading interests that are independent of purchases
CLICK_RATE = 0.10  # clicks per impression, for average appeal and average interest
REPEAT_CLICK_PROBABILITY = 0.15  # share of repeated clicks on one content that are kept


def generate_contents(
    rng: np.random.Generator,
    people: Mapping[str, Any],
    items: Mapping[str, Any],
    accounts: Mapping[str, Any],
    days: int,
    categories: Sequence[str],
) -> dict[str, Any]:
    """Generate contents and the events of their readers.

    Returns
    -------
    dict
        ``contents`` and ``events`` (columns by name), and ``truth`` (data frames ``interests`` and ``published``).
    """
    topics = [category.split("/")[-1] for category in categories] + list(GENERAL_TOPICS)
    content_columns, content_topics, published, appeal, seconds = _contents(rng, items, days, categories, topics)
    interest = _interests(rng, people["taste"], len(topics))
    clicks = _clicks(rng, people, content_topics, published, appeal, interest, days)
    person_ids = make_ids("p", np.arange(len(interest)))
    truth = {
        "interests": pd.DataFrame(
            {
                "person_id": np.repeat(person_ids, len(topics)),
                "topic": np.tile(np.array(topics), len(interest)),
                "share": interest.ravel(),
            }
        ),
        "published": pd.DataFrame(
            {"content_id": content_columns["content_id"], "published_at": timestamps(published), "appeal": appeal}
        ),
    }
    return {
        "contents": content_columns,
        "events": _events(rng, clicks, content_columns, seconds, accounts),
        "truth": truth,
    }


def _contents(
    rng: np.random.Generator, items: Mapping[str, Any], days: int, categories: Sequence[str], topics: Sequence[str]
) -> tuple[dict[str, Any], Floats, Floats, Floats, Floats]:
    count = INITIAL_CONTENTS + int(days * NEW_CONTENTS_PER_DAY)
    published = np.sort(
        np.concatenate([rng.uniform(-60.0, 0.0, INITIAL_CONTENTS), rng.uniform(0.0, days, count - INITIAL_CONTENTS)])
    )
    main = rng.integers(0, len(categories), count)
    content_topics = np.zeros((count, len(topics)))
    content_topics[np.arange(count), main] = 1.0
    second, general = rng.random(count) < 0.4, rng.random(count) < 0.5
    content_topics[second, rng.integers(0, len(categories), count)[second]] = 1.0
    content_topics[general, len(categories) + rng.integers(0, len(GENERAL_TOPICS), count)[general]] = 1.0
    per_category = len(items["item_id"]) // len(categories)
    shown = [
        items["item_id"][main[row] * per_category + rng.choice(per_category, number, replace=False)]
        for row, number in enumerate(rng.choice(4, count, p=(0.35, 0.30, 0.20, 0.15)).tolist())
    ]
    content_columns = {
        "content_id": make_ids("t", np.arange(count), width=5),
        "type": rng.choice(CONTENT_TYPES, count, p=CONTENT_TYPE_SHARES),
        "topics": np.array(
            ["|".join(topics[topic] for topic in np.flatnonzero(row).tolist()) for row in content_topics]
        ),
        "item_ids": np.array(["|".join(ids) for ids in shown]),
        "channel": rng.choice(("app", "web"), count),
        "language": np.repeat(np.array(["en"]), count),
    }
    return (
        content_columns,
        content_topics,
        published,
        rng.lognormal(0.0, 0.5, count),
        rng.lognormal(np.log(60.0), 0.6, count),
    )


def _interests(rng: np.random.Generator, taste: Floats, count: int) -> Floats:
    """Reading interests per person, which follow the purchase preferences in part; array, shape (n_people, count)."""
    own = rng.gamma(0.5, size=(len(taste), count))
    own /= own.sum(axis=1, keepdims=True)
    bought = np.zeros((len(taste), count))
    bought[:, : taste.shape[1]] = taste
    mixed = (1.0 - INTEREST_DIVERGENCE) * bought + INTEREST_DIVERGENCE * own
    return np.asarray(mixed / mixed.sum(axis=1, keepdims=True))


def _clicks(
    rng: np.random.Generator,
    people: Mapping[str, Any],
    content_topics: Floats,
    published: Floats,
    appeal: Floats,
    interest: Floats,
    days: int,
) -> dict[str, Any]:
    """Clicks on contents: person, visit, content, time, and how well the content matches the person's interests."""
    count = len(interest)
    end = np.where(np.isnan(people["churn"]), float(days), people["churn"])
    reads = (rng.random(count) < READER_SHARE) * rng.gamma(2.0, VISITS_PER_WEEK / 2.0, count) * reading_factor(people)
    visitor = np.repeat(np.arange(count), rng.poisson(reads * np.maximum(end - people["start"], 0.0) / 7.0))
    at = people["start"][visitor] + (end - people["start"])[visitor] * rng.random(len(visitor))
    visit, content = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    by_day = np.argsort(at, kind="stable")
    bounds = np.searchsorted(at[by_day], np.arange(days + 1))
    for day in range(days):
        today, out = by_day[bounds[day] : bounds[day + 1]], np.flatnonzero(published <= day)
        if not len(today) or not len(out):
            continue
        prominence = np.cumsum(appeal[out] * (np.exp(-(day - published[out]) / VISIBILITY_DECAY_DAYS) + 0.02))
        offered = out[np.searchsorted(prominence / prominence[-1], rng.random(len(today) * IMPRESSIONS_PER_VISIT))]
        pairs = np.unique(np.repeat(today, IMPRESSIONS_PER_VISIT) * len(content_topics) + offered)
        visit.append(pairs // len(content_topics))
        content.append(pairs % len(content_topics))
    visits, contents = np.concatenate(visit), np.concatenate(content)
    match = (interest @ (content_topics / content_topics.sum(axis=1, keepdims=True)).T * interest.shape[1])[
        visitor[visits], contents
    ]
    clicked = rng.random(len(visits)) < 1.0 - np.exp(-CLICK_RATE * appeal[contents] * match)
    visits, contents, match = visits[clicked], contents[clicked], match[clicked]
    order = np.lexsort((at[visits], contents, visitor[visits]))
    visits, contents, match = visits[order], contents[order], match[order]
    pair = visitor[visits] * np.int64(len(content_topics)) + contents
    before = np.concatenate([[False], pair[1:] == pair[:-1]]) if len(pair) else np.empty(0, bool)
    kept = ~before | (rng.random(len(pair)) < REPEAT_CLICK_PROBABILITY)
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
    content_columns: Mapping[str, Any],
    seconds: Floats,
    accounts: Mapping[str, Any],
) -> dict[str, Any]:
    """Events of the clicks: views with dwell time, messages opened and clicked, some favourites and shares."""
    number, content, match = len(clicks["person"]), clicks["content"], clicks["match"]
    message = content_columns["type"][content] == "message"
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
        "ts": timestamps(clicks["at"][of] + np.repeat([later for *_, later, _ in every], sizes) / 1440.0),
        "content_id": content_columns["content_id"][content[of]],
        "session_id": join_ids(np.array(["r"]), make_ids("", clicks["visit"][of], width=8)),
        "duration_seconds": np.where(timed, spent[of], np.nan),
    }
    return with_account(columns, accounts, (rng.random(number) < 0.4).astype(np.int64)[of])
