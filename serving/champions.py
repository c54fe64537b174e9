"""`Champions`: the models in production and the customers' profiles, loaded and checked, from a workspace or from an exported folder."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from features.compute.spec import UserFeatures
from features.profiles import snapshot as snapshots
from features.profiles.snapshot import Snapshot
from models.bundle import ModelBundle, verify
from models.recommend.scene import SCENES
from qianmian.errors import ArtifactError, NotReady, QianmianError, WorkspaceError
from qianmian.schema import CHAMPION, PREVIOUS, REGISTERED_PREFIX
from qianmian.settings import Settings
from qianmian.workspace import Workspace, atomic_path, write_json
from serving import model_registry
from serving.recommending.catalogue import Catalogue

logger = logging.getLogger(__name__)

BUNDLE_KINDS = {  # job → kind of its bundle
    "recommend": "scenes",
    "content": "scenes",
    "churn": "churn",
    "lifecycle": "lifecycle",
    "lookalike": "lookalike",
}
INDEX_FILE = "index.json"
FORMAT = 1
RESTORE_HINT = "restore the file from a backup, `qianmian models rollback`, or train again"


@dataclass(frozen=True)
class Champion:
    """One model in production."""

    job: str
    version: str
    bundle: ModelBundle

    @property
    def name(self) -> str:
        """The registered model's name."""
        return REGISTERED_PREFIX + self.job

    @cached_property
    def catalogue(self) -> Catalogue:
        """Users and items by id, and filters over the items; for a recommender."""
        return Catalogue(self.bundle)


@dataclass(frozen=True)
class Champions:
    """Everything the answers are made of. Never changed once made, so any number of threads may read it.

    Attributes
    ----------
    models : mapping of str to Champion
        By job; a job that has no usable model is not in it.
    snapshot : Snapshot or None
    settings : Settings
    failures : mapping of str to QianmianError
        Why a job (or ``profiles``) is not there.
    problems : tuple of QianmianError
        What was met on the way although an older version serves now.
    """

    models: Mapping[str, Champion]
    snapshot: Snapshot | None
    settings: Settings
    failures: Mapping[str, QianmianError] = field(default_factory=dict)
    problems: tuple[QianmianError, ...] = ()

    def require(self, job: str) -> Champion:
        """The champion of a job.

        Raises
        ------
        NotReady
            None was trained.
        ArtifactError
            One was, and cannot be loaded.
        """
        if job not in self.models:
            raise self.failures.get(job) or _no_champion_error(job)
        return self.models[job]

    @property
    def customers(self) -> Snapshot:
        """The profiles.

        Raises
        ------
        WorkspaceError or ArtifactError
            Nothing was built, or it cannot be read.
        """
        if self.snapshot is None:
            raise self.failures.get("profiles") or NotReady(
                "no profiles were built yet", hint="run `qianmian features`"
            )
        return self.snapshot

    def encoded(self, job: str) -> UserFeatures:
        """The profiles as the model of that job expects them, (n, f); made once."""
        if job not in self._encoded:
            spec = self.require(job).bundle.spec
            self._encoded[job] = self.customers.encoded(spec) if spec is not None else self.customers.features
        return self._encoded[job]

    def with_snapshot(self, snapshot: Snapshot) -> Champions:
        """The same models over other profiles."""
        return Champions(self.models, snapshot, self.settings, self.failures, self.problems)

    def warm(self) -> None:
        """Make now what the first request would otherwise wait for."""
        if self.snapshot is not None:
            self.snapshot.resolve("")
            self.snapshot.features  # noqa: B018 - a cached property
            self.snapshot.user_map.row("")
            for job in ("churn", "lifecycle"):
                if job in self.models:
                    self.encoded(job)
        for job in dict.fromkeys(scene.job for scene in SCENES.values()):
            if job not in self.models:
                continue
            catalogue, users = self.models[job].catalogue, [-1, 0][: 1 + bool(len(self.models[job].bundle.user_ids))]
            catalogue.warm()
            for scene in catalogue.scenes:
                catalogue.model(scene).recommend(users, 1)
        if "churn" in self.models and self.snapshot is not None:
            model = self.models["churn"].bundle.model
            for ask in (model.predict_proba, model.explain):
                ask(self.encoded("churn").values[:1])

    @cached_property
    def _encoded(self) -> dict[str, UserFeatures]:
        return {}


# ---- loading ---------------------------------------------------------------------------------------------------------


