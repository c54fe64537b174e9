"""The evaluation of clusters: over customers, over time, and for what customers do next; beside RFM and chance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score, silhouette_samples

from models.clusters import BehaviourSpace
from training.bootstrap import mean_metric, percentile_interval
from training.clusters.choice import MAX_CUSTOMERS, MIN_AGREEMENT, Found
from training.clusters.naming import TOP_TRAITS, ClusterTrait
from training.clusters.stability import Labels, Places, k_means, labels_of, stability
from training.report import EvalReport, Metric

RESAMPLES = 200
HALVES = 10  # pairs of halves without a common customer
SILHOUETTE_CUSTOMERS = 2_000  # all distances between them are computed
REQUIRED, NO_GROUPS, ONE_FEWER = f"the required {MIN_AGREEMENT}", "data without groups", "one cluster fewer"
RFM_K_MEANS, RFM_TIERS, RANDOM = "k-means on RFM", "RFM tiers", "random"


@dataclass(frozen=True)
class DatedClusters:
    """One clustering of the customers of one date, and the RFM of the same customers.

    Attributes
    ----------
    one_ids : ndarray of str, shape (n,)
    places : ndarray of float64, shape (n, d)
    labels : ndarray of int64, shape (n,)
    rfm : ndarray of float64, shape (n, 3), or None
        Scaled recency, frequency and money; None where the data have no amounts.
    tiers : ndarray of int64, shape (n,), or None
        RFM tier, −1 for customers who have none.
    """

    one_ids: NDArray[np.str_]
    places: Places
    labels: Labels
    rfm: Places | None = None
    tiers: Labels | None = None


def evaluate(
    found: Found, now: DatedClusters, earlier: DatedClusters, outcomes: Mapping[str, NDArray[np.float64]], seed: int
) -> EvalReport:
    """Evaluate clusters.

    Parameters
    ----------
    found : Found
        The clusters at the cutoff, on resamples that did not choose them.
    now, earlier : DatedClusters
        The clusters at the cutoff, and those that were made one period before it.
    outcomes : mapping of str to ndarray of float64, shape (len(earlier.one_ids),)
        What the customers did in the period between: orders, money.
    """
    k, rng = found.k, np.random.default_rng(seed)
    sample = _sample(len(now.one_ids), MAX_CUSTOMERS, rng)
    metrics = {
        "ari": found.agreement,
        "ari_halves": stability(now.places[sample], k, seed, pairs=HALVES, disjoint=True),
        "gap": found.gap,
        **_over_time(now.one_ids, now.labels, earlier.one_ids, earlier.labels, seed),
        **_silhouette(now.places, now.labels, rng, seed),
        **_explained(earlier.labels, outcomes, seed),
    }
    baselines: dict[str, dict[str, Metric]] = {}
    if now.rfm is not None and earlier.rfm is not None:
        rfm_now, rfm_earlier = (
            labels_of(rfm, k_means(rfm[_sample(len(rfm), MAX_CUSTOMERS, rng)], k, seed))
            for rfm in (now.rfm, earlier.rfm)
        )
        baselines[RFM_K_MEANS] = {
            "ari": stability(now.rfm[sample], k, seed),
            **_over_time(now.one_ids, rfm_now, earlier.one_ids, rfm_earlier, seed),
            **_silhouette(now.rfm, rfm_now, rng, seed),
            **_explained(rfm_earlier, outcomes, seed),
        }
    if now.rfm is not None and now.tiers is not None and earlier.tiers is not None:
        baselines[RFM_TIERS] = {
            **_over_time(now.one_ids, now.tiers, earlier.one_ids, earlier.tiers, seed),
            **_silhouette(now.rfm, now.tiers, rng, seed),
            **_explained(earlier.tiers, outcomes, seed),
        }
    chance, again = (rng.integers(0, k, len(now.labels)) for _ in range(2))
    baselines[RANDOM] = {
        "ari": _agreement(chance, again, seed),
        **_silhouette(now.places, chance, rng, seed),
        **_explained(rng.integers(0, k, len(earlier.labels)), outcomes, seed),
    }
    ari = found.agreement
    above = Metric(ari.value - MIN_AGREEMENT, ari.low - MIN_AGREEMENT, ari.high - MIN_AGREEMENT, ari.n)
    differences = {f"ari:{REQUIRED}": above, f"gap:{NO_GROUPS}": found.gap, f"gap:{ONE_FEWER}": found.gain}
    return EvalReport(metrics, baselines, differences)


def eta_squared(labels: Labels, outcome: NDArray[np.float64]) -> float:
    """Share of the variance of an outcome that lies between the groups; 0 for a constant outcome.

    Examples
    --------
    >>> eta_squared(np.array([0, 0, 1, 1]), np.array([1.0, 1.0, 5.0, 5.0]))
    1.0
    """
    _, groups = np.unique(labels, return_inverse=True)
    sizes, sums = np.bincount(groups), np.bincount(groups, weights=outcome)
    mean = outcome.mean()
    total = float(((outcome - mean) ** 2).sum())
    return float((sizes * (sums / sizes - mean) ** 2).sum()) / total if total > 0 else 0.0


def _explained(labels: Labels, outcomes: Mapping[str, NDArray[np.float64]], seed: int) -> dict[str, Metric]:
    """`eta_squared` of each outcome, as ``eta2_NAME_next``."""
    return {
        f"eta2_{name}_next": _bootstrapped(partial(_eta_squared_of, labels, outcome), len(labels), seed)
        for name, outcome in outcomes.items()
    }


def _eta_squared_of(labels: Labels, outcome: NDArray[np.float64], rows: NDArray[np.int64]) -> float:
    return eta_squared(labels[rows], outcome[rows])


def _over_time(
    now_ids: NDArray[np.str_], now: Labels, earlier_ids: NDArray[np.str_], earlier: Labels, seed: int
) -> dict[str, Metric]:
    """Agreement of the clusters of the same customers at two dates, each made and assigned at its own."""
    _, at_now, at_earlier = np.intersect1d(now_ids, earlier_ids, return_indices=True)
    return {"ari_month": _agreement(now[at_now], earlier[at_earlier], seed)}


def _agreement(one: Labels, other: Labels, seed: int) -> Metric:
    return _bootstrapped(lambda rows: float(adjusted_rand_score(one[rows], other[rows])), len(one), seed)


def _silhouette(places: Places, labels: Labels, rng: np.random.Generator, seed: int) -> dict[str, Metric]:
    """Mean silhouette of a sample of the customers (Rousseeuw 1987); nothing for one group."""
    rows = _sample(len(labels), SILHOUETTE_CUSTOMERS, rng)
    if len(np.unique(labels[rows])) < 2:
        return {}
    return {"silhouette": mean_metric(silhouette_samples(places[rows], labels[rows]), seed)}


def _bootstrapped(statistic: Callable[[NDArray[np.int64]], float], n: int, seed: int) -> Metric:
    """A statistic of n customers, with its percentile bootstrap interval."""
    rng = np.random.default_rng(seed)
    resampled = np.array([statistic(rng.integers(0, n, n)) for _ in range(RESAMPLES)])
    return percentile_interval(statistic(np.arange(n)), resampled, n)


def _sample(n: int, most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return np.arange(n) if n <= most else np.sort(rng.choice(n, most, replace=False))


# ---- for people ------------------------------------------------------------------------------------------------------


def described(
    ids: Sequence[str],
    names: Sequence[tuple[str, str]],
    labels: Labels,
    traits: Sequence[Sequence[ClusterTrait]],
    tiers: NDArray[np.str_] | None,
) -> list[dict[str, Any]]:
    """What the facts of a bundle say of each cluster: id, names, size, strongest traits, shares of the RFM tiers."""
    found = []
    for place, (one_id, (name, name_zh)) in enumerate(zip(ids, names, strict=True)):
        members = labels == place
        one = {
            "id": one_id,
            "name": name,
            "name_zh": name_zh,
            "customers": int(members.sum()),
            "share": round(float(members.mean()), 4),
            "traits": [trait.as_dict() for trait in traits[place][:TOP_TRAITS]],
        }
        if tiers is not None:
            values, counts = np.unique(tiers[members], return_counts=True)
            shares = (counts / members.sum()).round(3).tolist()
            one["rfm_tiers"] = {value: share for value, share in zip(values.tolist(), shares, strict=True) if value}
        found.append(one)
    return found


def figure_of(
    space: BehaviourSpace, traits: Sequence[Sequence[ClusterTrait]], clusters: Sequence[Mapping[str, Any]]
) -> Figure:
    """Heat map of the traits by cluster, in standard deviations from all customers."""
    values = np.array(
        [[next(one.difference for one in row if one.feature == name) for row in traits] for name in space.features]
    )
    figure = Figure(figsize=(2.2 + 1.5 * len(clusters), 1.8 + 0.42 * len(values)), layout="constrained")
    axes = figure.subplots()
    limit = max(1.0, float(np.abs(values).max()))
    axes.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    for i, j in np.ndindex(*values.shape):
        colour = "white" if abs(values[i, j]) > 0.6 * limit else "black"
        axes.text(j, i, f"{values[i, j]:+.1f}", ha="center", va="center", color=colour, fontsize=8)
    names = [f"{one['id']} ({one['share']:.0%})\n" + one["name"].replace(", ", ",\n") for one in clusters]
    axes.set(xticks=range(len(clusters)), yticks=range(len(values)))
    axes.set_title("Clusters: standard deviations from all customers", fontsize=10)
    axes.set_xticklabels(names, fontsize=8)
    axes.set_yticklabels(list(space.features), fontsize=8)
    return figure
