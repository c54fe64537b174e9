"""Speed and cost of `/v1/recommendations`, beside a server that does nothing (uvicorn and FastAPI), in turns.

    python benchmarks/serving.py [--workspace DIR] [--quick] [--json FILE]

All customers of a copy of the workspace are asked for one after the other, 10 items each, of one worker. Four kinds of
requests are measured: plain ones whose list is kept by the server (`serving.kept_lists`), the same of a server that
keeps none, ones with a filter, and ones with an event since the cutoff. The CPU time of a request is that of all
processes of the server. The start is measured until `/readyz`, and the memory of a worker, and of a second one, is the
proportional set size after every kind of request. At last, requests are sent while the champion and the profiles of
the workspace move (`reload.py`).

Musts: the requests per second of plain requests at 16 connections are at least those of the server that does nothing,
bounds on the CPU time of a request, on the start and on memory, and no request that fails, or is answered from two
versions, during a reload. Without --workspace, Complete Journey is ingested and its recommender is trained in a
temporary folder first (minutes).
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from common import Must, check, finish, machine, parser, value
from http_load import (
    CONNECTIONS,
    PATH,
    Load,
    Target,
    ask_each,
    copied_workspace,
    measure_sequential,
    no_op_server,
    server,
    under_load,
)
from reload import measure_reloads

from features.profiles import snapshot
from qianmian.workspace import Workspace

ROUNDS = 5  # rounds of load for each server, in turns
MOST_USERS = 10_000
NO_OP = "no-op"
KINDS = ("cached", "cold", "filtered", "event")
MUSTS = {
    "ratio_noop_16": Must("ratio", least=1.0),
    "cpu_us_cached": Must("metric", most=250),
    "cpu_us_cold": Must("metric", most=1_500),
    "cpu_us_filtered": Must("metric", most=2_000),
    "cpu_us_event": Must("metric", most=2_500),
    "ready_cpu_s": Must("cpu_seconds", most=10),
    "worker_mb": Must("peak_mb", most=700),
    "second_worker_mb": Must("peak_mb", most=350),
    "reload_failed": Must("metric", most=0),
    "reload_mixed": Must("metric", most=0),
    "reload_grown_mb": Must("peak_mb", most=60),
}


def one_answer(url: str, body: bytes) -> dict[str, Any]:
    """The answer to one request."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    connection.request("POST", PATH, body)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return dict(answer)


def bodies_of(users: Sequence[str], url: str, workspace: Workspace) -> dict[str, list[bytes]]:
    """The bodies of each kind of request: a filter on the largest category, an event of a day after the cutoff."""
    plain = [{"user_id": user} for user in users]
    answer = one_answer(url, json.dumps(plain[0]).encode())
    moment = datetime.fromisoformat(answer["as_of"].removesuffix("Z")) + timedelta(days=1)
    event = {"item_id": answer["items"][-1]["item_id"], "ts": moment.isoformat()}
    more: dict[str, dict[str, Any]] = {
        "cached": {},
        "cold": {},
        "filtered": {"filters": common_filter(workspace)},
        "event": {"context": {"events": [event]}},
    }
    return {kind: [json.dumps(asked | more[kind]).encode() for asked in plain] for kind in KINDS}


def common_filter(workspace: Workspace) -> dict[str, Any]:
    """A filter on the top level of the categories that most items have."""
    from features.data.lake import Lake

    items = Lake(workspace).connect().table("items").select("category").to_pyarrow()["category"].to_pylist()
    tops, counts = np.unique([str(path).split("/")[0] for path in items if path], return_counts=True)
    return {"category": str(tops[counts.argmax()])}


def loads_in_turns(targets: Mapping[str, Target], quick: bool) -> dict[str, list[Load]]:
    """Rounds of load on each target, after one that warms up."""
    for target in targets.values():
        under_load(target, 1 if quick else 4)
    rounds: dict[str, list[Load]] = {name: [] for name in targets}
    for _ in range(ROUNDS):
        for name, target in targets.items():
            rounds[name].append(under_load(target, 1 if quick else 3))
    return rounds


