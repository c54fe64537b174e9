"""The artifact addresses in the MLflow store of a workspace.

MLflow stores absolute addresses. In a workspace that was copied or moved they still name the former folder, so a copy
would be served from its original and would write into it. `adopt` makes the addresses those of the workspace, and
`current_path` translates them where the store cannot be written.

Importing MLflow takes longer than reading what a prediction needs of its store, and 200 MB in every worker of a server,
so `rows` reads the tables itself, in the file of the workspace or on a database server.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from qianmian.errors import WorkspaceError
from qianmian.paths import local_path, sqlite_file
from qianmian.schema import REGISTERED_PREFIX
from qianmian.workspace import Workspace, atomic_path

if TYPE_CHECKING:
    from sqlalchemy import Engine

logger = logging.getLogger(__name__)

EXPERIMENT = "qianmian"  # of all jobs in a store of an earlier version; now each has one of its own, `qianmian-churn`
# columns with addresses of artifacts; a store of an earlier MLflow lacks some of the tables
ADDRESS_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("trace_tags", "value"),
)
DATABASE_SERVER = re.compile(r"(postgresql|mysql|mssql)(\+\w+)?://")  # the servers whose URLs MLflow takes
CONNECT_SECONDS = 5
READER_LOCK_SECONDS, WRITER_LOCK_SECONDS = 1.0, 20.0  # how long to wait for another process that writes the store


def own_store(workspace: Workspace) -> Path | None:
    """Return the SQLite file inside the workspace if it is the MLflow store in use, else None."""
    file = sqlite_file(workspace.tracking_uri)
    own = workspace.mlflow_db
    if file is None or not own.exists():
        return None
    return own if file == own or _same(file, own) else None


def adopt(workspace: Workspace, *, required: bool = False) -> None:
    """Make the artifact addresses of the store those of this workspace; nothing changes unless it was copied or moved.

    All addresses change in one transaction, so another process sees either the former folder or this one. The former
    folder is not touched, also when both folders share the file through a hard link.

    Parameters
    ----------
    workspace : Workspace
    required : bool
        Raise if the store cannot be written, because the caller will write artifacts. Else the store stays as it is,
        and `current_path` translates its addresses.

    Raises
    ------
    WorkspaceError
        If the store cannot be written and `required` is true.
    """
    store, former = own_store(workspace), former_root(workspace)
    if store is None or former is None:
        return
    try:
        _unshare(store)
        with _writing(store, WRITER_LOCK_SECONDS if required else READER_LOCK_SECONDS) as connection:
            # read again, because another process may have changed it
            while (address := _former_address(connection, workspace)) is not None:
                _replace(connection, address, workspace.root)
    except (sqlite3.Error, OSError, WorkspaceError) as error:
        logger.info("store=not adopted workspace=%s former=%s reason=%s", workspace.root, former, error)
        if required:
            raise WorkspaceError(
                f"this workspace was copied or moved from {former}, and the paths in its model store cannot be changed",
                where=str(store),
                got=str(error),
                hint="give this user write permission, or wait until other processes have finished",
            ) from error
    else:
        logger.warning("store=adopted workspace=%s former=%s", workspace.root, former)


def rows(workspace: Workspace, query: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]] | None:
    """Rows of a query on the tables of MLflow; None if MLflow has to read its store, or to say what is wrong with it.

    Parameters
    ----------
    query : str
        Each ``:name`` in it is a parameter.
    parameters : mapping of str to any, optional

    Raises
    ------
    WorkspaceError
        If the store is on a database server that cannot be reached.
    """
    if on_database_server(workspace):
        return _server_rows(workspace.tracking_uri, query, parameters or {})
    store = own_store(workspace)
    if store is None:
        return None
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(store))}?mode=ro", uri=True)) as connection:
            return connection.execute(query, dict(parameters or {})).fetchall()
    except sqlite3.Error:
        return None


def on_database_server(workspace: Workspace) -> bool:
    """Whether MLflow's store is on a database server such as PostgreSQL."""
    return DATABASE_SERVER.match(workspace.tracking_uri) is not None


