"""Metrics of recommended lists, one value a customer.

Lists are arrays of item indices (n, ≥ k), best first, −1 for none, an item at most once in a row. What was right is a sparse matrix (n, n_items),
non-zero where the customer took the item. A customer for whom a metric has no meaning (nothing was taken, nothing was listed) gets NaN and
is left out of its mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from models.recommend.base import entry_positions
from qianmian.errors import UsageError

STANDARD = ("recall", "ndcg", "map", "mrr", "precision", "hit_rate")  # the project's conventions
PUBLISHED = ("recall_of_taken", "ndcg_of_taken", "ndcg_of_k", "map_of_taken")  # those of others, where they differ
PAIR_CELLS = 8_000_000  # item pairs compared at a time

Values = NDArray[np.float64]
Ids = NDArray[np.integer[Any]]


def hits(ids: Ids, truth: sparse.csr_matrix, k: int) -> NDArray[np.bool_]:
    """Which places of the first k were right, (n, min(k, width))."""
    top = ids[:, :k].astype(np.int64)
    return entry_positions(_sorted(truth), top) >= 0


def ranking_metrics(ids: Ids, truth: sparse.csr_matrix, k: int, names: Sequence[str] = STANDARD) -> dict[str, Values]:
    """How well the first k places of each list name what was taken.

    With t items taken, of which h stand among the first k, rel(i) = 1 where place i is right, d(i) = 1 / log2(i + 1):

    ===================  ==================================  =======================================================================
    name                 value                               source; who else counts so
    ===================  ==================================  =======================================================================
    ``recall``           h / min(k, t)                       of what k places could hold, so that 1 can always be reached
    ``recall_of_taken``  h / t                               Manning, Raghavan & Schütze 2008, §8.3; trec_eval, RecTools, LightGCN,
                                                             Li et al. 2023
    ``precision``        h / k, also of a shorter list       Manning et al. 2008, §8.4; trec_eval, RecTools
    ``ndcg``             Σ rel(i) d(i) / Σ_{i ≤ min(k,t)} d  Järvelin & Kekäläinen 2002, binary gains; trec_eval, LightGCN
    ``ndcg_of_taken``    Σ rel(i) d(i) / Σ_{i ≤ t} d         the code of Li et al. 2023: the ideal list is as long as the basket
    ``ndcg_of_k``        Σ rel(i) d(i) / Σ_{i ≤ k} d         RecTools' default: the ideal list is always k long
    ``map``              Σ rel(i) precision(i) / min(k, t)   of what k places could hold
    ``map_of_taken``     Σ rel(i) precision(i) / t           Manning et al. 2008, §8.4, cut at k; trec_eval, RecTools
    ``mrr``              1 / place of the first right one    Voorhees 1999; trec_eval, RecTools
    ``hit_rate``         1 where h > 0                       next-basket papers' PHR (personalised hit ratio; Li et al. 2023)
    ===================  ==================================  =======================================================================

    Parameters
    ----------
    ids : ndarray of int, (n, ≥ k)
    truth : csr_matrix, (n, n_items)
    k : int
        ≥ 1.
    names : sequence of str
        Of the table; default `STANDARD`.

    Returns
    -------
    dict of str to ndarray, each (n,)
        0..1; NaN for a customer who took nothing.

    Raises
    ------
    UsageError
        For a name not in the table, k < 1, or lists and truth of different customers.

    Examples
    --------
    >>> got = ranking_metrics(np.array([[2, 0]]), sparse.csr_matrix([[1, 0, 0]]), 2)
    >>> float(got["recall"][0]), round(float(got["ndcg"][0]), 4), float(got["mrr"][0])
    (1.0, 0.6309, 0.5)
    """
    known = STANDARD + PUBLISHED
    if unknown := [name for name in names if name not in known]:
        raise UsageError("there is no such ranking metric", got=unknown, allowed=list(known))
    if k < 1 or len(ids) != truth.shape[0]:
        raise UsageError(
            "lists and truth must be of the same customers and k at least 1", got=(len(ids), truth.shape[0], k)
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
    """The repeat and the explore part of a list apart (Li et al. 2023, "A Next Basket Recommendation Reality Check").

    Both parts are of one list of k: a place spent on one is not there for the other. The recalls divide by min(k, items of the part), as
    `recall` does, and the share is of the places filled; Li et al. divide by all items of the part, and by k.

    Parameters
    ----------
    history : csr_matrix, (n, n_items)
        Non-zero where the customer had the item before.

    Returns
    -------
    dict of str to ndarray, each (n,)
        ``repeat_recall`` over items taken that were had before, ``explore_recall`` over those that never were (NaN for a customer without
        such); ``repeat_share`` of the list and ``repeat_share_taken`` of what was taken (NaN for an empty one).

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
    """Share of the catalogue that at least one customer was shown (Ge, Delgado-Battenfeld & Jannach 2010, "catalog coverage").

    Examples
    --------
    >>> coverage(np.array([[0, 1], [0, -1]]), 2, 4)
    0.5
    """
    top = ids[:, :k]
    return float(np.count_nonzero(np.bincount(top[top >= 0], minlength=n_items)) / n_items)


