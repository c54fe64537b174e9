"""The learners of an uplift: S-, T-, X- and DR-learners on linear regressions or boosted trees.

Each takes the rows of a trial and returns the terms of an `UpliftModel`, which calibration completes. With the outcome
models μ₀(x) and μ₁(x) of those not contacted and contacted:

- S-learner: one model μ(x, t) with the treatment as an input; τ(x) = μ(x, 1) − μ(x, 0).
- T-learner: two models; τ(x) = μ₁(x) − μ₀(x).
- X-learner (Künzel, Sekhon, Bickel & Yu 2019): τ₁ is a regression of y − μ₀(x) on the contacted and τ₀ one of
  μ₁(x) − y on the others; τ(x) = g τ₀(x) + (1 − g) τ₁(x), where g is the share of contacted customers.
- DR-learner (Kennedy 2023): a regression of the doubly robust pseudo-outcomes
  φ = μ₁(x) − μ₀(x) + t (y − μ₁(x)) / e(x) − (1 − t) (y − μ₀(x)) / (1 − e(x)),
  whose mean given x is the effect if the outcome models or the propensity e(x) are right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.classify.column_encoding import ColumnEncoding
from models.uplift.interactions import InteractionRegression
from models.uplift.regressions import (
    OUTCOME_MODELS,
    BoostedRegression,
    Floats,
    LinearRegressionModel,
    Matrix,
    Regression,
)
from models.uplift.uplift_model import Term

Bools = NDArray[np.bool_]
Arms = Mapping[str, tuple[Regression, Regression]]
WINSORISED_AT = 0.99  # quantile of a real outcome beyond which outcome models see the quantile itself


@dataclass(frozen=True)
class LearnerRows:
    """What a learner is fitted on.

    Attributes
    ----------
    X : ndarray of float32, (n, f)
    treated : ndarray of bool, (n,)
    outcome : ndarray of float64, (n,)
        As outcome models see it (`winsorised`).
    pseudo : ndarray of float64, (n,)
        Doubly robust pseudo-outcomes of cross-fitted outcome models.
    arms : mapping of str to (Regression, Regression)
        Kind of regression → outcome models of these rows: of those not contacted, of those contacted (`fit_arms`).
    is_binary : bool
    encoding : ColumnEncoding
    seed : int
    """

    X: Matrix
    treated: Bools
    outcome: Floats
    pseudo: Floats
    arms: Arms
    is_binary: bool
    encoding: ColumnEncoding
    seed: int = 0


def constant_effect(rows: LearnerRows) -> tuple[Term, ...]:
    """No terms: the same effect for everybody."""
    return ()


def linear_dr_learner(rows: LearnerRows) -> tuple[Term, ...]:
    """Ridge regression of the pseudo-outcomes."""
    return (Term(1.0, LinearRegressionModel.fit(rows.encoding, rows.X, rows.pseudo, is_binary=False)),)


def linear_s_learner(rows: LearnerRows) -> tuple[Term, ...]:
    """One regression with the products of treatment and columns, those of each column shrunk as far as the data say."""
    found = InteractionRegression.fit(
        rows.encoding, rows.X, rows.treated, rows.outcome, is_binary=rows.is_binary, seed=rows.seed
    )
    return Term(1.0, found, 1.0), Term(-1.0, found, 0.0)


def linear_t_learner(rows: LearnerRows) -> tuple[Term, ...]:
    """Two regularised regressions."""
    return _t_learner(rows, "linear")


def boosted_s_learner(rows: LearnerRows) -> tuple[Term, ...]:
    """One boosted model with the treatment as an input."""
    found = BoostedRegression.fit(
        rows.encoding, rows.X, rows.outcome, treated=rows.treated, is_binary=rows.is_binary, seed=rows.seed
    )
    return Term(1.0, found, 1.0), Term(-1.0, found, 0.0)


def boosted_t_learner(rows: LearnerRows) -> tuple[Term, ...]:
    """Two boosted models."""
    return _t_learner(rows, "boosted")


def boosted_x_learner(rows: LearnerRows) -> tuple[Term, ...]:
    """Boosted regressions of the imputed effects of each arm; the outcome model of the other arm imputes them."""
    share = float(rows.treated.mean())
    mu0, mu1 = expected_outcomes(rows.arms, rows.X)
    terms = []
    for arm, imputed, weight in (
        (rows.treated, rows.outcome - mu0, 1.0 - share),
        (~rows.treated, mu1 - rows.outcome, share),
    ):
        found = BoostedRegression.fit(rows.encoding, rows.X[arm], imputed[arm], is_binary=False, seed=rows.seed)
        terms.append(Term(weight, found))
    return tuple(terms)


def boosted_dr_learner(rows: LearnerRows) -> tuple[Term, ...]:
    """Boosted regression of the pseudo-outcomes."""
    return (Term(1.0, BoostedRegression.fit(rows.encoding, rows.X, rows.pseudo, is_binary=False, seed=rows.seed)),)


def _t_learner(rows: LearnerRows, regression: str) -> tuple[Term, ...]:
    mu0, mu1 = rows.arms[regression]
    return Term(1.0, mu1), Term(-1.0, mu0)


def fit_arms(
    encoding: ColumnEncoding, X: Matrix, treated: Bools, outcome: Floats, *, is_binary: bool, seed: int
) -> dict[str, tuple[Regression, Regression]]:
    """Fit outcome models of both arms, a pair for each kind of regression: those not contacted, those contacted."""

    def of(arm: Bools, name: str) -> Regression:
        return OUTCOME_MODELS[name].fit(encoding, X[arm], outcome[arm], is_binary=is_binary, seed=seed)

    return {name: (of(~treated, name), of(treated, name)) for name in OUTCOME_MODELS}


def expected_outcomes(arms: Arms, X: Matrix) -> tuple[Floats, Floats]:
    """Return the outcomes μ₀ and μ₁ without and with contact, the mean of the kinds of regression, (n,) each."""
    pairs = list(arms.values())
    mu0, mu1 = (np.mean([pair[arm].predict(X) for pair in pairs], axis=0) for arm in (0, 1))
    return np.asarray(mu0), np.asarray(mu1)


CONSTANT = "constant effect"
Learner = Callable[[LearnerRows], tuple[Term, ...]]
# the simplest first: of those within noise of the best one, the first ships
LEARNERS: dict[str, Learner] = {
    CONSTANT: constant_effect,
    "linear S-learner": linear_s_learner,
    "linear DR-learner": linear_dr_learner,
    "linear T-learner": linear_t_learner,
    "S-learner": boosted_s_learner,
    "T-learner": boosted_t_learner,
    "X-learner": boosted_x_learner,
    "DR-learner": boosted_dr_learner,
}


def winsorised(outcome: Floats, *, is_binary: bool) -> Floats:
    """Return a real outcome with its largest hundredth set to their least, for outcome models.

    Money has heavy tails: a single customer would decide a leaf or a coefficient. Pseudo-outcomes and every evaluation
    read the outcome as it is, so that the estimates stay those of its mean.
    """
    return outcome if is_binary else np.minimum(outcome, _upper(outcome))


def _upper(outcome: Floats) -> float:
    """The quantile among the outcomes other than 0, because most customers spend nothing."""
    some = outcome[outcome != 0]
    return float(np.quantile(some, WINSORISED_AT)) if len(some) else 0.0
