"""Planned promotions at a moment: only what was known then, of items and of categories."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest

from features.compute.builder import Builder
from features.data.lake import Lake
from features.definitions import FEATURES
from features.promotion_rows import item_promotions
from features.training_data import training_set
from tests.features.data.exports import Export
from tests.models.recommend.promoted_shop import promotions_of

AS_OF = datetime(2024, 4, 1)
ITEMS = np.array(["a", "b", "c", "d"])
PATHS = np.array(["food/milk", "food/milk/oat", "food/milkshake", ""])
COLUMNS = "{item_id: sku, category: group, kind: type, start: first, end: last, known_at: told, reach: part}"
ROWS = (
    "a,,mailer,2024-03-20,2024-03-27,2024-03-01,0.5",
    "a,,mailer,2024-04-05,2024-04-08,2024-03-31 23:59:59,",
    "b,,display,2024-04-05,,2024-04-01,1",  # known at the cutoff itself: not before it
    ",food/milk,mailer,2024-03-30,2024-04-03,2024-03-29,1",  # of a and b, not of c
    "ghost,,mailer,2024-03-30,2024-04-03,2024-03-29,1",
    "c,,mailer,2022-01-01,2022-01-05,2021-12-01,1",  # long over
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    export = Export(tmp_path_factory.mktemp("shop"))
    export.ingest("sku,group,type,first,last,told,part\n" + "\n".join(ROWS) + "\n", COLUMNS, "promotions")
    return export


def read(shop, as_of=AS_OF, **more):
    return item_promotions(Lake(shop.workspace).connect(), as_of, ITEMS, PATHS, **more)


def described(found):
    names = [found.kind_names[kind] for kind in found.kinds]
    columns = (found.items, names, found.start_days, found.end_days, found.known_days, found.reach)
    return [
        tuple(round(float(v), 3) if not isinstance(v, str) else v for v in row) for row in zip(*columns, strict=True)
    ]


def test_what_was_known_before_the_moment_is_read_and_nothing_else(shop):
    found = read(shop)
    assert described(found) == [
        (0, "mailer", 12.0, 5.0, 31.0, 0.5),
        (0, "mailer", 2.0, -2.0, 3.0, 1.0),
        (0, "mailer", -4.0, -7.0, 0.0, 1.0),  # known a second before
        (1, "mailer", 2.0, -2.0, 3.0, 1.0),
    ]
    assert found.known_days.min() > 0
    assert read(shop, datetime(2021, 1, 1)) is None


@pytest.mark.parametrize("days", [-10, -3, -1, 2])
def test_moving_the_moment_is_reading_at_that_moment(shop, days):
    moved = read(shop, known_before=datetime(9999, 1, 1)).later(days)
    assert described(moved) == described(read(shop, AS_OF + timedelta(days=days)))


def test_items_get_other_numbers(shop):
    found = read(shop).renumbered(np.array([2, -1, 0, 1]), 3)
    assert found.items.tolist() == [2, 2, 2]
    assert read(shop).renumbered(np.array([1, 0, 2, 3]), 4).items.tolist() == [0, 1, 1, 1]


def test_reach_at_a_moment_is_that_of_the_rows_that_run(shop):
    found = read(shop, known_before=datetime(9999, 1, 1)).later(30)
    rng = np.random.default_rng(0)
    items, days = rng.integers(0, 4, 400), rng.uniform(-10, 60, 400).round(1)
    for kind in (None, 0, 1):
        kept = np.ones(len(found), bool) if kind is None else found.kinds == kind
        runs = (found.start_days >= days[:, None]) & (found.end_days < days[:, None])
        runs &= (found.items == items[:, None]) & kept
        expected = np.minimum((runs * found.reach).sum(axis=1), 1.0)
        np.testing.assert_allclose(found.reach_at(kind)(items, days), expected, atol=1e-6)
    assert set(np.unique(expected)) == {0.0, 1.0}  # the display without an end


def current(rows, days, tmp_path):
    """The promotions of item a that count a number of days after `AS_OF`: (start, end, reach), and read then anew."""
    export = Export(tmp_path)
    columns = COLUMNS.replace("}", ", plan_id: plan, withdrawn: gone}")
    export.ingest("sku,group,type,first,last,told,part,plan,gone\n" + "\n".join(rows) + "\n", columns, "promotions")
    everything = read(export, known_before=datetime(9999, 1, 1))
    found = []
    for at in days:
        moved, anew = everything.later(at).current(), read(export, AS_OF + timedelta(days=at))
        assert described(moved) == described(everything.later(30).later(at - 30).current())
        counts = [(row[2] - at, row[3] - at, row[5]) for row in described(moved)]
        assert [row[:4] for row in described(moved)] == (
            [] if anew is None else [r[:4] for r in described(anew.current())]
        )
        found.append(counts)
    return found


def test_a_plan_that_is_exported_again_is_one_plan(tmp_path):
    rows = (
        "a,,m,2024-04-10,2024-04-12,2024-03-01,0.5,,",
        "a,,m,2024-04-10,2024-04-12,2024-04-03,0.6,,",
        "a,,m,2024-04-10,2024-04-12,2024-04-04,0.7,,",
        "a,,n,2024-04-10,2024-04-12,2024-04-04,0.25,,",  # another kind
    )
    first, other = (-9.0, -11.0, 0.5), (-9.0, -11.0, 0.25)
    assert current(rows, (0, 5), tmp_path) == [[first], [first, other]]


def test_of_a_plan_with_an_id_the_rows_known_last_count(tmp_path):
    rows = (
        "a,,m,2024-04-10,2024-04-12,2024-03-20,1,P,",
        "a,,m,2024-04-20,2024-04-22,2024-03-20,1,P,",
        "b,,m,2024-04-10,2024-04-12,2024-03-20,1,P,",  # another item of the plan: nothing was said of it since
        "a,,m,2024-04-15,2024-04-18,2024-04-03,0.5,P,false",  # moved
        "a,,m,2024-04-15,2024-04-18,2024-04-05,0.5,P,true",  # withdrawn
        "a,,m,2024-04-16,2024-04-18,2024-04-07,0.5,P,",  # and planned again
        "a,,m,2024-04-10,2024-04-12,2024-03-30,1,Q,",  # a plan of its own
    )
    own, of_b = (-9.0, -11.0, 1.0), (-9.0, -11.0, 1.0)
    later = (-19.0, -21.0, 1.0)
    assert current(rows, (-5, 0, 3, 5, 7), tmp_path) == [
        [own, later, of_b],
        [own, later, of_b],
        [own, (-14.0, -17.0, 0.5), of_b],
        [own, of_b],
        [own, (-15.0, -17.0, 0.5), of_b],
    ]


def test_of_weeks_back_to_back_one_runs_at_the_boundary():
    weeks = promotions_of([(0, "m", 14, 7, 20, 0.5), (0, "m", 7, 0, 20, 0.5)], 1)
    reach = weeks.reach_at()(np.zeros(5, int), np.array([14.5, 14.0, 7.0, 0.5, 0.0]))
    assert reach.tolist() == [0.0, 0.5, 0.5, 0.5, 0.0]


def test_a_promotion_that_began_long_ago_runs_for_its_item_only():
    endless = promotions_of([(1, "m", 3e5, -np.inf, 20, 1.0), (2, "m", 4e5, 3e5, 20, 1.0)], 3)  # 800 and 1,100 years
    assert endless.reach_at()(np.arange(3), np.full(3, 5.0)).tolist() == [0.0, 1.0, 0.0]


def test_a_training_set_is_rewound_with_its_promotions(shop):
    orders = "\n".join(f"o{day},u{day % 3},{'ab'[day % 2]},2024-03-{day:02},1,2" for day in range(1, 31))
    shop.ingest(
        f"order,cust,sku,date,qty,paid\n{orders}\n",
        "{order_id: order, source_user_id: cust, item_id: sku, ts: date, quantity: qty, amount: paid}",
    )
    builder = Builder(Lake(shop.workspace), FEATURES)
    train = training_set(builder, AS_OF, min_item_customers=1, with_features=False)
    assert train.item_ids.tolist() == ["a", "b"]
    # without the table of items, the category of no item is known
    assert described(train.promotions) == described(read(shop).where(np.array([0, 2])))
    past = train.with_earlier_cutoff(3)
    assert described(past.promotions) == [(0, "mailer", 9.0, 2.0, 28.0, 0.5)]
    early = training_set(builder, past.as_of, min_item_customers=1, with_features=False)
    assert described(early.promotions) == described(past.promotions)
