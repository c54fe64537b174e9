"""Names of clusters: the traits in which their customers differ most from all customers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.clusters.choice import ClusterRows
from training.clusters.stability import Labels
from training.clusters.traits import TRAITS

DISTINCT = 0.4  # standard deviations from all customers; less is no trait of a cluster
TOP_TRAITS, NAME_TRAITS = 5, 3
AVERAGE = ("average customers", "普通客户")
SEPARATORS = (", ", "、")


@dataclass(frozen=True)
class ClusterTrait:
    """How the customers of a cluster differ from all customers in one feature.

    Attributes
    ----------
    feature : str
    difference : float
        Mean of the cluster minus that of all customers, in standard deviations of the scaled feature.
    mean, mean_of_all : float
        In the units of the feature.
    """

    feature: str
    difference: float
    mean: float
    mean_of_all: float

    @property
    def words(self) -> tuple[str, str]:
        """The words in English and Chinese; empty where nobody would say so."""
        return TRAITS[self.feature].high if self.difference > 0 else TRAITS[self.feature].low

    def as_dict(self) -> dict[str, Any]:
        """The trait as plain values for the facts of a bundle."""
        return {
            "feature": self.feature,
            "difference": round(self.difference, 2),
            "mean": float(f"{self.mean:.4g}"),
            "mean_of_all": float(f"{self.mean_of_all:.4g}"),
        }


Named = tuple[str, str]


def traits_of(
    rows: ClusterRows, scaled: Mapping[str, NDArray[np.float64]], labels: Labels, k: int
) -> list[list[ClusterTrait]]:
    """The traits of each cluster, the strongest first; every feature of `scaled` is one of them.

    Parameters
    ----------
    scaled : mapping of str to ndarray of float64, shape (n,)
        Feature → values on the common scale, mean 0 and variance 1.
    """
    plain = {name: np.nan_to_num(rows.of([name])[:, 0].astype(np.float64)) for name in scaled}
    found = []
    for cluster in range(k):
        members = labels == cluster
        traits = [
            ClusterTrait(
                name, float(values[members].mean()), float(plain[name][members].mean()), float(plain[name].mean())
            )
            for name, values in scaled.items()
        ]
        found.append(sorted(traits, key=lambda trait: (-abs(trait.difference), trait.feature)))
    return found


def name_clusters(traits: Sequence[Sequence[ClusterTrait]], before: Mapping[int, Named] | None = None) -> list[Named]:
    """A name in English and Chinese for each cluster, all distinct.

    A name has the strongest three traits, one of a block; as many more as it takes to tell clusters apart. A cluster
    without a trait has the name of average customers. A name in `before` stays while all of its traits are traits of
    the cluster.

    Parameters
    ----------
    before : mapping of int to (str, str), optional
        Cluster → its name in the clusters of the last training.
    """
    lengths = [NAME_TRAITS] * len(traits)
    spoken = [_spoken(one) for one in traits]
    kept = {
        place: name
        for place, name in (before or {}).items()
        if set(name[0].split(SEPARATORS[0])) <= {words[0] for words in _distinct(traits[place]) or [AVERAGE]}
    }
    while True:
        names = [
            kept.get(place) or _joined(words[:length])
            for place, (words, length) in enumerate(zip(spoken, lengths, strict=True))
        ]
        same = [place for place, name in enumerate(names) if names.count(name) > 1]
        if not same:
            return names
        for place in same:
            kept.pop(place, None)
        if all(lengths[place] >= len(spoken[place]) for place in same):  # the same traits in the same order
            return [
                (f"{name[0]} ({place + 1})", f"{name[1]}（{place + 1}）") if place in same else name
                for place, name in enumerate(names)
            ]
        lengths = [length + (place in same) for place, length in enumerate(lengths)]


def _distinct(traits: Sequence[ClusterTrait]) -> list[Named]:
    """Words of all traits that set the cluster apart, the strongest first."""
    return [trait.words for trait in traits if abs(trait.difference) >= DISTINCT and trait.words[0]]


def _spoken(traits: Sequence[ClusterTrait]) -> list[Named]:
    """Words for a name: of each block the strongest trait, those that set the cluster apart first."""
    blocks: dict[str, Named] = {}
    for trait in traits:
        if trait.words[0] and (abs(trait.difference) >= DISTINCT or not blocks):
            blocks.setdefault(TRAITS[trait.feature].block, trait.words)
    apart = bool(_distinct(traits))
    return list(blocks.values()) if apart else [AVERAGE, *blocks.values()]


def _joined(words: Sequence[Named]) -> Named:
    shown = words[:1] if words[0] == AVERAGE and len(words) <= NAME_TRAITS else words
    english, chinese = (SEPARATORS[i].join(word[i] for word in shown) for i in range(2))
    return english, chinese
