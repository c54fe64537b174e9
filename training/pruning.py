"""`models prune`: remove old versions of the registered models that nothing refers to, and their artifacts."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from features.data.locking import champions_lock, workspace_lock
from qianmian.schema import REGISTERED_PREFIX
from qianmian.workspace import Workspace
from training.promotion import client_of, mend_locked, require_registered

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pruned:
    """A version that was removed, or would be: name of the registered model, and number of the version."""

    name: str
    version: int


def prune(workspace: Workspace, job: str | None, keep: int, *, dry_run: bool = False) -> list[Pruned]:
    """Remove the versions that have no alias and are not among the newest ones of their model.

    Their runs stay, with metrics, plots and what repeats the training. A version leaves the registry before its
    artifacts are removed, so a kill in between leaves files, and no version without them.

    Parameters
    ----------
    workspace : Workspace
    job : str, optional
        Of one registered model; by default all.
    keep : int
        Number of the newest versions of each model that stay, at least 0.
    dry_run : bool
        Remove nothing, and say what would be removed.

    Returns
    -------
    list of Pruned

    Raises
    ------
    UsageError
        If the model is not registered.
    WorkspaceError
        If a customer is being erased, or another process is changing a champion.
    """
    client, found = client_of(workspace), []
    with workspace_lock(workspace), champions_lock(workspace):
        mend_locked(workspace, client)
        query = f"name = '{require_registered(workspace, job)}'" if job else f"name LIKE '{REGISTERED_PREFIX}%'"
        for model in client.search_registered_models(filter_string=query):
            versions = client.search_model_versions(f"name = '{model.name}'")
            named = {str(version) for version in model.aliases.values()}
            newest_first = sorted(versions, key=lambda version: -int(version.version))
            old = [version for version in newest_first[keep:] if str(version.version) not in named]
            for version in reversed(old):
                if not dry_run:
                    _remove(workspace, client, version)
                found.append(Pruned(str(model.name), int(version.version)))
    return found


def _remove(workspace: Workspace, client: Any, version: Any) -> None:
    """Remove a version and, unless another version has the same ones, its artifacts."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    address = client.get_model_version_download_uri(version.name, version.version)
    client.delete_model_version(version.name, str(version.version))
    others = {client.get_model_version_download_uri(one.name, one.version) for one in client.search_model_versions()}
    if address not in others:
        artifacts: Any = get_artifact_repository(address, workspace.tracking_uri, workspace.tracking_uri)
        artifacts.delete_artifacts()
        if version.model_id:
            client.delete_logged_model(version.model_id)
    logger.info("registry=pruned model=%s version=%s", version.name, version.version)
