"""Any order of appends, repetitions, conflicts, compactions and restarts gives what a model in memory gives."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from features.event_log import open_log
from features.event_log.base import Compacted, LoggedEvent, Stored

KEPT_DAYS = 10


class Model:
    """A log without any care for size: all events, and when each was removed."""

    def __init__(self):
        self.events = []  # number n is at n - 1
        self.removed = []  # times, in the same order
        self.forgotten = 0

    def append(self, events):
        answers = []
        for event in events:
            known = [n for n in range(self.forgotten, len(self.events)) if self.events[n].event_id == event.event_id]
            if known:
                answers.append(Stored("duplicate" if self.events[known[0]] == event else "conflict", known[0] + 1))
            else:
                self.events.append(event)
                answers.append(Stored("new", len(self.events)))
        return answers

    def compact(self, through, now):
        events = max(0, min(through, len(self.events)) - len(self.removed))
        self.removed += [now] * events
        before = self.forgotten
        self.forgotten = sum(at <= now - timedelta(days=KEPT_DAYS) for at in self.removed)
        return Compacted(events, self.forgotten - before)

    def present(self, after):
        first = max(after, len(self.removed))
        return [LoggedEvent(n + 1, self.events[n]) for n in range(first, len(self.events))]


@pytest.mark.parametrize("seed", range(4))
def test_any_order(location, event, seed, monkeypatch):
    for module in ("sqlite_steps", "redis_log"):
        monkeypatch.setattr(f"features.event_log.{module}.COMPACTED_AT_ONCE", 5)
    choose = random.Random(seed)
    log, model, now = open_log(location), Model(), datetime(2026, 1, 1, tzinfo=UTC)
    for _ in range(120):
        now += timedelta(days=choose.random() * 2)
        match choose.choices(["append", "compact", "restart"], [8, 1, 1])[0]:
            case "append":
                sent = [
                    event(choose.randrange(60), ts=choose.randrange(2), source_user_id=f"u{choose.randrange(3)}")
                    for _ in range(choose.randrange(6))
                ]
                assert log.append(sent) == model.append(sent)
            case "compact":
                through = choose.randrange(len(model.events) + 3)
                assert log.compact(through, KEPT_DAYS, now) == model.compact(through, now)
            case "restart":
                log.close()
                log = open_log(location)
        after = choose.randrange(len(model.events) + 1)
        header, events = log.tail(after, 1_000)
        assert events == model.present(after)
        assert (header.first_seq, header.last_seq) == (len(model.removed) + 1, len(model.events))
        of_user = [logged for logged in model.present(after) if logged.event.source_user_id == "u1"]
        assert log.get([("shop", "u1")], after) == of_user
        assert log.get([("shop", "u1")], after, most=2) == of_user[-2:]
    log.close()
