"""The training set: which items, in which order, by whom, how long ago, and nothing from the future."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from features.compute.builder import Builder
from features.definitions import FEATURES
from features.interaction_types import EVENT_WEIGHTS
from features.interactions import sorted_interactions
from features.training_data import interaction_rows, interactions_from_rows, training_set
from qianmian.errors import DataError

AS_OF = datetime(2024, 3, 1)
DAY = timedelta(days=1)


class Orders:
    """Order lines written one after another, each an order of its own."""

    def __init__(self):
        self.rows = []

    def add(self, item, *users, ts=AS_OF - 10 * DAY, **more):
        for user in users:
            number = f"o{len(self.rows)}"
            self.rows.append(
                {
                    "source": "shop",
                    "source_user_id": user,
                    "order_id": number,
                    "line_no": 1,
                    "ts": ts,
                    "item_id": item,
                    "quantity": 1.0,
                    "amount": 1.0,
                    "status": "paid",
                    **more,
                }
            )
        return self


def events(*rows):
    return [
        {
            "event_id": f"e{number}",
            "source": "shop",
            "source_user_id": user,
            "event_type": kind,
            "ts": ts,
            "item_id": item,
            **more,
        }
        for number, (user, kind, item, ts, more) in enumerate((*row, {})[:5] for row in rows)
    ]


def user_ids(builder, as_of=AS_OF):
    """The caller's id of each one_id."""
    people = builder.views(as_of).customers.to_pyarrow().to_pylist()
    return {row["one_id"]: row["source_user_id"] for row in people}


def pairs(train, builder):
    """(user, item, age in days, weight) of every interaction, in words."""
    names, found = user_ids(builder, train.as_of), train.interactions
    users, items = train.user_ids[found.users], train.item_ids[found.items]
    return sorted(
        (names[user], str(item), float(age), float(weight))
        for user, item, age, weight in zip(users, items, found.age_days, found.weights, strict=True)
    )


@pytest.fixture(scope="module")
def shop(lake_of):
    """Lines of all kinds, a customer without any, and views of an item that nobody bought."""
    lines = Orders()
    lines.add("z most", "1", "2", "3")
    lines.add("y lines", "1", "2", "2", "2").add("x tie", "1", "2", "2").add("d tie", "2", "1", "2")
    lines.add("few", "1").add("few", "1")
    lines.add("refunded", "1", "2", "3", status="refunded").add("cancelled", "1", "2", "3", status="cancelled")
    lines.add("future", "1", "2", "3", ts=AS_OF).add("future", "1", "2", "3", ts=AS_OF + DAY)
    lines.add("future", "later", ts=AS_OF)
    lines.add(None, "1", "2", "3").add("z most", None, None)
    people = [{"source": "shop", "source_user_id": user, "age_band": "65+"} for user in ("9", "1")]
    goods = [
        {"item_id": "z most", "category": "food/milk", "brand": "b"},
        {"item_id": "x tie", "category": "home"},
        {"item_id": "unsold", "brand": "b"},
    ]
    seen = events(*((user, "view", "viewed", AS_OF - DAY) for user in "123"))
    return Builder(lake_of({"transactions": lines.rows, "profiles": people, "items": goods, "events": seen}), FEATURES)


@pytest.fixture(scope="module")
def train(shop):
    return training_set(shop, AS_OF, min_item_customers=2)


# ---- items and users -------------------------------------------------------------------------------------------------


def test_items_go_by_customers_then_lines_then_id(train):
    assert train.item_ids.tolist() == ["z most", "y lines", "d tie", "x tie", "viewed"]
    assert train.item_customers.tolist() == [3, 2, 2, 2, 0]
    assert train.item_customers_of_any_type.tolist() == [3, 2, 2, 2, 3]
    assert np.bincount(train.interactions.items).tolist() == [3, 4, 3, 3]


@pytest.mark.parametrize(
    ("least", "items"),
    [(1, ["z most", "y lines", "d tie", "x tie", "few", "viewed"]), (3, ["z most", "viewed"])],
)
def test_items_of_fewer_customers_are_left_out(shop, least, items):
    found = training_set(shop, AS_OF, min_item_customers=least, with_features=False)
    assert found.item_ids.tolist() == items
    assert found.interactions.shape == (4, len(items))


def test_no_item_of_so_many_customers_says_what_to_set(shop):
    with pytest.raises(DataError, match="at least 4 customers before 2024-03-01.*recommend.min_item_customers"):
        training_set(shop, AS_OF, min_item_customers=4)


