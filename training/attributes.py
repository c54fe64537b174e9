"""Profile attributes in training: which are left out because their past values are unknown, and which alone suffice.

An attribute of today that joins a past moment may contain what the model is asked: a tier that was lowered because the
customer stopped buying. Such an attribute predicts about as well as the whole model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from features.compute.builder import Builder
from features.compute.spec import FeatureSpec
from training.bootstrap import CLASSIFICATION, mean_metric, paired_difference, statistic_metric
from training.report import Metric

MAX_CODES = 20  # a number with more distinct values is divided into as many groups of equal size
PRIOR_ROWS = 5.0  # rows of the overall rates that each value of an attribute is given
MAX_AUC_BEHIND = 0.2  # an attribute further behind the model is not within noise, whatever the number of customers
SMALLEST = 1e-6
CodedAttribute = tuple[str, NDArray[np.int64], NDArray[np.int64]]


def unknown_attributes(builder: Builder, past: datetime) -> tuple[str, ...]:
    """Columns of `profiles` that features read, that are filled now, and whose values at `past` are unknown."""
    of_profiles = [feature for feature in builder.declared if feature.view == "profiles"]
    read = {column for feature in (*builder.attributes(), *of_profiles) for column in feature.columns}
    states = builder.states_at(past)
    if "profiles" not in states:
        return ()
    return tuple(name for name in builder.states["profiles"].filled if name in read - {*states["profiles"].filled})


def left_out_notes(unknown: Sequence[str], past: datetime) -> tuple[str, ...]:
    """The note of a report about attributes that are left out; none if there are none."""
    if not unknown:
        return ()
    names = ", ".join(unknown)
    return (
        f"left out, because their values before {past:%Y-%m-%d} are unknown: the profile attributes {names}. "
        "Date them in sources.yaml (valid_from or file_date), declare them fixed if they never change, "
        f"or allow them in qianmian.yaml: `profiles: {{allow_undated: [{names}]}}`",
    )


def sufficient_for_labels(
    coded: Iterable[CodedAttribute],
    y: NDArray[np.int64],
    test_y: NDArray[np.int64],
    p: NDArray[np.float64],
    seed: int = 0,
) -> tuple[str, ...]:
    """Notes about attributes that alone predict labels within noise of the model, by AUC.

    Parameters
    ----------
    coded : iterable of (str, int64 array, int64 array)
        `coded_attributes` of the training and the test customers.
    y, test_y : int64 array, shape (n,) and (m,)
        Labels 0 and 1.
    p : float64 array, shape (m,)
        Predictions of the model.
    """
    auc, notes = CLASSIFICATION["auc"], []
    of_model = auc(test_y, p)
    for name, codes, test_codes in coded:
        alone = smoothed_rates(codes, y[:, None].astype(np.float64))[test_codes, 0]
        value = auc(test_y, alone)
        if not value > max(0.5, of_model - MAX_AUC_BEHIND):
            continue
        behind = paired_difference(auc, test_y, p, alone, seed)
        if behind.low <= 0 and statistic_metric(auc, test_y, alone, seed).low > 0.5:
            notes.append(_note(name, f"AUC {value:.3f}, the model {of_model:.3f}"))
    return tuple(notes)


def sufficient_for_classes(
    coded: Iterable[CodedAttribute],
    places: NDArray[np.int64],
    test_places: NDArray[np.int64],
    losses: NDArray[np.float64],
    n_classes: int,
) -> tuple[str, ...]:
    """Notes about attributes that alone predict classes within noise of the model, by log loss.

    Parameters
    ----------
    coded : iterable of (str, int64 array, int64 array)
        `coded_attributes` of the training and the test customers.
    places, test_places : int64 array, shape (n,) and (m,)
        Position of each customer's class; −1 for a class that the model does not know.
    losses : float64 array, shape (m,)
        Log loss of the model for each test customer.
    """
    targets, notes = np.eye(n_classes)[places], []

    def losses_of(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        found = np.where(test_places >= 0, probabilities[np.arange(len(test_places)), test_places], 0.0)
        return np.asarray(-np.log(np.maximum(found, SMALLEST)))

    overall = losses_of(np.tile(targets.mean(axis=0), (len(test_places), 1)))
    for name, codes, test_codes in coded:
        alone = losses_of(smoothed_rates(codes, targets)[test_codes])
        if mean_metric(alone - losses).low <= 0 and mean_metric(overall - alone).low > 0:
            notes.append(_note(name, f"log loss {alone.mean():.3f}, the model {losses.mean():.3f}"))
    return tuple(notes)


def sufficient_for_ranking(name: str, model: Metric, alone: Metric, behind: Metric, gain: Metric) -> tuple[str, ...]:
    """The note about an attribute that alone ranks within noise of the model.

    Parameters
    ----------
    model, alone : Metric
        Average precision of the model and of the attribute.
    behind, gain : Metric
        Paired differences: the model minus the attribute, and the attribute minus a random order.
    """
    if behind.low > 0 or gain.low <= 0:
        return ()
    return (_note(name, f"average precision {alone.value:.3f}, the model {model.value:.3f}"),)


def attribute_columns(spec: FeatureSpec) -> dict[str, int]:
    """Profile attributes of a spec, by their column in `profiles`, with their position."""
    return {feature.column: at for at, feature in enumerate(spec.features) if feature.aggregate == "attribute"}


def group_codes(
    values: NDArray[np.float32], others: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Codes 1, 2, … of the values of an attribute; 0 for a value of `others` that `values` do not contain.

    Examples
    --------
    >>> known, other = group_codes(np.array([3, 5, 3], np.float32), np.array([5, 4], np.float32))
    >>> known.tolist(), other.tolist()
    ([1, 2, 1], [2, 0])
    """
    distinct = np.unique(values)
    if len(distinct) > MAX_CODES:
        edges = np.unique(np.quantile(values, np.arange(1, MAX_CODES) / MAX_CODES))
        return np.searchsorted(edges, values, side="right") + 1, np.searchsorted(edges, others, side="right") + 1

    def codes(some: NDArray[np.float32]) -> NDArray[np.int64]:
        at = np.minimum(np.searchsorted(distinct, some), len(distinct) - 1)
        return np.where(distinct[at] == some, at + 1, 0)

    return codes(values), codes(others)


