"""`InteractionRegression`: a regression whose interactions with the treatment are shrunk as far as the data say."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from models.classify.column_encoding import ColumnEncoding
from models.parallel import one_blas_thread
from models.persist import load_json
from qianmian.workspace import write_json

Floats = NDArray[np.float64]
Matrix = NDArray[np.float32]
PENALTY = 20.0  # of the squared standardised coefficients of the main effects, against one row
VARIANCES = np.concatenate([[0.0], 10.0 ** np.arange(-5.0, 1.0, 0.5)])  # of standardised interactions, equally likely
STEPS = 2  # of Newton's method, from a fit without interactions
DRAWS, LEAST_SWEEPS, BURN_IN = 1_600, 40, 0.2  # of all sources; sweeps over them; share of the sweeps that is left out
LEAST_WEIGHT = 1e-6  # p (1 − p) of a row


class InteractionRegression:
    """A logistic or linear regression on columns x, the treatment t, and the products of both.

    η(x, t) = α + β x + (t − share) (γ + δ x). The interactions δ are what tells customers apart, and most of what an
    unpenalised fit finds in them is noise. Those of a source column (the pieces of a spline, the indicators of a
    category) have a normal prior N(0, v) with a variance v of their own, so that columns that matter are kept and
    others shrunk (automatic relevance determination; Neal 1996). Which v is right is uncertain: δ is the mean over all,
    weighted by how likely they make the data. At v = 0 all customers have the same effect on η: for a yes or no the
    uplift is then larger where the outcome is less certain. β, α and γ have a weak penalty.

    Attributes
    ----------
    encoding : ColumnEncoding
    mean, scale : ndarray of float64, (columns,)
        Of the linear columns of the encoding.
    main : ndarray of float64, (columns + 2,)
        α, β and γ.
    interactions : ndarray of float64, (columns,)
        δ.
    share : float
        Share of the treated.
    is_logistic : bool
        Whether the prediction is a probability.
    """

    def __init__(
        self,
        encoding: ColumnEncoding,
        mean: Floats,
        scale: Floats,
        main: Floats,
        interactions: Floats,
        share: float,
        is_logistic: bool,
    ) -> None:
        self.encoding, self.mean, self.scale = encoding, mean, scale
        self.main, self.interactions, self.share, self.is_logistic = main, interactions, share, is_logistic

    @classmethod
    def fit(
        cls,
        encoding: ColumnEncoding,
        X: Matrix,
        treated: NDArray[np.bool_],
        outcome: Floats,
        *,
        is_binary: bool,
        seed: int = 0,
    ) -> Self:
        """Fit to outcomes, which are 0 or 1 if `is_binary`; `seed` is that of the mean over variances."""
        columns = encoding.linear_columns(X)
        mean, spread = columns.mean(axis=0), columns.std(axis=0)
        scale = np.where(spread > 0, spread, 1.0)
        share = float(treated.mean())
        unit = 1.0 if is_binary else float(outcome.std()) or 1.0  # the variances are those of standardised amounts
        with one_blas_thread():
            main, interactions = _fit(
                (columns - mean) / scale,
                treated.astype(np.float64) - share,
                outcome / unit,
                _groups(encoding),
                is_binary=is_binary,
                seed=seed,
            )
        main, interactions = main * unit, interactions * unit
        return cls(encoding, mean, scale, main, interactions, share, is_binary)

    def predict(self, X: Matrix, treatment: float | None = None) -> Floats:
        """Return the expected outcome of each row at a treatment of 0 or 1, by default the share of the treated, (n,).

        The mean over treatments and the value at their mean differ little; uplift is a difference of two treatments.
        """
        standard = (self.encoding.linear_columns(X) - self.mean) / self.scale
        treatment_centred = 0.0 if treatment is None else treatment - self.share
        intercept, slopes, effect = self.main[0], self.main[1:-1], self.main[-1]
        predictor = intercept + standard @ slopes + treatment_centred * (effect + standard @ self.interactions)
        return np.asarray(expit(predictor) if self.is_logistic else predictor)

    def save(self, folder: Path) -> None:
        """Write the coefficients as JSON."""
        arrays = {name: getattr(self, name).tolist() for name in ("mean", "scale", "main", "interactions")}
        about = {"share": self.share, "is_logistic": self.is_logistic, "encoding": self.encoding.as_dict()}
        write_json(folder / "interactions.json", {**arrays, **about})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a regression that `save` wrote."""
        found = load_json(folder / "interactions.json")
        mean, scale, main, interactions = (
            np.asarray(found[name], dtype=np.float64) for name in ("mean", "scale", "main", "interactions")
        )
        encoding = ColumnEncoding.from_dict(found["encoding"])
        return cls(encoding, mean, scale, main, interactions, float(found["share"]), bool(found["is_logistic"]))


