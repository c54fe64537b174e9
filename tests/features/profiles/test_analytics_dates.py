"""Journeys with events that are only dates: their order within a day is unknown, so they may come before or after."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import product

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from features.compute.builder import Builder
from features.definitions import FEATURES
from features.profiles.analytics import funnel, paths, sessions, summary
from qianmian.errors import DataError
from tests.examples import examples

AS_OF = datetime(2024, 2, 1)


def event(kind, ts, user="u", date_only=False, **more):
    row = {"event_id": f"{user}{ts:%d%H%M}{kind}", "source": "s", "source_user_id": user, "ts": ts}
    return {**row, "event_type": kind, "date_only": date_only, **more}


def redeemed(day, user="u", hour=0, **more):
    """A coupon redemption without a clock time, at the midnight of its source."""
    return event("coupon_redeem", datetime(2024, 1, day, hour), user, date_only=True, **more)


def order(ts, user="u", date_only=False, item="i"):
    return {
        "order_id": f"{user}{ts:%d%H%M}{item}",
        "line_no": 1,
        "source": "s",
        "source_user_id": user,
        "ts": ts,
        "date_only": date_only,
        "item_id": item,
        "quantity": 1.0,
        "amount": 5.0,
        "status": "paid",
    }


def views_of(lake_of, events, orders=(), zone="UTC"):
    return Builder(lake_of({"events": events, "transactions": list(orders)}), FEATURES, timezone=zone).views(AS_OF)


def reached(found):
    return [step.reached for step in found.steps]


REDEEM = ("coupon_redeem", "buy")


# ---- funnels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bought", "counts"),
    [
        (datetime(2024, 1, 10, 0, 0), True),
        (datetime(2024, 1, 10, 23, 59), True),
        (datetime(2024, 1, 12, 8), True),
        (datetime(2024, 1, 9, 23, 59), False),
    ],
)
def test_a_purchase_of_the_same_day_or_later_follows_a_date(lake_of, bought, counts):
    assert reached(funnel(views_of(lake_of, [redeemed(10)], [order(bought)]), REDEEM)) == [1, int(counts)]


@pytest.mark.parametrize(
    ("bought", "counts"),
    [
        (datetime(2024, 1, 10, 4, 59), False),  # the evening of the ninth in New York
        (datetime(2024, 1, 10, 5, 0), True),
        (datetime(2024, 1, 11, 4, 59), True),
    ],
)
@pytest.mark.parametrize("hour", [0, 5])  # midnight in UTC, or in New York
def test_the_day_is_that_of_the_workspace(lake_of, bought, counts, hour):
    views = views_of(lake_of, [redeemed(10, hour=hour)], [order(bought)], "America/New_York")
    assert reached(funnel(views, REDEEM)) == [1, int(counts)]
    assert [path.path for path in paths(views).paths] == [REDEEM if counts else ("coupon_redeem",)]


def test_a_date_may_also_come_after_the_rest_of_its_day(lake_of):
    evening = datetime(2024, 1, 10, 21)
    views = views_of(lake_of, [event("view", evening), redeemed(10)])
    assert reached(funnel(views, ("view", "coupon_redeem"))) == [1, 1]
    assert reached(funnel(views, ("coupon_redeem", "view"))) == [1, 1]
    views = views_of(lake_of, [event("view", evening), redeemed(9)])
    assert reached(funnel(views, ("view", "coupon_redeem"))) == [1, 0]


def test_a_date_between_two_times_does_not_turn_them_round(lake_of):
    """Viewed at three, bought at ten in the morning: no time of the redemption is after the one and before the other."""
    names = ("view", "coupon_redeem", "buy")
    for hour, expected in ((10, [1, 1, 0]), (15, [1, 1, 1]), (16, [1, 1, 1])):
        views = views_of(
            lake_of, [event("view", datetime(2024, 1, 10, 15)), redeemed(10)], [order(datetime(2024, 1, 10, hour))]
        )
        assert reached(funnel(views, names)) == expected


def test_orders_that_are_only_dates_follow_the_views_of_their_day(lake_of):
    views = views_of(
        lake_of,
        [event("view", datetime(2024, 1, 10, 15)), event("cart", datetime(2024, 1, 10, 15, 5))],
        [order(datetime(2024, 1, 10), date_only=True), order(datetime(2024, 1, 9), "v", date_only=True)],
    )
    assert reached(funnel(views)) == [1, 1, 1]
    assert reached(funnel(views, per="session")) == [1, 1, 1]
    assert [path.path for path in paths(views).paths] == [("view", "cart", "buy")]
    assert [row["purchases"] for row in sessions(views).to_pyarrow().to_pylist()] == [1]


def test_everything_is_a_date(lake_of):
    days = [
        event(kind, datetime(2024, 1, day), date_only=True) for kind, day in (("view", 3), ("cart", 3), ("view", 5))
    ]
    views = views_of(lake_of, days, [order(datetime(2024, 1, 4), date_only=True)])
    assert reached(funnel(views)) == [1, 1, 1]
    assert reached(funnel(views, ("cart", "view", "buy"))) == [1, 1, 1]
    assert reached(funnel(views, ("buy", "cart"))) == [1, 0]
    assert reached(funnel(views, per="session")) == [2, 1, 0]


def test_the_maximum_time_counts_from_the_latest_time_a_date_may_have(lake_of):
    rows = [redeemed(10)], [order(datetime(2024, 1, 10, 20)), order(datetime(2024, 1, 12, 1), "v")]
    views = views_of(lake_of, [*rows[0], redeemed(10, "v")], rows[1])
    assert reached(funnel(views, REDEEM, within_days=1 / 24)) == [2, 1]
    assert reached(funnel(views, REDEEM, within_days=2.5)) == [2, 2]


ROW = st.tuples(
    st.sampled_from(["view", "cart", "buy"]), st.integers(10, 11), st.sampled_from([0, 9, 15]), st.booleans()
)


@settings(
    max_examples=examples(5),
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    histories=st.lists(st.lists(ROW, min_size=2, max_size=6), min_size=30, max_size=40),
    within=st.sampled_from([None, 0.4]),
)
def test_a_way_counts_if_there_is_a_time_for_each_of_its_dates(lake_of, histories, within):
    """Every way of every customer, tried: a date takes place between the begin and the end of its day."""
    names = ("view", "cart", "buy")
    events, orders, furthest = [], [], []
    for number, history in enumerate(histories):
        spans = {name: [] for name in names}
        for place, (name, day, hour, date_only) in enumerate(history):
            ts = datetime(2024, 1, day, 0 if date_only else hour)
            spans[name].append((ts, ts + timedelta(days=1, microseconds=-1) if date_only else ts))
            if name == "buy":
                orders.append({**order(ts, f"u{number}", date_only), "order_id": f"o{number}-{place}"})
            else:
                events.append(event(name, ts, f"u{number}", date_only, event_id=f"e{number}-{place}"))
        furthest.append(
            max(
                length
                for length in range(4)
                if length == 0
                or any(feasible(way, within) for way in product(*(spans[name] for name in names[:length])))
            )
        )
    expected = [sum(length >= k for length in furthest) for k in (1, 2, 3)]
    if events:
        assert reached(funnel(views_of(lake_of, events, orders), names, within_days=within)) == expected


def feasible(way, within):
    """Whether there are moments in order, one in each span, with the first as late as the others allow."""
    latest = [end for _, end in way]
    for k in range(len(way) - 2, -1, -1):
        latest[k] = min(latest[k], latest[k + 1])
    if any(begin > end for (begin, _), end in zip(way, latest, strict=True)):
        return False
    moment = latest[0]
    for begin, _ in way[1:]:
        moment = max(moment, begin)
    return within is None or moment - latest[0] <= timedelta(days=within)


def test_hours_are_those_between_clock_times(lake_of):
    events = [
        redeemed(10),
        event("coupon_redeem", datetime(2024, 1, 10, 8), "v"),
    ]
    orders = [order(datetime(2024, 1, 10, 20)), order(datetime(2024, 1, 10, 10), "v")]
    found = funnel(views_of(lake_of, events, orders), REDEEM)
    assert (reached(found), found.steps[1].hours_median) == ([2, 2], 2.0)
    assert funnel(views_of(lake_of, events[:1], orders), REDEEM).steps[1].hours_median is None


def test_per_item_the_day_counts_too(lake_of):
    events = [redeemed(10, item_id="a"), redeemed(10, item_id="b")]
    views = views_of(
        lake_of, events, [order(datetime(2024, 1, 10, 12), item="b"), order(datetime(2024, 1, 9, 12), item="a")]
    )
    assert reached(funnel(views, REDEEM, per="item")) == [2, 1]


# ---- visits and paths ------------------------------------------------------------------------------------------------


def test_the_dates_of_a_day_are_one_visit_that_its_purchases_end(lake_of):
    events = [redeemed(10), redeemed(10, campaign_id="m", event_id="again"), redeemed(12), redeemed(10, "v")]
    orders = [
        order(datetime(2024, 1, 10, 0, 0)),
        order(datetime(2024, 1, 10, 22)),
        order(datetime(2024, 1, 11, 1), "v"),
    ]
    views = views_of(lake_of, events, orders)
    found = paths(views)
    assert {(path.path, path.sessions, path.conversion.value) for path in found.paths} == {
        (REDEEM, 1, 1.0),
        (("coupon_redeem",), 2, 0.0),
    }
    assert reached(funnel(views, REDEEM, per="session")) == [3, 1]
    assert reached(funnel(views, REDEEM, within_session=True)) == [2, 1]


def test_a_purchase_in_a_session_stays_in_it(lake_of):
    noon = datetime(2024, 1, 10, 12)
    views = views_of(lake_of, [redeemed(10), event("view", noon)], [order(noon)])
    assert {path.path for path in paths(views).paths} == {("coupon_redeem",), ("view", "buy")}


def test_dates_make_no_sessions(lake_of):
    """Neither do they lengthen one, nor are they visits of one event."""
    times = [event("view", datetime(2024, 1, 10, 0, 10)), event("view", datetime(2024, 1, 10, 0, 35))]
    made = sessions(views_of(lake_of, [redeemed(10), *times, redeemed(11)])).to_pyarrow().to_pylist()
    assert [(row["events"], row["duration_seconds"]) for row in made] == [(2, 1500.0)]
    with pytest.raises(DataError, match="dates without a clock time") as caught:
        summary(views_of(lake_of, [redeemed(10)]))
    assert "analytics paths" in caught.value.hint


def test_a_session_that_the_source_names_has_no_duration_without_times(lake_of):
    events = [redeemed(10, session_id="x"), redeemed(10, event_id="2", session_id="x")]
    views = views_of(lake_of, events, [order(datetime(2024, 1, 10), date_only=True)])
    (row,) = sessions(views).to_pyarrow().to_pylist()
    assert (row["events"], row["duration_seconds"], row["purchases"]) == (2, None, 1)
    assert summary(views)[0].duration_seconds_median is None
    assert [path.path for path in paths(views).paths] == [REDEEM]
