"""Back a workspace up while servers use it, with the stores of MLflow and of accepted events, wherever these are.

    python deploy/backup.py WORKSPACE TARGET

TARGET must not exist. It gets `workspace/` and, for stores on servers, `mlflow.dump` (PostgreSQL) and `events.rdb`
(Redis). `MLFLOW_TRACKING_URI` and `QIANMIAN_ONLINE_STORE` name them, as for all commands; their clients `pg_dump` and
`redis-cli` must be installed. `secrets/` and `erasures/` are left out. docs/operations.md says how they are kept, and
how all is restored.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlparse

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from features.data.locking import exclusive_writer  # noqa: E402
from features.event_log.location import locate  # noqa: E402
from qianmian.config import load_settings  # noqa: E402
from qianmian.errors import QianmianError, UsageError  # noqa: E402
from qianmian.model_store import on_database_server, own_store  # noqa: E402
from qianmian.workspace import Workspace, atomic_path  # noqa: E402

# kept elsewhere, or temporary; databases are copied by their own means
LEFT_OUT = ("secrets", "erasures", ".serve-*", ".ingest-*", "*.tmp", "*.db", "*.db-*")


def back_up(workspace: Workspace, target: Path) -> Path:
    """Copy a workspace and its stores into a new folder, and return it.

    The writer lock of the lake is held meanwhile, so that no ingest begins. The event log is copied after the lake: it
    then has at least the events that the lake does not have. The registry is copied before the artifacts of its models.

    Raises
    ------
    QianmianError
        If the target exists, another process writes the lake, or a store cannot be copied.
    """
    if target.exists():
        raise UsageError("the target exists already", where=str(target), hint="name a new folder")
    location = locate(workspace.require(), load_settings(workspace.config_file).serving) or ""
    log = Path(location).name
    ignore = shutil.ignore_patterns(*LEFT_OUT, log, f"{log}-*")
    with exclusive_writer(workspace), atomic_path(target) as temporary:
        temporary.mkdir(mode=0o700)
        copy_registry(workspace, temporary)
        shutil.copytree(workspace.root, temporary / "workspace", ignore=ignore, dirs_exist_ok=True, symlinks=True)
        copy_events(workspace, location, temporary)
    return target


def copy_registry(workspace: Workspace, target: Path) -> None:
    """Copy MLflow's store, if it is in the workspace or on PostgreSQL."""
    store = own_store(workspace)
    if store is not None:
        copy_sqlite(store, target / "workspace" / store.name)
    elif on_database_server(workspace):
        import sqlalchemy

        url = sqlalchemy.make_url(workspace.tracking_uri)
        names = {"username": url.username, "host": url.host, "port": url.port, "database": url.database}
        address = sqlalchemy.URL.create("postgresql", **names, query=url.query).render_as_string()  # no password
        dump = ["pg_dump", "--format=custom", f"--file={target / 'mlflow.dump'}", f"--dbname={address}"]
        run(dump, PGPASSWORD=url.password)
    else:
        print(f"not copied: MLflow's store at {workspace.tracking_uri}", file=sys.stderr)


def copy_events(workspace: Workspace, location: str, target: Path) -> None:
    """Copy the event log, from its file or from Redis."""
    if "://" in location:
        url = urlparse(location)
        server = ["-h", url.hostname or "127.0.0.1", "-p", str(url.port or 6379)]
        options = [*(["--user", url.username] if url.username else []), *(["--tls"] if url.scheme == "rediss" else [])]
        run(["redis-cli", *server, *options, "--rdb", str(target / "events.rdb")], REDISCLI_AUTH=url.password)
    elif Path(location).exists():
        inside = Path(location).is_relative_to(workspace.root)
        name = Path("workspace", Path(location).relative_to(workspace.root)) if inside else Path("events.db")
        copy_sqlite(Path(location), target / name)


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy a SQLite file that others write, as of one moment."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(source)) as original, contextlib.closing(sqlite3.connect(target)) as copy:
        original.backup(copy)


def run(command: list[str], **secrets: str | None) -> None:
    """Run a program; what is secret goes into its environment.

    Raises
    ------
    UsageError
        If it is not installed, or fails.
    """
    environment = os.environ | {name: value for name, value in secrets.items() if value}
    try:
        subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise UsageError(f"{command[0]} is not installed", hint="install the clients of the store") from error
    except subprocess.CalledProcessError as error:
        raise UsageError(f"{command[0]} failed", got=error.stderr.strip()[:300]) from error


def main() -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("workspace", type=Path, metavar="WORKSPACE")
    parser.add_argument("target", type=Path, metavar="TARGET")
    options = parser.parse_args()
    try:
        print(f"written: {back_up(Workspace.locate(options.workspace), options.target.absolute())}")
    except QianmianError as error:
        print(f"{error.message}. {error.hint or ''}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
