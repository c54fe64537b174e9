"""Changes to the MLflow registry: register, promote, roll back. Each is recorded as an event with its time."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from qianmian import model_store
from qianmian.errors import UsageError, WorkspaceError
from qianmian.schema import CHAMPION, EVENT_TAG, PREVIOUS, REGISTERED_PREFIX, registered_name
from qianmian.workspace import Workspace


def _client(workspace: Workspace) -> Any:
    model_store.check_reachable(workspace)
    from mlflow.tracking import MlflowClient

    model_store.adopt(workspace, required=True)
    return MlflowClient(tracking_uri=workspace.tracking_uri, registry_uri=workspace.tracking_uri)


def _version_of_alias(client: Any, name: str, alias: str) -> int | None:
    model = client.get_registered_model(name)
    version = model.aliases.get(alias)
    return int(version) if version is not None else None


def _set_champion(client: Any, name: str, version: int, action: str, now: datetime) -> dict[str, Any]:
    before = _version_of_alias(client, name, CHAMPION)
    if before is not None and before != version:
        client.set_registered_model_alias(name, PREVIOUS, str(before))
    client.set_registered_model_alias(name, CHAMPION, str(version))
    event = {
        "action": action,
        "version": version,
        "previous": before if before != version else _version_of_alias(client, name, PREVIOUS),
    }
    client.set_registered_model_tag(name, f"{EVENT_TAG}{now:%Y-%m-%dT%H:%M:%S.%fZ}", json.dumps(event))
    return {"name": name, **event}


def register(
    workspace: Workspace, job: str, run_id: str, model_uri: str, now: datetime, tags: dict[str, str]
) -> dict[str, Any]:
    """Register a new version as the champion; the champion so far becomes `previous`.

    Parameters
    ----------
    job : str
        Name of the training job.
    run_id, model_uri : str
        MLflow run and the model logged in it.
    now : datetime
        Time of the event.
    tags : dict of str to str
        Tags of the version.

    Returns
    -------
    dict
        Name of the registered model, action, version and previous version.

    Raises
    ------
    WorkspaceError
        If the model was stored outside the workspace, because the workspace was moved during the training.
    """
    from mlflow.exceptions import MlflowException

    client, name = _client(workspace), registered_name(job)
    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        client.create_registered_model(name)
    _require_inside(workspace, client, model_uri)
    version = client.create_model_version(name, source=model_uri, run_id=run_id, tags=tags)
    return _set_champion(client, name, int(version.version), "register", now)


def promote(workspace: Workspace, job: str, version: int, now: datetime) -> dict[str, Any]:
    """Make a version the champion.

    Raises
    ------
    UsageError
        If the model or the version is not registered.
    """
    client, name = _client(workspace), _require_registered(workspace, job)
    versions = sorted(int(found.version) for found in client.search_model_versions(f"name = '{name}'"))
    if version not in versions:
        raise UsageError(f"{name} has no version {version}", allowed=versions, hint=f"see `qianmian models show {job}`")
    return _set_champion(client, name, version, "promote", now)


def rollback(workspace: Workspace, job: str, now: datetime) -> dict[str, Any]:
    """Make `previous` the champion again, and the champion `previous`.

    Raises
    ------
    UsageError
        If the model is not registered or has no previous version.
    """
    client, name = _client(workspace), _require_registered(workspace, job)
    before = _version_of_alias(client, name, PREVIOUS)
    if before is None:
        raise UsageError(
            f"{name} has no previous version",
            hint=f"see `qianmian models history {job}`, then `qianmian models promote`",
        )
    return _set_champion(client, name, before, "rollback", now)


def _require_inside(workspace: Workspace, client: Any, model_uri: str) -> None:
    """Check that the artifacts of a model are in the workspace, if its own store has recorded them."""
    if model_store.own_store(workspace) is None:
        return
    address = str(client.get_logged_model(model_uri.removeprefix("models:/")).artifact_location)
    if not model_store.is_inside(workspace, address):
        raise WorkspaceError(
            "the model was stored outside the workspace",
            where=address,
            allowed=str(workspace.artifact_root),
            hint="another process has opened the same workspace under another path; wait for it, then train again",
        )


def _require_registered(workspace: Workspace, job: str) -> str:
    name = registered_name(job)
    names = sorted(
        model.name
        for model in _client(workspace).search_registered_models(filter_string=f"name LIKE '{REGISTERED_PREFIX}%'")
    )
    if name not in names:
        raise UsageError(
            f"no model is registered as {name}",
            allowed=", ".join(names) or "none yet",
            hint=f"run `qianmian train {job}`",
        )
    return name
