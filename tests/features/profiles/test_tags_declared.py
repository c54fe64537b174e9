"""Declarations of tags: mistakes all at once, tags from data, statistics one customer alone gets right, models' tags, the facts of a value."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.compute.builder import Builder
from features.definitions import FEATURES
from features.profiles.building import build_snapshot, ensure_snapshot
from features.profiles.purchase_process.process import PurchaseProcess
from features.profiles.snapshot import Snapshot, load_current
from features.profiles.tags import INPUTS, TAGS, published
from features.profiles.tags.declare import Tag, check, fit_tags, tag_values
from features.profiles.tags.rule_tags import tag_from_rule
from features.profiles.tags.tagging import make_tags
from qianmian.errors import ArtifactError, ConfigError, DataError
from qianmian.model_settings import LifecycleSettings
from qianmian.settings import Settings

BEGIN = datetime(2024, 1, 1)


def tag(**changed):
    return Tag(
        **{
            "name": "vip",
            "category": "interest",
            "description": "d",
            "required_features": ("orders_total",),
            "rule": lambda c, _: c["orders_total"],
            **changed,
        }
    )


def line(user, day, **more):
    return {
        "source": "s",
        "source_user_id": user,
        "order_id": f"{user}-{day}",
        "line_no": 1,
        "ts": BEGIN + timedelta(days=day),
        "item_id": "i",
        "quantity": 1.0,
        "amount": 2.0,
        "status": "paid",
        **more,
    }


# ---- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": ""}, "(no name): name is required"),
        ({"category": "value"}, "unknown category 'value'; allowed: basic"),
        ({"kind": "sticky"}, "unknown kind 'sticky'; allowed: static, dynamic"),
        ({"how": "magic"}, "unknown `how` 'magic'; allowed: rule, statistic, model"),
        ({"description": ""}, "description is required"),
        ({"ttl_days": 0}, "ttl_days must be at least 1; got 0"),
        ({"required_features": ("ordrs_total",)}, "unknown feature 'ordrs_total' (did you mean orders_total?)"),
        ({"optional_features": ("qqq",)}, "unknown feature 'qqq'"),
        ({"required_features": ()}, "a rule and features are required"),
        ({"rule": None}, "a rule and features are required"),
        ({"how": "statistic"}, "a statistic requires a fit"),
        ({"fit": lambda c, _: {}}, "other tags must not have one"),
        ({"how": "model"}, "a model tag must not have features"),
    ],
)
def test_a_declaration_that_makes_no_sense_is_refused(changed, said):
    with pytest.raises(ConfigError) as caught:
        check([tag(**changed)], INPUTS)
    assert said in str(caught.value)


def test_all_mistakes_come_at_once():
    with pytest.raises(ConfigError) as caught:
        check(
            [tag(), tag(category="x"), tag(name="b", required_features=("nothing_like_it", "orders_28dd"))],
            INPUTS,
            "the pack",
        )
    assert len(caught.value.problems) == 4
    assert any("vip: is declared twice" in problem for problem in caught.value.problems)
    assert str(caught.value).startswith("the pack: 4 mistake(s)")


def test_a_sources_own_attributes_need_not_be_known_beforehand():
    assert check([tag(required_features=("profile_shoe_size",))], INPUTS)


# ---- tags from data ----------------------------------------------------------------------------------------------------


def test_the_first_rule_that_holds_gives_the_value():
    rules = [
        {"feature": "orders_28d", "operator": ">=", "value": 5},
        {"all": [{"feature": "orders_28d", "operator": ">=", "value": 2}, {"feature": "top_brand", "value": "b"}]},
    ]
    table = pa.table({"orders_28d": [9.0, 3.0, 3.0, 0.0], "top_brand": ["a", "b", "a", "b"]})
    made = tag_from_rule("buys", "behaviour", "how much", rules, ["much", "loyally"], "shop", 7)
    assert tag_values(table, [made]) == {"buys": ["much", "loyally", None, None]}
    assert (made.owner, made.ttl_days, made.values, made.required_features) == (
        "shop",
        7,
        ("much", "loyally"),
        ("orders_28d", "top_brand"),
    )
    assert (
        tag_values(table, [tag_from_rule("buys", "behaviour", "d", rules, ["much", "loyally"], default="little")])[
            "buys"
        ][-1]
        == "little"
    )
    assert tag_values(table.select(["orders_28d"]), [made]) == {}


@pytest.mark.parametrize(
    ("rules", "values", "said"),
    [
        ({"feature": "orders_28", "operator": ">", "value": 1}, (True,), "did you mean orders_28d"),
        ({"feature": "orders_28d", "operator": "~", "value": 1}, (True,), "unknown operator"),
        (
            {"feature": "orders_28d", "operator": ">", "value": "x"},
            (True,),
            "is a number and cannot be compared with 'x'",
        ),
        ({"tag": "price_band", "value": "premium"}, (True,), "must not refer to the tag 'price_band'"),
        ([{"feature": "orders_28d", "value": 1}], ("a", "b"), "1 rules and 2 values"),
        ([], (), "0 rules"),
    ],
)
def test_a_rule_with_a_mistake_is_refused(rules, values, said):
    with pytest.raises(ConfigError) as caught:
        tag_from_rule("odd", "interest", "d", rules, values)
    assert said in str(caught.value)
    assert "the tag 'odd'" in str(caught.value)


# ---- statistics --------------------------------------------------------------------------------------------------------


def test_one_customer_alone_gets_the_value_they_have_among_all():
    statistics = [tag for tag in TAGS.values() if tag.how == "statistic"]
    names = sorted({name for tag in statistics for name in tag.inputs})
    table = pa.table({name: [float((row * (7 + place)) % 41) for row in range(60)] for place, name in enumerate(names)})
    fitted = fit_tags(table, statistics, process=PurchaseProcess(9.0))
    together = tag_values(table, statistics, fitted=fitted)
    assert set(together) == set(fitted) == {tag.name for tag in statistics}
    # as they come back from a file
    stored = json.loads(json.dumps(fitted))
    for row in range(60):
        alone = tag_values(table.slice(row, 1), statistics, fitted=stored)
        assert {name: values[0] for name, values in alone.items()} == {
            name: values[row] for name, values in together.items()
        }


def test_a_snapshot_keeps_what_the_statistics_learnt(lake_of, tmp_path):
    lake = lake_of({"transactions": [line(str(user), user % 20, amount=float(user + 1)) for user in range(30)]})
    snapshot = build_snapshot(Builder(lake, FEATURES), BEGIN + timedelta(days=30), Settings())
    snapshot.save(tmp_path / "kept")
    loaded = Snapshot.load(tmp_path / "kept")
    assert loaded.tag_facts == snapshot.tag_facts
    assert set(loaded.tag_facts) == set(loaded.tags)
    assert len(loaded.tag_facts["value_tier"].fitted["edges"]) == 2
    fitted = {name: facts.fitted for name, facts in loaded.tag_facts.items() if facts.fitted}
    row = loaded.table.slice(7, 1)
    assert tag_values(row, [TAGS["value_tier"]], fitted=fitted)["value_tier"] == [loaded.tags["value_tier"][7]]


# ---- models' tags ------------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path_factory, write_lake):
    return write_lake(
        tmp_path_factory.mktemp("shop") / "workspace",
        {"transactions": [line(user, day) for user in "abc" for day in (1, 5)]},
    )


def give(lake, values, as_of, version="3"):
    return published.publish(
        lake.workspace,
        "churn_risk",
        list(values),
        list(values.values()),
        as_of=as_of,
        model_name="qianmian-churn",
        model_version=version,
    )


def test_what_a_model_publishes_is_a_tag_of_the_next_profiles(shop):
    as_of = BEGIN + timedelta(days=20)
    before = ensure_snapshot(shop.workspace, as_of, Settings())
    assert "churn_risk" not in before.tags
    first, second, third = before.one_ids
    give(shop, {first: "high", third: "low", "somebody else": "low"}, as_of - timedelta(days=2))
    snapshot = ensure_snapshot(shop.workspace, as_of, Settings())  # it is built again because of the new publication
    assert snapshot.tags["churn_risk"] == ["high", None, "low"]
    facts = load_current(shop.workspace).tag_facts["churn_risk"]
    assert (facts.as_of, facts.source, facts.model, facts.how) == (
        as_of - timedelta(days=2),
        "model:qianmian-churn",
        ("qianmian-churn", "3"),
        "model",
    )
    assert ensure_snapshot(shop.workspace, as_of, Settings()).tags == snapshot.tags
    give(shop, {second: "medium"}, as_of, "4")
    assert ensure_snapshot(shop.workspace, as_of, Settings()).tags["churn_risk"] == [None, "medium", None]


def test_what_a_model_knew_later_is_not_there_yet(shop):
    as_of = BEGIN + timedelta(days=20)
    give(shop, {"x": "low"}, as_of + timedelta(seconds=1))
    assert "churn_risk" not in build_snapshot(Builder(shop, FEATURES), as_of, Settings()).tags
    assert "churn_risk" in build_snapshot(Builder(shop, FEATURES), as_of + timedelta(seconds=1), Settings()).tags


def test_a_version_is_published_with_its_own_tags_alone(shop):
    workspace, model = shop.workspace, "qianmian-churn"

    def keep(version, *names):
        tags = {name: (["a", "b"], ["low", "high"]) for name in names}
        published.keep_version(workspace, tags, as_of=BEGIN, model_name=model, model_version=version)

    def versions():
        found = {name: published.read(workspace, name) for name in ("churn_risk", "left_risk")}
        return {name: tag.model_version for name, tag in found.items() if tag is not None}

    give(shop, {"a": "low"}, BEGIN, "1")  # by a version of this project that kept no tags
    published.keep_published(workspace, model, "1")
    assert not published.publish_version(workspace, model, "9")
    assert versions() == {"churn_risk": "1"}
    keep("2", "churn_risk", "left_risk")
    assert versions() == {"churn_risk": "1"}  # what is kept is not published
    assert published.publish_version(workspace, model, "2")
    assert versions() == {"churn_risk": "2", "left_risk": "2"}
    assert published.publish_version(workspace, model, "1")
    assert versions() == {"churn_risk": "1"}
    keep("3")
    published.publish_version(workspace, model, "3")
    assert versions() == {}
    published.forget_versions(workspace, model, ["2"])
    assert not published.publish_version(workspace, model, "1")
    assert published.publish_version(workspace, model, "2")
    published.tag_path(workspace, "churn_risk").write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match="published values"):
        published.published_files(workspace, model)


def test_publications_that_make_no_sense_are_refused(shop):
    with pytest.raises(DataError, match="exactly one value per customer"):
        published.publish(
            shop.workspace, "churn_risk", ["a", "a"], ["low", "high"], as_of=BEGIN, model_name="m", model_version="1"
        )
    assert published.read(shop.workspace, "churn_risk") is None
    path = give(shop, {"a": "low"}, BEGIN)
    assert pq.read_table(path).column_names == list(published.COLUMNS)
    path.write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match="published values"):
        published.read(shop.workspace, "churn_risk")
    table = pa.table(
        {
            "one_id": ["a", "b"],
            "value": ["low", "low"],
            "as_of": [BEGIN, BEGIN],
            "model_name": ["m", "m"],
            "model_version": ["1", "2"],
        }
    )
    pq.write_table(table, path)
    with pytest.raises(ArtifactError, match="2 model versions"):
        published.read(shop.workspace, "churn_risk")


# ---- the facts of a value ------------------------------------------------------------------------------------------------


def test_every_value_says_as_of_stale_and_source(shop):
    as_of = BEGIN + timedelta(days=20)
    snapshot = ensure_snapshot(shop.workspace, as_of, Settings())
    give(shop, {snapshot.one_ids[0]: "high"}, as_of - timedelta(days=3))
    snapshot = ensure_snapshot(shop.workspace, as_of, Settings())
    said = snapshot.facts_of(0, as_of + timedelta(days=33))
    assert said["lifecycle"]["churn_risk"] == {
        "value": "high",
        "as_of": as_of - timedelta(days=3),
        "stale": True,
        "source": "model:qianmian-churn",
        "checked": None,
    }
    assert said["lifecycle"]["buyer_stage"] == {
        "value": "repeat",
        "as_of": as_of,
        "stale": False,
        "source": "orders",
        "checked": None,
    }
    # a time to live ends after its last moment
    assert not snapshot.facts_of(0, as_of + timedelta(days=35))["lifecycle"]["buyer_stage"]["stale"]
    assert snapshot.facts_of(0, as_of + timedelta(days=35, seconds=1))["lifecycle"]["buyer_stage"]["stale"]
    # unknown is said, absent is absent
    assert snapshot.facts_of(1, as_of)["lifecycle"]["churn_risk"]["value"] is None
    assert all("gender" not in entries for entries in said.values())
    assert sum(len(entries) for entries in said.values()) == len(snapshot.tags)


# ---- why sleepers fell asleep ----------------------------------------------------------------------------------------------


def test_only_what_came_before_the_sleep_is_its_reason(lake_of):
    """Orders every ten days up to day 20, so the silence is unusual from day 40 on; it is day 90."""
    users = ("nothing", "too late", "ignored", "opened", "away", "undelivered", "awake")
    lines = [line(user, day) for user in users for day in (0, 10, 20)] + [
        line("awake", day) for day in (60, 70, 78, 85)
    ]
    lines += [line(f"regular {n}", day) for n in range(40) for day in range(n % 10, 90, 10)]
    touches = [
        ("too late", 41, True, True),
        ("ignored", 25, True, False),
        ("ignored", 39, True, False),
        ("opened", 30, True, True),
        ("away", 30, True, False),
        ("undelivered", 30, False, None),
        ("awake", 30, True, False),
        ("nothing", 19, True, True),
    ]
    events = [
        ("ignored", 28, "view"),
        ("opened", 28, "view"),
        ("away", 60, "view"),
        ("away", 30, "message_open"),
        ("too late", 60, "view"),
    ]
    lake = lake_of(
        {
            "transactions": lines,
            "touches": [
                {
                    "source": "s",
                    "source_user_id": user,
                    "touch_id": f"{user}{day}",
                    "campaign_id": "c",
                    "ts": BEGIN + timedelta(days=day),
                    "delivered": arrived,
                    "opened": opened,
                }
                for user, day, arrived, opened in touches
            ],
            "events": [
                {
                    "source": "s",
                    "source_user_id": user,
                    "event_id": f"{user}{day}{kind}",
                    "event_type": kind,
                    "ts": BEGIN + timedelta(days=day),
                }
                for user, day, kind in events
            ],
        }
    )
    builder = Builder(lake, FEATURES)
    built = builder.build(BEGIN + timedelta(days=90))
    names = built.table["user_id"].to_pylist()

    def reasons(settings=None):
        values, _ = make_tags(builder, built, settings or Settings())
        reasons = dict(zip(names, values["falling_asleep_reason"], strict=True))
        return {user: reasons[user] for user in users}

    expected = {
        "nothing": "no_offer",
        "too late": "no_offer",
        "ignored": "irrelevant_pushes",
        "opened": "no_interest",
        "away": "no_interest",
        "undelivered": "no_offer",
        "awake": None,
    }
    assert reasons() == expected
    # a slower rhythm of the shop: the silence is unusual from day 60 on, so the offer of day 41 came before that
    later = Settings(lifecycle=LifecycleSettings(min_gap_days=40.0, return_days=40.0))
    assert reasons(later) == {**expected, "too late": "no_interest"}


def test_where_opens_are_not_recorded_only_a_missing_offer_is_a_reason(lake_of):
    lines = [line(user, day) for user in ("a", "b") for day in (0, 10, 20)]
    touch = {
        "source": "s",
        "source_user_id": "a",
        "touch_id": "t",
        "campaign_id": "c",
        "ts": BEGIN + timedelta(days=30),
    }
    builder = Builder(lake_of({"transactions": lines, "touches": [touch]}), FEATURES)
    built = builder.build(BEGIN + timedelta(days=90))
    values, facts = make_tags(builder, built, Settings())
    assert dict(zip(built.table["user_id"].to_pylist(), values["falling_asleep_reason"], strict=True)) == {
        "a": None,
        "b": "no_offer",
    }
    assert facts["falling_asleep_reason"].source == "orders+touches"


def test_no_contacts_recorded_means_no_reason_known(lake_of):
    builder = Builder(lake_of({"transactions": [line("a", day) for day in (0, 10, 20)]}), FEATURES)
    values, _ = make_tags(builder, builder.build(BEGIN + timedelta(days=90)), Settings())
    assert "falling_asleep_reason" not in values
    assert values["lifecycle_stage"] == ["lost"]
