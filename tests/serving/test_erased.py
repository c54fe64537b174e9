"""An erased customer is unknown to every answer, in this process at once, and in all workers of a server."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from features.data.pii_key import PiiKey, load_key
from features.erasure.customer import ErasedCustomer
from features.erasure.hasher import TombstoneHasher
from features.erasure.tombstones import add_tombstones, tombstone
from features.event_log import open_log
from features.event_log.erasing import erase_events
from features.event_log.rows import encode, make_row
from qianmian.errors import NotReady, QianmianError
from qianmian.settings import Settings
from qianmian.workspace import Workspace, write_json
from serving.champions import load_from_workspace
from serving.endpoints import ENDPOINTS
from serving.events.live import LiveEvents
from serving.events.store import OnlineStore
from serving.following import WorkspaceSource
from serving.loading import BackgroundLoader
from serving.server import running
from tests.redis_server import start_redis
from tests.waiting import until

AS_OF = datetime(2024, 8, 1)
NOW = datetime(2024, 8, 3)
KEY = "a key of the workspace"
SEED = 30


def hashes(*users: tuple[str, str]) -> list[str]:
    return [tombstone(PiiKey.of(KEY), *user) for user in users]


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("QIANMIAN_PII_KEY", KEY)


@pytest.fixture
def sources(champions) -> dict[str, str]:
    return {row["source_user_id"]: row["source"] for row in champions.customers.customers.to_pylist()}


def users_of(champions, user: str) -> list[tuple[str, str]]:
    rows = champions.customers.customers.to_pylist()
    (one_id,) = {row["one_id"] for row in rows if row["source_user_id"] == user}
    return [(row["source"], row["source_user_id"]) for row in rows if row["one_id"] == one_id]


def answers(call: Callable[[str, dict[str, Any]], dict[str, Any]], user: str, item: str, seeds: list[str]):
    """What every route says of a customer, without what differs between two requests."""
    bodies = {
        "/recommendations": {"user_id": user},
        "/rank": {"user_id": user, "item_ids": [item]},
        "/profile": {"user_id": user},
        "/churn": {"user_ids": [user]},
        "/predictions": {"user_ids": [user]},
        "/lookalike": {"seed_user_ids": [user, *seeds], "size": 3, "with_evidence": False},
    }
    found = {route: call(route, body) for route, body in bodies.items()}
    for body in found.values():
        body.pop("recommendation_id", None)
    return json.loads(json.dumps(found, default=str).replace(user, "USER"))


def test_an_erased_customer_is_an_unknown_one_at_once(champions, buyers, sources, tmp_path):
    log = open_log(tmp_path / "events.db", TombstoneHasher())
    events = LiveEvents(lambda: log, hasher=TombstoneHasher())
    events.start()
    events.wait(30)
    served = replace(champions, events=events)
    served.warm()
    items = served.models["recommend"].catalogue.item_ids

    def call(route: str, body: dict[str, Any]) -> dict[str, Any]:
        endpoint = ENDPOINTS[route]
        return json.loads(endpoint.json(served, endpoint.request.model_validate(body), NOW))

    def audience() -> list[str]:
        body = {"seed_user_ids": buyers[:SEED], "size": 10, "with_evidence": False}
        return [user["user_id"] for user in call("/lookalike", body)["users"]]

    gone = audience()[0]  # who must not be recommended as one of an audience either
    gone_users, visitor = users_of(champions, gone), (sources[gone], "visit-1")
    moment = {"ts": AS_OF + timedelta(hours=1), "source": sources[gone]}
    rows = [
        {**moment, "event_type": "purchase", "item_id": str(items[0]), "source_user_id": gone},
        {**moment, "event_type": "purchase", "item_id": str(items[1]), "source_user_id": "visit-1"},
        {**moment, "event_type": "login", "anonymous_id": "visit-1", "source_user_id": gone},
        {**moment, "event_type": "consent", "channel": "sms", "granted": True, "source_user_id": gone},
        {**moment, "event_type": "purchase", "item_id": str(items[0]), "source_user_id": buyers[1]},
    ]
    log.append([encode(make_row(f"e{n}", row)) for n, row in enumerate(rows)])
    until(lambda: call("/recommendations", {"user_id": gone}).get("recent_events") == 2)
    assert call("/profile", {"user_id": gone})["known"]
    assert call("/profile", {"user_id": "visit-1"})["known"]
    unknown = answers(call, "nobody we know", items[0], buyers[:SEED])
    other = call("/recommendations", {"user_id": buyers[1]})
    assert unknown != answers(call, gone, items[0], buyers[:SEED])

    log.erase([*gone_users, visitor], hashes(*gone_users, visitor))
    until(lambda: len(events._last) == 1 and not events._read)
    unknown = answers(call, "nobody we know", items[0], buyers[:SEED])  # without the customer in the audience
    assert answers(call, gone, items[0], buyers[:SEED]) == unknown
    assert answers(call, "visit-1", items[0], buyers[:SEED]) == unknown
    assert gone not in audience()
    assert len(audience()) == 10
    assert call("/recommendations", {"user_id": buyers[1]})["items"] == other["items"]
    assert not events._joins.visitors()
    assert not events._consents._told
    assert {user for users in events._read for user in users} <= {(sources[buyers[1]], buyers[1])}
    events.close()
    log.close()


def test_without_the_key_no_customer_is_answered(champions, buyers, sources, tmp_path, monkeypatch):
    """The key is missing as long as nobody was erased; it is found as soon as it is there."""
    monkeypatch.delenv("QIANMIAN_PII_KEY")
    monkeypatch.setenv("QIANMIAN_ONLINE_STORE", str(tmp_path / "events.db"))
    gone = sources[buyers[0]], buyers[0]
    log = open_log(tmp_path / "events.db")
    loader = BackgroundLoader(lambda: champions, store=OnlineStore(Workspace(tmp_path).create()))
    loader.start()
    loader.wait(30)
    served, endpoint = loader.get(), ENDPOINTS["/profile"]

    def known(user: str) -> bool:
        return endpoint.respond(served, endpoint.request.model_validate({"user_id": user}), NOW)["known"]

    assert loader.why_not_ready() is None
    assert known(buyers[0])
    log.erase([gone], hashes(gone))
    until(lambda: loader.why_not_ready() is not None)
    reason = loader.why_not_ready()
    assert isinstance(reason, NotReady)
    assert "the key that recognises them is missing" in reason.message
    with pytest.raises(QianmianError, match="key"):
        known(buyers[1])
    (tmp_path / "secrets").mkdir(exist_ok=True)
    (tmp_path / "secrets" / "pii.key").write_text(KEY)
    until(lambda: loader.why_not_ready() is None)
    assert not known(buyers[0])
    assert known(buyers[1])
    served.events.close()
    log.close()


def test_tombstones_of_the_workspace_count_if_the_log_is_another_one(champions, buyers, sources, tmp_path):
    """A log that was lost, or a store that cannot be reached, brings nobody back."""
    workspace, gone = Workspace(tmp_path).create(), (sources[buyers[0]], buyers[0])
    add_tombstones(workspace, PiiKey.of(KEY), [gone])
    loader = BackgroundLoader(lambda: champions, store=OnlineStore(workspace))
    loader.start()
    loader.wait(30)
    assert loader.get().resolve(buyers[0], None) is None
    assert loader.get().live.resolve(buyers[0], None) is None
    assert loader.get().resolve(buyers[1], None) is not None
    loader.get().events.close()


def test_after_an_erasure_everything_is_loaded_again(workspace, tmp_path, monkeypatch):
    copied = Workspace(tmp_path / "shop")
    shutil.copytree(workspace.root, copied.root, ignore=shutil.ignore_patterns(".serve-*", "events.db*"))
    source = WorkspaceSource(copied)
    champions = source.load()
    assert source.moved() == {}
    write_json(copied.root / "erasures" / "last.json", {"erasure_id": "7f3a"})
    moved = source.moved()
    assert set(moved) == {"profiles", *champions.models}
    assert source.moved() == {}
    with monkeypatch.context() as patch:
        patch.setattr("serving.following._last_erasure", lambda _workspace: "")
        assert source.moved() == {}, "what cannot be read now has not moved"
    loaded = champions
    for part, pointer in moved.items():
        loaded = source.with_part(loaded, part, pointer)
        assert source.with_part(loaded, part, pointer) is loaded or part == "profiles", "once"
    assert loaded.snapshot is not champions.snapshot
    assert all(loaded.models[job] is not champions.models[job] for job in champions.models)
    assert {job: model.version for job, model in loaded.models.items()} == {
        job: model.version for job, model in champions.models.items()
    }
    assert loaded.kept_lists is not champions.kept_lists


# ---- servers ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(workspace: Workspace, tmp_path: Path) -> Workspace:
    copied = Workspace(tmp_path / "shop")
    shutil.copytree(workspace.root, copied.root, ignore=shutil.ignore_patterns(".serve-*", "events.db*"))
    load_from_workspace(copied, Settings())  # the copy gets the addresses of its own folder
    return copied


@pytest.fixture(params=["sqlite", "redis"])
def store(request, tmp_path) -> Iterator[tuple[str, Path]]:
    """Where the log is, and the folder of its files."""
    if request.param == "sqlite":
        (tmp_path / "log").mkdir()
        yield str(tmp_path / "log" / "events.db"), tmp_path / "log"
        return
    server = start_redis(tmp_path / "redis")
    yield server.url, server.folder
    server.kill()


@pytest.mark.slow
def test_two_workers_forget_a_customer_of_whom_four_clients_send_events(
    shop, champions, buyers, sources, store, server_environment, request_, monkeypatch, tmp_path
):
    location, folder = store
    gone, item = buyers[0], champions.models["recommend"].catalogue.item_ids[0]
    customer = ErasedCustomer(tuple(users_of(champions, gone)), ())
    monkeypatch.delenv("QIANMIAN_PII_KEY")  # the shop has a key of its own
    monkeypatch.setenv("QIANMIAN_ONLINE_STORE", location)
    env = {**server_environment(shop, 2), "QIANMIAN_ONLINE_STORE": location}
    log = tmp_path / "server.log"
    with log.open("wb") as handle, running(shop, workers=2, env=env, log=handle) as url:
        ended = threading.Event()

        def call(route: str, body: dict[str, Any]) -> dict[str, Any]:
            status, found = request_(f"{url}/v1{route}", body)
            assert status == 200, found
            return found

        def send(client: int) -> list[str]:
            """What becomes of the events of the customer, in their order."""
            said, number = [], 0
            while not ended.is_set():
                event = {"user_source": sources[gone], "event_type": "purchase", "item_id": item, "ts": NOW.isoformat()}
                ids = {f"{client}-{number}": gone, f"{client}-{number}-other": f"other-{client}"}
                body = call("/events", {"events": [{**event, "event_id": e, "user_id": u} for e, u in ids.items()]})
                said.append(body["rejected"][0]["error"]["code"] if body["rejected"] else "stored")
                assert [found["index"] for found in body["rejected"]] == [0] * len(body["rejected"])
                number += 1
            return said

        def everywhere(holds: Callable[[], bool]) -> bool:
            return all(holds() for _ in range(20))  # connections go to either worker

        with ThreadPoolExecutor(4) as pool:
            sending = [pool.submit(send, client) for client in range(4)]
            try:
                until(lambda: everywhere(lambda: "recent_events" in call("/recommendations", {"user_id": gone})))
                add_tombstones(shop, load_key(shop), customer.users)
                assert erase_events(shop, customer).removed > 0
                left = bytes_in(folder)
                until(lambda: everywhere(lambda: not call("/profile", {"user_id": gone})["known"]))
                unknown = answers(call, "nobody we know", item, buyers[1:SEED])
                for _ in range(6):
                    assert answers(call, gone, item, buyers[1:SEED]) == unknown
                time.sleep(0.5)
            finally:
                ended.set()
            for future in sending:
                said = future.result()
                assert said == sorted(said, key=["stored", "erased"].index)
                assert set(said) == {"stored", "erased"}
        write_json(shop.root / "erasures" / "last.json", {"erasure_id": "7f3a"})
        until(lambda: log.read_text().count("after erasure 7f3a") >= 2 * (1 + len(champions.models)))
        assert "reload=refused" not in log.read_text()
        assert answers(call, gone, item, buyers[1:SEED]) == unknown
    for found in (left, bytes_in(folder)):
        assert gone.encode() not in found
    assert gone not in log.read_text()


def bytes_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_a_server_erases_a_customer_with_the_real_command(
    shop, buyers, sources, server_environment, request_, tmp_path, monkeypatch
):
    monkeypatch.delenv("QIANMIAN_PII_KEY")
    gone, log = buyers[0], tmp_path / "server.log"
    with log.open("wb") as handle, running(shop, env=server_environment(shop), log=handle) as url:

        def call(route: str, body: dict[str, Any]) -> tuple[int, Any]:
            return request_(f"{url}/v1{route}", body)

        event = {"event_id": "e1", "user_id": gone, "user_source": sources[gone], "ts": NOW.isoformat()}
        assert call("/events", {"events": [{**event, "event_type": "view"}]})[1]["accepted"] == 1
        assert call("/profile", {"user_id": gone})[1]["known"]
        status, body = call("/erase", {"user_id": "nobody we know", "user_source": sources[gone]})
        assert (status, body["error"]["code"]) == (404, "not_found")
        body = {"user_id": gone, "reason": "ticket 4711"}
        deadline = time.monotonic() + 120
        while (answer := call("/erase", body))[0] == 202:
            assert time.monotonic() < deadline
        status, found = answer
        assert (status, found["status"]) == (200, "done"), found
        assert found["receipt"]["removed"]["event_log"] == 1
        assert not call("/profile", {"user_id": gone})[1]["known"]
        refused = call("/events", {"events": [{**event, "event_type": "view"}]})[1]["rejected"]
        assert refused[0]["error"]["code"] == "erased"
        again = call("/erase", {**body, "user_source": sources[gone]})
        assert (again[0], again[1]["erasure_id"]) == (200, found["erasure_id"])
        until(lambda: "after erasure" in log.read_text())
        assert not call("/profile", {"user_id": gone})[1]["known"]
    assert gone not in log.read_text()
