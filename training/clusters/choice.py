"""The space and the number of clusters: as many as are found again on other customers, and are more than chance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from models.clusters import BehaviourSpace
from qianmian.errors import DataError
from qianmian.model_settings import ClustersSettings
from training.clusters.stability import References, k_means, labels_of, pair_agreement, stability
from training.clusters.traits import SPACES, TRAITS, SpaceCandidate
from training.report import Metric

MIN_AGREEMENT = 0.7  # adjusted Rand index under resampling, at the lower end of its interval
SCREENING_PAIRS, SCREENING = 4, 0.65  # fewer clusters are tried where the first pairs agree less
MOST_EQUAL = 0.8  # of the customers with the same value: such a feature makes a group of the others by itself
MIN_MEMBERS = 20  # customers of a cluster, whatever its share
MIN_CUSTOMERS = 100
MAX_CUSTOMERS = 5_000  # whose clusters are compared: more customers make no other choice
MIN_FEATURES = 3


@dataclass(frozen=True)
class ClusterRows:
    """The behaviour of the customers with enough evidence at one date.

    Attributes
    ----------
    one_ids : ndarray of str, shape (n,)
    values : ndarray of float32, shape (n, f)
    features : tuple of str
        The f features, names in `TRAITS`.
    """

    one_ids: NDArray[np.str_]
    values: NDArray[np.float32]
    features: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.one_ids)

    def of(self, features: Sequence[str]) -> NDArray[np.float32]:
        """The columns of these features, shape (n, len(features))."""
        return self.values[:, [self.features.index(name) for name in features]]

    @cached_property
    def varying(self) -> tuple[str, ...]:
        """The features that vary between customers."""
        finite = np.where(np.isfinite(self.values), self.values, 0)
        most = [np.unique(column, return_counts=True)[1].max() for column in finite.T] if len(self) else []
        return tuple(name for name, count in zip(self.features, most, strict=False) if count <= MOST_EQUAL * len(self))

    def sample(self, most: int, seed: int) -> ClusterRows:
        """At most so many of the customers, chosen by chance."""
        if len(self) <= most:
            return self
        rows = np.sort(np.random.default_rng(seed).choice(len(self), most, replace=False))
        return ClusterRows(self.one_ids[rows], self.values[rows], self.features)


@dataclass(frozen=True)
class Found:
    """A space and a number of clusters, with what speaks for them.

    Attributes
    ----------
    space : SpaceCandidate
    k : int
        Number of clusters.
    agreement : Metric
        Adjusted Rand index of clusterings of resamples.
    gap, gain : Metric
        By how much the clusters are tighter than in data without groups, and more so than with one cluster fewer
        (`training.clusters.stability.References`).
    smallest : float
        Share of the customers in the smallest cluster.
    """

    space: SpaceCandidate
    k: int
    agreement: Metric
    gap: Metric
    gain: Metric
    smallest: float

    def is_sound(self, n: int, min_share: float) -> bool:
        """Whether the clusters are found again, are groups and not parts of one, and none of them is too small."""
        found_again = self.agreement.low >= MIN_AGREEMENT
        are_groups = self.gap.low > 0 and self.gain.low > 0
        return found_again and are_groups and self.smallest >= least_share(n, min_share)


def least_share(n: int, min_share: float) -> float:
    """Share of n customers that the smallest cluster needs."""
    return max(min_share, MIN_MEMBERS / max(n, 1))


class Space:
    """A space that was learnt from customers, with their places in it and data without groups."""

    def __init__(self, candidate: SpaceCandidate, rows: ClusterRows, seed: int) -> None:
        self.candidate, self.seed = candidate, seed
        self.features = candidate.features(rows.varying)
        self.learnt = learn_space(candidate, rows)
        self._scaled = self.learnt.scaled(rows.of(self.features))
        self.places = self.learnt.place(self._scaled)

    @cached_property
    def references(self) -> References:
        """Data without groups, in this space."""
        return References(self.learnt, self._scaled, self.seed)

    def found(self, k: int, seed: int) -> Found:
        """What speaks for k clusters in this space."""
        agreement = stability(self.places, k, seed)
        labels = labels_of(self.places, k_means(self.places, k, seed))
        smallest = float(np.bincount(labels, minlength=k).min() / len(labels))
        return Found(self.candidate, k, agreement, self.references.gap(k), self.references.gain(k), smallest)

    def may_be(self, k: int, seed: int) -> bool:
        """Whether the clusters are groups, and the first few pairs of resamples agree."""
        if not self.references.speak_for(k):
            return False
        return float(pair_agreement(self.places, k, seed, SCREENING_PAIRS).mean()) >= SCREENING


def learn_space(candidate: SpaceCandidate, rows: ClusterRows) -> BehaviourSpace:
    """Learn the scales of a space from the features of it that vary between the customers."""
    names = candidate.features(rows.varying)
    traits = [TRAITS[name] for name in names]
    return BehaviourSpace.learn(
        rows.of(names), names, [one.log for one in traits], [one.block for one in traits], candidate.components
    )


def spaces(rows: ClusterRows, seed: int) -> list[Space]:
    """The spaces with enough features; principal components only where they leave something out."""
    made = []
    for candidate in SPACES.values():
        names = candidate.features(rows.varying)
        if len(names) >= MIN_FEATURES and candidate.components < len(names):
            made.append(Space(candidate, rows, seed))
    return made


def sound_choices(
    rows: ClusterRows, settings: ClustersSettings, seed: int, first: tuple[str, int] | None = None
) -> Iterator[Found]:
    """The sound choices, most clusters first; at the same number the space with the fewest blocks.

    Parameters
    ----------
    first : (str, int), optional
        Space and number of the clusters in production, which are tried before all others.
    """
    rows = rows.sample(MAX_CUSTOMERS, seed)
    tried = spaces(rows, seed)
    if first is not None:
        for space in tried:
            if space.candidate.name == first[0] and first[1] <= settings.max_clusters:
                found = space.found(first[1], seed)
                if found.is_sound(len(rows), settings.min_share):
                    yield found
    most = min(settings.max_clusters, len(rows) // MIN_MEMBERS, int(1 / settings.min_share))
    for k in range(most, 1, -1):
        for space in tried:
            if space.may_be(k, seed):
                found = space.found(k, seed)
                if found.is_sound(len(rows), settings.min_share):
                    yield found


def require_rows(rows: ClusterRows, evidence: str, min_evidence: float, everybody: int, as_of: datetime) -> None:
    """Check that customers differ, and are enough.

    Raises
    ------
    DataError
    """
    if len(rows) < MIN_CUSTOMERS:
        raise DataError(
            "there are too few customers for behaviour clusters",
            got=f"{len(rows)} of {everybody} customers have {min_evidence:g} {evidence} before {as_of:%Y-%m-%d}",
            allowed=f"at least {MIN_CUSTOMERS} customers",
            hint="ingest more customers or a longer history, or lower clusters.min_evidence in qianmian.yaml",
        )
    if max((len(one.features(rows.varying)) for one in SPACES.values()), default=0) < MIN_FEATURES:
        raise DataError(
            "the customers do not differ in enough ways for behaviour clusters",
            got=f"features that vary between customers: {', '.join(rows.varying) or 'none'}",
            allowed=f"at least {MIN_FEATURES} of {', '.join(TRAITS)}, each with the same value for at most "
            f"{MOST_EQUAL:.0%} of the customers",
            hint="ingest order lines with amounts, times, stores, discounts or coupons, or events",
        )
