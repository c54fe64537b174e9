"""Scores of customers with accepted events are those of a build at that moment over the same rows."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from features.compute.algebra import PRICE_LEVEL
from features.compute.builder import Builder
from features.compute.online.build import build_state
from features.data.lake import Lake
from features.definitions import FEATURES
from features.event_log import open_log
from features.event_log.rows import EventRow, encode, make_row
from features.profiles.building import build_snapshot, ensure_snapshot
from features.profiles.lifecycle import LIFECYCLE_FEATURES, lifecycle_stage
from features.profiles.purchase_process.process import PurchaseProcess
from features.profiles.snapshot import ONLINE_STATE_FOLDER, Snapshot
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from serving.champions import Champions
from serving.endpoints import ENDPOINTS
from serving.events.live import LiveEvents
from serving.loading import BackgroundLoader
from serving.predictions.lifecycle import STAGE_TAG
from serving.scoring.churn import score_churn
from serving.scoring.predictions import score_predictions
from serving.server import running

AS_OF = datetime(2024, 8, 1)
DAY = timedelta(days=1)
SECONDS = 60
ROUTES = ("/churn", "/predictions")
UP_TO_DATE = Settings(serving={"stale_after_days": 30.0})


@pytest.fixture(scope="module")
def builder(workspace) -> Builder:
    """Without price levels, which compare items by the rows of all customers: online, they are those of the build."""
    return Builder(Lake(workspace), [feature for feature in FEATURES if feature.column != PRICE_LEVEL])


@pytest.fixture(scope="module")
def published(builder, tmp_path_factory) -> Snapshot:
    """Profiles at `AS_OF` with their online state, as they are read from their folder."""
    folder = tmp_path_factory.mktemp("published") / "profiles"
    built = build_snapshot(builder, AS_OF, Settings())
    built.save(folder)
    build_state(builder, AS_OF, built.spec.features).save(folder / ONLINE_STATE_FOLDER)
    return Snapshot.load(folder)


@pytest.fixture(scope="module")
def accepted(workspace) -> list[EventRow]:
    """The rows of the lake from `AS_OF` on, as they would have been accepted."""
    found = []
    lake = Lake(workspace).connect(("events", "transactions"))
    for table in ("events", "transactions"):
        for number, row in enumerate(lake.table(table).to_pyarrow().to_pylist()):
            if row["ts"] is None or row["ts"] < AS_OF or row["source_user_id"] is None:
                continue
            values = {name: value for name, value in row.items() if value is not None and name != "date_only"}
            kind = {"event_type": "purchase"} if table == "transactions" else {}
            found.append(make_row(values.pop("event_id", f"{table}{number}"), {**values, **kind}))
    return found


class Shop:
    """Champions that follow an event log."""

    def __init__(self, champions: Champions, profiles: Snapshot, folder: Path) -> None:
        self.log = open_log(folder / "events.db")
        self.events = LiveEvents(lambda: self.log)
        self.events.start()
        self.champions = replace(champions, snapshot=profiles, events=self.events, settings=UP_TO_DATE)
        self.plain = replace(champions, snapshot=profiles, settings=UP_TO_DATE)
        self.champions.warm()
        self.users = {row["one_id"]: (row["source"], row["source_user_id"]) for row in profiles.customers.to_pylist()}

    def accept(self, rows: list[EventRow]) -> None:
        """Store events, and wait until they are known."""
        last = max(stored.seq for stored in self.log.append([encode(row) for row in rows]))
        self.events.wait(SECONDS)
        until(lambda: max(self.events._last.values(), default=0) >= last)

    def load(self) -> None:
        """Load the online state."""
        features = self.champions.live.fresh_tags(UP_TO_DATE).features
        features.of("", [], AS_OF)
        assert features.wait(SECONDS)

    def bought(self, one_id: str, ts: datetime, **values: object) -> EventRow:
        source, user = self.users[one_id]
        row = {"event_type": "purchase", "source": source, "source_user_id": user, "ts": ts, "item_id": "i000001"}
        return make_row(f"{one_id}{ts}", {**row, "amount": 9.0, **values})

    def body(self, route: str, user_ids: list[str], now: datetime, *, plain: bool = False, **fields):
        request = ENDPOINTS[route].request.model_validate({"user_ids": user_ids, **fields})
        body = ENDPOINTS[route].respond(self.plain if plain else self.champions, request, now)
        ENDPOINTS[route].response.model_validate(body)
        return body

    def is_slow(self, route: str, user_ids: list[str], **changes: object) -> bool:
        wanted = {"predictions": ["lifecycle", "churn"]} if route == "/predictions" else {}  # all are always slow
        request = ENDPOINTS[route].request.model_validate({"user_ids": user_ids, **wanted})
        return ENDPOINTS[route].is_slow(replace(self.champions, **changes), request)

    def scores(self, *args, **fields):
        return self.body(*args, **fields)["scores"]


def until(holds) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def shop(champions, published, tmp_path) -> Iterator[Shop]:
    made = Shop(champions, published, tmp_path)
    yield made
    made.events.close()
    made.log.close()


def as_batch(builder: Builder, shop: Shop, moment: datetime) -> Champions:
    """The champions with a build at a moment; what online execution does not know is that of the published profiles.

    These are the features of touches, and the parameters of the purchase process.
    """
    published, later = shop.champions.customers, build_snapshot(builder, moment, UP_TO_DATE)
    rows = [row for row, one_id in enumerate(later.one_ids) if published.user_map.row(one_id) >= 0]
    table = later.table.take(rows)
    before = published.table.take([published.user_map.row(one_id) for one_id in table["one_id"].to_pylist()])
    unseen = {feature.name for feature in published.spec.features if feature.view == "touches"}
    unseen |= {"touch_open_rate", "touch_click_rate", "touch_click_per_open"}
    assert unseen <= set(table.column_names)
    for at, name in enumerate(table.column_names):
        if name in unseen:
            table = table.set_column(at, name, before[name])
    process = PurchaseProcess.of(published.tag_facts[STAGE_TAG].fitted)
    stages = lifecycle_stage({name: table[name].to_numpy() for name in LIFECYCLE_FEATURES}, process)
    return shop.plain.with_snapshot(replace(later, table=table, tags={STAGE_TAG: stages.tolist()}))


def close(value):
    return pytest.approx(value, abs=2e-6) if isinstance(value, float) else value


def by_customer(table: pa.Table, without: tuple[str, ...]) -> dict[str, dict]:
    """Rows of a file as `/v1` answers them: its columns of objects have a null for what an object lacks."""
    rows = {row["one_id"]: {name: row[name] for name in row if name not in without} for row in table.to_pylist()}
    for row in rows.values():
        if "no_score_reasons" in row:
            reasons = {name: why for name, why in (row["no_score_reasons"] or {}).items() if why is not None}
            row["no_score_reasons"] = reasons or None
    return rows


@pytest.mark.parametrize("days", [0.4, 6.0, 25.25])
def test_scores_are_those_of_a_build_at_that_moment(shop, builder, accepted, days):
    moment = AS_OF + days * DAY
    shop.accept(accepted)
    shop.load()
    batch = as_batch(builder, shop, moment)
    own = ("user_id", "user_source", "one_id", "as_of", "model_version", "reasons")
    for route, table in (
        ("/churn", score_churn(batch).table()),
        ("/predictions", score_predictions(batch).table()),
    ):
        expected = by_customer(table, own)
        fresh = changed = 0
        users = [user for one_id, (_, user) in shop.users.items() if one_id in expected]
        built = shop.scores(route, users, moment, plain=True)
        for row, before in zip(shop.scores(route, users, moment), built, strict=True):
            if "recent_events" not in row:
                assert row == before
                continue
            assert row["as_of"] == moment.isoformat(timespec="seconds") + "Z"
            right = expected[row["one_id"]]
            assert {name: row[name] for name in right if name != "next_stage"} == {
                name: close(value) for name, value in right.items() if name != "next_stage"
            }
            if right.get("next_stage") is not None:
                assert row["next_stage"] == pytest.approx(right["next_stage"], abs=2e-6)
            fresh += 1
            changed += any(row[name] != before[name] for name in right)
        assert fresh > 100
        assert changed > 10


def test_who_bought_a_minute_ago_is_active_again(shop, published):
    last = published.features.column("days_since_last_order")
    one_id = published.one_ids[int(last.argmax())]
    ((user,), now) = ([shop.users[one_id][1]], AS_OF + DAY)
    (before,) = shop.scores("/churn", [user], now)
    shop.accept([shop.bought(one_id, now - timedelta(minutes=1))])
    assert shop.scores("/churn", [user], now) == [before], "until the state has been loaded"
    shop.load()
    body = shop.body("/churn", [user, "nobody", user], now, explain=True)
    assert body["as_of"] == before["as_of"] == "2024-08-01T00:00:00Z"
    first, nobody, again = body["scores"]
    assert first == again
    assert before["churn_probability"] is None
    assert 0.0 <= first["churn_probability"] <= 1.0
    assert first["no_score_reason"] is None
    assert len(first["reasons"]) == 3
    assert (first["as_of"], first["recent_events"]) == ("2024-08-02T00:00:00Z", 1)
    assert (nobody["no_score_reason"], nobody["as_of"]) == ("unknown customer", "2024-08-01T00:00:00Z")
    assert "recent_events" not in nobody
    (predicted,) = shop.scores("/predictions", [user], now)
    (built,) = shop.scores("/predictions", [user], now, plain=True)
    assert predicted["lifecycle_stage"] in ("new", "active", "loyal")
    assert predicted["lifecycle_stage"] != built["lifecycle_stage"]
    assert predicted["average_order_value"] != built["average_order_value"]


def test_old_profiles_are_scored_just_after_the_last_event(shop, builder, accepted):
    """The silence up to a clock that is years ahead of the data says nothing about the customers."""
    last, now = AS_OF + 5.5 * DAY, datetime(2033, 5, 1)
    one_id = next(iter(shop.users))
    user = shop.users[one_id][1]
    shop.accept([shop.bought(one_id, last), shop.bought(one_id, last - DAY), shop.bought(one_id, now + DAY)])
    shop.load()
    for route in ROUTES:
        (aged,), (fresh,) = shop.scores(route, [user], now), shop.scores(route, [user], last + timedelta(seconds=1))
        assert aged == fresh
        assert (aged["as_of"], aged["recent_events"]) == ("2024-08-06T12:00:01Z", 2)
        assert aged["no_score_reason"] is None


def test_who_has_no_fresh_score(shop, published):
    one_id, other = list(shop.users)[:2]
    users, now = [shop.users[one_id][1], shop.users[other][1]], AS_OF + DAY
    for route in ROUTES:
        assert not shop.is_slow(route, users)
    shop.accept([shop.bought(one_id, AS_OF + timedelta(hours=1))])
    shop.load()
    shop.events.close()  # its thread would find the log again
    off = Settings(serving={"fresh_profiles": False, "stale_after_days": 30.0})
    for route in ROUTES:
        assert shop.is_slow(route, users)
        assert not shop.is_slow(route, users[1:])
        assert not shop.is_slow(route, users, settings=off)
        first, second = shop.scores(route, users, now)
        built = shop.scores(route, users, now, plain=True)
        assert second == built[1]
        assert first["recent_events"] == 1
        request = ENDPOINTS[route].request.model_validate({"user_ids": users})
        assert ENDPOINTS[route].respond(replace(shop.champions, settings=off), request, now)["scores"] == built
        assert shop.scores(route, users, AS_OF - DAY) == built, "a clock behind the profiles"
        shop.events.lost = True
        lost = shop.body(route, users, now)
        assert (lost["scores"], lost["stale"]) == (built, True)
        assert not shop.is_slow(route, users)
        shop.events.lost = False


def test_profiles_without_an_online_state_stay_as_they_are(champions, published, tmp_path):
    shop = Shop(champions, replace(published, folder=tmp_path), tmp_path)
    one_id = next(iter(shop.users))
    users, now = [shop.users[one_id][1]], AS_OF + DAY
    shop.accept([shop.bought(one_id, AS_OF + timedelta(hours=1))])
    for route in ROUTES:
        assert shop.scores(route, users, now) == shop.scores(route, users, now, plain=True)
    until(lambda: not shop.is_slow("/churn", users))
    shop.events.close()
    shop.log.close()


@pytest.mark.slow
def test_a_server_scores_with_the_events_that_it_accepted(workspace, server_environment, request_, tmp_path):
    """The clock of the server is years ahead of the profiles."""
    copy = Workspace(tmp_path / "shop")
    shutil.copytree(workspace.root, copy.root, ignore=shutil.ignore_patterns(".serve-*", "events.db*"))
    profiles = ensure_snapshot(copy, AS_OF, Settings())
    row = int(profiles.features.column("days_since_last_order").argmax())
    user = {
        "user_id": profiles.table["user_id"][row].as_py(),
        "user_source": profiles.table["user_source"][row].as_py(),
    }
    many = {"user_ids": [user["user_id"]], "user_source": user["user_source"]}
    with running(copy, env=server_environment(copy)) as url:

        def score(route: str) -> dict:
            status, body = request_(f"{url}/v1{route}", many)
            assert status == 200, body
            return body["scores"][0]

        before = {route: score(route) for route in ROUTES}
        event = {"event_type": "purchase", "item_id": "i000001", "amount": 9.0, "ts": "2024-08-03T10:00:00Z"}
        status, body = request_(f"{url}/v1/events", {"events": [{**event, **user, "event_id": "e1"}]})
        assert (status, body["accepted"]) == (200, 1)
        until(lambda: "recent_events" in score("/churn"))
        for route in ROUTES:
            after = score(route)
            assert (after["as_of"], after["recent_events"]) == ("2024-08-03T10:00:01Z", 1)
            assert after != before[route]
        assert before["/churn"]["no_score_reason"] is not None
        assert score("/churn")["churn_probability"] is not None
        stage = request_(f"{url}/v1/profile", user)[1]["tags"]["lifecycle"][STAGE_TAG]
        assert (stage["value"], stage["as_of"]) == (score("/predictions")["lifecycle_stage"], "2024-08-03T10:00:01Z")
        assert datetime.now(UTC).year > 2024


@pytest.mark.parametrize(("route", "model"), [("/churn", "churn"), ("/predictions", "lifecycle")])
def test_customers_of_different_moments_are_scored_at_once(shop, published, monkeypatch, route, model):
    """Of old profiles each customer has a moment of its own, and each call of a model takes milliseconds."""
    customers, now = published.one_ids[:20], AS_OF + 40 * DAY
    shop.accept([shop.bought(one_id, AS_OF + (1.5 * place + 1) * DAY) for place, one_id in enumerate(customers)])
    shop.load()
    users = [shop.users[one_id][1] for one_id in customers]
    fields = {"explain": True} if route == "/churn" else {}
    single = [row for user in users for row in shop.scores(route, [user], now, **fields)]
    assert len({row["as_of"] for row in single}) == len(single)
    served = type(shop.champions.models[model].bundle.model)
    calls, predict = [], served.predict_proba
    monkeypatch.setattr(served, "predict_proba", lambda *args: calls.append(len(args[1])) or predict(*args))
    assert shop.scores(route, users, now, **fields) == single
    assert len(calls) <= 2, "the built profiles, and all others"


class NewProfiles:
    """A source in which profiles have moved."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def with_part(self, champions: Champions, _part: str, _pointer: str) -> Champions:
        return champions.with_snapshot(Snapshot.load(self._folder))


def test_a_reload_of_the_profiles_forgets_no_events(shop, published):
    user, now = shop.users[published.one_ids[0]][1], AS_OF + DAY
    shop.accept([shop.bought(published.one_ids[0], AS_OF + timedelta(minutes=1))])
    loader = BackgroundLoader(lambda: shop.champions)
    loader._champions = shop.champions
    loader._reload(NewProfiles(published.folder), "profiles", "the first time")
    assert loader.get().live is not shop.champions.live
    shop.champions = loader.get()
    shop.load()
    (before,) = shop.scores("/churn", [user], now)
    assert before["recent_events"] == 1
    loader._reload(NewProfiles(published.folder), "profiles", "the second time")
    assert loader.get() is not shop.champions
    shop.champions = loader.get()
    assert shop.scores("/churn", [user], now) == [before], "the first answer knows the event"
