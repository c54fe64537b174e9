"""The candidate that ships: the simplest one that is not behind the best beyond noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.bootstrap import bootstrap_means, mean_metrics
from training.report import Metric

Values = NDArray[np.float64]


@dataclass(frozen=True)
class CandidateChoice:
    """The result of `choose`.

    Attributes
    ----------
    winner : str
        The simplest candidate that is not behind the best beyond noise.
    best : str
        The candidate with the highest mean.
    values : mapping of str to Metric
        Mean of each candidate with its interval.
    behind : mapping of str to Metric
        Paired difference: the best candidate minus each candidate, with the interval of the same resamples.
    """

    winner: str
    best: str
    values: Mapping[str, Metric]
    behind: Mapping[str, Metric]

    @property
    def reason(self) -> str:
        """Why the winner ships, as a part of a sentence."""
        if self.winner == self.best:
            return "the best beyond noise" if self._is_alone else "the best, and simpler than those within noise of it"
        return f"the simplest within noise of {self.best}"

    @property
    def _is_alone(self) -> bool:
        return all(found.low > 0 for name, found in self.behind.items() if name != self.best)


def choose(values: Mapping[str, Values], simplest_first: Sequence[str] | None = None, seed: int = 0) -> CandidateChoice:
    """Choose the simplest candidate whose paired difference to the best one has an interval that includes zero.

    The rule is that of one standard error (Breiman et al. 1984, §3.4.3) with a paired 95 % interval: a model that is
    more complex must show that it is better, on the same examples.

    Parameters
    ----------
    values : mapping of str to ndarray of float64, shape (n,)
        Candidate → metric of each example; NaN counts as 0, because a list that cannot be made helps nobody.
    simplest_first : sequence of str, optional
        Candidates in the order of their complexity; by default the reverse of `values`.
    seed : int
        Seed of the resamples.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> noise = rng.random(200)
    >>> chosen = choose({"trees": noise + 0.001 * rng.normal(size=200), "counts": noise, "popular": noise / 2})
    >>> chosen.winner, choose({"trees": noise + 0.1, "counts": noise}).winner
    ('counts', 'trees')
    """
    order = list(reversed(list(values))) if simplest_first is None else list(simplest_first)
    stacked = np.column_stack([np.nan_to_num(values[name], nan=0.0) for name in order])
    best = int(np.argmax(stacked.mean(axis=0)))  # the simpler one of two equal means
    resampled = bootstrap_means(stacked, seed)
    means = mean_metrics(stacked, resampled)
    behind = mean_metrics(stacked[:, [best]] - stacked, resampled[:, [best]] - resampled)
    winner = next(place for place in range(len(order)) if behind[place].low <= 0)
    return CandidateChoice(
        order[winner],
        order[best],
        dict(zip(order, means, strict=True)),
        dict(zip(order, behind, strict=True)),
    )


def is_ahead(values: Values, reference: Values, seed: int = 0) -> Metric:
    """The paired difference of two candidates on the same examples, with its interval; NaN counts as 0."""
    difference = np.nan_to_num(values, nan=0.0) - np.nan_to_num(reference, nan=0.0)
    return mean_metrics(difference[:, None], bootstrap_means(difference[:, None], seed))[0]