def inverse_user_frequency(ids: Ids, k: int, item_customers: NDArray[Any], n_customers: int) -> Values:
    """Novelty: mean of −log2(share of customers who had the item) over a list (Zhou et al. 2010; MIUF of Castells, Vargas & Wang 2011).

    An item nobody had counts as had by one, as in RecTools.

    Parameters
    ----------
    item_customers : ndarray of int, (n_items,)
        Distinct customers an item, before the cut.
    n_customers : int
        Distinct customers of anything, before the cut.

    Returns
    -------
    ndarray, (n,)
        Bits, 0 (everybody had it) to log2(n_customers).

    Examples
    --------
    >>> inverse_user_frequency(np.array([[0, 1]]), 2, np.array([8, 2]), 8).tolist()
    [1.0]
    """
    return _mean_over_list(ids, k, -np.log2(np.maximum(item_customers, 1) / n_customers))


def popularity(ids: Ids, k: int, item_customers: NDArray[Any], n_customers: int) -> Values:
    """Mean share of customers who had a listed item: average recommendation popularity, ARP (Yin et al. 2012), over the number of customers.

    Examples
    --------
    >>> popularity(np.array([[0, 1]]), 2, np.array([8, 2]), 8).tolist()
    [0.625]
    """
    return _mean_over_list(ids, k, np.asarray(item_customers, dtype=np.float64) / n_customers)


def popularity_of_relevant(truth: sparse.csr_matrix, item_customers: NDArray[Any], n_customers: int) -> Values:
    """The same of what was taken, (n,).

    The lift of a model, mean(`popularity`) / mean(`popularity_of_relevant`) − 1, is its popularity bias: how much more popular than what
    people take its lists are (after Abdollahpouri et al. 2019, who compare with the profile instead).
    """
    rows = np.repeat(np.arange(truth.shape[0]), np.diff(truth.indptr))
    shares = np.asarray(item_customers, dtype=np.float64)[truth.indices] / n_customers
    return _ratio(np.bincount(rows, weights=shares, minlength=truth.shape[0]), np.diff(truth.indptr))


def diversity(ids: Ids, k: int, codes: NDArray[np.integer[Any]]) -> Values:
    """Intra-list diversity: mean distance of two items of a list (Smyth & McClave 2001; 1 − the similarity of Ziegler et al. 2005).

    The distance of two items is the share of known attributes in which they differ: the Hamming distance RecTools sums, over their number.
    Pairs of which no attribute of both is known are left out; a list without any pair is NaN (RecTools: 0).

    Parameters
    ----------
    codes : ndarray of int, (n_items, a)
        What `attribute_codes` or `level_codes` makes; −1 unknown.

    Returns
    -------
    ndarray, (n,)
        0 (all alike) to 1.

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
    """Text attributes of items as codes, (n_items, number of attributes); '' is unknown, −1.

    Examples
    --------
    >>> attribute_codes({"brand": np.array(["b", "", "a"])}).tolist()
    [[1], [-1], [0]]
    """
    return np.stack([_codes(np.asarray(values, dtype=np.str_)) for values in attributes.values()], axis=1)


def level_codes(categories: NDArray[np.str_]) -> NDArray[np.int64]:
    """Categories whose levels are joined by ``/`` as codes a level, (n_items, depth): items that part later are nearer.

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
    """A matrix of which `indptr` counts what is taken: no double entries, no stored zeros, sorted."""
    if matrix.has_canonical_format and matrix.nnz == np.count_nonzero(matrix.data):
        return matrix
    tidy = sparse.csr_matrix(matrix, copy=True)
    tidy.sum_duplicates()
    tidy.eliminate_zeros()
    return tidy


def _has_entry(matrix: sparse.csr_matrix, rows: NDArray[np.int64], columns: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether a sorted matrix has an entry at each (row, column), (m,)."""
    if not matrix.nnz:
        return np.zeros(len(rows), dtype=bool)
    width = np.int64(matrix.shape[1])
    held = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr)) * width + matrix.indices
    wanted = rows * width + columns
    found: NDArray[np.bool_] = held[np.minimum(np.searchsorted(held, wanted), len(held) - 1)] == wanted
    return found


def _ideal_dcg(ideal_dcgs: Values, lengths: Values) -> Values:
    """The ideal gain of lists so long; NaN of NaN."""
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
