"""Upgrades: better or larger items of the same category, more expensive but within the price range of the customer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.interactions import TrainingSet
from models.persist import Arrays, pack_csr, unpack_csr
from models.ranked import NOT_A_CANDIDATE
from models.recommend.base import (
    Choice,
    Evidence,
    Indices,
    ItemFilter,
    Query,
    Range,
    Recommender,
    fold_in,
    top_k_sparse,
    values_at,
)
from models.recommend.choice_models import fit_conditional_logit
from models.recommend.sampling import learning_sample
from models.recommend.upgrade.candidate_sets import CandidateSets, brand_lift, entries_at, has_entry
from models.recommend.upgrade.item_attributes import (
    Floats,
    Ints,
    ItemAttributes,
    MarketStatistics,
    price_limits,
    usual_items,
)
from models.user_arrays import UserMatrix

LARGER = 1.1  # smallest size ratio of a larger item, and its largest ratio of the price per unit of size
BLOCK = 200_000  # candidates whose factors are compared at a time
ITEM_ATTRIBUTE_KEYS = ("leaf", "price", "size", "measure", "brand", "maker")
# saved name → attribute
MARKET_KEYS = {
    "shares": "shares",
    "had": "item_customers",
    "middle": "mean_log_price",
    "brands": "brands",
    "tastes": "item_factors",
}
COLUMNS = (
    "popularity",
    "popularity 84 days",
    "popularity 28 days",
    "popularity 14 days",
    "transition",
    "price",
    "price squared",
    "price level",
    "brand",
    "same maker",
    "size",
    "size apart",
    "same size",
    "size known",
    "user similarity",
    "usual item similarity",
)
# prior of the weights, used as they are if there are too few data
PRIOR = tuple(float(name in ("popularity", "transition")) for name in COLUMNS)


class UpgradeRecommender(Recommender):
    """Ranks better or larger items: not bought yet, of a category of the customer, more expensive than the usual item.

    Categories are full category paths. The usual item of a category is the one bought most (decayed by
    `half_life_days`), or the query item. The price of a candidate is at least `floor` times that of the usual item and
    within the price band of the customer. The upper limit of the band is the larger of `least_band` times the price of
    the usual item and the mean price of the category times the `band_quantile` of the customer's price ratios to
    category means; it is at most `most_band` times the price of the usual item. If sizes are known (``package_size``
    and similar attributes), a larger pack at a similar price per unit of size is "larger"; other candidates are
    "better".

    A conditional logit (McFadden 1974) predicts the choice among the candidates. Its features are the share of the item
    in the customers of its category, overall and recently; observed transitions from the customer's items to it,
    smoothed by its share; the price step; the price level of the customer; brand, manufacturer and size; and the
    similarity to the customer's purchases and to the usual item (PureSVD; Cremonesi, Koren & Turrin 2010). The weights
    are learnt at `snapshots` earlier cutoffs, `learn_days` apart, and shrunk towards smoothed transitions alone. Across
    categories, the score adds the log of the customer's purchases in the category and of the trade-up rate of its
    customers.

    Without prices there are no candidates, and the list is empty; it is also empty for a customer who already buys the
    most expensive items.

    Parameters
    ----------
    half_life_days : float or None
        Half-life of a purchase in days; None for no decay.
    floor : float
        Smallest price ratio of a candidate to the usual item.
    least_band, most_band, band_quantile : float
        Price band, as above.
    prior : float
        Weight, in customers, of the popularity that smooths the transitions from an item.
    learn_days : int
        Length of the label period after each earlier cutoff in days.
    snapshots : int
        Number of earlier cutoffs.
    ridge : float
        Strength of the shrinkage of the weights.
    by : {"learnt", "popularity"}
        "popularity" ranks the same candidates by their number of customers, as a baseline.
    """

    name: ClassVar[str] = "upgrade"
    user_arrays = (*Recommender.user_arrays, UserMatrix("counts"))
    cpu_seconds_per_learnt_line: ClassVar[float] = 4.1e-6
    bytes_per_learnt_line: ClassVar[float] = 500.0
    supports_fold_in: ClassVar[bool] = True
    returns_partial_lists: ClassVar[bool] = True
    supports_evidence: ClassVar[bool] = True
    search_space: ClassVar[Mapping[str, Range | Choice]] = {
        "half_life_days": Range(30.0, 365.0, log=True),
        "prior": Range(1.0, 200.0, log=True),
        "least_band": Range(1.5, 8.0),
    }

    def __init__(
        self,
        half_life_days: float | None = 120.0,
        floor: float = 1.1,
        least_band: float = 4.0,
        most_band: float = 10.0,
        band_quantile: float = 0.95,
        prior: float = 20.0,
        learn_days: int = 28,
        snapshots: int = 2,
        ridge: float = 10.0,
        by: str = "learnt",
    ) -> None:
        self.half_life_days, self.floor, self.least_band, self.most_band = half_life_days, floor, least_band, most_band
        self.band_quantile, self.prior, self.learn_days, self.snapshots = band_quantile, prior, learn_days, snapshots
        self.ridge, self.by = ridge, by

    def _fit(self, train: TrainingSet) -> None:
        self.item_attributes_ = ItemAttributes.of(train.item_attributes, train.n_items)
        self.by_leaf_ = self.item_attributes_.by_leaf()
        sample = learning_sample(train)
        self.weights_, self.trade_up_rate_ = self._fit_weights(sample)
        self.counts_ = train.interactions.matrix(self.half_life_days)
        counts = self.counts_ if sample is train else sample.interactions.matrix(self.half_life_days)
        self.market_ = MarketStatistics.at(sample, counts, self.item_attributes_, self.floor, self.prior)

    def _fit_weights(self, train: TrainingSet) -> tuple[Floats, Floats]:
        """Fit the weights of `COLUMNS`, and the log trade-up rate of each category's customers in `learn_days`."""
        leaf = self.item_attributes_.leaf
        leaves = max(int(leaf.max(initial=-1)) + 1, 1)
        columns, sets, chosen, start = [], [], [], 0
        eligible, up = np.zeros(leaves), np.zeros(leaves)
        for back in range(1, self.snapshots + 1):
            past = train.with_earlier_cutoff(back * self.learn_days)
            data = train.interactions
            window = (data.age_days > (back - 1) * self.learn_days) & (data.age_days <= back * self.learn_days)
            if not len(past.interactions.users) or not window.any():
                break
            own = past.interactions.matrix(self.half_life_days)
            rows, usual = usual_items(own, leaf)
            market = MarketStatistics.at(past, own, self.item_attributes_, self.floor, self.prior)
            eligible += np.bincount(leaf[usual[np.isfinite(self.item_attributes_.price[usual])]], minlength=leaves)
            bought = np.unique(data.users[window].astype(np.int64) * train.n_items + data.items[window])
            # nobody trades up in a category without a purchase, and most customers buy nothing in most of theirs
            active = np.isin(
                rows * leaves + leaf[usual], bought // train.n_items * leaves + leaf[bought % train.n_items]
            )
            candidate_sets = self._candidate_sets(own, rows[active], usual[active], market)
            purchased = np.isin(candidate_sets.rows[candidate_sets.of] * train.n_items + candidate_sets.items, bought)
            traded_up = np.bincount(candidate_sets.of, purchased, len(candidate_sets.rows)) > 0
            up += np.bincount(leaf[candidate_sets.usual], traded_up, leaves)
            with_choice = candidate_sets.of_sets(traded_up)
            columns.append(self._columns(own, with_choice, market))
            sets.append(with_choice.of + start)
            chosen.append(purchased[traded_up[candidate_sets.of]])
            start += len(with_choice.rows)
        prior = np.array(PRIOR)
        overall = (up.sum() + 1.0) / (eligible.sum() + 10.0)
        trade_up_rate = np.log((up + 10.0 * overall) / (eligible + 10.0))
        if self.by != "learnt" or not start:
            return prior, trade_up_rate
        examples = np.concatenate(columns), np.concatenate(sets), np.concatenate(chosen)
        return fit_conditional_logit(*examples, prior, self.ridge), trade_up_rate

    def _candidate_sets(
        self, own: sparse.csr_matrix, rows: Ints, usual: Ints, market: MarketStatistics
    ) -> CandidateSets:
        """Find the items above the price of the usual items, within the price band and not bought yet.

        The indices of `own` must be sorted.
        """
        item_attributes = self.item_attributes_
        priced = np.isfinite(item_attributes.price[usual])
        rows, usual = rows[priced], usual[priced]
        items, bounds = self.by_leaf_
        leaf = item_attributes.leaf[usual]
        lengths = bounds[leaf + 1] - bounds[leaf]
        of = np.repeat(np.arange(len(rows)), lengths)
        offsets = np.repeat(bounds[leaf] - np.cumsum(lengths) + lengths, lengths)
        candidates = items[offsets + np.arange(int(lengths.sum()))]
        base = item_attributes.price[usual]
        limits = price_limits(own, item_attributes, market, self.band_quantile)
        top = np.maximum(base + np.log(self.least_band), market.mean_log_price[leaf] + limits[rows])
        top = np.minimum(top, base + np.log(self.most_band)) + 1e-9
        price = item_attributes.price[candidates]
        kept = (price >= base[of] + np.log(self.floor) - 1e-9) & (price <= top[of])
        of, candidates = of[kept], candidates[kept]
        purchased = has_entry(own, rows[of], candidates)
        of, candidates = of[~purchased], candidates[~purchased]
        return CandidateSets(rows, usual, of, candidates, limits)

    def _columns(self, own: sparse.csr_matrix, candidate_sets: CandidateSets, market: MarketStatistics) -> Floats:
        """Compute `COLUMNS` of each candidate, (c, len(COLUMNS))."""
        item_attributes, rows, usual = self.item_attributes_, candidate_sets.rows, candidate_sets.usual
        of, items = candidate_sets.of, candidate_sets.items
        given, row = usual[of], rows[of]
        # transitions from all of the customer's items of the category, weighted by their share of its purchases;
        # the tiny weight of the usual item matters only if there are none
        together = (own + sparse.csr_matrix((np.full(len(rows), 1e-6), (rows, usual)), shape=own.shape)).tocsr()
        entries = np.repeat(np.arange(own.shape[0], dtype=np.int64), np.diff(together.indptr))
        leaves = np.int64(item_attributes.leaf.max(initial=0)) + 2
        keys, place = np.unique(entries * leaves + item_attributes.leaf[together.indices], return_inverse=True)
        of_leaf = np.bincount(place, together.data, len(keys))
        part = sparse.csr_matrix((together.data / of_leaf[place], together.indices, together.indptr), shape=own.shape)
        prior_share = self.prior / (market.item_customers[together.indices] + self.prior)
        left = np.bincount(place, part.data * prior_share, len(keys))
        moved = entries_at(sparse.csr_matrix(part @ market.transitions), row, items)
        smoothing = left[np.searchsorted(keys, row * leaves + item_attributes.leaf[items])]
        shares = market.shares[items]
        step = item_attributes.price[items] - item_attributes.price[given]
        larger = item_attributes.log_size_ratio(items, given)
        known, apart = np.isfinite(larger), np.abs(np.nan_to_num(larger))
        to_user, to_usual = self._factor_similarity(own, candidate_sets, market)
        return np.column_stack(
            [
                shares[:, 0],
                shares[:, 1:] - shares[:, :1],
                np.log(moved / np.exp(shares[:, 0]) + smoothing + 1e-9),
                step,
                step**2,
                step * candidate_sets.limits[row],
                brand_lift(own, row, item_attributes.brand[items], item_attributes, market),
                (item_attributes.maker[items] > 0) & (item_attributes.maker[items] == item_attributes.maker[given]),
                np.nan_to_num(larger),
                apart,
                known & (apart < 0.02),
                known,
                to_user,
                to_usual,
            ]
        )

    def _factor_similarity(
        self, own: sparse.csr_matrix, candidate_sets: CandidateSets, market: MarketStatistics
    ) -> tuple[Floats, Floats]:
        """Return the similarity of each candidate to the user factors and to the usual item, (c,) each."""
        mine, norms = market.user_factors(own), market.norms
        to_user, to_usual = np.zeros(len(candidate_sets.of)), np.zeros(len(candidate_sets.of))
        for start in range(0, len(candidate_sets.of), BLOCK):
            part = slice(start, start + BLOCK)
            items, sets = candidate_sets.items[part], candidate_sets.of[part]
            usual, theirs = candidate_sets.usual[sets], market.item_factors[items]
            to_user[part] = 20.0 * np.einsum("ij,ij->i", mine[candidate_sets.rows[sets]], theirs)
            to_usual[part] = np.einsum("ij,ij->i", market.item_factors[usual], theirs) / (norms[usual] * norms[items])
        return to_user, to_usual

    def _base_items(self, query: Query) -> tuple[sparse.csr_matrix, Ints, Ints]:
        """Return the decayed counts of the users, and the rows and base items (usual or query items) of their sets."""
        own = fold_in(self.counts_, query, self.half_life_days)
        rows, usual = usual_items(own, self.item_attributes_.leaf)
        if query.items is None or not (lengths := np.array([len(items) for items in query.items])).any():
            return own, rows, usual
        given = np.concatenate(query.items).astype(np.int64)
        # with prices as weights, the base item of a category is its most expensive query item
        price = np.nan_to_num(np.exp(self.item_attributes_.price[given]), nan=0.0) + 1e-6
        basket = sparse.csr_matrix((price, (np.repeat(np.arange(len(query)), lengths), given)), shape=own.shape)
        of_basket, wanted = usual_items(basket, self.item_attributes_.leaf)
        free = lengths[rows] == 0
        rows, usual = np.concatenate([rows[free], of_basket]), np.concatenate([usual[free], wanted])
        order = np.lexsort((self.item_attributes_.leaf[usual], rows))
        return own, rows[order], usual[order]

    def _candidates(self, query: Query) -> tuple[sparse.csr_matrix, CandidateSets]:
        """Return the log probabilities of the candidates as a matrix, (n, n_items), and the candidate sets."""
        own, rows, usual = self._base_items(query)
        candidate_sets = self._candidate_sets(own, rows, usual, self.market_)
        if self.by == "learnt":  # adding column by column makes the score of a candidate independent of the batch
            columns = self._columns(own, candidate_sets, self.market_)
            score = np.sum([weight * column for weight, column in zip(self.weights_, columns.T, strict=True)], axis=0)
        else:
            score = self.market_.shares[candidate_sets.items, 0]
        top = np.full(len(candidate_sets.rows), -np.inf)
        np.maximum.at(top, candidate_sets.of, score)
        relative = score - top[candidate_sets.of]
        sums = np.bincount(candidate_sets.of, np.exp(relative), len(candidate_sets.rows))
        log_probability = relative - np.log(sums[candidate_sets.of])
        entries = np.repeat(np.arange(own.shape[0], dtype=np.int64), np.diff(own.indptr))
        leaf = self.item_attributes_.leaf
        leaves = np.int64(leaf.max(initial=0)) + 2
        keys, place = np.unique(entries * leaves + leaf[own.indices], return_inverse=True)
        amounts = np.append(np.bincount(place, own.data, len(keys)), 0.0)
        wanted = candidate_sets.rows * leaves + leaf[candidate_sets.usual]
        at = np.searchsorted(keys, wanted)
        known = at < len(keys)
        known[known] = keys[at[known]] == wanted[known]
        purchases = np.where(known, amounts[np.where(known, at, -1)], 0.0)
        of_set = np.log(purchases + 0.1) + self.trade_up_rate_[leaf[candidate_sets.usual]]
        total = (log_probability + of_set[candidate_sets.of]).astype(np.float32)
        cells = candidate_sets.rows[candidate_sets.of], candidate_sets.items
        scores = sparse.csr_matrix((total, cells), shape=own.shape)
        scores.sort_indices()
        return scores, candidate_sets

    def _evidence(self, query: Query, item: int) -> Evidence | None:
        """Return the `comparison` with the usual item of the category, or None if the item is not an upgrade of it."""
        own, rows, usual = self._base_items(Query(query.users))
        here = self.item_attributes_.leaf[usual] == self.item_attributes_.leaf[item]
        candidate_sets = self._candidate_sets(own, rows[here], usual[here], self.market_)
        place = np.flatnonzero(candidate_sets.items == item)
        if not len(place):
            return None
        return self.comparison(int(candidate_sets.usual[candidate_sets.of[place[0]]]), item)

    def comparison(self, usual: int, item: int) -> Evidence:
        """Compare an item with the usual one.

        Returns
        -------
        Evidence
            ``instead_of``, ``price_ratio``, ``better`` ("larger" or "better") and, if the sizes are comparable,
            ``size_ratio``.
        """
        larger = float(self.item_attributes_.log_size_ratio(np.array([item]), np.array([usual]))[0])
        step = float(self.item_attributes_.price[item] - self.item_attributes_.price[usual])
        kind = "larger" if larger >= np.log(LARGER) and step - larger <= np.log(LARGER) else "better"
        facts: Evidence = {"instead_of": usual, "price_ratio": float(np.exp(step)), "better": kind}
        return {**facts, "size_ratio": float(np.exp(larger))} if np.isfinite(larger) else facts

    def _scores(self, query: Query) -> NDArray[np.float32]:
        scores = np.full((len(query), self.n_items_), NOT_A_CANDIDATE, dtype=np.float32)
        found = self._candidates(query)[0].tocoo()
        scores[found.row, found.col] = found.data
        return scores

    def _top_k(self, query: Query, k: int, item_filter: ItemFilter) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        return top_k_sparse(self._candidates(query)[0], k, item_filter)

    def _score_items(self, query: Query, ids: Indices) -> NDArray[np.float32]:
        return values_at(self._candidates(query)[0], ids)

    def _state(self) -> Arrays:
        return {
            **pack_csr("counts", self.counts_),
            **pack_csr("moves", self.market_.transitions),
            "weights": self.weights_,
            "climb": self.trade_up_rate_,
            **{f"shelf_{name}": getattr(self.item_attributes_, name) for name in ITEM_ATTRIBUTE_KEYS},
            **{f"market_{key}": getattr(self.market_, name) for key, name in MARKET_KEYS.items()},
        }

    def _restore(self, state: Arrays) -> None:
        self.counts_, self.weights_, self.trade_up_rate_ = unpack_csr("counts", state), state["weights"], state["climb"]
        self.item_attributes_ = ItemAttributes(**{name: state[f"shelf_{name}"] for name in ITEM_ATTRIBUTE_KEYS})
        self.market_ = MarketStatistics(
            transitions=unpack_csr("moves", state),
            **{name: state[f"market_{key}"] for key, name in MARKET_KEYS.items()},
        )
        self.by_leaf_ = self.item_attributes_.by_leaf()
