"""What a job declares so that `qianmian monitor` can look at its models (`Job.monitored`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from features.compute.spec import FeatureSpec
from models.bundle import ModelBundle
from qianmian.errors import ArtifactError

if TYPE_CHECKING:
    from training.jobs.base import TrainingContext

SCORE, OUTCOME = "score", "outcome"  # columns behind those of the features


@dataclass(frozen=True)
class ScoredRows:
    """The n customers that a model scores at one moment, with f features and m predictions.

    Attributes
    ----------
    as_of : datetime
    X : ndarray of float32, shape (n, f)
    scores : ndarray of float64, shape (n, m)
        Probabilities or amounts that the model predicts.
    outcomes : ndarray of float64, shape (n, m)
        What happened afterwards; NaN if it is not known yet.
    days : ndarray of float64, shape (n,)
        Days since the last order, or since the last order or event.
    """

    as_of: datetime
    X: NDArray[np.float32]
    scores: NDArray[np.float64]
    outcomes: NDArray[np.float64]
    days: NDArray[np.float64]

    @property
    def values(self) -> NDArray[np.float64]:
        """Features, scores and outcomes, shape (n, f + 2 m)."""
        return np.column_stack([self.X.astype(np.float64), self.scores, self.outcomes])


@dataclass(frozen=True)
class MonitoredPeriods:
    """Days that a model of a job is about.

    Attributes
    ----------
    outcome_days : int or None
        After so many days the outcome of every customer who was scored is known; None if the job declares no outcomes.
    step_days : int
        Between two moments of the reference and of a replay.
    first_days : int
        Of history before the first moment of the reference.
    """

    outcome_days: int | None
    step_days: int
    first_days: int


@dataclass(frozen=True)
class Monitored:
    """How the customers whom a model of a job scores are made, at any moment.

    Attributes
    ----------
    facts : tuple of str
        Facts of the bundle that the others read.
    features : tuple of str
        Features that say whom the model scores, and the outcomes, beside those that the model reads.
    periods : callable
        Those of a bundle.
    predictions : callable
        Names of the m predictions of a bundle; an empty one if there is one only.
    rows : callable
        The customers of a bundle at a moment. Outcomes that are not known at the cutoff of the context are NaN.
    auc : callable
        Name of the metric in the evaluation of the bundle that is the AUC of each prediction; empty without AUC.
    tables : tuple of str
        Those whose history the model is about.
    in_percent : bool
        Whether predictions are probabilities.
    """

    facts: tuple[str, ...]
    features: tuple[str, ...]
    periods: Callable[[ModelBundle], MonitoredPeriods]
    rows: Callable[[TrainingContext, ModelBundle, datetime], ScoredRows]
    predictions: Callable[[ModelBundle], tuple[str, ...]] = lambda bundle: ("",)
    auc: Callable[[ModelBundle], tuple[str, ...]] = lambda bundle: ("auc",)
    tables: tuple[str, ...] = ("transactions",)
    in_percent: bool = True

    def spec(self, bundle: ModelBundle) -> FeatureSpec:
        """The features of a model, which stored what is read of it.

        Raises
        ------
        ArtifactError
            An earlier version trained the model, and did not store that.
        """
        missing = [name for name in self.facts if bundle.facts.get(name) is None]
        if missing or bundle.spec is None:
            raise ArtifactError(
                "an earlier version trained this model, and did not store what it predicts",
                where=f"{bundle.kind} model as of {bundle.as_of:%Y-%m-%d}",
                got=f"no {' and '.join(missing or ['feature spec'])}",
                hint=f"train again: `qianmian train {bundle.kind}`",
            )
        return bundle.spec

    def columns(self, bundle: ModelBundle) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of the columns of scores and of outcomes."""
        names = self.predictions(bundle)
        return tuple(f"{SCORE} {name}".strip() for name in names), tuple(f"{OUTCOME} {name}".strip() for name in names)
