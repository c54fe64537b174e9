"""Which level of detail of the contact patterns ships: the simplest within noise on the validation period."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.pooled_patterns import (
    ALL,
    CUSTOMER,
    CUSTOMER_STRENGTHS,
    SEGMENT,
    SEGMENT_STRENGTHS,
    Codes,
    PooledPatterns,
    Responses,
    best_strength,
    compared,
    log_losses,
)
from training.bootstrap import mean_metric

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PatternChoice:
    """The patterns that ship, by the validation period.

    Attributes
    ----------
    patterns : PooledPatterns
        Fitted on the history before the validation period.
    grouping : str
        What the segments are; empty without segments.
    beats_chance : bool
        Whether the chosen patterns are better than the uniform one, beyond noise.
    note : str
        Why this level was chosen.
    """

    patterns: PooledPatterns
    grouping: str
    beats_chance: bool
    note: str


def choose_patterns(history: Responses, later: Responses, groupings: Mapping[str, Codes], seed: int) -> PatternChoice:
    """Choose the level, what the segments are and the strengths, by the log loss of the later responses.

    A more detailed level is chosen only if it reduces the log loss beyond noise, paired by customer.

    Parameters
    ----------
    history, later : Responses
        Of the same customers; `later` are those of the validation period.
    groupings : mapping of str to ndarray of int64, shape (n,)
        What segments may be → segment of each customer, −1 for none.
    seed : int
        Of the bootstrap.
    """
    none = np.full(history.responses.shape[0], -1, dtype=np.int64)
    chosen, losses = best_strength((0.0,), lambda _: PooledPatterns(ALL), history, none, later)
    chance = chance_losses(later)
    grouping, parts = "", [f"all against chance {mean_metric(losses - chance, seed)}"]
    found = {
        name: best_strength(
            SEGMENT_STRENGTHS, lambda k: PooledPatterns(SEGMENT, True, segment_strength=k), history, codes, later
        )
        for name, codes in groupings.items()
    }
    if found:
        best = min(found, key=lambda name: float(found[name][1].mean()))
        gain = mean_metric(found[best][1] - losses, seed)
        parts.append(f"segments by {best} against all {gain}")
        if gain.high < 0:
            (chosen, losses), grouping = found[best], best
    with_segments, strength = bool(grouping), chosen.segment_strength
    model, own = best_strength(
        CUSTOMER_STRENGTHS,
        lambda k: PooledPatterns(CUSTOMER, with_segments, strength, k),
        history,
        groupings.get(grouping, none),
        later,
    )
    gain = mean_metric(own - losses, seed)
    parts.append(f"customers against {'segments' if grouping else 'all'} {gain}")
    if gain.high < 0:
        chosen, losses = model, own
    note = f"log loss of the validation period: {'; '.join(parts)}"
    return PatternChoice(chosen, grouping, mean_metric(losses - chance, seed).high < 0, note)


def chance_losses(later: Responses) -> Floats:
    """Log loss of each compared customer if all cells were alike."""
    responses, exposures = later.rows(compared(later))
    return log_losses(np.full(responses.shape, 1.0 / responses.shape[1]), responses, exposures)


@dataclass(frozen=True)
class PatternTest:
    """Each compared customer of the test period, shape (m,): the patterns beside that of all customers and chance.

    Attributes
    ----------
    losses, all_losses, chance_losses : ndarray of float64
        Log losses.
    best_shares, all_best_shares : ndarray of float64
        Share of the responses in the cell that a pattern names as the best.
    """

    losses: Floats
    all_losses: Floats
    chance_losses: Floats
    best_shares: Floats
    all_best_shares: Floats


def evaluate(patterns: PooledPatterns, later: Responses) -> PatternTest:
    """Compare fitted patterns with the pattern of all and with chance, on the responses of a later period."""
    rows = compared(later)
    responses, exposures = later.rows(rows)
    predicted = patterns.predict(rows)[0]
    all_predicted = np.tile(patterns.all_, (len(rows), 1))

    def best_shares(shares: Floats) -> Floats:
        return np.asarray(responses[np.arange(len(rows)), shares.argmax(axis=1)] / responses.sum(axis=1))

    return PatternTest(
        log_losses(predicted, responses, exposures),
        log_losses(all_predicted, responses, exposures),
        chance_losses(later),
        best_shares(predicted),
        best_shares(all_predicted),
    )