def measure(workspace: Workspace, quick: bool) -> dict[str, dict[str, float]]:
    """Median, least and most of each metric over the rounds, by name."""
    users = snapshot.load_current(workspace).table["user_id"].to_pylist()
    users = np.random.default_rng(0).permutation(users)[: 1_000 if quick else MOST_USERS].tolist()
    result: dict[str, dict[str, float]] = {}
    with no_op_server() as no_op_url:
        with server(workspace) as target:
            result["ready_cpu_s"] = value(target.cpu_seconds())
            bodies = bodies_of(users, target.url, workspace)
            nothing = Target(no_op_url, bodies["cached"])
            targets = {kind: Target(target.url, bodies[kind]) for kind in ("cached", "filtered", "event")}
            ask_each(targets["cached"])
            single = measure_sequential({**targets, NO_OP: nothing}, 300 if quick else 2_000)
            rounds = loads_in_turns({**targets, NO_OP: nothing}, quick)
            one_worker = sum(target.worker_bytes()) / 2**20
        with server(workspace, kept_lists=0) as target:
            cold = {"cold": Target(target.url, bodies["cold"])}
            single |= measure_sequential(cold, 300 if quick else 2_000)
            rounds |= loads_in_turns(cold, quick)
        with server(workspace, workers=2) as target:
            for kind in ("cached", "filtered", "event"):
                under_load(Target(target.url, bodies[kind]), 1 if quick else 4)
            two_workers = sum(target.worker_bytes()) / 2**20
        with server(workspace) as target:
            result |= measure_reloads(workspace, target, users[:1_000])
    result |= {"worker_mb": value(one_worker), "second_worker_mb": value(two_workers - one_worker)}
    for name, found in rounds.items():
        for metric in (field.name for field in fields(Load)):
            figures = [getattr(load, metric) for load in found]
            result[f"{metric}_{name}"] = value(float(np.median(figures)), min(figures), max(figures), len(found))
        quarter, median, three_quarters, p99 = np.quantile(single[name] * 1e3, (0.25, 0.5, 0.75, 0.99)).tolist()
        result[f"p50_ms_1_{name}"] = value(median, quarter, three_quarters, len(single[name]))
        result[f"p99_ms_1_{name}"] = value(p99, n=len(single[name]))
    ratios = [ours.rps / theirs.rps for ours, theirs in zip(rounds["cached"], rounds[NO_OP], strict=True)]
    result["ratio_noop_16"] = value(float(np.median(ratios)), min(ratios), max(ratios), ROUNDS)
    return result | {"rps_16": result["rps_cached"], "p99_ms_16": result["p99_ms_cached"]}


def main() -> None:
    """Measure the servers and print the results."""
    arguments = parser((__doc__ or "").splitlines()[0])
    arguments.add_argument("--workspace", type=Path, default=None, help="a workspace with a recommender in production")
    options = arguments.parse_args()
    print(machine())
    with copied_workspace(options.workspace, "recommend") as workspace:
        found = measure(workspace, options.quick)
    print(
        f"{'one connection':>16}: p50, p99 in ms · {CONNECTIONS} connections: requests/s, p99 in ms · CPU µs a request"
    )
    for name in (*KINDS, NO_OP):
        keys = ("p50_ms_1", "p99_ms_1", "rps", "p99_ms", "cpu_us")
        one, one_99, rps, p99, cpu = (found[f"{key}_{name}"]["value"] for key in keys)
        print(f"{name:>16}: {one:6.2f} {one_99:7.2f} · {rps:8,.0f} {p99:7.1f} · {cpu:7,.0f}")
    keys = ("reload_requests", "reload_p50_ms", "reload_p99_ms", "reload_longest_ms", "reload_seconds")
    requests, p50, p99, longest, seconds = (found[key]["value"] for key in keys)
    print(
        f"five reloads: {requests:,.0f} requests, p50 {p50:.1f}, p99 {p99:.1f}, longest {longest:.0f} ms; "
        f"followed after {seconds:.1f} s"
    )
    checks = check(MUSTS, {name: found[name]["value"] for name in MUSTS})
    finish({"serving": {"qianmian": found}}, checks, options.json)


if __name__ == "__main__":
    main()
