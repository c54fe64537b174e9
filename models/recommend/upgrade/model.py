"""A better or larger one of what is bought: dearer items of the same category, within what the customer is used to paying."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
from models.recommend.upgrade.item_attributes import (
    Floats,
    Ints,
    ItemAttributes,
    MarketStatistics,
    price_limits,
    usual_items,
)

LARGER = 1.1  # of size, and of the price of a unit of size that a larger one may cost
BLOCK = 200_000  # candidates whose tastes are compared at a time
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
    "taste",
    "like the usual",
)
PRIOR = tuple(
    float(name in ("popularity", "transition")) for name in COLUMNS
)  # what a shop too small to learn from ranks by


@dataclass(frozen=True)
class CandidateSets:
    """Candidates: a set for each customer and category, and the dearer items in it.

    Attributes
    ----------
    rows, usual : ndarray of int64, (s,)
        Of each set the row of the query, and the item its items are better than.
    of, items : ndarray of int64, (c,)
        Of each candidate its set (rising) and the item.
    limits : ndarray of float64, (n,)
        `price_limits` of each row of the query.
    """

    rows: Ints
    usual: Ints
    of: Ints
    items: Ints
    limits: Floats

    def of_sets(self, kept: NDArray[np.bool_]) -> CandidateSets:
        """Only these sets (s,)."""
        number = np.cumsum(kept) - 1
        mine = kept[self.of]
        return CandidateSets(self.rows[kept], self.usual[kept], number[self.of[mine]], self.items[mine], self.limits)


class UpgradeRecommender(Recommender):
    """A better or larger one: items of a category the customer buys from (to its last level), dearer than their usual one, never had.

    The usual item of a category is the one bought most (decayed by `half_life_days`), or the item given with the query. A candidate costs at least `floor`
    times as much for what is sold as one, and stays in the customer's price band: at most the greater of `least_band` times the usual item's price and
    the `band_quantile` of the ratio to the category's mean price that the customer paid anywhere, and at most `most_band` times the usual one. Where a size is
    known (``package_size`` and the like) a larger pack at about the same price for a unit of size counts as larger, the others as better.

    Which of them is taken is a conditional logit (McFadden 1974) over an item's share of its category's customers ever and lately, trade-ups seen
    from the customer's items to it (smoothed by its share), the step in price, the customer's price level, brand, maker, size, and how near it is to
    what the customer buys and to the usual item (PureSVD; Cremonesi, Koren & Turrin 2010). Its weights
    are learnt from rewound data, `snapshots` × `learn_days` before `as_of`, and pulled towards trade-ups smoothed by popularity alone. Over several categories
    the score adds how often the customer buys from each, and how often who buys from it trades up.

    Where no prices are known there are no candidates, and the list is empty; so is that of a customer who buys the dearest already.

    Parameters
    ----------
    by : {"learnt", "popularity"}
        "popularity" ranks the same candidates by customers: the baseline.
    prior : float
        Customers' worth of popularity that trade-ups from an item are smoothed with.
    """

    name: ClassVar[str] = "upgrade"
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
        self.weights_, self.trade_up_rate_ = self._fit_weights(train)
        self.counts_ = train.interactions.matrix(self.half_life_days)
        self.market_ = MarketStatistics.at(train, self.counts_, self.item_attributes_, self.floor, self.prior)

    def _fit_weights(self, train: TrainingSet) -> tuple[Floats, Floats]:
        """Weights of `COLUMNS`, and of each category the log share of its customers who trade up in `learn_days`."""
        leaves = max(int(self.item_attributes_.leaf.max(initial=-1)) + 1, 1)
        columns, sets, chosen, start = [], [], [], 0
        eligible, up = np.zeros(leaves), np.zeros(leaves)
        for back in range(1, self.snapshots + 1):
            past = train.with_earlier_cutoff(back * self.learn_days)
            data = train.interactions
            window = (data.age_days > (back - 1) * self.learn_days) & (data.age_days <= back * self.learn_days)
            if not len(past.interactions.users) or not window.any():
                break
            own = past.interactions.matrix(self.half_life_days)
            rows, usual = usual_items(own, self.item_attributes_.leaf)
            market = MarketStatistics.at(past, own, self.item_attributes_, self.floor, self.prior)
            candidate_sets = self._candidate_sets(own, rows, usual, market)
            bought = np.unique(data.users[window].astype(np.int64) * train.n_items + data.items[window])
            purchased = np.isin(candidate_sets.rows[candidate_sets.of] * train.n_items + candidate_sets.items, bought)
            climbed = np.bincount(candidate_sets.of, purchased, len(candidate_sets.rows)) > 0
            eligible += np.bincount(self.item_attributes_.leaf[candidate_sets.usual], minlength=leaves)
            up += np.bincount(self.item_attributes_.leaf[candidate_sets.usual], climbed, leaves)
            learnt = candidate_sets.of_sets(climbed)
            columns.append(self._columns(own, learnt, market))
            sets.append(learnt.of + start)
            chosen.append(purchased[climbed[candidate_sets.of]])
            start += len(learnt.rows)
        prior = np.array(PRIOR)
        overall = (up.sum() + 1.0) / (eligible.sum() + 10.0)
        climb = np.log((up + 10.0 * overall) / (eligible + 10.0))
        if self.by != "learnt" or not start:
            return prior, climb
        return fit_conditional_logit(
            np.concatenate(columns), np.concatenate(sets), np.concatenate(chosen), prior, self.ridge
        ), climb

    def _candidate_sets(
        self, own: sparse.csr_matrix, rows: Ints, usual: Ints, market: MarketStatistics
    ) -> CandidateSets:
        """What is dearer than the usual items of these rows of `own` (sorted indices), within the band and not had."""
        item_attributes = self.item_attributes_
        priced = np.isfinite(item_attributes.price[usual])
        rows, usual = rows[priced], usual[priced]
        items, bounds = self.by_leaf_
        leaf = item_attributes.leaf[usual]
        lengths = bounds[leaf + 1] - bounds[leaf]
        of = np.repeat(np.arange(len(rows)), lengths)
        candidates = items[
            np.repeat(bounds[leaf] - np.cumsum(lengths) + lengths, lengths) + np.arange(int(lengths.sum()))
        ]
        base = item_attributes.price[usual]
        limits = price_limits(own, item_attributes, market, self.band_quantile)
        top = np.maximum(base + np.log(self.least_band), market.mean_log_price[leaf] + limits[rows])
        top = np.minimum(top, base + np.log(self.most_band)) + 1e-9
        price = item_attributes.price[candidates]
        kept = (price >= base[of] + np.log(self.floor) - 1e-9) & (price <= top[of])
        of, candidates = of[kept], candidates[kept]
        purchased = _has_entry(own, rows[of], candidates)
        of, candidates = of[~purchased], candidates[~purchased]
        return CandidateSets(rows, usual, of, candidates, limits)

    def _columns(self, own: sparse.csr_matrix, candidate_sets: CandidateSets, market: MarketStatistics) -> Floats:
        """`COLUMNS` of each candidate, (c, len(COLUMNS))."""
        item_attributes, rows, usual, of, items = (
            self.item_attributes_,
            candidate_sets.rows,
            candidate_sets.usual,
            candidate_sets.of,
            candidate_sets.items,
        )
        given, row = usual[of], rows[of]
        # trade-ups from all of the customer's items of the category, by what each is of it; the usual one where there are none
        together = (own + sparse.csr_matrix((np.full(len(rows), 1e-6), (rows, usual)), shape=own.shape)).tocsr()
        entries = np.repeat(np.arange(own.shape[0], dtype=np.int64), np.diff(together.indptr))
        leaves = np.int64(item_attributes.leaf.max(initial=0)) + 2
        keys, place = np.unique(entries * leaves + item_attributes.leaf[together.indices], return_inverse=True)
        of_leaf = np.bincount(place, together.data, len(keys))
        part = sparse.csr_matrix((together.data / of_leaf[place], together.indices, together.indptr), shape=own.shape)
        left = np.bincount(
            place, part.data * self.prior / (market.item_customers[together.indices] + self.prior), len(keys)
        )
        moved = _values(sparse.csr_matrix(part @ market.transitions), row, items)
        smoothing = left[np.searchsorted(keys, row * leaves + item_attributes.leaf[items])]
        shares = market.shares[items]
        step = item_attributes.price[items] - item_attributes.price[given]
        larger = item_attributes.log_size_ratio(items, given)
        known, apart = np.isfinite(larger), np.abs(np.nan_to_num(larger))
        taste, alike = self._taste_similarity(own, candidate_sets, market)
        return np.column_stack(
            [
                shares[:, 0],
                shares[:, 1:] - shares[:, :1],
                np.log(moved / np.exp(shares[:, 0]) + smoothing + 1e-9),
                step,
                step**2,
                step * candidate_sets.limits[row],
                _brand_lift(own, row, item_attributes.brand[items], item_attributes, market),
                (item_attributes.maker[items] > 0) & (item_attributes.maker[items] == item_attributes.maker[given]),
                np.nan_to_num(larger),
                apart,
                known & (apart < 0.02),
                known,
                taste,
                alike,
            ]
        )

    def _taste_similarity(
        self, own: sparse.csr_matrix, candidate_sets: CandidateSets, market: MarketStatistics
    ) -> tuple[Floats, Floats]:
        """How near each candidate is to the customer's taste, and to what they usually buy."""
        mine, norms = market.user_factors(own), market.norms
        taste, alike = np.zeros(len(candidate_sets.of)), np.zeros(len(candidate_sets.of))
        for start in range(0, len(candidate_sets.of), BLOCK):
            part = slice(start, start + BLOCK)
            items, sets = candidate_sets.items[part], candidate_sets.of[part]
            usual, theirs = candidate_sets.usual[sets], market.item_factors[items]
            taste[part] = 20.0 * np.einsum("ij,ij->i", mine[candidate_sets.rows[sets]], theirs)
            alike[part] = np.einsum("ij,ij->i", market.item_factors[usual], theirs) / (norms[usual] * norms[items])
        return taste, alike

    def _base_items(self, query: Query) -> tuple[sparse.csr_matrix, Ints, Ints]:
        """Each user's own weights, and the rows and usual (or given) items of the sets asked about."""
        own = fold_in(self.counts_, query, self.half_life_days)
        rows, usual = usual_items(own, self.item_attributes_.leaf)
        if query.items is None or not (lengths := np.array([len(items) for items in query.items])).any():
            return own, rows, usual
        given = np.concatenate(query.items).astype(np.int64)
        price = (
            np.nan_to_num(np.exp(self.item_attributes_.price[given]), nan=0.0) + 1e-6
        )  # of two of a category better than the dearer one
        basket = sparse.csr_matrix((price, (np.repeat(np.arange(len(query)), lengths), given)), shape=own.shape)
        of_basket, wanted = usual_items(basket, self.item_attributes_.leaf)
        free = lengths[rows] == 0
        rows, usual = np.concatenate([rows[free], of_basket]), np.concatenate([usual[free], wanted])
        order = np.lexsort((self.item_attributes_.leaf[usual], rows))
        return own, rows[order], usual[order]

    def _candidates(self, query: Query) -> tuple[sparse.csr_matrix, CandidateSets]:
        """Log chances of the candidates as a matrix (n, n_items), and what they are of."""
        own, rows, usual = self._base_items(query)
        candidate_sets = self._candidate_sets(own, rows, usual, self.market_)
        if self.by == "learnt":  # the same to the last bit for one candidate as among many
            columns = self._columns(own, candidate_sets, self.market_)
            score = np.sum([weight * column for weight, column in zip(self.weights_, columns.T, strict=True)], axis=0)
        else:
            score = self.market_.shares[candidate_sets.items, 0]
        top = np.full(len(candidate_sets.rows), -np.inf)
        np.maximum.at(top, candidate_sets.of, score)
        raised = np.exp(score - top[candidate_sets.of])
        chance = (
            score
            - top[candidate_sets.of]
            - np.log(np.bincount(candidate_sets.of, raised, len(candidate_sets.rows))[candidate_sets.of])
        )
        entries = np.repeat(np.arange(own.shape[0], dtype=np.int64), np.diff(own.indptr))
        leaf = self.item_attributes_.leaf
        leaves = np.int64(leaf.max(initial=0)) + 2
        keys, place = np.unique(entries * leaves + leaf[own.indices], return_inverse=True)
        amounts = np.append(np.bincount(place, own.data, len(keys)), 0.0)
        wanted = candidate_sets.rows * leaves + leaf[candidate_sets.usual]
        at = np.searchsorted(keys, wanted)
        known = at < len(keys)
        known[known] = keys[at[known]] == wanted[known]
        often = (
            np.log(np.where(known, amounts[np.where(known, at, -1)], 0.0) + 0.1)
            + self.trade_up_rate_[leaf[candidate_sets.usual]]
        )
        total = (chance + often[candidate_sets.of]).astype(np.float32)
        made = sparse.csr_matrix(
            (total, (candidate_sets.rows[candidate_sets.of], candidate_sets.items)), shape=own.shape
        )
        made.sort_indices()
        return made, candidate_sets

    def _evidence(self, query: Query, item: int) -> Evidence | None:
        """What an item is better than: ``instead_of`` (the usual item of its category), ``price_ratio``, ``better`` ("larger" or "better").

        None where it is no upgrade for this customer.
        """
        own, rows, usual = self._base_items(Query(query.users))
        here = self.item_attributes_.leaf[usual] == self.item_attributes_.leaf[item]
        candidate_sets = self._candidate_sets(own, rows[here], usual[here], self.market_)
        place = np.flatnonzero(candidate_sets.items == item)
        if not len(place):
            return None
        return self.comparison(int(candidate_sets.usual[candidate_sets.of[place[0]]]), item)

    def comparison(self, usual: int, item: int) -> Evidence:
        """How an item compares with another: ``instead_of``, ``price_ratio``, ``better`` and, where sizes compare, ``size_ratio``."""
        one, other = np.array([item]), np.array([usual])
        larger, step = (
            float(self.item_attributes_.log_size_ratio(one, other)[0]),
            float(self.item_attributes_.price[item] - self.item_attributes_.price[usual]),
        )
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


