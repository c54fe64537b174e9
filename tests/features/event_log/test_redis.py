"""What happens to the log in Redis: a server that ends, has no memory, may lose events, or lost them."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import pytest

from features.event_log.redis_log import RedisLog
from qianmian.errors import StorageError, StorageFull


@pytest.fixture
def log(redis_server):
    redis_server.client.flushall()
    log = RedisLog(redis_server.url)
    yield log
    log.close()


def test_a_server_that_ends_is_an_error_until_it_is_back(log, redis_server, event):
    log.append([event(1)])
    redis_server.kill()
    for call in (log.version, log.header, lambda: log.get([("shop", "u1")]), lambda: log.append([event(2)])):
        with pytest.raises(StorageError, match="the event log failed") as caught:
            call()
        assert caught.value.http_status == 503
    with pytest.raises(StorageError, match="the event log failed"):
        RedisLog(redis_server.url)
    redis_server.start()
    assert [answer.status for answer in log.append([event(1), event(2)])] == ["duplicate", "new"]
    assert [logged.seq for logged in log.get([("shop", "u1")])] == [1, 2]


def test_a_server_without_memory_stores_nothing_in_part(log, redis_server, event):
    log.append([event(0)])
    redis_server.client.config_set("maxmemory", 1)
    with pytest.raises(StorageFull, match="no room") as caught:
        log.append([event(n) for n in range(1, 5)])
    assert caught.value.http_status == 507
    redis_server.client.config_set("maxmemory", 0)
    assert log.header().last_seq == 1
    assert [answer.status for answer in log.append([event(n) for n in range(5)])] == ["duplicate", *["new"] * 4]


def test_settings_that_may_lose_events_are_reported(log, redis_server, caplog):
    with caplog.at_level(logging.WARNING):
        RedisLog(redis_server.url).close()
        assert caplog.messages == []
        redis_server.client.config_set("appendfsync", "everysec")
        RedisLog(redis_server.url).close()
        redis_server.client.config_set("appendfsync", "always")
    (message,) = caplog.messages
    assert message.endswith("setting=appendfsync value=everysec safe=always")


def test_a_flushed_server_fails_once_and_gets_a_new_log(log, redis_server, event):
    log.append([event(1)])
    first = log.header().log_id
    redis_server.client.flushall()
    with pytest.raises(StorageError, match="was removed"):
        log.version()
    with pytest.raises(StorageError, match="replaced"):
        log.append([event(2)])
    assert log.append([event(2)])[0].seq == 1
    assert log.header().log_id != first


def test_a_newer_format_is_refused(log, redis_server):
    redis_server.client.hset("{qianmian:events}:header", "format", 3)
    with pytest.raises(StorageError, match=r"newer version .*got 'format 3'"):
        RedisLog(redis_server.url)


def test_errors_do_not_show_the_password(redis_server):
    with pytest.raises(StorageError) as caught:
        RedisLog(f"redis://user:secret@127.0.0.1:{redis_server.port}/0")
    assert "secret" not in str(caught.value)


def test_nothing_is_left_of_forgotten_users(log, redis_server, event):
    log.append([event(n, source_user_id=f"u{n}") for n in range(5)])
    log.compact(5, 0, datetime(2026, 5, 1, tzinfo=UTC))
    assert {key.decode() for key in redis_server.client.scan_iter()} == {
        "{qianmian:events}:header",
        "{qianmian:events}:stream",
    }
