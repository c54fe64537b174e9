"""Backups that are made while a server runs, and what is restored from them."""

from __future__ import annotations

import shutil
import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from deploy.backup import back_up
from deploy.erased_again import erased_again
from deploy.local_servers import PostgresServer, RedisServer
from features.data.lake import Lake
from features.data.locking import exclusive_writer
from features.data.pii_key import load_key
from features.erasure.tombstones import add_tombstones
from features.event_log import open_log
from features.event_log.rows import encode, make_row
from features.profiles.building import ensure_snapshot
from qianmian.errors import UsageError, WorkspaceError
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from serving.champions import load_from_workspace
from serving.model_registry import champion_versions
from serving.server import running
from tests.redis_server import start_redis

AS_OF = datetime(2024, 8, 1)


def view(number: int, **fields: Any) -> Any:
    moment = AS_OF + timedelta(minutes=number % 1000)
    row = {"source": "app", "source_user_id": f"u{number}", "event_type": "view", "item_id": "i1", "ts": moment}
    return encode(make_row(f"e{number}", {**row, **fields}))


@pytest.fixture
def shop(workspace: Workspace, tmp_path: Path) -> Workspace:
    copied = Workspace(tmp_path / "shop")
    shutil.copytree(workspace.root, copied.root)
    assert (copied.root / "secrets" / "pii.key").exists()
    (copied.root / "erasures").mkdir(exist_ok=True)
    load_from_workspace(copied, Settings())  # the copy gets the addresses of its own folder
    return copied


def test_a_backup_has_what_the_log_had_at_one_moment_while_events_arrive(shop: Workspace, tmp_path: Path) -> None:
    log, end = open_log(str(shop.online / "events.db")), threading.Event()
    first = log.header().last_seq  # those that the copied workspace has
    stored = [1] * first

    def send() -> None:
        while not end.is_set():
            log.append([view(len(stored))])
            stored.append(1)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        before = len(stored)
        restored = Workspace(back_up(shop, tmp_path / "backup") / "workspace")
    finally:
        end.set()
        sender.join()
        log.close()
    copy = open_log(str(restored.online / "events.db"))
    assert before <= copy.header().last_seq <= len(stored)
    assert copy.header().last_seq == first or copy.append([view(first)])[0].status == "duplicate"
    copy.close()
    shutil.rmtree(shop.root)  # nothing is read from the original
    served = load_from_workspace(restored, Settings())
    assert served.models.keys() == champion_versions(restored).keys() >= {"recommend", "churn"}
    assert not served.problems
    assert not served.failures
    assert not [name for name in ("secrets", "erasures") if (restored.root / name).exists()]
    assert (tmp_path / "backup").stat().st_mode & 0o077 == 0


def test_a_backup_replaces_nothing_and_waits_for_no_ingest(shop: Workspace, tmp_path: Path) -> None:
    with exclusive_writer(shop), pytest.raises(WorkspaceError, match="another process is writing"):
        back_up(shop, tmp_path / "backup")
    assert not (tmp_path / "backup").exists()
    (tmp_path / "backup").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        back_up(shop, tmp_path / "backup")


def test_stores_on_servers_are_copied_and_restored(
    postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    shop = Workspace(tmp_path / "shop").create()
    redis_server = start_redis(tmp_path / "redis", "the-password")
    log = open_log(redis_server.url)
    log.append([view(number) for number in range(100)])
    header = log.header()
    log.close()
    postgres_server.create_database("original")
    client = MlflowClient(postgres_server.url("original"), postgres_server.url("original"))
    client.create_registered_model("qianmian-churn")
    client.create_model_version("qianmian-churn", str(shop.artifact_root))
    client.set_registered_model_alias("qianmian-churn", "champion", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres_server.url("original"))
    monkeypatch.setenv("QIANMIAN_ONLINE_STORE", redis_server.url)

    backup = back_up(shop, tmp_path / "backup")
    redis_server.kill()
    assert sorted(path.name for path in backup.iterdir()) == ["events.rdb", "mlflow.dump", "workspace"]
    assert not list(backup.rglob("*.db")), "stores that are not in use are not copied"

    postgres_server.create_database("restored")
    postgres_server.restore("restored", backup / "mlflow.dump")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres_server.url("restored"))
    assert champion_versions(shop) == {"churn": "1"}
    other = RedisServer.from_dump(tmp_path / "other", backup / "events.rdb", "the-password")
    other.kill()
    other.start()  # from its own file
    log = open_log(other.url)
    assert log.header() == header
    assert log.append([view(7)])[0].status == "duplicate"
    log.close()
    other.kill()


def test_erased_users_of_a_restored_lake_are_found_by_their_tombstones(shop: Workspace) -> None:
    assert list(erased_again(shop)) == []
    customers = Lake(shop).connect().con.execute("SELECT source, source_user_id FROM customers LIMIT 3").fetchall()
    add_tombstones(shop, load_key(shop), [customers[1], ("app", "nobody")])
    assert list(erased_again(shop)) == [customers[1]]


@pytest.mark.slow
def test_a_restored_workspace_answers_as_the_original_did(
    shop: Workspace, buyers: list[str], server_environment: Any, request_: Any, tmp_path: Path
) -> None:
    ensure_snapshot(shop, AS_OF, Settings())
    questions = [("/v1/recommendations", {"user_id": user}) for user in buyers[:30]]
    questions += [("/v1/profile", {"user_id": user}) for user in buyers[:30]] + [("/v1/churn", {"user_ids": buyers})]

    def answers(url: str) -> list[Any]:
        found = [request_(url + path, body) for path, body in questions]
        assert {status for status, _ in found} == {200}
        return [{name: value for name, value in body.items() if name != "recommendation_id"} for _, body in found]

    with running(shop, env=server_environment(shop)) as url:
        event = {"event_id": "e1", "user_id": buyers[0], "event_type": "view", "item_id": "i1", "user_source": "app"}
        body = {"events": [{**event, "ts": (AS_OF + timedelta(hours=1)).isoformat()}]}
        assert request_(f"{url}/v1/events", body)[1]["accepted"] == 1
        restored = Workspace(back_up(shop, tmp_path / "backup") / "workspace")
        before = answers(url)
    shutil.rmtree(shop.root)
    with running(restored, env=server_environment(restored)) as url:
        assert answers(url) == before
        assert request_(f"{url}/v1/events", body)[1]["duplicates"] == 1
