"""Which clusters are those of the training before: an id means the same customers from one training to the next."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle import ModelBundle
from qianmian import model_store
from qianmian.errors import ArtifactError, NotFound
from qianmian.paths import sqlite_file
from qianmian.schema import CHAMPION, registered_name
from qianmian.workspace import Workspace
from training.clusters.stability import Labels
from training.tracking import tracking_at

SAME = 0.5  # of the customers of two clusters together, in both: above it, at most one cluster is the same as another
PREFIX = "c"
LAST_ID = "last_cluster"  # parameter of a run: the largest number that an id has ever had
JOB = "clusters"


@dataclass(frozen=True)
class Before:
    """The clusters in production.

    Attributes
    ----------
    bundle : ModelBundle or None
        None if there are none, or they cannot be read.
    last_id : int
        Largest number of an id that any registered version gave; ids above it are free.
    version : str or None
        Version of the bundle.
    """

    bundle: ModelBundle | None = None
    last_id: int = 0
    version: str | None = None

    @property
    def named(self) -> dict[str, Any]:
        """What a run records of it, for a reproduction."""
        return {"version": self.version, LAST_ID: self.last_id}


def before_this(workspace: Workspace, named: Mapping[str, Any] | None = None) -> Before:
    """The clusters in production in the registry of a workspace.

    Parameters
    ----------
    workspace : Workspace
    named : mapping of str to any, optional
        `Before.named` of a run that is reproduced: the clusters that were in production then.

    Raises
    ------
    NotFound
        The version that is named was deleted.
    """
    if model_store.own_store(workspace) is None and sqlite_file(workspace.tracking_uri) == workspace.mlflow_db:
        return Before()  # nothing was trained
    from mlflow.tracking import MlflowClient

    model_store.adopt(workspace, required=True)
    uri, name = workspace.tracking_uri, registered_name(JOB)
    client = MlflowClient(uri, uri)
    with tracking_at(uri):
        if named is not None:
            return _version(client, named["version"], int(named[LAST_ID]))
        versions = list(client.search_model_versions(f"name='{name}'", max_results=1000))
        if not versions:
            return Before()
        last = max(int(_parameters(client, version).get(LAST_ID, 0)) for version in versions)
        return _version(client, client.get_registered_model(name).aliases.get(CHAMPION), last)


def _version(client: Any, version: str | None, last_id: int) -> Before:
    """The clusters of a version; without a bundle if there is no version, or if it cannot be read."""
    if version is None:
        return Before(None, last_id)
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    name = registered_name(JOB)
    with tempfile.TemporaryDirectory(prefix="qianmian-model-") as folder:
        try:
            address = client.get_model_version_download_uri(name, version)
        except MlflowException as error:
            raise NotFound(
                f"{name} has no version {version}, whose clusters were in production",
                hint="see `qianmian models list`",
            ) from error
        root = Path(download_artifacts(address, dst_path=folder))
        manifests = sorted(root.glob("artifacts/*/manifest.json"))
        try:
            bundle = ModelBundle.load(manifests[0].parent) if manifests else None
        except ArtifactError:  # damaged: `qianmian doctor` says so; the clusters then get new ids
            bundle = None
    return Before(bundle, last_id, None if bundle is None else version)


def _parameters(client: Any, version: Any) -> dict[str, str]:
    """Logged parameters of the run of a model version."""
    found: dict[str, str] = client.get_run(version.run_id).data.params if version.run_id else {}
    return found


def same_clusters(before: Labels, now: Labels, n_before: int, n_now: int) -> list[int]:
    """For each cluster now the one before that it is, −1 for a new one.

    Two clusters are the same if more than half of the customers of both together are in both (a Jaccard index above ½,
    below which Hennig 2007 calls a cluster dissolved). A cluster can then be the same as one other at most.

    Parameters
    ----------
    before, now : ndarray of int64, shape (n,)
        Clusters of the same customers by the model before and by the new one.

    Examples
    --------
    >>> same_clusters(np.array([0, 0, 0, 1, 1, 1]), np.array([1, 1, 1, 0, 0, 2]), 2, 3)
    [1, 0, -1]
    """
    both = np.zeros((n_now, n_before))
    np.add.at(both, (now, before), 1)
    together = both.sum(axis=1)[:, None] + both.sum(axis=0) - both
    overlap: NDArray[np.float64] = both / np.maximum(together, 1)
    return [int(row.argmax()) if row.max() > SAME else -1 for row in overlap]


def assign_ids(same: list[int], ids_before: tuple[str, ...], last_id: int) -> tuple[list[str], int]:
    """The id of each cluster, new ones above all that were ever given; and the largest number given so far.

    Examples
    --------
    >>> assign_ids([1, -1, 0], ("c1", "c4"), 6)
    (['c4', 'c7', 'c1'], 7)
    """
    ids = []
    last = max([last_id, *(int(one.removeprefix(PREFIX)) for one in ids_before)])
    for place in same:
        if place < 0:
            last += 1
        ids.append(ids_before[place] if place >= 0 else f"{PREFIX}{last}")
    return ids, last
