"""What recommenders predict and learn from: the target, the other types beside it, and clear words about odd data."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import get_args

import numpy as np
import pytest

from features.compute.builder import Builder
from features.definitions import FEATURES
from features.interaction_types import ANY, AUTO, EVENT_WEIGHTS, INTERACTION_TYPES
from features.targets import MIN_TARGET_CUSTOMERS, choose_target
from features.training_data import interaction_rows, training_set
from qianmian.errors import DataError, UsageError
from qianmian.model_settings import RecommendSettings

AS_OF = datetime(2024, 3, 1)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
VIEW, CART = INTERACTION_TYPES.index("view"), INTERACTION_TYPES.index("cart")


def line(number, user, item, ts, **more):
    return {
        "source": "shop",
        "source_user_id": user,
        "order_id": f"o{number}",
        "line_no": 1,
        "ts": ts,
        "item_id": item,
        "quantity": 1.0,
        "amount": 8.0,
        "status": "paid",
        **more,
    }


def event(number, user, kind, item, ts, **more):
    return {
        "event_id": f"e{number}",
        "source": "shop",
        "source_user_id": user,
        "event_type": kind,
        "ts": ts,
        "item_id": item,
        **more,
    }


@pytest.fixture(scope="module")
def make(lake_of):
    def built(lines=(), events=()):
        tables = {
            "transactions": [
                line(number, *row[:3], **(row[3] if len(row) > 3 else {})) for number, row in enumerate(lines)
            ],
            "events": [
                event(number, *row[:4], **(row[4] if len(row) > 4 else {})) for number, row in enumerate(events)
            ],
        }
        return Builder(lake_of({name: rows for name, rows in tables.items() if rows}), FEATURES)

    return built


def words(builder, data, of):
    """(user, item, type, age in days) of interactions, in words and sorted."""
    people = builder.views(data.as_of).customers.to_pyarrow().to_pylist()
    names = {row["one_id"]: row["source_user_id"] for row in people}
    kinds = np.zeros(len(of), np.int8) if of.types is None else of.types
    rows = zip(of.users, of.items, kinds, of.age_days, strict=True)
    return sorted(
        (names[data.user_ids[user]], str(data.item_ids[item]), INTERACTION_TYPES[kind], float(age))
        for user, item, kind, age in rows
    )


@pytest.fixture(scope="module")
def mixed(make):
    """A shop with orders, views, carts, and purchases that are recorded once, twice, or as an event alone."""
    return make(
        [
            ("1", "a", AS_OF - 4 * DAY, {"discount": 1.5, "coupon_discount": 0.5}),
            ("1", "b", AS_OF - 9 * DAY),
            ("2", "a", AS_OF - 30 * DAY, {"status": "cancelled"}),
        ],
        [
            ("1", "view", "a", AS_OF - 4 * DAY - HOUR),
            ("1", "cart", "a", AS_OF - 4 * DAY - HOUR / 2),
            ("1", "view", "c", AS_OF - DAY),
            ("1", "purchase", "a", AS_OF - 4 * DAY),  # the order line again
            ("2", "purchase", "a", AS_OF - 30 * DAY),  # the order was cancelled
            ("2", "purchase", "b", AS_OF - 2 * DAY),  # no order line records it
            ("2", "view", "b", AS_OF - 2 * DAY),
            ("2", "login", "b", AS_OF - 2 * DAY),
            ("2", "view", None, AS_OF - 2 * DAY),
            ("3", "view", "c", AS_OF),
        ],
    )


# ---- reading ---------------------------------------------------------------------------------------------------------


def test_purchases_are_the_target_and_other_types_auxiliary(mixed):
    data = training_set(mixed, AS_OF, target="purchase", min_item_customers=1, with_features=False)
    assert words(mixed, data, data.interactions) == [
        ("1", "a", "purchase", 4.0),
        ("1", "b", "purchase", 9.0),
        ("2", "b", "purchase", 2.0),
    ]
    assert data.interactions.types is None
    hours = np.float32(1 / 24)
    assert words(mixed, data, data.auxiliary) == [
        ("1", "a", "cart", pytest.approx(4 + hours / 2)),
        ("1", "a", "view", pytest.approx(4 + hours)),
        ("1", "c", "view", 1.0),
        ("2", "b", "view", 2.0),
    ]
    assert set(data.auxiliary.weights.tolist()) == {1.0}
    assert data.item_ids.tolist() == ["b", "a", "c"]  # two buyers, one buyer, one viewer
    assert data.item_customers.tolist() == [2, 1, 0]
    assert data.item_customers_of_any_type.tolist() == [2, 1, 1]
    assert (data.source, data.target) == ("transactions and events", "purchase")


def test_visits_of_auxiliary_interactions(mixed):
    data = training_set(mixed, AS_OF, target="purchase", min_item_customers=1, with_features=False)
    visits = {}
    for item, age, visit in zip(data.auxiliary.items, data.auxiliary.age_days, data.auxiliary.orders, strict=True):
        visits.setdefault(int(visit), []).append((str(data.item_ids[item]), round(float(age))))
    assert sorted(visits.values()) == [[("a", 4), ("a", 4)], [("b", 2)], [("c", 1)]]


def test_discounts_are_those_of_the_line_and_its_coupons(mixed):
    data = training_set(mixed, AS_OF, target="purchase", min_item_customers=1, with_features=False)
    by_item = {
        str(data.item_ids[item]): off
        for item, off in zip(data.interactions.items, data.interactions.discounts, strict=True)
    }
    assert by_item["a"] == 2.0
    assert np.isnan(data.interactions.discounts).sum() == 2


def test_all_types_as_the_target(mixed):
    data = training_set(mixed, AS_OF, target=ANY, min_item_customers=1, with_features=False)
    assert data.auxiliary is None
    assert data.interactions.type_counts() == {"purchase": 3, "view": 3, "cart": 1}
    expected = [EVENT_WEIGHTS[INTERACTION_TYPES[kind]] for kind in data.interactions.types]
    assert data.interactions.weights.tolist() == expected


def test_one_type_as_the_target(mixed):
    data = training_set(mixed, AS_OF, target="view", min_item_customers=1, with_features=False)
    assert [row[2] for row in words(mixed, data, data.auxiliary)] == ["cart", "purchase", "purchase", "purchase"]
    assert len(data.interactions) == 3
    assert set(data.interactions.weights.tolist()) == {1.0}


def test_an_earlier_cutoff_is_that_of_the_lake(mixed):
    """Rewound, both kinds of interactions are what is read at the earlier moment."""
    now = training_set(mixed, AS_OF, target="purchase", min_item_customers=1, with_features=False)
    past = now.with_earlier_cutoff(3.0)
    read = training_set(mixed, AS_OF - 3 * DAY, target="purchase", min_item_customers=1, with_features=False)
    for ours, theirs in ((past.interactions, read.interactions), (past.auxiliary, read.auxiliary)):
        found, expected = words(mixed, past, ours), words(mixed, read, theirs)
        assert [row[:3] for row in found] == [row[:3] for row in expected]
        np.testing.assert_allclose([row[3] for row in found], [row[3] for row in expected], rtol=1e-5)
    assert past.auxiliary.type_counts() == {"view": 1, "cart": 1}
    assert past.has_interactions.sum() == 1
    assert now.history_days == 9.0


def test_held_out_interactions_are_those_of_the_target(mixed):
    start = AS_OF - 5 * DAY
    assert interaction_rows(mixed, AS_OF, start, target="purchase")["item_id"].to_pylist() == ["a", "b"]
    assert sorted(interaction_rows(mixed, AS_OF, start, target="view")["item_id"].to_pylist()) == ["a", "b", "c"]
    assert len(interaction_rows(mixed, AS_OF, start, target=ANY)) == 6


def test_the_most_popular_items_stay_where_there_are_too_many(mixed):
    data = training_set(mixed, AS_OF, target="purchase", min_item_customers=None, max_items=2, with_features=False)
    assert (data.item_ids.tolist(), data.items_left_out) == (["b", "a"], 1)
    assert data.auxiliary.shape == data.interactions.shape == (data.n_users, 2)


# ---- choosing --------------------------------------------------------------------------------------------------------


def visitors(count, buyers):
    """Customers who view an item every week for eight weeks; some of them buy each time."""
    events, lines = [], []
    for user in range(count):
        for week in range(8):
            moment = AS_OF - timedelta(days=7 * week + 1)
            events.append((f"u{user}", "view", f"i{user % 5}", moment))
            if user < buyers:
                lines.append((f"u{user}", f"i{user % 5}", moment + HOUR))
    return lines, events


def test_purchases_are_predicted_where_enough_customers_buy(make):
    lines, events = visitors(40, MIN_TARGET_CUSTOMERS)
    found = choose_target(make(lines, events), AS_OF, horizon_days=7)
    assert found.name == "purchase"
    assert found.counts["purchase"].evaluable == MIN_TARGET_CUSTOMERS
    assert (found.counts["view"].rows, found.counts[ANY].customers) == (320, 40)
    assert found.notes == (
        "recommendations predict purchase, from 240 purchase rows of 30 customers and, besides, 320 view rows",
    )


def test_with_too_few_buyers_all_types_are_predicted_and_it_is_said(make):
    lines, events = visitors(40, 6)
    builder = make(lines, events)
    found = choose_target(builder, AS_OF, horizon_days=7)
    assert found.name == ANY
    assert "6 of 6 buyers can be evaluated, and 30 are needed" in found.notes[0]
    assert "from 48 purchase rows and 320 view rows" in found.notes[1]
    assert choose_target(builder, AS_OF, wanted="purchase", horizon_days=7).name == "purchase"
    assert training_set(builder, AS_OF, with_features=False).target == ANY  # 28 days by default: none can be evaluated
    assert training_set(builder, AS_OF, with_features=False).interactions.type_counts() == {"purchase": 48, "view": 320}


def test_buyers_are_counted_by_what_follows_earlier_interactions(make):
    """A purchase in the test period counts only where the customer was known before it, by any type."""
    lines = [(f"u{user}", "i", AS_OF - DAY) for user in range(3)] + [("u0", "i", AS_OF - 10 * DAY)]
    events = [("u1", "view", "i", AS_OF - 20 * DAY), ("u0", "view", "i", AS_OF - 30 * DAY)]
    builder = make(lines, events)
    counts = choose_target(builder, AS_OF, horizon_days=7).counts
    assert counts["purchase"].evaluable == 1  # two of them in the test period, u0 in the validation period
    assert (counts["purchase"].rows, counts["purchase"].customers, counts["purchase"].items) == (4, 3, 1)


def test_purchases_recorded_twice_are_said_once(mixed):
    assert choose_target(mixed, AS_OF).notes[0] == "2 purchase events are in the transactions too and count once"


# ---- odd data --------------------------------------------------------------------------------------------------------


def test_a_target_that_nobody_reached_names_what_there_is(mixed):
    with pytest.raises(DataError, match="recommend.target is favourite, and nobody has") as caught:
        choose_target(mixed, AS_OF, wanted="favourite")
    assert (
        caught.value.got == "purchase: 3 rows of 2 customers, view: 3 rows of 2 customers, cart: 1 rows of 1 customers"
    )
    with pytest.raises(DataError, match="nobody has an interaction of the target"):
        training_set(mixed, AS_OF, target="favourite")


def test_without_purchases_the_other_types_are_predicted(make):
    found = choose_target(make(events=[("1", "view", "a", AS_OF - DAY), ("1", "cart", "a", AS_OF - DAY)]), AS_OF)
    assert found.name == ANY
    assert found.notes == (
        "no purchase names an item",
        "recommendations predict the next interaction of any type, from 1 view rows and 1 cart rows",
    )


def test_one_event_type_is_enough(make):
    builder = make(events=[("1", "view", "a", AS_OF - DAY), ("2", "view", "b", AS_OF - DAY)])
    assert "from 2 view rows" in choose_target(builder, AS_OF).notes[-1]
    assert training_set(builder, AS_OF, min_item_customers=1, with_features=False).n_items == 2


def test_orders_without_events_need_no_words(make):
    found = choose_target(make([("1", "a", AS_OF - DAY)]), AS_OF)
    assert (found.name, found.notes) == ("purchase", ())


def test_rows_without_items_are_counted(make):
    builder = make([("1", None, AS_OF - DAY)], [("1", "view", None, AS_OF - DAY), ("2", "view", None, AS_OF - DAY)])
    with pytest.raises(DataError, match="neither transactions nor events have an item_id") as caught:
        choose_target(builder, AS_OF)
    assert caught.value.got == "1 transactions without items, 2 events without items"


def test_events_that_are_no_interactions_name_the_types(make):
    with pytest.raises(DataError, match="no event that names an item .* is an interaction") as caught:
        choose_target(make(events=[("1", "service", "a", AS_OF - DAY)]), AS_OF)
    assert "view" in caught.value.allowed


def test_beside_undated_orders_events_are_not_read(make):
    """Views around a purchase would tell of it, where it is held out at random."""
    lines = [("1", "a", None), ("2", "b", None)]
    builder = make(lines, [("1", "view", "a", AS_OF - DAY)])
    found = choose_target(builder, AS_OF)
    assert found.name == "purchase"
    assert found.notes[0] == "the order lines have no times, so events are not used beside them"
    data = training_set(builder, AS_OF, target="purchase", min_item_customers=1, with_features=False)
    assert data.auxiliary is None
    assert len(data.interactions) == 2


@pytest.mark.parametrize("odd", ["one day", "half the rows", "in every basket"])
def test_lopsided_orders_are_read_as_they_are(make, odd):
    lines, _ = visitors(12, 12)
    if odd == "one day":
        lines = [(user, item, AS_OF - DAY) for user, item, _ in lines]
    elif odd == "half the rows":
        lines += [("u0", f"x{number}", AS_OF - 3 * DAY) for number in range(len(lines))]
    else:
        lines += [(user, "bag", moment) for user, _, moment in lines]
    data = training_set(make(lines), AS_OF, min_item_customers=1, with_features=False)
    assert len(data.interactions) == len(lines)
    if odd == "in every basket":
        assert data.item_ids[0] == "bag"


# ---- settings and arrays ---------------------------------------------------------------------------------------------


def test_the_setting_accepts_every_type():
    named = get_args(RecommendSettings.model_fields["target"].annotation)
    assert set(named) == {AUTO, ANY, *INTERACTION_TYPES}
    assert set(EVENT_WEIGHTS) == set(INTERACTION_TYPES)


def test_weights_of_types_add_up(mixed):
    data = training_set(mixed, AS_OF, target="purchase", min_item_customers=1, with_features=False)
    first, second = (int(row) for row in data.user_rows(np.array(sorted(data.user_ids))))
    rows = {user: data.matrix(None, {"view": 0.5, "cart": 3.0})[user].toarray()[0].tolist() for user in (first, second)}
    assert sorted(rows.values()) == [[1.0, 4.5, 0.5], [1.5, 0.0, 0.0]]  # of b, a and c
    halved = data.matrix(2.0, {"view": 1.0}).toarray()
    assert halved.sum() == pytest.approx(2**-2 + 2**-4.5 + 2**-1 + 2 ** (-2 - 1 / 48) + 2**-0.5 + 2**-1, rel=1e-3)
    alone = data.matrix(None, {"purchase": 2.0})  # what the target counts does not depend on its own weight
    np.testing.assert_array_equal(alone.toarray(), data.matrix().toarray())
    everything = training_set(mixed, AS_OF, target=ANY, min_item_customers=1, with_features=False)
    assert everything.matrix(None, {"view": 0.0}).sum() == 3 * 5.0 + 3.0


@pytest.mark.parametrize("weights", [{"look": 1.0}, {"view": -1.0}, {"view": float("nan")}])
def test_impossible_weights_are_refused(mixed, weights):
    data = training_set(mixed, AS_OF, target="purchase", min_item_customers=1, with_features=False)
    with pytest.raises(UsageError, match="unknown type|must be a number"):
        data.matrix(None, weights)


def test_other_interactions_forget_the_auxiliary_ones(mixed):
    data = training_set(mixed, AS_OF, target="purchase", min_item_customers=1, with_features=False)
    assert data.with_interactions(data.interactions).auxiliary is None
    assert replace(data, as_of=AS_OF).auxiliary is not None
