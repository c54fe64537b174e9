"""Journeys whose answer can be read off the rows."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from scipy.stats import binomtest

from features.compute.builder import Builder
from features.definitions import FEATURES
from features.profiles.analytics import Rate, funnel, paths, rate, sessions, summary, tag_column
from features.profiles.analytics.rates import rate_of
from qianmian.errors import DataError, UsageError

BEGIN = datetime(2024, 1, 1, 9)


def event(minute, kind, user="u", **more):
    at = BEGIN + timedelta(minutes=minute)
    return {
        "event_id": f"{user}{minute:06}{kind}",
        "source": "s",
        "source_user_id": user,
        "ts": at,
        "event_type": kind,
        **more,
    }


def order(minute, number, user="u", item="i"):
    return {
        "order_id": number,
        "line_no": 1,
        "source": "s",
        "source_user_id": user,
        "ts": BEGIN + timedelta(minutes=minute),
        "item_id": item,
        "quantity": 1.0,
        "amount": 5.0,
        "status": "paid",
    }


def views_of(lake_of, events, orders=(), minute=10_000):
    return Builder(lake_of({"events": events, "transactions": list(orders)}), FEATURES).views(
        BEGIN + timedelta(minutes=minute)
    )


def reached(found):
    return [step.reached for step in found.steps]


# ---- funnels ---------------------------------------------------------------------------------------------------------


def test_steps_of_one_instant_are_in_order_whatever_their_ids(lake_of):
    rows = [
        event(0, kind, user, event_id=f"{number}{user}")
        for user in "abc"
        for number, kind in enumerate(["cart", "view"])
    ]
    assert reached(funnel(views_of(lake_of, rows), ("view", "cart"))) == [3, 3]


def test_a_step_before_the_one_it_follows_does_not_count(lake_of):
    assert reached(funnel(views_of(lake_of, [event(1, "view"), event(0, "cart")], [order(2, "o")]))) == [1, 0, 0]


def test_the_way_that_gets_furthest_counts_whichever_view_it_begins_with(lake_of):
    rows = [event(0, "view"), event(60 * 24 * 5, "view"), event(60 * 24 * 5 + 60, "cart")]
    found = funnel(views_of(lake_of, rows, [order(60 * 24 * 5 + 120, "o")]), within_days=1.0)
    assert reached(found) == [1, 1, 1]
    assert [step.hours_median for step in found.steps] == [None, 1.0, 1.0]
    assert reached(funnel(views_of(lake_of, rows, [order(60 * 24 * 5 + 120, "o")]), within_days=1 / 24)) == [1, 1, 0]


def test_per_item_the_item_itself_goes_through_all_steps(lake_of):
    rows = [
        event(0, "view", item_id="a"),
        event(1, "view", item_id="b"),
        event(2, "cart", item_id="b"),
        event(3, "view", item_id="c"),
    ]
    views = views_of(lake_of, rows, [order(5, "o", item="c"), order(6, "p", item="b")])
    assert reached(funnel(views, per="item")) == [3, 1, 1]
    assert reached(funnel(views, ("view", "buy"), per="item")) == [3, 2]


def test_within_a_session_a_purchase_the_next_day_is_none(lake_of):
    rows = [event(0, "view"), event(1, "cart"), event(1500, "view")]
    views = views_of(lake_of, rows, [order(1510, "o")])
    assert reached(funnel(views)) == [1, 1, 1]
    assert reached(funnel(views, within_session=True)) == [1, 1, 0]
    assert reached(funnel(views, per="session")) == [2, 1, 0]


def test_a_purchase_event_is_a_purchase_too(lake_of):
    assert reached(funnel(views_of(lake_of, [event(0, "view"), event(1, "purchase")]), ("view", "purchase"))) == [1, 1]


def test_drop_off_by_tag_is_an_index_of_everybodys(lake_of):
    rows = [event(0, "view", f"u{n:02}") for n in range(40)] + [event(1, "cart", f"u{n:02}") for n in range(20)]
    views = views_of(lake_of, rows)
    people = {row["source_user_id"]: row["one_id"] for row in views.customers.to_pyarrow().to_pylist()}
    known = sorted(people)[:30]
    tags = tag_column("keen", [people[user] for user in known], {"keen": [user < "u10" for user in known]})
    found = funnel(views, ("view", "cart"), tags=tags)
    assert {group.tag: (group.reached, group.drop_off_index[0].value) for group in found.groups} == {
        "yes": ((10, 10), 0.0),
        "no": ((20, 10), 100.0),
        "(none)": ((10, 0), 200.0),
    }
    yes = next(group for group in found.groups if group.tag == "yes")
    low, high = binomtest(0, 10).proportion_ci(method="wilson")
    assert (yes.drop_off_index[0].low, yes.drop_off_index[0].high) == pytest.approx((200 * low, 200 * high), abs=1e-4)
    table = found.as_table()
    assert table.num_rows == 8
    assert table["tag"].to_pylist()[:3] == [None, None, "no"]


def test_the_window_forgets_earlier_steps(lake_of):
    views = views_of(lake_of, [event(0, "view"), event(1440, "cart"), event(1450, "view")], minute=1500)
    assert reached(funnel(views, ("view", "cart"))) == [1, 1]
    assert reached(funnel(views, ("view", "cart"), window_days=1)) == [1, 0]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"step_names": ("view", "wishlist")}, "wishlist"),
        ({"step_names": ("view",)}, "two or more distinct steps"),
        ({"step_names": ("view", "buy", "purchase")}, "two or more distinct steps"),
        ({"per": "household"}, "customer, session, item"),
        ({"within_days": 0}, "more than 0"),
    ],
)
def test_what_makes_no_funnel_is_refused(lake_of, asked, said):
    with pytest.raises(UsageError, match=said):
        funnel(views_of(lake_of, [event(0, "view")]), **asked)


def test_without_events_there_is_no_journey(lake_of):
    views = Builder(lake_of({"transactions": [order(0, "o")]}), FEATURES).views(BEGIN + timedelta(days=1))
    for ask in (funnel, paths, summary):
        with pytest.raises(DataError, match="no behaviour event"):
            ask(views)


# ---- visits and paths ------------------------------------------------------------------------------------------------


def test_half_an_hour_ends_a_visit_and_one_second_less_does_not(lake_of):
    rows = [event(0, "view"), event(30, "view"), event(61, "view")]
    made = sessions(views_of(lake_of, rows)).order_by("start").to_pyarrow().to_pylist()
    assert [(row["events"], row["duration_seconds"], row["bounce"]) for row in made] == [
        (2, 1800.0, False),
        (1, 0.0, True),
    ]


def test_a_purchase_belongs_to_the_visit_before_it_or_to_none(lake_of):
    rows = [event(0, "view"), event(10, "cart"), event(11, "purchase")]
    made = (
        sessions(views_of(lake_of, rows, [order(12, "o"), order(13, "p"), order(700, "in a store")]))
        .to_pyarrow()
        .to_pylist()
    )
    assert [(row["purchases"], row["duration_seconds"], row["exit_step"]) for row in made] == [(2, 780.0, "buy")]


def test_a_window_takes_the_visits_that_began_in_it(lake_of):
    views = views_of(lake_of, [event(0, "view"), event(20, "view"), event(100, "view")], minute=24 * 60 + 10)
    assert sessions(views, 1).to_pyarrow()["events"].to_pylist() == [1]


def test_paths_and_where_they_end(lake_of):
    rows = [
        event(minute, kind, user) for user in "ab" for minute, kind in enumerate(["search", "view", "view", "cart"])
    ]
    found = paths(views_of(lake_of, [*rows, event(0, "search", "c")]), depth=2)
    assert [(path.path, path.longer, path.sessions) for path in found.paths] == [
        (("search", "view"), True, 2),
        (("search",), False, 1),
    ]
    assert {(way.state, way.next): way.share for way in found.transitions}["search", "(exit)"] == pytest.approx(1 / 3)
    assert {end.state: (end.entry_share, end.exit_share) for end in found.ends}["cart"] == (0.0, pytest.approx(2 / 3))


def test_rare_states_are_one(lake_of):
    rows = [event(minute, "view", page=page) for minute, page in enumerate(["home", "a", "home", "b", "home"])]
    found = paths(views_of(lake_of, rows), "page", top=1)
    assert {(way.state, way.next): way.count for way in found.transitions} == {
        ("home", "(other)"): 2,
        ("home", "(exit)"): 1,
        ("(other)", "home"): 2,
    }


@pytest.mark.parametrize("asked", [{"state": "weather"}, {"depth": 0}, {"top": 0}])
def test_what_makes_no_path_is_refused(lake_of, asked):
    with pytest.raises(UsageError):
        paths(views_of(lake_of, [event(0, "view")]), **asked)


# ---- shares ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("successes", "trials"), [(0, 5), (3, 10), (10, 10), (123, 4567)])
def test_intervals_are_wilsons(successes, trials):
    low, high = binomtest(successes, trials).proportion_ci(method="wilson")
    assert (rate(successes, trials).low, rate(successes, trials).high) == pytest.approx((low, high), abs=1e-6)


def test_visits_of_one_customer_are_worth_less_than_visits_of_many(lake_of):
    """Ten customers with ten equal visits each tell as much as ten visits."""
    bunched = {"x_y": 50, "x_n": 100, "x_yy": 500, "x_yn": 500, "x_nn": 1000, "x_m": 10}
    assert rate_of("x", bunched) == Rate(0.5, rate(5, 10).low, rate(5, 10).high, 100)
    single = {"x_y": 50, "x_n": 100, "x_yy": 50, "x_yn": 50, "x_nn": 100, "x_m": 100}
    assert rate_of("x", single).low == pytest.approx(rate(50, 100).low)


def test_numbers_are_cut_at_their_quartiles():
    values = [float(n) for n in range(40)] + [None]
    found = tag_column("amount", [str(n) for n in range(41)], {"amount": values})["tag"].to_pylist()
    assert {band: found.count(band) for band in dict.fromkeys(found)} == {
        "1: < 9.75": 10,
        "2: 9.75 to < 19.5": 10,
        "3: 19.5 to < 29.25": 10,
        "4: ≥ 29.25": 10,
        "(none)": 1,
    }


def test_an_unknown_tag_is_refused():
    with pytest.raises(UsageError, match="do not have this tag"):
        tag_column("mood", ["a"], {"member": [True]})
