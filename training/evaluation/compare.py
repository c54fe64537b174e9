"""Comparison of several models on the same customers, for the report of `train recommend` and for the benchmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from models.ranked import Ranked
from qianmian.errors import UsageError
from training.bootstrap import bootstrap_means, mean_metrics, percentile_interval
from training.evaluation import metrics
from training.report import Metric, Metrics

RankedLists = Ranked | NDArray[np.integer[Any]]
DIFFERENCES = ("recall", "ndcg")


@dataclass(frozen=True)
class ModelComparison:
    """Result of `evaluate`. Metrics are named like ``recall@10``.

    Attributes
    ----------
    models : mapping of str to mapping of str to Metric
        Model → metric.
    differences : mapping of str to Metric
        Paired differences: ``ndcg@10:baseline`` is the metric of the reference minus that of the model `baseline`.
    slices : mapping of str to mapping of str to mapping of str to Metric
        Slice → model → metric.
    values : mapping of str to mapping of str to ndarray, shape (n,)
        Model → metric → value of each customer; NaN where it is undefined.
    """

    models: Mapping[str, Metrics]
    differences: Metrics
    slices: Mapping[str, Mapping[str, Metrics]]
    values: Mapping[str, Mapping[str, NDArray[np.float64]]] = field(repr=False)

    def as_dict(self) -> dict[str, dict[str, dict[str, float | int]]]:
        """Model → metric → {value, low, high, n}, for JSON; metrics without any value are left out."""
        return {
            name: {metric: dict(found.__dict__) for metric, found in model_metrics.items() if found.n}
            for name, model_metrics in self.models.items()
        }

    def table(self, names: Sequence[str]) -> str:
        """Table in plain text with one line per model.

        Examples
        --------
        >>> comparison = evaluate({"oracle": np.array([[0]] * 40)}, sparse.csr_matrix(np.ones((40, 1))), 1)
        >>> print(comparison.table(["recall@1"]))
                recall@1
        oracle  1.0000 [1.0000, 1.0000]
        """
        rows = [
            ["", *names],
            *([name, *(str(found[metric]) for metric in names)] for name, found in self.models.items()),
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(len(names) + 1)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        )


def evaluate(
    models: Mapping[str, RankedLists],
    truth: sparse.csr_matrix,
    k: int,
    *,
    names: Sequence[str] = metrics.STANDARD,
    history: sparse.csr_matrix | None = None,
    item_customers: NDArray[Any] | None = None,
    n_customers: int | None = None,
    categories: NDArray[np.str_] | NDArray[np.int64] | None = None,
    slices: Mapping[str, NDArray[np.bool_]] | None = None,
    reference: str | None = None,
    differences: Sequence[str] = DIFFERENCES,
    seed: int = 0,
    n_resamples: int | None = None,
) -> ModelComparison:
    """Evaluate the lists of several models for the same customers, with intervals from the same bootstrap resamples.

    Parameters
    ----------
    models : mapping of str to Ranked or ndarray of int, shape (n, ≥ k)
        Ranked item indices; −1 past the end of a list.
    truth : csr_matrix, shape (n, n_items)
        Relevant items of each customer, non-zero.
    k : int
        Length of the evaluated lists.
    names : sequence of str
        Metrics of `ranking_metrics`.
    history : csr_matrix, shape (n, n_items), optional
        Items each customer interacted with before the cutoff; adds the metrics of `repeat_and_explore`.
    item_customers : ndarray of int, shape (n_items,), optional
        Distinct customers of each item before the cutoff; adds ``novelty`` (`inverse_user_frequency`), ``popularity``
        and ``popularity_lift`` (mean popularity of the lists ÷ that of the relevant items − 1).
    n_customers : int, optional
        Distinct customers before the cutoff; default the customers of the most popular item.
    categories : ndarray of str, shape (n_items,), or of int codes, shape (n_items, a), optional
        Adds ``diversity``; text is split into levels at ``/``.
    slices : mapping of str to ndarray of bool, shape (n,), optional
        Groups of customers that are also evaluated separately (`activity_slices`); empty ones are left out.
    reference : str, optional
        The model that the others are compared with; default the first.
    differences : sequence of str
        Metrics, without their k, for which paired differences are computed.
    seed : int
    n_resamples : int, optional

    Returns
    -------
    ModelComparison
        ``coverage`` is not resampled: both ends of its interval are its value.

    Raises
    ------
    UsageError
        If there are no models, or `reference` is not one of them.

    Examples
    --------
    >>> lists = {"ours": np.array([[1]] * 40), "theirs": np.array([[0]] * 40)}
    >>> comparison = evaluate(lists, sparse.csr_matrix([[0, 1]] * 40), 1)
    >>> comparison.models["ours"]["ndcg@1"].value, comparison.differences["ndcg@1:theirs"].low
    (1.0, 1.0)
    """
    if not models or (reference is not None and reference not in models):
        raise UsageError("the reference is not one of the compared models", got=reference, allowed=list(models))
    ids = {name: lists.ids if isinstance(lists, Ranked) else lists for name, lists in models.items()}
    codes = None if categories is None else _codes(categories)
    customers = None if item_customers is None else n_customers or int(np.max(item_customers, initial=1))
    wanted = tuple(dict.fromkeys((*names, *differences)))
    values = {
        name: _values(lists, truth, k, wanted, history, item_customers, customers, codes) for name, lists in ids.items()
    }
    relevant_popularity = (
        None if customers is None else metrics.popularity_of_relevant(truth, np.asarray(item_customers), customers)
    )
    model_metrics = metric_means(values, seed, n_resamples, relevant_popularity=relevant_popularity)
    for name, lists in ids.items():
        share = metrics.coverage(lists, k, truth.shape[1])
        model_metrics[name][f"coverage@{k}"] = Metric(share, share, share, len(lists))
    first = reference or next(iter(models))
    return ModelComparison(
        model_metrics,
        _differences(values, first, [f"{metric}@{k}" for metric in differences], seed, n_resamples),
        {
            name: metric_means(values, seed, n_resamples, relevant_popularity=relevant_popularity, rows=rows)
            for name, rows in (slices or {}).items()
            if rows.any()
        },
        values,
    )


def _values(
    ids: NDArray[np.integer[Any]],
    truth: sparse.csr_matrix,
    k: int,
    names: Sequence[str],
    history: sparse.csr_matrix | None,
    item_customers: NDArray[Any] | None,
    n_customers: int | None,
    codes: NDArray[np.int64] | None,
) -> dict[str, NDArray[np.float64]]:
    """Metric → value of each customer, shape (n,)."""
    found = metrics.ranking_metrics(ids, truth, k, names)
    if history is not None:
        found |= metrics.repeat_and_explore(ids, truth, history, k)
    if item_customers is not None and n_customers is not None:
        found["novelty"] = metrics.inverse_user_frequency(ids, k, item_customers, n_customers)
        found["popularity"] = metrics.popularity(ids, k, item_customers, n_customers)
    if codes is not None:
        found["diversity"] = metrics.diversity(ids, k, codes)
    return {f"{name}@{k}": values for name, values in found.items()}


def _codes(categories: NDArray[Any]) -> NDArray[np.int64]:
    return categories.astype(np.int64) if categories.ndim == 2 else metrics.level_codes(categories.astype(np.str_))


def metric_means(
    values: Mapping[str, Mapping[str, NDArray[np.float64]]],
    seed: int = 0,
    n_resamples: int | None = None,
    *,
    relevant_popularity: NDArray[np.float64] | None = None,
    rows: NDArray[np.bool_] | slice = slice(None),
) -> dict[str, dict[str, Metric]]:
    """Mean of every metric over customers, with intervals from the same bootstrap resamples.

    Parameters
    ----------
    values : mapping of str to mapping of str to ndarray, shape (n,)
        Model → metric → value of each customer.
    seed : int
    n_resamples : int, optional
    relevant_popularity : ndarray of float64, shape (n,), optional
        `popularity_of_relevant`; adds ``popularity_lift``, a ratio of two means − 1, beside ``popularity``.
    rows : ndarray of bool, shape (n,), or slice
        Customers to average over.

    Returns
    -------
    dict of str to dict of str to Metric
        Model → metric.
    """
    columns = [(name, metric) for name, found in values.items() for metric in found]
    stacked = np.column_stack(
        [values[name][metric][rows] for name, metric in columns]
        + ([] if relevant_popularity is None else [relevant_popularity[rows]])
    )
    bootstrap_values = bootstrap_means(stacked, seed, n_resamples)
    result: dict[str, dict[str, Metric]] = {name: {} for name in values}
    for place, ((name, metric), found) in enumerate(
        zip(columns, mean_metrics(stacked[:, : len(columns)], bootstrap_values[:, : len(columns)]), strict=True)
    ):
        result[name][metric] = found
        if (
            metric.startswith("popularity@")
            and found.n
            and relevant_popularity is not None
            and (usual := float(np.nanmean(relevant_popularity[rows]))) > 0
        ):
            lifts = (
                bootstrap_values[:, place] / np.where(bootstrap_values[:, -1] > 0, bootstrap_values[:, -1], np.nan) - 1
            )
            result[name][metric.replace("popularity", "popularity_lift")] = percentile_interval(
                found.value / usual - 1, lifts, found.n
            )
    return result


def _differences(
    values: Mapping[str, Mapping[str, NDArray[np.float64]]],
    first: str,
    names: Sequence[str],
    seed: int,
    n_resamples: int | None,
) -> dict[str, Metric]:
    others = [(name, metric) for name in values if name != first for metric in names]
    if not others:
        return {}
    stacked = np.column_stack([values[first][metric] - values[name][metric] for name, metric in others])
    found = mean_metrics(stacked, bootstrap_means(stacked, seed, n_resamples))
    return {f"{metric}:{name}": difference for (name, metric), difference in zip(others, found, strict=True)}
