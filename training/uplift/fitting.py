"""All learners fitted and calibrated on the customers of a trial, and which of them ships."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from models.classify.column_encoding import ColumnEncoding
from models.uplift.learners import LEARNERS, Arms, LearnerRows, fit_arms, winsorised
from models.uplift.regressions import Floats
from models.uplift.uplift_model import Term, UpliftModel
from training.uplift.metrics import gains_over_random
from training.uplift.nuisance import Nuisance, cross_fit
from training.uplift.trial import Trial

NOISE = float(norm.ppf(0.975))  # a difference of fewer standard errors is noise


@dataclass(frozen=True)
class FittedLearners:
    """The learners of a trial.

    Attributes
    ----------
    models : mapping of str to UpliftModel
        Learner → its calibrated model, fitted on all customers of the trial.
    chosen : str
        The learner that ships.
    gains : mapping of str to (float, float)
        Learner → its out-of-fold gain over contacting at random (mean over all budgets, per customer), and the standard
        error of the gain.
    nuisance : Nuisance
    """

    models: Mapping[str, UpliftModel]
    chosen: str
    gains: Mapping[str, tuple[float, float]]
    nuisance: Nuisance


def fit_learners(trial: Trial, seed: int) -> FittedLearners:
    """Fit every learner, calibrate it on out-of-fold rows, and choose.

    The simplest learner that is not worse than the best one beyond noise ships, by the out-of-fold gain over contacting
    at random; the constant effect has a gain of 0. Everything is of the customers of `trial` alone.
    """
    nuisance = cross_fit(trial, seed)
    raw = _out_of_fold(trial, nuisance, seed)
    contributions = {
        name: trial.by_customer(gains_over_random(nuisance.pseudo, scores)) for name, scores in raw.items()
    }
    chosen = choose_simplest(contributions)
    encoding = ColumnEncoding.of(trial.X, trial.is_category)
    outcome = winsorised(trial.outcome, is_binary=trial.is_binary)
    arms = fit_arms(encoding, trial.X, trial.treated, outcome, is_binary=trial.is_binary, seed=seed)
    rows = _rows(trial, nuisance.pseudo, arms, encoding, seed)
    models = {
        name: calibrated(name, LEARNERS[name](rows), tuple(trial.names), raw[name], nuisance.pseudo)
        for name in LEARNERS
    }
    gains = {name: (float(one.mean()), _standard_error(one)) for name, one in contributions.items()}
    return FittedLearners(models, chosen, gains, nuisance)


def choose_simplest(contributions: Mapping[str, Floats]) -> str:
    """The first candidate whose gain is within noise of that of the best.

    Parameters
    ----------
    contributions : mapping of str to ndarray, (n,)
        Candidate, the simplest first → what each customer adds to its gain.

    Examples
    --------
    >>> step = np.tile([0.0, 1.0], 50)
    >>> choose_simplest({"constant": np.zeros(100), "line": step + 0.1, "trees": step + np.roll(step, 1) / 10})
    'line'
    """
    best = max(contributions, key=lambda name: float(contributions[name].mean()))
    for name, own in contributions.items():
        behind = contributions[best] - own
        if float(behind.mean()) <= NOISE * _standard_error(behind):
            return name
    return best


def calibrated(
    learner: str, terms: tuple[Term, ...], names: tuple[str, ...], out_of_fold: Floats, pseudo: Floats
) -> UpliftModel:
    """The model of a learner, with level and slope of the regression of pseudo-outcomes on its out-of-fold values.

    The slope is at least 0: a learner that ranks customers the wrong way round has learnt nothing.
    """
    middle, level = float(out_of_fold.mean()), float(pseudo.mean())
    deviation = out_of_fold - middle
    variance = float(deviation @ deviation)
    slope = max(0.0, float(deviation @ (pseudo - level)) / variance) if terms and variance > 0 else 0.0
    return UpliftModel(learner, names, terms, level, slope, middle)


def _out_of_fold(trial: Trial, nuisance: Nuisance, seed: int) -> dict[str, Floats]:
    """Uncalibrated uplift of every customer by the learners of the other folds, (n,) each."""
    found = {name: np.zeros(len(trial)) for name in LEARNERS}
    for place, (train, held_out) in enumerate(nuisance.folds):
        rows = _rows(trial.take(train), nuisance.pseudo[train], nuisance.models[place], nuisance.encodings[place], seed)
        for name, learner in LEARNERS.items():
            found[name][held_out] = UpliftModel(terms=learner(rows)).raw(trial.X[held_out])
    return found


def _rows(trial: Trial, pseudo: Floats, arms: Arms, encoding: ColumnEncoding, seed: int) -> LearnerRows:
    outcome = winsorised(trial.outcome, is_binary=trial.is_binary)
    return LearnerRows(trial.X, trial.treated, outcome, pseudo, arms, trial.is_binary, encoding, seed)


def _standard_error(values: Floats) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))
