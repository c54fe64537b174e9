"""What was given back is no purchase: hand-worked histories, and nothing is known before the refund."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta

import numpy as np
import pytest

from features.compute.builder import Builder
from features.definitions import FEATURES
from features.purchases import not_merchandise
from features.returns import MIN_REFUNDS, Lines, settle
from features.training_data import interaction_rows, training_set

AS_OF = datetime(2024, 3, 1)
DAY = timedelta(days=1)


def line(order, age, user="u", item="i", quantity=1.0, status="paid", line_no=1, **more):
    """A line of `age` days before `AS_OF`, at 10 a unit."""
    return {
        "source": "shop",
        "source_user_id": user,
        "order_id": order,
        "line_no": line_no,
        "ts": None if age is None else AS_OF - age * DAY,
        "item_id": item,
        "quantity": quantity,
        "amount": None if quantity is None else 10.0 * quantity,
        "status": status,
        **more,
    }


def refund(order, age, **more):
    return line(order, age, status="refunded", **{"line_no": 2, **more})


@pytest.fixture
def bought(lake_of):
    """Return a function: the (order, units, amount) of each purchase in ``[start, as_of)``, sorted by order."""

    def read(*rows, as_of=AS_OF, start=None):
        found = interaction_rows(Builder(lake_of({"transactions": rows}), FEATURES), as_of, start)
        columns = (found[name].to_pylist() for name in ("basket", "quantity", "amount"))
        return sorted((basket.split("\x1f")[1], units, amount) for basket, units, amount in zip(*columns, strict=True))

    return read


OTHER = line("other", 50, user="v", item="elsewhere")  # without it, some lakes would have no purchase at all
KEPT = ("other", 1.0, 10.0)


def case(rows, left, id):
    return id, rows, left


HISTORIES = [
    case([line("a", 30), refund("a", 20)], [], id="the order's own number"),
    case([line("a", 30), refund("r", 20)], [], id="a number of its own"),
    case([line("a", 30), refund("r", 30)], [], id="at the same moment"),
    case(
        [line("a", 40), line("b", 30), line("c", 20), refund("a", 35), refund("b", 25), refund("c", 15)],
        [],
        id="three times bought, three times sent back",
    ),
    case([line("a", 30, quantity=3.0), refund("a", 20)], [("a", 2.0, 20.0)], id="one of three units"),
    case(
        [line("a", 40), line("b", 30), line("c", 20), refund("r", 10)],
        [("a", 1.0, 10.0), ("b", 1.0, 10.0)],
        id="the latest of three sales",
    ),
    case(
        [line("a", 40), line("b", 30), refund("a", 10)], [("b", 1.0, 10.0)], id="the sale of the order it names"
    ),
    case(
        [line("a", 40, quantity=2.0), line("b", 30, quantity=2.0), refund("r", 10, quantity=3.0)],
        [("a", 1.0, 10.0)],
        id="more than the latest sale",
    ),
    case([line("a", 30), refund("r", 20, quantity=9.0), line("b", 10)], [("b", 1.0, 10.0)], id="more than was bought"),
    case([refund("r", 20), line("b", 10)], [("b", 1.0, 10.0)], id="without a sale before it"),
    case([line("a", 30), refund("r", 20, item="j"), refund("s", 20, user="v")], [("a", 1.0, 10.0)], id="of another item or customer"),
    case([line("a", 30, quantity=2.0), refund("a", 20, quantity=5.0), line("b", 40)], [("b", 1.0, 10.0)], id="more than its order"),
    case([line("a", 30, status="refunded")], [], id="the order itself is marked as refunded"),
    case([line("a", 30, status="cancelled"), line("b", 20, status="cancelled")], [], id="cancelled"),
    case([line("a", 30, quantity=None), refund("r", 20, quantity=None)], [], id="units unknown"),
    case([line("a", 30, quantity=3.0), refund("r", 20, quantity=None)], [], id="an unknown number takes the line"),
    case([line("a", 30, quantity=0.0), refund("r", 20, quantity=0.0)], [("a", 0.0, 0.0)], id="money only"),
    case([line("a", 30, quantity=0.3), refund("r", 20, quantity=0.1), refund("s", 19, quantity=0.2)], [], id="sold by weight"),
    case([line("a", 29.5), refund("a", 30)], [], id="a date without a clock time, on the day of the sale"),
]  # fmt: skip


@pytest.fixture(scope="module")
def histories(lake_of):
    """(order, units, amount) of the purchases of each history; every history is a source of its own in one lake."""
    rows = [{**row, "source": name} for name, history, _ in HISTORIES for row in history]
    found = interaction_rows(Builder(lake_of({"transactions": [*rows, OTHER]}), FEATURES), AS_OF)
    purchases = defaultdict(list)
    for row in found.to_pylist():
        source, order = row["basket"].split("\x1f")
        purchases[source].append((order, row["quantity"], row["amount"]))
    return {name: sorted(rows) for name, rows in purchases.items()}


@pytest.mark.parametrize(("name", "left"), [(name, left) for name, _, left in HISTORIES])
def test_what_was_given_back_is_not_bought(histories, name, left):
    assert histories.get(name, []) == left


def test_without_times_a_refund_takes_back_as_well(bought):
    assert bought(line("a", None), refund("r", None), {**OTHER, "ts": None}) == [KEPT]


def test_a_refund_is_unknown_before_its_time(bought):
    rows = [OTHER, line("a", 30), refund("r", 10)]
    assert bought(*rows, as_of=AS_OF - 10 * DAY) == [("a", 1.0, 10.0), KEPT]
    assert bought(*rows, as_of=AS_OF - 10 * DAY + timedelta(seconds=1)) == [KEPT]


def test_a_period_takes_the_refunds_of_its_sales_and_no_others(bought):
    rows = [line("old", 60), line("a", 20), line("b", 15), refund("old", 5), refund("r", 4)]
    assert bought(*rows, start=AS_OF - 28 * DAY) == [("a", 1.0, 10.0)]


def test_an_earlier_cutoff_knows_what_was_not_yet_given_back(lake_of):
    """`with_earlier_cutoff` equals the training set of the earlier moment, also with returns between the two."""
    rng = np.random.default_rng(3)
    rows = [line(f"o{user}{item}", 120, user=f"u{user}", item=f"i{item}") for user in range(5) for item in range(4)]
    for number in range(400):  # from the oldest to the newest; half of the refunds name an earlier order
        user, item = f"u{rng.integers(5)}", f"i{rng.integers(4)}"
        if rng.random() < 0.4:
            sold = [row["order_id"] for row in rows if (row["source_user_id"], row["item_id"]) == (user, item)]
            order = sold[rng.integers(len(sold))] if rng.random() < 0.5 else f"r{number}"
            rows.append(refund(order, 100 - number / 4, user=user, item=item, line_no=number + 2))
        else:
            rows.append(line(f"o{number}", 100 - number / 4, user=user, item=item))
    builder = Builder(lake_of({"transactions": rows}), FEATURES)
    now = training_set(builder, AS_OF, min_item_customers=1, with_features=False)
    assert now.returned is not None
    for days in (10, 30, 60):
        then = training_set(builder, AS_OF - days * DAY, min_item_customers=1, with_features=False)
        assert entries(now.with_earlier_cutoff(days)) == entries(then)
    assert entries(now.with_earlier_cutoff(30).with_earlier_cutoff(30)) == entries(now.with_earlier_cutoff(60))


def entries(train):
    found = train.interactions
    return sorted(
        zip(
            train.user_ids[found.users].tolist(),
            train.item_ids[found.items].tolist(),
            found.age_days.round(3).tolist(),
            strict=True,
        )
    )


def test_items_given_back_by_all_are_no_items(lake_of):
    rows = [line(f"a{user}", 30, user=user, item=item) for user in "123" for item in ("good", "bad")]
    rows += [refund(f"r{user}", 10, user=user, item="bad") for user in "12"]
    train = training_set(
        Builder(lake_of({"transactions": rows}), FEATURES), AS_OF, min_item_customers=2, with_features=False
    )
    assert train.item_ids.tolist() == ["good"]


# ---- orders that are marked as refunded ------------------------------------------------------------------------------


def many_refunds(repeat_share, refund_share):
    """Refunds in orders of their own: `refund_share` of them have an earlier sale, and `repeat_share` of the sales."""
    repeats = round(MIN_REFUNDS * repeat_share)
    rows = [line(f"a{n}", 80, user=f"n{n}") for n in range(MIN_REFUNDS)]
    rows += [line(f"b{n}", 70, user=f"n{n}", quantity=2.0) for n in range(repeats)]
    earlier = round(MIN_REFUNDS * refund_share)
    rows += [refund(f"r{n}", 20, user=f"n{n}") for n in range(earlier)]
    return rows + [refund(f"r{n}", 20, user=f"new{n}") for n in range(earlier, MIN_REFUNDS)]


@pytest.mark.parametrize(
    ("repeat_share", "refund_share", "taken"),
    [(0.0, 1.0, 20), (0.5, 1.0, 20), (0.5, 0.5, 0), (0.0, 0.25, 0), (0.0, 0.75, 15)],
)
def test_orders_marked_as_refunded_take_nothing_else_back(bought, repeat_share, refund_share, taken):
    rows = many_refunds(repeat_share, refund_share)
    before = sum(row["quantity"] for row in rows if row["status"] == "paid")
    assert before - sum(units for _, units, _ in bought(*rows)) == taken


def test_settling_is_that_of_units_one_by_one():
    """Random histories against a list of single units, of which the last is given back first."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        times = rng.permutation(12)
        is_refund = rng.random(12) < 0.5
        quantity = rng.integers(1, 4, 12).astype(float)
        pair = rng.integers(0, 2, 12)
        stock: dict[int, list[int]] = {0: [], 1: []}
        for at in np.argsort(times).tolist():
            if is_refund[at]:
                del stock[pair[at]][len(stock[pair[at]]) - min(int(quantity[at]), len(stock[pair[at]])) :]
            else:
                stock[pair[at]] += [at] * int(quantity[at])
        left = np.bincount(stock[0] + stock[1], minlength=12).astype(float)
        lines = Lines(pair, np.arange(12), times, quantity)
        kept, _ = settle(lines.where(~is_refund), lines.where(is_refund))
        np.testing.assert_allclose(kept * quantity[~is_refund], left[~is_refund])


