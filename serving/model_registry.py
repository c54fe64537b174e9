"""Read access to the MLflow model registry: versions, aliases and history of the registered models.

This module changes nothing but the artifact addresses of a workspace that was copied or moved. `training.promotion`
sets the aliases, and stores every change as a tag of the registered model, which `history` reads.
"""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from qianmian import model_store
from qianmian.errors import ArtifactError, NotFound, WorkspaceError
from qianmian.paths import local_path, sqlite_file
from qianmian.schema import (
    CHALLENGER,
    CHAMPION,
    DECISION_TAG,
    EVENT_TAG,
    GATE_TAG,
    PREVIOUS,
    REGISTERED_PREFIX,
    registered_name,
)
from qianmian.workspace import Workspace

logger = logging.getLogger(__name__)

# the tables of MLflow that answer what a prediction needs
ALIAS_QUERY = "SELECT version FROM registered_model_aliases WHERE name = :name AND alias = :alias"
ALIASES_QUERY = "SELECT name, version FROM registered_model_aliases WHERE alias = :alias"
ADDRESS_QUERY = (
    "SELECT coalesce(storage_location, source) FROM model_versions "
    "WHERE name = :name AND version = :version AND status = 'READY' AND current_stage <> 'Deleted_Internal'"
)


@dataclass(frozen=True)
class ModelEvent:
    """A change of the champion.

    Attributes
    ----------
    at : str
        Time of the change, ISO 8601, UTC.
    action : str
        ``register``, ``promote`` or ``rollback``.
    version : str
        Champion after the change.
    previous : str or None
        Champion before the change.
    reason : str
        Why: what the gate found, or what a person wrote; empty for events of earlier versions.
    as_of, data_digest : str
        Cutoff and digest of the data of the champion after the change.
    """

    at: str
    action: str
    version: str
    previous: str | None
    reason: str = ""
    as_of: str = ""
    data_digest: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a dict."""
        return asdict(self)


def list_models(workspace: Workspace) -> list[dict[str, Any]]:
    """List the registered models: name, number of versions, champion, challenger and previous champion."""
    client = _client(workspace)
    if client is None:
        return []
    with _translate_errors(workspace):
        models = [model for model in client.search_registered_models() if model.name.startswith(REGISTERED_PREFIX)]
        return [
            {
                "name": model.name,
                "versions": len(client.search_model_versions(f"name='{model.name}'")),
                CHAMPION: _alias(model, CHAMPION),
                CHALLENGER: _alias(model, CHALLENGER),
                PREVIOUS: _alias(model, PREVIOUS),
            }
            for model in sorted(models, key=lambda model: str(model.name))
        ]


def show(workspace: Workspace, name: str) -> dict[str, Any]:
    """Describe a registered model and its versions, newest first: aliases, data, gate, metrics, slices, parameters.

    Raises
    ------
    NotFound
        If there is no such registered model.
    """
    client, model = _registered(workspace, name)
    with _translate_errors(workspace):
        aliases = {str(alias): str(version) for alias, version in model.aliases.items()}
        versions = sorted(
            client.search_model_versions(f"name='{model.name}'"), key=lambda version: -int(version.version)
        )
        return {
            "name": model.name,
            "aliases": aliases,
            "versions": [_describe(client, version, aliases) for version in versions],
        }


def compare(
    workspace: Workspace, name: str, first: str | None = None, second: str | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Describe two versions of a registered model as `show` does.

    Parameters
    ----------
    first, second : str, optional
        Versions; by default the champion, and the challenger or else the previous champion.

    Raises
    ------
    NotFound
        If there is no such model or version, or the model has no second version to compare with.
    """
    found = show(workspace, name)
    versions = {str(version["version"]): version for version in found["versions"]}
    aliases = found["aliases"]
    one = first or aliases.get(CHAMPION)
    other = second or next(
        (aliases[alias] for alias in (CHALLENGER, PREVIOUS, CHAMPION) if aliases.get(alias) not in (None, one)), None
    )
    for version, what in ((one, "champion"), (other, "challenger and no previous champion")):
        if version is None:
            raise NotFound(
                f"{found['name']} has no {what} to compare",
                allowed=", ".join(versions),
                hint=f"name two versions: `qianmian models compare {name} 1 2`",
            )
        if version not in versions:
            raise NotFound(f"{found['name']} has no such version", got=version, allowed=", ".join(versions))
    return versions[str(one)], versions[str(other)]


