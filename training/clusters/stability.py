"""Whether clusters are there: the same again on other customers, and tighter than in data without groups."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from models.clusters import BehaviourSpace, nearest
from training.bootstrap import mean_metric
from training.report import Metric

Places = NDArray[np.float64]
Labels = NDArray[np.int64]
PAIRS = 20  # pairs of resamples
SHARE = 0.8  # of the customers in a resample
STARTS = 3  # of k-means in a resample
FINAL_STARTS = 10  # of the clustering that ships
REFERENCES = 10  # data sets without groups
ERRORS = 3.0  # standard errors by which clusters must be tighter than without groups


def k_means(places: Places, k: int, seed: int, starts: int = FINAL_STARTS) -> NDArray[np.float64]:
    """Centroids of k-means++ (Arthur & Vassilvitskii 2007) in the order of their first coordinate, shape (k, d)."""
    found = KMeans(k, n_init=starts, random_state=seed).fit(places).cluster_centers_
    return np.asarray(found[np.lexsort(found.T[::-1])], dtype=np.float64)


def labels_of(places: Places, centroids: NDArray[np.float64]) -> Labels:
    """The nearest centroid of each place, shape (n,)."""
    return nearest(places, centroids).cluster


def pair_agreement(
    places: Places, k: int, seed: int, pairs: int = PAIRS, disjoint: bool = False
) -> NDArray[np.float64]:
    """Agreement of two clusterings that were made of two resamples, for each of several pairs, shape (pairs,).

    Each resample has 80 % of the customers, is clustered, and assigns all customers; the agreement is the adjusted Rand
    index (Hubert & Arabie 1985): 1 for the same groups, 0 for chance. This is the stability of Ben-Hur, Elisseeff &
    Guyon (2002).

    Parameters
    ----------
    disjoint : bool
        Two halves without a common customer in place of two resamples.
    """
    rng, n = np.random.default_rng(seed), len(places)
    found = np.empty(pairs)
    for pair in range(pairs):
        order = rng.permutation(n)
        halves = (order[: n // 2], order[n // 2 :])
        parts = halves if disjoint else [rng.choice(n, int(SHARE * n), replace=False) for _ in range(2)]
        seeds = rng.integers(0, 2**31, 2).tolist()
        one, other = (
            labels_of(places, k_means(places[part], k, start, STARTS)) for part, start in zip(parts, seeds, strict=True)
        )
        found[pair] = adjusted_rand_score(one, other)
    return found


def without_groups(scaled: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Data that could be of the same customers if there were no groups, shape (n, f).

    Each feature has the same values, and the features have the rank correlations of the data (a Gaussian copula); any
    other dependence between them, such as groups make, is gone. A uniform or a normal reference would call every skewed
    or correlated feature a group.
    """
    n, features = scaled.shape
    normal = ndtri((rankdata(scaled, axis=0) - 0.5) / n)
    correlation = np.atleast_2d(np.corrcoef(normal, rowvar=False))
    normals = rng.multivariate_normal(np.zeros(features), correlation, n, method="eigh")
    places = np.argsort(np.argsort(normals, axis=0), axis=0)
    return np.asarray(np.take_along_axis(np.sort(scaled, axis=0), places, axis=0))


class References:
    """How tight clusters are, beside those of data without groups, which are drawn once for a space.

    Parameters
    ----------
    space : BehaviourSpace
    scaled : ndarray of float64, shape (n, f)
        Scaled features of the customers.
    seed : int
    """

    def __init__(self, space: BehaviourSpace, scaled: NDArray[np.float64], seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._places = [space.place(scaled), *(space.place(without_groups(scaled, rng)) for _ in range(REFERENCES))]
        self._gaps: dict[int, NDArray[np.float64]] = {}

    def gap(self, k: int) -> Metric:
        """By how much k clusters are tighter than in data without groups: the gap statistic.

        The difference of the logarithms of the squared distances to the centroids (Tibshirani, Walther & Hastie 2001),
        with an interval of three of its standard errors; above 0 there are groups.
        """
        return self._with_errors(self._gap(k))

    def gain(self, k: int) -> Metric:
        """By how much the gap of k clusters is above that of k − 1, with an interval of three standard errors.

        Not above 0, the last cluster is a part of a group: cutting data without groups gains as much.
        """
        return self._with_errors(self._gap(k) - self._gap(k - 1))

    def _gap(self, k: int) -> NDArray[np.float64]:
        """The gap against each reference."""
        if k not in self._gaps:
            spread = [KMeans(k, n_init=STARTS, random_state=k).fit(places).inertia_ for places in self._places]
            logs = np.log(np.maximum(spread, 1e-12))
            self._gaps[k] = logs[1:] - logs[0]
        return self._gaps[k]

    def _with_errors(self, gaps: NDArray[np.float64]) -> Metric:
        gap, error = float(gaps.mean()), float(gaps.std(ddof=1) * np.sqrt(1 + 1 / len(gaps)))
        return Metric(gap, gap - ERRORS * error, gap + ERRORS * error, len(self._places[0]))


def stability(places: Places, k: int, seed: int, pairs: int = PAIRS, disjoint: bool = False) -> Metric:
    """Mean of `pair_agreement`, with its interval over the pairs."""
    return mean_metric(pair_agreement(places, k, seed, pairs, disjoint), seed)
