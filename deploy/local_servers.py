"""A PostgreSQL and a Redis server of one's own, on free ports of 127.0.0.1, from the Debian packages (`make servers`).

The tests use them, and `two_replicas.py`. Passwords stand in files that only their server may read, never in a command.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, Self

import redis

START_SECONDS = 30.0
POSTGRES_USER = "postgres"  # of the Debian package; root must not run the server


def free_port() -> int:
    """Return a port of 127.0.0.1 that is not in use."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """A server that loses no acknowledged event: every write is in its file before it is answered.

    Parameters
    ----------
    folder : Path
        Existing folder of its files.
    password : str, optional
        Password of its only user; default: none.
    """

    def __init__(self, folder: Path, password: str | None = None) -> None:
        self._configure(folder, password)
        self.start()

    def _configure(self, folder: Path, password: str | None) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"redis://{f':{password}@' if password else ''}127.0.0.1:{self.port}/0"
        self.client = redis.Redis(port=self.port, password=password)
        options = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": folder,
            "appendonly": "yes",
            "appendfsync": "always",
            "save": '""',
            "logfile": "log",
            **({"requirepass": password} if password else {}),
        }
        self._configuration = folder / "redis.conf"
        self._configuration.touch(0o600)
        self._configuration.write_text("".join(f"{name} {value}\n" for name, value in options.items()))

    @classmethod
    def from_dump(cls, folder: Path, dump: Path, password: str | None = None) -> Self:
        """Start a server in a new folder, with what `redis-cli --rdb` has written."""
        folder.mkdir()
        shutil.copy(dump, folder / "dump.rdb")
        server = cls.__new__(cls)
        server._configure(folder, password)
        server.start("--appendonly", "no")  # with it, a server does not read the dump
        server.client.config_set("appendonly", "yes")  # it writes its file
        deadline = time.monotonic() + START_SECONDS
        while server.client.info("persistence")["aof_rewrite_in_progress"] and time.monotonic() < deadline:
            time.sleep(0.02)
        return server

    @staticmethod
    def installed() -> bool:
        """Whether Redis is installed."""
        return shutil.which("redis-server") is not None

    def start(self, *options: str) -> None:
        """Start the server, also after `kill`, and wait until it has read its file."""
        command = ["redis-server", str(self._configuration), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.client.ping()  # an error as long as it reads its file
                assert self.client.config_get("dir") == {"dir": str(self.folder)}, "another server has taken the port"
                return
            except redis.exceptions.ConnectionError:
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.02)

    def kill(self) -> None:
        """End the server with SIGKILL."""
        self.process.kill()
        self.process.wait()

    def hang(self) -> None:
        """Stop the process: it accepts connections and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let a process that was stopped go on."""
        self.process.send_signal(signal.SIGCONT)


class PostgresServer:
    """A server with one database, in a temporary folder. Root runs it as the user of the Debian package.

    Parameters
    ----------
    user, password : str
        The only user, who may do everything.
    database : str
        Name of the database that is made.
    durable : bool
        Whether a commit waits for the disk; tests do without.
    """

    def __init__(self, user: str, password: str, database: str = "postgres", durable: bool = False) -> None:
        self.user, self.password, self.database, self.port = user, password, database, free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="qianmian-postgresql-"))
        self._data, self._log = str(self.folder / "data"), str(self.folder / "log")
        self._prefix: list[str] = []
        secret = self.folder / "password"
        secret.touch(0o600)
        secret.write_text(password)
        if os.geteuid() == 0:
            shutil.chown(self.folder, POSTGRES_USER, POSTGRES_USER)
            shutil.chown(secret, POSTGRES_USER, POSTGRES_USER)
            self._prefix = ["setpriv", f"--reuid={POSTGRES_USER}", f"--regid={POSTGRES_USER}", "--clear-groups"]
        self._address = ["-h", "127.0.0.1", "-p", str(self.port), "-U", user, "-w"]
        self._options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1"
        self._options += "" if durable else " -c fsync=off"
        try:
            self._run("initdb", "-D", self._data, "-U", user, "-A", "scram-sha-256", "--pwfile", str(secret), "-N")
            self.start()
            if database != "postgres":
                self.create_database(database)
        except BaseException:
            self.remove()
            raise

    @staticmethod
    def program(name: str) -> str | None:
        """Return the path of one of its programs, None if PostgreSQL is not installed."""
        versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: path.parts[4].zfill(3))
        return str(versions[-1]) if versions else shutil.which(name)

    @classmethod
    def installed(cls) -> bool:
        """Whether PostgreSQL is installed."""
        return cls.program("initdb") is not None and cls.program("pg_ctl") is not None

    def url(self, database: str | None = None) -> str:
        """The SQLAlchemy URL of a database, with the password."""
        address = f"{self.user}:{self.password}@127.0.0.1:{self.port}"
        return f"postgresql+psycopg://{address}/{database or self.database}"

    def create_database(self, name: str) -> None:
        """Create another database."""
        self._run("createdb", *self._address, name)

    def restore(self, database: str, dump: Path) -> None:
        """Restore a dump of `pg_dump --format=custom` into an empty database."""
        with dump.open("rb") as handle:  # its user may not be able to open it
            self._run("pg_restore", *self._address, "--exit-on-error", "-d", database, stdin=handle)

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        self._run("pg_ctl", "-D", self._data, "-w", "-l", self._log, "-o", self._options, "start")

    def stop(self) -> None:
        """Stop the server at once, as a crash would."""
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "stop")

    def remove(self) -> None:
        """Stop the server if it runs, and remove its files."""
        if Path(self._data, "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, name: str, *arguments: str, stdin: IO[bytes] | None = None) -> None:
        """Run one of PostgreSQL's programs as the user of the server."""
        program = self.program(name)
        assert program is not None, f"{name} of PostgreSQL is not installed: make servers"
        environment = {**os.environ, "PGPASSWORD": self.password}
        command = [*self._prefix, program, *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder, env=environment, stdin=stdin)
