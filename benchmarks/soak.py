"""Memory and errors of a server over 200,000 mixed requests.

    python benchmarks/soak.py [--workspace DIR] [--quick] [--json FILE]

A copy of the workspace is served by one worker. Sixteen connections send requests of every route that its models
answer: plain ones, exclusions, filters, events, reasons, re-ranking, other scenes, unknown customers, and ones that are
refused (a wrong field, no JSON, an unknown path). Customers and items are drawn at random; unknown ids and paths, texts
of filters and times of events never come twice, so that something that is kept for each of them shows. The proportional
set size of the worker is read every 1,000 requests after a warm-up, in which the caches of bounded size fill: that of
the lists of customers by a plain request for each customer and scene, the others by mixed requests.

Musts: every request gets the status that belongs to it, and memory does not grow: the 95 % interval of the slope over
the requests (Theil and Sen) includes 0. A quick run only reports the slope: its few readings, with caches that still
fill, say nothing. Without --workspace, Complete Journey is ingested and its models are trained in a temporary folder
first (minutes).
"""

from __future__ import annotations

import http.client
import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from itertools import count, islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from common import Must, check, finish, machine, parser, value
from http_load import CONNECTIONS, PATH, Target, copied_workspace, server
from scipy import stats

from features.profiles import snapshot
from qianmian.config import load_settings
from qianmian.workspace import Workspace
from serving.champions import Champions, load_from_workspace

REQUESTS, WARM_UP, STEP = 200_000, 40_000, 1_000
QUICK_SHARE = 0.1
OTHER_SCENES = ("discover", "replenish")  # whose lists of customers are kept, as those of `home`
MUSTS = {"errors": Must("metric", most=0), "slope_low_kb": Must("metric", most=0)}
QUICK_MUSTS = {"errors": MUSTS["errors"]}


@dataclass(frozen=True)
class Draw:
    """What a request is made of: its number among all, a customer, and a generator of its own."""

    number: int
    user: str
    random: random.Random


@dataclass(frozen=True)
class Kind:
    """A kind of requests: how often one is sent among all, its path, the status that belongs to it, and its body."""

    weight: float
    path: str  # {number} stands for the number of the request
    status: int
    body: Callable[[Draw], Any]


def kinds_of(champions: Champions, users: Sequence[str]) -> dict[str, Kind]:
    """The kinds of requests that the champions answer, by name."""
    model = champions.models["recommend"]
    items, first_day = model.catalogue.item_ids, model.bundle.as_of + timedelta(days=1)
    categories = sorted({"/".join(model.catalogue.category_of(column)) for column in range(len(items))} - {""})
    attribute, values = ("category", categories) if categories else ("item_id", items)

    def of_user(**options: Callable[[Draw], Any]) -> Callable[[Draw], Any]:
        return lambda draw: {"user_id": draw.user} | {name: option(draw) for name, option in options.items()}

    def events(draw: Draw) -> dict[str, Any]:
        moments = [(first_day + timedelta(seconds=draw.number, milliseconds=i)).isoformat() for i in range(3)]
        return {"events": [{"item_id": draw.random.choice(items), "ts": moment} for moment in moments]}

    def some_items(draw: Draw) -> list[str]:
        return draw.random.sample(items, min(50, len(items)))

    lists: dict[str, tuple[float, Callable[[Draw], Any]]] = {
        "plain": (50, of_user()),
        "unknown customer": (3, lambda draw: {"user_id": f"unknown {draw.number}"}),
        "exclusions": (10, of_user(exclude=some_items)),
        "unknown exclusion": (3, of_user(exclude=lambda draw: [f"unknown {draw.number}"])),
        "filter": (5, of_user(filters=lambda draw: {attribute: draw.random.choice(values)})),
        # in the warm-up, more than the 2,500 masks of Complete Journey's items that are cached at most
        "new filter": (10, of_user(filters=lambda draw: {"not": {attribute: f"unknown {draw.number}"}})),
        "events": (10, of_user(context=events)),
        "reasons": (3, of_user(explain=lambda draw: True)),
        "caps": (0.5, of_user(diversity=lambda draw: {"max_per": {attribute: 2}})),
        "exploration": (2, of_user(exploration=lambda draw: {"share": 0.2})),
    } | {
        scene: (2, of_user(scene=lambda draw, scene=scene: scene))
        for scene in OTHER_SCENES
        if scene in model.catalogue.scenes
    }
    found = {name: Kind(weight, PATH, 200, body) for name, (weight, body) in lists.items()} | {
        "rank": Kind(5, "/v1/rank", 200, of_user(item_ids=some_items)),
        "similar": Kind(5, "/v1/similar-items", 200, lambda draw: {"item_id": draw.random.choice(items)}),
        "unknown item": Kind(1, "/v1/similar-items", 404, lambda draw: {"item_id": f"unknown {draw.number}"}),
        "profile": Kind(8, "/v1/profile", 200, of_user()),
        "wrong field": Kind(2, PATH, 422, of_user(num_results=lambda draw: f"many {draw.number}")),
        "no JSON": Kind(1, PATH, 400, lambda draw: None),
        "unknown path": Kind(1, "/v1/unknown-{number}", 404, lambda draw: {}),
    }
    if "churn" in champions.models:
        found["churn"] = Kind(5, "/v1/churn", 200, lambda draw: {"user_ids": [draw.user], "explain": True})
    if "lifecycle" in champions.models:
        found["predictions"] = Kind(1, "/v1/predictions", 200, lambda draw: {"user_ids": [draw.user]})
    if "lookalike" in champions.models:
        found["lookalike"] = Kind(
            0.1,
            "/v1/lookalike",
            200,
            lambda draw: {"seed_user_ids": draw.random.sample(users, min(60, len(users))), "size": 100},
        )
    return found


