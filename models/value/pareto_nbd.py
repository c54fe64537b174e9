"""Pareto/NBD: the older sibling of BG/NBD, in which customers may leave at any time.

A customer orders at random at a gamma distributed rate, until the end of a lifetime that is exponential with a gamma
distributed rate (Schmittlein, Morrison and Colombo 1987; the formulas are those of Fader and Hardie 2005, A note on
deriving the Pareto/NBD model). x, t_x and T are as in `models.value.bgnbd`; everything is computed in logarithms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import gammaln, hyp2f1

from qianmian.errors import DataError

Floats = NDArray[np.float64]
LARGEST_LOG = 12.0


@dataclass(frozen=True)
class ParetoNBD:
    """The four parameters of the model, all positive.

    Attributes
    ----------
    r, alpha : float
        Shape and rate of the gamma distribution of the order rate.
    s, beta : float
        Shape and rate of the gamma distribution of the rate of leaving.

    Examples
    --------
    >>> cdnow = ParetoNBD(0.553, 10.578, 0.606, 11.669)  # weeks
    >>> cdnow.expected_orders(52.0, np.array([26.0]), np.array([30.86]), np.array([31.0])).round(2).tolist()
    [25.46]
    """

    r: float
    alpha: float
    s: float
    beta: float

    @classmethod
    def fit(cls, x: Floats, t_x: Floats, T: Floats) -> ParetoNBD:
        """Fit by maximum likelihood.

        Raises
        ------
        DataError
            The likelihood has no maximum.
        """
        unit = float(np.mean(T))

        def loss(logs: Floats) -> float:
            return -cls(*np.exp(logs)).log_likelihood(x, t_x / unit, T / unit) / len(x)

        found = minimize(loss, np.zeros(4), method="Nelder-Mead", options={"maxiter": 2_000, "fatol": 1e-10})
        if not found.success or not np.isfinite(found.fun) or np.abs(found.x).max() > LARGEST_LOG:
            raise DataError(
                "the likelihood of the order counts (Pareto/NBD) has no maximum", got=np.exp(found.x).tolist()
            )
        r, alpha, s, beta = np.exp(found.x).tolist()
        return cls(r, alpha * unit, s, beta * unit)

    def log_likelihood(self, x: Floats, t_x: Floats, T: Floats) -> float:
        """Logarithm of the likelihood of all customers together."""
        common = gammaln(self.r + x) - gammaln(self.r) + self.r * np.log(self.alpha) + self.s * np.log(self.beta)
        return float((common + np.logaddexp(self._log_stayed(x, T), self._log_left(x, t_x, T))).sum())

    def _log_stayed(self, x: Floats, T: Floats) -> Floats:
        return np.asarray(-(self.r + x) * np.log(self.alpha + T) - self.s * np.log(self.beta + T))

    def _log_left(self, x: Floats, t_x: Floats, T: Floats) -> Floats:
        """Logarithm of the part of the likelihood in which the customer left between t_x and T, (n,)."""
        n = self.r + self.s + x
        larger, second = max(self.alpha, self.beta), self.s + 1.0 if self.alpha >= self.beta else self.r + x
        distance = abs(self.alpha - self.beta)

        def log_term(t: Floats) -> Floats:
            return np.asarray(np.log(hyp2f1(n, second, n + 1.0, distance / (larger + t))) - n * np.log(larger + t))

        at_last, now = log_term(t_x), log_term(T)
        with np.errstate(divide="ignore"):  # nobody has left where the last order is now
            difference = np.log(-np.expm1(np.minimum(now - at_last, 0.0)))
        return np.asarray(np.log(self.s / n) + at_last + difference)

    def probability_alive(self, x: Floats, t_x: Floats, T: Floats) -> Floats:
        """Probability that each customer has not left, (n,)."""
        stayed, left = self._log_stayed(x, T), self._log_left(x, t_x, T)
        return np.asarray(np.exp(stayed - np.logaddexp(stayed, left)))

    def expected_orders(self, t: float, x: Floats, t_x: Floats, T: Floats) -> Floats:
        """Expected orders of each customer in the next `t`, (n,)."""
        rate = (self.r + x) * (self.beta + T) / ((self.alpha + T) * (self.s - 1.0))
        return (
            rate
            * -np.expm1((self.s - 1.0) * np.log((self.beta + T) / (self.beta + T + t)))
            * self.probability_alive(x, t_x, T)
        )
