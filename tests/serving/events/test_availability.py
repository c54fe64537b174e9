"""Items that accepted events take off all lists at once, and bring back."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import orjson
import pytest

from features.event_log import EventLog, open_log
from features.event_log.base import AcceptedEvent
from features.event_log.rows import EventRow, encode
from features.interactions import TrainingSet
from models.bundle import ModelBundle
from models.recommend.popular import PopularRecommender
from models.recommend.scene_models import SceneModels
from qianmian.settings import Settings
from serving.champions import Champion, Champions
from serving.endpoints import ENDPOINTS
from serving.recommending.fill import fill_kept_lists
from serving.recommending.kept_lists import LENGTH
from tests.waiting import until

AS_OF = datetime(2024, 8, 1)
NOW = datetime(2024, 8, 3)


def about(number: int, item: str, available: bool, hours: float = 1.0, source: str = "shop") -> AcceptedEvent:
    row = {"source": source, "source_user_id": "", "ts": AS_OF + timedelta(hours=hours), "item_id": item}
    return encode(EventRow("items", {**row, "available": available}, f"stock{number}"))


def json(champions: Champions, route: str = "/recommendations", **fields):
    endpoint = ENDPOINTS[route]
    body = orjson.loads(endpoint.json(champions, endpoint.request.model_validate(fields), NOW))
    body.pop("recommendation_id")
    return body


def items_of(body) -> list[str]:
    return [item["item_id"] for item in body["items"]]


class Stock:
    """Champions that follow a log, and events about the stock in it."""

    def __init__(self, champions: Champions, log: EventLog, follow) -> None:
        self.log, self.events, self._number = log, follow(log), 0
        self.champions = replace(champions, events=self.events, settings=Settings())
        self.champions.warm()
        self.plain = replace(champions, settings=Settings(serving={"kept_lists": 0}))

    def says(self, item: str, available: bool, hours: float = 1.0, source: str = "shop") -> None:
        """Store an event about an item, and wait until it is known."""
        self._number += 1
        (stored,) = self.log.append([about(self._number, item, available, hours, source)])
        until(lambda: self.events._tail.after >= stored.seq)
        until(lambda: (source, item) in self.events.items._states)
        state = self.events.items._states
        until(lambda: state[source, item].seq == stored.seq or state[source, item].ts > _microseconds(hours))
        with self.events.items._lock:  # held until all catalogues and lists know it
            pass

    def lists(self, route: str = "/recommendations", **fields) -> list[str]:
        return items_of(json(self.champions, route, **fields))


def _microseconds(hours: float) -> int:
    return int((AS_OF + timedelta(hours=hours) - datetime(1970, 1, 1)) / timedelta(microseconds=1))


@pytest.fixture
def stock(champions, log, following) -> Stock:
    return Stock(champions, log, following)


LISTS = {
    "a buyer": ("/recommendations", {"user": 0}),
    "a stranger": ("/recommendations", {"user_id": "nobody"}),
    "discover": ("/recommendations", {"user": 3, "scene": "discover"}),
    "a long list": ("/recommendations", {"user": 1, "num_results": 120}),
    "with reasons": ("/recommendations", {"user": 2, "explain": True}),
    "with a basket": ("/recommendations", {"user_id": "nobody", "scene": "similar", "basket": 1}),
    "re-ranked": ("/recommendations", {"user": 0, "diversity": {"max_per": {"category": 2}}}),
    "filtered": ("/recommendations", {"user": 0, "filters": {"attribute": "price", "op": ">", "value": 0}}),
    "similar items": ("/similar-items", {"like": 2}),
}


@pytest.mark.parametrize("name", LISTS)
def test_an_item_leaves_every_list_and_comes_back(stock, buyers, name):
    route, fields = LISTS[name]
    ids = stock.champions.models["recommend"].catalogue.item_ids
    fields = dict(fields)
    if "user" in fields:
        fields["user_id"] = buyers[fields.pop("user")]
    if "basket" in fields:
        fields["context"] = {"items": [ids[fields.pop("basket")]]}
    if "like" in fields:
        fields["item_id"] = ids[fields.pop("like")]
    before = stock.lists(route, **fields)
    first = before[0]
    without = items_of(json(stock.plain, route, **fields, exclude=[first]))
    stock.says(first, False)
    for _ in range(2):
        assert stock.lists(route, **fields) == without
    stock.says(first, True, 2.0)
    for _ in range(2):
        assert stock.lists(route, **fields) == before


def test_rank_ranks_what_it_is_given(stock, buyers):
    ids = stock.champions.models["recommend"].catalogue.item_ids[:20]
    before = stock.lists("/rank", user_id=buyers[0], item_ids=ids)
    stock.says(before[0], False)
    assert stock.lists("/rank", user_id=buyers[0], item_ids=ids) == before


def test_a_filter_that_names_available_sees_what_holds_now(stock, buyers):
    every, off = {"user_id": buyers[0], "num_results": 500}, {"filters": {"available": False}}
    at_fit = stock.lists(**every, **off)
    first = stock.lists(user_id=buyers[0])[0]
    stock.says(first, False)
    assert set(stock.lists(**every, **off)) == {*at_fit, first}
    on = {"filters": {"attribute": "available", "op": "==", "value": True}}
    assert first not in stock.lists(**every, **on)
    promoted = [{"name": "rest", "filter": {"available": False}, "percent": 50}]
    assert first not in stock.lists(user_id=buyers[0], promotions=promoted), "promoted or not, it is not to be had"
    stock.says(at_fit[0], True)
    assert at_fit[0] in stock.lists(**every, **on)
    assert at_fit[0] in stock.lists(**every), "an item that was off when the model was trained"


def test_the_latest_time_counts_and_then_the_latest_in_the_log(stock, buyers):
    first = stock.lists(user_id=buyers[0])[0]
    for hours, available, shown in (
        (-1.0, False, True),  # before the `as_of` of the model, whose catalogue knows better
        (5.0, False, False),
        (4.0, True, False),  # late
        (5.0, True, True),
        (5.0, False, False),
        (6.0, True, True),
        (5.5, False, True),
    ):
        stock.says(first, available, hours)
        assert (first in stock.lists(user_id=buyers[0])) is shown, (hours, available)


def test_an_event_that_the_lake_of_the_model_did_not_have_counts_however_late(champions, log, following, buyers):
    champion = champions.models["recommend"]
    position = {"log_id": log.header().log_id, "seq": 1}
    bundle = replace(champion.bundle, facts={**champion.bundle.facts, "event_log": position})
    models = {**champions.models, "recommend": replace(champion, bundle=bundle)}
    stock = Stock(replace(champions, models=models), log, following)
    first, second = stock.lists(user_id=buyers[0])[:2]
    stock.says(first, False, -2.0)
    assert first in stock.lists(user_id=buyers[0])
    stock.says(second, False, -2.0)
    assert second not in stock.lists(user_id=buyers[0])


def keys_of(kept) -> set:
    return set(kept._lists)


def test_a_change_drops_the_lists_that_it_makes_wrong_and_no_others(stock, buyers):
    kept, users = stock.champions.kept_lists, buyers[:40]
    lists = {user: stock.lists(user_id=user, num_results=LENGTH) for user in users}
    with_item = {item: {user for user in users if item in lists[user]} for item in lists[users[0]]}
    item = min(with_item, key=lambda item: abs(len(with_item[item]) - 20))
    assert 0 < len(with_item[item]) < len(users)
    catalogue = stock.champions.models["recommend"].catalogue
    row = {user: catalogue.user_row(stock.plain.customers.resolve(user)) for user in users}
    all_keys = keys_of(kept)
    stock.says(item, False)
    assert {key[1] for key in all_keys - keys_of(kept)} == {row[user] for user in with_item[item]}
    made = sorted(with_item[item])[:3]
    for user in made:
        assert item not in stock.lists(user_id=user)
    before = keys_of(kept)
    stock.says(item, False, 2.0)  # says nothing new
    stock.says("an item that no model knows", False)
    assert keys_of(kept) == before
    stock.says(item, True, 3.0)
    assert {key[1] for key in before - keys_of(kept)} == {row[user] for user in made}
    assert {user: stock.lists(user_id=user, num_results=LENGTH) for user in users} == lists


def test_the_reason_for_a_short_list_counts_what_is_available_now(stock, buyers):
    short = {"user_id": buyers[-1], "purchased": "only", "num_results": LENGTH}
    before = [json(stock.champions, **short) for _ in range(2)]
    assert before[0] == before[1]
    assert "removing unavailable items leaves" in before[0]["short_reason"]
    shown = items_of(before[0])
    other = next(item for item in stock.lists(user_id=buyers[0]) if item not in shown)
    stock.says(other, False)
    after = json(stock.champions, **short)
    assert items_of(after) == shown
    assert after["short_reason"] != before[0]["short_reason"]
    computed = replace(stock.champions, settings=Settings(serving={"kept_lists": 0}))
    assert after == json(computed, **short)


def test_lists_that_are_computed_meanwhile_are_not_kept_wrong(stock, buyers):
    """Threads ask while items come and go: what is kept in the end is what is computed then."""
    users, stop = buyers[:6], threading.Event()
    popular = stock.lists(user_id="nobody", num_results=LENGTH)[:4]

    def ask() -> None:
        while not stop.is_set():
            for user in users:
                json(stock.champions, user_id=user, num_results=5)

    pool = ThreadPoolExecutor(3)
    asking = [pool.submit(ask) for _ in range(3)]
    for turn in range(40):
        stock.says(popular[turn % 4], turn % 8 >= 4, 1.0 + turn / 60)
        if turn % 10 == 9:
            for user in users:
                shown = set(stock.lists(user_id=user, num_results=5))
                off = ~stock.champions.availability.catalogue.available
                ids = stock.champions.models["recommend"].catalogue.item_ids
                assert not shown & {ids[column] for column in np.flatnonzero(off)}
    stop.set()
    for future in asking:
        future.result()
    computed = replace(stock.champions, settings=Settings(serving={"kept_lists": 0}))
    for user in users:
        assert json(stock.champions, user_id=user, num_results=5) == json(computed, user_id=user, num_results=5)


def test_lists_that_are_filled_in_the_background_know_the_stock(stock):
    first = stock.lists(user_id="nobody")[0]
    stock.says(first, False)
    assert fill_kept_lists(stock.champions, lambda _: None) > 100
    column = stock.champions.models["recommend"].catalogue.item_column(first)
    assert not any(column in kept.ranked.ids for kept in stock.champions.kept_lists._lists.values())
    stock.says(first, True, 2.0)
    assert not len(stock.champions.kept_lists)


def test_another_champion_knows_what_came_after_its_data(stock, buyers):
    first, second = stock.lists(user_id=buyers[0])[:2]
    stock.says(first, False, 1.0)
    stock.says(second, False, 30.0)
    champion = stock.champions.models["recommend"]
    later = replace(champion, bundle=replace(champion.bundle, as_of=AS_OF + timedelta(days=1)))
    loaded = replace(stock.champions, models={**stock.champions.models, "recommend": later})
    shown = items_of(json(loaded, user_id=buyers[0]))
    assert first in shown, "the new catalogue knows better"
    assert second not in shown
    assert loaded.kept_lists is not stock.champions.kept_lists
    stock.says(second, True, 31.0)
    assert second in items_of(json(loaded, user_id=buyers[0]))
    assert second in stock.lists(user_id=buyers[0])
    assert stock.champions.with_snapshot(replace(stock.plain.customers)).availability is stock.champions.availability


def test_another_log_begins_with_the_catalogue(champions, buyers, tmp_path, following):
    log = open_log(tmp_path / "replaced.db")
    stock = Stock(champions, log, following)
    before = stock.lists(user_id=buyers[0])
    stock.says(before[0], False)
    assert stock.lists(user_id=buyers[0]) != before
    for file in tmp_path.glob("replaced.db*"):
        file.unlink()
    other = open_log(tmp_path / "replaced.db")
    other.append([about(1, "another", False)])
    until(lambda: ("shop", "another") in stock.events.items._states)
    assert stock.lists(user_id=buyers[0]) == before
    other.close()
    log.close()


def test_an_event_that_cannot_be_read_changes_nothing(stock, buyers):
    before = stock.lists(user_id=buyers[0])
    stock.log.append([AcceptedEvent("shop", "1", "", 0, b'{"row":'), AcceptedEvent("shop", "2", "", 0, b'{"row":{}}')])
    stock.says("unknown", False)
    assert stock.lists(user_id=buyers[0]) == before
    assert not stock.events.lost
    assert not stock.champions.live.has_any(None, ""), "an event about an item is no customer's"


@pytest.fixture
def two_sources(champions) -> Champions:
    """Champions whose items are those of two sources, one of which has item ids of its own."""
    names = ["milk", "web:milk", "web:tea", "bread"]
    users = np.repeat(np.arange(4), [4, 3, 2, 1])
    train = TrainingSet.from_arrays(users, np.array([0, 1, 2, 3, 0, 1, 2, 0, 1, 0]), n_users=4, n_items=4)
    bundle = ModelBundle(
        "scenes",
        SceneModels({"popular": PopularRecommender().fit(train)}, {"home": ["popular"]}),
        AS_OF,
        user_ids=np.array(champions.customers.one_ids[:4]),
        item_ids=np.array(names),
        item_attributes=train.item_attributes,
        facts={},
    )
    return replace(champions, models={"recommend": Champion("recommend", "1", bundle)})


def test_item_ids_as_their_source_or_the_lake_writes_them(two_sources, log, following):
    stock = Stock(two_sources, log, following)
    every = stock.lists(user_id="nobody")
    assert set(every) == {"milk", "web:milk", "web:tea", "bread"}
    for source, item, meant in (
        ("web", "milk", "web:milk"),
        ("web", "web:tea", "web:tea"),
        ("shop", "milk", "milk"),
        ("shop", "bread", "bread"),
        ("web", "bread", None),
    ):
        stock.says(item, False, 1.0, source)
        assert set(every) - set(stock.lists(user_id="nobody")) == ({meant} if meant else set()), (source, item)
        stock.says(item, True, 2.0, source)
        assert stock.lists(user_id="nobody") == every
    stock.says("milk", False, 3.0, "web")
    stock.says("web:milk", True, 4.0, "web")
    assert stock.lists(user_id="nobody") == every, "both write the same item"
    row = {"event_id": "e", "source": "web", "source_user_id": "v", "ts": AS_OF + timedelta(hours=1)}
    line = {"order_id": "o", "item_id": "milk", "line_no": 1, "quantity": 1.0, "status": "paid"}
    log.append([encode(EventRow("transactions", {**row, **line}, "e"))])
    until(lambda: stock.champions.live.has_any(None, "v"))
    assert set(every) - set(stock.lists(user_id="v", user_source="web", purchased="never")) == {"web:milk"}


def test_a_catalogue_keeps_nothing_of_the_sources_that_events_name(two_sources):
    catalogue = two_sources.models["recommend"].catalogue
    catalogue.warm()
    before = {name: len(value) for name, value in catalogue.__dict__.items() if isinstance(value, dict | frozenset)}
    assert {catalogue.lake_item_id("milk", f"source{number}") for number in range(100)} == {"milk"}
    assert before == {name: len(value) for name, value in catalogue.__dict__.items() if name in before}
