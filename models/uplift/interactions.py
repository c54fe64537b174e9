"""`InteractionRegression`: a regression whose interactions with the treatment are shrunk as far as the data say."""

from __future__ import annotations

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
VARIANCES = np.concatenate([[0.0], 10.0 ** np.arange(-6.0, 1.25, 0.25)])  # of the standardised interactions, tried
STEPS = 2  # of Newton's method, from a fit without interactions
LEAST_WEIGHT = 1e-6  # p (1 − p) of a row


class InteractionRegression:
    """A logistic or linear regression on columns x, the treatment t, and the products of both.

    η(x, t) = α + β x + (t − share) (γ + δ x). The interactions δ are what tells customers apart, and most of what an
    unpenalised fit finds in them is noise. They have a normal prior N(0, v), with the variance v that makes the data
    most likely (empirical Bayes; MacKay 1992). At v = 0 all customers have the same effect on η: for a yes or no the
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
        cls, encoding: ColumnEncoding, X: Matrix, treated: NDArray[np.bool_], outcome: Floats, *, is_binary: bool
    ) -> Self:
        """Fit to outcomes, which are 0 or 1 if `is_binary`."""
        columns = encoding.linear_columns(X)
        mean, spread = columns.mean(axis=0), columns.std(axis=0)
        scale = np.where(spread > 0, spread, 1.0)
        share = float(treated.mean())
        with one_blas_thread():
            main, interactions = _fit(
                (columns - mean) / scale, treated.astype(np.float64) - share, outcome, is_binary=is_binary
            )
        return cls(encoding, mean, scale, main, interactions, share, is_binary)

    def predict(self, X: Matrix, treatment: float | None = None) -> Floats:
        """Return the expected outcome of each row at a treatment of 0 or 1, by default the share of the treated, (n,).

        The mean over treatments and the value at their mean differ little; uplift is a difference of two treatments.
        """
        standard = (self.encoding.linear_columns(X) - self.mean) / self.scale
        treatment_centred = 0.0 if treatment is None else treatment - self.share
        intercept, slopes, effect = self.main[0], self.main[1:-1], self.main[-1]
        linear = intercept + standard @ slopes + treatment_centred * (effect + standard @ self.interactions)
        return np.asarray(expit(linear) if self.is_logistic else linear)

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


def _fit(standard: Floats, treatment: Floats, outcome: Floats, *, is_binary: bool) -> tuple[Floats, Floats]:
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
        return _step(A, D, np.full(len(outcome), 1.0 / noise), outcome, penalty / noise)
    found = LogisticRegression(C=1.0 / PENALTY, max_iter=500).fit(A[:, 1:], outcome)
    main = np.append(found.intercept_, found.coef_[0]).astype(np.float64)
    for _ in range(STEPS):
        linear = A @ main + D @ interactions
        p = expit(linear)
        weights = np.maximum(p * (1.0 - p), LEAST_WEIGHT)
        main, interactions = _step(A, D, weights, linear + (outcome - p) / weights, penalty)
    return main, interactions


def _step(A: Floats, D: Floats, weights: Floats, target: Floats, penalty: Floats) -> tuple[Floats, Floats]:
    """Weighted least squares of `target` on A and D, with the prior of the coefficients of D by empirical Bayes.

    With A projected out, the gradient r of each eigenvector of the information matrix of D, with eigenvalue d, is
    N(0, d + d² v) for interactions of variance v, and its coefficient is r v / (1 + d v).
    """
    weighted = A * weights[:, None]
    inner = np.asarray(A.T @ weighted + penalty)
    cross = weighted.T @ D
    solved = np.linalg.solve(inner, cross)
    information = (D * weights[:, None]).T @ D - cross.T @ solved
    gradient = D.T @ (weights * target) - solved.T @ (weighted.T @ target)
    values, vectors = np.linalg.eigh(information)
    kept = values > 1e-8 * max(float(values[-1]), 1e-12)
    d, r = values[kept], (vectors.T @ gradient)[kept]
    spread = d[None, :] + d[None, :] ** 2 * VARIANCES[:, None]
    evidence = -0.5 * (np.log(spread) + r**2 / spread).sum(axis=1)
    variance = VARIANCES[int(np.argmax(evidence))]
    interactions = vectors[:, kept] @ (r * variance / (1.0 + d * variance))
    return np.linalg.solve(inner, weighted.T @ (target - D @ interactions)), np.asarray(interactions)
