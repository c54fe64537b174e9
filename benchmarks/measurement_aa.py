"""A/A experiments with daily looks: how often a difference is found where there is none.

A part of `benchmarks/measurement.py`. 2,000 simulated experiments per outcome run 28 days; every day brings 100
customers an arm, and everything is looked at again. An experiment counts as a false positive if any look excludes 0.
Outcomes: yes or no (5 %), number of orders (Poisson, .3), money (most spend nothing, the amounts of a fifth are
log-normal), and orders with CUPED on a pre-period. The peer is Welch's t test, read every day as if it were the only
look; one look at the end is beside it, where 5 % are right.

Unequal arms are looked at once, with money of which a tenth of the customers have some: how often the interval of one
look, and the confidence sequence, exclude 0, before and after the refusal of a small arm with a long tail.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import common
import numpy as np
from common import Must
from numpy.typing import NDArray

from training.measurement.cuped import adjusted_for_before
from training.measurement.differences import ALPHA, MAX_SKEWNESS, confidence_sequence, welch
from training.measurement.moments import ArmMoments, moments_of, skewness_of, skewness_of_difference

SIMULATIONS, DAYS, A_DAY = 2_000, 28, 100
PEER = "t_test_every_day"
Draw = Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]]
OUTCOMES: dict[str, Draw] = {
    "order": lambda rng, shape: (rng.random(shape) < 0.05).astype(np.float64),
    "orders": lambda rng, shape: rng.poisson(0.3, shape).astype(np.float64),
    "amount": lambda rng, shape: np.where(rng.random(shape) < 0.2, rng.lognormal(3.0, 1.0, shape), 0.0),
}
CUPED = "orders_cuped"
UNEQUAL = ((30, 2_970), (100, 900), (300, 2_700), (1_000, 9_000), (1_500, 1_500))  # customers of both arms
RATE, NAIVE = "false_positive_rate", "false_positive_rate of the peer"
MOST = ALPHA + 2.0 * (ALPHA * (1.0 - ALPHA) / SIMULATIONS) ** 0.5
MUSTS = {RATE: Must("metric", most=MOST), NAIVE: Must("metric", least=MOST)}
Flags = tuple[bool, bool, bool]  # found by the sequence, by the peer, and at the end only


def aa(simulations: int = SIMULATIONS) -> tuple[dict[str, Any], dict[str, float]]:
    """False-positive rates by outcome, the worst one of ours and the best one of the peer as values of the musts."""
    begun = time.process_time()
    found = {
        name: _rates(simulations, lambda rng, draw=draw: _look_daily(rng, draw)) for name, draw in OUTCOMES.items()
    }
    found[CUPED] = _rates(simulations, _look_daily_with_cuped)
    results: dict[str, Any] = {"qianmian": {}, PEER: {}, "t_test_once": {}}
    for name, rates in found.items():
        for model, rate in zip(results, rates, strict=True):
            half = 1.96 * (rate * (1.0 - rate) / simulations) ** 0.5
            results[model][f"{RATE}_{name}"] = common.value(rate, max(rate - half, 0.0), rate + half, simulations)
    for model, place, choose in (("qianmian", 0, max), (PEER, 1, min)):
        results[model][RATE] = common.value(choose(rates[place] for rates in found.values()), n=simulations)
    results["qianmian"]["cpu_seconds"] = common.value(time.process_time() - begun)
    return results, {RATE: results["qianmian"][RATE]["value"], NAIVE: results[PEER][RATE]["value"]}


def _rates(simulations: int, run: Callable[[np.random.Generator], Flags]) -> tuple[float, float, float]:
    flags = np.array([run(np.random.default_rng(seed)) for seed in range(simulations)])
    ours, daily, once = flags.mean(axis=0).tolist()
    return ours, daily, once


def _look_daily(rng: np.random.Generator, draw: Draw) -> Flags:
    values = draw(rng, (2, DAYS, A_DAY))
    sums, squares = values.sum(axis=2).cumsum(axis=1), (values**2).sum(axis=2).cumsum(axis=1)
    arms = [
        tuple(ArmMoments.of_sums(sums[arm, day], squares[arm, day], (day + 1) * A_DAY) for arm in (0, 1))
        for day in range(DAYS)
    ]
    return _flags([(control, treatment) for control, treatment in arms])


def _look_daily_with_cuped(rng: np.random.Generator) -> Flags:
    """Orders before and in the experiment share the customer's rate; θ is estimated anew at every look."""
    rate = rng.gamma(0.5, 0.6, (2, DAYS * A_DAY))
    before, values = (rng.poisson(rate).astype(np.float64) for _ in range(2))
    looks = []
    for day in range(DAYS):
        n = (day + 1) * A_DAY
        adjusted = adjusted_for_before((values[0, :n], values[1, :n]), (before[0, :n], before[1, :n]))
        assert adjusted is not None
        looks.append(moments_of(adjusted.outcomes))
    return _flags(looks)


def unequal_arms(simulations: int = 1_000) -> dict[str, Any]:
    """How often one look finds a difference of amounts where there is none, by the sizes of the arms."""
    results: dict[str, Any] = {}
    for sizes in UNEQUAL:
        rng = np.random.default_rng(0)
        flags = np.array([_look_once(rng, sizes) for _ in range(simulations)])
        told = ~flags[:, 2]
        results[f"{sizes[0]} : {sizes[1]}"] = {
            "refused": common.value(float(flags[:, 2].mean()), n=simulations),
            "t_test": common.value(float(flags[:, 0].mean()), n=simulations),
            "sequence": common.value(float(flags[:, 1].mean()), n=simulations),
            "t_test_told": common.value(
                float(flags[told, 0].mean()) if told.any() else float("nan"), n=int(told.sum())
            ),
            "sequence_told": common.value(
                float(flags[told, 1].mean()) if told.any() else float("nan"), n=int(told.sum())
            ),
        }
    return results


def _look_once(rng: np.random.Generator, sizes: tuple[int, int]) -> Flags:
    """Whether the t test and the sequence exclude 0, and whether the difference would be refused."""
    control, treatment = (np.where(rng.random(n) < 0.1, rng.lognormal(3.0, 1.0, n), 0.0) for n in sizes)
    arms = moments_of((control, treatment))
    refused = skewness_of_difference(skewness_of((control, treatment)), *sizes) > MAX_SKEWNESS
    return welch(*arms).excludes_zero, confidence_sequence(*arms).excludes_zero, refused


def _flags(looks: list[tuple[ArmMoments, ArmMoments]]) -> Flags:
    sequence = any(confidence_sequence(*arms).excludes_zero for arms in looks)
    naive = [welch(*arms).excludes_zero for arms in looks]
    return sequence, any(naive), naive[-1]


if __name__ == "__main__":
    common.show(aa()[0])
    common.show({"unequal arms": unequal_arms()})