def history(workspace: Workspace, name: str) -> list[ModelEvent]:
    """List the registrations, promotions and rollbacks of a model, oldest first.

    Raises
    ------
    NotFound
        If there is no such registered model.
    """
    _, model = _registered(workspace, name)
    events = []
    for key in sorted(key for key in model.tags if key.startswith(EVENT_TAG)):
        try:
            value = json.loads(model.tags[key])
            previous = value["previous"]
            events.append(
                ModelEvent(
                    key.removeprefix(EVENT_TAG),
                    value["action"],
                    str(value["version"]),
                    None if previous is None else str(previous),
                    *(str(value.get(name, "")) for name in ("reason", "as_of", "data_digest")),
                )
            )
        except (ValueError, KeyError, TypeError):
            logger.warning("registry event=unreadable model=%s", model.name)
    return events


def version_of(workspace: Workspace, name: str, alias: str = CHAMPION) -> str | None:
    """Return the version that an alias refers to, None if there is no such model or alias."""
    full = registered_name(name)
    found = model_store.rows(workspace, ALIAS_QUERY, {"name": full, "alias": alias})
    if found is not None and len(found) < 2:
        return str(found[0][0]) if found else None
    client = _client(workspace)
    if client is None:
        return None
    with _translate_errors(workspace):
        models = client.search_registered_models(f"name='{full}'")
        return _alias(models[0], alias) if models else None


def champion_versions(workspace: Workspace) -> dict[str, str]:
    """Return the version of each champion by job, read from the tables of the store without MLflow.

    Empty if the store is that of an MLflow server or a file elsewhere, or a file that cannot be read at this moment.

    Raises
    ------
    WorkspaceError
        If the database server of the store cannot be reached.
    """
    found = model_store.rows(workspace, ALIASES_QUERY, {"alias": CHAMPION}) or []
    return {
        str(name).removeprefix(REGISTERED_PREFIX): str(version)
        for name, version in found
        if str(name).startswith(REGISTERED_PREFIX)
    }


@contextlib.contextmanager
def bundle_folder(workspace: Workspace, name: str, version: str) -> Iterator[Path]:
    """Context manager of the `ModelBundle` folder of a version; remote artifacts are downloaded for its duration.

    Raises
    ------
    ArtifactError
        If the artifacts are missing or contain no bundle.
    """
    full = registered_name(name)
    where = f"models:/{full}/{version}"
    with tempfile.TemporaryDirectory(prefix="qianmian-model-") as temporary:
        root = _local_artifacts(workspace, full, version) or _downloaded_artifacts(workspace, full, version, temporary)
        manifests = sorted(root.glob("artifacts/*/manifest.json"))
        if len(manifests) != 1:
            raise ArtifactError(
                "the model version does not contain exactly one bundle",
                where=f"{where} ({root / 'artifacts'})",
                got=f"{len(manifests)} manifest.json",
                hint="restore it from a backup, `qianmian models rollback`, or train again",
            )
        yield manifests[0].parent


# ---- helpers ---------------------------------------------------------------------------------------------------------


def _local_artifacts(workspace: Workspace, full: str, version: str) -> Path | None:
    """Folder of the artifacts of a version in the store of the workspace; None if MLflow has to find them."""
    model_store.adopt(workspace)
    found = model_store.rows(workspace, ADDRESS_QUERY, {"name": full, "version": int(version)})
    path = local_path(found[0][0]) if found is not None and len(found) == 1 and found[0][0] else None
    # translated, because the store of a read-only copy names the original
    return None if path is None else model_store.current_path(workspace, path)