def load_from_workspace(
    workspace: Workspace, settings: Settings, jobs: Collection[str] = tuple(BUNDLE_KINDS)
) -> Champions:
    """Load the champions; where one is broken, the version before it, and say so.

    Parameters
    ----------
    jobs : collection of str
        Only these; batch scoring needs one.

    Raises
    ------
    WorkspaceError
        There is no workspace, or its registry cannot be read.
    """
    workspace.require()
    models: dict[str, Champion] = {}
    failures: dict[str, QianmianError] = {}
    problems: list[QianmianError] = []
    for job in jobs:
        for version, folder in _candidate_versions(workspace, job):
            try:
                with folder as path:
                    models[job] = Champion(job, version, _load_bundle(path, job))
                break
            except ArtifactError as error:
                logger.warning("champion=broken model=%s version=%s reason=%s", REGISTERED_PREFIX + job, version, error)
                failures.setdefault(job, error)
        if job in models and job in failures:
            problems.append(failures.pop(job))
    snapshot, found = _load_snapshot(workspace)
    if snapshot is None:
        failures["profiles"] = found[0]
    else:
        problems += found
    return _require_models(Champions(models, snapshot, settings, failures, tuple(problems)), str(workspace.root))


def load_from_folder(folder: Path) -> Champions:
    """Load what `export` wrote; no MLflow, no workspace.

    Raises
    ------
    ArtifactError
        The folder holds no export.
    """
    index = _read_index(folder)
    models: dict[str, Champion] = {}
    failures: dict[str, QianmianError] = {}
    for job, entry in index["models"].items():
        try:
            models[job] = Champion(job, entry["version"], _load_bundle(folder / entry["folder"], job))
        except ArtifactError as error:
            logger.warning(
                "champion=broken model=%s version=%s reason=%s", REGISTERED_PREFIX + job, entry["version"], error
            )
            failures[job] = error
    snapshot = None
    if index["snapshot"] is not None:
        try:
            snapshot = Snapshot.load(folder / index["snapshot"])
        except ArtifactError as error:
            failures["profiles"] = error
    return _require_models(Champions(models, snapshot, index["settings"], failures), str(folder))


def export(workspace: Workspace, settings: Settings, folder: Path) -> Path:
    """Copy the champions that load and the current profiles into `folder`, which must not exist; all of it or nothing.

    Raises
    ------
    NotReady
        There is no champion to export.
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


def _candidate_versions(workspace: Workspace, job: str) -> Iterator[tuple[str, AbstractContextManager[Path]]]:
    tried = set[str]()
    for alias in (CHAMPION, PREVIOUS):
        version = model_registry.version_of(workspace, job, alias)
        if version is not None and version not in tried:
            tried.add(version)
            yield version, model_registry.bundle_folder(workspace, job, version)


def _load_bundle(folder: Path, job: str) -> ModelBundle:
    try:
        bundle = ModelBundle.load(folder)
    except (KeyError, ValueError, TypeError, AttributeError) as error:  # a manifest that is JSON but not ours
        raise ArtifactError(
            "a model cannot be read", where=str(folder), got=f"{type(error).__name__}: {error}", hint=RESTORE_HINT
        ) from error
    if bundle.kind != BUNDLE_KINDS[job]:
        raise ArtifactError(
            "the registered model is of another kind",
            where=str(folder),
            got=bundle.kind,
            allowed=BUNDLE_KINDS[job],
            hint=RESTORE_HINT,
        )
    return bundle


def _load_snapshot(workspace: Workspace) -> tuple[Snapshot | None, list[QianmianError]]:
    """The current profiles, else the newest ones that can be read, and what was wrong with those before."""
    found: list[QianmianError] = []
    try:
        return snapshots.load_current(workspace), found
    except WorkspaceError as error:
        return None, [error]
    except ArtifactError as error:
        logger.warning("profiles=broken reason=%s", error)
        found.append(error)
    others = [path for path in workspace.online.iterdir() if (path / "snapshot.json").exists()]
    for folder in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            return Snapshot.load(folder), found
        except ArtifactError as error:
            found.append(error)
    return None, found


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX_FILE
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        if index["format"] != FORMAT:
            raise ArtifactError(
                "the export has another format",
                where=str(path),
                got=index["format"],
                allowed=FORMAT,
                hint="export again",
            )
        return {**index, "settings": Settings.model_validate(index["settings"])}
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise ArtifactError(
            "an export cannot be read", where=str(path), got=str(error).splitlines()[0], hint="export again"
        ) from error


def _require_models(champions: Champions, where: str) -> Champions:
    if not champions.models:
        first = next(iter(champions.failures.values()), None)
        if isinstance(first, ArtifactError):
            raise first
        raise NotReady("there is no champion model to serve", where=where, hint="run `qianmian train all`")
    return champions


def _no_champion_error(job: str) -> NotReady:
    return NotReady(
        f"no {job} model is in production",
        where=REGISTERED_PREFIX + job,
        hint=f"run `qianmian train {job}` and restart the server",
    )
