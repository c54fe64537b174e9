"""The Python client with the real server: what it sends is in the lake once, after an ingest."""

from __future__ import annotations

import uuid

import pytest

from features.data.ingest import ingest
from features.data.lake import Lake
from features.data.sources.event_log import EventLogSource
from qianmian.client import Client, ClientError
from qianmian.settings import Settings
from qianmian.workspace import Workspace


@pytest.fixture
def client(serve) -> Client:
    return Client(serve.url, timeout=30)


def test_events_reach_the_lake_once(client, workspace, tmp_path):
    source = f"kiosk-{uuid.uuid4().hex[:8]}"  # the server is shared by other tests
    common = {"user_id": "k1", "user_source": source, "item_id": "i1", "ts": "2024-07-01T09:00:00Z"}
    events = [{**common, "event_id": f"e{n}", "event_type": "view", "properties": {"n": n}} for n in range(1_100)]
    events += [{**common, "event_type": "purchase", "amount": 2.5}, {**common, "event_type": "bark"}]
    first = client.send(events)
    assert (first.accepted, first.duplicates) == (1_101, 0)
    assert [(each.index, each.field) for each in first.rejected] == [(1_101, "event_type")]
    again = client.send(events[:1_100])
    assert (again.accepted, again.duplicates, again.rejected) == (1_100, 1_100, ())

    taken = Workspace(tmp_path / "workspace")
    ingest(taken, EventLogSource(workspace.online / "events.db"), Settings())
    rows = Lake(taken).connect().con
    count = "SELECT count(*), count(DISTINCT {}) FROM {} WHERE source = ?"
    assert rows.execute(count.format("event_id", "events"), [source]).fetchone() == (1_100, 1_100)
    assert rows.execute(count.format("order_id", "transactions"), [source]).fetchone() == (1, 1)
    properties = "SELECT properties FROM events WHERE source = ? AND event_id = 'e7'"
    assert rows.execute(properties, [source]).fetchone() == ('{"n":7}',)


def test_other_routes_answer_or_say_what_is_wrong(client, buyers):
    assert len(client.recommendations(buyers[0], num_results=3)["items"]) == 3
    assert client.profile(buyers[0])["user_id"] == buyers[0]
    assert client.post("/v1/churn", {"user_ids": buyers[:2]})["scores"][1]["user_id"] == buyers[1]
    with pytest.raises(ClientError) as caught:
        client.recommendations(buyers[0], num_results=0)
    assert (caught.value.code, caught.value.field, caught.value.status) == ("invalid_request", "num_results", 422)
