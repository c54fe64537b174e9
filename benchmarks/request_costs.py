"""What requests cost beside what the server estimates, by which it keeps slow ones off its event loop.

    python benchmarks/request_costs.py [--workspace DIR] [--quick] [--json FILE]

Each kind of request is handled in this process as the server would, with no list kept: the CPU time is the least of
some repetitions, the median over several customers. `ratio` is the estimate divided by it. Musts: no ratio is far from
1, and the estimate of a plain request takes next to nothing of its CPU time.

Filters whose masks are kept are measured with the same filter every time. Of large ones (many values or comparisons,
many ids to exclude) every request has another, so that each is computed.

Without --workspace, Complete Journey is ingested and its models are trained in a temporary folder first (minutes).
"""

from __future__ import annotations

import json
import os
import random
import time
import timeit
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

# as the server does; before NumPy is imported
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import numpy as np
from common import Must, check, finish, machine, parser, value
from http_load import copied_workspace

from qianmian.settings import Settings
from serving.champions import Champions, load_from_workspace
from serving.costs import LIMIT_MS
from serving.endpoints import ENDPOINTS
from serving.endpoints.base import Endpoint
from serving.requests import parse_request

JOBS = ("recommend", "lookalike", "churn", "lifecycle")
MUSTS = {
    "highest_ratio": Must("ratio", most=4),
    "lowest_ratio": Must("ratio", least=0.25),
    "estimate_share": Must("ratio", most=0.002),  # of the CPU time of a plain request
}
NOW = datetime(2030, 1, 1)
LISTS = "/recommendations"
Kind = tuple[str, str, dict[str, Any]]  # name, route, body


def list_kinds(champions: Champions) -> Iterator[Kind]:
    """Kinds of requests about one customer, without the customer."""
    champion = champions.models["recommend"]
    items, as_of = champion.catalogue.item_ids, champion.bundle.as_of
    first_category = champion.catalogue.category_of(0)
    path = "/".join(first_category) if first_category else None
    filters = {"category": path} if path else {"item_id": items[:1_000]}
    day_after = as_of + timedelta(days=1)

    def events(n: int) -> dict[str, Any]:
        times = [(day_after + timedelta(minutes=i)).isoformat() for i in range(n)]
        return {"context": {"events": [{"item_id": items[i % 100], "ts": ts} for i, ts in enumerate(times)]}}

    promotions = [{"name": str(i), "filter": filters, "percent": 20} for i in range(4)]
    lists: dict[str, dict[str, Any]] = {
        "plain": {},
        "100 items": {"num_results": 100},
        "500 items": {"num_results": 500},
        "filter": {"filters": filters},
        "never purchased": {"purchased": "never"},
        "1 event": events(1),
        "100 events": events(100),
        "1,000 events": events(1_000),
        "explain": {"explain": True},
        "explain 50": {"explain": True, "num_results": 50},
        "explain 250": {"explain": True, "num_results": 250},
        "mmr": {"diversity": {"mmr": 0.5}},
        "mmr 100": {"diversity": {"mmr": 0.5}, "num_results": 100},
        "max_per": {"diversity": {"max_per": {"brand": 2}}},
        "4 promotions": {"promotions": promotions},
        "exploration": {"exploration": {"share": 0.2}},
    }
    lists |= {
        scene: {"scene": scene}
        for scene in ("replenish", "discover", "complement", "upgrade", "session", "content", "similar")
        if champion.catalogue.trained(scene)
    }
    yield from ((name, LISTS, body) for name, body in lists.items())
    for n in (10, 100, 1_000):
        yield f"rank {n}", "/rank", {"item_ids": items[:n]}
        yield f"rank {n} explain", "/rank", {"item_ids": items[:n], "explain": True}
    new = {f"new-{i}": {"category": path or "A", "brand": "A"} for i in range(100)}
    yield "rank 100 described", "/rank", {"item_ids": list(new), "attributes": new, "explain": True}
    yield "profile", "/profile", {}


def large_filters(champions: Champions) -> dict[str, Callable[[random.Random], dict[str, Any]]]:
    """Options of lists with large filters, by name; every call makes other ones."""
    champion = champions.models["recommend"]
    items = champion.catalogue.item_ids
    texts = "category" if champion.catalogue.category_of(0) else "item_id"

    def some_items(generator: random.Random, n: int) -> list[str]:
        known = generator.sample(items, min(n, len(items)))
        return known + [f"unknown {i}" for i in range(n - len(known))]

    def compare(attribute: str, op: str, value: Any) -> dict[str, Any]:
        return {"attribute": attribute, "op": op, "value": value}

    def comparisons(generator: random.Random) -> dict[str, Any]:
        return {"any": [compare("item_id", "==", item) for item in some_items(generator, 200)]}

    return {
        "in 1,000": lambda generator: {"filters": compare("item_id", "in", some_items(generator, 1_000))},
        "in 9,999": lambda generator: {"filters": compare("item_id", "in", some_items(generator, 9_999))},
        "contains": lambda generator: {"filters": {"not": compare(texts, "contains", str(generator.random()))}},
        "200 comparisons": lambda generator: {"filters": comparisons(generator)},
        "exclude 10,000": lambda generator: {"exclude": some_items(generator, 10_000)},
    }


