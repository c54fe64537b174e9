"""Whatever happens in which order, the profile of a customer with accepted events is that of a build over all rows.

The parts are the real ones: a log in SQLite, `qianmian ingest events` with its compaction, builds that are published,
and what a worker of the server has of them. Events come late, twice and in any order; builds, ingests and restarts come
between them.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cli.main import run
from features.compute.algebra import PRICE_LEVEL, Feature
from features.compute.builder import Builder
from features.compute.online import values
from features.compute.online.build import build_state
from features.data.ingest import ingest
from features.data.lake import Lake
from features.data.sources.synthetic import Synthetic
from features.definitions import FEATURES
from features.event_log import AcceptedEvent, open_log
from features.event_log.rows import encode, make_row
from features.profiles.building import build_snapshot
from features.profiles.snapshot import ONLINE_STATE_FOLDER, load_current, publish
from qianmian.schema import TABLES
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from serving.events.fresh_tags import FreshTags, _by_table
from serving.events.live import LiveEvents

SETTINGS = Settings(timezone="UTC")
SECONDS = 30
LATE_DAYS = 30
STEPS = ("accept", "accept", "again", "ingest", "build", "restart")
LINE = frozenset(column.name for column in TABLES["transactions"].columns if not column.derived) - {"status"}
# price levels are those of the last build until the next one
ALL = tuple(feature for feature in FEATURES if PRICE_LEVEL not in feature.columns)
NAMES = [
    "days_since_last_order",
    "orders_total",
    "amount_total",
    "units_91d",
    "refunded_amount_91d",
    "days_since_last_refund",
    "items_distinct",
    "last_item",
    "gap_days_mean",
    "amount_trend_28d",
    "days_since_first_event",
    "top_item",
]
FEW = tuple(feature for feature in ALL if feature.name in NAMES)


class Shop:
    """A workspace, the log of its servers, and one worker that follows it."""

    def __init__(self, template: Workspace, place: Path, features: Sequence[Feature], seed: int) -> None:
        self.workspace, self.features = Workspace(place), features
        shutil.copytree(template.root, place)
        lake = Lake(self.workspace)
        self.now, self.choose = lake.default_as_of, random.Random(seed)
        self.sent: list[AcceptedEvent] = []
        self.events_made = 0
        self.told: list[dict[str, Any]] = []  # order lines that events have told
        connection = lake.connect().con
        self.users = connection.execute("SELECT DISTINCT source, source_user_id FROM customers ORDER BY ALL").fetchall()
        self.items = [row[0] for row in connection.execute("SELECT item_id FROM items ORDER BY 1 LIMIT 20").fetchall()]
        query = "SELECT * FROM transactions WHERE status = 'paid' ORDER BY ts DESC LIMIT 20"
        self.exported = [
            {"event_type": "purchase"}
            | {name: value for name, value in line.items() if name in LINE and value is not None}
            for line in connection.execute(query).to_arrow_table().to_pylist()
        ]
        self.opened()
        self.build()

    def opened(self) -> None:
        self.log = open_log(self.workspace.online / "events.db")
        self.live = LiveEvents(lambda: self.log)
        self.live.start()

    def closed(self) -> None:
        self.live.close()
        self.log.close()

    # ---- what may happen ---------------------------------------------------------------------------------------------

    def accept(self) -> None:
        """Some events, most of them of now, some of days or weeks ago."""
        events = [self.event() for _ in range(self.choose.randint(1, 8))]
        self.log.append(events)
        self.sent += events

    def again(self) -> None:
        """Some events that were sent before."""
        if self.sent:
            again = self.choose.choices(self.sent, k=3)
            assert {stored.status for stored in self.log.append(again)} == {"duplicate"}

    def ingest(self) -> None:
        """`qianmian ingest events`, which removes what the published profiles know."""
        words = ["ingest", "events", "--workspace", str(self.workspace.root), "--json"]
        assert run([*words, "--keep-days", str(self.choose.choice([0, 7]))]) == 0

    def build(self) -> None:
        """Publish profiles of now, of what the lake has now."""
        builder = Builder(Lake(self.workspace), self.features, timezone="UTC")
        built = build_snapshot(builder, self.now, SETTINGS)
        folder = publish(self.workspace, built)
        build_state(builder, self.now, built.spec.features).save(folder / ONLINE_STATE_FOLDER)

    def restart(self) -> None:
        """End the worker, and start it again."""
        self.closed()
        self.opened()

    def pass_time(self) -> None:
        self.now += timedelta(seconds=self.choose.choice([0, 1, 3_600, 86_400, 9 * 86_400]))

    def event(self) -> AcceptedEvent:
        late = self.choose.choice([0, 0, 60, 86_400, LATE_DAYS * 86_400])
        moment = self.now - timedelta(
            seconds=1 + self.choose.randrange(late + 1), microseconds=self.choose.randrange(2)
        )
        kind = self.choose.choice(["view", "cart", "purchase", "purchase", "taken back"])
        if kind == "purchase":
            values = self.purchase(moment)
        elif kind == "taken back":
            values = self.taken_back(moment)
        else:
            source, user = self.choose.choice(self.users)
            values = {"event_type": kind, "source": source, "source_user_id": user, "ts": moment}
            values["item_id"] = self.choose.choice(self.items)
        self.events_made += 1
        return encode(make_row(f"e{self.events_made}", values))

    def purchase(self, moment: datetime) -> dict[str, Any]:
        """A line of a new order, or one more of an order that an event has told."""
        source, user = self.choose.choice(self.users)
        order = {"source": source, "source_user_id": user, "ts": moment, "order_id": f"new{self.events_made}"}
        if self.told and self.choose.random() < 0.5:
            known = self.choose.choice(self.told)
            order = {name: known[name] for name in order}
        of_order = {line["item_id"] for line in self.told if line["order_id"] == order["order_id"]}
        item = self.choose.choice([item for item in self.items if item not in of_order])
        line = {"event_type": "purchase", **order, "item_id": item, "quantity": float(self.choose.randint(1, 3))}
        line["amount"] = float(self.choose.randint(2, 9))
        self.told.append(line)
        return line

    def taken_back(self, moment: datetime) -> dict[str, Any]:
        """A refund or cancellation of a line that an event or an export has told, at its time or later."""
        line = self.choose.choice([*self.told[-5:], *self.exported[:5]])
        ts = self.choose.choice([line["ts"], max(moment, line["ts"])])
        part = {"amount": line["amount"] / 2} if self.choose.random() < 0.3 else {}
        return {**line, "status": self.choose.choice(["refunded", "cancelled"]), "ts": ts, **part}

    # ---- what must hold ----------------------------------------------------------------------------------------------

    def check(self) -> int:
        """Compare all customers of the published profiles; returns how many values differ from the published ones."""
        self.now += timedelta(seconds=1)
        deadline = time.monotonic() + SECONDS
        while self.live._tail is None or self.live._tail.after < self.log.header().last_seq:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        published = load_current(self.workspace)
        customers, fresh = self.live.of(published), FreshTags(published, SETTINGS)
        fresh.of("", [], self.now)
        assert fresh.wait(SECONDS)
        state = fresh._state
        assert state is not None
        found = {}
        for one_id in published.one_ids:
            rows = customers.rows_after_build(one_id)
            found[one_id] = values(state.customer(one_id), self.now, _by_table(rows)), fresh.of(one_id, rows, self.now)
        self.ingest()
        later = build_snapshot(Builder(Lake(self.workspace), self.features, timezone="UTC"), self.now, SETTINGS)
        changed = 0
        for one_id, (features, tags) in found.items():
            row, before = later.user_map.row(one_id), published.user_map.row(one_id)
            for feature in published.spec.features:
                expected = later.table[feature.name][row].as_py()
                got = features[feature.name]
                assert got == (expected if feature.categorical else pytest.approx(expected, rel=1e-6, abs=1e-6)), (
                    feature.name,
                    one_id,
                )
                changed += expected != published.table[feature.name][before].as_py()
            for name, value in tags.items():
                if later.tag_facts[name].how == "rule":  # the parameters of statistics are those of the build
                    expected = later.tags[name][row]
                    assert value == (pytest.approx(expected) if isinstance(expected, float) else expected), (
                        name,
                        one_id,
                    )
        return changed


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Workspace:
    made = Workspace(tmp_path_factory.mktemp("template") / "shop")
    ingest(made, Synthetic(customers=20, days=60, seed=3), SETTINGS)
    (made.root / "qianmian.yaml").write_text("timezone: UTC\n")
    return made


def play(template: Workspace, steps: Sequence[str], seed: int, features: Sequence[Feature]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        shop = Shop(template, Path(folder) / "shop", features, seed)
        try:
            for step in steps:
                getattr(shop, step)()
                shop.pass_time()
            return shop.check()
        finally:
            shop.closed()


def any_order(max_examples: int) -> Any:
    """Steps in any order; a failure is not made smaller, because an example takes seconds."""

    def decorate(test: Any) -> Any:
        steps = st.lists(st.sampled_from(STEPS), min_size=3, max_size=9)
        phases = (Phase.explicit, Phase.reuse, Phase.generate)
        checks = (HealthCheck.too_slow, HealthCheck.function_scoped_fixture)
        limited = settings(max_examples=max_examples, deadline=None, phases=phases, suppress_health_check=checks)
        return limited(given(steps=steps, seed=st.integers(0, 2**32))(test))

    return decorate


def test_events_around_a_build_are_in_the_profile_once(template):
    """Before, between and after all that may happen to them."""
    steps = ["accept", "accept", "ingest", "accept", "build", "accept", "ingest", "again", "restart", "accept"]
    assert play(template, steps, 6, FEW) > 20


@pytest.mark.slow
@any_order(20)
def test_any_order_gives_the_features_of_a_build(template, steps, seed):
    play(template, steps, seed, FEW)


@pytest.mark.slow
@any_order(4)
def test_any_order_gives_all_features_and_tags_of_a_build(template, steps, seed):
    play(template, steps, seed, ALL)
