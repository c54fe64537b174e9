"""What the benchmarks share: arguments, timing in a child process, the machine's name, and the JSON they write."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # before this folder: `import features` means the floor, not features.py here


def parser(description: str) -> argparse.ArgumentParser:
    """The arguments every benchmark takes."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument(
        "--data", type=Path, default=None, help="folder of the public data sets (each benchmark says which it reads)"
    )
    made.add_argument("--quick", action="store_true", help="a smaller run, for a first look")
    made.add_argument(
        "--json", type=Path, default=None, help="write {data: {model: {metric: {value, low, high, n}}}} here"
    )
    return made


def machine() -> str:
    """The machine the figures are of."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return f"{os.cpu_count()} cores, {model}, Python {platform.python_version()}, {platform.system()}"


def value(number: float, low: float | None = None, high: float | None = None, n: int = 1) -> dict[str, Any]:
    """One metric of the JSON."""
    return {"value": number, "low": number if low is None else low, "high": number if high is None else high, "n": n}


def timed(command: list[str]) -> tuple[float, float]:
    """Run a command in a child process: its wall seconds and its peak memory in MB (the largest child so far)."""
    started = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed with {done.returncode}:\n{done.stderr[-3000:]}")
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def peak_megabytes() -> float:
    """Of this process since it began (what getrusage says of a child starts with its parent's)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def finish(results: dict[str, Any], failed: list[str], json_file: Path | None) -> None:
    """Write the JSON, say what failed, and exit 1 when a must failed."""
    if json_file:
        json_file.write_text(json.dumps(results, indent=1) + "\n")
    for line in failed:
        print(f"MUST FAILED: {line}")
    sys.exit(1 if failed else 0)
