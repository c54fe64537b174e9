"""Accepted events in the lists of real champions: the same as those of the request, and nothing for all others."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import orjson
import pytest

from features.event_log import EventLog, open_log
from features.event_log.rows import encode, make_row
from models.recommend.scene import SCENES
from qianmian.errors import InvalidRequest
from qianmian.settings import ServingSettings
from serving.endpoints import ENDPOINTS
from serving.events.live import LiveEvents
from serving.events.store import OnlineStore
from serving.loading import BackgroundLoader

AS_OF = datetime(2024, 8, 1)
NOW = datetime(2024, 8, 3)
SECONDS = 20


class Shop:
    """Champions that follow an event log."""

    def __init__(self, champions, log: EventLog) -> None:
        self.log, self.plain = log, champions
        self.customers = champions.customers.customers.to_pylist()
        self.events = LiveEvents(lambda: log)
        self.events.start()
        self.champions = replace(champions, events=self.events)
        self.champions.warm()
        self._number = 0

    def accept(self, user: str, *events: tuple[str, str | None, float], **values: object) -> None:
        """Store events, each a type, an item and the hours since `AS_OF`, and wait until they are known."""
        sources = [row["source"] for row in self.customers if row["source_user_id"] == user]
        source = str(values.get("source", *sources or ["app"]))
        for kind, item, hours in events:
            self._number += 1
            row = {"event_type": kind, "ts": AS_OF + timedelta(hours=hours), "source": source, "source_user_id": user}
            row |= {} if item is None else {"item_id": item}
            (stored,) = self.log.append([encode(make_row(f"e{self._number}", row | values))])
        deadline = time.monotonic() + SECONDS
        while self.events._last.get((source, user)) != stored.seq:
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def json(self, route: str, *, plain: bool = False, now: datetime = NOW, **fields):
        endpoint = ENDPOINTS[route]
        request = endpoint.request.model_validate(fields)
        body = orjson.loads(endpoint.json(self.plain if plain else self.champions, request, now))
        assert re.fullmatch("[0-9a-f]{32}", body.pop("recommendation_id"))
        return body

    def lists(self, **fields):
        return self.json("/recommendations", **fields)


@pytest.fixture
def shop(champions, tmp_path: Path) -> Iterator[Shop]:
    log = open_log(tmp_path / "events.db")
    made = Shop(champions, log)
    yield made
    made.events.close()
    log.close()


def in_context(*events: tuple[str, str | None, float]):
    return [
        {"event_type": kind, "item_id": item, "ts": (AS_OF + timedelta(hours=hours)).isoformat()}
        for kind, item, hours in events
    ]


@pytest.fixture
def items(champions) -> list[str]:
    return list(champions.models["recommend"].catalogue.item_ids)


@pytest.mark.parametrize("who", ["buyer", "stranger"])
@pytest.mark.parametrize("scene", ["home", "discover"])
def test_accepted_events_change_a_list_as_those_of_the_request_do(shop, buyers, items, who, scene):
    user = buyers[3] if who == "buyer" else "a stranger"
    events = [("purchase", items[7], 1.0), ("purchase", items[4], 1.0), ("purchase", items[9], 30.5)]
    before = shop.lists(user_id=user, scene=scene, num_results=20, explain=True)
    shop.accept(user, *events)
    body = shop.lists(user_id=user, scene=scene, num_results=20, explain=True)
    said = shop.lists(
        plain=True, user_id=user, scene=scene, num_results=20, explain=True, context={"events": in_context(*events)}
    )
    assert (body.pop("recent_events"), said.pop("ignored_events")) == (3, [])
    assert body == said != before
    ranked = shop.json("/rank", user_id=user, item_ids=items[:30])
    said = shop.json("/rank", plain=True, user_id=user, item_ids=items[:30], context={"events": in_context(*events)})
    assert (ranked.pop("recent_events"), said.pop("ignored_events")) == (3, [])
    assert ranked == said


def test_the_request_wins_where_both_say_the_same(shop, buyers, items):
    events = [("purchase", items[7], 1.0), ("purchase", items[4], 2.0)]
    shop.accept(buyers[0], *events)
    context = {"events": in_context(events[0], ("purchase", items[5], 3.0))}
    body = shop.lists(user_id=buyers[0], context=context)
    both = in_context(events[1], events[0], ("purchase", items[5], 3.0))
    said = shop.lists(plain=True, user_id=buyers[0], context={"events": both})
    assert body.pop("recent_events") == 1
    assert body == said


def test_what_was_bought_is_hidden_at_once(shop, buyers):
    first = shop.lists(user_id=buyers[1], scene="discover")["items"][0]["item_id"]
    shop.accept(buyers[1], ("purchase", first, 5.0))
    found = shop.lists(user_id=buyers[1], scene="discover", num_results=100)["items"]
    assert first not in [item["item_id"] for item in found]


def test_an_order_line_that_was_cancelled_is_no_purchase(shop, buyers, items):
    before = shop.lists(user_id=buyers[1], scene="discover")
    item = before["items"][0]["item_id"]
    shop.accept(buyers[1], ("purchase", item, 5.0), order_id="o1")
    assert shop.lists(user_id=buyers[1], scene="discover")["recent_events"] == 1
    shop.accept(buyers[1], ("purchase", item, 6.0), order_id="o1", status="cancelled")
    assert shop.lists(user_id=buyers[1], scene="discover") == before


def test_events_that_say_nothing_to_the_model_change_nothing(shop, buyers, items):
    before = {scene: shop.lists(user_id=buyers[2], scene=scene) for scene in ("home", "discover")}
    shop.accept(
        buyers[2],
        ("purchase", items[3], -1.0),  # the model has learnt from it
        ("purchase", "an item that the model does not know", 1.0),
        ("login", None, 2.0),
        ("view", items[3], 2.0),  # it learns from purchases
        ("purchase", items[3], 24.0 * 400),  # later than now
    )
    assert {scene: shop.lists(user_id=buyers[2], scene=scene) for scene in before} == before
    later = shop.lists(user_id=buyers[2], now=AS_OF + timedelta(days=500))
    assert later["recent_events"] == 1


def test_an_event_that_the_lake_of_the_model_did_not_have_counts_however_late(shop, buyers, items):
    shop.accept(buyers[3], ("purchase", items[7], -5.0), ("purchase", items[4], -4.0))
    assert "recent_events" not in shop.lists(user_id=buyers[3]), "nothing says that the model does not know them"
    champion = shop.champions.models["recommend"]
    before = shop.champions
    for seq, used in ((0, 2), (1, 1), (2, None)):
        position = {"log_id": shop.log.header().log_id, "seq": seq}
        bundle = replace(champion.bundle, facts={**champion.bundle.facts, "event_log": position})
        models = {**before.models, "recommend": replace(champion, bundle=bundle)}
        shop.champions = replace(before, models=models)
        assert shop.lists(user_id=buyers[3]).get("recent_events") == used
    other = replace(champion.bundle, facts={**champion.bundle.facts, "event_log": {"log_id": "another", "seq": 0}})
    shop.champions = replace(before, models={**before.models, "recommend": replace(champion, bundle=other)})
    assert "recent_events" not in shop.lists(user_id=buyers[3])


def test_the_moment_of_the_context_bounds_the_events(shop, buyers, items):
    events = [("purchase", items[7], 1.0), ("purchase", items[4], 50.0)]
    shop.accept(buyers[0], *events)
    for hours, used in ((10.0, 1), (49.0, 1), (60.0, 2)):
        now = (AS_OF + timedelta(hours=hours)).isoformat()
        body = shop.lists(user_id=buyers[0], context={"now": now})
        said = shop.lists(plain=True, user_id=buyers[0], context={"events": in_context(*events[:used]), "now": now})
        assert (body.pop("recent_events"), said.pop("ignored_events")) == (used, [])
        assert body == said


def test_customers_without_events_keep_their_lists(shop, buyers, items):
    endpoint = ENDPOINTS["/recommendations"]
    requests = {user: endpoint.request.model_validate({"user_id": user}) for user in buyers[:5]}

    def bodies():
        found = {user: endpoint.json(shop.champions, request, NOW) for user, request in requests.items()}
        return {user: body.split(b",", 1)[1] for user, body in found.items()}  # without the id of the list

    before = bodies()
    shop.accept(buyers[2], ("purchase", items[7], 1.0))
    after = bodies()
    assert [user for user in requests if before[user] != after[user]] == [buyers[2]]
    assert [endpoint.is_kept(shop.champions, request) for request in requests.values()] == [
        True,
        True,
        False,
        True,
        True,
    ]
    assert endpoint.ready_json(shop.champions, requests[buyers[0]], NOW) is not None
    # the list of this customer without the event is still there for champions that do not know it
    plain = endpoint.json(replace(shop.champions, events=None), requests[buyers[2]], NOW)
    assert plain.split(b",", 1)[1] == before[buyers[2]]


def test_a_lost_log_makes_answers_stale(shop, buyers):
    assert shop.lists(user_id=buyers[0])["stale"] is False
    shop.events.close()  # the thread would find the log again
    shop.events.lost = True
    assert shop.lists(user_id=buyers[0])["stale"] is True
    shop.events.lost = False
    assert shop.lists(user_id=buyers[0])["stale"] is False


def test_a_list_that_knows_accepted_events_is_not_stale(shop, buyers, items):
    later = NOW + timedelta(days=100)
    ranked = {"user_id": buyers[0], "item_ids": items[:5]}
    assert shop.lists(user_id=buyers[0], now=later)["stale"] is True
    shop.accept(buyers[0], ("view", items[7], 1.0))  # which the model does not use
    assert shop.lists(user_id=buyers[0], now=later)["stale"] is True
    shop.accept(buyers[0], ("purchase", items[7], 1.0))
    assert shop.lists(user_id=buyers[0], now=later)["stale"] is False
    assert shop.json("/rank", now=later, **ranked)["stale"] is False
    assert shop.lists(user_id=buyers[1], now=later)["stale"] is True, "nothing newer is known of others"
    shop.events.close()  # the thread would find the log again
    shop.events.lost = True
    assert shop.lists(user_id=buyers[0], now=later)["stale"] is True
    shop.events.lost = False


def test_a_user_id_of_two_sources_has_to_name_one(shop, items):
    for source in ("app", "web"):
        shop.accept("visitor", ("purchase", items[7], 1.0), source=source)
    assert shop.lists(user_id="visitor", user_source="app")["recent_events"] == 1
    with pytest.raises(InvalidRequest, match="more than one source"):
        shop.lists(user_id="visitor")


def test_every_scene_answers_for_a_customer_with_events(shop, buyers, items):
    shop.accept(buyers[0], ("purchase", items[7], 1.0))
    catalogue = shop.champions.models["recommend"].catalogue
    for scene in SCENES.values():
        if catalogue.trained(scene.name):
            assert shop.lists(user_id=buyers[0], scene=scene.name)["recent_events"] == 1


def test_a_server_with_a_log_knows_its_events_when_it_is_ready(champions, buyers, items, tmp_path):
    log = open_log(tmp_path / "events.db")
    source = next(
        row["source"] for row in champions.customers.customers.to_pylist() if row["source_user_id"] == buyers[0]
    )
    row = {"source": source, "source_user_id": buyers[0], "ts": AS_OF, "event_type": "purchase", "item_id": items[7]}
    log.append([encode(make_row("e1", row))])
    settings = ServingSettings(online_store=str(tmp_path / "events.db"))
    loader = BackgroundLoader(lambda: champions, store=OnlineStore(load_settings=lambda: settings))
    loader.start()
    loader.wait(SECONDS)
    served = loader.get()
    endpoint = ENDPOINTS["/recommendations"]
    request = endpoint.request.model_validate({"user_id": buyers[0]})
    assert endpoint.respond(served, request, NOW)["recent_events"] == 1
    # other profiles and models know them as well
    other = served.with_snapshot(replace(served.customers))
    assert other.live is not served.live
    assert endpoint.respond(other, request, NOW)["recent_events"] == 1
    assert replace(other, models=dict(other.models)).live is other.live
    served.events.close()
    log.close()