def _values(matrix: sparse.csr_matrix, rows: Ints, columns: Ints) -> Floats:
    """The entries of a matrix at pairs, 0 where there is none, (m,)."""
    matrix.sort_indices()
    if not matrix.nnz or not len(rows):
        return np.zeros(len(rows))
    width = np.int64(matrix.shape[1])
    held = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr)) * width + matrix.indices
    wanted = rows * width + columns
    place = np.minimum(np.searchsorted(held, wanted), len(held) - 1)
    return np.where(held[place] == wanted, matrix.data[place], 0.0).astype(np.float64)


def _has_entry(matrix: sparse.csr_matrix, rows: Ints, columns: Ints) -> NDArray[np.bool_]:
    ones = sparse.csr_matrix((np.ones(matrix.nnz), matrix.indices, matrix.indptr), shape=matrix.shape)
    return _values(ones, rows, columns) > 0


def _brand_lift(
    own: sparse.csr_matrix, rows: Ints, brands: Ints, item_attributes: ItemAttributes, market: MarketStatistics
) -> Floats:
    """Log-lift of a brand among what a customer buys, smoothed by five lines of everybody, (c,)."""
    bought = _values(sparse.csr_matrix(own @ item_attributes.brands), rows, brands)
    lines = np.asarray(own.sum(axis=1), dtype=np.float64).ravel()[rows]
    found: Floats = np.log((bought + 5.0 * market.brands[brands]) / (lines + 5.0) / market.brands[brands])
    return found
