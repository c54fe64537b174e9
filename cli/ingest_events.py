"""`qianmian ingest events`: where the event log is, and what of it may be removed after the lake has read it."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from cli.times import utc_now
from qianmian.errors import ArtifactError, UsageError
from qianmian.workspace import Workspace

if TYPE_CHECKING:
    from cli.console import Output
    from features.event_log.base import LogPosition
    from qianmian.settings import Settings

KEEP_DAYS = 7.0
OnlineStoreOption = Annotated[
    str | None,
    typer.Option(
        "--online-store",
        metavar="URL|PATH",
        help="events: where the accepted events are: a file or redis://… Default: as for `qianmian serve`.",
        show_default=False,
    ),
]


def log_location(workspace: Workspace, settings: Settings, given: str | None) -> str:
    """The path or URL of the event log; by default that of a server of this workspace.

    Raises
    ------
    UsageError
        The file that is named does not exist.
    """
    from features.event_log.location import locate

    if given is None:
        return locate(workspace, settings.serving) or ""
    if "://" not in given and not Path(given).is_file():
        raise UsageError(
            "there is no event log", where="--online-store", got=given, hint="name the store that `qianmian serve` uses"
        )
    return given


def compact_log(
    output: Output, workspace: Workspace, settings: Settings, location: str, keep_days: float | None
) -> dict[str, Any]:
    """Remove the events that the lake, the profiles and the recommenders know; return the state of the log."""
    from features.data.lake import Lake
    from features.data.sources.event_log import lake_position
    from features.event_log import open_log
    from features.event_log.retention import removable_through

    position, known = lake_position(Lake(workspace)), known_before(workspace)
    removed = {"events": 0, "identities": 0}
    if position is None:
        return {"log": None, "compacted": removed}
    with closing(open_log(location)) as log:
        if known is not None and log.header().log_id == position.log_id:
            output.step("removing old events from the log")
            # the lake has more than they know, or less if it is an older copy
            through = min([position.seq, *(at.seq if at.log_id == position.log_id else 0 for at in known.positions)])
            through = removable_through(log, through, known.as_of, KEEP_DAYS if keep_days is None else keep_days)
            days = settings.serving.event_identity_days
            removed = log.compact(through, days, utc_now().replace(tzinfo=UTC))._asdict()
        header = log.header()
    state = {
        "log_id": header.log_id,
        "first_seq": header.first_seq,
        "last_seq": header.last_seq,
        "ingested_seq": position.seq if position.log_id == header.log_id else 0,
    }
    return {"log": state, "compacted": removed}


class KnownEvents(NamedTuple):
    """What the published profiles and all recommenders in production know: events before a moment, up to positions."""

    as_of: datetime
    positions: tuple[LogPosition, ...]


def known_before(workspace: Workspace) -> KnownEvents | None:
    """What the published profiles and all recommenders in production know.

    None without profiles that know accepted events, or if a recommender cannot be read: then every event may still be
    needed. A recommender that was trained before the lake had any event knows those before its `as_of`.
    """
    from features.event_log.base import LogPosition
    from features.profiles.snapshot import published_as_of, published_position
    from models.persist import load_json
    from models.recommend.scene import SCENES
    from serving.model_registry import bundle_folder, version_of

    as_of, position = published_as_of(workspace), published_position(workspace)
    if as_of is None or position is None:
        return None
    moments, positions = [as_of], [position]
    for job in dict.fromkeys(scene.job for scene in SCENES.values()):
        if (version := version_of(workspace, job)) is not None:
            try:
                with bundle_folder(workspace, job, version) as folder:
                    manifest = load_json(folder / "manifest.json")
                moments.append(datetime.fromisoformat(manifest["as_of"]))
                if (found := manifest["facts"].get("event_log")) is not None:
                    positions.append(LogPosition(**found))
            except (ArtifactError, KeyError, ValueError, TypeError):
                return None
    return KnownEvents(min(moments), tuple(positions))


def show_log(output: Output, log: dict[str, Any]) -> None:
    """Print what the log still holds."""
    state, removed = log["log"], log["compacted"]
    if state is None:
        output.say("no event has been accepted yet")
        return
    kept = state["last_seq"] + 1 - state["first_seq"]
    output.say(
        f"event log: {removed['events']:,} events removed, {kept:,} kept; the lake has those up to number "
        f"{state['ingested_seq']:,} of {state['last_seq']:,}"
    )
