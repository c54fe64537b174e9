"""What is wrong with tags, each on a made-up case; and what the catalogue says."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from features.compute.builder import Builder
from features.definitions import FEATURES
from features.profiles.building import build_snapshot
from features.profiles.governance.audit import AUDIT_RULES, audit, normalised_information
from features.profiles.governance.catalogue import catalogue
from features.profiles.governance.encoding import MAX_VALUES, OTHER, UNKNOWN, encode, encode_tags
from features.profiles.governance.usage import tag_usage
from features.profiles.tags import INPUTS, TAGS
from features.profiles.tags.declare import Tag
from features.profiles.tags.facts import TagFacts
from qianmian.errors import ConfigError
from qianmian.settings import Settings
from qianmian.workspace import Workspace

NOW = datetime(2024, 3, 1)
GOOD = [True, False, True, False, None, None]


def tag(name="fine", **changed):
    return Tag(
        **{
            "name": name,
            "category": "interest",
            "description": "made up",
            "required_features": ("orders_total",),
            "rule": lambda c, _: c["orders_total"],
            **changed,
        }
    )


def facts(as_of=NOW, ttl_days=35, **more):
    return TagFacts("interest", "dynamic", "rule", "made up", "profile", ttl_days, as_of, "orders", **more)


def found(values=None, tags=None, **more):
    values = {"fine": GOOD} if values is None else values
    tags = [tag(name) for name in values] if tags is None else tags
    return audit(tags, values, more.pop("facts", {name: facts() for name in values}), more.pop("now", NOW), **more)


def test_nothing_is_wrong_with_what_is_sound():
    assert found() == []
    assert (
        found({"left": ["a", "a", "b", "b"], "right": ["a", "b", "a", "b"]}, usage={"left": ["x"], "right": ["x"]})
        == []
    )
    assert found({}) == []


@pytest.mark.parametrize(
    ("values", "rule", "tags", "said"),
    [
        (
            {"one": GOOD, "two": list(GOOD), "three": list(GOOD)},
            "duplicate",
            ("one", "two", "three"),
            "same value for every customer",
        ),
        (
            {"yes": [True, False] * 4, "word": ["ja", "nein"] * 4},
            "nearly_equal",
            ("yes", "word"),
            "1.000, the same value for 0% of the 8 customers",
        ),
        (
            {"yes": [True, False] * 4, "number": [1.0, 0.0] * 4},
            "nearly_equal",
            ("yes", "number"),
            "1.000, the same value for 100%",
        ),
        ({"nothing": [None] * 4}, "empty", ("nothing",), "unknown for all 4"),
        ({"always": [False] * 4}, "constant", ("always",), "false for all 4 customers with a known value"),
        ({"always": [None, "buys", "buys"]}, "constant", ("always",), "buys for all 2 customers with a known value"),
        ({"rare": [False] * 96 + [True] * 4 + [None] * 9}, "dominant", ("rare",), "false for 96.0% of 100 customers"),
        ({"always": ["a"] * 4}, "constant", ("always",), "a for all 4"),
    ],
)
def test_values_that_tell_too_little(values, rule, tags, said):
    findings = found(values)
    assert [(one.rule, one.tags) for one in findings] == [(rule, tags)]
    assert said in findings[0].what
    assert findings[0].why
    assert findings[0].mend


def test_one_known_customer_makes_no_constant_and_few_make_no_dominant_value():
    assert found({"seldom": [None, None, "x"]}) == []
    assert found({"few": ["a"] * 18 + ["b"]}) == []
    assert found({"even": ["a"] * 95 + ["b"] * 5}) == [], "95 % is not more than 95 %"


def test_customers_who_are_unknown_in_both_do_not_make_tags_alike():
    rng = np.random.default_rng(1)
    left, right = (rng.choice(["a", "b"], 60).tolist() for _ in range(2))
    gap = [None] * 600
    shared = normalised_information(encode_tags({"left": left + gap, "right": right + gap}))[0, 1]
    assert shared == pytest.approx(normalised_information(encode_tags({"left": left, "right": right}))[0, 1])
    assert shared < 0.1
    # two tags that are known for the same few customers, with equal values: nearly equal, and said of those
    names = {"a": "x", "b": "y"}
    findings = found({"left": left + gap, "right": [names[value] for value in left] + gap})
    assert [one.rule for one in findings] == ["nearly_equal"]
    assert "of the 60 customers for whom one is known" in findings[0].what
    # unknown in only one of them tells the two apart
    assert found({"left": left + left, "right": left + [None] * 60}) == []
    # a tag that is known where another one has its usual value says nothing of that value
    usual = ["buys"] * 100 + ["looks"] * 9
    assert [one.rule for one in found({"step": usual, "seeker": [False] * 100 + [None] * 9})] == ["constant"]


def test_nearly_equal_begins_where_it_is_said_to():
    rng = np.random.default_rng(0)
    left = rng.choice(["a", "b"], 2000)
    right = np.where(rng.random(2000) < 0.02, np.where(left == "a", "b", "a"), left)
    values = {"left": left.tolist(), "right": right.tolist()}
    shared = float(normalised_information(encode_tags(values))[0, 1])
    assert shared == pytest.approx(1 + 0.02 * np.log2(0.02) + 0.98 * np.log2(0.98), abs=0.03)
    assert [one.rule for one in found(values, threshold=shared - 0.001)] == ["nearly_equal"]
    assert found(values, threshold=shared + 0.001) == []


def test_a_finer_tag_is_not_nearly_equal_to_a_coarser_one():
    fine = [f"city{n}" for n in range(8)] * 4
    assert found({"city": fine, "region": [city in ("city0", "city1") for city in fine]}) == []


def test_never_used():
    values = {"asked_for": GOOD, "left_out": [*GOOD[1:], True]}
    assert found(values, usage=None) == []
    lone = found(values, usage={"asked_for": ["segments/vip.yaml"]})
    assert [(one.rule, one.tags) for one in lone] == [("never_used", ("left_out",))]
    # where no rule is kept at all, that is one finding and not one a tag
    nothing = found(values, usage={})
    assert [(one.rule, one.tags) for one in nothing] == [("never_used", ("asked_for", "left_out"))]
    assert "segments/" in nothing[0].mend


def test_expired_is_one_finding_a_moment_and_starts_after_the_time_to_live():
    values = {"one": GOOD, "two": [*GOOD[1:], True], "by_model": ["low", "high", "low", None, None, "low"]}
    old = NOW - timedelta(days=40)
    about = {
        "one": facts(old, 39),
        "two": facts(old, 40),
        "by_model": TagFacts("lifecycle", "dynamic", "model", "d", "o", 7, old, "model:qianmian-churn"),
    }
    findings = found(values, facts=about)
    assert [(one.rule, one.tags) for one in findings] == [("expired", ("by_model",)), ("expired", ("one",))]
    assert "qianmian train churn" in findings[0].mend
    assert "40 days ago; valid for 39 days" in findings[1].what
    assert {
        one.tags for one in found(values, facts=about, now=NOW + timedelta(seconds=1)) if one.rule == "expired"
    } == {
        ("by_model",),
        ("one", "two"),
    }


def test_ownerless():
    assert [(one.rule, one.tags) for one in found(tags=[tag(owner=" ")])] == [("ownerless", ("fine",))]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": "VIP"}, "not snake_case"),
        ({"name": "is vip"}, "not snake_case"),
        ({"name": "a" * 41}, "longer than 40"),
        ({"name": "tag_vip"}, "the word tag"),
        ({"name": "orders_28d"}, "has the name of a feature"),
        ({"name": "vip", "values": ("Very good", "bad")}, "values that are not snake_case: Very good"),
    ],
)
def test_names_against_the_rules(changed, said):
    findings = found(values={}, tags=[tag(**changed)], features=("orders_28d", "orders_total"))
    assert [(one.rule, one.tags) for one in findings] == [("naming", (changed["name"],))]
    assert said in findings[0].what


def test_our_own_tags_are_named_and_owned():
    assert [
        one for one in audit(list(TAGS.values()), {}, {}, NOW, None, INPUTS) if one.rule in ("naming", "ownerless")
    ] == []


def test_findings_come_in_the_order_of_the_rules_and_as_json():
    findings = found(
        {"b": [None] * 4, "a": [None] * 4, "c": [True] * 4, "d": [True, False] * 2, "e": [True, False] * 2},
        usage={"a": ["x"]},
    )
    assert [AUDIT_RULES.index(one.rule) for one in findings] == sorted(AUDIT_RULES.index(one.rule) for one in findings)
    assert [one.tags for one in findings if one.rule == "empty"] == [("a",), ("b",)]
    assert json.loads(json.dumps([one.as_dict() for one in findings]))[0]["tags"] == ["d", "e"]


# ---- coding ------------------------------------------------------------------------------------------------------------


def test_numbers_are_cut_and_rare_texts_are_one():
    codes, labels = encode([None, *np.arange(80.0).tolist()])
    assert labels[0] == UNKNOWN
    assert np.bincount(codes).tolist() == [1] + [10] * 8
    assert (np.diff(codes[1:]) >= 0).all()
    codes, labels = encode([f"v{n % 50}" for n in range(500)] + ["often"] * 9)
    assert len(labels) == MAX_VALUES
    assert OTHER in labels
    assert "often" not in labels  # ten of each of the others
    assert len(np.unique(codes)) == len(labels)


def test_dates_are_cut_like_numbers():
    days = [f"2024-{month:02}-{day:02}" for month in (1, 2) for day in range(1, 29)]
    codes, labels = encode([None, *days])
    assert labels[:2] == (UNKNOWN, "under 2024-01-08")
    assert (np.diff(codes) >= 0).all()
    assert np.bincount(codes)[1:].tolist() == [7] * 8


def test_one_hot_counts_what_happened():
    encoded = encode_tags({"a": ["x", "y", "x", None], "b": [True, True, False, False]})
    counts = (encoded.one_hot().T @ encoded.one_hot()).todense()
    assert counts.shape == (5, 5)
    assert np.diag(counts).tolist() == [1, 2, 1, 2, 2]
    assert encode_tags({}).one_hot().shape == (0, 0)


# ---- where tags are used -------------------------------------------------------------------------------------------------


def test_uses_are_read_from_the_rules_a_workspace_keeps(tmp_path):
    place = Workspace(tmp_path).create()
    assert tag_usage(place) == {}
    rule = {
        "all": [
            {"tag": "price_band", "operator": "==", "value": "premium"},
            {"not": {"any": [{"tag": "churn_risk", "value": "high"}]}},
        ]
    }
    (tmp_path / "segments").mkdir()
    (tmp_path / "segments" / "vip.json").write_text(json.dumps({"name": "vip", "rule": rule}))
    (tmp_path / "segments" / "more.yaml").write_text(
        "rules:\n  - {tag: price_band, operator: known}\n  - {feature: orders_28d, operator: '>', value: 1}\n"
    )
    assert tag_usage(place) == {
        "price_band": ["segments/more.yaml", "segments/vip.json"],
        "churn_risk": ["segments/vip.json"],
    }
    (tmp_path / "segments" / "broken.json").write_text("{")
    with pytest.raises(ConfigError, match="broken.json"):
        tag_usage(place)


# ---- the catalogue -------------------------------------------------------------------------------------------------------


def test_the_catalogue_says_how_tags_are_filled_and_what_absent_ones_lack(lake_of):
    lines = [
        {
            "source": "s",
            "source_user_id": user,
            "order_id": f"{user}{day}",
            "line_no": 1,
            "ts": datetime(2024, 1, day),
            "item_id": item,
            "quantity": 1.0,
            "amount": 2.0,
            "status": "paid",
        }
        for user, day, item in [("1", 1, "i1"), ("1", 9, "i1"), ("2", 3, "i2"), ("3", 4, "i3")]
    ]
    items = [{"item_id": "i1", "category": "food"}, {"item_id": "i2", "category": "food"}]
    snapshot = build_snapshot(
        Builder(lake_of({"transactions": lines, "items": items}), FEATURES), datetime(2024, 2, 1), Settings()
    )
    entries = {entry.name: entry for entry in catalogue(list(TAGS.values()), snapshot)}
    assert list(entries) == list(TAGS)
    favourite = entries["favourite_category"]
    assert (favourite.coverage, favourite.values, favourite.top_value) == (round(2 / 3, 4), 1, "food")
    assert (favourite.kind, favourite.how, favourite.needs) == ("dynamic", "rule", ("top_category",))
    assert entries["gender"].lacks == ("profile_gender",)
    assert entries["churn_risk"].lacks == ("not published by a model yet",)
    assert entries["falling_asleep_reason"].lacks == ("silence_contacts",)
    assert all((entry.coverage is None) == bool(entry.lacks) for entry in entries.values())
    assert pa.array([json.dumps(entry.as_dict()) for entry in entries.values()]).null_count == 0
