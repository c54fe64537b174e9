"""Tags that are computed with accepted events are those of a build at that moment over the same rows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from features.data.lake import Lake
from features.event_log import open_log
from features.event_log.rows import encode, make_row
from features.profiles.building import build_snapshot
from features.profiles.snapshot import Snapshot
from features.profiles.tags.declare import tag_values
from features.profiles.tags.pack_tags import tags_for
from qianmian.settings import Settings
from serving.endpoints import ENDPOINTS
from serving.events.fresh_tags import FreshTags
from serving.events.live import LiveEvents

AS_OF = datetime(2024, 7, 18)
NOW = datetime(2024, 8, 1)
SECONDS = 60
SETTINGS = Settings(serving={"stale_after_days": 30.0})


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


@pytest.fixture(scope="module")
def fresh(published) -> FreshTags:
    made = FreshTags(published, SETTINGS)
    assert made.features.of(published.one_ids[0], [], NOW) is None
    assert made.features.wait(SECONDS)
    return made


def test_fresh_tags_are_those_of_a_build_at_that_moment(builder, published, accepted, fresh):
    later = build_snapshot(builder, NOW, SETTINGS)
    # the parameters of statistics are those of the build; only dates are counted from the later moment
    day = {
        name: {"as_of_day": facts.fitted["as_of_day"]}
        for name, facts in later.tag_facts.items()
        if "as_of_day" in facts.fitted
    }
    fitted = {name: {**facts.fitted, **day.get(name, {})} for name, facts in published.tag_facts.items()}
    expected = tag_values(later.table, tags_for(SETTINGS), SETTINGS, fitted)
    shared = [one_id for one_id in published.one_ids if one_id in set(later.one_ids)]
    checked, changed = 0, set()
    for one_id in shared[:60]:
        rows = [row for user in users_of(published, one_id) for row in accepted.get(user, [])]
        values = fresh.features.of(one_id, rows, NOW)
        assert values.as_of == NOW
        before, after = published.user_map.row(one_id), later.user_map.row(one_id)
        for name, value in fresh.of(values).items():
            right = expected[name][after]
            assert value == (pytest.approx(right) if isinstance(right, float) else right), (one_id, name)
            checked += 1
            if right != published.tags[name][before]:
                changed.add((one_id, name))
    assert checked > 1_000
    assert len(changed) > 100
    assert {"next_order_date", "lifecycle_stage"} <= {name for _, name in changed}


def test_at_the_moment_of_the_build_statistics_are_those_of_the_build(published, fresh):
    statistics = {name for name, facts in published.tag_facts.items() if facts.how == "statistic"}
    for row in range(0, 40, 4):
        found = fresh.of(fresh.features.of(published.one_ids[row], [], AS_OF))
        assert statistics & found.keys()
        assert {name: published.tags[name][row] for name in found} == found
        assert fresh.of(fresh.features.of(published.one_ids[row], [], AS_OF), ["value_tier", "no tag"]).keys() == {
            "value_tier"
        }


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
    served = replace(champions, snapshot=published, events=live, settings=SETTINGS)
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
    assert served.live.fresh_tags(served.settings).features.wait(SECONDS)
    after = endpoint.respond(served, request, NOW)
    entries = {name: entry for tags in after["tags"].values() for name, entry in tags.items()}
    fresh = {name for name, entry in entries.items() if entry["as_of"] == "2024-08-01T00:00:00Z"}
    assert len(fresh) > 10
    assert not any(entries[name]["stale"] for name in fresh)
    models = {name for name, facts in published.tag_facts.items() if facts.how == "model"}
    assert not fresh & models
    assert after["tags"] != before["tags"]
    endpoint.response.model_validate(after)
    live.close()  # its thread would find the log again
    live.lost = True
    lost = endpoint.respond(served, request, NOW)
    assert (lost["tags"], lost["stale"]) == (before["tags"], True)
    live.lost = False
    aged = endpoint.respond(replace(served, settings=Settings()), request, NOW + timedelta(days=9_000))
    last = max(row.values["ts"] for row in rows).replace(microsecond=0) + timedelta(seconds=1)
    moments = {entry["as_of"]: entry["stale"] for tags in aged["tags"].values() for entry in tags.values()}
    assert moments == {"2024-07-18T00:00:00Z": True, f"{last.isoformat()}Z": True}, "it is just after the last event"
    off = replace(served, settings=Settings(serving={"fresh_profiles": False, "stale_after_days": 30.0}))
    assert endpoint.respond(off, request, NOW) == before
    assert endpoint.respond(served, request, AS_OF - timedelta(days=1))["tags"].keys() == before["tags"].keys()
