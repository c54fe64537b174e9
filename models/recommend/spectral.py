"""Spectral filter of the item graph: keeps the low frequencies, damps the others, stores a few links per item."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from scipy import sparse

from features.interactions import TrainingSet
from models.recommend.base import Choice, Range
from models.recommend.cost import n_learnt_lines, n_lines
from models.recommend.item_knn import Floats, ItemLinksRecommender, positive_power
from models.recommend.type_weighted import TypeWeights
from models.topk import top_k

BLOCK_CELLS = 8_000_000  # dense links computed at a time, before the strongest are selected: 32 MB
MIN_ROWS_PER_COMPONENT = 8  # a rank above an eighth of the customers or items would overfit
OVERSAMPLES = 32


class SpectralRecommender(ItemLinksRecommender):
    """Smooths the row of a user over the item graph, after GF-CF (Shen et al. 2021) and BSPM (Choi et al. 2023).

    With counts X (n_users, n_items) and their sums d by user and c by item, the graph is ``P = NᵀN``,
    ``N = d^(−user_power/2) X c^(−1/2)``, with eigenvectors V and eigenvalues l_1 ≥ l_2 ≥ …, of which K = `components`
    are computed. The links are

        B = c^(−seen_power) [ V f(l) Vᵀ + t (P − V l Vᵀ) ] c^shown_power,   f(l) = l / (l + λ),  λ = smoothing × l_K,  t
        = beyond / (l_K + λ)

    GF-CF adds a step at K to the linear filter P. Here f is the filter of a ridge regression, which keeps the largest
    eigenvalues, which represent popularity, from dominating the others. Beyond K, where nothing is decomposed, the
    filter is linear; `beyond` = 1 would make it continuous at K, and a smaller value is better because the rest is
    mostly noise. Both powers of c favour popular items less than GF-CF does. The `neighbours` largest positive links of
    each row are kept. Powers, smoothing and `beyond` were chosen on Gowalla, on a tenth of each user's training pairs.

    Fitting needs about ``12 × (n_users + n_items) × components`` bytes in addition to the interactions; its time grows
    with ``n_items² × components``.

    Parameters
    ----------
    components : int
        Number of eigenvectors, limited to an eighth of the customers and of the items.
    smoothing : float
        Ridge λ of the filter, relative to the smallest computed eigenvalue.
    beyond : float
        Weight of the frequencies beyond `components`, 0 … 1.
    user_power : float
        0 … 1; a larger power gives each item of a customer with many items less weight.
    seen_power, shown_power : float
        Powers of the popularity of the items in the history and of the recommended items.
    neighbours : int
        Number of links kept per item.
    max_items : int or None
        Number of items that are linked, the most popular ones; other items are not ranked.
    half_life_days : float or None
        Half-life of a count in days; None for no decay.
    count_power : float
        Power of a decayed count: 0 uses only whether the item was bought (age then has no effect), 1 uses the count.
        0 was best on first purchases of Complete Journey in October.
    seed : int
        Seed of the randomised decomposition (Halko, Martinsson & Tropp 2011).
    type_weights : mapping of str to float, optional
        Weights of the types of interaction, as in `TrainingSet.matrix`; None: the target alone.
    """

    name: ClassVar[str] = "spectral"
    search_space: ClassVar[Mapping[str, Range | Choice]] = {
        "components": Choice((64, 128, 256, 512, 1024)),
        "smoothing": Range(0.1, 4.0, log=True),
        "beyond": Range(0.0, 1.0),
        "user_power": Range(0.0, 1.0),
        "seen_power": Range(0.0, 0.8),
        "shown_power": Range(0.0, 0.8),
        "half_life_days": Choice((60.0, 120.0, 240.0, None)),
        "count_power": Range(0.0, 1.0),
    }

    def __init__(
        self,
        components: int = 512,
        smoothing: float = 0.5,
        beyond: float = 0.7,
        user_power: float = 0.5,
        seen_power: float = 0.3,
        shown_power: float = 0.4,
        neighbours: int = 200,
        max_items: int | None = 60_000,
        half_life_days: float | None = None,
        count_power: float = 0.0,
        seed: int = 0,
        type_weights: TypeWeights | None = None,
    ) -> None:
        self.components, self.smoothing, self.beyond = components, smoothing, beyond
        self.user_power, self.seen_power, self.shown_power = user_power, seen_power, shown_power
        self.neighbours, self.max_items = neighbours, max_items
        self.half_life_days, self.count_power, self.seed = half_life_days, count_power, seed
        self.type_weights = type_weights

    def estimated_cpu_seconds(self, train: TrainingSet) -> float:
        items, rank = self._linked_items(train), min(self.components, train.n_users // MIN_ROWS_PER_COMPONENT)
        return 2.5e-11 * items**2 * rank + 3.5e-6 * n_learnt_lines(train)

    def estimated_peak_bytes(self, train: TrainingSet) -> int:
        return 12 * (train.n_users + self._linked_items(train)) * self.components + 60 * n_lines(train)

    def _compute_links(self, interacted: sparse.csr_matrix) -> tuple[sparse.csr_matrix, Floats]:
        n_items = interacted.shape[1]
        by_user, by_item = (np.asarray(interacted.sum(axis=axis), dtype=np.float32).ravel() for axis in (1, 0))
        user_scale = sparse.diags(positive_power(by_user, -self.user_power / 2))
        item_scale = sparse.diags(positive_power(by_item, -0.5))
        normal = sparse.csr_matrix(user_scale @ interacted @ item_scale, dtype=np.float32)
        seen, shown = positive_power(by_item, -self.seen_power), positive_power(by_item, self.shown_power)
        if not normal.nnz:
            return sparse.csr_matrix((n_items, n_items), dtype=np.float32), shown
        vectors, values = self._decomposed(normal)
        smoothing = np.float32(self.smoothing) * values[-1]
        beyond = np.float32(self.beyond) / (values[-1] + smoothing)
        filtered = values / (values + smoothing) - beyond * values
        transposed, spread = normal.T.tocsr(), vectors.T.copy()
        ids, strengths = [], []
        block = max(1, BLOCK_CELLS // n_items)
        for start in range(0, n_items, block):
            rows = slice(start, start + block)
            links = (vectors[rows] * filtered) @ spread
            links += (transposed[rows] @ normal).toarray() * beyond
            links *= shown
            places = np.arange(len(links))
            links[places, start + places] = 0.0
            best, strength = top_k(links, self.neighbours)
            ids.append(best)
            strengths.append(strength * seen[rows, None])
        columns, data = np.concatenate(ids), np.concatenate(strengths)
        kept = data > 0
        ends = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
        return sparse.csr_matrix((data[kept], columns[kept], ends), shape=(n_items, n_items)), shown

    def _decomposed(self, normal: sparse.csr_matrix) -> tuple[Floats, Floats]:
        """Return the first eigenvectors of ``NᵀN``, (n_items, K), and their eigenvalues > 0, (K,)."""
        from sklearn.utils.extmath import randomized_svd

        rank = max(1, min(self.components, min(normal.shape) // MIN_ROWS_PER_COMPONENT))
        _, singular, right = randomized_svd(
            normal, rank, n_oversamples=OVERSAMPLES, n_iter=4, power_iteration_normalizer="QR", random_state=self.seed
        )
        real = singular > singular[0] * 1e-4
        return np.ascontiguousarray(right[real].T, dtype=np.float32), (singular[real] ** 2).astype(np.float32)
