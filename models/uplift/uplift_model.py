"""`UpliftModel`: the expected difference of a customer's outcome between being contacted and not being contacted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from models.persist import UserArrays, load_json
from models.uplift.interactions import InteractionRegression
from models.uplift.regressions import (
    OUTCOME_MODELS,
    BoostedRegression,
    Floats,
    LinearRegressionModel,
    Matrix,
    Regression,
)
from qianmian.errors import UsageError
from qianmian.workspace import write_json

AnyRegression = LinearRegressionModel | BoostedRegression | InteractionRegression
REGRESSIONS: dict[str, type[AnyRegression]] = {**OUTCOME_MODELS, "interactions": InteractionRegression}


@dataclass(frozen=True)
class Term:
    """A part of an uplift: the prediction of a regression, times a weight.

    Attributes
    ----------
    weight : float
    regression : Regression
    treatment : float or None
        The value of the treatment to predict for; None if the regression has no treatment among its inputs.
    """

    weight: float
    regression: Regression
    treatment: float | None = None


@dataclass(frozen=True)
class UpliftModel:
    """The calibrated sum of the terms of a learner: ``level + slope · (Σ weight · prediction − middle)``.

    Level and slope are fitted on rows that the learner has not seen, as Platt scaling is: a learner that overstates the
    differences between customers has a slope below 1. With a slope of 0 the uplift is the same for everybody. The
    model keeps no row: coefficients, trees, and the codes of categories that at least 20 rows share.

    Attributes
    ----------
    learner : str
        Name of the learner, of `training.uplift`.
    names : tuple of str
        Columns of the values, in order.
    terms : tuple of Term
        None for a constant.
    level, slope, middle : float
    """

    user_arrays: ClassVar[tuple[UserArrays, ...]] = ()

    learner: str = "constant effect"
    names: tuple[str, ...] = ()
    terms: tuple[Term, ...] = ()
    level: float = 0.0
    slope: float = 0.0
    middle: float = 0.0

    def raw(self, values: Matrix) -> Floats:
        """Return the sum of the terms before its calibration, (n,); 0 for a constant."""
        total = np.zeros(len(values))
        for term in self.terms:
            total += term.weight * term.regression.predict(values, term.treatment)
        return total

    def predict(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the uplift of each customer, float64, (n,).

        Parameters
        ----------
        values : ndarray of float32, (n, f)
            The columns `names`; NaN for a missing number, −1 for a missing category.

        Raises
        ------
        UsageError
            The values have another number of columns.
        """
        if values.shape[1] != len(self.names):
            raise UsageError(
                "the values do not have the columns of the uplift model",
                got=f"{values.shape[1]} columns",
                allowed=f"{len(self.names)} columns, in the order of `names`",
            )
        if self.slope == 0.0:
            return np.full(len(values), self.level)
        return self.level + self.slope * (self.raw(values) - self.middle)

    def get_params(self) -> dict[str, Any]:
        """Return what a run is logged with."""
        return {"learner": self.learner, "level": self.level, "slope": self.slope, "columns": len(self.names)}

    def save(self, folder: Path) -> None:
        """Write the terms, a folder each, and the calibration as JSON."""
        kinds: dict[type, str] = {cls: kind for kind, cls in REGRESSIONS.items()}
        terms = [
            {
                "weight": term.weight,
                "treatment": term.treatment,
                "regression": place,
                "kind": kinds[type(term.regression)],
            }
            for term, place in zip(self.terms, self._places(), strict=True)
        ]
        for place, regression in enumerate(self._regressions()):
            regression.save(folder / f"regression_{place}")
        about = {name: getattr(self, name) for name in ("learner", "level", "slope", "middle")}
        write_json(folder / "uplift.json", {**about, "names": list(self.names), "terms": terms})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a model that `save` wrote."""
        found = load_json(folder / "uplift.json")
        kinds = {term["regression"]: term["kind"] for term in found["terms"]}
        regressions: dict[int, Regression] = {
            place: REGRESSIONS[kind].load(folder / f"regression_{place}") for place, kind in kinds.items()
        }
        terms = tuple(Term(one["weight"], regressions[one["regression"]], one["treatment"]) for one in found["terms"])
        numbers = {name: float(found[name]) for name in ("level", "slope", "middle")}
        return cls(str(found["learner"]), tuple(found["names"]), terms, **numbers)

    def _regressions(self) -> list[Regression]:
        """The regressions, each once: both terms of an S-learner have the same."""
        return list({id(term.regression): term.regression for term in self.terms}.values())

    def _places(self) -> list[int]:
        order = {id(regression): place for place, regression in enumerate(self._regressions())}
        return [order[id(term.regression)] for term in self.terms]


def decile_of(uplift: NDArray[np.float64], edges: Sequence[float]) -> NDArray[np.int64]:
    """Return the tenth of the customers by uplift, 1 for the highest, int64, (n,).

    Parameters
    ----------
    edges : sequence of 9 floats
        Ascending bounds of the tenths.

    Examples
    --------
    >>> decile_of(np.array([0.95, 0.05, -1.0]), [0.1 * n for n in range(1, 10)]).tolist()
    [1, 10, 10]
    """
    return np.asarray(10 - np.searchsorted(np.asarray(edges, dtype=np.float64), uplift, side="right"))
