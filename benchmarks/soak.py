"""Memory and errors of a server over 200,000 mixed requests.

    python benchmarks/soak.py [--workspace DIR] [--quick] [--json FILE]

A copy of the workspace is served by one worker. Sixteen connections send requests of every route that its models
answer: plain ones, filters, events, reasons, other scenes, unknown customers, and ones that are refused (a wrong field,
no JSON, an unknown path). The proportional set size of the worker is read every 1,000 requests after a warm-up.

Musts: no request has another status than the one that belongs to it, and memory does not grow: the 95 % interval of the
slope over the requests (Theil and Sen) includes 0. Without --workspace, Complete Journey is ingested and its models are
trained in a temporary folder first (minutes).
"""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from common import Must, check, finish, machine, parser, value
from http_load import CONNECTIONS, Target, copied_workspace, server
from scipy import stats

from features.profiles import snapshot
from qianmian.config import load_settings
from qianmian.workspace import Workspace
from serving.champions import Champions, load_from_workspace

REQUESTS, WARM_UP, STEP = 200_000, 40_000, 1_000
QUICK_SHARE = 0.1
MUSTS = {"errors": Must("metric", most=0), "slope_low_kb": Must("metric", most=0)}


@dataclass(frozen=True)
class Kind:
    """A kind of requests: how often one is sent among all, its path, the status that belongs to it, and its body."""

    weight: int
    path: str
    status: int
    body: Callable[[str], Any]


def kinds_of(champions: Champions) -> dict[str, Kind]:
    """The kinds of requests that the champions answer, by name."""
    recommend, similar = "/v1/recommendations", "/v1/similar-items"
    model = champions.models["recommend"]
    items = [str(item) for item in model.catalogue.item_ids[:50]]
    moments = [(model.bundle.as_of + timedelta(days=1, minutes=minute)).isoformat() for minute in range(3)]
    events = [{"item_id": item, "ts": moment} for item, moment in zip(items, moments, strict=False)]
    found = {
        "plain": Kind(50, recommend, 200, lambda user: {"user_id": user}),
        "unknown customer": Kind(3, recommend, 200, lambda user: {"user_id": f"{user} unknown"}),
        "exclusions": Kind(10, recommend, 200, lambda user: {"user_id": user, "exclude": items}),
        "events": Kind(10, recommend, 200, lambda user: {"user_id": user, "context": {"events": events}}),
        "reasons": Kind(3, recommend, 200, lambda user: {"user_id": user, "explain": True}),
        "rank": Kind(5, "/v1/rank", 200, lambda user: {"user_id": user, "item_ids": items}),
        "similar": Kind(5, similar, 200, lambda user: {"item_id": items[len(user) % len(items)]}),
        "wrong field": Kind(2, recommend, 422, lambda user: {"user_id": user, "num_results": "many"}),
        "no JSON": Kind(1, recommend, 400, lambda user: None),
        "unknown path": Kind(1, "/v1/unknown", 404, lambda user: {}),
        "profile": Kind(8, "/v1/profile", 200, lambda user: {"user_id": user}),
    }
    for scene in ("discover", "replenish"):
        if scene in model.catalogue.scenes:
            found[scene] = Kind(2, recommend, 200, lambda user, scene=scene: {"user_id": user, "scene": scene})
    if "churn" in champions.models:
        found["churn"] = Kind(5, "/v1/churn", 200, lambda user: {"user_ids": [user], "explain": True})
    return found


class Senders:
    """Connections that take requests from one sequence, and count the answers by kind and status."""

    def __init__(self, url: str, kinds: dict[str, Kind], users: Sequence[str]) -> None:
        self.url, self.kinds, self.users = url, kinds, users
        self.statuses: Counter[tuple[str, int]] = Counter()
        self._drawn = self._requests()
        self._lock = threading.Lock()

    def _requests(self) -> Any:
        """Kinds and customers for ever, drawn at random."""
        rng, names = np.random.default_rng(0), list(self.kinds)
        shares = np.array([kind.weight for kind in self.kinds.values()], dtype=float)
        while True:
            chosen = rng.choice(len(names), 1_000, p=shares / shares.sum()).tolist()
            yield from zip((names[one] for one in chosen), rng.choice(self.users, 1_000).tolist(), strict=True)

    def send(self, count: int) -> None:
        """Send some requests."""
        drawn = islice(self._drawn, count)
        threads = [threading.Thread(target=self._connection, args=(drawn,)) for _ in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _connection(self, drawn: Any) -> None:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        while True:
            with self._lock:
                name, user = next(drawn, (None, ""))
            if name is None:
                connection.close()
                return
            kind = self.kinds[name]
            body = kind.body(user)
            status = 0  # no answer
            try:
                connection.request("POST", kind.path, b"{" if body is None else json.dumps(body).encode())
                response = connection.getresponse()
                response.read()
                status = response.status
            except (OSError, http.client.HTTPException):
                connection.close()
            with self._lock:
                self.statuses[name, status] += 1


def measure(workspace: Workspace, quick: bool) -> dict[str, dict[str, float]]:
    """Errors, and the slope of the worker's memory in kB per 1,000 requests with its interval."""
    share = QUICK_SHARE if quick else 1.0
    users = snapshot.load_current(workspace).table["user_id"].to_pylist()
    kinds = kinds_of(load_from_workspace(workspace, load_settings(workspace.config_file)))
    memory = []
    with server(workspace) as target:
        senders = Senders(target.url, kinds, users)
        senders.send(int(WARM_UP * share))
        for _ in range(int(REQUESTS * share) // STEP):
            senders.send(STEP)
            memory.append(worker_kilobytes(target))
    expected = {(name, kind.status) for name, kind in kinds.items()}
    errors = {found: count for found, count in senders.statuses.items() if found not in expected}
    for (name, status), count in sorted(errors.items()):
        print(f"{count} requests of kind '{name}' got the status {status}")
    slope, _, low, high = stats.theilslopes(memory, np.arange(len(memory)))
    return {
        "errors": value(sum(errors.values()), n=sum(senders.statuses.values())),
        "slope_kb": value(float(slope), float(low), float(high), len(memory)),
        "slope_low_kb": value(float(low)),
        "first_mb": value(memory[0] / 1e3),
        "last_mb": value(memory[-1] / 1e3),
    }


def worker_kilobytes(target: Target) -> float:
    """Proportional set size of the server's processes but the first, which supervises them."""
    return sum(process.memory_full_info().pss for process in target.processes[1:]) / 1e3


def main() -> None:
    """Send the requests and print the results."""
    arguments = parser((__doc__ or "").splitlines()[0])
    arguments.add_argument("--workspace", type=Path, default=None, help="a workspace with a recommender in production")
    options = arguments.parse_args()
    print(machine())
    with copied_workspace(options.workspace, "recommend", "churn") as workspace:
        found = measure(workspace, options.quick)
    slope, errors = found["slope_kb"], found["errors"]
    print(f"{errors['n']:,} requests, {errors['value']:.0f} with another status than theirs")
    print(
        f"memory of the worker {found['first_mb']['value']:.0f} → {found['last_mb']['value']:.0f} MB, slope"
        f" {slope['value']:+.1f} [{slope['low']:+.1f}, {slope['high']:+.1f}] kB per {STEP:,} requests"
    )
    checks = check(MUSTS, {name: found[name]["value"] for name in MUSTS})
    finish({"soak": {"qianmian": found}}, checks, options.json)


if __name__ == "__main__":
    main()
