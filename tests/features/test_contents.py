"""The training set of contents: what an event is worth, and that nothing at or after the moment is in it."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.compute.builder import Builder
from features.contents import (
    CONTENT_WEIGHTS,
    MAX_DWELL_FACTOR,
    MIN_DWELL_FACTOR,
    content_interactions,
    content_rows,
    content_set,
    engagement_weights,
)
from features.definitions import FEATURES
from features.interactions import READ_WEIGHT, ContentSet
from features.training_data import training_set
from qianmian.errors import DataError

AS_OF = datetime(2024, 3, 10)


def event(
    user: str, content: str | None, day: int, kind: str = "view", seconds: float | None = 30.0, item: str | None = None
) -> dict:
    return {
        "event_id": f"{user}{content}{day}{kind}",
        "source": "app",
        "source_user_id": user,
        "event_type": kind,
        "ts": datetime(2024, 3, day, 12),
        "content_id": content,
        "item_id": item,
        "duration_seconds": seconds,
    }


@pytest.fixture(scope="module")
def builder(lake_of) -> Builder:
    """Three contents (the last one nobody met), one more that only events name; a view of an item; a row of the tenth of March."""
    return Builder(
        lake_of(
            {
                "contents": [
                    {
                        "content_id": "a",
                        "type": "article",
                        "topics": "milk|news",
                        "item_ids": "i1|i2",
                        "channel": "app",
                    },
                    {"content_id": "b", "type": "banner", "topics": "soap", "item_ids": "", "channel": "app"},
                    {"content_id": "c", "type": "article", "topics": "milk", "item_ids": "i1", "channel": "web"},
                ],
                "events": [
                    event("u1", "a", 1),
                    event("u2", "a", 2, seconds=60.0),
                    event("u2", "b", 3, kind="share", seconds=None),
                    event("u2", "d", 4),
                    event("u1", None, 5, item="i1"),
                    event("u3", "c", 10),
                    event("u1", "b", 6, kind="search"),
                ],
                "transactions": [
                    {
                        "order_id": "o1",
                        "line_no": 1,
                        "source": "app",
                        "source_user_id": "u1",
                        "ts": datetime(2024, 3, 2),
                        "item_id": "i1",
                        "quantity": 1.0,
                        "amount": 2.0,
                        "status": "paid",
                    },
                ],
                "items": [{"item_id": "i1", "category": "food/milk"}, {"item_id": "i2", "category": "food/bread"}],
            }
        ),
        FEATURES,
    )


def test_every_content_is_there_the_ones_nobody_met_last(builder):
    made = content_set(builder, AS_OF)
    assert isinstance(made, ContentSet)
    assert (made.source, made.as_of) == ("contents", AS_OF)
    assert made.item_ids.tolist() == [
        "a",
        "b",
        "d",
        "c",
    ]  # two customers, then one; of the tenth of March nothing is known
    assert made.item_customers.tolist() == [2, 1, 1, 0]
    assert made.item_attributes["topics"].tolist() == ["milk|news", "soap", "", "milk"]
    assert made.item_attributes["category"].tolist() == ["article", "banner", "", "article"]
    assert made.interactions.shape == (len(made.user_ids), 4)
    assert made.interactions.age_days.min() > 0
    # a search says nothing of a content, a view of an item is not one of a content
    assert len(made.interactions.users) == 4


def test_purchases_are_of_the_same_customers(builder):
    purchases = training_set(builder, AS_OF, min_item_customers=1, with_features=False)
    made = content_set(builder, AS_OF, purchases)
    np.testing.assert_array_equal(made.user_ids, purchases.user_ids)
    assert made.purchases.item_ids.tolist() == ["i1"]
    assert len(made.purchases.interactions.users) == 1
    earlier = made.with_earlier_cutoff(5.0)
    assert isinstance(earlier, ContentSet)
    assert earlier.interactions.age_days.min() > 0
    assert (made.interactions.age_days > 5.0).sum() == len(earlier.interactions.users)
    assert earlier.purchases.as_of == earlier.as_of == datetime(2024, 3, 5)
    assert made.with_earlier_cutoff(8.7).purchases.interactions.users.size == 0


def test_what_happened_in_a_window(builder):
    made = content_set(builder, datetime(2024, 3, 3))
    rows = content_rows(builder, AS_OF, datetime(2024, 3, 3))
    after = content_interactions(rows, made.user_ids, made.item_ids, made.item_attributes["category"])
    found = {
        (str(made.user_ids[user]), str(made.item_ids[item]))
        for user, item in zip(after.users, after.items, strict=True)
    }
    assert len(found) == 1
    assert {content for _, content in found} == {"b"}  # d is named by no table and no event before the third of March


def test_without_contents_or_clicks_it_says_so(lake_of):
    events = [event("u1", "a", 1)]
    with pytest.raises(DataError, match="no contents"):
        content_set(Builder(lake_of({"events": events}), FEATURES), AS_OF)
    contents = [{"content_id": "a", "type": "article", "topics": "milk"}]
    with pytest.raises(DataError, match="has a content_id"):
        content_set(
            Builder(lake_of({"contents": contents, "events": [event("u1", None, 1, item="i")]}), FEATURES), AS_OF
        )
    with pytest.raises(DataError, match="has a content_id"):
        content_set(Builder(lake_of({"contents": contents, "events": events}), FEATURES), datetime(2024, 3, 1))


def test_time_counts_against_that_of_the_content():
    """A long text is not liked better for being long."""
    kinds = np.array(["view"] * 12)
    seconds = np.array([10.0] * 5 + [20.0] + [600.0] * 5 + [300.0])
    weights = engagement_weights(kinds, seconds, np.repeat([0, 1], 6), np.array(["banner", "article"]))
    np.testing.assert_allclose(weights[:5], 1.0)
    np.testing.assert_allclose(weights[6:11], 1.0)
    assert weights[5] > READ_WEIGHT > weights[11]


def test_a_content_with_few_dwells_is_measured_by_its_type():
    kinds, seconds = np.array(["view"] * 7), np.array([60.0, 30.0, 30.0, 30.0, 30.0, 30.0, 30.0])
    weights = engagement_weights(kinds, seconds, np.array([0, 1, 1, 1, 1, 1, 1]), np.array(["article", "article"]))
    assert weights[0] == pytest.approx(np.log2(1 + 60 / 30))


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*CONTENT_WEIGHTS, "search"]),
            st.one_of(st.none(), st.floats(-1.0, 1e6)),
            st.integers(0, 3),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_a_weight_is_that_of_the_event_within_bounds(rows):
    kinds, seconds = (
        np.array([row[0] for row in rows]),
        np.array([np.nan if row[1] is None else row[1] for row in rows]),
    )
    weights = engagement_weights(kinds, seconds, np.array([row[2] for row in rows]), np.array(["x", "y", "x", "z"]))
    base = np.array([CONTENT_WEIGHTS.get(kind, 0.0) for kind in kinds])
    assert (weights >= base * MIN_DWELL_FACTOR - 1e-6).all()
    assert (weights <= base * MAX_DWELL_FACTOR + 1e-6).all()
    untold = ~(np.nan_to_num(seconds, nan=-1.0) > 0)
    np.testing.assert_allclose(weights[untold], base[untold], rtol=1e-6)