def check_reachable(workspace: Workspace) -> None:
    """Check that the database server of the store, if it is on one, answers: MLflow would try again for an hour.

    Raises
    ------
    WorkspaceError
        If it cannot be reached.
    """
    if on_database_server(workspace):
        rows(workspace, "SELECT 1")


def shown_uri(uri: str) -> str:
    """Return the address of a store for messages, without its password.

    Examples
    --------
    >>> shown_uri("postgresql+psycopg://shop:secret@db/mlflow"), shown_uri("http://localhost:5000")
    ('postgresql+psycopg://shop:***@db/mlflow', 'http://localhost:5000')
    """
    return re.sub(r"(?<=://)([^/@:]*):[^/@]*@", r"\1:***@", uri)


def former_root(workspace: Workspace) -> Path | None:
    """Return the folder that the addresses in the store name, None if it is this workspace or cannot be told."""
    store = own_store(workspace)
    if store is None:
        return None
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(store))}?mode=ro", uri=True)) as connection:
            address = _former_address(connection, workspace)
    except sqlite3.Error:  # MLflow explains what is wrong with the file
        return None
    return None if address is None else local_path(address)


def current_path(workspace: Workspace, path: Path) -> Path:
    """Translate a path of the store into this workspace if it lies in the former folder."""
    former = former_root(workspace)
    if former is None or not path.is_relative_to(former):
        return path
    return workspace.root / path.relative_to(former)


def keep_inside(workspace: Workspace) -> None:
    """Let the experiments of MLflow and of this project store new artifacts inside the workspace.

    `mlflow run` creates experiments whose artifacts are in ``./mlruns`` of the current folder. Existing artifacts stay
    where they are. Nothing changes in a store outside the workspace, or for remote artifacts.
    """
    store = own_store(workspace)
    if store is None:
        return
    with contextlib.closing(sqlite3.connect(store, timeout=WRITER_LOCK_SECONDS, isolation_level=None)) as connection:
        for name, address in connection.execute("SELECT name, artifact_location FROM experiments").fetchall():
            folder = _folder_of_experiment(name)
            if folder is not None and address and not is_inside(workspace, address):
                inside = (workspace.root / folder).as_uri()
                connection.execute("UPDATE experiments SET artifact_location = ? WHERE name = ?", (inside, name))


def check_experiments(workspace: Workspace, jobs: Sequence[str], run_id: str | None) -> None:
    """Check, before hours of a training, that its runs and models can be written where they are read.

    Only stores whose tables `rows` reads are checked.

    Parameters
    ----------
    workspace : Workspace
    jobs : sequence of str
    run_id : str or None
        The run that `mlflow run` has opened, which the first job joins.

    Raises
    ------
    WorkspaceError
        The experiment of a job was deleted, or the one of the run is not of this project and stores its artifacts
        outside the workspace.
    """
    for number, name in (
        rows(workspace, "SELECT experiment_id, name FROM experiments WHERE lifecycle_stage = 'deleted'") or ()
    ):
        if name in {f"{REGISTERED_PREFIX}{job}" for job in jobs}:
            raise WorkspaceError(
                "the experiment of the job was deleted, so MLflow takes no runs in it",
                where=name,
                hint=f"mlflow experiments restore --experiment-id {number}, or delete it for good with `mlflow gc`",
            )
    query = (
        "SELECT e.name, e.artifact_location FROM experiments e JOIN runs r ON r.experiment_id = e.experiment_id "
        "WHERE r.run_uuid = :run"
    )
    joined = rows(workspace, query, {"run": run_id}) if run_id and own_store(workspace) else None
    for name, address in joined or ():
        if _folder_of_experiment(name) is None and not is_inside(workspace, address):
            raise WorkspaceError(
                f"the experiment {name} stores its models outside the workspace",
                where=str(workspace.root),
                got=address,
                hint="mlflow run without --experiment-name, or with that of the job, such as qianmian-churn",
            )


def is_inside(workspace: Workspace, address: str) -> bool:
    """Whether an address is remote or lies inside the workspace."""
    path = local_path(address)
    return (
        path is None
        or path.is_relative_to(workspace.root)
        or path.resolve().is_relative_to(workspace.root.resolve())  # a symbolic link names the workspace
    )


