"""Filters over items: the language, its mistakes, and that it says what segment rules say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.profiles import rules
from models.filters import MAX_COMPARISONS, MAX_DEPTH, MAX_VALUES, conditions, parse
from models.item_table import ItemTable
from qianmian.errors import InvalidRequest

CATEGORIES = ["GROCERY", "GROCERY/SOUP", "GROCERY/SOUP/CANNED", "GROCERY 2", "MEAT", ""]
BRANDS = ["A", "B", "", "A", "阿", "B"]
PRICES = [1.0, 1.99, 5.0, np.nan, 0.1, 2.0]
AVAILABLE = [1, 0, 1, -1, 1, 0]
TAGS = ["new|vegan", "vegan", "", "vegan food", "new", "on sale|new"]
IDS = ["1", "2", "3", "4", "5", "é\U0001f34e"]


@pytest.fixture
def table() -> ItemTable:
    return ItemTable(
        {
            "category": np.array(CATEGORIES),
            "brand": np.array(BRANDS),
            "price": np.array(PRICES, np.float32),
            "available": np.array(AVAILABLE, np.int8),
            "tags": np.array(TAGS),
        },
        IDS,
    )


def passing(table: ItemTable, data) -> list[int]:
    found = parse(data)
    table.check(found)
    return np.flatnonzero(table.mask(found)).tolist()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"category": "GROCERY"}, [0, 1, 2]),
        ({"category": ["GROCERY/SOUP", "MEAT"], "brand": ["A", "B"]}, [1]),
        ({"brand": "阿"}, [4]),
        ({"item_id": ["é\U0001f34e", "ghost"]}, [5]),
        ({"price": 1.99}, [1]),
        ({"available": True}, [0, 2, 4]),
        ({"attribute": "category", "op": "==", "value": "GROCERY/SOUP"}, [1, 2]),
        ({"attribute": "category", "op": "!=", "value": "GROCERY"}, [3, 4]),
        ({"attribute": "category", "operator": "known", "value": False}, [5]),
        ({"attribute": "category", "op": "exists"}, [0, 1, 2, 3, 4]),
        ({"attribute": "brand", "op": "!=", "value": "A"}, [1, 4, 5]),
        ({"not": {"brand": "A"}}, [1, 2, 4, 5]),
        ({"attribute": "brand", "op": "between", "value": ["A", "B"]}, [0, 1, 3, 5]),
        ({"attribute": "price", "op": "between", "value": [1, 2]}, [0, 1, 5]),
        ({"attribute": "price", "op": "range", "value": [1, 1.99]}, [0, 1]),
        ({"attribute": "price", "op": ">", "value": 1.99}, [2, 5]),
        ({"attribute": "price", "op": "lte", "value": 1.99}, [0, 1, 4]),
        ({"attribute": "price", "op": "!=", "value": 5}, [0, 1, 4, 5]),
        ({"attribute": "price", "op": "in", "value": [0.1, 2]}, [4, 5]),
        ({"attribute": "price", "op": "<", "value": 1e200}, [0, 1, 2, 4, 5]),
        ({"attribute": "price", "op": "exists", "value": False}, [3]),
        ({"attribute": "available", "op": "!=", "value": True}, [1, 5]),
        ({"attribute": "available", "op": "exists", "value": False}, [3]),
        ({"attribute": "tags", "op": "contains", "value": "vegan"}, [0, 1]),
        ({"attribute": "tags", "op": "contains", "value": ["on sale", "vegan food"]}, [3, 5]),
        ({"and": [{"attribute": "price", "op": "between", "value": [1, 5]}, {"not": {"brand": ["B"]}}]}, [0, 2]),
        (
            {"or": [{"category": "MEAT"}, {"all": [{"category": "GROCERY"}, {"any": [{"price": 5}, {"brand": "A"}]}]}]},
            [0, 2, 4],
        ),
    ],
    ids=str,
)
def test_what_passes(table, data, expected):
    assert passing(table, data) == expected


@pytest.mark.parametrize("data", [None, {}])
def test_no_filter(data):
    assert parse(data) is None


@pytest.mark.parametrize(
    ("data", "field", "said"),
    [
        ("x", "filters", "object"),
        ([], "filters", "object"),
        ({"and": []}, "filters.and", "non-empty list"),
        ({"and": {"brand": "A"}}, "filters.and", "list"),
        ({"and": [{"attribute": "price", "op": "about", "value": 2}]}, "filters.and[0].op", "allowed: ==, !="),
        ({"or": [{"brand": "A"}, {"not": {"attribute": "price", "op": "<"}}]}, "filters.or[1].not.value", "required"),
        ({"and": [{"brand": "A"}], "or": [{"brand": "A"}]}, "filters", "exactly one"),
        ({"and": [{"brand": "A"}], "brand": "B"}, "filters.brand", "unknown"),
        ({"attribute": "price", "op": "<", "value": 2, "color": 1}, "filters.color", "unknown"),
        ({"attribute": "", "op": "<", "value": 2}, "filters.attribute", "name"),
        ({"attribute": "price", "op": "<", "operator": "<", "value": 2}, "filters.op", "alias"),
        ({"attribute": "price", "op": ["<"], "value": 2}, "filters.op", "unknown operator"),
        ({"attribute": "price", "op": "<", "value": float("nan")}, "filters.value", "finite"),
        ({"attribute": "price", "op": "<", "value": float("inf")}, "filters.value", "finite"),
        ({"attribute": "price", "op": "<", "value": 10**400}, "filters.value", "finite"),
        ({"attribute": "price", "op": "<", "value": None}, "filters.value", "finite"),
        ({"attribute": "price", "op": "between", "value": [5, 1]}, "filters.value", "ascending order"),
        ({"attribute": "price", "op": "between", "value": [1]}, "filters.value", "[from, to]"),
        ({"attribute": "price", "op": "between", "value": [1, "2"]}, "filters.value", "two numbers or two texts"),
        ({"attribute": "brand", "op": "in", "value": "A"}, "filters.value", "list"),
        ({"attribute": "brand", "op": "in", "value": []}, "filters.value", "list"),
        ({"attribute": "brand", "op": "exists", "value": "yes"}, "filters.value", "true or false"),
        ({"brand": {"A": 1}}, "filters.brand", "list of texts"),
        ({"and": [{}]}, "filters.and[0]", "empty"),
    ],
    ids=str,
)
def test_mistakes_of_form_name_their_place(data, field, said):
    with pytest.raises(InvalidRequest) as caught:
        parse(data)
    assert caught.value.field == field
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("data", "field", "said"),
    [
        ({"colour": "red"}, "filters.colour", "available, brand, category, item_id, price, tags"),
        (
            {"and": [{"brand": "A"}, {"attribute": "weight", "op": "<", "value": 2}]},
            "filters.and[1]",
            "unknown attribute 'weight'",
        ),
        ({"price": "cheap"}, "filters.price", "a number and cannot be compared with"),
        ({"brand": 3}, "filters.brand", "a text"),
        ({"brand": ["A", 3]}, "filters.brand", "a text"),
        ({"available": 1}, "filters.available", "true or false"),
        ({"price": True}, "filters.price", "a number"),
        ({"attribute": "available", "op": "<", "value": True}, "filters", "does not apply"),
        ({"attribute": "price", "op": "contains", "value": "x"}, "filters", "does not apply"),
    ],
    ids=str,
)
def test_mistakes_of_meaning_name_their_place(table, data, field, said):
    with pytest.raises(InvalidRequest) as caught:
        table.check(parse(data))
    assert caught.value.field == field
    assert said in str(caught.value)


def test_all_mistakes_are_told_together(table):
    with pytest.raises(InvalidRequest) as caught:
        table.check(parse({"and": [{"colour": "red"}, {"price": "x"}]}))
    assert "filters.and[0].colour" in str(caught.value)
    assert "filters.and[1].price" in str(caught.value)


def test_limits():
    deep: dict = {"brand": "A"}
    for _ in range(MAX_DEPTH):
        deep = {"not": deep}
    assert parse(deep) is not None
    with pytest.raises(InvalidRequest, match="nested deeper"):
        parse({"not": deep})
    with pytest.raises(InvalidRequest, match="comparisons; at most"):
        parse({"or": [{"brand": "A"}] * (MAX_COMPARISONS + 1)})
    with pytest.raises(InvalidRequest, match="values; at most"):
        parse({"brand": ["A"] * (MAX_VALUES + 1)})
    with pytest.raises(InvalidRequest, match="and 40 more"):
        parse({"or": [{"attribute": "a", "op": "?", "value": 1}] * 50})


def test_a_filter_asked_before_is_answered_from_memory_and_cannot_be_spoilt(table):
    first = table.mask(parse({"and": [{"brand": "A"}, {"category": "GROCERY"}]}))
    assert table.mask(parse({"and": [{"brand": "A"}, {"category": "GROCERY"}]})) is first
    with pytest.raises(ValueError, match="read-only"):
        first[0] = True
    long = parse({"brand": [str(number) for number in range(1_000)]})
    assert not table.mask(long).any()
    assert table._mask.cache_info().currsize == 1, "a long filter is not kept"
    many = ItemTable({}, ["x"] * 1_000_000)
    assert many._mask.cache_info().maxsize == 64


def test_groups_of_items(table):
    assert table.codes("brand").tolist()[:4] == [1, 2, -1, 1]
    first, second = table.codes("category", 1), table.codes("category", 2)
    assert first[0] == first[1] == first[2] >= 0
    assert first[3] != first[0]
    assert first[5] == second[5] == -1
    assert second[1] == second[2] != second[0]
    assert table.codes("available").tolist() == AVAILABLE
    assert table.codes("category", 1) is first


def test_an_empty_catalogue():
    table = ItemTable({"brand": np.empty(0, np.str_), "price": np.empty(0, np.float32)}, [])
    assert passing(table, {"and": [{"brand": "A"}, {"price": 1}]}) == []


# ---- what segment rules say of the same values -----------------------------------------------------------------------

NUMBERS = st.sampled_from([0.0, 0.5, 1.0, 2.0, 4.0])
TEXTS = st.sampled_from(["A", "B", "C", "阿", "Z"])


@st.composite
def comparisons(draw):
    text = draw(st.booleans())
    value = TEXTS if text else NUMBERS
    op = draw(st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "in", "known"]))
    asked = (
        draw(st.lists(value, min_size=1, max_size=3))
        if op == "in"
        else draw(st.booleans())
        if op == "known"
        else draw(value)
    )
    return {"attribute": "brand" if text else "price", "operator": op, "value": asked}


FILTERS = st.recursive(
    comparisons(),
    lambda inner: st.one_of(
        st.builds(
            lambda parts, how: {how: parts}, st.lists(inner, min_size=1, max_size=3), st.sampled_from(["all", "any"])
        ),
        st.builds(lambda part: {"not": part}, inner),
    ),
    max_leaves=8,
)


def as_rule(data):
    if "attribute" in data:
        return {"tag": data["attribute"], "operator": data["operator"], "value": data["value"]}
    head, inner = next(iter(data.items()))
    return {head: as_rule(inner) if head == "not" else [as_rule(part) for part in inner]}


@settings(max_examples=150, deadline=None)
@given(
    FILTERS,
    st.lists(
        st.tuples(st.one_of(TEXTS, st.just("")), st.one_of(NUMBERS, st.just(float("nan")))), min_size=1, max_size=8
    ),
)
def test_a_filter_says_what_the_segment_rule_of_the_same_words_says(data, items):
    table = ItemTable(
        {"brand": np.array([brand for brand, _ in items]), "price": np.array([price for _, price in items])},
        ["x"] * len(items),
    )
    rule = rules.parse(as_rule(data))
    told = [
        rules.matches(rule, {}, {"brand": brand, "price": None if np.isnan(price) else price}) for brand, price in items
    ]
    found = parse(data)
    table.check(found)
    assert table.mask(found).tolist() == told
    assert all(condition.path.startswith("filters") for condition in conditions(found))
