"""Profiles with their online state, shared by the tests of what is computed with accepted events."""

from __future__ import annotations

from datetime import datetime

import pytest

from features.compute.builder import Builder
from features.compute.online.build import build_state
from features.data.lake import Lake
from features.definitions import FEATURES
from features.profiles.building import build_snapshot
from features.profiles.snapshot import ONLINE_STATE_FOLDER, Snapshot
from qianmian.settings import Settings

AS_OF = datetime(2024, 7, 18)


@pytest.fixture(scope="session")
def builder(workspace) -> Builder:
    return Builder(Lake(workspace), FEATURES)


@pytest.fixture(scope="session")
def published(builder, tmp_path_factory) -> Snapshot:
    """Profiles at `AS_OF` with their online state, as they are read from their folder."""
    folder = tmp_path_factory.mktemp("published") / "profiles"
    built = build_snapshot(builder, AS_OF, Settings())
    built.save(folder)
    build_state(builder, AS_OF, built.spec.features).save(folder / ONLINE_STATE_FOLDER)
    return Snapshot.load(folder)
