"""Prices, sizes and brands of items, and the transitions of customers between items of a category (`upgrade`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import svds

from features.interactions import TrainingSet

# item attributes that may contain the size; the first one present is used
SIZES = ("package_size", "pack_size", "size", "net_content", "weight", "volume")
GRAMS, LITRES = "weight", "volume"
UNITS: Mapping[str, tuple[str, float]] = {
    "g": (GRAMS, 1.0),
    "gm": (GRAMS, 1.0),
    "kg": (GRAMS, 1000.0),
    "oz": (GRAMS, 28.35),
    "ozs": (GRAMS, 28.35),
    "lb": (GRAMS, 453.6),
    "lbs": (GRAMS, 453.6),
    "ml": (LITRES, 0.001),
    "cl": (LITRES, 0.01),
    "l": (LITRES, 1.0),
    "lt": (LITRES, 1.0),
    "ltr": (LITRES, 1.0),
    "qt": (LITRES, 0.946),
    "pt": (LITRES, 0.473),
    "ga": (LITRES, 3.785),
    "gal": (LITRES, 3.785),
    "ct": ("count", 1.0),
    "pk": ("count", 1.0),
    "pc": ("count", 1.0),
    "pcs": ("count", 1.0),
    "dz": ("count", 12.0),
    "doz": ("count", 12.0),
    "load": ("count", 1.0),
    "loads": ("count", 1.0),
    "ld": ("count", 1.0),
    "lds": ("count", 1.0),
}
PART = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*([a-z]*)")
HALF, STRANGE = re.compile(r"^\s*1/2\s+"), re.compile(r"[^a-z0-9./ ]")
MAKERS = ("manufacturer", "manufacturer_id", "maker", "vendor")  # item attributes that may contain the manufacturer
N_FACTORS = 48  # number of singular vectors
SMALL = 200  # up to this many customers or items, a dense decomposition is as fast and always converges
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def size_of(text: str) -> tuple[str, float] | None:
    """Parse a size text into the measure and the amount in its base unit; None if the text cannot be parsed.

    Examples
    --------
    >>> size_of("1 DZ"), size_of("6/3.5 OZ")[1] == 6 * size_of("3.5 oz")[1], size_of("CTN")
    (('count', 12.0), True, None)
    """
    cleaned = HALF.sub("0.5 ", text.lower())
    if STRANGE.search(cleaned):
        return None
    amount, measure, packs, counted = 1.0, "", 1.0, False
    for number, unit in PART.findall(cleaned):
        kind = UNITS.get(unit)
        if kind is None and unit:
            return None
        counted |= kind is not None
        if kind is not None and kind[0] != "count":
            if measure:
                return None
            measure, amount = kind[0], float(number) * kind[1]
        elif not measure or unit != "ct":  # 6/3.5 OZ and 12 OZ/12 PK are multipacks; 10 OZ/8 CT is one pack of 8 pieces
            packs *= float(number) * (kind[1] if kind else 1.0)
    return (measure or "count", amount * packs) if counted and amount * packs > 0 else None


@dataclass(frozen=True)
class ItemAttributes:
    """Attributes of items that do not depend on time, each (n_items,).

    Attributes
    ----------
    leaf : ndarray of int64
        Code of the full category path; −1 without a category.
    price, size : ndarray of float64
        Logarithms; NaN if unknown.
    measure : ndarray of int64
        Code of the measure of the size (weight, volume, count); only sizes of one measure are comparable. −1 if
        unknown.
    brand, maker : ndarray of int64
        Codes of brand and manufacturer; 0 if unknown.
    """

    leaf: Ints
    price: Floats
    size: Floats
    measure: Ints
    brand: Ints
    maker: Ints

    @classmethod
    def of(cls, attributes: Mapping[str, NDArray[Any]], n_items: int) -> ItemAttributes:
        """Extract the attributes from `TrainingSet.item_attributes`."""
        _, leaf = np.unique(attributes["category"], return_inverse=True)
        leaf = np.where(attributes["category"] != "", leaf, -1).astype(np.int64)
        price = np.asarray(attributes.get("price", np.full(n_items, np.nan)), dtype=np.float64)
        price = np.log(np.where(price > 0, price, np.nan))
        column: NDArray[Any] = next(
            (attributes[name] for name in SIZES if name in attributes), np.full(n_items, "", dtype=np.str_)
        )
        size, measure = np.full(n_items, np.nan), np.full(n_items, -1, dtype=np.int64)
        if column.dtype.kind == "U":
            parsed = {text: size_of(text) for text in np.unique(column).tolist()}
            kinds = {kind: code for code, kind in enumerate(sorted({found[0] for found in parsed.values() if found}))}
            for text, found in parsed.items():
                if found:
                    at = column == text
                    size[at], measure[at] = np.log(found[1]), kinds[found[0]]
        elif column.dtype.kind == "f":
            size = np.log(np.where(column > 0, column, np.nan).astype(np.float64))
            measure = np.where(np.isfinite(size), 0, -1).astype(np.int64)
        maker = next((attributes[name] for name in MAKERS if name in attributes), attributes["brand"])
        return cls(leaf, price, size, measure, _codes(attributes["brand"]), _codes(maker))

    @cached_property
    def brands(self) -> sparse.csr_matrix:
        """One-hot brands, (n_items, n_brands)."""
        n = len(self.brand)
        return sparse.csr_matrix(
            (np.ones(n), self.brand, np.arange(n + 1)), shape=(n, int(self.brand.max(initial=0)) + 1)
        )

    def by_leaf(self) -> tuple[Ints, Ints]:
        """Return the items with a price, sorted by category, and the start of each category."""
        items = np.flatnonzero((self.leaf >= 0) & np.isfinite(self.price))
        items = items[np.argsort(self.leaf[items], kind="stable")]
        return items, np.searchsorted(self.leaf[items], np.arange(int(self.leaf.max(initial=-1)) + 2))

    def log_size_ratio(self, items: Ints, others: Ints) -> Floats:
        """Return the log ratio of the sizes of items and others; NaN where the sizes are not comparable."""
        same = (self.measure[items] >= 0) & (self.measure[items] == self.measure[others])
        return np.where(same, self.size[items] - self.size[others], np.nan)


@dataclass(frozen=True)
class MarketStatistics:
    """Statistics of the purchases before a cutoff: market shares, transitions between items, and item factors.

    Attributes
    ----------
    shares : ndarray of float64, (n_items, 4)
        Logarithm of the share of an item in its category: of all customers, and of the order lines decayed with
        half-lives of 84, 28 and 14 days.
    transitions : csr_matrix, (n_items, n_items)
        Entry (i, j) is the number of customers of i who bought j, a more expensive item of the same category, for the
        first time on a later day, divided by `item_customers` of i plus the prior.
    item_customers : ndarray of float64, (n_items,)
        Number of customers of each item.
    mean_log_price : ndarray of float64, (n_leaves,)
        Mean log price in each category.
    brands : ndarray of float64, (n_brands,)
        Share of each brand in all order lines.
    item_factors : ndarray of float32, (n_items, d)
        Right singular vectors of the interaction matrix (PureSVD; Cremonesi, Koren & Turrin 2010). Each is scaled by
        the square root of one minus its share of noise, which is the mean of the omitted squared singular values over
        its own (Tipping & Bishop 1999).
    """

    shares: Floats
    transitions: sparse.csr_matrix
    item_customers: Floats
    mean_log_price: Floats
    brands: Floats
    item_factors: NDArray[np.float32]

    @classmethod
    def at(
        cls, train: TrainingSet, own: sparse.csr_matrix, item_attributes: ItemAttributes, floor: float, prior: float
    ) -> MarketStatistics:
        """Compute the statistics of a training set with decayed counts `own`.

        Parameters
        ----------
        own : csr_matrix, (n_users, n_items)
            Decayed counts of the training set.
        floor : float
            Smallest price ratio of a transition.
        prior : float
            Number of customers added to the denominator of the transitions.
        """
        data, n_items = train.interactions, train.n_items
        leaves = max(int(item_attributes.leaf.max(initial=-1)) + 1, 1)
        inside = np.maximum(item_attributes.leaf, 0)
        item_customers = np.bincount(own.indices, minlength=n_items).astype(np.float64)
        decayed = [
            np.bincount(data.items, np.exp2(-data.age_days / half_life), n_items) for half_life in (84.0, 28.0, 14.0)
        ]
        smoothed = [item_customers + 0.5, *(weights + 0.2 for weights in decayed)]
        shares = np.column_stack(
            [np.log(weights / np.bincount(inside, weights, leaves)[inside]) for weights in smoothed]
        )
        priced = (item_attributes.leaf >= 0) & np.isfinite(item_attributes.price)
        number = np.bincount(item_attributes.leaf[priced], item_customers[priced], leaves)
        sums = np.bincount(item_attributes.leaf[priced], item_customers[priced] * item_attributes.price[priced], leaves)
        n_brands = int(item_attributes.brand.max(initial=0)) + 1
        brands = np.bincount(item_attributes.brand[data.items], minlength=n_brands) + 1.0
        transitions = _transitions(train, item_attributes, float(np.log(floor)), item_customers, prior)
        return cls(
            shares,
            transitions,
            item_customers,
            sums / np.maximum(number, 1.0),
            brands / brands.sum(),
            _item_factors(own, item_customers),
        )

    def user_factors(self, own: sparse.csr_matrix) -> NDArray[np.float32]:
        """Return the factors of users with these decayed counts (n, n_items), (n, d)."""
        found: NDArray[np.float32] = np.asarray(_unit(own, self.item_customers) @ self.item_factors, dtype=np.float32)
        return found

    @cached_property
    def norms(self) -> NDArray[np.float32]:
        """Norms of the item factors, > 0, (n_items,)."""
        found: NDArray[np.float32] = np.linalg.norm(self.item_factors, axis=1) + np.float32(1e-9)
        return found


def _unit(own: sparse.csr_matrix, item_customers: Floats) -> sparse.csr_matrix:
    """Return log counts, divided by the root of the item's customers, as rows of norm 1."""
    values = np.log1p(own.data.astype(np.float64)) / np.sqrt(item_customers[own.indices] + 10.0)
    rows = np.repeat(np.arange(own.shape[0]), np.diff(own.indptr))
    norms = np.sqrt(np.bincount(rows, values**2, own.shape[0]))
    return sparse.csr_matrix((values / np.maximum(norms, 1e-12)[rows], own.indices, own.indptr), shape=own.shape)


