"""Start two replicas of the server over one Redis, with MLflow on PostgreSQL, and check that they act as one.

    python deploy/two_replicas.py [--quick] [--workspace DIR] [--keep]

PostgreSQL, Redis and the replicas run on free ports of 127.0.0.1, as they would on hosts of their own, and what goes
through a load balancer in a real set-up goes through a client here that takes the replicas in turn and tries the next
one when a connection fails. The shop is synthetic. Every check prints a line; the exit code is 1 if one fails. It needs
the Debian packages of PostgreSQL and Redis (`make servers`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from deploy.local_servers import PostgresServer, RedisServer  # noqa: E402
from deploy.replicas import Balancer, Load, Replica, same_answers, until  # noqa: E402
from features.profiles.snapshot import load_current  # noqa: E402
from qianmian.workspace import Workspace  # noqa: E402

USERS = 40  # whose answers are compared
SETTINGS = """\
timezone: UTC
profiles: {in_models: never}  # this and the rest only save time
recommend:
  half_life_days: [60]
  min_item_customers: 2
  budget_cpu_seconds: 1
  models: {ials: {factors: 8, iterations: 2}, hybrid: {factors: 8, epochs: 1}, two_stage: {rounds: 30, cuts: 1}}
"""


@dataclass
class Setup:
    """What runs, and what was checked."""

    workspace: Workspace
    postgres: PostgresServer
    redis: RedisServer
    environment: dict[str, str]
    key: str | None = None
    replicas: list[Replica] = field(default_factory=list)
    checks: list[tuple[bool, str, str]] = field(default_factory=list)

    def qianmian(self, *arguments: str) -> Any:
        """Run a command of `qianmian`, and return its JSON."""
        command = [sys.executable, "-m", "cli.main", *arguments, "--workspace", str(self.workspace.root), "--json"]
        done = subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"qianmian {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
        return json.loads(done.stdout)

    def balancer(self) -> Balancer:
        """A client that takes the replicas in turn."""
        return Balancer(self.replicas)

    def check(self, what: str, holds: object, measured: object = "") -> None:
        """Note whether something holds, and print it."""
        self.checks.append((bool(holds), what, str(measured)))
        print(f"{'ok    ' if holds else 'FAILED'}  {what}{f': {measured}' if measured != '' else ''}", flush=True)


@contextlib.contextmanager
def set_up(name: str, root: Path | None) -> Iterator[Setup]:
    """PostgreSQL, Redis and a shop with champions in MLflow's store on PostgreSQL; stopped and removed at the end."""
    folder = Path(name)
    with contextlib.ExitStack() as stack:
        postgres = PostgresServer("qianmian", secrets.token_urlsafe(16), "mlflow", durable=True)
        stack.callback(postgres.remove)
        (folder / "redis").mkdir()
        redis = RedisServer(folder / "redis", secrets.token_urlsafe(16))
        stack.callback(redis.kill)
        workspace = Workspace((root or folder / "workspace").absolute()).create()
        if not workspace.config_file.exists():
            workspace.config_file.write_text(SETTINGS)
        environment = {
            **os.environ,
            "MLFLOW_TRACKING_URI": postgres.url(),
            "QIANMIAN_ONLINE_STORE": redis.url,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PYTHONPATH": str(ROOT),
        }
        setup = Setup(workspace, postgres, redis, environment)
        setup.key = make_key(setup)
        yield setup


def make_key(setup: Setup) -> str:
    """Make an API key that may read and send events."""
    made = setup.qianmian("keys", "create", "--name", "two-replicas", "--scope", "read", "--scope", "events")
    return str(made["key"])


# ---- the checks ------------------------------------------------------------------------------------------------------


def check_registry(setup: Setup) -> None:
    champions = {model["name"]: model["champion"] for model in setup.qianmian("models", "list")["models"]}
    setup.check("champions are registered in PostgreSQL", champions, ", ".join(sorted(champions)))
    setup.check("the workspace has no MLflow store of its own", not setup.workspace.mlflow_db.exists())
    problems = [found for found in setup.qianmian("doctor")["findings"] if found["status"] == "fail"]
    setup.check("qianmian doctor finds nothing broken", not problems, problems or "")


def check_same_answers(setup: Setup, users: list[str], item: str, lookalike: bool) -> None:
    first, second = setup.replicas
    for route, bodies in questions(users, item, lookalike).items():
        different = [body for body in bodies if not same_answers(first, second, route, body)]
        setup.check(f"both give the same {route}", not different, f"{len(bodies)} requests")


