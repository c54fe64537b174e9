"""Erasing a customer from within a server: `qianmian erase`, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from features.data.locking import try_lock
from features.erasure.customer import User
from features.event_log.erased_users import Hasher
from qianmian.errors import (
    InvalidRequest,
    NotFound,
    Overloaded,
    QianmianError,
    StorageError,
    StorageFull,
    WorkspaceError,
)
from qianmian.workspace import ENVIRONMENT_VARIABLE, Workspace

logger = logging.getLogger(__name__)

# -P: a folder `cli` or a module of another name in the working directory is not ours
COMMAND = (sys.executable, "-P", "-m", "cli.main", "erase", "-", "--json")
ROOT = Path(__file__).resolve().parents[1]
MOST_WAITING = 10  # erasures; each takes seconds
FAILED = {
    "code": "internal",
    "message": "the erasure has failed",
    "field": None,
    "hint": "run `qianmian erase --resume` on the machine of the workspace, which says why",
}
# option of the command → field of the request
FIELDS = {"--source": "user_source", "--reason": "reason"}
UNKNOWN_HINT = (
    "check user_id and user_source; `qianmian erase USER_ID --source NAME --unknown` erases an id that no customer has"
)
Receipt = dict[str, Any]


class NoWorkspace(QianmianError):
    """This server has no workspace to erase a customer from."""

    code, http_status, exit_code = "no_workspace", 501, 2


class ErasureFailed(QianmianError):
    """The command has ended without a receipt."""

    code, http_status, exit_code = "internal", 500, 1


# code of an error of the command → error of the request
ERRORS: dict[str, type[QianmianError]] = {
    "data": NotFound,
    "usage": InvalidRequest,
    "workspace": WorkspaceError,
    "storage": StorageError,
    "storage_full": StorageFull,
}


class Erasures:
    """Runs erasures in the order of their arrival, one at a time.

    Parameters
    ----------
    workspace : Workspace, optional
        A Bento has none.
    hasher : Hasher
        Makes tombstones.
    command : sequence of str
        Reads a user id from its input, and prints a receipt or an error as JSON.
    """

    def __init__(self, workspace: Workspace | None, hasher: Hasher, command: Sequence[str] = COMMAND) -> None:
        self.workspace, self._hasher, self._command = workspace, hasher, command
        self._turn = asyncio.Lock()
        self._running: dict[tuple[str, str | None], asyncio.Task[Receipt]] = {}

    def require(self) -> Workspace:
        """The workspace.

        Raises
        ------
        NoWorkspace
            There is none.
        """
        if self.workspace is None:
            raise NoWorkspace(
                "this server has no workspace to erase a customer from",
                hint="run `qianmian erase` where the workspace is, then build and deploy the Bento again",
            )
        return self.workspace

    async def erase(self, user_id: str, user_source: str | None, reason: str | None, seconds: float) -> Receipt | None:
        """Erase a customer, and return the receipt; None if it takes longer than some seconds, and goes on.

        The same call then waits for the same erasure.

        Raises
        ------
        QianmianError
            There is no workspace, too many erasures wait, or the command says that it cannot be done.
        """
        self.require()
        if "\n" in user_id or "\r" in user_id:  # the command reads one line: it would be another customer
            raise NotFound("no customer has a user id with a line break", field="user_id")
        named = user_id, user_source
        if (task := self._running.get(named)) is None:
            if len(self._running) > MOST_WAITING:
                raise Overloaded(f"{len(self._running)} erasures are waiting", hint="try again later")
            task = self._running[named] = asyncio.get_running_loop().create_task(self._run(*named, reason))
            task.add_done_callback(partial(self._ended, named))
        done, _ = await asyncio.wait([task], timeout=seconds)
        return task.result() if done else None

    def _ended(self, named: tuple[str, str | None], task: asyncio.Task[Receipt]) -> None:
        del self._running[named]
        if not task.cancelled():
            task.exception()  # nobody may be waiting any more

    async def _run(self, user_id: str, user_source: str | None, reason: str | None) -> Receipt:
        options = [
            text
            for name, value in (("--source", user_source), ("--reason", reason))
            if value is not None
            for text in (f"{name}={value}",)
        ]
        async with self._turn:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                *options,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,  # may name the customer
                # in the working directory of the server, of which relative paths in its environment are
                env=self._environment(),
                start_new_session=True,  # goes on if the server is stopped
            )
            output, _ = await process.communicate(f"{user_id}\n".encode())
        logger.info("erasure=ended exit=%s", process.returncode)
        try:
            found = json.loads(output.splitlines()[-1])
        except (ValueError, IndexError):
            found = None
        if not isinstance(found, dict):
            found = {"error": FAILED}
        if "error" in found:
            raise _not_erased(found["error"], user_id, self.require())
        return dict(found)

    def _environment(self) -> dict[str, str]:
        path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH")) if part)
        own = {ENVIRONMENT_VARIABLE: str(self.require().root), "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"}
        return {**os.environ, **own}

    def runs_elsewhere(self, user_id: str, user_source: str | None) -> bool:
        """Whether another process, a worker's or that of the command line, is erasing this customer now."""
        if self.pending_id(user_id, user_source) is None:
            return False
        try:
            with (self.require().root / "erasures" / ".lock").open("a") as handle:
                return not try_lock(handle, shared=True)
        except OSError:
            return False

    def receipt(self, users: Iterable[User]) -> Receipt | None:
        """The receipt of an erasure of one of some users, None if there is none."""
        folder, named = self.require().root / "erasures" / "receipts", list(users)
        files = sorted(folder.glob("*.json")) if named else []
        if not files:
            return None
        tombstones = {self._hasher(*user) for user in named}
        for file in files:
            try:
                receipt: Receipt = json.loads(file.read_text(encoding="utf-8"))
            except (OSError, ValueError):  # of another erasure, as far as anybody can say
                logger.warning("receipt=unreadable file=%s", file.name)
                continue
            if receipt.get("complete") and not tombstones.isdisjoint(receipt["tombstones"]):
                return receipt
        return None

    def pending_id(self, user_id: str, user_source: str | None) -> str | None:
        """The id of an erasure of a user id that has begun and not ended, as far as it is known."""
        for file in (self.require().root / "erasures" / "pending").glob("*.json"):
            try:
                pending = json.loads(file.read_text(encoding="utf-8"))
            except (OSError, ValueError):  # it has just ended
                continue
            users = pending["customer"]["users"]
            if any(user == user_id and user_source in (None, source) for source, user in users):
                return str(pending["erasure_id"])
        return None


def _not_erased(error: dict[str, Any], user_id: str, workspace: Workspace) -> QianmianError:
    """The error of the command in the words of a request: fields for options, and no path of this machine.

    It does not name the customer, because an error of a server is written into its log.
    """
    kind = ERRORS.get(error["code"], ErasureFailed)
    if kind is NotFound:
        return NotFound("no customer has this user id", field="user_id", hint=UNKNOWN_HINT)
    if kind is ErasureFailed:  # the text of an exception tells of the inside of the server
        return ErasureFailed(FAILED["message"] or "", hint=FAILED["hint"])
    named = re.compile(rf"(?<!\w){re.escape(user_id)}(?!\w)")
    texts = []
    for text in (str(error["message"]), str(error["hint"] or "")):
        found = text.replace(str(workspace.root), "the workspace")
        for option, field in FIELDS.items():
            found = found.replace(option, field)
        texts.append(named.sub("…", found))
    message, hint = texts
    of_request = next((field for field in FIELDS.values() if f"(in {field}" in message), "user_id")
    return kind(message, field=of_request if kind.http_status < 500 else None, hint=hint or None)