# ---- helpers ---------------------------------------------------------------------------------------------------------


def _folder_of_experiment(name: str) -> str | None:
    """Where the workspace has the artifacts of an experiment; None for one that is not of this project.

    All jobs share a folder, because MLflow gives every run and model a folder of its own in it. `mlflow run` opens runs
    in MLflow's own experiment `Default`.

    Examples
    --------
    >>> [_folder_of_experiment(name) for name in ("qianmian-churn", "qianmian", "Default", "another")]
    ['mlartifacts', 'mlartifacts', 'mlartifacts/0', None]
    """
    if name == EXPERIMENT or name.startswith(REGISTERED_PREFIX):
        return "mlartifacts"
    return "mlartifacts/0" if name == "Default" else None


@lru_cache(maxsize=4)
def _engine(uri: str) -> Engine:
    """The connections of this process to a database server: usually one, which is kept for the next look."""
    import sqlalchemy

    seconds = {} if uri.startswith("mssql") else {"connect_timeout": CONNECT_SECONDS}
    return sqlalchemy.create_engine(uri, pool_size=1, connect_args=seconds, isolation_level="AUTOCOMMIT")


def _server_rows(uri: str, query: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]] | None:
    import sqlalchemy

    try:
        with _engine(uri).connect() as connection:
            return [tuple(row) for row in connection.execute(sqlalchemy.text(query), parameters)]
    except ModuleNotFoundError as error:
        reason, hint = f"the driver {error.name} is not installed", "pip install 'qianmian[databases]'"
    except sqlalchemy.exc.OperationalError as error:  # a lost connection is not used again
        reason = " ".join(str(error.orig).split())[:300]
        hint = "check MLFLOW_TRACKING_URI, and that the server is running"
    except sqlalchemy.exc.SQLAlchemyError:  # the tables are missing, for example; MLflow makes them
        return None
    raise WorkspaceError("the model registry cannot be read", where=shown_uri(uri), got=reason, hint=hint)


def _same(one: Path, other: Path) -> bool:
    """Whether two paths name one file, for example through a symbolic link."""
    with contextlib.suppress(OSError):
        return one.samefile(other)
    return False


def _former_address(connection: sqlite3.Connection, workspace: Workspace) -> str | None:
    """The former folder as the store writes it (URI or path), taken from the artifact folders of the experiments."""
    for name, address in connection.execute("SELECT name, artifact_location FROM experiments").fetchall():
        folder = _folder_of_experiment(name)
        if not address or folder is None or not address.endswith(f"/{folder}"):
            continue
        former = str(address.removesuffix(f"/{folder}"))
        path = local_path(former)
        if path is not None and path.is_absolute() and path != workspace.root and not _same(path, workspace.root):
            return former
    return None


def _replace(connection: sqlite3.Connection, former: str, root: Path) -> None:
    """Replace the former folder at the start of every address, as a URI and as a plain path."""
    path = Path(local_path(former) or former)
    prefixes = {former: root.as_uri() if former.startswith("file:") else str(root)}
    prefixes |= {path.as_uri(): root.as_uri(), str(path): str(root)}
    for table, column in ADDRESS_COLUMNS:
        if column not in {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}:
            continue
        for old, new in prefixes.items():
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
            )


@contextlib.contextmanager
def _writing(store: Path, seconds: float) -> Iterator[sqlite3.Connection]:
    """A transaction that is committed at the end, or undone by an error."""
    connection = sqlite3.connect(store, timeout=seconds, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield connection
        connection.execute("COMMIT")
    finally:
        connection.close()  # an open transaction is rolled back


def _unshare(store: Path) -> None:
    """Replace a file that has other hard links (`cp -al`) by a copy, because a write would change the original too."""
    if os.stat(store).st_nlink == 1:
        return
    with (
        atomic_path(store) as temporary,
        contextlib.closing(sqlite3.connect(store)) as original,
        contextlib.closing(sqlite3.connect(temporary)) as copy,
    ):
        original.backup(copy)
