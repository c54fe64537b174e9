"""Following a workspace: what of it has moved, and loading that."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace

from features.profiles import snapshot as snapshots
from features.profiles.snapshot import Snapshot
from models.recommend.scene import SCENES
from qianmian.config import load_settings
from qianmian.errors import ArtifactError, QianmianError, WorkspaceError
from qianmian.settings import ServingSettings
from qianmian.workspace import Workspace
from serving import model_registry
from serving.bundles import BUNDLE_KINDS
from serving.champions import PROFILES, Champion, Champions, load_from_workspace, load_version
from serving.profile_models import PROFILE_JOBS, refuse_other_timezones, warn_of_retired_features
from serving.stored_errors import fresh

logger = logging.getLogger(__name__)

LAST_ERASURE = "erasures/last.json"
AFTER = " after erasure "
# job → version of its champion, `PROFILES` → folder of the published profiles; then after which erasure, if any
Pointers = dict[str, str]


class WorkspaceSource:
    """The champions and profiles of a workspace, which other processes change while this one serves them.

    A look reads the aliases of the registry, ``online/current.json`` and ``erasures/last.json``, and no model. What
    cannot be read now, for example because another process writes it or a database server is away, has not moved. Each
    part is loaded once when it moves: if that fails, it is tried again when it moves again, a model of the profiles
    that is missing also when these move, and at the next look if the registry could not be read meanwhile. An erasure
    changes files of all parts and no version: it moves them all. Settings are read by `load` only.

    Attributes
    ----------
    seconds : float
        Time between two looks; 0 if there is no further one.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.seconds = ServingSettings().reload_seconds
        self._seen: Pointers = {}
        self._registry_lost = False
        self._erasure = ""
        self._loaded_after: dict[str, str] = {}  # part → the erasure that its files knew when it was loaded

    def load(self) -> Champions:
        """Load the champions and the profiles; see `load_from_workspace`."""
        moved = self.moved()  # what moves from now on is loaded again
        self._loaded_after = {part: pointer.partition(AFTER)[2] for part, pointer in moved.items()}
        settings = load_settings(self.workspace.config_file)
        self.seconds = settings.serving.reload_seconds
        try:
            return load_from_workspace(self.workspace, settings)
        except WorkspaceError:  # the registry, probably: its models count as moved at the look that finds it
            self._seen = {part: pointer for part, pointer in self._seen.items() if part == PROFILES}
            raise

    def moved(self) -> Pointers:
        """Return what has moved since the last look, the profiles first, because new models may read new features."""
        found = {**_pointer_of_profiles(self.workspace), **self._pointers_of_jobs()}
        self._erasure = erasure = _last_erasure(self.workspace) or self._erasure
        now = {part: f"{pointer}{AFTER}{erasure}" if erasure else pointer for part, pointer in found.items()}
        moved = {part: pointer for part, pointer in now.items() if self._seen.get(part) != pointer}
        self._seen |= now
        return moved

    def with_part(self, champions: Champions, part: str, pointer: str) -> Champions:
        """Load the profiles, or a version of the model of a job, and return the champions with it.

        Raises
        ------
        QianmianError
            If it cannot be loaded, or does not fit what is served.
        """
        if part == PROFILES:
            snapshot = snapshots.load_current(self.workspace)
            _check_fit(champions.models, snapshot)
            for job in champions.failures.keys() & PROFILE_JOBS:
                self._seen.pop(job, None)  # its model may fit these profiles: the next look finds it moved
            return champions.with_snapshot(snapshot)
        version, _, erasure = pointer.partition(AFTER)
        is_served = part in champions.models and champions.models[part].version == version
        if is_served and self._loaded_after.get(part, "") == erasure:
            return champions
        try:
            champion = load_version(self.workspace, part, version, [])
        except WorkspaceError:
            self._seen.pop(part, None)
            raise
        self._loaded_after[part] = erasure
        if champions.snapshot is not None:
            _check_fit({part: champion}, champions.snapshot)
        failures = {other: error for other, error in champions.failures.items() if other != part}
        changed = replace(champions, models={**champions.models, part: champion}, failures=failures)
        if all(scene.job != part for scene in SCENES.values()):
            changed.__dict__["kept_lists"] = champions.kept_lists  # as `cached_property` keeps it
        return changed

    def _pointers_of_jobs(self) -> Pointers:
        try:
            versions = model_registry.champion_versions(self.workspace)
        except WorkspaceError as error:
            if not self._registry_lost:
                logger.warning("registry=lost reason=%s", error)
            self._registry_lost = True
            return {}
        if self._registry_lost:
            logger.info("registry=found")
        self._registry_lost = False
        return {job: versions[job] for job in BUNDLE_KINDS if job in versions}


def _last_erasure(workspace: Workspace) -> str:
    """The last erasure that has ended; empty if there is none, or it cannot be read."""
    try:
        found = json.loads((workspace.root / LAST_ERASURE).read_text(encoding="utf-8"))
        return f"{found['erasure_id']} {found.get('erased_at', '')}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _pointer_of_profiles(workspace: Workspace) -> Pointers:
    try:
        name = snapshots.current_snapshot_name(workspace)
    except (ArtifactError, OSError):
        return {}
    return {} if name is None else {PROFILES: name}


def _check_fit(models: Mapping[str, Champion], snapshot: Snapshot) -> None:
    """Raise the error of a model that cannot read the profiles."""
    failures: dict[str, QianmianError] = {}
    refuse_other_timezones(dict(models), snapshot, failures)
    for error in failures.values():
        raise fresh(error)
    warn_of_retired_features(models, snapshot)
