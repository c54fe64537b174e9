"""Where the responses of customers fall among cells (times of the week, channels): customer, segment and all, pooled.

A *pattern* is a distribution over the cells: the share of the responses that would fall into each cell if all cells
had the same number of exposures. Where exposures are recorded (messages that were sent), the responses of a customer
are a draw from the cells in proportion to exposures × pattern; how much a customer responds at all plays no part in it
(the conditional logit model of McFadden 1974). Without exposures all cells count the same.

A pattern is shrunk to the one above it, customer → segment → all → uniform, by the ratio of the responses to those that
the pattern above lets expect (the gamma-Poisson shrinker of DuMouchel 1999):

    pattern ∝ prior · (responses + k · prior) / (expected + k · prior)

Without exposures this is the mean of a Dirichlet distribution with k pseudo-responses. k is chosen by the likelihood of
later responses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
LEVELS = ("all", "segment", "customer")
ALL, SEGMENT, CUSTOMER = range(3)
ITERATIONS = 30  # of the pattern of all; more change nothing
CUSTOMER_STRENGTHS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
SEGMENT_STRENGTHS = (10.0, 30.0, 100.0, 300.0, 1000.0)


@dataclass(frozen=True)
class Responses:
    """Responses, and exposures if they are recorded, of n customers in c cells.

    Attributes
    ----------
    responses : csr_matrix, shape (n, c)
    exposures : csr_matrix, shape (n, c), or None
        None: they are not recorded, and all cells of a customer count the same.
    """

    responses: sparse.csr_matrix
    exposures: sparse.csr_matrix | None = None

    @property
    def totals(self) -> Floats:
        """Responses of each customer, shape (n,)."""
        return np.asarray(self.responses.sum(axis=1), dtype=np.float64).ravel()

    def __add__(self, other: Responses) -> Responses:
        exposures = None
        if self.exposures is not None and other.exposures is not None:
            exposures = (self.exposures + other.exposures).tocsr()
        return Responses((self.responses + other.responses).tocsr(), exposures)

    def rows(self, rows: Codes) -> tuple[Floats, Floats]:
        """Responses and exposures of some customers, each of shape (m, c)."""
        responses = self.responses[rows].toarray().astype(np.float64)
        exposures = np.ones_like(responses) if self.exposures is None else self.exposures[rows].toarray()
        return responses, exposures.astype(np.float64)


def shrunk(responses: Floats, expected: Floats, prior: Floats, strength: float) -> Floats:
    """The patterns of some rows, shape (m, c), shrunk to `prior`, shape (m, c) or (c,).

    Examples
    --------
    >>> shrunk(np.array([[3.0, 0.0]]), np.array([[1.5, 1.5]]), np.array([0.5, 0.5]), 1.0).tolist()
    [[0.875, 0.125]]
    """
    raw = prior * (responses + strength * prior) / (expected + strength * prior)
    return np.asarray(raw / raw.sum(axis=-1, keepdims=True))


def expected_responses(responses: Floats, exposures: Floats, pattern: Floats) -> Floats:
    """The responses of each row, spread over the cells in proportion to exposures × pattern, shape (m, c)."""
    weights = exposures * pattern
    totals = weights.sum(axis=1, keepdims=True)
    return np.asarray(responses.sum(axis=1, keepdims=True) * weights / np.where(totals > 0, totals, 1.0))


def pattern_of_all(data: Responses) -> Floats:
    """The pattern of all customers, shape (c,), shrunk to the uniform one with one pseudo-response for each cell."""
    cells = data.responses.shape[1]
    uniform, totals = np.full(cells, 1.0 / cells), data.totals
    counts = np.asarray(data.responses.sum(axis=0), dtype=np.float64).ravel()
    pattern = uniform
    if data.exposures is None:
        return shrunk(counts, totals.sum() * uniform, uniform, float(cells))
    for _ in range(ITERATIONS):
        pattern = shrunk(counts, _expected_of_all(data, pattern) / pattern * uniform, uniform, float(cells))
    return pattern


def _levels(data: Responses, pattern: Floats) -> Floats:
    """Responses of each customer ÷ the sum of its exposures × pattern, shape (n,); 0 without exposures."""
    assert data.exposures is not None
    weights = data.exposures @ pattern
    return np.asarray(np.divide(data.totals, weights, out=np.zeros(len(weights)), where=weights > 0))


def _expected_of_all(data: Responses, pattern: Floats) -> Floats:
    assert data.exposures is not None
    return np.asarray((data.exposures.T @ _levels(data, pattern)) * pattern)


class PooledPatterns:
    """The pattern of each customer, at the level of detail that was chosen.

    Parameters
    ----------
    level : int
        `ALL`, `SEGMENT` or `CUSTOMER`: the most detailed level that is used.
    with_segments : bool
        Whether a customer is shrunk to its segment (otherwise to all).
    segment_strength, customer_strength : float
        Pseudo-responses k of the two steps.

    Attributes
    ----------
    all_ : ndarray of float64, (c,)
    segments_ : ndarray of float64, (g, c)
        Pattern of each segment; g is 0 where segments are not used.
    segment_responses_ : ndarray of float64, (g,)
    codes_ : ndarray of int64, (n,)
        Segment of each customer, −1 for none; empty where segments are not used.
    data_ : Responses
        Of each customer; without entries unless the level is `CUSTOMER`.
    """

    def __init__(
        self,
        level: int = CUSTOMER,
        with_segments: bool = False,
        segment_strength: float = 100.0,
        customer_strength: float = 16.0,
    ) -> None:
        self.level, self.with_segments = level, with_segments
        self.segment_strength, self.customer_strength = segment_strength, customer_strength

    def get_params(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            "level": self.level,
            "with_segments": self.with_segments,
            "segment_strength": self.segment_strength,
            "customer_strength": self.customer_strength,
        }

    def fit(self, data: Responses, segments: Codes) -> PooledPatterns:
        """Learn the patterns.

        Parameters
        ----------
        data : Responses
            Of n customers.
        segments : ndarray of int64, shape (n,)
            Segment of each customer, from 0; −1 for none.
        """
        self.all_ = pattern_of_all(data)
        cells = len(self.all_)
        self.segments_, self.segment_responses_, self.codes_ = np.empty((0, cells)), np.empty(0), segments[:0]
        if self.with_segments and segments.max(initial=-1) >= 0:
            member = _membership(segments)
            counts = (member @ data.responses).toarray().astype(np.float64)
            if data.exposures is None:
                expected = counts.sum(axis=1, keepdims=True) * self.all_
            else:
                scaled = sparse.diags(_levels(data, self.all_)) @ data.exposures
                expected = (member @ scaled).toarray() * self.all_
            self.segments_ = shrunk(counts, expected, self.all_, self.segment_strength)
            self.segment_responses_, self.codes_ = counts.sum(axis=1), segments
        nothing = sparse.csr_matrix(data.responses.shape, dtype=np.float32)
        self.data_ = data if self.level == CUSTOMER else Responses(nothing)
        return self

    def predict(self, rows: Codes) -> tuple[Floats, Codes]:
        """Return the pattern of each customer, and the level that tells most of it.

        Parameters
        ----------
        rows : ndarray of int64, shape (m,)
            Rows of the customers in the data of the fit, −1 for an unknown one.

        Returns
        -------
        patterns : ndarray of float64, shape (m, c)
        levels : ndarray of int64, shape (m,)
            Index in `LEVELS`. A level tells most if it has at least as many responses as the pseudo-responses above it.
        """
        patterns = np.tile(self.all_, (len(rows), 1))
        levels = np.full(len(rows), ALL)
        known = np.flatnonzero(rows >= 0)
        if len(self.codes_):
            codes = self.codes_[rows[known]]
            members, codes = known[codes >= 0], codes[codes >= 0]
            patterns[members] = self.segments_[codes]
            levels[members[self.segment_responses_[codes] >= self.segment_strength]] = SEGMENT
        if self.level == CUSTOMER:
            responses, exposures = self.data_.rows(rows[known])
            expected = expected_responses(responses, exposures, patterns[known])
            levels[known[responses.sum(axis=1) >= self.customer_strength]] = CUSTOMER
            patterns[known] = shrunk(responses, expected, patterns[known], self.customer_strength)
        return patterns, levels


def log_losses(patterns: Floats, responses: Floats, exposures: Floats) -> Floats:
    """Mean negative log-likelihood of the responses of each row, given how many it has, shape (m,).

    Parameters
    ----------
    patterns, responses, exposures : ndarray of float64, shape (m, c)
        Each row has a response.
    """
    weights = patterns * exposures
    shares = weights / weights.sum(axis=1, keepdims=True)
    logs = np.log(np.where(responses > 0, shares, 1.0))
    return np.asarray(-(responses * logs).sum(axis=1) / responses.sum(axis=1))


def compared(later: Responses) -> Codes:
    """Rows of the customers whose later responses tell patterns apart: they responded, exposed in several cells."""
    has = later.totals > 0
    if later.exposures is not None:
        has &= np.asarray((later.exposures > 0).sum(axis=1)).ravel() > 1
    return np.flatnonzero(has)


def best_strength(
    strengths: Sequence[float], make: Any, data: Responses, segments: Codes, later: Responses
) -> tuple[PooledPatterns, Floats]:
    """Of the patterns ``make(strength)``, fitted on `data`, those of the least log loss of `later`; and the losses."""
    rows = compared(later)
    responses, exposures = later.rows(rows)
    best: tuple[PooledPatterns, Floats] | None = None
    for strength in strengths:
        model = make(strength).fit(data, segments)
        losses = log_losses(model.predict(rows)[0], responses, exposures)
        if best is None or losses.mean() < best[1].mean():
            best = (model, losses)
    assert best is not None
    return best


def _membership(segments: Codes) -> sparse.csr_matrix:
    """Matrix of segments × customers, 1 where a customer is a member."""
    rows = np.flatnonzero(segments >= 0)
    shape = (int(segments.max()) + 1, len(segments))
    return sparse.csr_matrix((np.ones(len(rows)), (segments[rows], rows)), shape=shape)
