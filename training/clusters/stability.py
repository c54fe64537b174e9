"""Whether clusters are there: the same again on other customers, and tighter than in data without groups."""

from __future__ import annotations

from collections.abc import Sequence

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
DATA_WITHOUT_GROUPS = range(1, 11)  # numbers of the data sets without groups; 0 is that of the customers
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
        self._space, self._scaled, self._rng = space, scaled, np.random.default_rng(seed)
        self._places = [space.place(scaled)]  # of the customers, then of the data without groups that are drawn so far
        self._spreads: dict[tuple[int, int], float] = {}  # (data set, k) → logarithm of the squared distances

    def gap(self, k: int) -> Metric:
        """By how much k clusters are tighter than in data without groups: the gap statistic.

        The difference of the logarithms of the squared distances to the centroids (Tibshirani, Walther & Hastie 2001),
        with an interval of three of its standard errors; above 0 there are groups.
        """
        return self._with_errors([self._gap(data, k) for data in DATA_WITHOUT_GROUPS])

    def gain(self, k: int) -> Metric:
        """By how much the gap of k clusters is above that of k − 1, with an interval of three standard errors.

        Not above 0, the last cluster is a part of a group: cutting data without groups gains as much.
        """
        return self._with_errors([self._gain(data, k) for data in DATA_WITHOUT_GROUPS])

    def speak_for(self, k: int) -> bool:
        """Whether `gap` and `gain` are above 0 beyond their errors, at the cost of one reference where they are not.

        One value of ten is at most 9 / √10 = 2.85 standard deviations from their mean (Samuelson 1968), which is less
        than the interval: if one of them is not above 0, the interval is not either.
        """
        if any(self._gap(data, k) <= 0 or self._gain(data, k) <= 0 for data in DATA_WITHOUT_GROUPS):
            return False
        return self.gap(k).low > 0 and self.gain(k).low > 0

    def _gain(self, data: int, k: int) -> float:
        return self._gap(data, k) - self._gap(data, k - 1)

    def _gap(self, data: int, k: int) -> float:
        return self._spread(data, k) - self._spread(0, k)

    def _spread(self, data: int, k: int) -> float:
        while len(self._places) <= data:
            self._places.append(self._space.place(without_groups(self._scaled, self._rng)))
        if (data, k) not in self._spreads:
            inertia = KMeans(k, n_init=STARTS, random_state=k).fit(self._places[data]).inertia_
            self._spreads[data, k] = float(np.log(max(inertia, 1e-12)))
        return self._spreads[data, k]

    def _with_errors(self, values: Sequence[float]) -> Metric:
        mean, error = float(np.mean(values)), float(np.std(values, ddof=1) * np.sqrt(1 + 1 / len(values)))
        return Metric(mean, mean - ERRORS * error, mean + ERRORS * error, len(self._scaled))


def stability(places: Places, k: int, seed: int, pairs: int = PAIRS, disjoint: bool = False) -> Metric:
    """Mean of `pair_agreement`, with its interval over the pairs."""
    return mean_metric(pair_agreement(places, k, seed, pairs, disjoint), seed)
