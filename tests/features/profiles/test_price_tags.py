"""Price levels and their tags in small shops, where it is known how dear everything is."""

from __future__ import annotations

import math
from collections import Counter
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from features.compute.builder import Builder
from features.definitions import FEATURES
from features.profiles.tags import TAGS, tag_values

AS_OF = datetime(2024, 7, 1)
LN2 = math.log(2)
PRICE_TAGS = [TAGS[name] for name in ("price_band", "demand_type", "trading")]
FOOD = {"a": 1.0, "b": 1.0, "c": 2.0, "d": 4.0, "e": 4.0}  # item → price
ITEMS = [
    *({"item_id": item, "category": "shop/food"} for item in FOOD),
    {"item_id": "fuel", "category": "shop/fuel"},  # one item leaves no choice
    {"item_id": "bag", "category": "shop/food", "merchandise": False},
]


def line(number, item, amount, days=10, user="1", **columns):
    return {
        "source": "shop",
        "source_user_id": user,
        "order_id": f"o{number}",
        "line_no": 1,
        "ts": AS_OF - timedelta(days=days),
        "item_id": item,
        "quantity": 1.0,
        "amount": amount,
        "status": "paid",
        **columns,
    }


def one_of_each():
    return [line(number, item, price) for number, (item, price) in enumerate(FOOD.items())]


def levels(lake_of, lines, items=ITEMS):
    """Item → price level."""
    builder = Builder(lake_of({"transactions": lines, "items": items}), FEATURES)
    found = builder.views(AS_OF).price_levels.to_pyarrow()
    return dict(zip(found["item_id"].to_pylist(), found["price_level"].to_pylist(), strict=True))


EXPECTED = {"a": -LN2, "b": -LN2, "c": 0.0, "d": LN2, "e": LN2}


@pytest.mark.parametrize(
    "further",
    [
        [],
        [line(90, "fuel", 30.0), line(91, "bag", 0.1), line(92, "unlisted", 9.0), line(93, None, 9.0)],
        [line(90, "a", 800.0, days=0), line(91, "a", 800.0, days=-3), line(92, "a", 800.0, days=366)],
        [line(90, "a", 800.0, status="refunded"), line(91, "a", 800.0, status="cancelled"), line(92, "a", None)],
        [line(90, "c", 1.0, discount=0.75, coupon_discount=0.25), line(91, "c", 0.0, discount=2.0), line(92, "c", 0.0)],
    ],
    ids=["one of each", "no level", "other times", "not paid", "before discounts"],
)
def test_the_level_of_an_item_is_its_price_against_that_of_its_category(lake_of, further):
    assert levels(lake_of, [*one_of_each(), *further]) == pytest.approx(EXPECTED)


def test_four_items_leave_no_choice(lake_of):
    assert levels(lake_of, one_of_each()[:4]) == {}
    assert levels(lake_of, one_of_each(), [{**item, "category": None} for item in ITEMS]) == {}


def test_an_item_of_another_kind_counts_as_four_times_the_usual_price(lake_of):
    """Of 41 lines 40 cost 1: the usual price is 1.2, and 1,000 is more than four times as much."""
    prices = dict.fromkeys("abcd", 1.0) | {"e": 1_000.0}
    lines = [line(number, item, prices[item]) for number, item in enumerate([*"abcd" * 10, "e"])]
    found = levels(lake_of, lines)
    assert found["e"] == pytest.approx(math.log(4))
    assert found["a"] == pytest.approx(-math.log(1_000) / 41)


# ---- a shop of customers with tastes -------------------------------------------------------------------------------------

CATEGORIES, CUSTOMERS, ORDERS = ("food/milk", "food/wine", "home"), 90, 30
SHELF = [
    {"item_id": f"{category}-{rank}", "category": category, "price": price}
    for category, cheapest in zip(CATEGORIES, (1.0, 8.0, 30.0), strict=True)
    for rank, price in enumerate(cheapest * np.array([1.0, 1.2, 1.4, 1.6, 1.8, 2.0]))
]


@pytest.fixture(scope="module", name="tasteful")
def tasteful_lines():
    """A third of the customers mostly takes cheap goods, a third any, a third dear ones, in whatever category."""
    rng = np.random.default_rng(0)
    price = {item["item_id"]: item["price"] for item in SHELF}
    lines = []
    for customer in range(CUSTOMERS):
        taste = customer % 3 - 1
        odds = np.exp(0.9 * taste * np.arange(6))
        for number in range(ORDERS):
            item = f"{CATEGORIES[rng.integers(3)]}-{rng.choice(6, p=odds / odds.sum())}"
            made = line(f"{customer}-{number}", item, price[item], days=1 + 5 * number, user=f"{taste}:{customer:02}")
            lines.append(made)
    return lines


