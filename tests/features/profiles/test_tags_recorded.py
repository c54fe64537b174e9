"""What a source never records is absent, not "no"."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from features.compute.builder import Builder
from features.definitions import FEATURES
from features.definitions.building import make_builder
from features.profiles.building import build_snapshot
from features.profiles.governance.catalogue import catalogue
from features.profiles.snapshot import Snapshot
from features.profiles.tags import TAGS
from features.profiles.tags.behaviour import VISIT_EVENTS
from qianmian.schema import EVENT_TYPES
from qianmian.settings import Settings

BEGIN = datetime(2024, 1, 1, 9)
AS_OF = BEGIN + timedelta(days=30)


def line(user, day, **more):
    return {
        **{"source": "s", "source_user_id": user, "order_id": f"{user}{day}", "line_no": 1, "item_id": "i"},
        **{"ts": BEGIN + timedelta(days=day), "quantity": 1.0, "amount": 10.0, "discount": 0.0},
        **{"coupon_discount": 0.0, "status": "paid"},
        **more,
    }


def event(kind, day=5, **more):
    ts = BEGIN + timedelta(days=day)
    return {"source": "s", "source_user_id": "a", "event_id": f"{kind}{day}", "event_type": kind, "ts": ts, **more}


def touch(**more):
    ts = BEGIN + timedelta(days=3)
    about = {"touch_id": "t", "campaign_id": "c", "source_user_id": "a", "source": "s", "ts": ts}
    return {**about, "delivered": True, "opened": False, **more}


LINES = [line(user, day) for user in "abc" for day in (1, 9, 17)]
VIEWS, CART = [event("view")], event("cart")


def tags_of(lake_of, as_of=AS_OF, **tables):
    return build_snapshot(Builder(lake_of(tables), FEATURES), as_of, Settings())


@pytest.mark.parametrize(
    ("name", "without", "with_"),
    [
        ("refund_prone", {}, {"transactions": [*LINES, line("a", 20, status="refunded")]}),
        ("abandoned_cart", {"events": VIEWS}, {"events": [*VIEWS, CART]}),
        ("funnel_stop", {"events": VIEWS}, {"events": [*VIEWS, CART]}),
        ("funnel_stop", {"events": [CART]}, {"events": [*VIEWS, CART]}),
        ("coupon_redeemer", {"events": VIEWS}, {"events": [event("coupon_redeem")]}),
        ("discount_seeker", {}, {"transactions": [*LINES, line("a", 20, discount=1.0)]}),
        ("coupon_user", {}, {"transactions": [*LINES, line("a", 20, coupon_discount=1.0)]}),
        ("browsing", {"events": [event("coupon_redeem")]}, {"events": VIEWS}),
        ("visit_frequency", {"events": [event("purchase")]}, {"events": [event("login")]}),
        ("engagement_trend", {"events": [event("coupon_redeem")]}, {"events": [event("message_open")]}),
        ("content_reader", {"events": VIEWS}, {"events": [event("view", content_id="story")]}),
        ("message_response", {"touches": [touch()]}, {"touches": [touch(opened=True)]}),
    ],
)
def test_a_tag_is_absent_until_a_row_of_its_kind_is_recorded(lake_of, name, without, with_):
    missing = tags_of(lake_of, **{"transactions": LINES, **without})
    assert name not in missing.tags
    assert name in tags_of(lake_of, **{"transactions": LINES, **with_}).tags


def test_a_row_recorded_after_the_cutoff_does_not_count(lake_of):
    events = [event("view", 1), event("cart", 10)]
    early = tags_of(lake_of, BEGIN + timedelta(days=5), transactions=LINES, events=events)
    assert "abandoned_cart" not in early.tags
    assert early.unrecorded["abandoned_cart"] == ("no cart events",)
    assert "abandoned_cart" in tags_of(lake_of, transactions=LINES, events=events).tags


def test_a_funnel_without_purchases_of_any_kind_is_absent(lake_of):
    events = [*VIEWS, CART]
    assert tags_of(lake_of, events=events).unrecorded["funnel_stop"] == ("no purchase events and no orders",)
    bought = tags_of(lake_of, events=[*events, event("purchase")])
    assert bought.tags["funnel_stop"] == ["buys"]


def test_a_fact_about_the_customers_is_no_missing_kind_of_row(lake_of):
    """Nobody ever ordered at night or on a weekend, which is known and therefore said."""
    weekday_mornings = [line(user, day) for user in "abc" for day in (0, 1, 2)]
    snapshot = tags_of(lake_of, transactions=weekday_mornings)
    assert set(snapshot.tags["weekend_shopper"]) == {False}
    assert set(snapshot.tags["active_hours"]) == {"morning"}


def test_the_features_stay_and_the_catalogue_says_why_the_tag_is_absent(lake_of, tmp_path):
    snapshot = tags_of(lake_of, transactions=LINES, events=VIEWS)
    assert "cart_events_91d" in snapshot.table.column_names
    snapshot.save(tmp_path / "snapshot")
    entries = {entry.name: entry for entry in catalogue(list(TAGS.values()), Snapshot.load(tmp_path / "snapshot"))}
    assert entries["abandoned_cart"].lacks == ("no cart events",)
    assert entries["refund_prone"].lacks == ("no refunds",)
    assert entries["browsing"].lacks == ()


def test_event_types_that_tags_require_exist():
    named = {name for tag in TAGS.values() for group in tag.requires_recorded for name in group}
    assert named - {"order"} <= set(EVENT_TYPES)
    assert set(VISIT_EVENTS) <= named


def test_a_tag_by_rules_needs_one_of_the_kinds_it_counts(lake_of):
    """A clinic that records leads and no consultations: the stages it can tell stay, advice nobody records does not."""

    def present(pack, *events):
        settings = Settings(pack=pack)
        lake = lake_of({"transactions": LINES, "events": list(events)})
        return build_snapshot(make_builder(lake, settings), AS_OF, settings).tags

    assert "decision_stage" in present("medical_aesthetics", event("lead"))
    assert "decision_stage" not in present("medical_aesthetics", event("search"))
    assert "advice_seeker" in present("beauty", event("service"))
    assert "advice_seeker" not in present("beauty", event("view"))