def _item_factors(own: sparse.csr_matrix, item_customers: Floats) -> NDArray[np.float32]:
    unit = _unit(own, item_customers)
    rank = min(unit.shape)
    kept = min(N_FACTORS, rank // 4)
    if not unit.nnz or not kept:
        return np.zeros((own.shape[1], 1), dtype=np.float32)
    if rank <= SMALL:
        _, strengths, right = np.linalg.svd(unit.toarray(), full_matrices=False)
        strengths, right = strengths[:kept], right[:kept]
    else:
        # a fixed start vector makes the result reproducible; in float32 it takes half the time
        start = np.ones(rank, dtype=np.float32)
        _, strengths, right = svds(unit.astype(np.float32), k=kept, v0=start)
    noise = max(float((unit.data**2).sum() - (strengths**2).sum()), 0.0) / (rank - kept)
    shrunk = np.clip(1.0 - noise / np.maximum(strengths**2, 1e-12), 0.0, 1.0)
    return np.ascontiguousarray((right * np.sqrt(shrunk)[:, None]).T, dtype=np.float32)


def _transitions(
    train: TrainingSet, item_attributes: ItemAttributes, step: float, item_customers: Floats, prior: float
) -> sparse.csr_matrix:
    """Compute `MarketStatistics.transitions`; `step` is the smallest difference of the log prices."""
    data, n_items = train.interactions, train.n_items
    kept = (item_attributes.leaf[data.items] >= 0) & np.isfinite(item_attributes.price[data.items])
    users, items = data.users[kept].astype(np.int64), data.items[kept].astype(np.int64)
    days = -np.floor(data.age_days[kept])
    # interactions are sorted by user, item and age, so the oldest of a user and item is the last
    oldest = np.ones(len(users), dtype=bool)
    oldest[:-1] = (users[1:] != users[:-1]) | (items[1:] != items[:-1])
    users, items, days = users[oldest], items[oldest], days[oldest]
    place = np.lexsort((days, _pairs(users, item_attributes.leaf[items])))
    users, items, days = users[place], items[place], days[place]
    group = _pairs(users, item_attributes.leaf[items])
    found_low, found_high, price = [np.empty(0, np.int64)], [np.empty(0, np.int64)], item_attributes.price[items]
    # number of later entries of the same customer and category
    later = np.searchsorted(group, group, side="right") - np.arange(len(group)) - 1
    earlier, apart = np.flatnonzero(later >= 1), 1
    while len(earlier):
        up = (days[earlier + apart] > days[earlier]) & (price[earlier + apart] >= price[earlier] + step)
        found_low.append(items[earlier[up]])
        found_high.append(items[earlier[up] + apart])
        apart += 1
        earlier = earlier[later[earlier] >= apart]
    rows, columns = np.concatenate(found_low), np.concatenate(found_high)
    total = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(n_items, n_items))
    transitions = (sparse.diags(1.0 / (item_customers + prior)) @ total).tocsr()
    transitions.sort_indices()
    return transitions


