"""Off-policy values of simulated logs beside the known value of the target policy.

    python benchmarks/measurement_ope.py

`ope` simulates 20 logs of 10,000 decisions with 30 actions (`training.measurement.simulated_log`) and gives the mean
relative error of each estimator, and how often the interval of the doubly robust one covers the value in 200 logs of
2,000 decisions with 10 actions.
"""

from __future__ import annotations

import math
from typing import Any

import common
import numpy as np
from common import Must

from training.measurement.off_policy import DM, DR, IPS, SNIPS, policy_value
from training.measurement.simulated_log import simulated_log

LOGS, COVERAGE_LOGS = 20, 200
NAMES = {DR: "qianmian", SNIPS: "snips", IPS: "ips", DM: "direct method"}
# the interval of a coverage of 95 % in 200 logs is 92 to 98 %
MUSTS = {"dr_relative_error": Must("metric", most=0.01), "dr_coverage": Must("metric", least=0.91)}


def ope() -> tuple[dict[str, dict[str, dict[str, Any]]], dict[str, float]]:
    """Relative errors of the estimators with normal intervals over logs, and the values of the musts."""
    errors: dict[str, list[float]] = {name: [] for name in NAMES}
    for seed in range(LOGS):
        simulated = simulated_log(seed)
        for name, estimate in policy_value(simulated.log, seed).estimates.items():
            errors[name].append(abs(estimate.value - simulated.true_value) / simulated.true_value)
    results = {}
    for name, found in errors.items():
        mean, width = float(np.mean(found)), 1.96 * float(np.std(found, ddof=1)) / math.sqrt(LOGS)
        results[NAMES[name]] = {"dr_relative_error": common.value(mean, mean - width, mean + width, LOGS)}
    covered = []
    for seed in range(COVERAGE_LOGS):
        simulated = simulated_log(1_000 + seed, rounds=2_000, actions=10)
        value = policy_value(simulated.log, seed).value
        covered.append(value.low <= simulated.true_value <= value.high)
    coverage = float(np.mean(covered))
    width = 1.96 * math.sqrt(coverage * (1 - coverage) / COVERAGE_LOGS)
    ours = results["qianmian"]
    ours["dr_coverage"] = common.value(coverage, coverage - width, min(1.0, coverage + width), COVERAGE_LOGS)
    return results, {name: ours[name]["value"] for name in MUSTS}


def main() -> None:
    arguments = common.parser(__doc__.splitlines()[0]).parse_args()
    found, values = ope()
    common.show(found)
    common.finish({"ope": found}, common.check(MUSTS, values), arguments.json)


if __name__ == "__main__":
    main()