def test_users_without_history_are_there(train, shop):
    names = user_ids(shop)
    assert train.user_ids.tolist() == sorted(names)
    assert {names[user] for user in train.user_ids} == {"1", "2", "3", "9"}
    rows = dict(
        zip(
            (names[user] for user in train.user_ids),
            np.asarray(train.interactions.matrix().sum(axis=1)).ravel(),
            strict=True,
        )
    )
    assert rows == {"1": 4, "2": 8, "3": 1, "9": 0}
    assert (train.n_users, train.n_items) == train.interactions.shape == (4, 5)


def test_a_customer_first_seen_later_is_not_there_yet(shop):
    names = user_ids(shop, AS_OF + 2 * DAY)
    later = training_set(shop, AS_OF + 2 * DAY, min_item_customers=2, with_features=False)
    assert {names[user] for user in later.user_ids} == {"1", "2", "3", "9", "later"}
    assert later.item_ids[0] == "future"


def test_features_stand_in_the_order_of_the_users(train, shop):
    assert train.user_features.one_ids.tolist() == train.user_ids.tolist()
    names = user_ids(shop)
    orders = dict(
        zip((names[user] for user in train.user_ids), train.user_features.column("orders_total").tolist(), strict=True)
    )
    assert orders == {"1": 7, "2": 9, "3": 2, "9": 0}
    assert training_set(shop, AS_OF, min_item_customers=2, with_features=False).user_features is None


def test_user_rows(train):
    assert train.user_rows(np.array([train.user_ids[2], "nobody", train.user_ids[0]])).tolist() == [2, -1, 0]


def test_item_attributes_are_empty_where_unknown(train):
    found = {name: values.tolist() for name, values in train.item_attributes.items()}
    found["price"] = [None if np.isnan(price) else price for price in found["price"]]
    assert found == {
        "category": ["food/milk", "", "", "home", ""],
        "brand": ["b", "", "", "", ""],
        "price": [1.0, 1.0, 1.0, 1.0, None],
    }


# ---- what counts, and when -------------------------------------------------------------------------------------------


def test_lines_count_where_any_names_an_item(train, shop):
    assert (train.source, train.target) == ("transactions and events", "purchase")
    assert set(train.interactions.weights.tolist()) == {1.0}
    assert not {"refunded", "cancelled", "future"} & set(
        training_set(shop, AS_OF, min_item_customers=1, with_features=False).item_ids.tolist()
    )


def test_ages_are_exact_and_above_zero(lake_of):
    ages = {"second": 1 / 86_400, "noon": 0.5, "midnight": 1.0, "week": 7.25, "year": 366.0}
    lines = Orders()
    for number, age in enumerate(ages.values()):
        lines.add("i", str(number), ts=AS_OF - timedelta(seconds=round(age * 86_400)))
    lines.add("i", "at as_of", ts=AS_OF).add("i", "just before", ts=AS_OF - timedelta(microseconds=1))
    builder = Builder(lake_of({"transactions": lines.rows}), FEATURES)
    found = training_set(builder, AS_OF, min_item_customers=1, with_features=False)
    assert found.interactions.age_days.dtype == np.float32
    assert (found.interactions.age_days > 0).all()
    by_user = {user: age for user, _, age, _ in pairs(found, builder)}
    assert set(by_user) == {*map(str, range(5)), "just before"}
    assert [by_user[str(number)] for number in range(5)] == [float(np.float32(age)) for age in ages.values()]


def test_nothing_at_or_after_as_of_is_known(shop, lake_of):
    moment = AS_OF - 10 * DAY
    with pytest.raises(DataError, match="have an item_id"):
        training_set(shop, moment, min_item_customers=1)  # every line is of that very moment
    lines = Orders().add("i", "1", "2", ts=AS_OF - DAY)
    past = Builder(lake_of({"transactions": list(lines.rows)}), FEATURES)
    lines.add("i", "1", "3", ts=AS_OF).add("j", "1", "2", "3", ts=AS_OF + timedelta(hours=1))
    whole = Builder(lake_of({"transactions": lines.rows}), FEATURES)
    left, right = (training_set(builder, AS_OF, min_item_customers=1, with_features=False) for builder in (past, whole))
    assert left.user_ids.tolist() == right.user_ids.tolist()
    assert left.item_ids.tolist() == right.item_ids.tolist() == ["i"]
    assert pairs(left, past) == pairs(right, whole)


def test_a_period_begins_with_its_start(lake_of):
    lines = Orders()
    for days in (1, 5, 6):
        lines.add(f"{days} days", "1", ts=AS_OF - days * DAY)
    rows = interaction_rows(Builder(lake_of({"transactions": lines.rows}), FEATURES), AS_OF, AS_OF - 5 * DAY)
    assert sorted(rows["item_id"].to_pylist()) == ["1 days", "5 days"]