def questions(users: list[str], item: str, lookalike: bool) -> dict[str, list[dict[str, Any]]]:
    """Requests by route."""
    return {
        "/v1/recommendations": [
            {"user_id": user, "scene": scene, "explain": True} for user in users for scene in ("home", "discover")
        ],
        "/v1/rank": [{"user_id": user, "item_ids": [item]} for user in users[:5]],
        "/v1/similar-items": [{"item_id": item}],
        "/v1/churn": [{"user_ids": users, "explain": True}],
        "/v1/profile": [{"user_id": user} for user in users],
        **({"/v1/lookalike": [{"seed_user_ids": users, "size": 20}]} if lookalike else {}),
    }


def check_events(setup: Setup, users: list[str]) -> list[dict[str, Any]]:
    """What one replica accepts is in the next answers of both; return the events."""
    first, second = setup.replicas
    user, stranger = users[0], users[1]
    before = first.post("/v1/recommendations", {"user_id": user, "scene": "discover"})
    item = before["items"][0]["item_id"]
    events = [first.purchase(f"bought {number}", who, item) for number, who in enumerate(users[:10])]
    sent = time.monotonic()
    stored = first.post("/v1/events", {"events": events})
    setup.check("A accepts ten purchases", stored["accepted"] == 10, stored["rejected"] or "")
    for name, replica in (("B", second), ("A", first)):
        holds = until(lambda replica=replica: item not in replica.items(user, "discover"))
        setup.check(f"the purchase is in the list of {name}", holds, f"{1000 * (time.monotonic() - sent):.0f} ms later")
    again = second.post("/v1/events", {"events": events})
    setup.check("B knows all of them as duplicates", again["duplicates"] == 10, again["rejected"] or "")
    until(
        lambda: all("recent_events" in replica.score(user) for replica in setup.replicas)
    )  # the online state is loaded
    setup.check(
        "both know them in profiles and scores",
        all(replica.score(user)["recent_events"] == 1 for replica in setup.replicas)
        and same_answers(first, second, "/v1/profile", {"user_id": user})
        and same_answers(first, second, "/v1/churn", {"user_ids": users[:10]}),
    )
    granted = not first.consent(stranger)
    second.send(second.event("consent", "e-mail", user_id=stranger, channel="email", granted=granted))
    holds = until(lambda: [replica.consent(stranger) for replica in setup.replicas] == [granted] * 2)
    setup.check("a consent told to B is known to both", holds, f"{not granted} → {granted}")
    sold_out = first.items(stranger, "home")[0]
    second.send(second.event("availability", "sold out", item_id=sold_out, available=False))
    holds = until(lambda: all(sold_out not in replica.items(stranger, "home") for replica in setup.replicas))
    setup.check("an item sold out at B is in no list of either", holds)
    return events


def check_killed_replica(setup: Setup, users: list[str], events: list[dict[str, Any]]) -> None:
    first, second = setup.replicas
    with Load(setup.balancer(), users) as load:
        load.wait_for(200)
        first.kill()
        load.wait_for(500)
    setup.check("A is killed with SIGKILL under load: every request is answered", not load.failures, load.summary)
    again = second.post("/v1/events", {"events": events})
    setup.check("B has every event that A has accepted", again["duplicates"] == len(events))
    first.start()
    setup.check(
        "A is started again and gives the same lists as B",
        all(same_answers(first, second, "/v1/recommendations", {"user_id": user}) for user in users),
    )


def check_rolling_restart(setup: Setup, users: list[str]) -> None:
    with Load(setup.balancer(), users) as load:
        for replica in setup.replicas:
            load.wait_for(200)
            code = replica.stop()
            setup.check(f"{replica.name} ends by itself after SIGTERM", code == 0, f"exit code {code}")
            replica.start()
        load.wait_for(200)
    setup.check("a rolling restart under load: every request is answered", not load.failures, load.summary)


