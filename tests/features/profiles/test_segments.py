"""A segment rule: what it may say, and that its three answers agree."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.compute.builder import Builder
from features.compute.online import values
from features.compute.online.build import build_state
from features.definitions import FEATURES
from features.profiles.rules import (
    RuleComparison,
    RuleGroup,
    mask,
    matches,
    parse,
    referenced_names,
    rule_problems,
    text_features,
)
from features.profiles.segments import members
from qianmian.errors import ConfigError
from tests.examples import examples
from tests.features.compute.test_online import shop
from tests.features.plain import BEGIN

ORDERS = {"feature": "orders_28d", "operator": ">=", "value": 2}
BAND = {"tag": "price_band", "operator": "==", "value": "budget"}


@pytest.mark.parametrize(
    ("data", "mistake"),
    [
        ("orders_28d > 2", "a rule must be a mapping"),
        ({}, "exactly one of"),
        ({"all": [ORDERS], "any": [ORDERS]}, "exactly one of all, any, not, feature, tag is required; got all, any"),
        ({"all": []}, "rule: 'all' must be a non-empty list"),
        ({"all": "x"}, "'all' must be a non-empty list"),
        ({"feature": "a", "operator": "~", "value": 1}, "unknown operator '~'"),
        ({"feature": "", "value": 1}, "'feature' must be a name"),
        ({"feature": "a", "operator": "in", "value": "abc"}, "'in' requires a non-empty list"),
        ({"feature": "a", "operator": "in", "value": []}, "'in' requires a non-empty list"),
        ({"feature": "a", "operator": ">", "value": None}, "requires a text, a finite number"),
        ({"feature": "a", "operator": ">", "value": float("nan")}, "requires a text, a finite number"),
        ({"feature": "a", "operator": "known", "value": "yes"}, "'known' requires true or false"),
        ({"feature": "a", "value": 1, "window": 3}, "unknown key window"),
        ({"any": [{"not": {"all": [3]}}]}, "rule.any[0].not.all[0]: a rule must be a mapping"),
    ],
)
def test_a_mistake_is_named_with_its_place(data, mistake):
    with pytest.raises(ConfigError) as caught:
        parse(data)
    assert any(mistake in problem for problem in caught.value.problems), caught.value.problems


def test_all_mistakes_come_together_and_nesting_ends():
    with pytest.raises(ConfigError) as caught:
        parse({"all": [{}, {"feature": "a", "operator": "~"}, ORDERS]})
    assert len(caught.value.problems) == 2
    deep = ORDERS
    for _ in range(30):
        deep = {"not": deep}
    with pytest.raises(ConfigError, match="nested deeper"):
        parse(deep)
    with pytest.raises(ConfigError, match="501 comparisons"):
        parse({"any": [ORDERS] * 501})


def test_what_a_rule_asks_about():
    rule = parse({"any": [ORDERS, {"not": BAND}, ORDERS]})
    assert isinstance(rule, RuleGroup)
    assert referenced_names(rule, "feature") == ("orders_28d",)
    assert referenced_names(rule, "tag") == ("price_band",)
    assert rule_problems(rule, {"orders_28d": False}, ["price_band"]) == []
    assert rule_problems(rule, {}, []) == ["unknown feature 'orders_28d'", "unknown tag 'price_band'"]
    text = parse({"feature": "top_category", "value": 3})
    assert rule_problems(text, {"top_category": True}, []) == [
        "feature 'top_category' is a text and cannot be compared with 3"
    ]


def test_what_is_not_known_passes_nothing_but_known_false():
    for op, value in (("==", "a"), ("!=", "a"), ("<", "b"), ("in", ["a"]), ("known", True)):
        rule = parse({"tag": "t", "operator": op, "value": value})
        assert not matches(rule, {}, {"t": None})
        assert not matches(rule, {}, {})
        assert mask(rule, {}, {"t": [None, ""]}).tolist() == [False, False]
    assert matches(parse({"tag": "t", "operator": "known", "value": False}), {}, {"t": None})
    assert matches(parse({"not": {"tag": "t", "value": "a"}}), {}, {})
    assert not matches(parse({"tag": "t", "operator": ">", "value": 3}), {}, {"t": "text"})


TESTS = st.one_of(
    st.builds(
        lambda n, o, v: RuleComparison("feature", n, o, v),
        st.sampled_from(["orders_total", "lines_28d", "days_since_last_order", "lines_per_item", "amount_28d"]),
        st.sampled_from(["==", "!=", "<", "<=", ">", ">="]),
        st.sampled_from([0.0, 1.0, 3.0, 10.0, 30.0]),
    ),
    st.builds(
        lambda n, o, v: RuleComparison("feature", n, o, v),
        st.sampled_from(["top_category", "top_channel"]),
        st.sampled_from(["==", "!=", "<", ">="]),
        st.sampled_from(["", "food", "web", "app"]),
    ),
    st.builds(
        lambda v: RuleComparison("feature", "orders_total", "in", tuple(v)),
        st.lists(st.sampled_from([0.0, 5.0, 7.0]), min_size=1, max_size=3),
    ),
    st.builds(lambda v: RuleComparison("feature", "top_channel", "known", v), st.booleans()),
)
RULES = st.recursive(
    TESTS,
    lambda inner: st.one_of(
        st.builds(
            lambda combinator, parts: RuleGroup(combinator, tuple(parts)),
            st.sampled_from(["all", "any"]),
            st.lists(inner, min_size=1, max_size=3),
        ),
        st.builds(lambda part: RuleGroup("not", (part,)), inner),
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def asked(lake_of):
    """Everybody's features at one moment: built, and online from a state stored nine days earlier."""
    tables = shop(5)
    now = BEGIN + timedelta(days=44)
    stored_at = now - timedelta(days=9)
    builder = Builder(lake_of(tables), FEATURES)
    state = build_state(builder, stored_at)
    built = builder.build(now, state.plan.features).table
    people = {
        (row["source"], row["source_user_id"]): row["one_id"]
        for row in builder.views(now).customers.to_pyarrow().to_pylist()
    }
    online = {}
    for one_id in built["one_id"].to_pylist():
        since = {
            name: [
                row
                for row in tables[name]
                if row["ts"] >= stored_at and people[row["source"], row["source_user_id"]] == one_id
            ]
            for name in ("transactions", "events", "touches")
        }
        online[one_id] = values(state.customer(one_id), now, since)
    return builder, now, built, online


@settings(
    deadline=None,
    max_examples=examples(25),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(rule=RULES)
def test_the_three_answers_agree(asked, rule):
    builder, now, built, online = asked
    ids = built["one_id"].to_pylist()
    by_engine = members(rule, builder, now)
    columns = {name: np.asarray(built[name].to_pylist()) for name in referenced_names(rule, "feature")}
    assert [one_id for one_id, inside in zip(ids, mask(rule, columns), strict=True) if inside] == by_engine
    assert [one_id for one_id in ids if matches(rule, online[one_id])] == by_engine


def test_members_asks_the_engine_only_for_what_it_has(asked):
    builder, now, _built, _online = asked
    with pytest.raises(ConfigError, match="unknown feature 'nothing'"):
        members(parse({"feature": "nothing", "value": 1}), builder, now)
    with pytest.raises(ConfigError, match="is a tag"):
        members(parse(BAND), builder, now)
    assert text_features(builder.supported(as_of=now)[0])["top_category"]
