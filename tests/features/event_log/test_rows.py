"""A row is read from the log as it was written, and the same row always has the same bytes."""

from __future__ import annotations

from datetime import datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.event_log.identity import identify
from features.event_log.rows import EventRow, decode, encode, make_row
from qianmian.schema import CONSENT_CHANNELS, EVENT_TYPES, TABLES

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
VALUES = st.fixed_dictionaries(
    {
        "source": TEXTS,
        "source_user_id": TEXTS,
        "ts": st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1)),
        "event_type": st.sampled_from(EVENT_TYPES),
    },
    optional={"item_id": TEXTS},
)


@given(TEXTS, VALUES)
def test_a_row_comes_back_as_it_was(event_id, values):
    row = make_row(event_id, values)
    event = encode(row)
    assert decode(event) == row
    assert (event.source, event.event_id, event.source_user_id) == (
        values["source"],
        event_id,
        values["source_user_id"],
    )
    identify(event)
    assert encode(row._replace(values=dict(reversed(row.values.items())))) == event
    assert set(row.values) <= set(TABLES[row.table].names)


def test_the_time_is_utc_text_in_the_body_and_microseconds_beside_it():
    values = {"source": "s", "source_user_id": "u", "ts": datetime(1970, 1, 2, 0, 0, 0, 5), "event_type": "view"}
    event = encode(make_row("e", values))
    assert event.ts == 86_400_000_005
    assert orjson.loads(event.body)["row"]["ts"] == "1970-01-02T00:00:00.000005Z"


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_a_purchase_is_an_order_line_and_every_other_type_an_event(event_type):
    values = {"source": "s", "source_user_id": "u", "ts": datetime(2026, 5, 1), "event_type": event_type}
    row = make_row("e1", values)
    if event_type != "purchase":
        assert row == EventRow("events", {**values, "event_id": "e1"}, "e1")
        return
    del values["event_type"]
    line = {"order_id": "e1", "line_no": 1, "quantity": 1.0, "status": "paid"}
    assert row == EventRow("transactions", {**values, **line}, "e1")
    said = {"order_id": "o7", "line_no": 3, "quantity": 2.0, "status": "refunded"}
    assert make_row("e1", {**values, **said, "event_type": "purchase"}).values == {**values, **said}


@pytest.mark.parametrize("channel", CONSENT_CHANNELS)
def test_a_consent_is_a_profile_and_an_availability_an_item(channel):
    values = {"source": "s", "source_user_id": "u", "ts": datetime(2026, 5, 1)}
    row = make_row("e1", {**values, "event_type": "consent", "channel": channel, "granted": False})
    assert row == EventRow("profiles", {**values, f"consent_{channel}": False}, "e1")
    about_item = {**values, "source_user_id": "", "item_id": "milk", "available": True}
    other = make_row("e2", {**about_item, "event_type": "availability"})
    assert other == EventRow("items", about_item, "e2")
    for made in (row, other):
        identify(encode(made))
        assert decode(encode(made)) == made
        assert set(made.values) - {"ts", "source_user_id"} <= set(TABLES[made.table].names)