def check_redis(setup: Setup, users: list[str], events: list[dict[str, Any]]) -> None:
    def lists() -> list[int]:
        return [replica.answer("/v1/recommendations", {"user_id": users[0]})[0] for replica in setup.replicas]

    def missing() -> list[bool]:
        return [b"cannot be read" in replica.answer("/readyz")[1] for replica in setup.replicas]

    setup.redis.kill()
    holds = until(lambda: missing() == [True] * 2)
    setup.check("Redis is killed: /readyz says that events are missed", holds)
    setup.check("lists are answered meanwhile", lists() == [200, 200], lists())
    refused = [replica.answer("/v1/events", {"events": events})[0] for replica in setup.replicas]
    setup.check("events get a 503 meanwhile, after which senders repeat them", refused == [503, 503], refused)
    setup.redis.start()
    setup.check("Redis is started again: no events are missed", until(lambda: missing() == [False] * 2))
    again = [replica.post("/v1/events", {"events": events})["duplicates"] for replica in setup.replicas]
    setup.check("it has every accepted event", again == [len(events)] * 2, again)


def check_registry_changes(setup: Setup, users: list[str]) -> None:
    setup.qianmian("train", "churn", "--horizon-days", "21", "--promote")
    served("2", setup, "a training is followed by both")
    setup.qianmian("models", "rollback", "churn")
    served("1", setup, "a rollback through PostgreSQL is followed by both")
    setup.postgres.stop()
    time.sleep(3)  # some looks of the replicas
    statuses = {replica.answer("/v1/churn", {"user_ids": users})[0] for replica in setup.replicas}
    statuses |= {replica.answer("/readyz")[0] for replica in setup.replicas}
    setup.check("PostgreSQL is stopped: both go on", statuses == {200}, f"{sorted(statuses)}")
    setup.postgres.start()
    setup.qianmian("models", "promote", "churn", "2")
    served("2", setup, "PostgreSQL is back: a promotion is followed by both")


def served(version: str, setup: Setup, what: str) -> None:
    begun = time.monotonic()
    holds = until(lambda: all(replica.churn_version() == version for replica in setup.replicas), seconds=60)
    setup.check(what, holds, f"version {version} after {time.monotonic() - begun:.1f} s")


def run_checks(setup: Setup, quick: bool) -> None:
    """Run every check; `quick` leaves out a further training and what follows from it."""
    snapshot = load_current(setup.workspace)
    orders = snapshot.features.column("orders_total")
    rows = (-orders).argsort(kind="stable")[:USERS].tolist()
    users = [snapshot.table["user_id"][row].as_py() for row in rows]
    source = snapshot.table["user_source"][rows[0]].as_py()
    moment = snapshot.as_of + timedelta(hours=1)
    for replica in setup.replicas:
        replica.sender = (source, moment)
    item = setup.replicas[0].items(users[0], "home")[0]
    check_registry(setup)
    check_same_answers(setup, users, item, lookalike=not quick)
    events = check_events(setup, users)
    check_killed_replica(setup, users, events)
    check_rolling_restart(setup, users)
    check_redis(setup, users, events)
    if not quick:
        check_registry_changes(setup, users)


def main() -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="leave out lookalikes and a second training")
    parser.add_argument(
        "--workspace", type=Path, metavar="DIR", help="folder of the shop, which stays; default: temporary"
    )
    parser.add_argument("--keep", action="store_true", help="let everything run after the checks, until Ctrl-C")
    options = parser.parse_args()
    if not (PostgresServer.installed() and RedisServer.installed()):
        parser.error("PostgreSQL and Redis are needed: make servers")
    begun = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="qianmian-replicas-") as name,
        set_up(Path(name), options.workspace) as setup,
    ):
        if not any(setup.workspace.lake.iterdir()):
            setup.qianmian("ingest", "synthetic", "--customers", "600", "--days", "240", "--seed", "3")
        for job in ("recommend", "churn", *(() if options.quick else ("lookalike",))):
            setup.qianmian("train", job)
        print(f"PostgreSQL, Redis and trained models after {time.monotonic() - begun:.0f} s", flush=True)
        with contextlib.ExitStack() as stack:
            for letter in "AB":
                replica = Replica(letter, setup.workspace, setup.environment, setup.key, Path(name))
                stack.callback(replica.kill)
                setup.replicas.append(replica)
            starts = [threading.Thread(target=replica.start) for replica in setup.replicas]
            for start in starts:
                start.start()
            for start in starts:
                start.join()
            run_checks(setup, options.quick)
            if options.keep:
                print("running until Ctrl-C: " + ", ".join(replica.url for replica in setup.replicas), flush=True)
                with contextlib.suppress(KeyboardInterrupt):
                    threading.Event().wait()
            for replica in setup.replicas:
                replica.stop()
    failed = [what for holds, what, _ in setup.checks if not holds]
    print(f"{len(setup.checks) - len(failed)} of {len(setup.checks)} checks hold, {time.monotonic() - begun:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
