"""Off-policy values of simulated logs beside the known value of the target policy.

    python benchmarks/measurement_ope.py

`ope` simulates 20 logs of 10,000 decisions with 30 actions (`training.measurement.simulated_log`) and gives the mean
relative error of each estimator, and how often the interval of the doubly robust one covers the value in 200 logs of
2,000 decisions with 10 actions. A target that prefers what the logging policy avoids has unequal weights: its
coverage in 400 logs of 2,000 decisions with 5 actions is beside it.
"""

from __future__ import annotations

import math
from typing import Any

import common
import numpy as np
from common import Must
from scipy.special import softmax

from training.measurement.off_policy import DM, DR, IPS, SNIPS, PolicyLog, policy_value
from training.measurement.simulated_log import simulated_log

LOGS, COVERAGE_LOGS = 20, 200
NAMES = {DR: "qianmian", SNIPS: "snips", IPS: "ips", DM: "direct method"}
# the interval of a coverage of 95 % in 200 logs is 92 to 98 %
MUSTS = {"dr_relative_error": Must("metric", most=0.01), "dr_coverage": Must("metric", least=0.91)}


def unequal_coverage(logs: int = 400, rounds: int = 2_000, actions: int = 5) -> dict[str, Any]:
    """How often the interval covers the value of a target with unequal weights, and the median effective sample size.

    The logging policy is a softmax of half a slope of the context, the target one of the slope's opposite.
    """
    slopes = np.array([np.linspace(-1.0, 1.0, actions), np.linspace(1.0, -1.0, actions)])

    def expected(context: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.clip(0.2 + 0.1 * np.linspace(0.0, 1.0, actions) + 0.05 * context[:, :1], 0.01, 0.99)

    many = np.random.default_rng(0).normal(size=(400_000, 2))
    truth = float((softmax(-many @ slopes, axis=1) * expected(many)).sum(axis=1).mean())
    covered, sizes = [], []
    for seed in range(logs):
        rng = np.random.default_rng(seed)
        context = rng.normal(size=(rounds, 2))
        logging = softmax(0.5 * context @ slopes, axis=1)
        chosen = np.minimum((logging.cumsum(axis=1) < rng.random((rounds, 1))).sum(axis=1), actions - 1)
        places = (np.arange(rounds), chosen)
        rewards = (rng.random(rounds) < expected(context)[places]).astype(np.float64)
        target = softmax(-context @ slopes, axis=1)
        log = PolicyLog(chosen, rewards, logging[places], target, context.astype(np.float32))
        if not (value := policy_value(log, seed)).refusals:
            covered.append(value.value.low <= truth <= value.value.high)
            sizes.append(value.effective_sample_size)
    return {
        "dr_coverage": common.value(float(np.mean(covered)), n=len(covered)),
        "effective_sample_size": common.value(float(np.median(sizes)), n=len(sizes)),
    }


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
    found["unequal weights"] = unequal_coverage()
    common.show(found)
    common.finish({"ope": found}, common.check(MUSTS, values), arguments.json)


if __name__ == "__main__":
    main()
