"""What a running server knows of logins, stock and consents some milliseconds after another process has stored them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from features.event_log import EventLog, open_log
from features.event_log.rows import EventRow, encode
from tests.waiting import until

START = datetime(2024, 8, 2)  # after the `as_of` of the models


@pytest.fixture
def stored(serve, workspace) -> Iterator[EventLog]:
    """The log of the running server, opened by this process."""
    log = open_log(workspace.online / "events.db")
    yield log
    log.close()


def answer(serve, route: str, **fields):
    status, body = serve(f"/v1/{route}", fields)
    assert status == 200, body
    return body


def items(serve, route: str = "recommendations", **fields) -> list[str]:
    return [item["item_id"] for item in answer(serve, route, **fields)["items"]]


def test_a_visitor_who_logs_in_is_the_customer(serve, stored, champions, buyers):
    user = buyers[-5]
    one_id = champions.customers.resolve(user)
    (source,) = {row["source"] for row in champions.customers.customers.to_pylist() if row["source_user_id"] == user}
    bought = items(serve, user_id=user, scene="discover")[0]
    row = {"source": source, "source_user_id": "visitor of the server", "ts": START}
    line = {"order_id": "visit", "line_no": 1, "item_id": bought, "quantity": 1.0, "status": "paid"}
    stored.append([encode(EventRow("transactions", {**row, **line}, "visit"))])
    until(lambda: answer(serve, "recommendations", user_id=row["source_user_id"]).get("recent_events") == 1)
    before = answer(serve, "recommendations", user_id=user, scene="discover")
    assert "recent_events" not in before
    assert before["stale"] is True, "the models are from 2024"
    login = {"event_id": "login", "event_type": "login", "anonymous_id": row["source_user_id"]}
    stored.append([encode(EventRow("events", {**row, "source_user_id": user, **login}, "login"))])
    until(lambda: answer(serve, "recommendations", user_id=user, scene="discover").get("recent_events") == 1)
    for user_id in (user, row["source_user_id"]):
        body = answer(serve, "recommendations", user_id=user_id, user_source=source, scene="discover")
        assert body["one_id"] == one_id
        assert bought not in [item["item_id"] for item in body["items"]]
        assert body["stale"] is False, "the list knows what came since"
    profile = answer(serve, "profile", user_id=row["source_user_id"], user_source=source)
    assert (profile["known"], profile["one_id"]) == (True, one_id)


def test_an_item_that_is_out_of_stock_leaves_the_lists(serve, stored):
    before = items(serve, user_id="nobody here")
    alike = items(serve, "similar-items", item_id=before[0])
    for number, (available, hours) in enumerate([(False, 1), (True, 2)]):
        rows = [
            EventRow(
                "items",
                {"source": "erp", "source_user_id": "", "ts": START + timedelta(hours=hours), "item_id": item}
                | {"available": available},
                f"{item} {number}",
            )
            for item in (before[0], alike[0])
        ]
        stored.append([encode(row) for row in rows])
        until(lambda state=available: (before[0] in items(serve, user_id="nobody here")) is state)
        until(lambda state=available: (alike[0] in items(serve, "similar-items", item_id=before[0])) is state)
    assert items(serve, user_id="nobody here") == before
    assert items(serve, "similar-items", item_id=before[0]) == alike


def test_a_withdrawn_consent_is_shown_at_once(serve, stored, champions, buyers):
    user = buyers[-6]
    (source,) = {row["source"] for row in champions.customers.customers.to_pylist() if row["source_user_id"] == user}

    def shown() -> object:
        body = answer(serve, "profile", user_id=user, user_source=source)
        return body["tags"]["basic"].get("consent_sms", {}).get("value")

    for hours, granted in ((1, True), (2, False)):
        row = {"source": source, "source_user_id": user, "ts": START + timedelta(hours=hours), "consent_sms": granted}
        stored.append([encode(EventRow("profiles", row, f"consent {hours}"))])
        until(lambda state=granted: shown() is state)