def _pairs(rows: Ints, leaf: Ints) -> Ints:
    """Return one number for each row and category, in the order of both, (m,)."""
    return rows * (np.int64(leaf.max(initial=0)) + 1) + leaf


def _codes(names: NDArray[Any]) -> Ints:
    """Return codes of names; 0 for ''."""
    distinct, codes = np.unique(names.astype(np.str_), return_inverse=True)
    return codes.astype(np.int64) + int(len(distinct) > 0 and str(distinct[0]) != "")


def usual_items(own: sparse.csr_matrix, leaf: Ints) -> tuple[Ints, Ints]:
    """Return the item with the largest weight of each row and category, as (rows, items); ties go to the lower item."""
    rows = np.repeat(np.arange(own.shape[0], dtype=np.int64), np.diff(own.indptr))
    items = own.indices.astype(np.int64)
    kept = leaf[items] >= 0
    rows, items, weights = rows[kept], items[kept], own.data[kept]
    pairs = _pairs(rows, leaf[items])
    order = np.lexsort((items, -weights, pairs))
    rows, items, pairs = rows[order], items[order], pairs[order]
    first = np.ones(len(rows), dtype=bool)
    first[1:] = pairs[1:] != pairs[:-1]
    return rows[first], items[first]


def price_limits(
    own: sparse.csr_matrix, item_attributes: ItemAttributes, market: MarketStatistics, quantile: float
) -> Floats:
    """Return a weighted quantile of each customer's log price ratios to the category means, (n,); 0 by default."""
    rows = np.repeat(np.arange(own.shape[0], dtype=np.int64), np.diff(own.indptr))
    items = own.indices.astype(np.int64)
    kept = (item_attributes.leaf[items] >= 0) & np.isfinite(item_attributes.price[items])
    rows, items, weights = rows[kept], items[kept], own.data[kept].astype(np.float64)
    above = item_attributes.price[items] - market.mean_log_price[item_attributes.leaf[items]]
    order = np.lexsort((above, rows))
    rows, above, weights = rows[order], above[order], weights[order]
    total = np.bincount(rows, weights, own.shape[0])
    running = np.cumsum(weights)
    before = np.concatenate([[0.0], np.cumsum(total)])[rows]
    reached = running - before >= quantile * total[rows] * (1.0 - 1e-12)
    limits = np.zeros(own.shape[0])
    places = np.flatnonzero(reached)[::-1]
    limits[rows[places]] = above[places]  # the order is reversed, so the first entry that reaches the quantile remains
    return limits
