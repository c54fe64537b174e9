"""Erasing a customer from the models in MLflow: every version and run, whether it is served, archived or deleted."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from features.erasure.customer import Erased, ErasedCustomer
from features.erasure.matching import Mention, mention_of
from models.erasing import ERASURES, bundles_in, erase_users
from models.persist import load_json
from qianmian import model_store
from qianmian.errors import QianmianError, WorkspaceError
from qianmian.paths import local_path, sqlite_file
from qianmian.workspace import Workspace
from training.tracking import tracking_at

ERASURES_TAG = ERASURES  # of a model version: how many customers were taken out of it after its training
PAGE = 1000
LOCK_SECONDS = 20.0
# columns of MLflow's tables with texts that a training or a person wrote
TEXT_COLUMNS = (
    ("params", "value"),
    ("tags", "value"),
    ("runs", "name"),
    ("logged_model_params", "param_value"),
    ("logged_model_tags", "tag_value"),
    ("experiment_tags", "value"),
    ("registered_models", "description"),
    ("registered_model_tags", "value"),
    ("model_versions", "description"),
    ("model_version_tags", "value"),
)


@dataclass
class _Progress:
    """What was found so far; `erasures` has the number of customers taken out of each bundle, by its address."""

    removed: int = 0
    not_reached: list[str] = field(default_factory=list)
    erasures: dict[str, int] = field(default_factory=dict)


def erase_models(workspace: Workspace, customer: ErasedCustomer) -> Erased:
    """Take a customer out of all bundles and texts in the MLflow store of a workspace.

    The places are those that MLflow names: the artifacts of runs, logged models and versions, deleted ones included,
    and the folders of experiments. In a local folder each bundle takes the place of the former one by two renames;
    servers that have mapped it keep what they have (`models.erasing`). A remote bundle is downloaded, and the files
    that have changed are uploaded over the former ones. That is not atomic: a server that loads the version meanwhile
    refuses it, because a checksum differs, and so does the next erasure if the upload was killed; the version is then
    named in `not_reached`. Former versions of an object that a bucket keeps are not reached.

    Parameters, tags and descriptions name a customer only where many people bought with one account, or where somebody
    wrote an id there. In the SQLite store of a workspace the id is replaced and its bytes are overwritten. Another
    store is named in `not_reached`, because MLflow cannot change a logged parameter. A bundle that this version cannot
    read is named, too.

    A version out of which customers were taken has their number in its tag ``erasures``.
    """
    if model_store.own_store(workspace) is None and sqlite_file(workspace.tracking_uri) == workspace.mlflow_db:
        return Erased(0)  # nothing was trained
    from mlflow.tracking import MlflowClient

    model_store.adopt(workspace, required=True)
    uri = workspace.tracking_uri
    client, found = MlflowClient(uri, uri), _Progress()
    with tracking_at(uri):
        versions = list(_versions(client))
        experiments, addresses = _addresses(client)
        addresses |= {address for _, address in versions}
        for root in _outermost(path for path in map(local_path, {*experiments, *addresses}) if path is not None):
            _erase_folder(root, customer, found)
        for address in sorted(one for one in addresses if local_path(one) is None):
            _erase_remote(address, customer, found)
        for version, address in versions:
            _count_erasures(client, version, address, found)
        mention = mention_of(customer)
        if mention is None:
            pass  # no id that could be told from other words
        elif (store := model_store.own_store(workspace)) is not None:
            found.removed += _erase_texts(store, mention)
        else:
            found.not_reached += _runs_that_name(client, mention)
    return Erased(found.removed, tuple(found.not_reached))


# ---- where the artifacts are -----------------------------------------------------------------------------------------


def _versions(client: Any) -> Iterator[tuple[Any, str]]:
    """All versions of all registered models, each with the address of its artifacts."""
    for version in _pages(lambda token: client.search_model_versions(max_results=PAGE, page_token=token)):
        yield version, client.get_model_version_download_uri(version.name, version.version)


def _addresses(client: Any) -> tuple[set[str], set[str]]:
    """Where experiments, and where runs and logged models have their artifacts, deleted ones included."""
    from mlflow.entities import ViewType

    experiments = list(
        _pages(lambda token: client.search_experiments(ViewType.ALL, max_results=PAGE, page_token=token))
    )
    ids = [experiment.experiment_id for experiment in experiments]
    runs = _pages(lambda token: client.search_runs(ids, "", ViewType.ALL, max_results=PAGE, page_token=token))
    models = _pages(lambda token: client.search_logged_models(ids, max_results=100, page_token=token))
    return (
        {experiment.artifact_location for experiment in experiments},
        {run.info.artifact_uri for run in runs} | {model.artifact_location for model in models},
    )


def _pages(search: Callable[[str | None], Any]) -> Iterator[Any]:
    token: str | None = None
    while True:
        page = search(token)
        yield from page
        token = page.token
        if not token:
            return


def _outermost(paths: Iterator[Path]) -> list[Path]:
    """The folders that exist and lie in none of the others."""
    known = {path.resolve() for path in paths if path.is_dir()}
    return sorted(path for path in known if known.isdisjoint(path.parents))


def erase_from_bundle(bundle: Path, customer: ErasedCustomer) -> int:
    """Take a customer out of a bundle, mentions included; returns how many customers it named."""
    mention = mention_of(customer)
    if mention is None:
        return erase_users(bundle, customer.one_ids)
    return erase_users(bundle, customer.one_ids, mention.edited)


# ---- bundles ---------------------------------------------------------------------------------------------------------


def _erase_folder(root: Path, customer: ErasedCustomer, found: _Progress, address: str | None = None) -> int:
    """Take customers out of all bundles below a folder; returns how many bundles have changed."""
    changed = 0
    for bundle in bundles_in(root):
        where = str(bundle) if address is None else address
        try:
            changed += int(erase_from_bundle(bundle, customer) > 0)
            found.erasures[where] = int(load_json(bundle / "manifest.json")["facts"].get(ERASURES, 0))
        except (QianmianError, OSError, LookupError, ValueError, TypeError) as error:
            reason = error.message if isinstance(error, QianmianError) else type(error).__name__
            found.not_reached.append(f"{where}: {reason}; delete this version, or restore its files and erase again")
    found.removed += changed
    return changed


def _erase_remote(address: str, customer: ErasedCustomer, found: _Progress) -> None:
    """Download the bundles of a remote artifact folder, and upload what has changed, the manifest last."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    try:
        repository: Any = get_artifact_repository(address)
        for place in _remote_bundles(repository, ""):
            with tempfile.TemporaryDirectory(prefix="qianmian-erasing-") as scratch:
                folder = Path(repository.download_artifacts(place, scratch))
                before = load_json(folder / "manifest.json").get("files", {})
                if not _erase_folder(folder.parent, customer, found, f"{address}/{place}"):
                    continue
                after = load_json(folder / "manifest.json")["files"]
                changed = [name for name, digest in after.items() if before.get(name) != digest]
                for name in (*changed, "manifest.json"):
                    part = str(PurePosixPath(place, name).parent)
                    repository.log_artifact(str(folder / name), part)
    except (MlflowException, OSError) as error:
        found.not_reached.append(
            f"{address}: the artifacts cannot be read or written ({type(error).__name__}); erase again"
        )


