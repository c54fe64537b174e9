"""Replicas of the server as processes, a client that takes them in turn, and a load on it."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from deploy.local_servers import free_port
from qianmian.workspace import Workspace
from serving.server import wait_ready

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 30.0  # that a machine under load may take for what takes milliseconds
CHANGING = {"recommendation_id"}  # fields that differ from answer to answer


def until(holds: Callable[[], object], seconds: float = SECONDS) -> bool:
    """Wait until something holds, and return whether it does."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


class Replica:
    """One `qianmian serve`, and the requests to it alone.

    Parameters
    ----------
    name : str
        A letter.
    environment : dict of str to str
        Of the process: with the addresses of the event log and of MLflow's store.
    key : str or None
        API key; None for a server that asks for none.
    folder : Path
        Folder of its log.
    """

    def __init__(
        self, name: str, workspace: Workspace, environment: dict[str, str], key: str | None, folder: Path
    ) -> None:
        self.name, self.workspace, self.environment, self.key = name, workspace, environment, key
        self.port, self.log = free_port(), folder / f"{name}.log"
        self.url = f"http://127.0.0.1:{self.port}"
        self.sender = ("", datetime(2024, 1, 1))  # source and time of the events that it makes
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it is ready."""
        command = [sys.executable, "-m", "cli.main", "serve", "--port", str(self.port)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--workspace", str(self.workspace.root)],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_ready(self.url, self._process)

    def stop(self) -> int:
        """Stop it as systemd and Kubernetes do, with SIGTERM, and return its exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(60)

    def kill(self) -> None:
        """End all its processes with SIGKILL, as the loss of its host would."""
        if self._process is None or self._process.poll() is not None:
            return
        parent = psutil.Process(self._process.pid)
        for process in [*parent.children(recursive=True), parent]:
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()

    def answer(self, path: str, body: Any = None, timeout: float = 30.0) -> tuple[int, Any]:
        """Status and body of a request; without a body, GET.

        Raises
        ------
        OSError or HTTPException
            If there is no answer.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
            connection.request(
                "GET" if body is None else "POST", path, None if body is None else json.dumps(body), headers
            )
            response = connection.getresponse()
            text = response.read()
            return response.status, json.loads(text) if text.startswith(b"{") else text
        finally:
            connection.close()

    def post(self, path: str, body: Any) -> Any:
        """Body of an answer with status 200."""
        status, answer = self.answer(path, body)
        assert status == 200, (self.name, path, status, answer)
        return answer

    def items(self, user: str, scene: str) -> list[str]:
        """The items of a list."""
        body = {"user_id": user, "scene": scene, "user_source": self.sender[0] or None}
        return [item["item_id"] for item in self.post("/v1/recommendations", body)["items"]]

    def consent(self, user: str) -> Any:
        """Whether a customer may be contacted by e-mail, as the profile says."""
        tags = self.post("/v1/profile", {"user_id": user})["tags"]
        found = [tag["value"] for group in tags.values() for name, tag in group.items() if name == "consent_email"]
        return found[0] if found else None

    def score(self, user: str) -> dict[str, Any]:
        """The churn score of a customer."""
        return dict(self.post("/v1/churn", {"user_ids": [user]})["scores"][0])

    def churn_version(self) -> str:
        """Version of the churn model that is served."""
        return str(self.post("/v1/churn", {"user_ids": ["-"]})["model"]["version"])

    def event(self, event_type: str, event_id: str, **fields: Any) -> dict[str, Any]:
        """An event of the shop."""
        source, moment = self.sender
        names = {"event_id": event_id, "event_type": event_type, "user_source": source, "ts": moment.isoformat()}
        return {**names, **fields}

    def purchase(self, event_id: str, user: str, item: str) -> dict[str, Any]:
        """A purchase of one item."""
        return self.event("purchase", event_id, user_id=user, item_id=item)

    def send(self, event: dict[str, Any]) -> None:
        """Send an event, which has to be accepted."""
        stored = self.post("/v1/events", {"events": [event]})
        assert stored["accepted"] == 1, stored


def same_answers(one: Replica, other: Replica, path: str, body: Any) -> bool:
    """Whether two replicas answer a request alike."""
    first, second = (replica.post(path, body) for replica in (one, other))
    return bool(
        {name: value for name, value in first.items() if name not in CHANGING}
        == {name: value for name, value in second.items() if name not in CHANGING}
    )


class Balancer:
    """Takes the replicas in turn, and the next one if a connection fails or one is not ready, as nginx.conf says."""

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self._replicas, self._turns = replicas, itertools.count()
        self.repeated = 0

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        """Status and body of a request."""
        turn = next(self._turns)
        for number in range(1, len(self._replicas)):
            with contextlib.suppress(OSError, http.client.HTTPException):
                status, answer = self._replicas[(turn + number) % len(self._replicas)].answer(path, body)
                if status != 503:
                    return status, answer
            self.repeated += 1
        return self._replicas[turn % len(self._replicas)].answer(path, body)


class Load:
    """Context manager of threads that request lists through a balancer, and count what becomes of each request."""

    def __init__(self, balancer: Balancer, users: Sequence[str], threads: int = 4) -> None:
        self.answered, self.failures = 0, []  # type: ignore[var-annotated]
        self._balancer, self._users = balancer, users
        self._end, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, more: int) -> None:
        """Wait for so many further answers."""
        goal = self.answered + len(self.failures) + more
        until(lambda: self.answered + len(self.failures) >= goal, seconds=120)

    @property
    def summary(self) -> str:
        """What became of the requests."""
        failed = f", {len(self.failures)} failed, the first: {self.failures[0]}" if self.failures else ""
        return f"{self.answered} answered, {self._balancer.repeated} at the second try{failed}"

    def _run(self, number: int) -> None:
        for user in itertools.cycle([*self._users[number:], *self._users[:number]]):
            if self._end.is_set():
                return
            try:
                status, body = self._balancer.answer("/v1/recommendations", {"user_id": user})
                problem = None if status == 200 and body["items"] else f"{status} {body}"
            except (OSError, http.client.HTTPException) as error:
                problem = repr(error)
            with self._lock:
                if problem is None:
                    self.answered += 1
                else:
                    self.failures.append(problem)
            time.sleep(0.005)  # some hundred requests a second: the machine also starts servers
