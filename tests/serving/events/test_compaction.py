"""The log keeps what a recommender in production may need, also if the profiles are newer."""

from __future__ import annotations

import shutil
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

from cli.ingest_events import known_before
from cli.main import run
from features.compute.builder import Builder
from features.data.lake import Lake
from features.definitions import FEATURES
from features.event_log import open_log
from features.event_log.rows import encode, make_row
from features.profiles.building import build_snapshot
from features.profiles.snapshot import publish, published_as_of
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from serving.champions import load_from_workspace

MODEL = datetime(2024, 8, 1)  # as_of of the recommender
PROFILES = MODEL + timedelta(days=20)
FEW = tuple(feature for feature in FEATURES if feature.name in ("orders_total", "days_since_last_order"))


def test_events_that_are_younger_than_the_recommender_stay(workspace: Workspace, tmp_path: Path) -> None:
    shop = Workspace(tmp_path / "shop")
    # a server of another test may have written to the log of the shop
    shutil.copytree(workspace.root, shop.root, ignore=shutil.ignore_patterns(".serve-*", "events.db*"))
    load_from_workspace(shop, Settings())  # the copy gets the addresses of its own folder
    days = [-30, -8, -6, -1, 1, 3, 10, 19]
    with closing(open_log(shop.online / "events.db")) as log:
        for day in days:
            row = {"source": "kiosk", "source_user_id": "k1", "event_type": "view", "ts": MODEL + timedelta(days=day)}
            log.append([encode(make_row(f"e{day}", row))])

    def left() -> list[str]:
        assert run(["ingest", "events", "--workspace", str(shop.root), "--json", "--keep-days", "7"]) == 0
        with closing(open_log(shop.online / "events.db")) as log:
            return [logged.event.event_id for logged in log.tail(0, 100).events]

    assert len(left()) == len(days), "the published profiles know none of them"
    publish(shop, build_snapshot(Builder(Lake(shop), FEW), PROFILES, Settings()))
    known = known_before(shop)
    assert known is not None
    assert (published_as_of(shop), known.as_of) == (PROFILES, MODEL)
    assert left() == ["e-6", "e-1", "e1", "e3", "e10", "e19"], "7 days before the model, not before the profiles"
