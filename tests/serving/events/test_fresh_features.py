"""Fresh features: their moment, what they read, and when there are none."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from features.compute.online.build import build_state
from features.event_log.rows import EventRow, make_row
from features.profiles.snapshot import ONLINE_STATE_FOLDER
from qianmian.settings import Settings
from serving.events.fresh_features import FreshFeatures

AS_OF = datetime(2024, 7, 18)
SECONDS = 60
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def fresh(published) -> FreshFeatures:
    made = FreshFeatures(published, Settings())
    assert made.names == ()
    assert made.of(published.one_ids[0], [], AS_OF) is None, "the state is loaded when it is first wanted"
    assert made.wait(SECONDS)
    return made


def bought(number: int, ts: datetime, **values: object) -> EventRow:
    row = {"event_type": "purchase", "source": "shop", "source_user_id": "u", "item_id": "i000001", "amount": 5.0}
    return make_row(f"e{number}", {**row, "order_id": f"new{number}", "ts": ts, **values})


def test_the_moment_is_now_while_the_profiles_are_up_to_date(fresh, published):
    one_id, now = published.one_ids[0], AS_OF + 7 * DAY
    rows = [bought(1, AS_OF - DAY), bought(2, AS_OF + DAY), bought(3, now)]
    found = fresh.of(one_id, rows, now)
    assert (found.as_of, found.recent_events) == (now, 1), "rows before the build and from now on are not recent"
    assert found.values["days_since_last_order"] == 6.0
    assert fresh.of(one_id, rows[1:2], now).values["orders_28d"] + 1 == found.values["orders_28d"], "a late one counts"
    assert fresh.of(one_id, rows, AS_OF - DAY) is None


@pytest.mark.parametrize("years", [0.03, 9])
def test_later_it_is_just_after_the_last_event(fresh, published, years):
    one_id, now = published.one_ids[0], AS_OF + 365 * years * DAY
    last = AS_OF + timedelta(days=2, microseconds=700_000)
    found = fresh.of(one_id, [bought(2, last), bought(1, AS_OF + DAY), bought(3, now + DAY)], now)
    assert found.as_of == AS_OF + timedelta(days=2, seconds=1)
    assert found.recent_events == 2
    assert found.values["days_since_last_order"] < 0.001
    late = fresh.of(one_id, [bought(1, AS_OF - DAY)], now)
    assert (late.as_of, late.recent_events) == (AS_OF, 0)
    assert late.values["days_since_last_order"] == 1.0
    assert fresh.of(one_id, [bought(1, now - timedelta(microseconds=1))], now).as_of == now


def test_features_of_touches_are_not_fresh(fresh, published):
    views = {feature.name: feature.view for feature in published.spec.features}
    assert "touches_28d" in views
    assert not {name for name in fresh.names if views[name] == "touches"}
    assert not {"touch_open_rate", "touch_click_rate"} & set(fresh.names), "quotients of such features"
    assert {"orders_28d", "gap_variation", "cart_per_view", "refund_rate"} <= set(fresh.names)
    assert fresh.of(published.one_ids[0], [], AS_OF).values.keys() == set(fresh.names)


def test_an_order_line_that_was_cancelled_counts_no_more(fresh, published):
    one_id, now = published.one_ids[0], AS_OF + 2 * DAY
    before = fresh.of(one_id, [], now).values
    assert fresh.of(one_id, [bought(1, AS_OF + DAY)], now).values != before
    assert fresh.of(one_id, [bought(1, AS_OF + DAY), bought(1, AS_OF + DAY, status="cancelled")], now).values == before


def test_rows_of_other_tables_change_nothing(fresh, published):
    one_id, now = published.one_ids[0], AS_OF + 9_000 * DAY
    consent = EventRow("profiles", {"source": "shop", "source_user_id": "u", "ts": now - DAY, "consent_sms": True}, "c")
    assert fresh.of(one_id, [consent], now) == fresh.of(one_id, [], now)


def test_without_a_state_there_are_none(builder, published, tmp_path, caplog):
    build_state(builder, AS_OF + DAY, published.spec.features).save(tmp_path / "other" / ONLINE_STATE_FOLDER)
    (tmp_path / "damaged" / ONLINE_STATE_FOLDER).mkdir(parents=True)
    for folder in (tmp_path / "no", tmp_path / "other", tmp_path / "damaged", None):
        none = FreshFeatures(replace(published, folder=folder), Settings())
        for _ in range(2):
            assert none.of(published.one_ids[0], [], AS_OF) is None
            assert not none.wait(SECONDS)
        assert none.off
    assert caplog.text.count("fresh_profiles=off") == 3
