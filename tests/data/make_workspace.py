"""Make the workspace fixture that `tests/test_existing_workspace.py` reads; tests/data/README.md says when and how.

Usage: ``python tests/data/make_workspace.py NAME`` writes NAME.tar.xz and NAME.json beside this file.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from features.data.lake import Lake
from qianmian.config import load_settings
from qianmian.workspace import Workspace
from serving.bundles import BUNDLE_KINDS
from serving.champions import Champions, load_from_workspace
from serving.endpoints import ENDPOINTS

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
PLACEHOLDER = "file:///WORKSPACE"
SETTINGS = """\
seed: 11
recommend:
  horizon_days: 7
  min_item_customers: 3
  half_life_days: [30, 120]
  models:
    ials: {factors: 8, iterations: 4}
    hybrid: {factors: 8, epochs: 2}
    two_stage: {rounds: 20, cuts: 1}
churn: {horizon_days: 7}
lifecycle: {horizon_days: 7}
lookalike: {minimum_seed: 10, factors: 8}
serving: {stale_after_days: 30.0}
"""
INGEST = ["ingest", "synthetic", "--customers", "480", "--days", "91", "--seed", "5"]
FEWER_EVENTS = "SELECT * FROM events WHERE hash(event_id) % 4 = 0"  # events are most of the bytes
# Rows that name the machine and the user of the training run, or that repeat other rows.
CLEANED = (
    "DELETE FROM tags",
    "DELETE FROM logged_model_tags",
    "DELETE FROM logged_model_metrics",
    "DELETE FROM metrics",
    "UPDATE runs SET user_id = ''",
    "UPDATE experiments SET artifact_location = '' WHERE experiment_id = 0",
)


def qianmian(workspace: Workspace, *arguments: str) -> None:
    """Run one command of the product on the workspace."""
    command = [sys.executable, "-m", "cli.main", *arguments, "--workspace", str(workspace.root), "--json"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def questions(champions: Champions, now: datetime) -> list[tuple[str, dict[str, Any]]]:
    """Requests by route: known and unknown users, every scene, filters, re-ranking options and events."""
    table, customers = champions.customers.table, champions.customers
    order = (-customers.features.column("orders_total")).argsort(kind="stable").tolist()
    users = [
        {"user_id": table["user_id"][row].as_py(), "user_source": table["user_source"][row].as_py()} for row in order
    ]
    frequent, middling, never = users[0], users[len(users) // 2], users[-1]
    item_ids = champions.require("recommend").bundle.item_ids.tolist()
    basket, events = (
        item_ids[10:12],
        [
            {"item_id": item_ids[5], "event_type": "purchase", "ts": (now - timedelta(days=1)).isoformat()},
            {"item_id": item_ids[7], "event_type": "view", "ts": (now - timedelta(hours=2)).isoformat()},
        ],
    )
    stranger = {"user_id": "a stranger", "context": {"attributes": {"age_band": "25-34"}}}
    arranged = {
        "filters": {"category": ["grocery/drinks", "grocery/snacks", "home/cleaning", "beauty/skin"]},
        "diversity": {"max_per": {"category/2": 3}, "mmr": 0.7},
        "promotions": [{"name": "own brand", "filter": {"brand": "brand-1"}, "percent": 20}],
    }
    one_source = Counter(user["user_source"] for user in users).most_common(1)[0][0]
    some = [user["user_id"] for user in users if user["user_source"] == one_source]
    found: list[tuple[str, dict[str, Any]]] = [
        ("/recommendations", {**user, "scene": scene})
        for scene in ("home", "discover", "replenish", "content")
        for user in (frequent, middling, never)
    ]
    found += [
        ("/recommendations", {**frequent, "scene": scene, "context": {"items": basket}})
        for scene in ("complement", "upgrade", "similar")
    ]
    found += [
        ("/recommendations", stranger),
        ("/recommendations", {**middling, **arranged}),
        ("/recommendations", {**middling, "context": {"events": events, "now": now.isoformat()}}),
        ("/rank", {**middling, "item_ids": item_ids[:20]}),
        ("/similar-items", {"item_id": item_ids[0]}),
        ("/similar-items", {"item_id": item_ids[-1], "num_results": 5}),
        ("/churn", {"user_ids": some[::25], "user_source": one_source}),
        ("/predictions", {"user_ids": some[::25], "user_source": one_source}),
        *(("/profile", user) for user in (frequent, middling, never)),
        ("/lookalike", {"seed_user_ids": some[:30], "user_source": one_source, "size": 25}),
    ]
    return found


def record(workspace: Workspace) -> dict[str, Any]:
    """What today's code answers about the workspace."""
    champions = load_from_workspace(workspace, load_settings(workspace.config_file))
    if missing := BUNDLE_KINDS.keys() - champions.models.keys():
        raise SystemExit(f"no champion of {', '.join(sorted(missing))}: the gate refused it; change INGEST")
    snapshot = champions.customers
    now = snapshot.as_of + timedelta(days=3)
    answers = []
    for route, body in questions(champions, now):
        endpoint = ENDPOINTS[route]
        request = endpoint.request.model_validate_json(json.dumps(body))
        answers.append({"route": route, "request": body, "answer": endpoint.respond(champions, request, now)})
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "lists.parquet"
        qianmian(workspace, "score", "recommend", "--out", str(out))
        lists = pq.read_table(out).select(["one_id", "rank", "item_id", "source"]).to_pylist()
    return {
        "now": now.isoformat(),
        "versions": {job: champion.version for job, champion in champions.models.items()},
        "tables": {name: state.rows for name, state in Lake(workspace).states().items()},
        "profiles": {
            "as_of": snapshot.as_of.isoformat(),
            "customers": len(snapshot.one_ids),
            "features": [feature.name for feature in snapshot.spec.features],
            "tags": sorted(snapshot.tags),
            "orders": float(snapshot.features.column("orders_total").sum()),
        },
        "answers": answers,
        "lists": {"rows": len(lists), "sha256": hashlib.sha256(json.dumps(lists).encode()).hexdigest()},
    }


