"""What is known of contents and of what customers like to read, as numbers that can be compared."""

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
NON_NEGATIVE = FEATURES[:6]  # what can only speak for a content
READ_PRIOR, BOUGHT_PRIOR = 3.0, 20.0  # engagements, and (logarithms of) purchases, that a taste is seen against
MEMBER_PRIOR = 20.0  # customers that an attribute's taste is seen against
MIN_LIFT = 1e-3
MIN_TIMES = 3  # bought so often, an item has a rhythm
USERS = 256  # whose features are held at a time
MIN_PRIOR, MAX_PRIOR = 2.0, 1000.0  # readers that the expected rate counts for
FADED_HALF_LIVES = 30.0  # after so many nothing is left
TOPIC_READERS = 50.0  # readers that the overall rate counts for in that of a topic
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ContentStatistics:
    """Everything the features are made of, at one moment.

    Attributes
    ----------
    about : csr_matrix, (n_contents, w)
        As `TopicMatrices.contents`.
    read_share, bought_share : ndarray of float32, (w,)
        Share of each word in what everybody reads, and buys.
    counts : csr_matrix, (n_users, n_contents)
        Faded engagement.
    bought : csr_matrix, (n_users, w)
        Words of what each customer buys, faded, an item counting ``log(1 + times)``: what is bought every week is no more of a taste.
    shows : csr_matrix, (n_users, n_contents)
        How far a content shows what the customer buys, 0..1.
    traits : csr_matrix, (n_users, a)
        Profile attributes, 0/1.
    of_traits : ndarray of float32, (a, n_contents)
        How many times as often as everybody customers with each attribute meet what a content is about, less 1.
    alike : csr_matrix, (n_contents, n_contents)
        Likeness by readers, 0..1.
    expected : ndarray of float32, (n_contents,)
        Likeness to what everybody met.
    rate, uncertainty : ndarray of float32, (n_contents,)
        Log of the posterior mean of the share of readers engaged, and ``log((mean + σ) / mean)``.
    age : ndarray of float32, (n_contents,)
        ``log(1 + days since somebody first met it)``, 0 where nobody did.
    new : ndarray of float32, (n_contents,)
        1 where nobody met it.
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
        """From what was read and bought before one moment."""
        counts = data.matrix(half_life_days)
        n_users, n_contents = data.shape
        bought, shows = (
            sparse.csr_matrix((n_users, words.items.shape[1]), dtype=np.float32),
            sparse.csr_matrix(data.shape, dtype=np.float32),
        )
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
        """Each of `FEATURES` for customers and all contents, (n, n_contents) or (1, n_contents).

        Parameters
        ----------
        counts : csr_matrix, (n, n_contents)
            Their faded engagement now.
        traits : csr_matrix, (n, a)
            Their attributes.
        """
        known = sparse.diags((users >= 0).astype(np.float32))
        inside, nobody = np.maximum(users, 0), not self.counts.shape[0]
        total = np.asarray(counts.sum(axis=1), dtype=np.float32)
        some = (total / (total + np.float32(READ_PRIOR))).reshape(-1, 1)
        read = log_lift(counts @ self.about, self.about, self.read_share, READ_PRIOR)
        bought = (
            sparse.csr_matrix((len(users), self.about.shape[1]), dtype=np.float32)
            if nobody
            else known @ self.bought[inside]
        )
        shown = np.zeros_like(read) if nobody else (known @ self.shows[inside]).toarray()
        many = np.maximum(np.asarray(traits.sum(axis=1), dtype=np.float32), np.float32(1.0)).reshape(-1, 1)
        alike = np.log(np.maximum(1.0 + (traits @ self.of_traits) / many, np.float32(MIN_LIFT)))
        # beyond what anybody's reading lets expect: an old content has met more readers, and is no better for it
        readers = (_readers(counts, self.alike) - self.expected) * some
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
        """The features of given contents (n, m) for n customers, (n, m, f)."""
        found = np.empty((*contents.shape, len(FEATURES)), dtype=np.float32)
        for start in range(0, len(users), USERS):
            some = slice(start, start + USERS)
            own, rows = users[some], np.arange(len(users[some]))[:, None]
            values = self.features(self.counts[own], own, self.traits[own])
            for place, value in enumerate(values):
                found[some, :, place] = value[rows if len(value) > 1 else 0, contents[some]]
        return found

    def state(self) -> Arrays:
        """As arrays."""
        kept: Arrays = {name: getattr(self, name) for name in _ARRAYS}
        for name in _MATRICES:
            kept |= pack_csr(name, getattr(self, name))
        return kept

    @classmethod
    def restored(cls, state: Arrays) -> ContentStatistics:
        """The inverse of `state`."""
        return cls(**{name: unpack_csr(name, state) for name in _MATRICES}, **{name: state[name] for name in _ARRAYS})


_MATRICES = ("about", "counts", "bought", "shows", "traits", "alike")
_ARRAYS = ("read_share", "bought_share", "of_traits", "expected", "rate", "uncertainty", "age", "new")


def log_lift(words: sparse.csr_matrix, about: sparse.csr_matrix, share: Floats, few: float) -> Floats:
    """How much more a customer cares for what each content is about than everybody does, as a logarithm, (n, n_contents).

    A customer's share of a word is ``(n(w) + few × share(w)) / (n + few)`` (Dirichlet smoothing); the lift of a content is the mean over its words
    of that share over everybody's. Words everybody's reading (or buying) knows nothing of say nothing.

    Parameters
    ----------
    words : csr_matrix, (n, w)
        What the customers read or bought, by word.
    about : csr_matrix, (n_contents, w)
        Rows sum to 1, or are empty.

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
    """Of each word in all, (w,)."""
    summed = np.asarray(words.sum(axis=0), dtype=np.float64).ravel()
    return np.asarray(summed / max(float(summed.sum()), 1e-12), dtype=np.float32)


