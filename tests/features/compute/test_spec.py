"""The spec is the meaning of the columns: it survives JSON, tells differences, and encodes tables as a model expects them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest

from features.compute.algebra import Condition, Feature
from features.compute.spec import FeatureSpec, UserFeatures
from qianmian.errors import DataError

ORDERS = Feature("orders_total", "orders", "count", description="d")
CARTS = Feature(
    "carts",
    "events",
    "count",
    where=(Condition("event_type", "in", ("cart", "view")), Condition("hour", "<", 12)),
    window_days=28,
    description="d",
)
CHANNEL = Feature("top_channel", "orders", "top", "channel", default="", description="d")
NEVER = Feature("days", "orders", "recency", default=9999.0, description="d")
TIER = Feature("tier", "profiles", "attribute", "tier", default="", description="d")
SPEC = FeatureSpec((ORDERS, CARTS, CHANNEL, NEVER), ((), (), ("web", "应用"), ()))
AS_OF = datetime(2024, 1, 1)
TABLE = pa.table(
    {
        "one_id": ["a", "b", "c"],
        "top_channel": ["应用", "", "web"],
        "orders_total": [3.0, 0.0, 1.0],
        "carts": [0.0, 1.0, 2.0],
        "days": [1.5, 9999.0, 2.0],
    }
)


def test_a_table_of_several_blocks_and_chunks_is_encoded_like_one(monkeypatch):
    neutral = replace(SPEC, features=(*SPEC.features, TIER), vocabularies=(*SPEC.vocabularies, ("gold",)))
    neutral = replace(neutral, neutral=(None, None, None, None, 0.5))
    table = pa.concat_tables([TABLE, TABLE.slice(1), TABLE]).append_column("profile_tier", pa.array(["gold", None] * 4))
    whole = UserFeatures.from_table(table, neutral.features, AS_OF, neutral)
    monkeypatch.setattr("features.compute.spec.BLOCK", 3)
    parts = UserFeatures.from_table(table, neutral.features, AS_OF, neutral)
    np.testing.assert_array_equal(parts.values, whole.values)
    assert parts.column("profile_tier").tolist() == [0, 0.5] * 4
    assert parts.text("top_channel") == table["top_channel"].to_pylist()


def test_it_survives_json():
    again = FeatureSpec.of(json.loads(json.dumps(SPEC.as_dict())))
    assert again == SPEC
    assert again.hash == SPEC.hash


def test_the_hash_of_a_spec_stays_what_it_was():
    """Bundles and snapshots of existing workspaces carry these hashes."""
    assert SPEC.hash == "b6b521d5a978e3e8"


def test_how_a_feature_may_be_used_is_no_part_of_its_meaning():
    marked = FeatureSpec((replace(ORDERS, grows_with_calendar=True), *SPEC.features[1:]), SPEC.vocabularies)
    assert marked == SPEC
    assert marked.as_dict() == SPEC.as_dict()
    assert marked.hash == SPEC.hash
    assert FeatureSpec.of(marked.as_dict()) == marked


@pytest.mark.parametrize(
    "other",
    [
        FeatureSpec((replace(ORDERS, window_days=7), *SPEC.features[1:]), SPEC.vocabularies),
        FeatureSpec((replace(ORDERS, default=1.0), *SPEC.features[1:]), SPEC.vocabularies),
        FeatureSpec((ORDERS, replace(CARTS, where=CARTS.where[:1]), CHANNEL, NEVER), SPEC.vocabularies),
        FeatureSpec(SPEC.features, ((), (), ("应用", "web"), ())),
        FeatureSpec(SPEC.features, ((), (), ("web",), ())),
        SPEC.select(("carts", "orders_total", "top_channel", "days")),
        SPEC.select(("orders_total", "carts")),
    ],
    ids=["window", "default", "condition", "order of values", "fewer values", "order of columns", "fewer columns"],
)
def test_another_meaning_is_another_hash(other):
    assert other.hash != SPEC.hash


def test_select_keeps_the_meaning():
    part = SPEC.select(("top_channel", "orders_total"))
    assert part.names == ("top_channel", "orders_total")
    assert part.vocabularies == (("web", "应用"), ())
    with pytest.raises(ValueError):
        SPEC.select(("nothing",))


def test_a_table_is_encoded_in_the_order_of_the_features():
    made = UserFeatures.from_table(TABLE, SPEC.features, AS_OF)
    assert made.spec == SPEC  # vocabulary: the values there are, sorted, without ''
    assert made.values.dtype == np.float32
    np.testing.assert_array_equal(made.values, np.array([[3, 0, 1, 1.5], [0, 1, -1, 9999], [1, 2, 0, 2]], np.float32))
    assert made.text("top_channel") == ["应用", "", "web"]
    np.testing.assert_array_equal(made.column("days"), np.array([1.5, 9999, 2], np.float32))


def test_a_table_is_encoded_as_a_model_expects_it():
    """Other vocabulary, other order, a column more and one less than the model was trained on."""
    expected = FeatureSpec(
        (CHANNEL, replace(NEVER, name="gone"), replace(CHANNEL, name="lost"), ORDERS),
        (("kiosk", "web"), (), ("x",), ()),
    )
    made = UserFeatures.from_table(TABLE, SPEC.features, AS_OF, expected)
    assert made.spec is expected
    np.testing.assert_array_equal(
        made.values, np.array([[-1, 9999, -1, 3], [-1, 9999, -1, 0], [1, 9999, -1, 1]], np.float32)
    )


TIER = Feature("profile_tier", "profiles", "attribute", "tier", default="", description="d")
POINTS = Feature("profile_points", "profiles", "attribute", "points", description="d")
NO_RECORD = Feature(
    "no_record_crm",
    "profiles",
    "missing",
    where=(Condition("tier", "known", False), Condition("points", "known", False)),
    default=1.0,
    description="d",
)
PEOPLE = pa.table(
    {
        "one_id": list("abcde"),
        "profile_tier": ["gold", "iron", "", "wood", ""],
        "profile_points": [0.0, 6.0, 40.0, 8.0, 0.0],
        "no_record_crm": [0.0, 0.0, 0.0, 0.0, 1.0],
    }
)


def test_an_unknown_attribute_has_a_value_between_the_known_ones():
    declared = (TIER, POINTS, NO_RECORD)
    spec = UserFeatures.from_table(PEOPLE, declared, AS_OF).neutral_spec()
    assert spec.neutral == (1.5, 7.0, None)
    made = UserFeatures.from_table(PEOPLE, declared, AS_OF, spec)
    assert made.column("profile_tier").tolist() == [0, 1, 1.5, 2, 1.5]
    assert made.column("profile_points").tolist() == [0, 6, 40, 8, 7]  # the 0 of a customer with a record is a value
    assert made.text("profile_tier") == ["gold", "iron", "", "wood", ""]
    assert spec.missing(made.values).tolist() == [
        *([[False] * 3] * 2),
        [True, False, False],
        [False] * 3,
        [True, True, False],
    ]
    # profiles of an earlier version have no indicator: what is known stays, what is not is neutral
    older = UserFeatures.from_table(PEOPLE.drop_columns(["no_record_crm"]), declared[:2], AS_OF, spec)
    assert older.column("profile_tier").tolist() == [0, 1, 1.5, 2, 1.5]
    assert older.column("profile_points").tolist() == [7, 6, 40, 8, 7]


def test_neutral_values_survive_json_and_are_part_of_the_meaning():
    spec = UserFeatures.from_table(PEOPLE, (TIER, POINTS, NO_RECORD), AS_OF).neutral_spec()
    again = FeatureSpec.of(json.loads(json.dumps(spec.as_dict())))
    assert again == spec
    assert again.hash == spec.hash != replace(spec, neutral=()).hash
    assert spec.select(("profile_points",)).neutral == (7.0,)
    assert spec.select(("no_record_crm",)).neutral == ()


def test_rows_of_and_take():
    made = UserFeatures.from_table(TABLE, SPEC.features, AS_OF)
    rows = made.rows_of(["c", "x", "a", "", "zz"])
    assert rows.tolist() == [2, -1, 0, -1, -1]
    part = made.take(np.array([2, 0]))
    assert part.one_ids.tolist() == ["c", "a"]
    part.values[:] = 0
    part.one_ids[:] = "?"
    assert made.values[2, 0] == 1
    assert made.one_ids.tolist() == ["a", "b", "c"]
    nobody = made.take(np.empty(0, dtype=np.int64))
    assert nobody.rows_of(["a"]).tolist() == [-1]


def test_an_unknown_column_says_what_there_is():
    with pytest.raises(DataError, match="orders_total"):
        UserFeatures.from_table(TABLE, SPEC.features, AS_OF).column("nothing")
