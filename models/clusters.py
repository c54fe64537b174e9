"""Behaviour clusters: groups of customers who behave alike, as centroids in a small space of habits.

Serving needs NumPy only; `training.clusters` finds the centroids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from models.persist import UserArrays, load_arrays, load_json, save_arrays
from qianmian.workspace import write_json

CLIP = 3.0  # limit of a scaled feature: nobody is so far away that a cluster forms around one customer
NORMAL_QUARTILES = 1.349  # distance of the quartiles of a normal distribution, in standard deviations
BLOCK = 65_536  # customers whose distances are computed at a time
Values = NDArray[np.float32] | NDArray[np.float64]


@dataclass(frozen=True)
class BehaviourSpace:
    """A few features on a common scale, in which the distance of two customers says how differently they behave.

    A feature is centred at its median and divided by the distance of its quartiles, so that a few extreme customers do
    not decide the scale. It is then limited, brought to a variance of 1 and weighted, so that each block of features
    that say nearly the same counts as one. Principal components leave out what varies least.

    Attributes
    ----------
    features : tuple of str
        Names of the f features.
    logs : ndarray of bool, shape (f,)
        Features of which the logarithm of 1 + value counts.
    centre, scale, spread, mean, weights : ndarray of float64, shape (f,)
        Median, robust scale, standard deviation and mean of the limited values, and weight of each feature.
    axes : ndarray of float64, shape (f, d)
        Principal components, or the identity.
    """

    features: tuple[str, ...]
    logs: NDArray[np.bool_]
    centre: NDArray[np.float64]
    scale: NDArray[np.float64]
    spread: NDArray[np.float64]
    mean: NDArray[np.float64]
    weights: NDArray[np.float64]
    axes: NDArray[np.float64]

    @classmethod
    def learn(
        cls, values: Values, features: Sequence[str], logs: Sequence[bool], blocks: Sequence[str], components: int = 0
    ) -> Self:
        """Learn the scales, and the principal components if `components` is above 0.

        Parameters
        ----------
        values : ndarray, shape (n, f)
            Features of the customers; NaN where unknown, which counts as the median.
        features, logs, blocks : sequence of length f
            Name of each feature, whether its logarithm counts, and the block that it belongs to.
        """
        logged = _logged(values, np.asarray(logs, dtype=bool))
        low, centre, high = np.nanquantile(logged, [0.25, 0.5, 0.75], axis=0)
        scale = (high - low) / NORMAL_QUARTILES
        scale = np.where(scale > 0, scale, np.nanstd(logged, axis=0))  # half of the customers have the same value
        scale[scale == 0] = 1.0
        ones = np.ones(len(centre))
        space = cls(tuple(features), np.asarray(logs, bool), centre, scale, ones, 0 * ones, ones, np.eye(len(centre)))
        limited = space.scaled(values)
        spread = limited.std(axis=0)
        spread[spread == 0] = 1.0
        weights = np.array([1 / np.sqrt(list(blocks).count(block)) for block in blocks])
        space = cls(space.features, space.logs, centre, scale, spread, limited.mean(axis=0), weights, space.axes)
        if not 0 < components < len(centre):
            return space
        _, _, axes = np.linalg.svd(space.scaled(values) * weights, full_matrices=False)
        # the sign of a component is arbitrary: its largest weight is positive
        axes = (
            axes[:components] * np.sign(axes[np.arange(components), np.abs(axes[:components]).argmax(axis=1)])[:, None]
        )
        return cls(space.features, space.logs, centre, scale, spread, space.mean, weights, np.ascontiguousarray(axes.T))

    def scaled(self, values: Values) -> NDArray[np.float64]:
        """Each feature on the common scale, mean 0 and variance 1 over the customers that were learnt from, (n, f)."""
        z = (_logged(values, self.logs) - self.centre) / self.scale
        return np.asarray((np.nan_to_num(z, nan=0.0).clip(-CLIP, CLIP) - self.mean) / self.spread)

    def place(self, scaled: NDArray[np.float64]) -> NDArray[np.float64]:
        """Places of scaled features in the space, shape (n, d)."""
        return np.asarray((scaled * self.weights) @ self.axes)

    def __call__(self, values: Values) -> NDArray[np.float64]:
        """Places of customers in the space, shape (n, d)."""
        return self.place(self.scaled(values))


class Assigned(NamedTuple):
    """The cluster of n customers.

    Attributes
    ----------
    cluster : ndarray of int64, shape (n,)
        Row of the nearest centroid.
    typicality : ndarray of float64, shape (n,)
        1 − distance to the nearest centroid ÷ distance to the second nearest: 0 on the border of two clusters, near 1
        at the centre of one (the simplified silhouette; Hruschka, Campello & de Castro 2006).
    """

    cluster: NDArray[np.int64]
    typicality: NDArray[np.float64]


class BehaviourClusters:
    """Centroids of k-means in a `BehaviourSpace`, with the id and the names of each cluster.

    It holds nothing of a single customer: a centroid is the mean of at least 20.

    Parameters
    ----------
    space : BehaviourSpace or None
        The space of the centroids.
    centroids : ndarray of float64, shape (k, d), or None
    ids : tuple of str
        Id of each cluster (``c1``), which stays from one training to the next and is never given again.
    names, names_zh : tuple of str
        Name of each cluster in English and Chinese.
    evidence : str
        Feature that counts the evidence about a customer.
    min_evidence : float
        A customer with less of it has no cluster.
    """

    user_arrays: ClassVar[tuple[UserArrays, ...]] = ()

    def __init__(
        self,
        space: BehaviourSpace | None = None,
        centroids: NDArray[np.float64] | None = None,
        ids: tuple[str, ...] = (),
        names: tuple[str, ...] = (),
        names_zh: tuple[str, ...] = (),
        evidence: str = "orders_total",
        min_evidence: float = 3.0,
    ) -> None:
        self.space, self.centroids = space, centroids
        self.ids, self.names, self.names_zh = tuple(ids), tuple(names), tuple(names_zh)
        self.evidence, self.min_evidence = evidence, min_evidence

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the model reads: the features of the space, then the evidence."""
        assert self.space is not None
        return (*self.space.features, self.evidence)

    def get_params(self) -> dict[str, Any]:
        """Plain parameters, as they are logged."""
        assert self.space is not None
        return {
            "clusters": len(self.ids),
            "features": len(self.space.features),
            "dimensions": self.space.axes.shape[1],
            "evidence": self.evidence,
            "min_evidence": self.min_evidence,
        }

    def has_evidence(self, values: Values) -> NDArray[np.bool_]:
        """Whether there is enough evidence about each customer, shape (n,); `values` has the columns of `columns`."""
        return np.asarray(values[:, -1] >= self.min_evidence)

    def predict(self, values: Values) -> Assigned:
        """The cluster of each customer.

        Parameters
        ----------
        values : ndarray, shape (n, f + 1)
            Features in the order of `columns`.
        """
        assert self.space is not None
        assert self.centroids is not None
        cluster, typicality = np.empty(len(values), dtype=np.int64), np.empty(len(values))
        for start in range(0, len(values), BLOCK):
            part = slice(start, start + BLOCK)
            cluster[part], typicality[part] = nearest(self.space(values[part, :-1]), self.centroids)
        return Assigned(cluster, typicality)

    def save(self, folder: Path) -> None:
        """Write the space and the centroids as npz, and the names as JSON."""
        assert self.space is not None
        assert self.centroids is not None
        folder.mkdir(parents=True, exist_ok=True)
        space = {name: value for name, value in vars(self.space).items() if name != "features"}
        save_arrays(folder / "state.npz", {**space, "centroids": self.centroids})
        texts = {name: getattr(self, name) for name in ("ids", "names", "names_zh", "evidence", "min_evidence")}
        write_json(folder / "params.json", {"features": self.space.features, **texts})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a model that `save` wrote."""
        params, arrays = load_json(folder / "params.json"), load_arrays(folder / "state.npz")
        centroids = arrays.pop("centroids")
        return cls(BehaviourSpace(tuple(params.pop("features")), **arrays), centroids, **params)


def nearest(places: NDArray[np.float64], centroids: NDArray[np.float64]) -> Assigned:
    """The nearest of at least two centroids, and the typicality of each place.

    Examples
    --------
    >>> nearest(np.array([[1.0], [4.0]]), np.array([[0.0], [10.0]]))[1].round(2).tolist()
    [0.89, 0.33]
    """
    squares = (places**2).sum(axis=1)[:, None] - 2 * places @ centroids.T + (centroids**2).sum(axis=1)
    first, second = np.sqrt(np.partition(squares, 1, axis=1)[:, :2].clip(0)).T
    typicality = np.where(second > 0, 1 - first / np.where(second > 0, second, 1.0), 0.0)
    return Assigned(squares.argmin(axis=1), typicality)


def _logged(values: Values, logs: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The values as float64, the logarithm of 1 + value where `logs` is true; a negative value counts as 0 there."""
    found = np.asarray(values, dtype=np.float64).copy()
    found[:, logs] = np.log1p(found[:, logs].clip(0))
    return found