def _readers(counts: sparse.csr_matrix, alike: sparse.csr_matrix) -> Floats:
    """Mean likeness to what each customer met, (n, n_contents)."""
    total = np.maximum(np.asarray(counts.sum(axis=1), dtype=np.float32), np.float32(1e-9)).reshape(-1, 1)
    return np.asarray((counts @ alike).toarray() / total, dtype=np.float32)


def _expected(counts: sparse.csr_matrix, alike: sparse.csr_matrix) -> Floats:
    """The mean of `_readers` over those who met anything, (n_contents,)."""
    total = np.asarray(counts.sum(axis=1)).ravel()
    share = (1.0 / np.maximum(total, 1e-9) * (total > 0)) @ counts / max(int((total > 0).sum()), 1)
    return np.asarray(share @ alike, dtype=np.float32).ravel()


def reader_similarity(data: Interactions, shrinkage: float) -> sparse.csr_matrix:
    """Cosine of the contents' readers, times ``shared / (shared + shrinkage)``; nothing with itself."""
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
    """Log of the share of readers each content engages, and how much more it may be, (n_contents,) each.

    A reader of a day counts as a chance for every content that was there, which it is since its first event; fading with `half_life_days`. Of n
    chances taken out of N, the rate has a Beta posterior with mean ``(a + n) / (a + b + N)``. The prior's mean is that of the content's
    topics, its weight ``a + b`` by the method of moments over contents (Robbins 1956; Casella 1985).
    """
    n_contents = data.shape[1]
    if not len(data.users):
        return np.zeros(n_contents, np.float32), np.zeros(n_contents, np.float32)
    day = np.floor(np.minimum(data.age_days, FADED_HALF_LIVES * half_life_days)).astype(np.int64)
    reader_days = np.unique(data.users.astype(np.int64) * (day.max() + 1) + day) % (day.max() + 1)
    fading = np.exp2(-np.arange(day.max() + 1) / half_life_days)
    until = np.cumsum(np.bincount(reader_days, minlength=len(fading)) * fading)
    engaged = np.unique((data.users.astype(np.int64) * n_contents + data.items) * (day.max() + 1) + day)
    contents = engaged // (day.max() + 1) % n_contents
    n = np.bincount(contents, fading[engaged % (day.max() + 1)], minlength=n_contents)
    first = np.full(n_contents, -1)
    np.maximum.at(first, data.items, day)
    chances = np.where(first >= 0, until[np.maximum(first, 0)], 0.0)
    met = chances > 0
    overall = n.sum() / chances.sum()
    by_topic = (topics > 0).T.astype(np.float64)
    expected = (by_topic @ n + TOPIC_READERS * overall) / (by_topic @ chances + TOPIC_READERS)
    many = np.asarray((topics > 0).sum(axis=1)).ravel()
    prior = np.where(many > 0, ((topics > 0) @ expected) / np.maximum(many, 1), overall)
    found = n[met] / chances[met]
    spread = float(np.var(found / prior[met]) * overall**2) if met.sum() > 1 else 0.0
    weight = np.clip(overall * (1.0 - overall) / max(spread, 1e-12) - 1.0, MIN_PRIOR, MAX_PRIOR)
    a, b = prior * weight + n, (1.0 - prior) * weight + np.maximum(chances - n, 0.0)
    mean = np.maximum(a / (a + b), 1e-9)
    deviation = np.sqrt(a * b / ((a + b) ** 2 * (a + b + 1.0)))
    return np.log(mean).astype(np.float32), np.log1p(deviation / mean).astype(np.float32)


