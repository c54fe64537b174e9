"""BG/NBD: how many orders a customer will place, from the number of repeat orders and the time of the last one.

A customer orders at random at a rate λ that differs between customers (gamma distributed), and after each order leaves
for good with a probability p that differs too (beta distributed) (Fader, Hardie and Lee 2005, "Counting your customers"
the easy way, Marketing Science 24). Everything is computed in logarithms, so that long histories do not underflow.

Each customer is described by x, the number of repeat orders; t_x, the time from the first order to the last one; and T,
the time from the first order to now. All times have the same unit, which is that of 1/λ.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import betaln, expit, gammaln, log_expit, polygamma

from qianmian.errors import DataError

Floats = NDArray[np.float64]
MIN_REPEAT_BUYERS = 10  # customers who came back; of fewer, four numbers cannot be learnt
LARGEST_LOG = 12.0  # of a parameter, when times are divided by their mean
LARGEST_SHAPE = 150.0  # of r and a: customers who differ less than that are the same, and the formulas overflow soon
NOBODY_LEAVES = 1e-3  # mean probability of leaving after an order
MAX_ITERATIONS = 1_000
BLOCK = 10_000  # customers whose nodes are in memory together: 5 MB an array
NODES = np.linspace(-5.0, 5.0, 61)  # of the numerical mean over p
SMALLEST = 1e-300


@dataclass(frozen=True)
class BGNBD:
    """The four parameters of the model, all positive.

    Attributes
    ----------
    r, alpha : float
        Shape and rate of the gamma distribution of the order rate; `alpha` is a time.
    a, b : float
        Parameters of the beta distribution of the probability of leaving after an order.

    Examples
    --------
    >>> cdnow = BGNBD(0.243, 4.414, 0.793, 2.426)  # weeks
    >>> cdnow.expected_orders(39.0, np.array([2.0]), np.array([30.43]), np.array([38.86])).round(3).tolist()
    [1.226]
    """

    r: float
    alpha: float
    a: float
    b: float

    @classmethod
    def fit(cls, x: Floats, t_x: Floats, T: Floats) -> BGNBD:
        """Fit by maximum likelihood.

        Parameters
        ----------
        x, t_x, T : ndarray of float64, shape (n,)
            Repeat orders, time of the last order and time observed of each customer.

        Raises
        ------
        DataError
            Fewer than `MIN_REPEAT_BUYERS` customers came back, no time passed, or the likelihood has no maximum.
        """
        x, t_x, T = (np.asarray(values, dtype=np.float64) for values in (x, t_x, T))
        returned = int(((x > 0) & (t_x > 0)).sum())
        if returned < MIN_REPEAT_BUYERS:
            raise DataError(
                "too few customers came back to learn how often customers order (BG/NBD)",
                got=f"{returned} of {len(x)} customers ordered again at a later time",
                allowed=f"at least {MIN_REPEAT_BUYERS}",
                hint="ingest a longer history or more customers",
            )
        unit = float(T.mean())  # so that all four parameters are near 1

        def loss(logs: Floats) -> float:
            return -cls(*np.exp(logs)).log_likelihood(x, t_x / unit, T / unit) / len(x)

        shape = (-LARGEST_LOG, float(np.log(LARGEST_SHAPE)))
        bounds = [shape, (-LARGEST_LOG, LARGEST_LOG), shape, (-LARGEST_LOG, LARGEST_LOG)]
        found = minimize(
            loss,
            np.log([1.0, 0.5, 1.0, 2.0]),
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": MAX_ITERATIONS, "maxfun": 10 * MAX_ITERATIONS, "ftol": 1e-14, "gtol": 1e-7},
        )
        if not np.isfinite(found.fun) or found.nit >= MAX_ITERATIONS:
            values = zip(("r", "α", "a", "b"), np.exp(found.x).tolist(), strict=True)
            raise DataError(
                "the fit of the order counts (BG/NBD) did not converge",
                got=", ".join(f"{name} {value:.3g}" for name, value in values),
                hint="ingest a longer history or more customers",
            )
        r, alpha, a, b = np.exp(found.x).tolist()
        return cls(r, alpha * unit, a, b)

    def notes(self) -> tuple[str, ...]:
        """What the customers do not show: parameters at their bound, where the likelihood still rises."""
        found = []
        if self.r > 0.99 * LARGEST_SHAPE:
            found.append("BG/NBD: the customers do not differ in how often they order")
        if self.a > 0.99 * LARGEST_SHAPE:
            found.append("BG/NBD: the customers do not differ in how likely they leave after an order")
        if self.a / (self.a + self.b) < NOBODY_LEAVES:
            found.append("BG/NBD: hardly any customer has left for good so far, so nobody is expected to leave")
        return tuple(found)

    def log_likelihood(self, x: Floats, t_x: Floats, T: Floats) -> float:
        """Logarithm of the likelihood of all customers together."""
        r, alpha, a, b = self.r, self.alpha, self.a, self.b
        common = gammaln(r + x) - gammaln(r) + r * np.log(alpha) + betaln(a, b + x) - betaln(a, b)
        stayed = -(r + x) * np.log(alpha + T)
        return float((common + np.logaddexp(stayed, self._log_left(x, t_x))).sum())

    def _log_left(self, x: Floats, t_x: Floats) -> Floats:
        """Logarithm of the part of the likelihood in which the customer left after the last order, (n,)."""
        repeated = np.maximum(x, 1.0)
        left = np.log(self.a) - np.log(self.b + repeated - 1.0) - (self.r + x) * np.log(self.alpha + t_x)
        return np.where(x > 0, left, -np.inf)  # the model lets nobody leave before the first repeat order

    def probability_alive(self, x: Floats, t_x: Floats, T: Floats) -> Floats:
        """Probability that each customer has not left, (n,)."""
        stayed = -(self.r + x) * np.log(self.alpha + T)
        return np.asarray(expit(stayed - self._log_left(x, t_x)), dtype=np.float64)

    def expected_orders(self, t: float, x: Floats, t_x: Floats, T: Floats) -> Floats:
        """Expected orders of each customer in the next `t`, (n,)."""
        return self.probability_alive(x, t_x, T) * _expected_orders(t, self.r + x, self.alpha + T, self.a, self.b + x)

    def expected_orders_of_new(self, t: float) -> float:
        """Expected repeat orders in the time `t` after the first order."""
        return float(_expected_orders(t, self.r, self.alpha, self.a, self.b))

    def probability_of_orders(self, n: int, t: float, x: Floats, t_x: Floats, T: Floats) -> Floats:
        """Probability of exactly `n` orders of each customer in the next `t`, (n,)."""
        alive = self.probability_alive(x, t_x, T)
        found = alive * _count_probability(n, t, self.r + x, self.alpha + T, self.a, self.b + x)
        return found + (1.0 - alive) if n == 0 else found

    def probability_of_orders_of_new(self, n: int, t: float) -> float:
        """Probability of exactly `n` repeat orders in the time `t` after the first order."""
        return float(_count_probability(n, t, self.r, self.alpha, self.a, self.b))

    def as_dict(self) -> dict[str, float]:
        """The parameters as plain values."""
        return asdict(self)


def _expected_orders(t: float, r: Any, alpha: Any, a: Any, b: Any) -> Floats:
    """Expected orders in `t` of customers who have not left, (n,).

    For a given p it is (1 − (1 + pt/α)^−r) ÷ p, whose mean over p is taken numerically. The hypergeometric function of
    the paper is the same and overflows for many orders or large parameters.
    """
    parameters = np.broadcast_arrays(*(np.asarray(value, dtype=np.float64) for value in (r, alpha, a, b)))
    if parameters[0].ndim and len(parameters[0]) > BLOCK:
        starts = range(0, len(parameters[0]), BLOCK)
        return np.concatenate([_expected_orders(t, *(one[i : i + BLOCK] for one in parameters)) for i in starts])
    r, alpha, a, b = (one[..., None] for one in parameters)
    # the log-odds of p have exponential tails with the rates a and b: the nodes lie further apart further out
    width = np.sqrt(polygamma(1, a) + polygamma(1, b)) / 2.0
    log_odds = np.log(a / b) + width * np.sinh(NODES)
    log_weights = a * log_expit(log_odds) + b * log_expit(-log_odds) + np.log(np.cosh(NODES))
    weights = np.exp(log_weights - log_weights.max(axis=-1, keepdims=True))
    p = np.maximum(expit(log_odds), SMALLEST)
    orders = -np.expm1(-r * np.log1p(p * t / alpha)) / p
    return np.asarray((weights * orders).sum(axis=-1) / weights.sum(axis=-1), dtype=np.float64)


def _count_probability(n: int, t: float, r: Any, alpha: Any, a: float, b: Any) -> Floats:
    """Probability of `n` orders in `t` of customers who have not left (equation 8 of the paper)."""
    log_p, log_q = np.log(t / (alpha + t)), np.log(alpha / (alpha + t))

    def stays(j: Any) -> Any:  # of a customer who never leaves: a negative binomial distribution
        return np.exp(gammaln(r + j) - gammaln(r) - gammaln(j + 1.0) + r * log_q + j * log_p)

    found = np.exp(betaln(a, b + n) - betaln(a, b)) * stays(n)
    if n > 0:
        beyond = 1.0 - sum(stays(j) for j in range(n))
        found = found + np.exp(betaln(a + 1.0, b + n - 1.0) - betaln(a, b)) * np.maximum(beyond, 0.0)
    return np.asarray(found, dtype=np.float64)