def smoothed_rates(codes: NDArray[np.int64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean target of the rows of each code, with `PRIOR_ROWS` rows of the overall mean.

    Parameters
    ----------
    codes : int64 array, shape (n,)
    targets : float64 array, shape (n, k)

    Returns
    -------
    float64 array, shape (MAX_CODES + 2, k)
        Row 0 and rows of codes that do not occur have the overall mean.
    """
    size = MAX_CODES + 2
    overall = targets.mean(axis=0)
    sums = np.stack([np.bincount(codes, weights=column, minlength=size) for column in targets.T], axis=1)
    counts = np.bincount(codes, minlength=size)[:, None]
    return np.asarray((sums + PRIOR_ROWS * overall) / (counts + PRIOR_ROWS), dtype=np.float64)


def coded_attributes(
    spec: FeatureSpec, X: NDArray[np.float32], test_X: NDArray[np.float32]
) -> Iterator[CodedAttribute]:
    """Each attribute of `spec` with the group of its value (`group_codes`) for each training and each test customer.

    Parameters
    ----------
    X, test_X : float32 array, shape (n, f) and (m, f)
        Features of the training and the test customers, with the columns of `spec`.
    """
    for name, at in attribute_columns(spec).items():
        codes, test_codes = group_codes(X[:, at], test_X[:, at])
        yield name, codes, test_codes


def _note(name: str, figures: str) -> str:
    return f"the profile attribute {name} alone predicts as well as the model ({figures}): is it of a later date?"
