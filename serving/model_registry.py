"""Reading MLflow's model registry: which versions there are, which one is in production, and which one was when.

Nothing here writes; `training` sets the aliases and leaves a tag an event on the registered model, which `history` reads.
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
from urllib.parse import unquote, urlparse

from qianmian.errors import ArtifactError, NotFound, WorkspaceError
from qianmian.schema import CHAMPION, EVENT_TAG, PREVIOUS, REGISTERED_PREFIX, registered_name
from qianmian.workspace import Workspace

logger = logging.getLogger(__name__)

SQLITE = "sqlite:///"


@dataclass(frozen=True)
class ModelEvent:
    """One change of what is in production.

    Attributes
    ----------
    at : str
        ISO 8601, UTC.
    action : str
        ``register``, ``promote`` or ``rollback``.
    version : str
        The version that was in production afterwards.
    previous : str or None
        What was in production before.
    """

    at: str
    action: str
    version: str
    previous: str | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def list_models(workspace: Workspace) -> list[dict[str, Any]]:
    """Every registered model of the project: name, versions, the champion and the one before it."""
    client = _client(workspace)
    if client is None:
        return []
    with _translate_errors(workspace):
        found = [model for model in client.search_registered_models() if model.name.startswith(REGISTERED_PREFIX)]
        return [
            {
                "name": model.name,
                "versions": len(client.search_model_versions(f"name='{model.name}'")),
                CHAMPION: _alias(model, CHAMPION),
                PREVIOUS: _alias(model, PREVIOUS),
            }
            for model in sorted(found, key=lambda model: str(model.name))
        ]


def show(workspace: Workspace, name: str) -> dict[str, Any]:
    """One registered model and its versions, newest first, each with its aliases and the metrics and parameters of its run.

    Raises
    ------
    NotFound
        No such registered model.
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


def history(workspace: Workspace, name: str) -> list[ModelEvent]:
    """What was registered, promoted and rolled back, oldest first.

    Raises
    ------
    NotFound
        No such registered model.
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
                )
            )
        except (ValueError, KeyError, TypeError):
            logger.warning("registry event=unreadable model=%s", model.name)
    return events


def version_of(workspace: Workspace, name: str, alias: str = CHAMPION) -> str | None:
    """The version an alias names, None where there is no such model or alias."""
    client = _client(workspace)
    if client is None:
        return None
    with _translate_errors(workspace):
        found = client.search_registered_models(f"name='{registered_name(name)}'")
        return _alias(found[0], alias) if found else None


@contextlib.contextmanager
def bundle_folder(workspace: Workspace, name: str, version: str) -> Iterator[Path]:
    """The `ModelBundle` folder of a registered version; a remote one is downloaded and removed after the block.

    Raises
    ------
    ArtifactError
        The artifacts are gone or hold no bundle.
    """
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    full, client = registered_name(name), _client(workspace)
    where = f"models:/{full}/{version}"
    if client is None:
        raise ArtifactError("there is no model registry here", where=where, hint="run `qianmian train all`")
    with tempfile.TemporaryDirectory(prefix="qianmian-model-") as temporary:
        try:
            uri = client.get_model_version_download_uri(full, version)
            local = local_path(uri)
            root = local or Path(
                mlflow.artifacts.download_artifacts(uri, dst_path=temporary, tracking_uri=workspace.tracking_uri)
            )
        except (MlflowException, OSError) as error:
            raise ArtifactError(
                "the artifacts of a model version cannot be fetched",
                where=where,
                got=_first_line(error),
                hint="restore them from a backup, `qianmian models rollback`, or train again",
            ) from error
        found = sorted(root.glob("artifacts/*/manifest.json"))
        if len(found) != 1:
            raise ArtifactError(
                "a model version holds no bundle",
                where=f"{where} ({root / 'artifacts'})",
                got=f"{len(found)} manifest.json",
                hint="restore it from a backup, `qianmian models rollback`, or train again",
            )
        yield found[0].parent


def local_path(uri: str) -> Path | None:
    """The path behind a file URI or a plain path, None for anything remote.

    Examples
    --------
    >>> str(local_path("file:///with%20space/a")), local_path("s3://bucket/a")
    ('/with space/a', None)
    """
    parsed = urlparse(uri)
    if parsed.scheme == "file":
        return Path(unquote(parsed.path))
    return Path(uri) if not parsed.scheme else None


# ---- helpers ---------------------------------------------------------------------------------------------------------


def _client(workspace: Workspace) -> Any:
    """MLflow's client, None where the workspace has no store yet (opening one would create it, and reading never writes)."""
    uri = workspace.tracking_uri
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).exists():
        return None
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _registered(workspace: Workspace, name: str) -> tuple[Any, Any]:
    client, full = _client(workspace), registered_name(name)
    found: list[Any] = []
    if client is not None:
        with _translate_errors(workspace):
            found = client.search_registered_models(f"name='{full}'")
    if not found:
        names = ", ".join(str(model["name"]) for model in list_models(workspace))
        raise NotFound(
            "there is no registered model of that name",
            got=full,
            allowed=names or "none yet",
            hint=f"run `qianmian train {full.removeprefix(REGISTERED_PREFIX)}`",
        )
    return client, found[0]


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
        run = None  # the run was deleted; the version still serves
    if run is not None:
        metrics, parameters = dict(run.data.metrics), dict(run.data.params)
    return {
        "version": str(version.version),
        "aliases": sorted(alias for alias, number in aliases.items() if number == str(version.version)),
        "created_at": datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
        "run_id": version.run_id,
        "metrics": metrics,
        "parameters": parameters,
        "tags": dict(version.tags),
    }


@contextlib.contextmanager
def _translate_errors(workspace: Workspace) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise WorkspaceError(
            "the model registry cannot be read",
            where=workspace.tracking_uri,
            got=_first_line(error),
            hint="check MLFLOW_TRACKING_URI and that its server answers",
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
