"""Metrics of recommended lists, with one value per customer.

Lists are arrays of item indices, shape (n, ≥ k), best first, padded with −1; an item occurs at most once in a row. The
relevant items are a sparse matrix, shape (n, n_items), with non-zero entries. A customer for whom a metric is undefined
(no relevant items, an empty list) gets NaN and is left out of the mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from models.recommend.base import entry_positions
from qianmian.errors import UsageError

STANDARD = ("recall", "ndcg", "map", "mrr", "precision", "hit_rate")  # with the conventions of this project
PUBLISHED = ("recall_of_taken", "ndcg_of_taken", "ndcg_of_k", "map_of_taken")  # with other published conventions
PAIR_CELLS = 8_000_000  # item pairs compared at a time

Values = NDArray[np.float64]
Ids = NDArray[np.integer[Any]]


def hits(ids: Ids, truth: sparse.csr_matrix, k: int) -> NDArray[np.bool_]:
    """Boolean mask of the relevant items among the first k of each list, shape (n, min(k, width))."""
    top = ids[:, :k].astype(np.int64)
    return entry_positions(_sorted(truth), top) >= 0


def ranking_metrics(ids: Ids, truth: sparse.csr_matrix, k: int, names: Sequence[str] = STANDARD) -> dict[str, Values]:
    """Ranking metrics of the first k items of each list.

    With t relevant items, of which h are among the first k, rel(i) = 1 if the item at rank i is relevant, and
    d(i) = 1 / log2(i + 1):

    ===================  ==================================  ========================================================
    name                 value                               source and implementations with the same definition
    ===================  ==================================  ========================================================
    ``recall``           h / min(k, t)                       normalised so that 1 can always be reached
    ``recall_of_taken``  h / t                               Manning, Raghavan & Schütze 2008, §8.3; trec_eval,
                                                             RecTools, LightGCN, Li et al. 2023
    ``precision``        h / k, also of a shorter list       Manning et al. 2008, §8.4; trec_eval, RecTools
    ``ndcg``             Σ rel(i) d(i) / Σ_{i ≤ min(k,t)} d  Järvelin & Kekäläinen 2002 with binary gains; trec_eval,
                                                             LightGCN
    ``ndcg_of_taken``    Σ rel(i) d(i) / Σ_{i ≤ t} d         code of Li et al. 2023: the ideal list has t items
    ``ndcg_of_k``        Σ rel(i) d(i) / Σ_{i ≤ k} d         default of RecTools: the ideal list has k items
    ``map``              Σ rel(i) precision(i) / min(k, t)   normalised so that 1 can always be reached
    ``map_of_taken``     Σ rel(i) precision(i) / t           Manning et al. 2008, §8.4, cut at k; trec_eval, RecTools
    ``mrr``              1 / rank of the first relevant one  Voorhees 1999; trec_eval, RecTools
    ``hit_rate``         1 if h > 0, else 0                  PHR (personalised hit ratio) of Li et al. 2023
    ===================  ==================================  ========================================================

    Parameters
    ----------
    ids : ndarray of int, shape (n, ≥ k)
        Ranked item indices.
    truth : csr_matrix, shape (n, n_items)
        Relevant items.
    k : int
        Length of the evaluated lists, ≥ 1.
    names : sequence of str
        Names of the table; default `STANDARD`.

    Returns
    -------
    dict of str to ndarray, shape (n,)
        Values from 0 to 1; NaN for customers without relevant items.

    Raises
    ------
    UsageError
        If a name is not in the table, k < 1, or `ids` and `truth` differ in length.

    Examples
    --------
    >>> got = ranking_metrics(np.array([[2, 0]]), sparse.csr_matrix([[1, 0, 0]]), 2)
    >>> float(got["recall"][0]), round(float(got["ndcg"][0]), 4), float(got["mrr"][0])
    (1.0, 0.6309, 0.5)
    """
    known = STANDARD + PUBLISHED
    if unknown := [name for name in names if name not in known]:
        raise UsageError("the ranking metric is unknown", got=unknown, allowed=list(known))
    if k < 1 or len(ids) != truth.shape[0]:
        raise UsageError(
            "k must be at least 1, and `ids` and `truth` must have the same number of rows",
            got=f"k {k}, {len(ids)} rows of ids, {truth.shape[0]} rows of truth",
        )
    truth = _sorted(truth)
    right = hits(ids, truth, k)
    n_relevant = np.diff(truth.indptr).astype(np.float64)
    n_relevant[n_relevant == 0] = np.nan
    attainable, found = np.minimum(n_relevant, k), right.sum(axis=1)
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    gains = right @ discounts[: right.shape[1]]
    precisions = np.cumsum(right, axis=1) / np.arange(1, right.shape[1] + 1)
    summed = (precisions * right).sum(axis=1)
    some = ~np.isnan(n_relevant)
    ideal_dcgs = np.cumsum(1.0 / np.log2(np.arange(2, max(k, int(np.nanmax(n_relevant, initial=1.0))) + 2)))
    first = np.where(right.any(axis=1), right.argmax(axis=1) + 1.0 if right.shape[1] else 1.0, np.inf)
    made = {
        "recall": found / attainable,
        "recall_of_taken": found / n_relevant,
        "precision": np.where(some, found / k, np.nan),
        "ndcg": gains / _ideal_dcg(ideal_dcgs, attainable),
        "ndcg_of_taken": gains / _ideal_dcg(ideal_dcgs, n_relevant),
        "ndcg_of_k": np.where(some, gains / ideal_dcgs[k - 1], np.nan),
        "map": summed / attainable,
        "map_of_taken": summed / n_relevant,
        "mrr": np.where(some, 1.0 / first, np.nan),
        "hit_rate": np.where(some, found > 0, np.nan),
    }
    return {name: made[name] for name in names}


def repeat_and_explore(ids: Ids, truth: sparse.csr_matrix, history: sparse.csr_matrix, k: int) -> dict[str, Values]:
    """Metrics of the repeated and the new items of a list, separately.

    Source: Li et al. 2023, "A Next Basket Recommendation Reality Check".
    Both kinds of items share one list of length k. The recalls divide by min(k, relevant items of the kind), like
    `recall`, and the share divides by the length of the list. Li et al. divide by all relevant items of the kind, and
    by k.

    Parameters
    ----------
    ids : ndarray of int, shape (n, ≥ k)
        Ranked item indices.
    truth : csr_matrix, shape (n, n_items)
        Relevant items.
    history : csr_matrix, shape (n, n_items)
        Items the customer interacted with before.
    k : int
        Length of the evaluated lists.

    Returns
    -------
    dict of str to ndarray, shape (n,)
        ``repeat_recall`` over relevant items of the history and ``explore_recall`` over the other relevant items (NaN
        for a customer without such items); ``repeat_share``, the share of the history in the list, and
        ``repeat_share_taken``, its share in the relevant items (NaN if empty).

    Examples
    --------
    >>> got = repeat_and_explore(np.array([[0, 1]]), sparse.csr_matrix([[1, 0, 1]]), sparse.csr_matrix([[3, 1, 0]]), 2)
    >>> {name: float(value[0]) for name, value in got.items()}
    {'repeat_recall': 1.0, 'explore_recall': 0.0, 'repeat_share': 1.0, 'repeat_share_taken': 0.5}
    """
    truth, history = _sorted(truth), _sorted(history)
    top = ids[:, :k].astype(np.int64)
    right, interacted = entry_positions(truth, top) >= 0, entry_positions(history, top) >= 0
    rows = np.repeat(np.arange(truth.shape[0]), np.diff(truth.indptr))
    again = _has_entry(history, rows, truth.indices)
    n = truth.shape[0]
    repeated = np.bincount(rows, weights=again, minlength=n)
    new = np.bincount(rows, weights=~again, minlength=n)
    return {
        "repeat_recall": _ratio((right & interacted).sum(axis=1), np.minimum(repeated, k)),
        "explore_recall": _ratio((right & ~interacted).sum(axis=1), np.minimum(new, k)),
        "repeat_share": _ratio(interacted.sum(axis=1), (top >= 0).sum(axis=1)),
        "repeat_share_taken": _ratio(repeated, repeated + new),
    }


def coverage(ids: Ids, k: int, n_items: int) -> float:
    """Share of the catalogue that is in at least one list (catalog coverage; Ge, Delgado-Battenfeld & Jannach 2010).

    Examples
    --------
    >>> coverage(np.array([[0, 1], [0, -1]]), 2, 4)
    0.5
    """
    top = ids[:, :k]
    return float(np.count_nonzero(np.bincount(top[top >= 0], minlength=n_items)) / n_items)


def inverse_user_frequency(ids: Ids, k: int, item_customers: NDArray[Any], n_customers: int) -> Values:
    """Novelty: mean of −log2(share of customers who interacted with the item) over a list.

    Source: Zhou et al. 2010; MIUF of Castells, Vargas & Wang 2011. An item without customers counts as one with one
    customer, as in RecTools.

    Parameters
    ----------
    ids : ndarray of int, shape (n, ≥ k)
        Ranked item indices.
    k : int
        Length of the evaluated lists.
    item_customers : ndarray of int, shape (n_items,)
        Distinct customers of each item before the cutoff.
    n_customers : int
        Distinct customers before the cutoff.

    Returns
    -------
    ndarray, shape (n,)
        Bits, from 0 (items of all customers) to log2(n_customers).

    Examples
    --------
    >>> inverse_user_frequency(np.array([[0, 1]]), 2, np.array([8, 2]), 8).tolist()
    [1.0]
    """
    return _mean_over_list(ids, k, -np.log2(np.maximum(item_customers, 1) / n_customers))


def popularity(ids: Ids, k: int, item_customers: NDArray[Any], n_customers: int) -> Values:
    """Mean share of customers who interacted with a listed item.

    This is the average recommendation popularity (ARP; Yin et al. 2012) divided by the number of customers.

    Examples
    --------
    >>> popularity(np.array([[0, 1]]), 2, np.array([8, 2]), 8).tolist()
    [0.625]
    """
    return _mean_over_list(ids, k, np.asarray(item_customers, dtype=np.float64) / n_customers)


def popularity_of_relevant(truth: sparse.csr_matrix, item_customers: NDArray[Any], n_customers: int) -> Values:
    """Mean share of customers who interacted with a relevant item, shape (n,).

    The popularity lift of a model, mean(`popularity`) / mean(`popularity_of_relevant`) − 1, is its popularity bias: how
    much more popular the listed items are than the relevant ones (after Abdollahpouri et al. 2019, who compare with the
    items of the profile instead).
    """
    rows = np.repeat(np.arange(truth.shape[0]), np.diff(truth.indptr))
    shares = np.asarray(item_customers, dtype=np.float64)[truth.indices] / n_customers
    return _ratio(np.bincount(rows, weights=shares, minlength=truth.shape[0]), np.diff(truth.indptr))


def diversity(ids: Ids, k: int, codes: NDArray[np.integer[Any]]) -> Values:
    """Intra-list diversity: mean distance of the pairs of items in a list.

    Source: Smyth & McClave 2001; 1 − the similarity of Ziegler et al. 2005. The distance of two items is the share of
    the attributes known for both in which they differ: the Hamming distance that RecTools sums, divided by the number
    of attributes. Pairs without a common known attribute are left out; a list without pairs is NaN (0 in RecTools).

    Parameters
    ----------
    ids : ndarray of int, shape (n, ≥ k)
        Ranked item indices.
    k : int
        Length of the evaluated lists.
    codes : ndarray of int, shape (n_items, n_attributes)
        Result of `attribute_codes` or `level_codes`; −1 for unknown.

    Returns
    -------
    ndarray, shape (n,)
        From 0 (identical attributes) to 1.

    Examples
    --------
    >>> diversity(np.array([[0, 1, 2]]), 3, np.array([[0], [0], [1]])).round(3).tolist()
    [0.667]
    """
    top = ids[:, :k].astype(np.int64)
    n, width = top.shape
    first, second = np.triu_indices(width, 1)
    result = np.full(n, np.nan)
    if not len(first):
        return result
    block = max(1, PAIR_CELLS // len(first))
    for start in range(0, n, block):
        listed = top[start : start + block]
        apart = np.zeros((len(listed), len(first)))
        known = np.zeros_like(apart)
        for column in codes.T:
            of = np.where(listed >= 0, column[listed], -1)
            left, right = of[:, first], of[:, second]
            both = (left >= 0) & (right >= 0)
            known += both
            apart += both & (left != right)
        result[start : start + block] = _ratio(_ratio(apart, known, 0.0).sum(axis=1), (known > 0).sum(axis=1))
    return result


def attribute_codes(attributes: Mapping[str, NDArray[Any]]) -> NDArray[np.int64]:
    """Integer codes of text attributes of items, shape (n_items, n_attributes); −1 for '' (unknown).

    Examples
    --------
    >>> attribute_codes({"brand": np.array(["b", "", "a"])}).tolist()
    [[1], [-1], [0]]
    """
    return np.stack([_codes(np.asarray(values, dtype=np.str_)) for values in attributes.values()], axis=1)


def level_codes(categories: NDArray[np.str_]) -> NDArray[np.int64]:
    """Integer codes of each level of categories like ``food/fruit``, shape (n_items, depth); −1 for unknown.

    Items that share more levels have a smaller distance in `diversity`.

    Examples
    --------
    >>> level_codes(np.array(["food/fruit", "food/bread", "toys", ""])).tolist()
    [[0, 1], [0, 0], [1, 2], [-1, -1]]
    """
    names, of = np.unique(np.asarray(categories, dtype=np.str_), return_inverse=True)
    paths = [name.split("/") for name in names.tolist()]
    depth = max(map(len, paths), default=1)
    levels = {
        str(level): np.array(["/".join(path[: level + 1]) for path in paths], dtype=np.str_)[of]
        for level in range(depth)
    }
    return attribute_codes(levels)


def _codes(values: NDArray[np.str_]) -> NDArray[np.int64]:
    names, codes = np.unique(values, return_inverse=True)
    unknown = int(len(names) > 0 and names[0] == "")  # '' sorts first
    return codes.astype(np.int64) - unknown


def _sorted(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """The matrix in canonical form: indices sorted, no duplicate entries, no stored zeros."""
    if matrix.has_canonical_format and matrix.nnz == np.count_nonzero(matrix.data):
        return matrix
    tidy = sparse.csr_matrix(matrix, copy=True)
    tidy.sum_duplicates()
    tidy.eliminate_zeros()
    return tidy


def _has_entry(matrix: sparse.csr_matrix, rows: NDArray[np.int64], columns: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether a sorted matrix has an entry at each (row, column), shape (m,)."""
    if not matrix.nnz:
        return np.zeros(len(rows), dtype=bool)
    width = np.int64(matrix.shape[1])
    held = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr)) * width + matrix.indices
    wanted = rows * width + columns
    found: NDArray[np.bool_] = held[np.minimum(np.searchsorted(held, wanted), len(held) - 1)] == wanted
    return found


def _ideal_dcg(ideal_dcgs: Values, lengths: Values) -> Values:
    """Ideal DCG of lists of these lengths; NaN for NaN."""
    known = np.isfinite(lengths)
    result = np.full(len(lengths), np.nan)
    result[known] = ideal_dcgs[lengths[known].astype(np.int64) - 1]
    return result


def _mean_over_list(ids: Ids, k: int, values: Values) -> Values:
    top = ids[:, :k]
    listed = top >= 0
    return _ratio(np.where(listed, values[top], 0.0).sum(axis=1), listed.sum(axis=1))


def _ratio(part: NDArray[Any], whole: NDArray[Any], fill_value: float = np.nan) -> Values:
    result = np.full(np.shape(part), fill_value)
    np.divide(part, whole, out=result, where=np.asarray(whole) > 0)
    return result
