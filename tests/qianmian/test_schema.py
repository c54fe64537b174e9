"""The canonical tables are what the design says and hang together."""

from __future__ import annotations

from typing import get_args

import pytest

from features.data.lake import SQL_TYPES
from qianmian.schema import EVENT_TYPES, LIFECYCLE_STAGES, ORDER_STATUSES, TABLES, DType


@pytest.mark.parametrize("name", TABLES)
def test_a_table(name):
    table = TABLES[name]
    assert table.name == name
    assert len(set(table.names)) == len(table.names)
    assert set(table.key) <= set(table.names)
    for column in table.columns:
        assert column.dtype in get_args(DType)
        assert column.dtype in SQL_TYPES
        assert column.description
        assert table.column(column.name) is column
        if column.maximum is not None:
            assert column.dtype in ("int64", "float64")
    assert table.column("no such column") is None


def test_rows_of_customers_can_be_joined():
    for name in ("profiles", "identities", "events", "transactions", "touches"):
        assert {"source", "source_user_id"} <= set(TABLES[name].names)


def test_times_say_that_they_are_utc():
    assert all(
        column.unit == "UTC" for table in TABLES.values() for column in table.columns if column.dtype == "timestamp"
    )


def test_vocabularies():
    assert TABLES["events"].column("event_type").allowed == EVENT_TYPES
    assert TABLES["transactions"].column("status").allowed == ORDER_STATUSES
    for words in (EVENT_TYPES, ORDER_STATUSES, LIFECYCLE_STAGES):
        assert len(set(words)) == len(words)
        assert all(word == word.lower() and " " not in word for word in words)