def test_a_half_life_halves(train):
    full, halved = train.interactions.matrix(), train.interactions.matrix(half_life_days=10)
    np.testing.assert_allclose(halved.toarray(), full.toarray() / 2)
    assert full.dtype == halved.dtype == np.float32
    assert full.has_sorted_indices


# ---- events ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browsing(lake_of):
    """A shop whose orders name no items."""
    seen = events(
        *(("1", kind, f"i {kind}", AS_OF - 2 * DAY) for kind in EVENT_WEIGHTS),
        *(("1", kind, f"i {kind}", AS_OF - 2 * DAY) for kind in ("message_open", "login", "service")),
        ("2", "view", "i view", AS_OF - DAY, {"category": "own/z"}),
        ("2", "cart", "i view", AS_OF - 3 * DAY, {"category": "own/a"}),
        ("2", "view", "i view", AS_OF, {"category": "future"}),
        ("2", "view", None, AS_OF - DAY),
    )
    return Builder(lake_of({"transactions": Orders().add(None, "1", "3").rows, "events": seen}), FEATURES)


def test_events_count_by_their_kind_where_no_line_names_an_item(browsing):
    found = training_set(browsing, AS_OF, min_item_customers=1, with_features=False)
    assert (found.source, found.target) == ("events", "any")
    of_first = {item: weight for user, item, _, weight in pairs(found, browsing) if user == "1"}
    assert of_first == {f"i {kind}": weight for kind, weight in EVENT_WEIGHTS.items()}
    assert [row[2:] for row in pairs(found, browsing) if row[0] == "2"] == [(1.0, 1.0), (3.0, 3.0)]
    row = found.user_ids.tolist().index(next(one_id for one_id, user in user_ids(browsing).items() if user == "2"))
    assert found.interactions.matrix()[row, 0] == 4.0
    assert found.item_ids[0] == "i view"
    assert found.n_users == 3


def test_categories_of_events_stand_in_for_a_missing_item_list(browsing):
    found = training_set(browsing, AS_OF, min_item_customers=1, with_features=False)
    assert found.item_attributes["category"][0] == "own/a"
    assert set(found.item_attributes["category"][1:].tolist()) == {""}
    assert set(found.item_attributes["brand"].tolist()) == {""}


# ---- without time, without items -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def timeless(lake_of):
    return Builder(
        lake_of({"transactions": Orders().add("i", "1", "2", ts=None).add("j", "1", ts=None).rows}), FEATURES
    )


def test_without_time_everything_counts_and_has_no_age(timeless):
    found = training_set(timeless, AS_OF, min_item_customers=1, with_features=False)
    assert pairs(found, timeless) == [("1", "i", 0.0, 1.0), ("1", "j", 0.0, 1.0), ("2", "i", 0.0, 1.0)]
    np.testing.assert_array_equal(
        found.interactions.matrix(half_life_days=7).toarray(), found.interactions.matrix().toarray()
    )


def test_without_time_there_are_no_periods(timeless):
    with pytest.raises(DataError, match="no timestamps, so a period cannot be selected.*map `ts`") as caught:
        interaction_rows(timeless, AS_OF, AS_OF - DAY)
    assert caught.value.where == "transactions"


def test_without_items_there_is_nothing_to_recommend(lake_of):
    seen = events(("1", "view", None, AS_OF - DAY))
    for tables in (
        {"transactions": Orders().add(None, "1").rows, "events": seen},
        {"profiles": [{"source": "shop", "source_user_id": "1"}]},
    ):
        with pytest.raises(DataError, match="neither transactions nor events have an item_id.*map `item_id`"):
            training_set(Builder(lake_of(tables), FEATURES), AS_OF)


def test_a_later_line_with_an_item_does_not_change_what_was_learnt_from_events(browsing, lake_of):
    before = training_set(browsing, AS_OF, min_item_customers=1, with_features=False)
    rows = {name: browsing.backend.table(name).to_pyarrow().to_pylist() for name in ("transactions", "events")}
    later = lake_of(
        {
            "transactions": [*rows["transactions"], *Orders().add("i later", "1", ts=AS_OF + DAY).rows],
            "events": rows["events"],
        }
    )
    after = training_set(Builder(later, FEATURES), AS_OF, min_item_customers=1, with_features=False)
    assert after.source == before.source == "events"
    assert after.item_ids.tolist() == before.item_ids.tolist()
    assert after.interactions.matrix().toarray().tolist() == before.interactions.matrix().toarray().tolist()


