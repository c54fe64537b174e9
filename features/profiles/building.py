"""Building of profile snapshots from the lake. They are read without a database (`features.profiles.snapshot`)."""

from __future__ import annotations

import logging
from datetime import datetime

from features.compute.builder import Builder, ProfileBuild
from features.compute.online.build import build_state
from features.data.lake import Lake
from features.data.sources.event_log import lake_position
from features.definitions.building import make_builder
from features.profiles.snapshot import (
    ONLINE_STATE_FOLDER,
    Snapshot,
    current_snapshot_name,
    load_current,
    publish,
    verdicts_of,
)
from features.profiles.tags.tagging import make_tags, missing_rows, tags_digest
from qianmian.errors import ArtifactError, WorkspaceError
from qianmian.settings import Settings
from qianmian.workspace import Workspace, atomic_path

logger = logging.getLogger(__name__)


def build_snapshot(builder: Builder, as_of: datetime, settings: Settings) -> Snapshot:
    """Build profiles and tags at `as_of` in memory, without writing them."""
    position = lake_position(builder.lake)  # first: if an ingest comes meanwhile, too little is said to be known
    built: ProfileBuild = builder.build(as_of)
    customers = builder.views(as_of).customers.order_by(["source", "source_user_id"]).to_pyarrow()
    unrecorded = missing_rows(builder, built, settings)
    tags, facts = make_tags(builder, built, settings, unrecorded)
    digest = tags_digest(settings, builder.lake.workspace)
    checked = verdicts_of(builder.lake.workspace, settings)
    return Snapshot(
        built.table,
        tags,
        customers,
        as_of,
        built.matrix().spec,
        builder.lake.digest,
        built.unsupported,
        digest,
        facts,
        checked,
        unrecorded,
        log_position=position,
    )


def ensure_snapshot(workspace: Workspace, as_of: datetime, settings: Settings, with_state: bool = False) -> Snapshot:
    """The current snapshot if it is up to date; otherwise build and publish a new one.

    A snapshot is up to date if `as_of`, the lake, and the declared features, tags and settings are the same.

    Parameters
    ----------
    workspace : Workspace
        Workspace with the lake.
    as_of : datetime
        Cutoff, naive UTC.
    settings : Settings
        Settings of features and tags.
    with_state : bool
        Also build the online state of the same features (`features.compute.online`) in the subfolder `state`.
    """
    builder = make_builder(Lake(workspace), settings)
    snapshot = _reusable_snapshot(builder, as_of, settings)
    if snapshot is None:
        snapshot = build_snapshot(builder, as_of, settings)
        publish(workspace, snapshot)
    folder = workspace.online / str(current_snapshot_name(workspace)) / ONLINE_STATE_FOLDER
    if with_state and not folder.exists():
        with atomic_path(folder) as temporary:
            build_state(builder, as_of, snapshot.spec.features).save(temporary)
    return snapshot


def snapshot_at(builder: Builder, as_of: datetime, settings: Settings) -> Snapshot:
    """As `ensure_snapshot`, but a new snapshot is not published, so that the served profiles do not change."""
    return _reusable_snapshot(builder, as_of, settings) or build_snapshot(builder, as_of, settings)


def _reusable_snapshot(builder: Builder, as_of: datetime, settings: Settings) -> Snapshot | None:
    workspace = builder.lake.workspace
    try:
        snapshot = load_current(workspace)
        same = snapshot.as_of == as_of and snapshot.data_digest == builder.lake.digest
        same = same and snapshot.spec.timezone == builder.timezone
        declared = tags_digest(settings, workspace)
        if same and snapshot.tags_digest == declared and snapshot.spec.features == builder.supported(as_of=as_of)[0]:
            return snapshot
    except (WorkspaceError, ArtifactError) as error:
        logger.info("profiles=rebuilt reason=%s", error.message)
    return None
