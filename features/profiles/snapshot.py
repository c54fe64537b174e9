"""The profile snapshot: the folder of customer data that serving and batch scoring read, written atomically.

A snapshot contains the table of features, the tags and the map from user ids of sources to `one_id`. The file
``online/current.json`` names the current snapshot; a process that has loaded an older one can go on using it. A Bento
contains the same folder.
"""

from __future__ import annotations

import json
import logging
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.arrow_column import ArrowColumn, EncodedColumn, TextColumn
from features.compute.spec import FeatureSpec, UserFeatures
from features.event_log.base import LogPosition
from features.hashed_texts import HashedTexts
from features.id_map import CustomerMap
from features.profiles.tags.checked import read_verdicts
from features.profiles.tags.declare import TagValue
from features.profiles.tags.facts import TagFacts
from features.profiles.tags.pack_tags import tags_for
from qianmian.config import load_settings
from qianmian.errors import ArtifactError, ConfigError, InvalidRequest, WorkspaceError
from qianmian.settings import Settings
from qianmian.times import SECONDS_PER_DAY, is_stale
from qianmian.workspace import Workspace, atomic_path, write_json

FORMAT = 3
ONLINE_STATE_FOLDER = "state"  # subfolder with the online state
UNFINISHED = ".tmp"  # suffix of a folder that is being written (`qianmian.workspace.atomic_path`)
ROWS_PER_GROUP = 65_536  # customers that are read at a time where only some are needed
logger = logging.getLogger(__name__)
IsErased = Callable[[str, str], bool]  # source, user id → whether the user was erased
REBUILD_HINT = "run `qianmian features` to build it again"


@dataclass(frozen=True)
class _UserIds:
    """The user ids of all sources, found one at a time."""

    index: HashedTexts
    sources: Sequence[str]
    one_ids: Sequence[str]
    only_source: str | None

    @classmethod
    def of(cls, customers: pa.Table) -> _UserIds:
        user_ids, sources, one_ids = (TextColumn(customers[name]) for name in ("source_user_id", "source", "one_id"))
        different = pc.unique(customers["source"]).to_pylist()
        return cls(HashedTexts(user_ids), sources, one_ids, different[0] if len(different) == 1 else None)


