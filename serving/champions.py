"""`Champions`: the models in production and the profiles, loaded and verified from a workspace or an export."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from features.compute.spec import UserFeatures
from features.event_log.base import LogPosition
from features.profiles import snapshot as snapshots
from features.profiles.snapshot import ONLINE_STATE_FOLDER, Snapshot
from models.bundle import ModelBundle, verify
from models.recommend.scene import DEFAULT_SCENE, SCENES
from qianmian.errors import ArtifactError, NotReady, QianmianError, WorkspaceError
from qianmian.schema import CHAMPION, PREVIOUS, REGISTERED_PREFIX
from qianmian.settings import Settings
from qianmian.workspace import Workspace, atomic_path, write_json
from serving import model_registry
from serving.bundles import BUNDLE_KINDS, load_bundle
from serving.events.availability import LiveAvailability
from serving.events.customers import LiveCustomers
from serving.events.live import LiveEvents
from serving.export_index import FORMAT, INDEX_FILE, read_index
from serving.profile_models import PROFILE_JOBS, refuse_other_timezones, warn_of_retired_features
from serving.recommending.catalogue import Catalogue
from serving.recommending.kept_lists import KeptLists
from serving.recommending.planned import read_promotions
from serving.stored_errors import fresh

logger = logging.getLogger(__name__)

PROFILES = "profiles"  # in `Champions.failures`, beside the jobs


@dataclass(frozen=True)
class Champion:
    """One model in production.

    Attributes
    ----------
    job, version : str
    bundle : ModelBundle
    promotions : str
        Digest of the planned promotions of the lake that it reads; empty where it reads none.
    """

    job: str
    version: str
    bundle: ModelBundle
    promotions: str = ""

    @property
    def name(self) -> str:
        """Name of the registered model."""
        return REGISTERED_PREFIX + self.job

    @property
    def event_log(self) -> LogPosition | None:
        """Up to where the lake had the accepted events when it was trained; None if it had none."""
        found = self.bundle.facts.get("event_log")  # models of earlier versions do not say it
        return LogPosition(**found) if found is not None else None

    @cached_property
    def catalogue(self) -> Catalogue:
        """Lookups of users, items and scenes; for a recommender only."""
        return Catalogue(self.bundle)

    def with_catalogue(self, catalogue: Catalogue) -> Champion:
        """Return the same model with another catalogue."""
        changed = replace(self)
        changed.__dict__["catalogue"] = catalogue  # as `cached_property` keeps it
        return changed


@dataclass(frozen=True)
class Champions:
    """The models and profiles that responses are computed from. Immutable, so threads can share it.

    Attributes
    ----------
    models : mapping of str to Champion
        Champions by job; jobs without a usable model are missing.
    snapshot : Snapshot or None
        Profiles, None if there are none.
    settings : Settings
        Settings of the workspace.
    failures : mapping of str to QianmianError
        Why a job, or ``profiles``, could not be loaded.
    problems : tuple of QianmianError
        Errors of versions that were replaced by an earlier version, and of planned promotions that cannot be read.
    events : LiveEvents or None
        The events that were accepted since the profiles were built; None without an event log.
    """

    models: Mapping[str, Champion]
    snapshot: Snapshot | None
    settings: Settings
    failures: Mapping[str, QianmianError] = field(default_factory=dict)
    problems: tuple[QianmianError, ...] = ()
    events: LiveEvents | None = None

    def require(self, job: str) -> Champion:
        """Return the champion of a job.

        Raises
        ------
        NotReady
            If none was trained.
        ArtifactError
            If its files cannot be loaded.
        """
        if job not in self.models:
            raise fresh(self.failures.get(job) or _no_champion_error(job))
        return self.models[job]

    @property
    def customers(self) -> Snapshot:
        """The profile snapshot.

        Raises
        ------
        NotReady or WorkspaceError
            If no profiles were published.
        ArtifactError
            If the profiles cannot be read.
        """
        if self.snapshot is None:
            missing = NotReady("no profiles have been published", hint="run `qianmian features`")
            raise fresh(self.failures.get(PROFILES, missing))
        return self.snapshot

    def resolve(self, user_id: str, user_source: str | None) -> str | None:
        """The one_id of a user id as the profiles say (`Snapshot.resolve`); an erased customer is unknown."""
        is_erased = self.events.erased.test if self.events is not None else None
        return self.customers.resolve(user_id, user_source, is_erased)

    def encoded(self, job: str) -> UserFeatures:
        """Return the profiles encoded for the model of a job, shape (n, f); computed once."""
        if job not in self._encoded:
            spec = self.require(job).bundle.spec
            self._encoded[job] = self.customers.encoded(spec) if spec is not None else self.customers.features
        return self._encoded[job]

    def with_snapshot(self, snapshot: Snapshot) -> Champions:
        """Return the same models with other profiles, and with the same kept lists, which follow from the models."""
        failures = {part: error for part, error in self.failures.items() if part != PROFILES}
        changed = replace(self, snapshot=snapshot, failures=failures)
        changed.__dict__["kept_lists"] = self.kept_lists  # as `cached_property` keeps it
        return changed

    def warm(self) -> None:
        """Compute the cached values and run every model once, so that the first request is not slow."""
        self.availability, self.kept_lists, self.live  # noqa: B018 - cached properties that threads share
        if self.snapshot is not None:
            self.snapshot.resolve("")
            self.snapshot.features  # noqa: B018 - a cached property
            self.snapshot.user_map.row("")
            for job in PROFILE_JOBS:
                if job in self.models:
                    self.encoded(job)
        if "lookalike" in self.models:
            self.models["lookalike"].bundle.user_map.row("")
        for job in dict.fromkeys(scene.job for scene in SCENES.values()):
            if job not in self.models:
                continue
            catalogue = self.models[job].catalogue
            users = [-1, 0] if len(self.models[job].bundle.user_ids) else [-1]
            catalogue.warm()
            for scene in catalogue.scenes:
                catalogue.model(scene).recommend(users, 1)
        if "churn" in self.models and self.snapshot is not None:
            model = self.models["churn"].bundle.model
            first_row = self.encoded("churn").values[:1]
            model.predict_proba(first_row)
            model.explain(first_row)

    @cached_property
    def live(self) -> LiveCustomers | None:
        """The accepted events by customer; None without an event log, or without profiles that resolve user ids."""
        return self.events.of(self.snapshot) if self.events is not None and self.snapshot is not None else None

    @property
    def misses_events(self) -> bool:
        """Whether there may be accepted events that cannot be read now."""
        return self.events is not None and self.events.lost

    @cached_property
    def availability(self) -> LiveAvailability | None:
        """Which items can be sold, as accepted events say; None without an event log or a recommender of items."""
        champion = self.models.get(SCENES[DEFAULT_SCENE].job)
        if self.events is None or champion is None:
            return None
        return self.events.items.of(champion.catalogue, champion.bundle.as_of, champion.event_log)

    def with_live_items(self, champion: Champion) -> Champion:
        """Return a champion of these with the availability of its items now."""
        live = self.availability
        if live is None or champion.catalogue is not live.base:
            return champion
        return champion.with_catalogue(live.catalogue)

    @cached_property
    def kept_lists(self) -> KeptLists:
        """The lists of the customers that were asked for last."""
        kept = KeptLists(self.settings.serving.kept_lists)
        if self.availability is not None:
            self.availability.keep_right(kept)
        return kept

    @cached_property
    def _encoded(self) -> dict[str, UserFeatures]:
        return {}


# ---- loading ---------------------------------------------------------------------------------------------------------


def load_from_workspace(
    workspace: Workspace, settings: Settings, jobs: Collection[str] = tuple(BUNDLE_KINDS)
) -> Champions:
    """Load the champions and the profiles of a workspace.

    If a champion cannot be loaded, the previous version is loaded instead and `Champions.problems` contains the error.
    It does as well if the planned promotions cannot be read: the champion then keeps those of its fit.

    Parameters
    ----------
    workspace : Workspace
        Workspace to read.
    settings : Settings
        Settings of the workspace.
    jobs : collection of str
        Jobs to load; default: all.

    Raises
    ------
    WorkspaceError
        If there is no workspace, or its registry cannot be read.
    NotReady
        If no model can be loaded because none was trained.
    ArtifactError
        If no model can be loaded because its files are corrupt.
    """
    workspace.require()
    models: dict[str, Champion] = {}
    failures: dict[str, QianmianError] = {}
    problems: list[QianmianError] = []
    for job in jobs:
        for version in _candidate_versions(workspace, job):
            try:
                models[job] = load_version(workspace, job, version, problems)
                break
            except ArtifactError as error:
                logger.warning("champion=broken model=%s version=%s reason=%s", REGISTERED_PREFIX + job, version, error)
                failures.setdefault(job, fresh(error))
        if job in models and job in failures:
            problems.append(failures.pop(job))
    snapshot, snapshot_errors = _load_snapshot(workspace)
    if snapshot is None:
        failures[PROFILES] = snapshot_errors[0]
    else:
        problems += snapshot_errors
        refuse_other_timezones(models, snapshot, failures)
        warn_of_retired_features(models, snapshot)
    return _require_models(Champions(models, snapshot, settings, failures, tuple(problems)), str(workspace.root))


def load_version(workspace: Workspace, job: str, version: str, problems: list[QianmianError]) -> Champion:
    """Load one version of the model of a job.

    Parameters
    ----------
    problems : list of QianmianError
        Gets an error if the planned promotions cannot be read.

    Raises
    ------
    ArtifactError
        If its files cannot be loaded.
    """
    with model_registry.bundle_folder(workspace, job, version) as folder:
        bundle = load_bundle(folder, job)
    planned = read_promotions(bundle, workspace, problems) if BUNDLE_KINDS[job] == "scenes" else ""
    return Champion(job, version, bundle, planned)


def load_from_folder(folder: Path) -> Champions:
    """Load a folder that `export` wrote, without MLflow and without a workspace.

    Raises
    ------
    ArtifactError
        If the folder contains no export.
    """
    index = read_index(folder)
    models: dict[str, Champion] = {}
    failures: dict[str, QianmianError] = {}
    for job, entry in index["models"].items():
        try:
            models[job] = Champion(job, entry["version"], load_bundle(folder / entry["folder"], job))
        except ArtifactError as error:
            logger.warning(
                "champion=broken model=%s version=%s reason=%s", REGISTERED_PREFIX + job, entry["version"], error
            )
            failures[job] = fresh(error)
    snapshot = None
    if index["snapshot"] is not None:
        try:
            snapshot = Snapshot.load(folder / index["snapshot"])
        except ArtifactError as error:
            failures[PROFILES] = fresh(error)
        else:
            refuse_other_timezones(models, snapshot, failures)
            warn_of_retired_features(models, snapshot)
    return _require_models(Champions(models, snapshot, index["settings"], failures), str(folder))


def export(workspace: Workspace, settings: Settings, folder: Path) -> Path:
    """Copy the champions that can be loaded and the current profiles, with online state, into a new folder, atomically.

    Raises
    ------
    NotReady
        If there is no champion to export.
    """
    champions = load_from_workspace(workspace, settings)
    with atomic_path(folder) as temporary:
        temporary.mkdir(parents=True)
        entries = {}
        for job, champion in champions.models.items():
            with model_registry.bundle_folder(workspace, champion.name, champion.version) as source:
                shutil.copytree(source, temporary / "models" / job)
            verify(temporary / "models" / job)
            entries[job] = {"name": champion.name, "version": champion.version, "folder": f"models/{job}"}
        if champions.snapshot is not None:
            champions.snapshot.save(temporary / "snapshot")
            state = champions.snapshot.online_state
            if state is not None:
                shutil.copytree(state, temporary / "snapshot" / ONLINE_STATE_FOLDER)
        write_json(
            temporary / INDEX_FILE,
            {
                "format": FORMAT,
                "models": entries,
                "snapshot": "snapshot" if champions.snapshot is not None else None,
                "settings": champions.settings.model_dump(mode="json"),
            },
        )
    return folder


def _candidate_versions(workspace: Workspace, job: str) -> Iterator[str]:
    """Yield the version of the champion, then the previous version."""
    tried = set[str]()
    for alias in (CHAMPION, PREVIOUS):
        version = model_registry.version_of(workspace, job, alias)
        if version is not None and version not in tried:
            tried.add(version)
            yield version


def _load_snapshot(workspace: Workspace) -> tuple[Snapshot | None, list[QianmianError]]:
    """Load the current profiles, else the newest ones that can be read; also return the errors of those skipped."""
    errors: list[QianmianError] = []
    try:
        return snapshots.load_current(workspace), errors
    except WorkspaceError as error:
        return None, [fresh(error)]
    except ArtifactError as error:
        logger.warning("profiles=broken reason=%s", error)
        errors.append(fresh(error))
    others = [path for path in workspace.online.iterdir() if (path / "snapshot.json").exists()]
    for folder in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            return Snapshot.load(folder), errors
        except ArtifactError as error:
            errors.append(fresh(error))
    return None, errors


def _require_models(champions: Champions, where: str) -> Champions:
    if not champions.models:
        first = next(iter(champions.failures.values()), None)
        if isinstance(first, ArtifactError):
            raise fresh(first)
        raise NotReady("no champion model was found", where=where, hint="run `qianmian train all`")
    return champions


def _no_champion_error(job: str) -> NotReady:
    return NotReady(
        f"no {job} model is in production",
        where=REGISTERED_PREFIX + job,
        hint=f"run `qianmian train {job}`",
    )
