"""Building of profile snapshots from the lake. They are read without a database (`features.profiles.snapshot`)."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from datetime import datetime
from functools import partial

from features.compute.builder import Builder, ProfileBuild
from features.compute.online.build import build_state
from features.data.lake import Lake
from features.data.locking import workspace_lock
from features.data.sources.event_log import lake_position
from features.definitions.building import make_builder
from features.profiles.snapshot import (
    Snapshot,
    load_current,
    publish,
    verdicts_of,
)
from features.profiles.tags.tagging import make_tags, missing_rows, tags_digest
from qianmian.errors import ArtifactError, WorkspaceError
from qianmian.settings import Settings
from qianmian.workspace import Workspace

logger = logging.getLogger(__name__)


def build_snapshot(
    builder: Builder, as_of: datetime, settings: Settings, built: ProfileBuild | None = None
) -> Snapshot:
    """Build profiles and tags at `as_of` in memory, without writing them; only the tags if the features are given."""
    event_log = lake_position(builder.lake)  # first: what is ingested meanwhile may be missing
    built = built or builder.build(as_of)
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
        event_log=event_log,
    )


def ensure_snapshot(workspace: Workspace, as_of: datetime, settings: Settings) -> Snapshot:
    """The current snapshot if it is up to date; otherwise build and publish a new one, with its online state.

    A snapshot is up to date if `as_of`, the lake, and the declared features, tags and settings are the same. If only
    the tags differ, or how far the lake has read the event log, the features and the online state are those of the
    current snapshot.

    Parameters
    ----------
    workspace : Workspace
        Workspace with the lake.
    as_of : datetime
        Cutoff, naive UTC.
    settings : Settings
        Settings of features and tags.
    """
    with workspace_lock(workspace):
        builder = make_builder(Lake(workspace), settings)
        snapshot, current = _up_to_date(builder, as_of, settings)
        state = None if current is None else current.online_state
        if state is None:
            publish(workspace, snapshot, build_state(builder, as_of, snapshot.spec.features).save)
        elif snapshot is not current:
            publish(workspace, snapshot, partial(shutil.copytree, state))
        return snapshot


def snapshot_at(builder: Builder, as_of: datetime, settings: Settings) -> Snapshot:
    """As `ensure_snapshot`, but a new snapshot is not published, so that the served profiles do not change."""
    return _up_to_date(builder, as_of, settings)[0]


def _up_to_date(builder: Builder, as_of: datetime, settings: Settings) -> tuple[Snapshot, Snapshot | None]:
    """A snapshot that is up to date, and the current one if it has the same features; often they are one."""
    event_log = lake_position(builder.lake)  # first, as in `build_snapshot`
    current = _same_features(builder, as_of)
    if current is None:
        return build_snapshot(builder, as_of, settings), None
    if current.tags_digest == tags_digest(settings, builder.lake.workspace):
        # the lake may have read events since that changed nothing, such as those of orders that an export had told
        same_events = current.event_log == event_log
        return current if same_events else replace(current, event_log=event_log), current
    spec = current.spec
    built = ProfileBuild(current.table, spec.features, current.unsupported, as_of, spec.timezone)
    return build_snapshot(builder, as_of, settings, built), current


def _same_features(builder: Builder, as_of: datetime) -> Snapshot | None:
    """The current snapshot, if a new build would have the same features and the same values."""
    try:
        current = load_current(builder.lake.workspace)
        same = current.as_of == as_of and current.data_digest == builder.lake.digest
        if same and current.spec.timezone == builder.timezone:
            features, unsupported = builder.supported(as_of=as_of)
            if (current.spec.features, current.unsupported) == (features, unsupported):
                return current
    except (WorkspaceError, ArtifactError) as error:
        logger.info("profiles=rebuilt reason=%s", error.message)
    return None
