"""What a fit costs: estimates by which a training chooses the models that its budget can carry."""

from __future__ import annotations

from typing import ClassVar

from features.interactions import TrainingSet
from models.recommend import sampling


class FitCost:
    """Base class of the recommenders that declares what `fit` costs, without fitting.

    The coefficients are measured, not derived: the CPU seconds of a fit with one thread on Complete Journey (2,453
    customers, 23,356 items, 1.14 million interactions; a core of 2023), divided by what the fit is linear in. An
    estimate holds within a factor of two on one kind of machine; it orders models and keeps a training from one that
    takes hours. Ranking costs extra: up to 2 CPU seconds per 1,000 customers.

    A model whose cost is not linear in the interactions overrides the methods.

    Attributes
    ----------
    cpu_seconds_per_line, bytes_per_line : float
        CPU seconds and memory per interaction of the training set. The memory is in addition to the training set.
    cpu_seconds_per_learnt_line, bytes_per_learnt_line : float
        The same per interaction of the `learning_sample`.
    """

    cpu_seconds_per_line: ClassVar[float] = 2e-7
    bytes_per_line: ClassVar[float] = 40.0
    cpu_seconds_per_learnt_line: ClassVar[float] = 0.0
    bytes_per_learnt_line: ClassVar[float] = 0.0

    def estimated_cpu_seconds(self, train: TrainingSet) -> float:
        """Estimate the CPU seconds of a fit on `train`."""
        return self.cpu_seconds_per_line * n_lines(train) + self.cpu_seconds_per_learnt_line * n_learnt_lines(train)

    def estimated_peak_bytes(self, train: TrainingSet) -> int:
        """Estimate the memory of a fit on `train` in bytes, in addition to the training set itself."""
        return int(self.bytes_per_line * n_lines(train) + self.bytes_per_learnt_line * n_learnt_lines(train))


def n_lines(train: TrainingSet) -> int:
    """Return the number of interactions of a training set."""
    return len(train.interactions.users)


def n_learnt_lines(train: TrainingSet) -> int:
    """Return the number of interactions of the `learning_sample` of a training set."""
    return min(n_lines(train), sampling.LEARNING_LINES)
