"""`ChurnModel`: the churn model that is registered, the mean of one or more members, corrected for the time of year."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from features.profiles.purchase_process.process import PurchaseProcess
from models.classify.churn import ChurnClassifier
from models.classify.logistic import LogisticClassifier
from models.classify.own_window import OwnWindow
from models.classify.rhythm import Design, day_number, probability
from models.persist import UserArrays, load_json
from qianmian.workspace import write_json

DAYS_PER_STEP = 7.0  # between two values of `shifts`
Moments: TypeAlias = datetime | NDArray[np.datetime64]  # of all rows, or of each


class MemberModel(Protocol):
    """A classifier of churn over a few columns."""

    def log_odds(self, X: NDArray[np.float32]) -> NDArray[np.float64]: ...
    def explain(self, X: NDArray[np.float32]) -> NDArray[np.float32]: ...
    def get_params(self) -> dict[str, Any]: ...
    def save(self, folder: Path) -> None: ...


MEMBER_KINDS: dict[str, type[ChurnClassifier] | type[LogisticClassifier]] = {
    "trees": ChurnClassifier,
    "logistic": LogisticClassifier,
}


@dataclass(frozen=True)
class Member:
    """One model of the mean.

    Attributes
    ----------
    kind : str
        Key of `MEMBER_KINDS`.
    columns : tuple of str
        Columns that the model reads (`models.classify.rhythm.Design`).
    model : MemberModel
    """

    kind: str
    columns: tuple[str, ...]
    model: MemberModel


@dataclass(frozen=True)
class ChurnModel:
    """The probability that a customer buys nothing within the horizon, or within a window of their own.

    Its log-odds are the mean of those of the members, plus a shift that depends on the date alone.

    Attributes
    ----------
    design : Design
        Makes the columns of the members from the features of the profiles.
    members : tuple of Member
    as_of_day : float
        Cutoff of the training, in days since 1970.
    shifts : tuple of float
        Shift of the log-odds at the cutoff and at each week after it; the last one holds from then on.
    """

    user_arrays: ClassVar[tuple[UserArrays, ...]] = ()

    design: Design = field(default_factory=Design)
    members: tuple[Member, ...] = ()
    as_of_day: float = 0.0
    shifts: tuple[float, ...] = field(default=(0.0,))

    def unshifted(
        self, X: NDArray[np.float32], days: NDArray[np.float64] | float, members: Sequence[Member] | None = None
    ) -> NDArray[np.float64]:
        """Return the mean log-odds of the members (or of some of them), (n,).

        Parameters
        ----------
        X : ndarray of float32, (n, f)
            Features of the profiles.
        days : float, or ndarray of float64 of shape (n,)
            Moment of the features, in days since 1970.
        """
        used = self.members if members is None else members
        return np.asarray(
            np.mean([member.model.log_odds(self.design.columns(X, member.columns, days)) for member in used], axis=0)
        )

    def shift(self, as_of: Moments | None = None) -> NDArray[np.float64]:
        """Return the shift of the log-odds at a moment, (), or at each of several, (n,); by default, at the cutoff."""
        weeks = (self._days(as_of) - self.as_of_day) / DAYS_PER_STEP
        return np.asarray(np.interp(weeks, np.arange(len(self.shifts)), self.shifts))

    def _days(self, as_of: Moments | None) -> NDArray[np.float64] | float:
        if isinstance(as_of, np.ndarray):
            return (as_of - np.datetime64(0, "us")) / np.timedelta64(1, "D")
        return self.as_of_day if as_of is None else day_number(as_of)

    def predict_proba(self, X: NDArray[np.float32], as_of: Moments | None = None) -> NDArray[np.float64]:
        """Return the probabilities of staying and churning, (n, 2).

        Parameters
        ----------
        X : ndarray of float32, (n, f)
            Features of the profiles.
        as_of : datetime, or ndarray of datetime64 of shape (n,), optional
            Moment of the features, of all or of each row; default: the cutoff of the training.
        """
        churn = probability(self.unshifted(X, self._days(as_of)) + self.shift(as_of))
        return np.column_stack([1.0 - churn, churn])

    def window_days(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the days within which no purchase is predicted, (n,)."""
        return self.design.window_days(X)

    def explain(self, X: NDArray[np.float32], as_of: Moments | None = None) -> NDArray[np.float32]:
        """Return the contribution of each feature to the log-odds, (n, f).

        A column that is made of features contributes to the feature that it mostly depends on. What the date
        contributes is the same for all customers, and is left out.
        """
        days = self._days(as_of)
        found = np.zeros((len(X), len(self.design.features)), dtype=np.float32)
        for member in self.members:
            contributions = member.model.explain(self.design.columns(X, member.columns, days))
            for place, contribution in zip(self.design.owners(member.columns), contributions.T, strict=True):
                if place >= 0:
                    found[:, place] += contribution / len(self.members)
        return found

    @classmethod
    def of_trees(cls, model: ChurnClassifier) -> Self:
        """Return a model with one member, which reads all features in their order."""
        features = tuple(f"column_{number}" for number in range(model.n_features_in_))
        return cls(Design(features), (Member("trees", features, model),))

    def at(self, as_of_day: float, shifts: Sequence[float]) -> ChurnModel:
        """Return the same model with another cutoff and other shifts."""
        return replace(self, as_of_day=as_of_day, shifts=tuple(float(shift) for shift in shifts))

    def get_params(self) -> dict[str, Any]:
        """Return the kind, the number of columns and the parameters of each member."""
        found: dict[str, Any] = {}
        for number, member in enumerate(self.members):
            described = {"kind": member.kind, "columns": len(member.columns), **member.model.get_params()}
            found |= {f"member_{number}_{name}": value for name, value in described.items()}
        return found

    def save(self, folder: Path) -> None:
        """Write each member into its own folder, and the rest as JSON."""
        folder.mkdir(parents=True, exist_ok=True)
        for number, member in enumerate(self.members):
            member.model.save(folder / f"member_{number}")
        process, window = self.design.process, self.design.window
        write_json(
            folder / "churn.json",
            {
                "features": list(self.design.features),
                "horizon_days": self.design.horizon_days,
                "process": process.as_fitted() if process is not None else None,
                "window": window.as_dict() if window is not None else None,
                "members": [{"kind": member.kind, "columns": list(member.columns)} for member in self.members],
                "as_of_day": self.as_of_day,
                "shifts": list(self.shifts),
            },
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a model that `save` wrote, or the trees that an earlier version registered alone."""
        if not (folder / "churn.json").exists() and (folder / "booster.json").exists():
            return cls.of_trees(ChurnClassifier.load(folder))
        described = load_json(folder / "churn.json")
        process = PurchaseProcess.of(described["process"]) if described["process"] is not None else None
        members = tuple(
            Member(
                one["kind"],
                tuple(one["columns"]),
                MEMBER_KINDS[one["kind"]].load(folder / f"member_{number}"),
            )
            for number, one in enumerate(described["members"])
        )
        window = OwnWindow.of(described["window"]) if described.get("window") else None
        design = Design(tuple(described["features"]), described["horizon_days"], process, window)
        return cls(design, members, described["as_of_day"], tuple(described["shifts"]))