@dataclass(frozen=True)
class Snapshot:
    """Profiles of all customers at `as_of`.

    Attributes
    ----------
    table : pyarrow.Table
        Table of `ProfileBuild.table`: one_id, user_id, user_source, then features; rows sorted by one_id.
    tags : mapping of str to sequence
        Tag name → values, one per row: lists of a new build, `ArrowColumn` of what is loaded.
    customers : pyarrow.Table
        Columns one_id, source, source_user_id: the user ids of all sources.
    as_of : datetime
        Cutoff, naive UTC.
    spec : FeatureSpec
        Meaning of the feature columns.
    data_digest : str
        Digest of the lake from which the snapshot was built.
    unsupported : tuple of str
        Names of features left out because the lake has no data for them.
    tags_digest : str
        Digest of the tag declarations, settings and published tags (`features.profiles.tags.tagging.tags_digest`).
    tag_facts : dict of str to TagFacts
        Tag name → category, as_of, time to live, source, and the fitted parameters of a statistic.
    checked : dict of str to str
        Tag name → verdict of `qianmian tags validate`, for tags whose declaration has not changed since.
    unrecorded : dict of str to tuple of str
        Tag that is absent because rows of the kind it reads were never recorded → these kinds, in words.
    folder : Path or None
        Where it was read from; None for a new build.
    event_log : LogPosition or None
        Up to where the lake had the accepted events when it was built; None if it had none.
    """

    table: pa.Table
    tags: Mapping[str, Sequence[TagValue]]
    customers: pa.Table
    as_of: datetime
    spec: FeatureSpec
    data_digest: str
    unsupported: tuple[str, ...] = ()
    tags_digest: str = ""
    tag_facts: dict[str, TagFacts] = field(default_factory=dict)
    checked: dict[str, str] = field(default_factory=dict)
    unrecorded: dict[str, tuple[str, ...]] = field(default_factory=dict)
    folder: Path | None = None
    event_log: LogPosition | None = None

    @cached_property
    def features(self) -> UserFeatures:
        """The feature matrix with the spec of the snapshot, shape (n, f)."""
        return UserFeatures.from_table(self.table, self.spec.features, self.as_of, self.spec)

    def encoded(self, spec: FeatureSpec) -> UserFeatures:
        """The feature matrix with the spec of a trained model.

        Raises
        ------
        ArtifactError
            The model was trained on the days and hours of another time zone.
        """
        spec.check_timezone(self.spec.timezone)
        return UserFeatures.from_table(self.table, self.spec.features, self.as_of, spec)

    @property
    def online_state(self) -> Path | None:
        """Folder of the online state (`features.compute.online`); None if there is none."""
        folder = None if self.folder is None else self.folder / ONLINE_STATE_FOLDER
        return folder if folder is not None and folder.exists() else None

    @cached_property
    def one_ids(self) -> Sequence[str]:
        """The one_id of each row."""
        return TextColumn(self.table["one_id"])

    @cached_property
    def user_map(self) -> CustomerMap:
        """one_id → row."""
        return CustomerMap(self.one_ids)

    @cached_property
    def _user_ids(self) -> _UserIds:
        return _UserIds.of(self.customers)

    @property
    def only_source(self) -> str | None:
        """The source of all user ids, None if there are several or none."""
        return self._user_ids.only_source

    def resolve(self, user_id: str, user_source: str | None = None, is_erased: IsErased | None = None) -> str | None:
        """The one_id of a user id; None if it is unknown or was erased.

        Raises
        ------
        InvalidRequest
            The user id belongs to different customers in several sources, and `user_source` is missing.
        """
        users = self._user_ids
        rows = users.index.rows(user_id)
        if user_source is not None:
            rows = tuple(row for row in rows if users.sources[row] == user_source)
        if is_erased is not None:
            rows = tuple(row for row in rows if not is_erased(users.sources[row], user_id))
        if len(rows) == 1:  # nearly always
            return users.one_ids[rows[0]]
        one_ids = {users.one_ids[row] for row in rows}
        if len(one_ids) > 1:
            raise InvalidRequest(
                "the user id occurs in more than one source",
                got=user_id,
                allowed=", ".join(sorted(users.sources[row] for row in rows)),
                field="user_source",
                hint="name the source in user_source",
            )
        return one_ids.pop() if one_ids else None

    def knows_through(self, log_id: str | None) -> int:
        """Number of the last event of a log that the lake of these profiles had; 0 if it had none of this log."""
        at = self.event_log
        return at.seq if at is not None and at.log_id == log_id else 0

    def facts_of(self, row: int, now: datetime) -> dict[str, dict[str, dict[str, Any]]]:
        """Tags of one customer: category → tag → value, as_of, stale, source, checked.

        A tag whose required features are unsupported is absent; an unknown value is None.

        Parameters
        ----------
        row : int
            Row of the customer in `table`.
        now : datetime
            Current time, naive UTC; a value older than the `ttl_days` of its tag is stale.
        """
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for name, values in self.tags.items():
            facts = self.tag_facts.get(name)
            if facts is not None:
                found.setdefault(facts.category, {})[name] = {
                    "value": values[row],
                    "as_of": facts.as_of,
                    "stale": is_stale(facts.as_of, now, facts.ttl_days),
                    "source": facts.source,
                    "checked": self.checked.get(name),
                }
        return found

    def save(self, folder: Path) -> None:
        """Write the snapshot into `folder`, which must not exist."""
        folder.mkdir(parents=True)
        written: dict[str, Any] = {"compression": "zstd", "row_group_size": ROWS_PER_GROUP}
        pq.write_table(self.table, folder / "profiles.parquet", **written)
        pq.write_table(
            pa.table({"one_id": self.one_ids, **{name: pa.array(values) for name, values in self.tags.items()}}),
            folder / "tags.parquet",
            **written,
        )
        pq.write_table(self.customers, folder / "customers.parquet", compression="zstd")
        facts = {
            "format": FORMAT,
            "as_of": self.as_of.isoformat(),
            "spec": self.spec.as_dict(),
            "data_digest": self.data_digest,
            "off": list(self.unsupported),
            "tags_digest": self.tags_digest,
            "tag_facts": {name: facts.as_dict() for name, facts in self.tag_facts.items()},
            "checked": self.checked,
            "unrecorded": self.unrecorded,
            "event_log": self.event_log._asdict() if self.event_log is not None else None,
        }
        write_json(folder / "snapshot.json", facts)

    @classmethod
    def load(cls, folder: Path) -> Snapshot:
        """The inverse of `save`.

        Raises
        ------
        ArtifactError
            The folder is not a snapshot, or has an unknown format.
        """
        try:
            facts = read_facts(folder)
            return cls(
                # buffered, the compressed file would be in memory as well
                pq.read_table(folder / "profiles.parquet", pre_buffer=False),
                _read_tags(folder / "tags.parquet"),
                pq.read_table(folder / "customers.parquet"),
                datetime.fromisoformat(facts["as_of"]),
                FeatureSpec.of(facts["spec"]),
                facts["data_digest"],
                tuple(facts["off"]),
                facts["tags_digest"],
                {name: TagFacts.of(value) for name, value in facts["tag_facts"].items()},
                dict(facts.get("checked", {})),
                # snapshots of earlier versions do not name them
                {name: tuple(kinds) for name, kinds in facts.get("unrecorded", {}).items()},
                folder,
                _position(facts),
            )
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise unreadable(folder, error) from error


def _position(facts: Mapping[str, Any]) -> LogPosition | None:
    found = facts.get("event_log")  # snapshots of earlier versions do not have it
    return LogPosition(**found) if found is not None else None


