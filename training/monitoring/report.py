"""What a monitor has found: a list of checks, each with a status and a sentence, and the figures behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from models.day_histograms import DayHistograms
from training.monitoring.declared import OUTCOME
from training.monitoring.drift import ColumnDrift
from training.monitoring.texts import CheckText, Lang, word

if TYPE_CHECKING:
    from training.monitoring.labels import Calibration, Discrimination

Status: TypeAlias = Literal["fine", "alarm", "unknown"]
# checks whose alarm says that rows are late or lost: a model that learnt from them would be wrong
OF_DATA = ("data_age", "rows_transactions", "rows_events", "ids_transactions", "ids_events")


@dataclass(frozen=True)
class Check:
    """One question, its answer and why.

    Attributes
    ----------
    name : str
        Key in `TEXTS`.
    status : {"fine", "alarm", "unknown"}
        Unknown is what cannot be said yet, or from these data.
    statement : CheckText
    """

    name: str
    status: Status
    statement: CheckText

    def as_dict(self, lang: Lang) -> dict[str, str]:
        """The check as plain values."""
        return {"check": self.name, "status": self.status, "text": self.statement.say(lang)}


@dataclass(frozen=True)
class MonitoringReport:
    """Whether a model is still right at one moment.

    Attributes
    ----------
    job, version : str
    as_of, model_as_of : datetime
        The moment that is looked at, and the cutoff of the training.
    reference_stored : bool
        False if the reference was computed from the lake, for a model of an earlier version.
    checks : tuple of Check
    columns : mapping of str to ColumnDrift
        Features, scores and outcomes, as far as they could be compared.
    calibration : mapping of str to Calibration
        Of all customers and by risk band, or of each prediction; empty without outcomes.
    discrimination : mapping of str to Discrimination
        Of all customers, or of each prediction; empty without outcomes of both classes.
    reference, current : DayHistograms or None
        Of the features, scores and outcomes; None without enough customers.
    arrived : DayHistograms or None
        Of the last moment whose outcomes are known.
    names : tuple of str
        Names of the columns of these.
    predictions : tuple of str
        Those of them that are scores.
    in_percent : bool
        Whether scores are probabilities.
    """

    job: str
    version: str
    as_of: datetime
    model_as_of: datetime
    reference_stored: bool
    checks: tuple[Check, ...] = ()
    columns: Mapping[str, ColumnDrift] = field(default_factory=dict)
    calibration: Mapping[str, Calibration] = field(default_factory=dict)
    discrimination: Mapping[str, Discrimination] = field(default_factory=dict)
    reference: DayHistograms | None = None
    current: DayHistograms | None = None
    arrived: DayHistograms | None = None
    names: tuple[str, ...] = ()
    predictions: tuple[str, ...] = ()
    in_percent: bool = True

    @property
    def alarms(self) -> tuple[Check, ...]:
        """The checks that need attention."""
        return tuple(check for check in self.checks if check.status == "alarm")

    @property
    def curable(self) -> bool:
        """Whether to train the model again: something is wrong with it, and nothing with the data."""
        names = {check.name for check in self.alarms}
        return bool(names - {"profiles_age"}) and names.isdisjoint(OF_DATA)

    def subtitle(self, lang: Lang) -> str:
        """Which model was looked at, and when."""
        values = {"model": self.job, "version": self.version}
        dates = {"model_as_of": f"{self.model_as_of:%Y-%m-%d}", "as_of": f"{self.as_of:%Y-%m-%d}"}
        return CheckText("subtitle", values | dates).say(lang)

    def verdict(self, lang: Lang) -> str:
        """The result in one sentence."""
        if not self.alarms:
            return word("verdict_fine", lang)
        names = tuple(word(check.name, lang) for check in self.alarms)
        return CheckText("verdict_alarm", {"n": len(names), "names": names}).say(lang)

    def means(self, name: str) -> tuple[float, float]:
        """Mean of a column in the reference and now, or of outcomes, when they arrived; NaN where it is not known."""
        column = self.names.index(name)
        now = self.arrived if name.split()[0] == OUTCOME else self.current
        return _mean(self.reference, column), _mean(now, column)

    def as_dict(self, lang: Lang = "en") -> dict[str, Any]:
        """The report as plain values for JSON."""
        return {
            "model": self.job,
            "model_version": self.version,
            "as_of": self.as_of,
            "model_as_of": self.model_as_of,
            "reference": "stored" if self.reference_stored else "recomputed",
            "alarm": bool(self.alarms),
            "verdict": self.verdict(lang),
            "checks": [check.as_dict(lang) for check in self.checks],
            "columns": {
                name: {**asdict(found), **dict(zip(("mean_then", "mean_now"), self.means(name), strict=True))}
                for name, found in self.columns.items()
            },
            "calibration": {name: asdict(found) for name, found in self.calibration.items()},
            "auc": {name: asdict(found) for name, found in self.discrimination.items()},
        }


def _mean(part: DayHistograms | None, column: int) -> float:
    n = 0.0 if part is None else float(part.rows[..., column].sum())
    return float(part.sums[..., column].sum()) / n if part is not None and n else np.nan
