"""CPU seconds and memory of ingest, features, training and scoring as the number of customers grows.

    python benchmarks/scale.py [--only x1,x4] [--stages ingest,features] [--million] [--quick] [--json FILE]

Complete Journey is copied 1, 4 and 10 times, each copy with new customers (2,469 each, 1.47 million lines); every
stage is the ordinary command in a process of its own. The copies are for time and memory only: what they predict of
each other says nothing. `--million` adds a synthetic shop of 1,000,000 customers, 100,000 items and 50,000,000 lines.

Musts at 10 copies: ingest at most 2.5 GB, `train recommend` at most 6 GB and 900 CPU seconds, and no stage costs more
than 2.2 × when the customers double, from the smallest to the largest size: 2 to the power of log(cost ratio) ÷
log(size ratio). A million customers: at most 20 GB in every stage. `--quick` runs ingest and features at 1 and 4
copies. `--keep` names a folder for the data and workspaces; what is there is used again, so that a single stage can be
repeated.
"""

from __future__ import annotations

import math
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import common
import scale_data
from common import Cost, Must

COPIES = {"x1": 1, "x4": 4, "x10": 10}
STAGES = ("ingest", "features", "train_recommend", "score_recommend")
PEAKS = ("ingest", "train_recommend")  # stages whose memory is a metric of its own name
MUSTS = {
    "ingest, memory": Must("peak_mb", most=2_560),
    "train_recommend, memory": Must("peak_mb", most=6_144),
    "train_recommend, CPU": Must("cpu_seconds", most=900),
    "growth of the worst stage per doubling": Must("ratio", most=2.2),
    "memory of every stage": Must("peak_mb", most=20_480),
}


def commands(config: Path, workspace: Path) -> dict[str, list[str]]:
    """Arguments of `qianmian` by stage."""
    place = ["--workspace", str(workspace)]
    return {
        "ingest": ["ingest", "files", "--config", str(config), *place],
        "features": ["features", *place],
        "train_recommend": ["train", "recommend", *place],
        "score_recommend": ["score", "recommend", "--out", str(workspace / "recommend.parquet"), *place],
    }


def run_stages(name: str, folder: Path, stages: list[str]) -> dict[str, Cost]:
    """Cost of each stage at one size."""
    data, workspace = folder / f"{name}-data", folder / name
    config = data / "sources.yaml"
    if not config.exists():
        shutil.rmtree(data, ignore_errors=True)
        copies = COPIES.get(name)
        config = scale_data.write_million(data) if copies is None else scale_data.write_copies(data, copies)
    if "ingest" in stages:
        shutil.rmtree(workspace, ignore_errors=True)
    costs = {}
    for stage, arguments in commands(config, workspace).items():
        if stage in stages:
            costs[stage] = common.timed([sys.executable, "-m", "cli.main", *arguments])
            print(f"{name:8s} {stage:16s} {costs[stage]}", flush=True)
    return costs


def growth(costs: Mapping[str, Mapping[str, Cost]], smallest: str, largest: str) -> dict[str, float]:
    """By stage, the factor of the CPU seconds when the customers double, from the smallest to the largest size."""
    doublings = math.log2(COPIES[largest] / COPIES[smallest])
    small, large = costs[smallest], costs[largest]
    return {
        stage: (large[stage].cpu_seconds / small[stage].cpu_seconds) ** (1 / doublings)
        for stage in large
        if stage in small
    }


def metrics(costs: Mapping[str, Cost]) -> dict[str, dict[str, float]]:
    """Metrics of the JSON output at one size."""
    found = {f"{stage}_cpu_s": common.value(cost.cpu_seconds) for stage, cost in costs.items()}
    peaks = {f"{stage}_peak_gb": common.value(cost.peak_mb / 1024) for stage, cost in costs.items()}
    seconds = {f"{stage}_s": common.value(cost.wall_seconds) for stage, cost in costs.items()}
    return found | peaks | seconds


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0])
    parser.add_argument("--only", default=None, help=f"sizes, separated by commas: {', '.join(COPIES)}, million")
    parser.add_argument("--stages", default=None, help=f"stages, separated by commas: {', '.join(STAGES)}")
    parser.add_argument("--million", action="store_true", help="run the shop of a million customers too")
    parser.add_argument("--keep", type=Path, default=None, help="folder to keep the data and workspaces in")
    arguments = parser.parse_args()
    stages = (arguments.stages or ("ingest,features" if arguments.quick else ",".join(STAGES))).split(",")
    sizes = (arguments.only or ("x1,x4" if arguments.quick else ",".join(COPIES))).split(",")
    sizes += ["million"] * (arguments.million and "million" not in sizes)
    for unknown in [*(set(sizes) - {*COPIES, "million"}), *(set(stages) - {*STAGES})]:
        parser.error(f"{unknown} is neither a size ({', '.join(COPIES)}, million) nor a stage ({', '.join(STAGES)})")
    print(common.machine())
    checks, results = [], {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        costs = {name: run_stages(name, folder, stages) for name in sizes}
    for name, found in costs.items():
        results[name] = {"qianmian": metrics(found)}
    copied = sorted((name for name in costs if name in COPIES), key=COPIES.__getitem__)
    if len(copied) > 1:
        factors = growth(costs, copied[0], copied[-1])
        for stage, factor in factors.items():
            print(f"{stage:16s} costs {factor:.2f} × per doubling from {copied[0]} to {copied[-1]}")
        worst = max(factors.values())
        results[copied[-1]]["qianmian"]["growth"] = common.value(worst)
        checks += common.check(MUSTS, {"growth of the worst stage per doubling": worst}, f"{copied[0]} to {copied[-1]}")
    if "x10" in costs:
        values = {f"{stage}, memory": cost.peak_mb for stage, cost in costs["x10"].items() if stage in PEAKS}
        if "train_recommend" in costs["x10"]:
            values["train_recommend, CPU"] = costs["x10"]["train_recommend"].cpu_seconds
        checks += common.check(MUSTS, values, "x10")
    if costs.get("million"):
        peak = max(cost.peak_mb for cost in costs["million"].values())
        checks += common.check(MUSTS, {"memory of every stage": peak}, "million")
    common.finish(results, checks, arguments.json)


if __name__ == "__main__":
    main()
