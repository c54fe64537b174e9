"""Gamma-gamma: what an order of each customer is worth, pooled towards the mean of all customers.

The amounts of a customer's orders vary around the customer's own mean, and the means differ between customers, both
gamma distributed (Fader and Hardie 2013, The gamma-gamma model of monetary value, www.brucehardie.com/notes/025). The
more orders a customer has, the nearer the estimate is to the customer's own mean.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import gammaln

from qianmian.errors import DataError

Floats = NDArray[np.float64]
MIN_CUSTOMERS = 10  # with an amount above 0
LARGEST_LOG = 14.0  # of a parameter: one that large belongs to a likelihood without a maximum


@dataclass(frozen=True)
class GammaGamma:
    """The three parameters of the model, all positive.

    Attributes
    ----------
    p : float
        Shape of the amounts of one customer.
    q : float
        Shape of the differences between customers; above 1, or there is no mean.
    v : float
        Scale of the differences between customers, in units of money.

    Examples
    --------
    >>> cdnow = GammaGamma(6.25, 3.74, 15.44)
    >>> cdnow.expected_amount(np.array([0.0, 2.0]), np.array([0.0, 22.35])).round(2).tolist()
    [35.22, 24.66]
    """

    p: float
    q: float
    v: float

    @classmethod
    def fit(cls, orders: Floats, mean_amounts: Floats) -> GammaGamma:
        """Fit by maximum likelihood on the customers with a mean amount above 0.

        Parameters
        ----------
        orders, mean_amounts : ndarray of float64, shape (n,)
            Number of orders of each customer and their mean amount.

        Raises
        ------
        DataError
            Too few customers paid anything, or the likelihood has no maximum.
        """
        paid = (np.asarray(orders) > 0) & (np.asarray(mean_amounts) > 0)
        x, z = np.asarray(orders, dtype=np.float64)[paid], np.asarray(mean_amounts, dtype=np.float64)[paid]
        if len(x) < MIN_CUSTOMERS:
            raise DataError(
                "too few customers paid an amount above 0 to learn what an order is worth (gamma-gamma)",
                got=f"{len(x)} of {len(paid)} customers",
                allowed=f"at least {MIN_CUSTOMERS}",
                hint="check the mapping of `amount` in sources.yaml, or ingest more customers",
            )
        unit = float(z.mean())

        def loss(logs: Floats) -> float:
            return -cls(*np.exp(logs)).log_likelihood(x, z / unit) / len(x)

        found = minimize(loss, np.log([2.0, 3.0, 1.0]), method="Nelder-Mead", options={"maxiter": 600})
        found = minimize(loss, found.x, method="L-BFGS-B", options={"maxiter": 2_000, "ftol": 1e-14})
        p, q, v = np.exp(found.x).tolist()
        if not np.isfinite(found.fun) or np.abs(found.x).max() > LARGEST_LOG or q <= 1.0:
            raise DataError(
                "the likelihood of the amounts (gamma-gamma) has no maximum with a mean",
                got=f"p {p:.3g}, q {q:.3g}, v {v * unit:.3g}",
                hint="all amounts may be the same, or a few are very large; check the mapping of `amount`",
            )
        return cls(p, q, v * unit)

    def log_likelihood(self, orders: Floats, mean_amounts: Floats) -> float:
        """Logarithm of the likelihood of all customers together; amounts and orders above 0."""
        p, q, v, x, z = self.p, self.q, self.v, orders, mean_amounts
        found = gammaln(p * x + q) - gammaln(p * x) - gammaln(q) + q * np.log(v) + (p * x - 1.0) * np.log(z)
        return float((found + p * x * np.log(x) - (p * x + q) * np.log(v + x * z)).sum())

    def expected_amount(self, orders: Floats, mean_amounts: Floats) -> Floats:
        """Expected mean amount of the orders of each customer, (n,); without orders, that of all customers."""
        x, z = np.asarray(orders, dtype=np.float64), np.asarray(mean_amounts, dtype=np.float64)
        return np.asarray(self.p * (self.v + x * z) / (self.p * x + self.q - 1.0), dtype=np.float64)

    def as_dict(self) -> dict[str, float]:
        """The parameters as plain values."""
        return asdict(self)
