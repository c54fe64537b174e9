from __future__ import annotations

import threading
import time

import pytest

from features.event_log import AcceptedEvent, file_changes, open_log
from features.event_log.file_changes import FileChanges

LONG = 20.0  # seconds, of which a test takes next to nothing


@pytest.fixture
def changes(tmp_path):
    made = FileChanges(tmp_path / "events.db")
    yield made
    made.close()


def waited(changes, seconds):
    started = time.monotonic()
    changes.wait(seconds)
    return time.monotonic() - started


def test_a_write_to_the_file_or_beside_it_ends_the_wait(changes, tmp_path):
    for name in ("events.db", "events.db-wal"):
        timer = threading.Timer(0.05, (tmp_path / name).write_bytes, [b"x"])
        timer.start()
        assert waited(changes, LONG) < LONG / 2
        timer.join()
        waited(changes, 0.01)  # what the rest of that write tells


def test_a_write_before_the_wait_is_told_once(changes, tmp_path):
    (tmp_path / "events.db-wal").write_bytes(b"x")
    assert waited(changes, LONG) < LONG / 2
    assert waited(changes, 0.1) >= 0.1


def test_other_files_of_the_folder_are_not_told(changes, tmp_path):
    (tmp_path / "models.db").write_bytes(b"x")
    (tmp_path / "a").write_bytes(b"x")
    assert waited(changes, 0.1) >= 0.1


def test_a_file_that_takes_the_place_of_another_is_told(changes, tmp_path):
    (tmp_path / "copy").write_bytes(b"x")
    (tmp_path / "copy").rename(tmp_path / "events.db")
    assert waited(changes, LONG) < LONG / 2


def test_without_inotify_it_is_time_to_look_every_few_milliseconds(monkeypatch, tmp_path):
    monkeypatch.setattr(file_changes, "_watch", lambda folder: None)
    changes = FileChanges(tmp_path / "events.db")
    assert waited(changes, LONG) < LONG / 2
    changes.close()


def test_a_folder_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        FileChanges(tmp_path / "missing" / "events.db")


def test_a_log_in_a_folder_that_has_taken_the_place_of_another_is_waited_for(tmp_path):
    path = tmp_path / "online" / "events.db"
    path.parent.mkdir()
    log = open_log(path)
    log.version()
    log.wait(0, 0.01)
    path.parent.rename(tmp_path / "moved")
    path.parent.mkdir()
    other = open_log(path)
    log.version()  # finds the new file, as each look does
    started = time.monotonic()
    log.wait(0, LONG)
    timer = threading.Timer(0.05, other.append, [[AcceptedEvent("shop", "e", "u", 0, b"{}")]])
    timer.start()
    log.wait(0, LONG)
    assert time.monotonic() - started < LONG / 2
    timer.join()
    other.close()
    log.close()