def _downloaded_artifacts(workspace: Workspace, full: str, version: str, folder: str) -> Path:
    """Folder of the artifacts of a version, downloaded into `folder` if they are remote."""
    client, where = _client(workspace), f"models:/{full}/{version}"
    if client is None:
        raise ArtifactError("the workspace has no model registry", where=where, hint="run `qianmian train all`")
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    try:
        uri = client.get_model_version_download_uri(full, version)
        local = local_path(uri)
        return (local and model_store.current_path(workspace, local)) or Path(
            mlflow.artifacts.download_artifacts(uri, dst_path=folder, tracking_uri=workspace.tracking_uri)
        )
    except (MlflowException, OSError) as error:
        raise ArtifactError(
            "the artifacts of the model version cannot be read",
            where=where,
            got=_first_line(error),
            hint="restore them from a backup, `qianmian models rollback`, or train again",
        ) from error


def _client(workspace: Workspace) -> Any:
    """MLflow client, None if the workspace has no SQLite store yet, because opening one would create it."""
    uri = workspace.tracking_uri
    file = sqlite_file(uri)
    if file is not None and not file.exists():
        return None
    model_store.check_reachable(workspace)
    from mlflow.tracking import MlflowClient

    model_store.adopt(workspace)

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _registered(workspace: Workspace, name: str) -> tuple[Any, Any]:
    """Client and registered model of a name; raises `NotFound`."""
    client, full = _client(workspace), registered_name(name)
    models: list[Any] = []
    if client is not None:
        with _translate_errors(workspace):
            models = client.search_registered_models(f"name='{full}'")
    if not models:
        names = ", ".join(str(model["name"]) for model in list_models(workspace))
        raise NotFound(
            "unknown registered model",
            got=full,
            allowed=names or "none yet",
            hint=f"run `qianmian train {full.removeprefix(REGISTERED_PREFIX)}`",
        )
    return client, models[0]


def _alias(model: Any, alias: str) -> str | None:
    version = model.aliases.get(alias)
    return None if version is None else str(version)


def _describe(client: Any, version: Any, aliases: dict[str, str]) -> dict[str, Any]:
    from mlflow.exceptions import MlflowException

    metrics: dict[str, float] = {}
    parameters: dict[str, str] = {}
    try:
        run = client.get_run(version.run_id) if version.run_id else None
    except MlflowException:
        run = None  # the run was deleted; the version can still be served
    if run is not None:
        metrics, parameters = dict(run.data.metrics), dict(run.data.params)
    return {
        "version": str(version.version),
        "aliases": sorted(alias for alias, number in aliases.items() if number == str(version.version)),
        "created_at": datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
        "run_id": version.run_id,
        **_decided(dict(version.tags), parameters),
        "metrics": metrics,
        "parameters": parameters,
        "tags": dict(version.tags),
    }


def _decided(tags: dict[str, str], parameters: dict[str, str]) -> dict[str, Any]:
    """What was trained on which data, and what was decided; None where an earlier version has not recorded it."""
    return {
        "as_of": tags.get("as_of"),
        "horizon_days": tags.get("horizon_days") or parameters.get("horizon_days"),
        "data_digest": tags.get("data_digest"),
        "gate": tags.get(GATE_TAG),
        "gate_reasons": tags.get("gate_reasons", "").split(" | ") if tags.get("gate_reasons") else [],
        "decision": tags.get(DECISION_TAG),
    }


@contextlib.contextmanager
def _translate_errors(workspace: Workspace) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise WorkspaceError(
            "the model registry cannot be read",
            where=model_store.shown_uri(workspace.tracking_uri),
            got=_first_line(error),
            hint="check MLFLOW_TRACKING_URI, and that the tracking server is running",
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
