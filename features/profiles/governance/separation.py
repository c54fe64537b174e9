"""Statistics of groups of customers that are seen at several moments: means, differences and lifts with intervals.

A customer who is seen at several moments, or has several rows, is one cluster: the variances are those of sums over
customers, so that repeated looks at the same customer do not count as independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.stats import norm

Z95 = float(norm.ppf(0.975))
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class GroupMeans:
    """Means of G groups.

    Attributes
    ----------
    rows, customers : ndarray of int64, shape (G,)
        Rows with a known outcome, and different customers.
    means, low, high : ndarray of float64, shape (G,)
        Means with 95 % intervals.
    centres : ndarray of float64, shape (G,)
        What differences are computed from: the means; of shares, shrunk to a half by one row on either side, so that a
        share of exactly 0 or 1 is not certain.
    covariance : ndarray of float64, shape (G, G)
        Covariance of the centres, clustered by customer.
    """

    rows: Ints
    customers: Ints
    means: Floats
    low: Floats
    high: Floats
    centres: Floats
    covariance: Floats

    def difference(self, upper: int, lower: int) -> tuple[float, float]:
        """Difference of two centres and its standard error."""
        c = self.covariance
        variance = c[upper, upper] + c[lower, lower] - 2 * c[upper, lower]
        return float(self.centres[upper] - self.centres[lower]), float(np.sqrt(max(variance, 0.0)))


def group_means(group: Ints, cluster: Ints, outcome: Floats, groups: int, share: bool = False) -> GroupMeans:
    """Means of an outcome by group.

    Parameters
    ----------
    group, cluster : ndarray of int64, shape (n,)
        Group of each row from 0 to `groups` − 1, and its customer.
    outcome : ndarray of float64, shape (n,)
        Numbers without NaN.
    groups : int
        Number of groups; a group without rows has NaN.
    share : bool
        The outcome is 0 or 1: the intervals are those of Wilson with the number of independent rows.
    """
    n = np.bincount(group, minlength=groups)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.bincount(group, outcome, minlength=groups) / n
        _, codes = np.unique(cluster, return_inverse=True)
        influence = (outcome - means[group]) / n[group]
        clusters = int(codes.max()) + 1 if len(codes) else 0
        sums = csr_array((influence, (codes, group)), shape=(clusters, groups))
        covariance = np.asarray((sums.T @ sums).todense())
        members = csr_array((np.ones(len(group)), (codes, group)), shape=(clusters, groups))
        customers = np.bincount(members.tocoo().col, minlength=groups)
        if share:
            return _shares(n, customers, means, covariance)
        few = np.sqrt(customers / np.maximum(customers - 1, 1))
        covariance = covariance * np.outer(few, few)
        half = Z95 * np.sqrt(np.diag(covariance))
    return GroupMeans(n, customers, means, means - half, means + half, means, covariance)


def _shares(n: Ints, customers: Ints, p: Floats, covariance: Floats) -> GroupMeans:
    simple = p * (1 - p) / n
    clustered = np.diag(covariance)
    effect = np.where(simple > 0, np.maximum(clustered / np.where(simple > 0, simple, 1), 1.0), 1.0)
    independent = np.maximum(n / effect, 1.0)
    centre = (p + Z95**2 / (2 * independent)) / (1 + Z95**2 / independent)
    half = Z95 / (1 + Z95**2 / independent) * np.sqrt(p * (1 - p) / independent + Z95**2 / (4 * independent**2))
    shrunk = (p * n + 1) / (n + 2)
    c = covariance.copy()
    np.fill_diagonal(c, effect * shrunk * (1 - shrunk) / (n + 2))
    return GroupMeans(n, customers, p, np.maximum(centre - half, 0), np.minimum(centre + half, 1), shrunk, c)


@dataclass(frozen=True)
class Lift:
    """Mean share of the named value in the own later rows ÷ its share among everybody.

    Attributes
    ----------
    customers, rows : int
        Customers and customer-moments with a named value and later rows.
    own, everybody : float
        The two shares.
    lift, low, high : float
        Their quotient with its 95 % interval; NaN if the value does not occur later.
    log_lift, error : float
        Logarithm of the lift and its standard error.
    """

    customers: int
    rows: int
    own: float
    everybody: float
    lift: float
    low: float
    high: float
    log_lift: float
    error: float


class Shares:
    """Shares of values in the later rows of each customer at several moments, and the value that a tag named.

    Every customer weighs the same, in the own share and in that among everybody, so that a tag without information has
    a lift of 1.
    """

    def __init__(self) -> None:
        self._own: list[Floats] = []  # share of the named value in the own rows
        self._expected: list[Floats] = []  # its share among everybody
        self._named: list[NDArray[np.object_]] = []
        self._cluster: list[Ints] = []
        self._moments: list[tuple[csr_array, Floats, Ints, Ints]] = []

    def add(
        self, cluster: Ints, named: Ints, names: Sequence[object], rows: Ints, values: Ints, counts: Floats
    ) -> None:
        """Add one moment.

        Parameters
        ----------
        cluster : ndarray of int64, shape (n,)
            Customer of each row of the tag.
        named : ndarray of int64, shape (n,)
            Number of the named value, −1 if it is unknown.
        names : sequence of length V
            The values.
        rows, values, counts : ndarray, shape (m,)
            Row of the customer, number of the value and number of later rows.
        """
        S = csr_array((counts, (rows, values)), shape=(len(cluster), len(names)), dtype=np.float64)
        totals = S.sum(axis=1)
        present = np.flatnonzero(totals > 0)
        if not len(present):
            return
        S = csr_array(S[present].multiply(1 / totals[present][:, None]))
        everybody = np.asarray(S.mean(axis=0)).ravel()
        chosen = named[present]
        known = chosen >= 0
        own = np.asarray(S[np.flatnonzero(known), chosen[known]]).ravel()
        self._own.append(own)
        self._expected.append(everybody[chosen[known]])
        self._named.append(np.asarray(names, dtype=object)[chosen[known]])
        self._cluster.append(cluster[present][known])
        self._moments.append((S, everybody, cluster[present], chosen))

    @property
    def named(self) -> NDArray[np.object_]:
        """The named value of each row with a known outcome."""
        return np.concatenate(self._named) if self._named else np.empty(0, dtype=object)

    def lift(self, value: object = None) -> Lift:
        """The lift of one named value, or of all together (None)."""
        keep = [np.ones(len(named), bool) if value is None else named == value for named in self._named]
        own = np.concatenate([o[k] for o, k in zip(self._own, keep, strict=True)] or [np.empty(0)])
        expected = np.concatenate([e[k] for e, k in zip(self._expected, keep, strict=True)] or [np.empty(0)])
        clusters = np.concatenate([c[k] for c, k in zip(self._cluster, keep, strict=True)] or [np.empty(0, np.int64)])
        customers = len(np.unique(clusters))
        a, b = float(own.sum()), float(expected.sum())
        if not len(own) or a <= 0 or b <= 0:
            share, base = (a / len(own), b / len(own)) if len(own) else (np.nan, np.nan)
            return Lift(customers, len(own), share, base, share / base if base else np.nan, *[np.nan] * 4)
        influence, index = [], []
        for moment, (S, everybody, everyone, chosen) in enumerate(self._moments):
            k = keep[moment]
            influence.append(self._own[moment][k] / a - self._expected[moment][k] / b)
            index.append(self._cluster[moment][k])
            # the shares among everybody are estimated from the same customers
            times = np.bincount(chosen[chosen >= 0][k], minlength=S.shape[1]).astype(np.float64)
            influence.append(-(S @ times - float(everybody @ times)) / (S.shape[0] * b))
            index.append(everyone)
        _, codes = np.unique(np.concatenate(index), return_inverse=True)
        sums = np.bincount(codes, np.concatenate(influence))
        error = float(np.sqrt((sums**2).sum() * len(sums) / max(len(sums) - 1, 1)))
        log_lift = float(np.log(a / b))
        return Lift(
            customers,
            len(own),
            a / len(own),
            b / len(own),
            a / b,
            float(np.exp(log_lift - Z95 * error)),
            float(np.exp(log_lift + Z95 * error)),
            log_lift,
            error,
        )


def one_sided(estimate: float, error: float) -> float:
    """p value of the hypothesis that the estimate is at most 0; 1 without an error of the estimate."""
    return float(norm.sf(estimate / error)) if error > 0 and np.isfinite(estimate) else 1.0


def holm(p: Sequence[float]) -> list[float]:
    """p values adjusted for their number by the method of Holm.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, least = [0.0] * len(p), 0.0
    for place, number in enumerate(sorted(range(len(p)), key=lambda number: p[number])):
        least = max(least, min((len(p) - place) * p[number], 1.0))
        adjusted[number] = least
    return adjusted