class Senders:
    """Connections that take requests from one sequence, and count the answers by kind and status."""

    def __init__(self, url: str, kinds: Mapping[str, Kind], users: Sequence[str]) -> None:
        self.url, self.kinds, self.users = url, kinds, users
        self.requested = 0
        self.statuses: Counter[tuple[str, int]] = Counter()
        self._drawn = self._requests()
        self._lock = threading.Lock()

    def fill_lists(self) -> None:
        """Ask for the list of every customer and scene."""
        names = [name for name in ("plain", *OTHER_SCENES) if name in self.kinds]
        self._send([(name, Draw(0, user, random.Random(0))) for name in names for user in self.users])

    @property
    def errors(self) -> int:
        """Number of requests that did not get the status that belongs to them."""
        return self.requested - sum(self.statuses[name, kind.status] for name, kind in self.kinds.items())

    def _requests(self) -> Iterator[tuple[str, Draw]]:
        """Names of kinds, and what their requests are made of, for ever."""
        generator, names = random.Random(0), list(self.kinds)
        weights = [kind.weight for kind in self.kinds.values()]
        for number in count():
            (name,) = generator.choices(names, weights)
            yield name, Draw(number, generator.choice(self.users), random.Random(number))

    def send(self, n: int) -> None:
        """Send some requests; what goes wrong in a sender, other than a request without an answer, is raised."""
        self._send(list(islice(self._drawn, n)))

    def _send(self, requests: Sequence[tuple[str, Draw]]) -> None:
        self.requested += len(requests)
        drawn = iter(requests)
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            senders = [pool.submit(self._connection, drawn) for _ in range(CONNECTIONS)]
        for sender in senders:
            sender.result()

    def _connection(self, drawn: Iterator[tuple[str, Draw]]) -> None:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        while True:
            with self._lock:
                found = next(drawn, None)
            if found is None:
                connection.close()
                return
            name, draw = found
            kind = self.kinds[name]
            body = kind.body(draw)
            status = 0  # no answer
            try:
                path = kind.path.format(number=draw.number)
                connection.request("POST", path, b"{" if body is None else json.dumps(body).encode())
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
    kinds = kinds_of(load_from_workspace(workspace, load_settings(workspace.config_file)), users)
    memory = []
    with server(workspace) as target:
        senders = Senders(target.url, kinds, users)
        senders.fill_lists()
        senders.send(int(WARM_UP * share))
        for _ in range(int(REQUESTS * share) // STEP):
            senders.send(STEP)
            memory.append(worker_kilobytes(target))
    for (name, status), n in sorted(senders.statuses.items()):
        if status != kinds[name].status:
            print(f"{n} requests of kind '{name}' got the status {status or 'none'}")
    slope, _, low, high = stats.theilslopes(memory, np.arange(len(memory)))
    return {
        "errors": value(senders.errors, n=senders.requested),
        "slope_kb": value(float(slope), float(low), float(high), len(memory)),
        "slope_low_kb": value(float(low)),
        "first_mb": value(memory[0] / 1e3),
        "last_mb": value(memory[-1] / 1e3),
    }


def worker_kilobytes(target: Target) -> float:
    """Proportional set size of the server's processes but the first, which supervises them.

    Raises
    ------
    SystemExit
        If there are none, or they hold no memory.
    """
    kilobytes = sum(target.worker_bytes()) / 1e3
    if not kilobytes:
        raise SystemExit("the server has no worker that runs")
    return kilobytes


def main() -> None:
    """Send the requests and print the results."""
    arguments = parser((__doc__ or "").splitlines()[0])
    arguments.add_argument("--workspace", type=Path, default=None, help="a workspace with a recommender in production")
    options = arguments.parse_args()
    print(machine())
    with copied_workspace(options.workspace, "recommend", "churn", "lookalike", "lifecycle") as workspace:
        found = measure(workspace, options.quick)
    slope, errors = found["slope_kb"], found["errors"]
    print(f"{errors['n']:,} requests, {errors['value']:.0f} with another status than theirs")
    print(
        f"memory of the worker {found['first_mb']['value']:.0f} → {found['last_mb']['value']:.0f} MB, slope"
        f" {slope['value']:+.1f} [{slope['low']:+.1f}, {slope['high']:+.1f}] kB per {STEP:,} requests"
    )
    musts = QUICK_MUSTS if options.quick else MUSTS
    checks = check(musts, {name: found[name]["value"] for name in musts})
    finish({"soak": {"qianmian": found}}, checks, options.json)


if __name__ == "__main__":
    main()