def _groups(encoding: ColumnEncoding) -> list[slice]:
    """The linear columns of each source column."""
    sources = encoding.linear_sources()
    edges = [0, *(np.flatnonzero(np.diff(sources)) + 1), len(sources)]
    return [slice(int(start), int(end)) for start, end in pairwise(edges) if end > start]


def _fit(
    standard: Floats, treatment: Floats, outcome: Floats, groups: Sequence[slice], *, is_binary: bool, seed: int
) -> tuple[Floats, Floats]:
    """Main effects and interactions, by Newton steps from a fit without interactions."""
    A = np.column_stack([np.ones(len(outcome)), standard, treatment])
    D = treatment[:, None] * standard
    penalty = np.diag(np.append(1e-6, np.full(A.shape[1] - 1, PENALTY)))  # none of the intercept
    interactions = np.zeros(D.shape[1])
    if not is_binary:
        main = np.linalg.solve(A.T @ A + penalty, A.T @ outcome)
        noise = float(np.mean((outcome - A @ main) ** 2))
        if noise == 0.0:
            return main, interactions
        return _step(A, D, np.full(len(outcome), 1.0 / noise), outcome, penalty / noise, groups, seed)
    found = LogisticRegression(C=1.0 / PENALTY, max_iter=500).fit(A[:, 1:], outcome)
    main = np.append(found.intercept_, found.coef_[0]).astype(np.float64)
    for _ in range(STEPS):
        predictor = A @ main + D @ interactions
        p = expit(predictor)
        weights = np.maximum(p * (1.0 - p), LEAST_WEIGHT)
        main, interactions = _step(A, D, weights, predictor + (outcome - p) / weights, penalty, groups, seed)
    return main, interactions


def _step(
    A: Floats, D: Floats, weights: Floats, target: Floats, penalty: Floats, groups: Sequence[slice], seed: int
) -> tuple[Floats, Floats]:
    """Weighted least squares of `target` on A and D, with the prior of the coefficients of D."""
    weighted = A * weights[:, None]
    inner = np.asarray(A.T @ weighted + penalty)
    cross = weighted.T @ D
    solved = np.linalg.solve(inner, cross)
    information = (D * weights[:, None]).T @ D - cross.T @ solved
    gradient = D.T @ (weights * target) - solved.T @ (weighted.T @ target)
    interactions = posterior_mean(information, gradient, groups, seed)
    main = np.asarray(np.linalg.solve(inner, weighted.T @ (target - D @ interactions)), dtype=np.float64)
    return main, interactions


def posterior_mean(information: Floats, gradient: Floats, groups: Sequence[slice], seed: int) -> Floats:
    """Mean of coefficients with log-likelihood ``gradient · δ − ½ δ · information · δ``, (columns,).

    The coefficients of each group are N(0, v) with one of `VARIANCES`, each as likely before the data. Gibbs sampling:
    given the coefficients of all other groups, the gradient q of an eigenvector of the group's own information, with
    eigenvalue d, is N(0, d + d² v); so v is drawn, and then the coefficients, which are N(s q, s) with
    s = v / (1 + d v). What is averaged is s q, and its mean over v, instead of the draws, which are noisier.

    Examples
    --------
    A coefficient of 1 that is known to ± 0.03 stays, one of 0.01 known to ± 0.1 does not:

    >>> posterior_mean(np.diag([1e3, 1e2]), np.array([1e3, 1.0]), [slice(0, 1), slice(1, 2)], 0).round(2).tolist()
    [1.0, 0.0]
    """
    rng = np.random.default_rng(seed)
    parts = []
    for group in groups:
        values, vectors = np.linalg.eigh(information[group, group])
        spread = 1.0 + np.maximum(values, 0.0) * VARIANCES[:, None]
        parts.append((group, vectors, VARIANCES[:, None] / spread, np.log(spread).sum(axis=1)))
    sweeps = max(LEAST_SWEEPS, DRAWS // max(len(groups), 1))
    first = int(BURN_IN * sweeps)
    sample, total = np.zeros(len(gradient)), np.zeros(len(gradient))
    for sweep in range(sweeps):
        for group, vectors, shrunk, log_spread in parts:
            own = gradient[group] - information[group] @ sample + information[group, group] @ sample[group]
            q = vectors.T @ own
            evidence = 0.5 * (shrunk @ q**2 - log_spread)
            likely = np.exp(evidence - evidence.max())
            likely /= likely.sum()
            place = min(int(np.searchsorted(np.cumsum(likely), rng.random())), len(likely) - 1)
            s = shrunk[place]
            sample[group] = vectors @ (s * q + np.sqrt(s) * rng.standard_normal(len(q)))
            if sweep >= first:
                total[group] += vectors @ (likely @ shrunk * q)
    return np.asarray(total / (sweeps - first))
