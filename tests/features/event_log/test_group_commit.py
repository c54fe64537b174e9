"""The queue in front of a store: what becomes one batch, and what a failure does."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from features.event_log.base import Stored
from features.event_log.group_commit import GroupCommit
from qianmian.errors import StorageError


class Store:
    """Keeps the batches; the first commit waits until the test lets it end."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.error: Exception | None = None

    def commit(self, batch):
        self.batches.append([identified.event.event_id for identified in batch])
        self.begun.set()
        assert self.go_on.wait(30)
        if self.error is not None:
            raise self.error
        return [Stored("new", int(event_id[1:])) for event_id in self.batches[-1]]


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def group(store):
    group = GroupCommit(store.commit, max_waiting=1_000)
    yield group
    store.go_on.set()
    group.close()


def gather(group, store, event, calls, size):
    """Queue calls of some events while the first commit runs, then let it end; the futures of all calls."""
    with ThreadPoolExecutor(calls + 1) as pool:
        futures = [pool.submit(group.append, [event(0)])]
        assert store.begun.wait(30)
        for call in range(calls):
            numbers = range(1 + call * size, 1 + (call + 1) * size)
            futures.append(pool.submit(group.append, [event(n) for n in numbers]))
        while group._waiting < 1 + calls * size:
            threading.Event().wait(0.001)
        store.go_on.set()
    return futures


def test_what_waits_is_one_batch_and_each_caller_gets_its_part(group, store, event):
    futures = gather(group, store, event, calls=8, size=3)
    assert [len(batch) for batch in store.batches] == [1, 24]
    for call, future in enumerate(futures[1:]):
        assert [stored.seq for stored in future.result()] == [1 + call * 3 + n for n in range(3)]


def test_a_batch_has_whole_calls_up_to_a_size(group, store, event, monkeypatch):
    monkeypatch.setattr("features.event_log.group_commit.MAX_BATCH", 10)
    gather(group, store, event, calls=8, size=4)
    assert [len(batch) for batch in store.batches] == [1, 12, 12, 8]


@pytest.mark.parametrize(
    "error", [StorageError("no"), ValueError("a mistake of the program")], ids=["storage", "other"]
)
def test_a_failure_reaches_every_caller_and_ends_nothing(group, store, event, error):
    store.error = error
    for future in gather(group, store, event, calls=4, size=2):
        with pytest.raises(type(error), match=str(error)):
            future.result()
    store.error = None
    assert group.append([event(7)]) == [Stored("new", 7)]
    assert group._waiting == 0