def dump(workspace: Workspace) -> str:
    """The model registry as SQL, with a placeholder where the workspace's address stands and without the machine's name."""
    with sqlite3.connect(workspace.root / "mlflow.db") as store:
        for statement in CLEANED:
            store.execute(statement)
        return "\n".join(store.iterdump()).replace(workspace.root.as_uri(), PLACEHOLDER)


def pack(workspace: Workspace, archive: Path) -> None:
    """What a reader needs: the settings, the lake, the current profiles, the bundles, the registry."""
    current = json.loads((workspace.online / "current.json").read_text(encoding="utf-8"))["snapshot"]
    paths = [workspace.config_file, workspace.lake, workspace.root / "identity", workspace.online / "model_tags"]
    paths += [workspace.online / "current.json", workspace.online / current]
    paths += sorted(workspace.artifact_root.glob("models/*/artifacts/artifacts"))
    with tarfile.open(archive, "w:xz", preset=9) as tar:
        for path in paths:
            tar.add(path, path.relative_to(workspace.root), filter=anonymous)
        sql = dump(workspace).encode()
        entry = anonymous(tarfile.TarInfo("mlflow.sql"))
        entry.size = len(sql)
        tar.addfile(entry, BytesIO(sql))


def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """The entry without owner and time."""
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


def main(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder) / "workspace")
        workspace.root.mkdir()
        workspace.config_file.write_text(SETTINGS, encoding="utf-8")
        qianmian(workspace, *INGEST)
        with duckdb.connect() as connection:
            lake = Lake(workspace)
            lake.attach(connection)
            lake.commit(connection, {"events": FEWER_EVENTS})
        qianmian(workspace, "train", "all")
        qianmian(workspace, "features")
        answers = record(workspace)
        pack(workspace, HERE / f"{name}.tar.xz")
    (HERE / f"{name}.json").write_text(json.dumps(answers, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
