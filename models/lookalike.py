"""Lookalike: a closed-form positive-unlabelled classifier over profile, items and categories, and its evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import rankdata
from sklearn.decomposition import TruncatedSVD

from models.parallel import one_blas_thread
from models.persist import UserArrays, load_arrays, load_json, save_arrays
from models.user_arrays import UserRows
from qianmian.errors import InvalidRequest
from qianmian.interruption import checkpoint
from qianmian.workspace import write_json

BLOCK = 65_536  # customers whose scores are computed between two checkpoints
SHRINKAGE, SHRINKAGE_OF_ONE = 10.0, 500.0  # variance added to each direction: always, and divided by the seeds
MIN_CATEGORY_SHARE = 0.02  # of the customers, who bought a category
REACH_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
Z_95 = 1.959964
RowIndices = NDArray[np.integer[Any]]
Estimate = tuple[float, float, float]  # mean, 2.5 % quantile, 97.5 % quantile


@dataclass(frozen=True)
class SeedEvaluation:
    """Evaluation on repeated splits that hide half of the seed; an `Estimate` is over the splits.

    Attributes
    ----------
    auc : Estimate
        ROC AUC of hidden seeds against customers outside the seed; .5 is chance. It measures how separable the seed is.
    chance_auc : float
        The AUC that 97.5 % of seeds of this size stay below if they are drawn at random (Mann & Whitney 1947).
    recall_at_size, lift_at_size : Estimate
        Recall and lift of hidden seeds in a list of the requested size.
    reach : list of dict
        Share of hidden seeds `found`, with `low`, `high` and `lift`, among the best 1, 2, 5, 10, 20, 50 % of customers.
    splits : int
        Number of splits.
    """

    auc: Estimate
    chance_auc: float
    recall_at_size: Estimate
    lift_at_size: Estimate
    reach: list[dict[str, float]]
    splits: int

    @property
    def separable(self) -> bool:
        """Whether hidden seeds are recognised better than those of a random seed would be."""
        return self.auc[0] > self.chance_auc


class LookalikeExpander:
    """Fisher's discriminant of seeds against all customers, shrunk the more, the fewer seeds there are.

    The customers are unlabelled: some of them are what the seed is. With the squared loss, the unbiased risk of such
    positive-unlabelled data (du Plessis, Niu, Sugiyama 2015) has a minimum in closed form, whose direction does not
    depend on their share: ``w = (Σ + λ I)⁻¹ (mean of the seeds − mean of all)``, where Σ is the covariance of all
    customers. It is Fisher's discriminant with a ridge (Friedman 1989), ``λ = 10 + 500 / number of seeds``. Σ is
    decomposed at training, so that a seed costs one product of the customers with a vector.

    The columns are the ranks of the numeric profile, and two truncated SVDs: of customers × items and of customers ×
    categories (log counts).

    Parameters
    ----------
    factors, category_factors : int
        Number of dimensions of the items and of the categories; 0 does without.
    seed : int
        Seed of the SVDs and of the splits of `evidence`.
    """

    # models of earlier versions have an embedding of their own, which is not read any more
    user_arrays: ClassVar[tuple[UserArrays, ...]] = (UserRows("space"), UserRows("embedding"))

    def __init__(self, factors: int = 32, category_factors: int = 64, seed: int = 0) -> None:
        self.factors, self.category_factors, self.seed = factors, category_factors, seed

    def get_params(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {"factors": self.factors, "category_factors": self.category_factors, "seed": self.seed}

    def fit(
        self,
        profile: NDArray[np.float32],
        interactions: sparse.csr_matrix | None = None,
        categories: sparse.csr_matrix | None = None,
    ) -> Self:
        """Compute the feature space of the customers and its covariance.

        Parameters
        ----------
        profile : ndarray of float32, (n, f)
            Numeric features, of which only the ranks count.
        interactions, categories : csr_matrix, (n, n_items) and (n, n_categories), optional
            Purchase counts.
        """
        blocks = [_standard_ranks(profile)]
        if interactions is not None:
            blocks.append(_item_factors(interactions, self.factors, self.seed))
        if categories is not None:
            blocks.append(_category_factors(categories, self.category_factors, self.seed))
        return self.use_space(np.hstack(blocks).astype(np.float32))

    def use_space(self, space: NDArray[np.float32]) -> Self:
        """Take columns, (n, d), in place of those that `fit` makes, and compute their covariance."""
        n, columns = space.shape
        self.space_, self.mean_ = space, space.mean(axis=0, dtype=np.float64)
        covariance = np.zeros((columns, columns))
        for start in range(0, n, BLOCK):
            centred = space[start : start + BLOCK] - self.mean_
            covariance += centred.T @ centred
        self.eigenvalues_, self.directions_ = np.linalg.eigh(covariance / max(n, 1))
        return self

    @property
    def tells_apart(self) -> bool:
        """Whether the customers differ in any column."""
        return bool(self.eigenvalues_.max(initial=0.0) > 1e-9)

    def seed_weights(self, seeds: RowIndices) -> NDArray[np.float64]:
        """Return the weight of each column that tells the seed rows from all customers, (d,)."""
        unique = np.unique(seeds)
        difference = self.space_[unique].mean(axis=0, dtype=np.float64) - self.mean_
        spread = self.eigenvalues_ + SHRINKAGE + SHRINKAGE_OF_ONE / len(unique)
        return np.asarray(self.directions_ @ (self.directions_.T @ difference / spread))

    def score(self, seeds: RowIndices) -> NDArray[np.float32]:
        """Return the similarity of every customer to the seed rows, (n,); it has no unit."""
        return self.scores([seeds])[:, 0]

    def scores(self, seeds: Sequence[RowIndices]) -> NDArray[np.float32]:
        """Return the similarity of every customer to each of several seeds, (n, number of seeds), in one pass."""
        weights = np.column_stack([self.seed_weights(rows) for rows in seeds]).astype(np.float32)
        result = np.empty((len(self.space_), len(seeds)), dtype=np.float32)
        with one_blas_thread():  # the product waits for memory, not for cores
            for start in range(0, len(result), BLOCK):
                checkpoint()
                np.matmul(self.space_[start : start + BLOCK], weights, out=result[start : start + BLOCK])
        return result

    def expand(
        self, seeds: RowIndices, size: int, *, exclude: RowIndices | None = None
    ) -> tuple[RowIndices, NDArray[np.float64]]:
        """Find the `size` customers most similar to the seeds, without the seeds and `exclude`.

        Parameters
        ----------
        seeds : int array
            Rows of the seed customers.
        size : int
            Length of the list, ≥ 1.
        exclude : int array, optional
            Rows of customers to leave out.

        Returns
        -------
        rows : ndarray of int64, (≤ size,)
            Customers, best first.
        scores : ndarray of float64, (≤ size,)
            Share of all customers who are not more similar to the seed, in (0, 1].

        Raises
        ------
        InvalidRequest
            The seed is empty, the size is below 1, or a row is outside the customers of the fit.
        """
        n = len(self.space_)
        if not len(seeds):
            raise InvalidRequest("the seed is empty", field="seed_user_ids")
        if size < 1:
            raise InvalidRequest("size must be at least 1", got=size, field="size")
        for name, rows in (("seed_user_ids", seeds), ("exclude", exclude)):
            if rows is not None and len(rows) and (rows.min() < 0 or rows.max() >= n):
                raise InvalidRequest("a row is outside the customers of the model", allowed=f"0..{n - 1}", field=name)
        left_out = np.zeros(n, dtype=bool)
        left_out[seeds] = True
        if exclude is not None:
            left_out[exclude] = True
        ranked = _top_k(self.score(seeds), min(size + int(left_out.sum()), n))
        places = np.flatnonzero(~left_out[ranked])[:size]
        return ranked[places], 1.0 - places / n

    def evidence(self, seeds: RowIndices, size: int, splits: int = 5) -> SeedEvaluation:
        """Evaluate how well one half of the seed finds the other, hidden half, over `splits` random splits."""
        rng = np.random.default_rng(self.seed)
        unique = np.unique(seeds)
        middle = (len(unique) + 1) // 2
        shuffled = [rng.permutation(unique) for _ in range(splits)]
        scores = self.scores([rows[:middle] for rows in shuffled])
        n = len(scores) - middle  # customers among whom the hidden ones are searched
        hidden = max(1, len(unique) - middle)
        at = min(size, n)
        lengths = np.append(np.maximum(1, np.ceil(np.multiply(REACH_SHARES, n))), at)
        aucs, found = np.full(splits, 0.5), np.zeros((splits, len(lengths)))
        for split, rows in enumerate(shuffled):
            checkpoint()
            others = np.ones(len(scores), dtype=bool)
            others[rows[:middle]] = False
            ranks = _middle_ranks(scores[others, split], scores[rows[middle:], split])
            if 0 < len(ranks) < n:
                aucs[split] = (ranks.sum() - hidden * (hidden + 1) / 2) / (hidden * (n - hidden))
            found[split] = (n + 1 - ranks[:, None] <= lengths).sum(axis=0) / hidden
        reach = [
            {"share": share, "found": value, "low": low, "high": high, "lift": value * n / length}
            for share, length, (value, low, high) in zip(
                REACH_SHARES, lengths, (_estimate(column) for column in found.T), strict=False
            )
        ]
        deviation = np.sqrt((n + 1) / (12 * hidden * max(1, n - hidden)))  # of the AUC, where the ranks are random
        recall = _estimate(found[:, -1])
        lift = (recall[0] * n / at, recall[1] * n / at, recall[2] * n / at)
        return SeedEvaluation(_estimate(aucs), float(0.5 + Z_95 * deviation), recall, lift, reach, splits)

    def save(self, folder: Path) -> None:
        """Write the feature space and its covariance as npz, and the parameters as JSON."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {"space": self.space_, "mean": self.mean_}
        arrays |= {"eigenvalues": self.eigenvalues_, "directions": self.directions_}
        save_arrays(folder / "state.npz", arrays)
        write_json(folder / "params.json", {"params": self.get_params()})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a model that `save` wrote, also one of an earlier version, whose space has no covariance yet."""
        params = load_json(folder / "params.json")["params"]
        model = cls(**{name: params.get(name, default) for name, default in cls().get_params().items()})
        state = load_arrays(folder / "state.npz")
        if "directions" not in state:
            return model.use_space(state["space"])
        model.space_, model.mean_ = state["space"], state["mean"]
        model.eigenvalues_, model.directions_ = state["eigenvalues"], state["directions"]
        return model


def _standard_ranks(profile: NDArray[np.float32]) -> NDArray[np.float32]:
    """Ranks of each column with mean 0 and variance 1; equal values share their mean rank, constants are 0."""
    result = np.zeros(profile.shape, dtype=np.float32)
    for j in range(profile.shape[1]):
        ranks = rankdata(profile[:, j])
        spread = ranks.std()
        if spread > 0:
            result[:, j] = (ranks - ranks.mean()) / spread
    return result


def _item_factors(interactions: sparse.csr_matrix, factors: int, seed: int) -> NDArray[np.float32]:
    """Truncated SVD of log counts × inverse item frequency, of rows of length 1; each factor has variance 1."""
    factors = min(factors, min(interactions.shape) - 1)
    if factors < 1:
        return np.zeros((interactions.shape[0], 0), dtype=np.float32)
    weights = interactions.astype(np.float32).tocsr(copy=True)
    customers = np.asarray((weights > 0).sum(axis=0)).ravel()
    idf = np.log(weights.shape[0] / np.maximum(customers, 1)).astype(np.float32)
    weights.data = np.log1p(weights.data) * idf[weights.indices]
    lengths = np.sqrt(np.asarray(weights.multiply(weights).sum(axis=1)).ravel())
    weights = sparse.diags((1.0 / np.maximum(lengths, 1e-9)).astype(np.float32)) @ weights
    found = TruncatedSVD(factors, random_state=seed).fit_transform(weights)
    return np.asarray(found / np.maximum(found.std(axis=0), 1e-9), dtype=np.float32)


def _category_factors(counts: sparse.csr_matrix, factors: int, seed: int) -> NDArray[np.float32]:
    """Truncated SVD of log counts of the categories that enough customers bought, each of variance 1.

    The factors keep their variances, so that distances are those of the categories.
    """
    n = counts.shape[0]
    counts = counts.astype(np.float32).tocsr()
    bought = np.asarray((counts > 0).sum(axis=0)).ravel()
    weights = counts[:, np.flatnonzero(bought >= max(1.0, MIN_CATEGORY_SHARE * n))].log1p()
    mean = np.asarray(weights.mean(axis=0)).ravel()
    variance = np.asarray(weights.multiply(weights).mean(axis=0)).ravel() - mean**2
    weights = weights[:, np.flatnonzero(variance > 1e-6)] @ sparse.diags(1.0 / np.sqrt(variance[variance > 1e-6]))
    factors = min(factors, min(weights.shape) - 1)
    if factors < 1:
        return np.zeros((n, 0), dtype=np.float32)
    return np.asarray(TruncatedSVD(factors, random_state=seed).fit_transform(weights), dtype=np.float32)


def _top_k(scores: NDArray[np.float32], wanted: int) -> NDArray[np.int64]:
    """The `wanted` rows with the highest scores, best first, equal ones in their order, without sorting the others."""
    least = np.partition(scores, len(scores) - wanted)[len(scores) - wanted]
    above = np.flatnonzero(scores > least)
    rows = np.concatenate([above, np.flatnonzero(scores == least)[: wanted - len(above)]])
    return rows[np.lexsort((rows, -scores[rows]))]


def _middle_ranks(scores: NDArray[np.float32], of: NDArray[np.float32]) -> NDArray[np.float64]:
    """Rank, from 1 for the lowest, of some of the scores; equal scores share their mean rank."""
    ordered = np.sort(scores)
    lower, upper = np.searchsorted(ordered, of, "left"), np.searchsorted(ordered, of, "right")
    return np.asarray((lower + upper + 1) / 2)


def _estimate(values: NDArray[np.float64]) -> Estimate:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(np.mean(values)), float(low), float(high)