def _read_tags(path: Path) -> dict[str, ArrowColumn[TagValue]]:
    """The tags, their texts dictionary-encoded."""
    kinds = {column.name: column.type for column in pq.read_schema(path) if column.name != "one_id"}
    texts = [name for name, kind in kinds.items() if pa.types.is_string(kind)]
    table = pq.read_table(path, columns=list(kinds), read_dictionary=texts)
    return {name: EncodedColumn(table[name]) if name in texts else ArrowColumn(table[name]) for name in kinds}


def unreadable(folder: Path, error: Exception) -> ArtifactError:
    """The error of a snapshot whose files cannot be read."""
    got = (str(error).splitlines() or [type(error).__name__])[0]
    return ArtifactError("the profile snapshot cannot be read", where=str(folder), got=got, hint=REBUILD_HINT)


def read_facts(folder: Path) -> dict[str, Any]:
    """What a snapshot says of itself (as_of, digests, tag_facts …), read without its tables.

    Raises
    ------
    ArtifactError
        The folder is not a snapshot, or has an unknown format.
    """
    try:
        facts: dict[str, Any] = json.loads((folder / "snapshot.json").read_text(encoding="utf-8"))
        found = facts["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise unreadable(folder, error) from error
    if found != FORMAT:
        raise ArtifactError(
            "the profile snapshot has an unknown format",
            where=str(folder),
            got=found,
            allowed=FORMAT,
            hint=REBUILD_HINT,
        )
    return facts


def verdicts_of(workspace: Workspace, settings: Settings | None = None) -> dict[str, str]:
    """The verdicts on the declared tags; none if they cannot be read, because profiles do not depend on them."""
    try:
        settings = settings or load_settings(workspace.config_file)
        return read_verdicts(workspace, tags_for(settings), settings)
    except (ArtifactError, ConfigError) as error:
        logger.warning("tag_checks=ignored reason=%s", error)
        return {}


def publish(workspace: Workspace, snapshot: Snapshot, save_state: Callable[[Path], object] | None = None) -> Path:
    """Write the snapshot under ``online/`` and make it current; the previous one is kept, older ones are removed.

    `save_state` writes the online state into a folder; without it, `/v1/profile` has no fresh tags.
    """
    # a new name each time, so that publishing the same profiles again replaces a damaged copy
    name = f"{snapshot.as_of:%Y%m%dT%H%M%S}-{snapshot.data_digest}-{uuid.uuid4().hex[:8]}"
    folder = workspace.online / name
    with atomic_path(folder) as temporary:
        snapshot.save(temporary)
        if save_state is not None:
            save_state(temporary / ONLINE_STATE_FOLDER)
    try:
        before = current_snapshot_name(workspace)
    except ArtifactError:
        before = None
    write_json(workspace.online / "current.json", {"snapshot": name})
    for other in workspace.online.iterdir():
        if other.suffix == UNFINISHED:
            removed = _is_of_killed_process(other, folder)
        else:
            removed = (other / "snapshot.json").exists() and other.name not in (name, before)
        if removed:
            shutil.rmtree(other, ignore_errors=True)
    return folder


def _is_of_killed_process(unfinished: Path, written: Path) -> bool:
    """Whether a folder is a day older than one that was written now; else another process may be writing it."""
    try:
        age_seconds = written.stat().st_mtime - unfinished.stat().st_mtime
    except FileNotFoundError:  # that process is done
        return False
    return unfinished.is_dir() and age_seconds > SECONDS_PER_DAY


def current_snapshot_name(workspace: Workspace) -> str | None:
    """Folder name of the current snapshot; None if no snapshot was published."""
    pointer = workspace.online / "current.json"
    if not pointer.exists():
        return None
    try:
        return str(json.loads(pointer.read_text(encoding="utf-8"))["snapshot"])
    except (ValueError, KeyError, TypeError) as error:
        message = "the pointer to the profile snapshot cannot be read"
        raise ArtifactError(message, where=str(pointer), hint=REBUILD_HINT) from error


def load_current(workspace: Workspace) -> Snapshot:
    """The current snapshot.

    Raises
    ------
    WorkspaceError
        No snapshot was published yet.
    """
    name = current_snapshot_name(workspace)
    if name is None:
        raise WorkspaceError(
            "no profiles have been built yet", where=str(workspace.online), hint="run `qianmian features`"
        )
    snapshot = Snapshot.load(workspace.online / name)
    return replace(snapshot, checked=verdicts_of(workspace))


def published_as_of(workspace: Workspace) -> datetime | None:
    """The `as_of` of the published profiles; None if no readable snapshot is published."""
    try:
        return load_current(workspace).as_of
    except (WorkspaceError, ArtifactError):
        return None


def published_position(workspace: Workspace) -> LogPosition | None:
    """Up to where the published profiles know the accepted events; None if they know none, or cannot be read."""
    try:
        name = current_snapshot_name(workspace)
        return _position(read_facts(workspace.online / name)) if name is not None else None
    except ArtifactError:
        return None
