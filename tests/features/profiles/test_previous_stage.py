"""The stage in the profiles before, and what moved since."""

from __future__ import annotations

from datetime import datetime

import pytest

from features.data.ingest import ingest
from features.data.lake import Lake
from features.data.sources import SOURCES
from features.definitions.building import make_builder
from features.profiles.building import ensure_snapshot, snapshot_at
from features.profiles.tags.previous_stage import PREVIOUS, STAGE, stage_moves
from qianmian.settings import Settings
from qianmian.workspace import Workspace

BEFORE, NOW, SETTINGS = datetime(2024, 2, 20), datetime(2024, 3, 15), Settings()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    made = Workspace(tmp_path_factory.mktemp("stages") / "workspace")
    ingest(made, SOURCES["synthetic"](customers=60, days=80, seed=2), SETTINGS)
    return made


@pytest.fixture(scope="module")
def snapshots(workspace):
    return [ensure_snapshot(workspace, as_of, SETTINGS) for as_of in (BEFORE, NOW)]


def test_the_first_profiles_have_no_previous_stage(snapshots):
    assert PREVIOUS not in snapshots[0].tags
    assert stage_moves(snapshots[0]) is None


def test_the_previous_stage_is_that_of_the_profiles_before(snapshots):
    first, second = snapshots
    before = dict(zip(first.one_ids, first.tags[STAGE], strict=True))
    assert list(second.tags[PREVIOUS]) == [before.get(one_id) for one_id in second.one_ids]


def test_the_moves_add_up(snapshots):
    second = snapshots[1]
    moves = stage_moves(second)
    known = sum(value is not None for value in second.tags[PREVIOUS])
    assert moves.previous_as_of == BEFORE
    assert moves.stayed + sum(moves.moves.values()) == known
    assert moves.moves
    assert all(before != now for before, now in moves.moves)
    assert list(moves.moves.values()) == sorted(moves.moves.values(), reverse=True)


def test_a_build_of_the_same_date_keeps_the_previous_stages(workspace, snapshots):
    again = ensure_snapshot(workspace, NOW, Settings.model_validate({"lifecycle": {"loyal_orders": 3}}))
    assert list(again.tags[STAGE]) != list(snapshots[1].tags[STAGE])
    assert list(again.tags[PREVIOUS]) == list(snapshots[1].tags[PREVIOUS])
    assert stage_moves(again).previous_as_of == BEFORE


def test_nothing_is_known_before_profiles_of_an_earlier_date(workspace, snapshots):
    past = snapshot_at(make_builder(Lake(workspace), SETTINGS), datetime(2024, 3, 1), SETTINGS)
    assert PREVIOUS not in past.tags