def due_ratio(purchases: Interactions, purchased: sparse.csr_matrix) -> Floats:
    """How far each pair of `purchased` is due again: days since the last time over the pair's own mean gap, at most 1; 1 where bought too rarely to say."""
    pairs = purchases.users.astype(np.int64) * purchased.shape[1] + purchases.items
    order = np.lexsort((purchases.age_days, pairs))
    _, first, times = np.unique(pairs[order], return_index=True, return_counts=True)
    newest, oldest = purchases.age_days[order][first], purchases.age_days[order][first + times - 1]
    gap = (oldest - newest) / np.maximum(times - 1, 1)
    return np.where((times >= MIN_TIMES) & (gap > 0), np.minimum(newest / np.maximum(gap, 1e-6), 1.0), 1.0).astype(
        np.float32
    )


def unit_rows(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """Rows of length 1; an empty one stays empty."""
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return (sparse.diags((1.0 / np.maximum(lengths, 1e-12)).astype(np.float32)) @ matrix).tocsr().astype(np.float32)


def _saturated(purchased: sparse.csr_matrix, share_due: Floats) -> sparse.csr_matrix:
    bought = purchased.copy()
    bought.data = bought.data / (bought.data + 1.0) * (0.5 + 0.5 * share_due)
    return bought.astype(np.float32)


def _attribute_lift(
    traits: sparse.csr_matrix, read: sparse.csr_matrix, about: sparse.csr_matrix, share: Floats
) -> Floats:
    """The lift of each content among the readers with each attribute, less 1, (a, n_contents); a few of them say little."""
    total = np.asarray(read.sum(axis=1)).ravel()
    each = sparse.diags((1.0 / np.maximum(total, 1e-9) * (total > 0)).astype(np.float32)) @ read
    members = (traits.T @ (total > 0).astype(np.float32)).reshape(-1, 1)
    inverse = sparse.diags(np.where(share > 0, 1.0 / np.maximum(share, 1e-12), 0.0).astype(np.float32))
    known = np.asarray(about @ (share > 0).astype(np.float32), dtype=np.float32).ravel()
    lift = (traits.T @ each @ inverse @ about.T.tocsr()).toarray() - members * known
    return np.asarray(lift / (members + np.float32(MEMBER_PRIOR)), dtype=np.float32)
