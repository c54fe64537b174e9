"""Cross-fitted outcome models, propensities and doubly robust pseudo-outcomes (Chernozhukov et al. 2018).

A *nuisance* is what has to be estimated on the way to an effect and is not wanted for itself. Cross-fitted: the value
of a customer is by models that have not seen this customer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from models.classify.column_encoding import ColumnEncoding
from models.uplift.learners import Arms, expected_outcomes, fit_arms, winsorised
from models.uplift.regressions import OUTCOME_MODELS, Floats, Matrix
from training.uplift.trial import Trial

FOLDS = 3
CLIP = 0.01  # estimated propensities are at least this, and at most 1 − this
Folds = list[tuple[NDArray[np.int64], NDArray[np.int64]]]


@dataclass(frozen=True)
class Nuisance:
    """Cross-fitted values of the customers of a trial.

    Attributes
    ----------
    mu0, mu1 : ndarray of float64, (n,)
        Expected outcomes without and with contact.
    pseudo : ndarray of float64, (n,)
        Doubly robust pseudo-outcomes.
    folds : list of (ndarray, ndarray)
        Training and held-out rows of each fold.
    encodings : list of ColumnEncoding
        Of each fold.
    models : list of Arms
        Outcome models of each fold.
    """

    mu0: Floats
    mu1: Floats
    pseudo: Floats
    folds: Folds
    encodings: list[ColumnEncoding]
    models: list[Arms]

    def mu_of(self, X: Matrix) -> tuple[Floats, Floats]:
        """Expected outcomes of other customers: the mean over the models of all folds, (m,) each."""
        found = [expected_outcomes(arms, X) for arms in self.models]
        mu0, mu1 = (np.mean([pair[arm] for pair in found], axis=0) for arm in (0, 1))
        return np.asarray(mu0), np.asarray(mu1)


def cross_fit(trial: Trial, seed: int, folds: int = FOLDS) -> Nuisance:
    """Cross-fit the outcome models of a trial: for each arm a linear regression and boosted trees, and their mean."""
    outcome = winsorised(trial.outcome, is_binary=trial.is_binary)
    kind = StratifiedKFold if trial.customers is None else StratifiedGroupKFold
    made = kind(folds, shuffle=True, random_state=seed)
    parts: Folds = list(made.split(trial.X, trial.groups, trial.customers))
    mu0, mu1 = np.empty(len(trial)), np.empty(len(trial))
    encodings: list[ColumnEncoding] = []
    models: list[Arms] = []
    for train, held_out in parts:
        X, encoding = trial.X[train], ColumnEncoding.of(trial.X[train], trial.is_category)
        arms = fit_arms(encoding, X, trial.treated[train], outcome[train], is_binary=trial.is_binary, seed=seed)
        mu0[held_out], mu1[held_out] = expected_outcomes(arms, trial.X[held_out])
        encodings.append(encoding)
        models.append(arms)
    return Nuisance(mu0, mu1, pseudo_outcomes(trial, mu0, mu1), parts, encodings, models)


def pseudo_outcomes(trial: Trial, mu0: Floats, mu1: Floats) -> Floats:
    """Doubly robust pseudo-outcomes φ (Robins, Rotnitzky & Zhao 1994), (n,).

    φ = μ₁ − μ₀ + t (y − μ₁) / e − (1 − t) (y − μ₀) / (1 − e), with the outcome y as it is. Their mean over any group of
    customers estimates the effect of the contact in it.

    Examples
    --------
    Without outcome models, and with every second customer contacted, an outcome counts twice:

    >>> one = Trial(np.zeros((2, 1), np.float32), np.array([True, False]), np.array([3.0, 1.0]), None, ["x"])
    >>> pseudo_outcomes(one, np.zeros(2), np.zeros(2)).tolist()
    [6.0, -2.0]
    """
    e = trial.probability
    with_contact = np.where(trial.treated, (trial.outcome - mu1) / e, 0.0)
    without = np.where(trial.treated, 0.0, (trial.outcome - mu0) / (1.0 - e))
    return np.asarray(mu1 - mu0 + with_contact - without)


def estimate_propensity(
    X: Matrix, treated: NDArray[np.bool_], seed: int, categorical: Sequence[bool] = (), folds: int = 5
) -> Floats:
    """Probability of the contact given X by cross-fitted models, for observational data, (n,).

    The mean of a logistic regression and boosted trees, within [0.01, 0.99].

    Parameters
    ----------
    X : ndarray of float32, (n, f)
        Everything by which customers were chosen for the contact, as far as it is known.
    treated : ndarray of bool, (n,)
    seed : int
    categorical : sequence of bool
    folds : int
    """
    is_category = tuple(categorical) or (False,) * X.shape[1]
    found = np.empty(len(X))
    for train, held_out in StratifiedKFold(folds, shuffle=True, random_state=seed).split(X, treated):
        encoding = ColumnEncoding.of(X[train], is_category)
        y = treated[train].astype(np.float64)
        models = [kind.fit(encoding, X[train], y, is_binary=True, seed=seed) for kind in OUTCOME_MODELS.values()]
        found[held_out] = np.mean([model.predict(X[held_out]) for model in models], axis=0)
    return np.clip(found, CLIP, 1.0 - CLIP)