def other_kinds(champions: Champions, users: Sequence[str]) -> Iterator[Kind]:
    """Kinds of requests about an item or many customers."""
    item = champions.models["recommend"].catalogue.item_ids[0]
    yield "similar-items", "/similar-items", {"item_id": item}
    yield "similar-items explain 100", "/similar-items", {"item_id": item, "num_results": 100, "explain": True}
    for n in (1, 100, 1_000):
        yield f"churn {n}", "/churn", {"user_ids": users[:n]}
        yield f"churn {n} explain", "/churn", {"user_ids": users[:n], "explain": True}
        yield f"predictions {n}", "/predictions", {"user_ids": users[:n]}
        if "uplift" in champions.models:  # a workspace whose campaigns have a usable effect
            yield f"uplift {n}", "/uplift", {"user_ids": users[:n], "budget_share": 0.2}
    for n in (60, 1_000):
        yield f"lookalike {n}", "/lookalike", {"seed_user_ids": users[:n], "size": 100, "with_evidence": False}
        yield f"lookalike {n} evidence", "/lookalike", {"seed_user_ids": users[:n], "size": 100}


def measure(champions: Champions, quick: bool) -> dict[str, dict[str, Any]]:
    """Estimated and measured milliseconds of each kind, and the extremes of their ratio."""
    users = np.random.default_rng(0).permutation(champions.customers.table["user_id"].to_pylist()).tolist()
    customers, repetitions = users[: 5 if quick else 15], 3 if quick else 5
    cases = [
        (name, route, [[{"user_id": user, **body}] * repetitions for user in customers])
        for name, route, body in list_kinds(champions)
    ]
    cases += [(name, route, [[body] * repetitions]) for name, route, body in other_kinds(champions, users)]
    generator = random.Random(0)
    cases += [
        (name, LISTS, [[{"user_id": user, **options(generator)} for _ in range(repetitions)] for user in customers])
        for name, options in large_filters(champions).items()
    ]
    result: dict[str, dict[str, Any]] = {}
    ratios = []
    for name, route, bodies in cases:
        endpoint = ENDPOINTS[route]
        found = [min(cpu_ms(champions, endpoint, body) for body in repeated) for repeated in bodies]
        measured = float(np.median(found))
        estimated = endpoint.estimated_ms(parse_request(endpoint.request, json.dumps(bodies[0][0]).encode()))
        ratios.append(estimated / measured)
        result[f"estimated_ms {name}"] = value(estimated)
        result[f"measured_ms {name}"] = value(measured, min(found), max(found), len(found))
        print(f"{name:>26}: {estimated:8.2f} {measured:8.2f} {ratios[-1]:6.2f}")
    estimate_us = estimate_cpu_us(champions, ENDPOINTS[LISTS], users[0])
    return result | {
        "highest_ratio": value(max(ratios), n=len(ratios)),
        "lowest_ratio": value(min(ratios), n=len(ratios)),
        "estimate_us": value(estimate_us),
        "estimate_share": value(estimate_us / 1e3 / result["measured_ms plain"]["value"]),
    }


def cpu_ms(champions: Champions, endpoint: Endpoint[Any], body: dict[str, Any]) -> float:
    """CPU milliseconds of a request from its text to that of the response."""
    text = json.dumps(body).encode()
    started = time.thread_time()
    endpoint.json(champions, parse_request(endpoint.request, text), NOW)
    return (time.thread_time() - started) * 1e3


def estimate_cpu_us(champions: Champions, endpoint: Endpoint[Any], user: str, calls: int = 10_000) -> float:
    """CPU microseconds of the estimate of a plain request."""
    plain = parse_request(endpoint.request, json.dumps({"user_id": user}).encode())
    timer = timeit.Timer(lambda: endpoint.is_slow(champions, plain), timer=time.thread_time)
    return min(timer.repeat(5, calls)) / calls * 1e6


def main() -> None:
    """Measure the requests and print the results."""
    arguments = parser((__doc__ or "").splitlines()[0])
    arguments.add_argument("--workspace", type=Path, default=None, help="a workspace with all models in production")
    options = arguments.parse_args()
    print(machine())
    print(f"{'CPU ms':>26}: estimated measured ratio; more than {LIMIT_MS:g} estimated leave the event loop")
    with copied_workspace(options.workspace, *JOBS) as workspace:
        champions = replace(
            load_from_workspace(workspace, Settings()), settings=Settings.model_validate({"serving": {"kept_lists": 0}})
        )
        champions.warm()
        found = measure(champions, options.quick)
    checks = check(MUSTS, {name: found[name]["value"] for name in MUSTS})
    finish({"request costs": {"qianmian": found}}, checks, options.json)


if __name__ == "__main__":
    main()
