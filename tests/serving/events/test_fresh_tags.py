"""Tags that are computed with accepted events are those of a build at that moment over the same rows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from features.compute.builder import Builder
from features.compute.online.build import build_state
from features.data.lake import Lake
from features.definitions import FEATURES
from features.event_log import open_log
from features.event_log.rows import encode, make_row
from features.profiles.building import build_snapshot
from features.profiles.snapshot import ONLINE_STATE_FOLDER, Snapshot
from qianmian.settings import Settings
from serving.endpoints import ENDPOINTS
from serving.events.fresh_tags import FreshTags
from serving.events.live import LiveEvents

AS_OF = datetime(2024, 7, 18)
NOW = datetime(2024, 8, 1)
SECONDS = 60


@pytest.fixture(scope="module")
def builder(workspace) -> Builder:
    return Builder(Lake(workspace), FEATURES)


@pytest.fixture(scope="module")
def published(builder, tmp_path_factory) -> Snapshot:
    """Profiles at `AS_OF` with their online state, as they are read from their folder."""
    folder = tmp_path_factory.mktemp("published") / "profiles"
    built = build_snapshot(builder, AS_OF, Settings())
    built.save(folder)
    build_state(builder, AS_OF, built.spec.features).save(folder / ONLINE_STATE_FOLDER)
    return Snapshot.load(folder)


@pytest.fixture(scope="module")
def accepted(workspace) -> dict[str, list]:
    """The rows of the lake from `AS_OF` on, as accepted events by (source, user id)."""
    found: dict[tuple[str, str], list] = {}
    lake = Lake(workspace).connect(("events", "transactions"))
    for table in ("events", "transactions"):
        for number, row in enumerate(lake.table(table).to_pyarrow().to_pylist()):
            if row["ts"] is None or row["ts"] < AS_OF or row["source_user_id"] is None:
                continue
            values = {name: value for name, value in row.items() if value is not None and name != "date_only"}
            event_id = values.pop("event_id", f"{table}{number}")
            kind = {"event_type": "purchase"} if table == "transactions" else {}
            found.setdefault((row["source"], row["source_user_id"]), []).append(make_row(event_id, {**values, **kind}))
    return found


def users_of(snapshot: Snapshot, one_id: str) -> list[tuple[str, str]]:
    rows = snapshot.customers.to_pylist()
    return [(row["source"], row["source_user_id"]) for row in rows if row["one_id"] == one_id]


def test_fresh_tags_are_those_of_a_build_at_that_moment(builder, published, accepted):
    fresh = FreshTags(published, Settings())
    assert fresh.of(published.one_ids[0], [], NOW) == {}
    assert fresh.wait(SECONDS)
    later = build_snapshot(builder, NOW, Settings())
    shared = [one_id for one_id in published.one_ids if one_id in set(later.one_ids)]
    checked = changed = 0
    for one_id in shared[:60]:
        rows = [row for user in users_of(published, one_id) for row in accepted.get(user, [])]
        found = fresh.of(one_id, rows, NOW)
        before, after = published.user_map.row(one_id), later.user_map.row(one_id)
        for name, value in found.items():
            if later.tag_facts[name].how != "rule":
                continue  # the parameters are those of the build
            expected = later.tags[name][after]
            assert value == (pytest.approx(expected) if isinstance(expected, float) else expected), (one_id, name)
            checked += 1
            changed += expected != published.tags[name][before]
    assert checked > 500
    assert changed > 100


def test_statistics_use_the_parameters_of_the_build(published):
    fresh = FreshTags(published, Settings())
    fresh.of(published.one_ids[0], [], AS_OF)
    assert fresh.wait(SECONDS)
    statistics = {name for name, facts in published.tag_facts.items() if facts.how == "statistic"}
    for row in range(0, 40, 4):
        found = fresh.of(published.one_ids[row], [], AS_OF)
        assert statistics & found.keys()
        assert {name: published.tags[name][row] for name in found} == found


def test_an_order_line_that_was_cancelled_counts_no_more(published):
    fresh = FreshTags(published, Settings())
    fresh.of(published.one_ids[0], [], NOW)
    assert fresh.wait(SECONDS)
    one_id = published.one_ids[0]
    ((source, user),) = users_of(published, one_id)[:1]
    row = {"event_type": "purchase", "source": source, "source_user_id": user, "item_id": "i000001", "amount": 5.0}
    row |= {"order_id": "new", "ts": NOW - timedelta(days=1)}
    bought, cancelled = make_row("e1", row), make_row("e2", {**row, "status": "cancelled"})
    before = fresh.of(one_id, [], NOW)
    assert fresh.of(one_id, [bought], NOW) != before
    assert fresh.of(one_id, [bought, cancelled], NOW) == before


@pytest.fixture
def live(champions, published, tmp_path: Path) -> Iterator[LiveEvents]:
    log = open_log(tmp_path / "events.db")
    events = LiveEvents(lambda: log)
    events.start()
    yield events
    events.close()
    log.close()


def test_the_profile_of_a_customer_with_events_is_fresh(champions, published, accepted, live):
    endpoint = ENDPOINTS["/profile"]
    served = replace(champions, snapshot=published, events=live)
    served.warm()
    one_id, user = next(
        (one_id, users[0]) for one_id in published.one_ids if (users := users_of(published, one_id))[0] in accepted
    )
    request = endpoint.request.model_validate({"user_id": user[1], "user_source": user[0]})
    before = endpoint.respond(served, request, NOW)
    assert not endpoint.is_slow(served, request)
    rows = accepted[user]
    live._open_log().append([encode(row) for row in rows])
    deadline = time.monotonic() + SECONDS
    while len(served.live.rows(one_id, *user[::-1])) < len(rows):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert endpoint.is_slow(served, request)
    assert endpoint.respond(served, request, NOW) == before, "until the state has been loaded"
    assert served.live.fresh_tags(served.settings).wait(SECONDS)
    after = endpoint.respond(served, request, NOW)
    entries = {name: entry for tags in after["tags"].values() for name, entry in tags.items()}
    fresh = {name for name, entry in entries.items() if entry["as_of"] == "2024-08-01T00:00:00Z"}
    assert len(fresh) > 10
    assert not any(entries[name]["stale"] for name in fresh)
    models = {name for name, facts in published.tag_facts.items() if facts.how == "model"}
    assert not fresh & models
    assert after["tags"] != before["tags"]
    endpoint.response.model_validate(after)
    live.lost = True
    lost = endpoint.respond(served, request, NOW)
    assert (lost["tags"], lost["stale"]) == (before["tags"], True)
    live.lost = False
    off = replace(served, settings=Settings(serving={"fresh_profiles": False}))
    assert endpoint.respond(off, request, NOW) == before
    assert endpoint.respond(served, request, AS_OF - timedelta(days=1))["tags"].keys() == before["tags"].keys()


def test_profiles_without_a_state_stay_as_they_are(published, tmp_path, caplog):
    for folder in (tmp_path, None):
        fresh = FreshTags(replace(published, folder=folder), Settings())
        for _ in range(2):
            assert fresh.of(published.one_ids[0], [], NOW) == {}
            assert not fresh.wait(SECONDS)
    assert caplog.text.count("fresh_tags=off") == 1


def test_a_state_of_another_moment_is_not_used(builder, published, tmp_path):
    build_state(builder, NOW, published.spec.features).save(tmp_path / ONLINE_STATE_FOLDER)
    fresh = FreshTags(replace(published, folder=tmp_path), Settings())
    fresh.of(published.one_ids[0], [], NOW)
    assert not fresh.wait(SECONDS)