def tags_of(lake_of, lines, fitted=None):
    """Customer → the price tags."""
    items = [{name: item[name] for name in ("item_id", "category")} for item in SHELF]
    builder = Builder(lake_of({"transactions": lines, "items": items}), FEATURES)
    wanted = {name for tag in PRICE_TAGS for name in tag.inputs}
    table = builder.build(AS_OF, [feature for feature in FEATURES if feature.name in wanted]).table
    assert wanted - set(table.column_names) == {"discounted_line_share_182d", "content_event_share_91d"}
    values = tag_values(table, PRICE_TAGS, fitted=fitted)
    return {user: {name: values[name][row] for name in values} for row, user in enumerate(table["user_id"].to_pylist())}


def band_of(tags):
    return {user: found["price_band"] for user, found in tags.items()}


def test_the_band_is_the_taste_whatever_the_category(lake_of, tasteful):
    found = tags_of(lake_of, tasteful)
    seen = Counter((user.split(":")[0], tags["price_band"]) for user, tags in found.items())
    assert seen["-1", "budget"] + seen["0", "middle"] + seen["1", "premium"] > 0.8 * CUSTOMERS
    assert not seen["-1", "premium"] + seen["1", "budget"]


def test_units_and_large_lines_change_no_tag(lake_of, tasteful):
    """Milk in thousandths of a litre; and then a few lines of a thousand units, of customers who buy cheap or dear."""
    before = tags_of(lake_of, tasteful)
    scaled = [{**one, "quantity": 1_000.0 if "milk" in one["item_id"] else 1.0} for one in tasteful]
    assert tags_of(lake_of, scaled) == before
    large = [
        line(f"large-{customer}", "food/milk-0", 1_000.0, user=f"{customer % 3 - 1}:{customer:02}", quantity=1_000.0)
        for customer in range(12)
    ]
    after = band_of(tags_of(lake_of, [*tasteful, *large]))
    assert sum(after[user] == band for user, band in band_of(before).items()) >= 0.95 * CUSTOMERS


def test_a_customer_with_19_lines_has_no_band(lake_of, tasteful):
    few = [one for one in tasteful if one["source_user_id"] != "1:02" or int(one["order_id"].split("-")[1]) < 19]
    found = tags_of(lake_of, few)
    assert found["1:02"] == {"price_band": None, "trading": None}
    assert found["1:05"]["price_band"] == "premium"


def test_halves_agree_more_than_exchanged_lines(lake_of, tasteful):
    """The bands of the odd and the even orders, each repeated so that both halves have enough lines."""

    def share_equal(lines):
        halves = [
            band_of(tags_of(lake_of, [{**one, "line_no": copy} for one in half for copy in (1, 2)]))
            for half in (lines[::2], lines[1::2])
        ]
        both = [user for user in halves[0] if halves[0][user] and halves[1].get(user)]
        assert len(both) >= 20
        return np.mean([halves[0][user] == halves[1][user] for user in both])

    order = np.random.default_rng(1).permutation(len(tasteful))
    exchanged = [
        {**one, "item_id": tasteful[other]["item_id"], "amount": tasteful[other]["amount"]}
        for one, other in zip(tasteful, order, strict=True)
    ]
    assert share_equal(tasteful) > 0.85
    assert share_equal(exchanged) < 0.6


def test_who_buys_dearer_goods_than_before_trades_up(lake_of, tasteful):
    dear = {item["category"]: item for item in SHELF}  # the dearest of each
    lines = []
    for one in tasteful:
        days = (AS_OF - one["ts"]).days
        category = one["item_id"].rsplit("-", 1)[0]
        up = one["source_user_id"] == "-1:00" and days <= 56
        item = dear[category] if up else None
        lines.append({**one, "item_id": item["item_id"], "amount": item["price"]} if item else one)
    more = [
        line(f"more-{number}", dear["home"]["item_id"], dear["home"]["price"], days=3, user="-1:00")
        for number in range(6)
    ]
    cheap = next(item for item in SHELF if item["category"] == "home")
    older = [
        line(f"older-{number}", cheap["item_id"], cheap["price"], days=160 + number, user="-1:00")
        for number in range(4)
    ]
    assert tags_of(lake_of, [*lines, *more, *older])["-1:00"]["trading"] == "up"


def test_customers_who_all_buy_at_one_level_have_no_band():
    table = pa.table(
        {"one_id": list("abc"), "price_level_mean": [0.0] * 3, "price_level_std": [0.0] * 3}
    ).append_column("price_level_lines", pa.array([30.0] * 3))
    assert tag_values(table, [TAGS["price_band"]]) == {"price_band": [None] * 3}
    with_discounts = table.append_column("discounted_line_share_182d", pa.array([0.0, 0.1, 0.9]))
    assert tag_values(with_discounts, [TAGS["demand_type"]])["demand_type"][2] == "price_driven"
    assert "quality_driven" not in tag_values(with_discounts, [TAGS["demand_type"]])["demand_type"]