def test_orders_are_numbered_in_time_and_units_and_amounts_kept(lake_of):
    lines = Orders()
    for user in ("1", "2"):
        lines.add("a", user, ts=AS_OF - 20 * DAY, order_id=f"second{user}", quantity=3.0, amount=6.0)
        lines.add("b", user, ts=AS_OF - 20 * DAY, order_id=f"second{user}", line_no=2, quantity=None)
        lines.add("b", user, ts=AS_OF - 30 * DAY, order_id=f"z first{user}", amount=None)
        lines.add("a", user, ts=AS_OF - 2 * DAY, order_id=f"a last{user}", quantity=1.0, amount=4.0)
    train = training_set(
        Builder(lake_of({"transactions": lines.rows}), FEATURES), AS_OF, min_item_customers=1, with_features=False
    )
    data = train.interactions
    for user in (0, 1):
        mine = data.where(data.users == user)
        by_age = mine.where(np.lexsort((mine.items, -mine.age_days)))
        numbers = by_age.orders - by_age.orders[0]
        assert numbers.tolist() == [0, 1, 1, 2]
        assert by_age.age_days.tolist() == [30.0, 20.0, 20.0, 2.0]
        a, b = train.item_ids.tolist().index("a"), train.item_ids.tolist().index("b")
        assert mine.quantities[mine.items == a].tolist() == [1.0, 3.0]
        assert np.isnan(mine.amounts[mine.items == b]).sum() == 1
        assert np.isnan(mine.quantities[mine.items == b]).sum() == 1
    prices = train.item_attributes["price"]
    assert prices[a] == 2.0  # the lower of the two middle unit prices
    assert np.isnan(prices[b])  # never with both an amount and a quantity


def test_baskets_of_several_customers_and_lines_without_one():
    """Orders are those of customer and basket, from the oldest on, then by id; a line without a basket is an order."""
    users = np.array([1, 0, 0, 1, 0, 0, 1, -1])
    baskets = ["s", "s", None, "r", "t", None, "s", "s"]
    ages = [5.0, 5.0, 9.0, 5.0, 5.0, 9.0, 7.0, 99.0]
    rows = pa.table({"basket": baskets, "age_days": ages, "weight": [1.0] * 8, "quantity": [None] * 8})
    rows = rows.append_column("amount", pa.array(ages))
    found = interactions_from_rows(rows, users, np.array([0, 1, 3, 2, 4, 2, 3, 0]), (2, 5))
    orders = dict(zip(zip(found.users.tolist(), found.items.tolist(), strict=True), found.orders.tolist(), strict=True))
    assert orders == {(0, 2): 0, (0, 3): 1, (0, 1): 2, (0, 4): 3, (1, 3): 4, (1, 0): 4, (1, 2): 5}
    assert found.quantities is None
    assert found.amounts.tolist() == found.age_days.tolist()


@pytest.mark.parametrize("rows", [0, 1, 2, 5_000])
def test_interactions_are_sorted_by_all_columns(rows):
    """By few users, items and values, so that most rows are equal in the first keys; unknown values are last."""
    rng = np.random.default_rng(rows)
    users, items, orders = (rng.integers(0, most, rows).astype(np.int32) for most in (3, 4, 2))
    values = np.array([np.nan, -np.nan, -1.5, -0.0, 0.0, 2.5, np.inf], np.float32)
    ages, weights, quantities, returned = (rng.choice(values, rows) for _ in range(4))
    types = rng.integers(0, 3, rows).astype(np.int8)
    found = sorted_interactions(
        users, items, ages, weights, (3, 4), orders, quantities, returned_days=returned, types=types
    )
    order = np.lexsort((types, returned, quantities, orders, weights, ages, items, users))
    for name, column in {
        "users": users,
        "items": items,
        "age_days": ages,
        "weights": weights,
        "orders": orders,
        "quantities": quantities,
        "returned_days": returned,
        "types": types,
    }.items():
        np.testing.assert_array_equal(getattr(found, name), column[order], err_msg=name)


def test_a_shop_that_took_back_everything_has_no_items(lake_of):
    lines = Orders().add("a", "1", "2").add("a", "1", "2", ts=AS_OF - 5 * DAY, status="refunded")
    rows = [{**row, "order_id": f"o{number % 2}"} for number, row in enumerate(lines.rows)]
    with pytest.raises(DataError, match="no item has at least 1 customers"):
        training_set(Builder(lake_of({"transactions": rows}), FEATURES), AS_OF, min_item_customers=1)
