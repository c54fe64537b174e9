"""Several processes on one log, of which some are killed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from features.event_log import EventLog, Tail, open_log

WRITING = Path(__file__).with_name("writing.py")
ROOT = WRITING.parents[3]


def start(location: str, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, str(WRITING), location, name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)})


def acknowledged(process: subprocess.Popen[str]) -> set[str]:
    assert process.stdout is not None
    lines = process.stdout.read().splitlines(keepends=True)
    process.wait()
    return {line.strip() for line in lines if line.endswith("\n")}


def read_all(log: EventLog) -> list[str]:
    return [logged.event.event_id for logged in log.tail(0, 100_000).events]


def test_a_reader_sees_the_events_of_two_processes_once_and_in_order(location, log):
    writers = [start(location, name, 40) for name in "ab"]
    tail, seen = Tail(log, 0), []
    deadline = time.monotonic() + 60
    while len(seen) < 320 and time.monotonic() < deadline:
        if tail.changed():
            seen += tail.read(limit=50)
        time.sleep(0.002)
    assert [logged.seq for logged in seen] == list(range(1, 321))
    assert {logged.event.event_id for logged in seen} == set().union(*map(acknowledged, writers))


def kill_writers(location, event, kills):
    """SIGKILL to one of two writers in the middle of its work, again and again."""
    sent: set[str] = set()
    other = start(location, "other", 150)
    for n in range(kills):
        writer = start(location, f"killed{n}", 100_000)
        assert writer.stdout is not None
        sent |= {writer.stdout.readline().strip() for _ in range(20 + 37 * (n % 7))}  # it is at work
        writer.kill()
        sent |= acknowledged(writer)
    sent |= acknowledged(other)
    assert other.returncode == 0
    log = open_log(location)
    stored = read_all(log)
    assert len(stored) == len(set(stored)) == log.header().last_seq
    assert sent <= set(stored)
    known = next(iter(sent)).split("-", 1)
    again = event(0, event_id="-".join(known), ts=int(known[1].split("-")[1]))
    assert log.append([again])[0].status == "duplicate"
    log.close()


def test_killed_writers_lose_nothing_that_was_acknowledged(location, event):
    kill_writers(location, event, kills=3)


@pytest.mark.slow
def test_fifty_killed_writers(location, event):
    kill_writers(location, event, kills=50)
