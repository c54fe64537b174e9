"""Latency of the online values of all features of one customer, on synthetic data; used by `benchmarks/features.py`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np


def online(
    query: Callable[[dict[str, str], datetime], str], customers: int = 200, events: int = 1_000
) -> dict[str, float]:
    """Latency of online feature values, one customer after the other, and of the prepared query of `TEN_FEATURES`.

    Parameters
    ----------
    query : callable
        (table → name, as_of) → SQL for one customer, given as parameter 1.
    customers, events : int
        Number of customers, and of events per customer.

    Returns
    -------
    dict of str to float
        Milliseconds: p50 and p99 of wall and CPU time from the stored state, with 20 new events, and of the query. Also
        the number of features.
    """
    import gc

    import duckdb
    import pyarrow as pa

    from features.compute.builder import Builder
    from features.compute.online import OnlineState, values
    from features.compute.online.build import build_state
    from features.data.identity import SingleSourceResolver
    from features.data.lake import Lake
    from features.definitions import FEATURES
    from qianmian.workspace import Workspace

    rng = np.random.default_rng(0)
    n = customers * events
    begin = np.datetime64("2023-01-01T00:00:00", "us")
    users = np.repeat(np.char.add("u", np.arange(customers).astype(str)), events)

    def random_timestamps(size: int) -> Any:
        return begin + rng.integers(0, 365 * 86_400, size).astype("timedelta64[s]")

    kinds = np.array(["view", "view", "view", "cart", "search", "favourite", "message_open", "message_click"])
    event_rows = pa.table(
        {
            "event_id": np.char.add("e", np.arange(n).astype(str)),
            "source": ["app"] * n,
            "source_user_id": users,
            "session_id": pa.nulls(n, pa.string()),
            "event_type": rng.choice(kinds, n),
            "ts": random_timestamps(n),
            "item_id": np.char.add("i", rng.integers(0, 300, n).astype(str)),
            "category": pa.nulls(n, pa.string()),
            "content_id": np.char.add("c", rng.integers(0, 30, n).astype(str)),
            "page": rng.choice(["home", "list", "item"], n),
            "referrer": rng.choice(["search", "ad", "direct"], n),
            "campaign_id": rng.choice(["m1", "m2"], n),
            "duration_seconds": rng.integers(1, 90, n).astype(float),
            "channel": rng.choice(["app", "web"], n),
            "device": rng.choice(["phone", "desktop"], n),
            "value": pa.nulls(n, pa.float64()),
            "properties": pa.nulls(n, pa.string()),
        }
    )
    m = customers * 100
    order_lines = pa.table(
        {
            "order_id": np.char.add("o", (np.arange(m) // 3).astype(str)),
            "line_no": np.arange(m),
            "source": ["app"] * m,
            "source_user_id": np.repeat(users[::events], 100),
            "ts": random_timestamps(m),
            "item_id": np.char.add("i", rng.integers(0, 300, m).astype(str)),
            "quantity": rng.integers(1, 4, m).astype(float),
            "amount": rng.integers(1, 90, m) / 2,
            "discount": rng.integers(0, 5, m) / 2,
            "coupon_discount": rng.integers(0, 2, m).astype(float),
            "store_id": rng.choice(["s1", "s2"], m),
            "channel": rng.choice(["app", "web"], m),
            "status": rng.choice(["paid"] * 9 + ["refunded"], m),
        }
    )
    items = pa.table(
        {
            "item_id": [f"i{k}" for k in range(300)],
            "category": [f"c{k % 7}/s{k % 31}" for k in range(300)],
            "brand": [f"b{k % 20}" for k in range(300)],
            "price": [1.0] * 300,
            "available": [True] * 300,
            "tags": [""] * 300,
        }
    )
    contents = pa.table(
        {
            "content_id": [f"c{k}" for k in range(30)],
            "type": ["article"] * 30,
            "topics": [f"t{k % 6}" for k in range(30)],
            "item_ids": [""] * 30,
            "channel": ["app"] * 30,
            "language": ["en"] * 30,
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(Workspace(Path(folder) / "workspace").create())
        with duckdb.connect() as connection:
            tables = {"events": event_rows, "transactions": order_lines, "items": items, "contents": contents}
            for name, table in tables.items():
                connection.register(f"new_{name}", table)
            lake.commit(connection, {name: f"SELECT * FROM new_{name}" for name in tables})
            lake.attach(connection)
            lake.commit(connection, {"customers": SingleSourceResolver().plan(connection).customers})
        built_at = datetime(2024, 1, 1)
        build_state(Builder(lake, FEATURES), built_at).save(Path(folder) / "state")
        state = OnlineState.load(Path(folder) / "state")
        peer = duckdb.connect(config={"threads": 1})
        lake.attach(peer, "stored_")
        for name in ("transactions", "customers", "items"):
            peer.execute(f"CREATE TABLE {name} AS SELECT * FROM stored_{name}")
    tables = {name: name for name in ("transactions", "customers", "items")}
    peer.execute(f"PREPARE ten AS {query(tables, built_at)}")
    one_ids = [str(one_id) for one_id in state.one_ids]
    now = built_at + timedelta(hours=2)
    new_events = [
        {
            "source": "app",
            "source_user_id": "u0",
            "event_id": f"new{k}",
            "event_type": "view",
            "ts": built_at + timedelta(minutes=3 * k),
            "item_id": f"i{k}",
            "content_id": "c1",
            "session_id": None,
            "duration_seconds": 3.0,
            "page": "item",
            "channel": "app",
        }
        for k in range(20)
    ]
    calls: dict[str, Callable[[str], Any]] = {
        "stored": lambda one_id: values(state.customer(one_id), now, {}),
        "with 20 new events": lambda one_id: values(state.customer(one_id), now, {"events": new_events}),
        "sql": lambda one_id: peer.execute(f"EXECUTE ten('{one_id}')").fetchall(),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    gc.collect()
    gc.freeze()  # like the server
    for turn in range(6):
        for name, call in calls.items():
            for one_id in one_ids:
                begun, cpu_begun = time.perf_counter(), time.process_time()
                call(one_id)
                latencies = (time.perf_counter() - begun) * 1e3, (time.process_time() - cpu_begun) * 1e3
                if turn:  # the first turn is a warm-up
                    times[name].append(latencies)
    result: dict[str, float] = {"features": float(len(state.plan.features))}
    for name, latencies in times.items():
        for percent in (50, 99):
            wall, cpu = np.percentile(latencies, percent, axis=0).tolist()
            result |= {f"{name} p{percent}": wall, f"{name} cpu p{percent}": cpu}
    return result
