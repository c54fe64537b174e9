"""Shared parts of the benchmarks: arguments, cost of a run, musts, description of the machine, and JSON output.

A must is a bound on a ratio of two figures of the same run, on CPU seconds, peak memory or a metric. It never bounds
wall seconds, which depend on the load of the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

# in front of this folder, so that `import features` means the package and not features.py here
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

T = TypeVar("T")


def parser(description: str) -> argparse.ArgumentParser:
    """Argument parser with the arguments of every benchmark."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument(
        "--data", type=Path, default=None, help="folder with the public data sets that this benchmark reads"
    )
    result.add_argument("--quick", action="store_true", help="shorter run on less data")
    result.add_argument(
        "--json", type=Path, default=None, help="file to write {data: {model: {metric: {value, low, high, n}}}} to"
    )
    return result


def machine() -> str:
    """Description of this machine."""
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
    """One metric of the JSON output."""
    return {"value": number, "low": number if low is None else low, "high": number if high is None else high, "n": n}


# ---- cost of a run ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """Cost of a run. CPU seconds are those of all its threads and of the child processes it waited for."""

    wall_seconds: float
    cpu_seconds: float
    peak_mb: float

    def __str__(self) -> str:
        return f"{self.wall_seconds:.1f} s, {self.cpu_seconds:.1f} CPU s, peak {self.peak_mb:,.0f} MB"

    def metrics(self) -> dict[str, dict[str, Any]]:
        """Metrics of the JSON output."""
        costs = {"seconds": self.wall_seconds, "cpu_seconds": self.cpu_seconds, "peak_mb": self.peak_mb}
        return {name: value(number) for name, number in costs.items()}

    def json(self) -> str:
        """The cost as one line of JSON for `run_child`."""
        return json.dumps(asdict(self))


def measure_cost(call: Callable[[], T]) -> tuple[T, Cost]:
    """The result of a call in this process and its cost; the peak is that of the process since it started."""
    started, cpu_started = time.perf_counter(), _cpu_seconds()
    result = call()
    return result, Cost(time.perf_counter() - started, _cpu_seconds() - cpu_started, peak_megabytes())


def timed(command: Sequence[str]) -> Cost:
    """Run a command in a child process and return its cost."""
    return Cost(**run_child([sys.executable, "-I", "-S", __file__, "--timed", *command]))


def run_child(command: Sequence[str]) -> dict[str, Any]:
    """Run a command in a child process and parse the JSON of its last line of output; exit when the command fails."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed with {done.returncode}:\n{done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _cpu_seconds() -> float:
    """CPU seconds of this process and of the child processes it waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def peak_megabytes() -> float:
    """Peak memory of this process, and of the child processes it waited for, since it started."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return max(int(line.split()[1]), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024


# ---- musts -----------------------------------------------------------------------------------------------------------

UNITS = {"ratio": "{:.3g} ×", "cpu_seconds": "{:.1f} CPU s", "peak_mb": "{:,.0f} MB", "metric": "{:.5g}"}


@dataclass(frozen=True)
class Must:
    """A bound that a benchmark must keep: `least` or `most`, in one of `UNITS`."""

    unit: str
    least: float | None = None
    most: float | None = None

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"the unit of a must is one of {', '.join(UNITS)}, not {self.unit}")
        if (self.least is None) == (self.most is None):
            raise ValueError("a must has exactly one bound: least or most")


@dataclass(frozen=True)
class Check:
    """A measured value and its must."""

    name: str
    must: Must
    value: float

    @property
    def passed(self) -> bool:
        """Whether the value keeps the bound; False for NaN."""
        return self.value >= self.must.least if self.must.least is not None else self.value <= self.must.most

    def __str__(self) -> str:
        text = UNITS[self.must.unit].format
        bound = f"at least {text(self.must.least)}" if self.must.most is None else f"at most {text(self.must.most)}"
        return f"{self.name}: {text(self.value)}, must be {bound}"


def check(musts: Mapping[str, Must], values: Mapping[str, float], where: str = "") -> list[Check]:
    """Each value with the must of its name; `where` names the run in the messages."""
    return [Check(f"{where}, {name}" if where else name, musts[name], number) for name, number in values.items()]


def report(checks: Iterable[Check]) -> list[str]:
    """Print every check and return the lines of those that failed."""
    failed = []
    for result in checks:
        print(f"{'must reached' if result.passed else 'MUST FAILED'}: {result}")
        failed += [str(result)] * (not result.passed)
    return failed


def finish(
    results: Mapping[str, Any], checks: Iterable[Check], json_file: Path | None, failed_before: Sequence[str] = ()
) -> None:
    """Write the JSON, print every check, and exit with 1 if a must failed here or in a child (`failed_before`)."""
    if json_file:
        json_file.write_text(json.dumps(results, indent=1) + "\n")
    for line in failed_before:
        print(f"MUST FAILED: {line}")
    sys.exit(1 if report(checks) or failed_before else 0)


# ---- parts -----------------------------------------------------------------------------------------------------------

Measured = tuple[dict[str, Any], dict[str, float]]  # model → metric → value, and the values of the musts


class Part(NamedTuple):
    """A part of a benchmark: its data in the JSON file, what it measures from the data and a temporary folder, its
    musts, and the file that it needs.
    """

    data: str
    measure: Callable[[Path, Path], Measured]
    musts: dict[str, Must]
    file: str = ""


def musts_of(parts: Mapping[str, Part]) -> dict[str, Must]:
    """The musts of all parts, each named after its part."""
    return {f"{name}: {what}": must for name, part in parts.items() for what, must in part.musts.items()}


def show(found: Mapping[str, Any]) -> None:
    """Print each metric of each model."""
    for model, metrics in found.items():
        for name, one in metrics.items():
            print(f"  {model:24s} {name:48s} {one['value']:.4f} [{one['low']:.4f}, {one['high']:.4f}]")


def run_parts(parts: Mapping[str, Part], wanted: Iterable[str], data: Path | None, json_file: Path | None) -> None:
    """Measure the wanted parts, leave out those without their file, and `finish`."""
    print(machine())
    results: dict[str, dict[str, dict[str, Any]]] = {}
    checks: list[Check] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in wanted:
            part = parts[name]
            if part.file and not (data and (data / part.file).exists()):
                print(f"left out: {name}; name the folder of {part.file} with --data")
                continue
            found, values = part.measure(data or Path(), Path(folder))
            print(name)
            show(found)
            for model, metrics in found.items():
                results.setdefault(part.data, {}).setdefault(model, {}).update(metrics)
            checks += check(musts_of(parts), {f"{name}: {what}": value for what, value in values.items()})
    if not results:
        sys.exit("nothing was measured")
    finish(results, checks, json_file)


if __name__ == "__main__" and sys.argv[1:2] == ["--timed"]:
    # `timed` runs commands through this small process, because the kernel reports for a child process at least the peak
    # memory of its parent
    completed, cost = measure_cost(lambda: subprocess.run(sys.argv[2:], check=False))
    print(cost.json())
    sys.exit(completed.returncode)
