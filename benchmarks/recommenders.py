"""All recommender benchmarks, each data set in a child process, and the page docs/benchmarks.md made from the results.

    python benchmarks/recommenders.py [--data DIR] [--quick] [--json FILE] [--only completejourney,gowalla,tafeng]
        [--models NAME,…] [--docs DIR]

Complete Journey comes with a package; the other data sets are read from DIR (`lightgcn_gowalla/`, `tafeng_nbr/`) and
skipped if they are missing. A data set that was not measured keeps its earlier figures on the page. With --quick the
page is not changed, unless --docs names a folder. --models measures only some models of Gowalla and the two that are
compared; the other models keep their figures. December of Complete Journey is evaluated once per release: every full
run adds a line to docs/benchmarks/december.csv.
"""

from __future__ import annotations

import csv
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import common
import recommenders_data
import recommenders_figures
import recommenders_page

import qianmian

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = {  # data set → module with `run(data, quick) -> (results, checks)`, and the folder it reads
    "completejourney": ("completejourney", None),
    "gowalla": ("recommenders_gowalla", "lightgcn_gowalla"),
    "tafeng": ("recommenders_tafeng", "tafeng_nbr"),
}
LOGGED_METRICS = ("recall@10", "ndcg@10", "hit_rate@10")
RELEASE_AS_OF = "2017-12-01"


def skip_reason(name: str, data: Path | None) -> str | None:
    """Why a data set cannot be measured; None if it can."""
    folder = BENCHMARKS[name][1]
    if folder is None or (data is not None and (data / folder).is_dir()):
        return None
    problem = f"{data} has no folder {folder}" if data is not None else "--data is missing"
    return f"{problem}. {recommenders_data.DATA[name].how_to_get}"


def child(name: str, data: Path | None, quick: bool, models: list[str], out: Path) -> None:
    """Run the benchmark of one data set in this process and write results, seconds and peak memory as JSON."""
    run = importlib.import_module(BENCHMARKS[name][0]).run
    (results, checks), cost = common.measure_cost(lambda: run(data, quick, *([models] * bool(models))))
    print(f"{name}: {cost}")
    models_of = {name: results} if name not in results else results  # {model: …} or {data set: {model: …}}
    found = {
        "models": models_of.pop(name),
        "more": models_of,
        "failed": common.report(checks),
        "seconds": cost.wall_seconds,
        "peak_mb": cost.peak_mb,
    }
    out.write_text(json.dumps(found))


def measure(name: str, data: Path | None, quick: bool, models: list[str]) -> dict[str, Any]:
    """Results of the benchmark of one data set, run in its own process."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        command = [sys.executable, str(Path(__file__).resolve()), "--child", name, "--json", str(out)]
        command += (
            ["--data", str(data)] * (data is not None)
            + ["--quick"] * quick
            + ["--models", ",".join(models)] * bool(models)
        )
        done = subprocess.run(command, check=False)
        if done.returncode or not out.exists():
            return {
                "models": {},
                "failed": [f"{name}: the process exited with code {done.returncode}"],
                "seconds": 0.0,
                "peak_mb": 0.0,
            }
        found: dict[str, Any] = json.loads(out.read_text())
    again = (
        f"python benchmarks/recommenders.py --only {name}"
        + " --data DIR" * (BENCHMARKS[name][1] is not None)
        + " --quick" * quick
    )
    return {
        **found,
        "machine": common.machine(),
        "version": qianmian.__version__,
        "command": again,
        "quick": quick,
        "some": bool(models),
    }


def log_december(path: Path, models: Mapping[str, Any]) -> None:
    """Add the results of December to the log, with a header if the file is new.

    A line has the version and its cutoff, but not the day of the run.
    """
    ours = models[recommenders_page.OURS]
    row = {"version": qianmian.__version__, "as_of": RELEASE_AS_OF, "households": str(ours[LOGGED_METRICS[0]]["n"])}
    for metric in LOGGED_METRICS:
        row |= {
            metric: f"{ours[metric]['value']:.4f}",
            f"{metric} low": f"{ours[metric]['low']:.4f}",
            f"{metric} high": f"{ours[metric]['high']:.4f}",
        }
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def publish(docs: Path, found: Mapping[str, Any]) -> None:
    """Replace the saved results by the new ones, and write the page of all results."""
    folder = docs / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    kept, log = folder / "results.json", folder / "december.csv"
    known: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    for name, result in found.items():
        kept_models = known[name]["models"] if result.get("some") and name in known else {}
        whole = {key: known[name][key] for key in ("seconds", "peak_mb", "command")} if kept_models else {}
        models = {
            model: {**kept_models.get(model, {}), **metrics}
            for model, metrics in {**kept_models, **result["models"]}.items()
        }
        known[name] = {**result, **whole, "models": models}
    december = found.get("completejourney", {"models": {}, "quick": True})
    if not december["quick"] and recommenders_page.OURS in december["models"]:
        log_december(log, december["models"])
    rows = list(csv.DictReader(log.open(encoding="utf-8", newline=""))) if log.exists() else []
    text = recommenders_page.page(known, rows, recommenders_figures.draw_figures(known, folder))
    for path, content in ((kept, json.dumps(known, indent=1, sort_keys=True) + "\n"), (docs / "benchmarks.md", text)):
        part = path.with_suffix(".part")
        part.write_text(content, encoding="utf-8")
        os.replace(part, path)


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0])
    parser.add_argument(
        "--only", default=",".join(BENCHMARKS), help=f"data sets, separated by commas: {', '.join(BENCHMARKS)}"
    )
    parser.add_argument(
        "--docs", type=Path, default=None, help="folder of the page (default docs/; with --quick no page is written)"
    )
    parser.add_argument(
        "--child", choices=BENCHMARKS, default=None, help="run this data set in this process (used by the command)"
    )
    parser.add_argument(
        "--models", default="", help="models of Gowalla to measure, separated by commas; others keep their figures"
    )
    arguments = parser.parse_args()
    models = [name.strip() for name in arguments.models.split(",") if name.strip()]
    if arguments.child:
        child(arguments.child, arguments.data, arguments.quick, models, arguments.json)
        return
    wanted = [name.strip() for name in arguments.only.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in BENCHMARKS]:
        parser.error(f"--only has unknown data sets {', '.join(unknown)}; known ones: {', '.join(BENCHMARKS)}")
    if models and wanted != ["gowalla"]:
        parser.error("--models is for Gowalla only: pass --only gowalla too")
    print(common.machine())
    found: dict[str, Any] = {}
    for name in wanted:
        reason = skip_reason(name, arguments.data)
        if reason is not None:
            print(f"{name}: skipped: {reason}")
            continue
        print(f"\n== {name}", flush=True)
        found[name] = measure(name, arguments.data, arguments.quick, models)
    if models:  # the models they are compared with keep their saved figures
        found = {
            name: {
                **result,
                "models": {model: result["models"][model] for model in models if model in result["models"]},
            }
            for name, result in found.items()
        }
    completed = {name: result for name, result in found.items() if result["models"]}
    more = {name: models for result in completed.values() for name, models in result.get("more", {}).items()}
    docs = arguments.docs or (None if arguments.quick else ROOT / "docs")
    if docs is not None and completed:
        publish(docs, completed)
        print(f"\nwritten: {docs / 'benchmarks.md'}")
    failed = [f"{name}: {line}" for name, result in found.items() for line in result["failed"]]
    common.finish({name: result["models"] for name, result in completed.items()} | more, (), arguments.json, failed)


if __name__ == "__main__":
    main()