def _remote_bundles(repository: Any, folder: str) -> Iterator[str]:
    """The folders of bundles in an artifact repository."""
    listed = repository.list_artifacts(folder or None)
    names = {PurePosixPath(entry.path).name for entry in listed}
    if {"manifest.json", "ids.npz"} <= names:
        yield folder
        return
    for entry in listed:
        if entry.is_dir:
            yield from _remote_bundles(repository, entry.path)


def _count_erasures(client: Any, version: Any, address: str, found: _Progress) -> None:
    """Set the tag of a version to what the manifest of its bundle says."""
    path = local_path(address)
    root = address if path is None else str(path.resolve())
    erased = max((count for where, count in found.erasures.items() if where.startswith(f"{root}/")), default=0)
    if erased and version.tags.get(ERASURES_TAG) != str(erased):
        client.set_model_version_tag(version.name, version.version, ERASURES_TAG, str(erased))


# ---- texts of the store ----------------------------------------------------------------------------------------------


def _erase_texts(store: Path, mention: Mention) -> int:
    """Replace ids in the texts of a SQLite store, and overwrite their bytes; returns the number of texts."""
    changed = 0
    with (
        _explain_sqlite_errors(store),
        contextlib.closing(sqlite3.connect(store, timeout=LOCK_SECONDS, isolation_level=None)) as connection,
    ):
        connection.execute("PRAGMA secure_delete = ON")
        connection.create_function("edited", 1, lambda text: mention.edited(text) if isinstance(text, str) else text)
        connection.execute("BEGIN IMMEDIATE")
        for table, column in TEXT_COLUMNS:
            if column not in {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}:
                continue  # of a store of another version of MLflow
            query = f"UPDATE {table} SET {column} = edited({column}) WHERE {column} <> edited({column})"
            changed += connection.execute(query).rowcount
        connection.execute("COMMIT")
        if changed:
            connection.execute("VACUUM")  # pages that were free before may still have an older copy
    return changed


@contextlib.contextmanager
def _explain_sqlite_errors(store: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise WorkspaceError(
            "the model store cannot be changed",
            where=str(store),
            got=str(error),
            hint="wait until other processes have finished with it, then erase again",
        ) from error


def _runs_that_name(client: Any, mention: Mention) -> list[str]:
    """Say which runs of a store that is not ours name the customer in a parameter or tag."""
    from mlflow.entities import ViewType

    ids = [one.experiment_id for one in _pages(lambda token: client.search_experiments(ViewType.ALL, page_token=token))]
    runs = _pages(lambda token: client.search_runs(ids, "", ViewType.ALL, max_results=PAGE, page_token=token))
    named = [
        run.info.run_id
        for run in runs
        if any(mention.edited(text) != text for text in (*run.data.params.values(), *run.data.tags.values()))
    ]
    hint = "MLflow cannot change a logged parameter: delete the run and run `mlflow gc`, or change it in the database"
    return [f"run {run_id}: a parameter or tag names the customer; {hint}" for run_id in named]
