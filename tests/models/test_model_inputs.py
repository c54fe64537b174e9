"""A caller's table as the columns of a spec: the same values from integers, floats, texts and CSV files."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest

from features.compute.algebra import Feature
from features.compute.spec import FeatureSpec, UserFeatures
from models.model_inputs import as_spec_columns
from qianmian.errors import DataError

SPEC = FeatureSpec(
    (
        Feature("orders", "orders", "count", window_days=28),
        Feature("days", "orders", "recency", default=999.0),
        Feature("tier", "profiles", "attribute", "tier", default=""),
    ),
    ((), (), ("1", "2", "gold")),
)


def encoded(table):
    table = as_spec_columns(table, SPEC)
    rows = pa.array([str(row) for row in range(table.num_rows)])
    return UserFeatures.from_table(
        table.append_column("one_id", rows), SPEC.features, datetime(2024, 1, 1), SPEC
    ).values


@pytest.mark.parametrize("kind", [pa.int64(), pa.int8(), pa.uint64(), pa.float32(), pa.float64(), pa.decimal128(20, 1)])
def test_a_number_of_any_type_is_the_same_number(kind):
    table = pa.table(
        {"orders": pa.array([3, 0, None], pa.int64()).cast(kind), "days": [1.0, 2.0, 3.0], "tier": ["1", "x", None]}
    )
    np.testing.assert_array_equal(encoded(table), [[3, 1, 0], [0, 2, -1], [0, 3, -1]])


def test_codes_that_a_file_has_as_numbers_are_categories():
    for column in ([1, 2, None], [1.0, 2.0, None], ["1", "2", None], pa.array(["1", "2", None]).dictionary_encode()):
        assert encoded(pa.table({"orders": [1, 1, 1], "tier": column}))[:, 2].tolist() == [0, 1, -1]


def test_gaps_and_absent_columns_have_the_default_and_others_are_ignored():
    gaps = pa.table({"days": pa.nulls(1), "tier": pa.nulls(1), "colour": ["red"]})
    np.testing.assert_array_equal(encoded(gaps), [[0, 999, -1]])
    assert as_spec_columns(gaps, SPEC).column_names == ["days", "tier"]
    assert encoded(pa.table({"orders": [True, False]}))[:, 0].tolist() == [1, 0]


def test_a_text_where_a_number_is_needed_is_refused_by_name():
    with pytest.raises(DataError, match="other values") as caught:
        encoded(pa.table({"days": ["yesterday"]}))
    assert "days" in str(caught.value)


def test_a_table_without_any_column_of_the_model_is_refused():
    with pytest.raises(DataError, match="none of the columns") as caught:
        encoded(pa.table({"Orders": [1]}))
    assert "got 'Orders'" in str(caught.value)
    assert "orders, days, tier" in str(caught.value)
