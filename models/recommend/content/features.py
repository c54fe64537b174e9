"""Features of a (user, content) pair: interest in topics, similarity by readers, engagement rate of the content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.interactions import Interactions
from models.persist import Arrays, pack_csr, unpack_csr
from models.recommend.content.words import TopicMatrices

FEATURES = ("read", "bought", "alike", "shown", "readers", "rate", "age", "new")
NON_NEGATIVE = FEATURES[:6]  # features whose weight may not be negative
READ_PRIOR, BOUGHT_PRIOR = 3.0, 20.0  # weight of the prior of an interest, in engagements and in log-purchases
MEMBER_PRIOR = 20.0  # weight of the prior of an attribute's interests, in customers
MIN_LIFT = 1e-3  # smallest lift, so that its logarithm is finite
MIN_TIMES = 3  # smallest number of purchases from which a purchase interval is estimated
USERS = 256  # users whose features are held in memory at a time
MIN_PRIOR, MAX_PRIOR = 2.0, 1000.0  # limits of the weight of the expected rate, in readers
FADED_HALF_LIVES = 30.0  # ages are limited to this many half-lives, after which the weight is negligible
TOPIC_READERS = 50.0  # weight of the overall rate in the rate of a topic, in readers
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ContentStatistics:
    """The statistics before a cutoff from which the features are computed.

    Attributes
    ----------
    about : csr_matrix, (n_contents, w)
        As `TopicMatrices.contents`.
    read_share, bought_share : ndarray of float32, (w,)
        Share of each word in the reading and in the purchases of all customers.
    counts : csr_matrix, (n_users, n_contents)
        Decayed engagement.
    bought : csr_matrix, (n_users, w)
        Decayed purchases of each customer by word. An item counts ``log(1 + times)``, because weekly purchases are not
        a proportionally stronger interest.
    shows : csr_matrix, (n_users, n_contents)
        Degree to which a content shows items that the customer buys, 0 … 1.
    traits : csr_matrix, (n_users, a)
        Profile attributes, 0/1.
    of_traits : ndarray of float32, (a, n_contents)
        Lift of the words of each content among customers with each attribute, minus 1.
    alike : csr_matrix, (n_contents, n_contents)
        Similarity by readers, 0 … 1.
    expected : ndarray of float32, (n_contents,)
        Mean similarity to the contents that the customers engaged with.
    rate, uncertainty : ndarray of float32, (n_contents,)
        Log of the posterior mean of the engagement rate, and ``log((mean + σ) / mean)``.
    age : ndarray of float32, (n_contents,)
        ``log(1 + days since the first engagement)``; 0 for a content without engagement.
    new : ndarray of float32, (n_contents,)
        1 for a content without engagement, else 0.
    """

    about: sparse.csr_matrix
    read_share: Floats
    bought_share: Floats
    counts: sparse.csr_matrix
    bought: sparse.csr_matrix
    shows: sparse.csr_matrix
    traits: sparse.csr_matrix
    of_traits: Floats
    alike: sparse.csr_matrix
    expected: Floats
    rate: Floats
    uncertainty: Floats
    age: Floats
    new: Floats

    @classmethod
    def of(
        cls,
        data: Interactions,
        purchases: Interactions | None,
        words: TopicMatrices,
        traits: sparse.csr_matrix,
        half_life_days: float,
        purchase_half_life_days: float,
        shrinkage: float,
    ) -> ContentStatistics:
        """Compute the statistics from engagement and purchases."""
        counts = data.matrix(half_life_days)
        n_users, n_contents = data.shape
        bought = sparse.csr_matrix((n_users, words.items.shape[1]), dtype=np.float32)
        shows = sparse.csr_matrix(data.shape, dtype=np.float32)
        if purchases is not None and len(purchases.users):
            purchased = purchases.matrix(purchase_half_life_days)
            damped = purchased.copy()
            damped.data = np.log1p(damped.data)
            bought = (damped @ words.items).tocsr()
            shows = (_saturated(purchased, due_ratio(purchases, purchased)) @ words.shown.T.tocsr()).tocsr()
            shows.data = np.minimum(shows.data, np.float32(1.0))
        read = (counts @ words.contents).tocsr()
        read_share = _share(read)
        rate, uncertainty = engagement_rates(data, words.contents, half_life_days)
        first = np.full(n_contents, -1.0, dtype=np.float32)
        np.maximum.at(first, data.items, data.age_days)
        alike = reader_similarity(data, shrinkage)
        return cls(
            words.contents,
            read_share,
            _share(bought),
            counts,
            bought,
            shows,
            traits,
            _attribute_lift(traits, read, words.contents, read_share),
            alike,
            _expected(counts, alike),
            rate,
            uncertainty,
            np.log1p(np.maximum(first, 0.0)),
            (first < 0).astype(np.float32),
        )

    def features(self, counts: sparse.csr_matrix, users: NDArray[np.int64], traits: sparse.csr_matrix) -> list[Floats]:
        """Compute each of `FEATURES` for users and all contents, (n, n_contents) or (1, n_contents).

        Parameters
        ----------
        counts : csr_matrix, (n, n_contents)
            Current decayed engagement of the users.
        users : ndarray of int64, (n,)
            User indices; −1 is an unknown user.
        traits : csr_matrix, (n, a)
            Profile attributes of the users, 0/1.
        """
        known = sparse.diags((users >= 0).astype(np.float32))
        inside = np.maximum(users, 0)
        total = np.asarray(counts.sum(axis=1), dtype=np.float32)
        confidence = (total / (total + np.float32(READ_PRIOR))).reshape(-1, 1)
        read = log_lift(counts @ self.about, self.about, self.read_share, READ_PRIOR)
        if self.counts.shape[0]:
            bought = known @ self.bought[inside]
            shown = (known @ self.shows[inside]).toarray()
        else:
            bought = sparse.csr_matrix((len(users), self.about.shape[1]), dtype=np.float32)
            shown = np.zeros_like(read)
        n_traits = np.maximum(np.asarray(traits.sum(axis=1), dtype=np.float32), np.float32(1.0)).reshape(-1, 1)
        alike = np.log(np.maximum(1.0 + (traits @ self.of_traits) / n_traits, np.float32(MIN_LIFT)))
        # similarity beyond the expected one: an old content has more readers without being more relevant
        readers = (_readers(counts, self.alike) - self.expected) * confidence
        of_bought = log_lift(bought, self.about, self.bought_share, BOUGHT_PRIOR)
        return [
            read,
            of_bought,
            np.asarray(alike, dtype=np.float32),
            shown,
            readers,
            self.rate[None],
            self.age[None],
            self.new[None],
        ]

    def pairs(self, users: NDArray[np.int64], contents: NDArray[np.integer[Any]]) -> Floats:
        """Compute the features of contents (n, m) for n users, (n, m, f)."""
        found = np.empty((*contents.shape, len(FEATURES)), dtype=np.float32)
        for start in range(0, len(users), USERS):
            some = slice(start, start + USERS)
            own, rows = users[some], np.arange(len(users[some]))[:, None]
            values = self.features(self.counts[own], own, self.traits[own])
            for place, value in enumerate(values):
                found[some, :, place] = value[rows if len(value) > 1 else 0, contents[some]]
        return found

    def state(self) -> Arrays:
        """Return the statistics as arrays, for saving."""
        kept: Arrays = {name: getattr(self, name) for name in _ARRAYS}
        for name in _MATRICES:
            kept |= pack_csr(name, getattr(self, name))
        return kept

    @classmethod
    def restored(cls, state: Arrays) -> ContentStatistics:
        """Build the statistics from the arrays of `state`."""
        return cls(**{name: unpack_csr(name, state) for name in _MATRICES}, **{name: state[name] for name in _ARRAYS})


_MATRICES = ("about", "counts", "bought", "shows", "traits", "alike")
_ARRAYS = ("read_share", "bought_share", "of_traits", "expected", "rate", "uncertainty", "age", "new")


def log_lift(words: sparse.csr_matrix, about: sparse.csr_matrix, share: Floats, few: float) -> Floats:
    """Compute the log-lift of the words of each content in the interests of each customer, (n, n_contents).

    The share of word w for a customer is ``(n(w) + few × share(w)) / (n + few)`` (Dirichlet smoothing). The lift of a
    content is the mean, over its words, of that share over the share of all customers. A word without any engagement
    has lift 1.

    Parameters
    ----------
    words : csr_matrix, (n, w)
        Engagement or purchases of the customers by word.
    about : csr_matrix, (n_contents, w)
        Words of the contents; rows sum to 1 or are empty.
    share : ndarray of float32, (w,)
        Share of each word for all customers.
    few : float
        Weight of the prior.

    Examples
    --------
    >>> likes, about = sparse.csr_matrix([[4.0, 0.0]]), sparse.csr_matrix([[1.0, 0.0], [0.0, 1.0]])
    >>> np.exp(log_lift(likes, about, np.array([0.5, 0.5], np.float32), 4.0)).round(2).tolist()
    [[1.5, 0.5]]
    """
    known = share > 0
    inverse = sparse.diags(np.where(known, 1.0 / np.maximum(share, 1e-12), 0.0).astype(np.float32))
    unknown = 1.0 - np.asarray(about @ known.astype(np.float32), dtype=np.float32).ravel()
    total = np.asarray(words.sum(axis=1), dtype=np.float32).reshape(-1, 1)
    lift = (
        (words @ inverse @ about.T.tocsr()).toarray()
        + np.float32(few) * (1.0 - unknown)
        + (total + np.float32(few)) * unknown
    ) / (total + np.float32(few))
    return np.asarray(np.log(np.maximum(lift, MIN_LIFT)), dtype=np.float32)


def _share(words: sparse.csr_matrix) -> Floats:
    """Return the share of each word in the sum over all rows, (w,)."""
    summed = np.asarray(words.sum(axis=0), dtype=np.float64).ravel()
    return np.asarray(summed / max(float(summed.sum()), 1e-12), dtype=np.float32)


def _readers(counts: sparse.csr_matrix, alike: sparse.csr_matrix) -> Floats:
    """Return the mean similarity to the contents that each customer engaged with, (n, n_contents)."""
    total = np.maximum(np.asarray(counts.sum(axis=1), dtype=np.float32), np.float32(1e-9)).reshape(-1, 1)
    return np.asarray((counts @ alike).toarray() / total, dtype=np.float32)


def _expected(counts: sparse.csr_matrix, alike: sparse.csr_matrix) -> Floats:
    """Return the mean of `_readers` over the customers with any engagement, (n_contents,)."""
    total = np.asarray(counts.sum(axis=1)).ravel()
    share = (1.0 / np.maximum(total, 1e-9) * (total > 0)) @ counts / max(int((total > 0).sum()), 1)
    return np.asarray(share @ alike, dtype=np.float32).ravel()


def reader_similarity(data: Interactions, shrinkage: float) -> sparse.csr_matrix:
    """Return the cosine of the readers of contents times ``shared / (shared + shrinkage)``, with a zero diagonal."""
    met = data.matrix()
    met.data[:] = 1.0
    shared = (met.T @ met).tocoo()
    many = np.maximum(np.asarray(met.sum(axis=0)).ravel(), 1.0)
    other = shared.row != shared.col
    row, column, value = shared.row[other], shared.col[other], shared.data[other].astype(np.float64)
    alike = value / np.sqrt(many[row] * many[column]) * value / (value + shrinkage)
    found = sparse.csr_matrix((alike.astype(np.float32), (row, column)), shape=shared.shape)
    found.sort_indices()
    return found


def engagement_rates(data: Interactions, topics: sparse.csr_matrix, half_life_days: float) -> tuple[Floats, Floats]:
    """Estimate the engagement rate of each content (empirical Bayes, Beta–binomial).

    Every reader of a day is a trial of every content that existed on that day, which is from its first event on; trials
    decay with `half_life_days`. With n engagements in N trials, the posterior mean of the rate is
    ``(a + n) / (a + b + N)``. The mean of the prior is the rate of the topics of the content, and its weight ``a + b``
    comes from the method of moments over contents (Robbins 1956; Casella 1985).

    Returns
    -------
    rate, uncertainty : ndarray of float32, (n_contents,)
        Logarithm of the posterior mean, and ``log((mean + σ) / mean)``.
    """
    n_contents = data.shape[1]
    if not len(data.users):
        return np.zeros(n_contents, np.float32), np.zeros(n_contents, np.float32)
    day = np.floor(np.minimum(data.age_days, FADED_HALF_LIVES * half_life_days)).astype(np.int64)
    reader_days = np.unique(data.users.astype(np.int64) * (day.max() + 1) + day) % (day.max() + 1)
    decay = np.exp2(-np.arange(day.max() + 1) / half_life_days)
    until = np.cumsum(np.bincount(reader_days, minlength=len(decay)) * decay)
    engaged = np.unique((data.users.astype(np.int64) * n_contents + data.items) * (day.max() + 1) + day)
    contents = engaged // (day.max() + 1) % n_contents
    n = np.bincount(contents, decay[engaged % (day.max() + 1)], minlength=n_contents)
    first = np.full(n_contents, -1)
    np.maximum.at(first, data.items, day)
    trials = np.where(first >= 0, until[np.maximum(first, 0)], 0.0)
    met = trials > 0
    overall = n.sum() / trials.sum()
    by_topic = (topics > 0).T.astype(np.float64)
    expected = (by_topic @ n + TOPIC_READERS * overall) / (by_topic @ trials + TOPIC_READERS)
    many = np.asarray((topics > 0).sum(axis=1)).ravel()
    prior = np.where(many > 0, ((topics > 0) @ expected) / np.maximum(many, 1), overall)
    found = n[met] / trials[met]
    spread = float(np.var(found / prior[met]) * overall**2) if met.sum() > 1 else 0.0
    weight = np.clip(overall * (1.0 - overall) / max(spread, 1e-12) - 1.0, MIN_PRIOR, MAX_PRIOR)
    a, b = prior * weight + n, (1.0 - prior) * weight + np.maximum(trials - n, 0.0)
    mean = np.maximum(a / (a + b), 1e-9)
    deviation = np.sqrt(a * b / ((a + b) ** 2 * (a + b + 1.0)))
    return np.log(mean).astype(np.float32), np.log1p(deviation / mean).astype(np.float32)


def due_ratio(purchases: Interactions, purchased: sparse.csr_matrix) -> Floats:
    """Return how due each (user, item) pair of `purchased` is, 0 … 1.

    The ratio is the days since the last purchase over the mean gap of the pair, at most 1. It is 1 for a pair with
    fewer than `MIN_TIMES` purchases.
    """
    pairs = purchases.users.astype(np.int64) * purchased.shape[1] + purchases.items
    order = np.lexsort((purchases.age_days, pairs))
    _, first, times = np.unique(pairs[order], return_index=True, return_counts=True)
    newest, oldest = purchases.age_days[order][first], purchases.age_days[order][first + times - 1]
    gap = (oldest - newest) / np.maximum(times - 1, 1)
    ratio = np.minimum(newest / np.maximum(gap, 1e-6), 1.0)
    return np.where((times >= MIN_TIMES) & (gap > 0), ratio, 1.0).astype(np.float32)


def unit_rows(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """Scale rows to norm 1; empty rows stay empty."""
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return (sparse.diags((1.0 / np.maximum(lengths, 1e-12)).astype(np.float32)) @ matrix).tocsr().astype(np.float32)


def _saturated(purchased: sparse.csr_matrix, share_due: Floats) -> sparse.csr_matrix:
    bought = purchased.copy()
    bought.data = bought.data / (bought.data + 1.0) * (0.5 + 0.5 * share_due)
    return bought.astype(np.float32)


def _attribute_lift(
    traits: sparse.csr_matrix, read: sparse.csr_matrix, about: sparse.csr_matrix, share: Floats
) -> Floats:
    """Return the lift of each content among the readers with each attribute, minus 1, shrunk to 0, (a, n_contents)."""
    total = np.asarray(read.sum(axis=1)).ravel()
    shares = sparse.diags((1.0 / np.maximum(total, 1e-9) * (total > 0)).astype(np.float32)) @ read
    members = (traits.T @ (total > 0).astype(np.float32)).reshape(-1, 1)
    inverse = sparse.diags(np.where(share > 0, 1.0 / np.maximum(share, 1e-12), 0.0).astype(np.float32))
    known = np.asarray(about @ (share > 0).astype(np.float32), dtype=np.float32).ravel()
    lift = (traits.T @ shares @ inverse @ about.T.tocsr()).toarray() - members * known
    return np.asarray(lift / (members + np.float32(MEMBER_PRIOR)), dtype=np.float32)
