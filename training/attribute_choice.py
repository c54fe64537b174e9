"""Which profile attributes a model learns from: those that make it better beyond noise, unless the settings decide.

Attributes have many values and few customers each, so that a model finds patterns in them that are chance. Whether they
help is validated on a period before the test period, against the same attributes shuffled between customers: a model
with more columns is another model even if they tell nothing (trees that draw their columns overfit the others less).
What a missing record means is validated apart from what the values mean: a model may keep the missing indicators and
leave the values out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from features.compute.spec import FeatureSpec
from models.parallel import run_parallel
from qianmian.settings import AttributeUse
from training.report import Metric

FITS = 2  # models whose mean prediction is compared, because one fit differs from the next by chance
# (columns of a spec, fewer of them) → the metric that the former reach minus that of the latter; higher is better
Gain = Callable[[Sequence[int], Sequence[int]], Metric]


def choose_attributes(
    use: AttributeUse, spec: FeatureSpec, gain: Gain | None, metric: str
) -> tuple[FeatureSpec, tuple[str, ...]]:
    """The spec with the profile attributes and missing indicators that a model keeps, and notes for its report.

    Parameters
    ----------
    use : {"auto", "always", "never"}
        `settings.profiles.in_models`; with ``auto``, the values of the attributes are kept if they add to the missing
        indicators beyond noise, and otherwise the indicators if they add to the other features.
    spec : FeatureSpec
        Columns to choose from.
    gain : callable or None
        Paired difference on the validation period; None if the history is too short for one.
    metric : str
        Name of the metric of `gain` in the note.

    Examples
    --------
    >>> from features.compute.algebra import Feature
    >>> spec = FeatureSpec((Feature("profile_age", "profiles", "attribute", "age"),), ((),))
    >>> kept, notes = choose_attributes("auto", spec, lambda more, fewer: Metric(0.01, -0.02, 0.04, 99), "AUC")
    >>> kept.names, notes
    ((), ('left out: the profile attributes age add nothing beyond noise: AUC +0.0100 [-0.0200, 0.0400]',))
    """
    kinds = [feature.aggregate for feature in spec.features]
    values = [at for at, kind in enumerate(kinds) if kind == "attribute"]
    indicated = [at for at, kind in enumerate(kinds) if kind != "attribute"]
    others = [at for at, kind in enumerate(kinds) if kind not in ("attribute", "missing")]
    left_out = f"left out: the profile attributes {', '.join(spec.features[at].column for at in values)}"

    def selected(columns: Sequence[int]) -> FeatureSpec:
        return spec.select([spec.names[at] for at in columns])

    if not values:
        return selected(others), ()
    if use == "always":
        return spec, ()
    if use == "never":
        return selected(others), (f"{left_out}, as profiles.in_models says",)
    if gain is None:
        reason = "there are too few data to validate what they add. To keep them: `profiles: {in_models: always}`"
        return selected(others), (f"{left_out}; {reason}",)
    of_values = gain(range(len(kinds)), indicated)
    if of_values.low > 0:
        return spec, ()
    note = f"{left_out} add nothing beyond noise: {metric} {_text(of_values)}"
    if len(indicated) > len(others):
        of_records = gain(indicated, others)
        if of_records.low > 0:
            kept = f"; whether a customer has a record is kept: {metric} {_text(of_records)}"
            return selected(indicated), (note + kept,)
    return selected(others), (note,)


def gain_over_shuffled(
    predict: Callable[[NDArray[np.float32], NDArray[np.float32], int], NDArray[np.float64]],
    difference: Callable[[NDArray[np.float64], NDArray[np.float64]], Metric],
    X: NDArray[np.float32],
    later_X: NDArray[np.float32],
    seed: int,
) -> Gain:
    """What columns add to a model, compared with the same columns shuffled between customers.

    Parameters
    ----------
    predict : callable
        (rows to fit on, later rows, seed) → predictions for the later rows.
    difference : callable
        Metric of the first predictions minus that of the second, paired.
    X, later_X : float32 array, shape (n, f) and (m, f)
        Rows to fit on, and rows of the validation period.
    """

    def prediction(columns: Sequence[int], shuffled: Sequence[int], number: int) -> NDArray[np.float64]:
        rng = np.random.default_rng((seed, number))
        fitted_rows, later_rows = (_shuffled(rows, shuffled, rng)[:, columns] for rows in (X, later_X))
        return predict(fitted_rows, later_rows, seed + number)

    def gain(more: Sequence[int], fewer: Sequence[int]) -> Metric:
        added = [at for at in more if at not in fewer]
        fits = [partial(prediction, more, shuffled, number) for shuffled in ((), added) for number in range(FITS)]
        predictions = run_parallel(fits)
        return difference(np.mean(predictions[:FITS], axis=0), np.mean(predictions[FITS:], axis=0))

    return gain


def _shuffled(rows: NDArray[np.float32], columns: Sequence[int], rng: np.random.Generator) -> NDArray[np.float32]:
    """A copy in which each customer has the values that another has in `columns`."""
    result = rows.copy()
    if columns:
        result[:, columns] = rows[rng.permutation(len(rows))][:, columns]
    return result


def without_neutral_values(spec: FeatureSpec, X: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Rows to fit trees on: an unknown attribute has the value of a customer drawn from those who have one, (n, f).

    Trees can tell the neutral value from the others, and would learn from it, attribute by attribute, what a missing
    record means. The drawn values are distributed like the known ones, so that only the missing indicators tell it.
    """
    missing = spec.missing(X)
    if not missing.any():
        return X
    rng, result = np.random.default_rng(seed), X.copy()
    for j in np.flatnonzero(missing.any(axis=0) & ~missing.all(axis=0)).tolist():
        unknown = missing[:, j]
        result[unknown, j] = rng.choice(X[~unknown, j], int(unknown.sum()))
    return result


def _text(difference: Metric) -> str:
    return f"{difference.value:+.4f} [{difference.low:.4f}, {difference.high:.4f}]"