# ---- no merchandise --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bags(lake_of):
    """Every basket has a bag, which is declared to be no merchandise; an item of unknown kind is merchandise."""
    rows = [line(f"o{n}", 5 + n, user=f"u{n}", item=f"i{n % 2}") for n in range(6)]
    rows += [line(f"o{n}", 5 + n, user=f"u{n}", item="BAG", line_no=2) for n in range(6)]
    rows += [refund("back", 1, user="u0", item="BAG")]
    goods = [
        {"item_id": "BAG", "merchandise": False, "source": "shop"},
        {"item_id": "i0", "merchandise": True, "source": "shop", "brand": "b"},
        {"item_id": "i1", "source": "shop", "colour": "red"},
    ]
    return Builder(lake_of({"transactions": rows, "items": goods}), FEATURES)


def test_nothing_is_learned_from_a_bag(bags):
    train = training_set(bags, AS_OF, min_item_customers=1)
    assert sorted(train.item_ids.tolist()) == ["i0", "i1"]
    assert len(train.interactions.users) == 6
    assert not_merchandise(bags) == ["BAG"]
    assert train.user_features.column("amount_total").sum() == 120.0, "a bag is still paid for"


def test_a_bag_is_no_favourite_item(bags):
    features = [feature for feature in FEATURES if feature.name in ("top_item", "items_distinct_91d", "amount_total")]
    rows = {row["user_id"]: row for row in bags.build(AS_OF, features).table.to_pylist()}
    assert (rows["u1"]["top_item"], rows["u1"]["items_distinct_91d"], rows["u1"]["amount_total"]) == ("i1", 1.0, 20.0)


def test_where_an_item_comes_from_is_no_attribute_of_it(bags):
    attributes = training_set(bags, AS_OF, min_item_customers=1, with_features=False).item_attributes
    assert set(attributes) == {"category", "brand", "price", "colour"}


def test_events_of_a_bag_do_not_count(lake_of):
    seen = [
        {"event_id": f"e{n}", "source": "shop", "source_user_id": "u", "event_type": "view", "ts": AS_OF - DAY, "item_id": item}
        for n, item in enumerate(("BAG", "i0"))
    ]  # fmt: skip
    lake = lake_of({"events": seen, "items": [{"item_id": "BAG", "merchandise": False}, {"item_id": "i0"}]})
    train = training_set(Builder(lake, FEATURES), AS_OF, min_item_customers=1, with_features=False)
    assert (train.source, train.item_ids.tolist()) == ("events", ["i0"])
