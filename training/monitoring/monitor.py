"""`Monitor`: the checks of one model at any moment after its training. Profiles of a moment are built once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property

import numpy as np

from features.compute.builder import Builder, ProfileBuild
from features.compute.spec import FeatureSpec
from features.compute.views import VIEW_TABLES
from models.bundle import ModelBundle
from models.classify.risk_bands import FACT, RiskBands
from models.day_histograms import DayHistograms
from qianmian.errors import DataError, UsageError
from qianmian.schema import EVALUATION
from qianmian.settings import Settings
from training.jobs.base import Progress, TrainingContext
from training.monitoring.drift import ColumnDrift, Limits, drift
from training.monitoring.freshness import USUAL, ages, arrivals
from training.monitoring.labels import Calibration, Discrimination, calibration, discrimination
from training.monitoring.report import Check, MonitoringReport
from training.monitoring.rows import (
    JOB,
    OUTCOME,
    SCORE,
    ScoredRows,
    histograms_of,
    periods,
    reference_moments,
    reference_of,
    scored_rows,
    served_features,
)
from training.monitoring.texts import CheckText

MIN_CUSTOMERS = 100  # of one moment, below which nothing is said
SHOWN = 5  # columns that a sentence names


@dataclass
class Monitor:
    """Compares the customers of later moments with those of the training of a churn model.

    Attributes
    ----------
    builder : Builder
    settings : Settings
    bundle : ModelBundle
    version : str
    progress : callable
        Called with a line of text at each step.
    """

    builder: Builder
    settings: Settings
    bundle: ModelBundle
    version: str
    progress: Progress = lambda line: None
    _profiles: dict[datetime, ProfileBuild] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.bundle.kind != JOB:
            raise UsageError("only models of these jobs are monitored", got=self.bundle.kind, allowed=JOB)
        self.horizon_days, _ = periods(self.bundle)
        self.names = (*self._spec.names, SCORE, OUTCOME)

    @cached_property
    def reference(self) -> DayHistograms | None:
        """The customers of the training, as stored; else computed from the lake. None if there were none."""
        if self.bundle.reference is not None:
            return self.bundle.reference
        self.progress("the reference is computed, because an earlier version trained the model")
        context = self._context(self.bundle.as_of)
        for moment in reference_moments(context, self.bundle):
            self._build(moment)
        return reference_of(context, self.bundle)

    def replay(self, as_of: datetime) -> Iterator[MonitoringReport]:
        """A report for each horizon after the training, up to a moment; the ages are those of then."""
        moment = self.bundle.as_of + timedelta(days=self.horizon_days)
        while moment <= as_of:
            yield self.report(moment, moment)
            moment += timedelta(days=self.horizon_days)

    def report(self, as_of: datetime, now: datetime) -> MonitoringReport:
        """All checks at one moment.

        Parameters
        ----------
        as_of : datetime
            No row at or after it is read.
        now : datetime
            The moment at which ages are measured.

        Raises
        ------
        DataError
            The model was trained on data after `as_of`.
        """
        if as_of < self.bundle.as_of:
            raise DataError(
                "the model was trained on later data",
                where="--as-of",
                got=f"{as_of:%Y-%m-%d}",
                allowed=f"from {self.bundle.as_of:%Y-%m-%d} on",
            )
        self.progress(f"{self.bundle.kind} at {as_of:%Y-%m-%d}")
        context, reference = self._context(as_of), self.reference
        current, vanished = self._rows(context, as_of), self._vanished(as_of)
        found = MonitoringReport(
            self.bundle.kind,
            self.version,
            as_of,
            self.bundle.as_of,
            self.bundle.reference is not None,
            reference=reference,
            names=self.names,
        )
        checks = [vanished]
        if reference is None or len(current.days) < MIN_CUSTOMERS:
            few = CheckText("too_few", {"n": len(current.days), "least": MIN_CUSTOMERS})
            reason = CheckText("no_reference") if reference is None else few
            checks += [Check(name, "unknown", reason) for name in ("features", "scores")]
        else:
            histogram = histograms_of([current], reference)
            columns = self._drift(reference, histogram, range(len(self.names) - 1))
            found = replace(found, current=histogram, columns=columns)
            checks += [self._features(found, as_of), self._score(found)]
        of_outcomes, found = self._outcomes(context, as_of, found)
        checks += of_outcomes
        if reference is not None:
            checks.append(_population(reference, len(current.days)))
        checks += ages(self.builder, self.bundle.as_of, now, self.settings.monitoring)
        checks += arrivals(self.builder, self._tables(as_of), as_of)
        checks.append(Check("fallback", "unknown", CheckText("fallback_elsewhere")))
        return replace(found, checks=tuple(checks))

    # ---- rows ------------------------------------------------------------------------------------------------------

    def _context(self, as_of: datetime) -> TrainingContext:
        workspace = self.builder.lake.workspace
        return TrainingContext(
            workspace, as_of, self.settings, self.progress, _profiles=self._profiles, _builder=self.builder
        )

    def _build(self, as_of: datetime) -> None:
        """Build the features of the model at a moment, unless they are; a tenth of the cost of all features."""
        if as_of not in self._profiles:
            features, _ = served_features(self.builder, self._spec, as_of)
            self._profiles[as_of] = self.builder.build(as_of, features)

    def _rows(self, context: TrainingContext, as_of: datetime) -> ScoredRows:
        self._build(as_of)
        return scored_rows(context, self.bundle, as_of)

    def _tables(self, as_of: datetime) -> set[str]:
        """The tables that the features of the model read."""
        return {VIEW_TABLES[feature.view] for feature in self._profiles[as_of].features if feature.view}

    @property
    def _spec(self) -> FeatureSpec:
        spec = self.bundle.spec
        assert spec is not None  # `periods` has required it
        return spec

    # ---- checks ----------------------------------------------------------------------------------------------------

    def _vanished(self, as_of: datetime) -> Check:
        _, names = served_features(self.builder, self._spec, as_of)
        if not names:
            return Check("vanished", "fine", CheckText("none_vanished", {"n": len(self._spec.names)}))
        return Check("vanished", "alarm", CheckText("vanished_now", {"names": tuple(names)}))

    def _drift(
        self, reference: DayHistograms, current: DayHistograms, columns: Sequence[int]
    ) -> dict[str, ColumnDrift]:
        """Drift of some columns, adjusted for their number."""
        settings, every = self.settings.monitoring, range(len(reference.days))
        limits = Limits(settings.alpha, settings.min_shift, settings.min_psi)
        seed = self.settings.seed
        found = drift(reference.take(every, columns), current.take([0], columns), limits, seed)
        return {self.names[column]: one for column, one in zip(columns, found, strict=True)}

    def _features(self, found: MonitoringReport, as_of: datetime) -> Check:
        growing = {feature.name for feature in self._profiles[as_of].features if feature.grows_with_calendar}
        features = {name: one for name, one in found.columns.items() if name in self._spec.names}
        drifted = [name for name in _by_size(features) if features[name].drifted]
        expected = tuple(name for name in drifted if name in growing)
        others = [name for name in drifted if name not in growing]
        if others:
            names = tuple(f"{name} ({_change(features[name])})" for name in others[:SHOWN])
            values = {
                "n": len(others),
                "of": len(features),
                "names": (*names, *(("…",) if len(others) > SHOWN else ())),
            }
            statement = CheckText("drifted", values)
        else:
            largest = next(name for name in _by_size(features) if name not in growing or len(growing) == len(features))
            usual = f"{features[largest].usual_shift:.2f} SD, PSI {features[largest].usual_psi:.3f}"
            values = {"n": len(features), "name": largest, "change": _change(features[largest]), "usual": usual}
            statement = CheckText("no_drift", values)
        if expected:
            statement = CheckText("expected", {"text": statement, "names": expected})
        if found.reference is not None and len(found.reference.days) < 2:
            statement = CheckText("one_window", {"text": statement})
        return Check("features", "alarm" if others else "fine", statement)

    def _score(self, found: MonitoringReport) -> Check:
        return _mean_of("scores", found.columns[SCORE], *found.means(SCORE))

    def _outcomes(
        self, context: TrainingContext, as_of: datetime, found: MonitoringReport
    ) -> tuple[list[Check], MonitoringReport]:
        """What outcomes that were not yet known at the training say, of the last moment whose outcomes are known."""
        moment = as_of - timedelta(days=self.horizon_days)
        if moment < self.bundle.as_of:
            date = self.bundle.as_of + timedelta(days=self.horizon_days)
            reason = CheckText("no_labels", {"date": f"{date:%Y-%m-%d}"})
            return [Check(name, "unknown", reason) for name in ("outcomes", "calibration", "discrimination")], found
        rows = self._rows(context, moment)
        if len(rows.days) < MIN_CUSTOMERS:
            reason = CheckText("too_few", {"n": len(rows.days), "least": MIN_CUSTOMERS})
            return [Check(name, "unknown", reason) for name in ("outcomes", "calibration", "discrimination")], found
        y, p, settings = rows.outcomes, rows.scores, self.settings.monitoring
        bounds = self.bundle.facts.get(FACT)
        bands = RiskBands(*bounds) if bounds else None
        groups = calibration(y, p, bands, settings.calibration_ratio, settings.alpha)
        drifted, moved = self._outcome_drift(rows, found)
        checks = [drifted, _calibration(groups, moment)]
        found = replace(found, calibration=groups, columns={**found.columns, **moved})
        if not 0 < y.sum() < len(y):
            values = {"date": f"{moment:%Y-%m-%d}", "churned": int(y.sum()), "n": len(y)}
            return [*checks, Check("discrimination", "unknown", CheckText("one_class", values))], found
        evaluation = self.bundle.facts.get(EVALUATION)
        told = discrimination(y, p, evaluation, settings.auc_drop, self.settings.seed)
        return [*checks, _discrimination(told, moment)], replace(found, discrimination=told)

    def _outcome_drift(self, rows: ScoredRows, found: MonitoringReport) -> tuple[Check, dict[str, ColumnDrift]]:
        """Whether as many customers churn as in the reference, at the moments whose outcomes the training knew."""
        column = len(self.names) - 1
        reference = found.reference
        with_outcome = (
            [] if reference is None else np.flatnonzero(reference.rows[:, :, column].sum(axis=1) > 0).tolist()
        )
        if reference is None or not with_outcome:
            return Check("outcomes", "unknown", CheckText("no_earlier_outcomes")), {}
        now = histograms_of([rows], reference)
        moved = self._drift(reference.take(with_outcome, range(len(self.names))), now, [column])
        then = reference.sums[:, :, column].sum() / reference.rows[:, :, column].sum()
        return _mean_of("outcomes", moved[OUTCOME], float(then), float(rows.outcomes.mean())), moved


def _mean_of(name: str, moved: ColumnDrift, then: float, now: float) -> Check:
    """The check of the score or the outcome."""
    values = {"now": f"{now:.1%}", "then": f"{then:.1%}", "change": _change(moved)}
    return Check(name, "alarm" if moved.drifted else "fine", CheckText("mean_of", values))


def _by_size(columns: Mapping[str, ColumnDrift]) -> list[str]:
    """Names of the columns, the largest change first: in standard deviations, or the root of a PSI, which is alike."""
    return sorted(columns, key=lambda name: -max(abs(np.nan_to_num(columns[name].shift)), columns[name].psi ** 0.5))


def _change(one: ColumnDrift) -> str:
    shift = "" if np.isnan(one.shift) else f"{one.shift:+.2f} SD, "
    return f"{shift}PSI {one.psi:.3f}"


def _population(reference: DayHistograms, now: int) -> Check:
    """The number of customers who are scored, beside those of the reference."""
    then = reference.rows[:, :, -2].sum(axis=1)  # of the score, which every row has
    low, high = int(then.min()), int(then.max())
    usual = low / USUAL <= now <= high * USUAL
    return Check(
        "population", "fine" if usual else "alarm", CheckText("population_now", {"now": now, "low": low, "high": high})
    )


def _calibration(groups: Mapping[str, Calibration], moment: datetime) -> Check:
    every = groups["all"]
    values = {
        "date": f"{moment:%Y-%m-%d}",
        "predicted": f"{every.predicted:.1%}",
        "observed": f"{every.observed.value:.1%}",
        "low": f"{every.observed.low:.1%}",
        "high": f"{every.observed.high:.1%}",
        "n": every.observed.n,
    }
    out = tuple(CheckText(name) for name, group in groups.items() if group.out)
    if not out:
        return Check("calibration", "fine", CheckText("calibrated", values))
    return Check("calibration", "alarm", CheckText("uncalibrated", {**values, "groups": out}))


def _discrimination(told: Discrimination, moment: datetime) -> Check:
    values = {"date": f"{moment:%Y-%m-%d}"} | {
        name: f"{value:.3f}"
        for name, value in (("now", told.now.value), ("low", told.now.low), ("high", told.now.high))
    }
    if told.at_training is None:
        return Check("discrimination", "unknown", CheckText("auc_alone", values))
    then = told.at_training
    values |= {"then": f"{then.value:.3f}", "then_low": f"{then.low:.3f}", "then_high": f"{then.high:.3f}"}
    return Check("discrimination", "alarm" if told.lost else "fine", CheckText("auc", values))
