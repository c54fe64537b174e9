"""What a fit costs: estimates by which a training chooses the models that its budget can carry."""

from __future__ import annotations

from typing import ClassVar

from features.interactions import TrainingSet


class FitCost:
    """Base class of the recommenders that declares what `fit` costs, without fitting.

    The coefficients are measured, not derived: the CPU seconds of a fit on one core (Complete Journey, a quarter of its
    customers, all of them, and four times as many), divided by what the fit is linear in. An estimate holds within a
    factor of two on one kind of machine; it orders models and keeps a training from one that takes hours.

    A model whose cost is not linear in the interactions overrides the methods.

    Attributes
    ----------
    cpu_seconds_per_line : float
        CPU seconds per interaction of the training set.
    peak_bytes_per_line : float
        Memory of the fit per interaction of the training set, in addition to the training set itself.
    """

    cpu_seconds_per_line: ClassVar[float] = 1e-6
    peak_bytes_per_line: ClassVar[float] = 100.0

    def estimated_cpu_seconds(self, train: TrainingSet) -> float:
        """Estimate the CPU seconds of a fit on `train`."""
        return self.cpu_seconds_per_line * len(train.interactions.users)

    def estimated_peak_bytes(self, train: TrainingSet) -> int:
        """Estimate the memory of a fit on `train` in bytes, in addition to the training set itself."""
        return int(self.peak_bytes_per_line * len(train.interactions.users))
