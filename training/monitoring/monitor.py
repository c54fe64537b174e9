"""`Monitor`: the checks of one model at any moment after its training. Profiles of a moment are built once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from features.compute.builder import Builder
from features.compute.views import VIEW_TABLES
from models.bundle import ModelBundle
from models.classify.risk_bands import FACT, RiskBands
from models.day_histograms import DayHistograms
from qianmian.errors import DataError, UsageError
from qianmian.schema import EVALUATION, RISK_BANDS
from qianmian.settings import Settings
from training.jobs import JOBS
from training.jobs.base import Progress, TrainingContext
from training.monitoring.declared import ScoredRows
from training.monitoring.drift import ColumnDrift, Limits, drift
from training.monitoring.freshness import USUAL, ages, arrivals
from training.monitoring.labels import ALL, calibration, discrimination, of_calibration, of_discrimination
from training.monitoring.report import Check, MonitoringReport
from training.monitoring.rows import MonitoringContext, histograms_of, reference_of, served_features
from training.monitoring.texts import CheckText

Floats = NDArray[np.float64]
MIN_CUSTOMERS = 100  # of one moment, below which nothing is said
SHOWN = 5  # columns that a sentence names
OF_OUTCOMES = "outcomes", "calibration", "discrimination"  # checks


def monitored_jobs() -> tuple[str, ...]:
    """Names of the jobs that declare how their models are monitored."""
    return tuple(job.name for job in JOBS.values() if job.monitored is not None)


@dataclass
class Monitor:
    """Compares the customers of later moments with those of the training of a model.

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
    _contexts: dict[datetime, MonitoringContext] = field(default_factory=dict)

    def __post_init__(self) -> None:
        monitored = JOBS[self.bundle.kind].monitored if self.bundle.kind in JOBS else None
        if monitored is None:
            allowed = ", ".join(monitored_jobs())
            raise UsageError("models of this job are not monitored", got=self.bundle.kind, allowed=allowed)
        self.monitored = monitored
        self.features = monitored.spec(self.bundle).names
        self.scores, self.outcomes = monitored.columns(self.bundle)
        self.periods = monitored.periods(self.bundle)
        self.names = (*self.features, *self.scores, *self.outcomes)

    @cached_property
    def reference(self) -> DayHistograms | None:
        """The customers of the training, as stored; else computed from the lake. None if there were none."""
        if self.bundle.reference is not None:
            return self.bundle.reference
        self.progress("the reference is computed, because an earlier version trained the model")
        return reference_of(self._context(self.bundle.as_of), self.bundle)

    def replay(self, as_of: datetime) -> Iterator[MonitoringReport]:
        """A report for each step after the training, up to a moment; the ages are those of then."""
        step = timedelta(days=self.periods.step_days)
        moment = self.bundle.as_of + step
        while moment <= as_of:
            yield self.report(moment, moment)
            moment += step

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
        current, vanished = self.monitored.rows(context, self.bundle, as_of), self._vanished(as_of)
        found = MonitoringReport(
            self.bundle.kind,
            self.version,
            as_of,
            self.bundle.as_of,
            self.bundle.reference is not None,
            reference=reference,
            names=self.names,
            predictions=self.scores,
            in_percent=self.monitored.in_percent,
        )
        checks = [vanished]
        if reference is None or len(current.days) < MIN_CUSTOMERS:
            few = CheckText("too_few", {"n": len(current.days), "least": MIN_CUSTOMERS})
            reason = CheckText("no_reference") if reference is None else few
            checks += [Check(name, "unknown", reason) for name in ("features", "scores")]
        else:
            histogram = histograms_of([current], reference)
            columns = self._drift(reference, histogram, range(len(self.features) + len(self.scores)))
            found = replace(found, current=histogram, columns=columns)
            checks += [self._features(found, as_of), self._scores(found)]
        of_outcomes, found = self._outcomes(context, as_of, found)
        checks += of_outcomes
        if reference is not None:
            checks.append(_population(reference.rows[:, :, len(self.features)].sum(axis=1), len(current.days)))
        checks += ages(self.builder, self.bundle.as_of, now, self.settings.monitoring)
        checks += arrivals(self.builder, self._tables(as_of), as_of)
        checks.append(Check("fallback", "unknown", CheckText("fallback_elsewhere")))
        return replace(found, checks=tuple(checks))

    # ---- rows ------------------------------------------------------------------------------------------------------

    def _context(self, as_of: datetime) -> MonitoringContext:
        """The context at a moment; all of them share the profiles that are built."""
        if as_of not in self._contexts:
            every = next(iter(self._contexts.values()), None)
            plain = TrainingContext(
                self.builder.lake.workspace, as_of, self.settings, self.progress, _builder=self.builder
            )
            context = MonitoringContext.of(plain, self.monitored, self.bundle)
            if every is not None:
                context._profiles, context._stages = every._profiles, every._stages
            self._contexts[as_of] = context
        return self._contexts[as_of]

    def _tables(self, as_of: datetime) -> set[str]:
        """The tables that the features of the model read."""
        features = self._context(as_of).build_profiles(as_of).features
        return {VIEW_TABLES[feature.view] for feature in features if feature.view}

    # ---- checks ----------------------------------------------------------------------------------------------------

    def _vanished(self, as_of: datetime) -> Check:
        _, names = served_features(self.builder, self.monitored.spec(self.bundle), as_of)
        if not names:
            return Check("vanished", "fine", CheckText("none_vanished", {"n": len(self.features)}))
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
        computed = self._context(as_of).build_profiles(as_of).features
        growing = {feature.name for feature in computed if feature.grows_with_calendar}
        features = {name: found.columns[name] for name in self.features}
        return _drifted("features", features, found, growing)

    def _scores(self, found: MonitoringReport) -> Check:
        if len(self.scores) > 1:
            return _drifted("scores", {name: found.columns[name] for name in self.scores}, found)
        (name,) = self.scores
        return _mean_of("scores", found.columns[name], *found.means(name), self.monitored.in_percent)

    def _outcomes(
        self, context: MonitoringContext, as_of: datetime, found: MonitoringReport
    ) -> tuple[list[Check], MonitoringReport]:
        """What outcomes that were not yet known at the training say, of the last moment whose outcomes are known."""
        days, metrics = self.periods.outcome_days, self.monitored.auc(self.bundle)
        if days is None:
            return _unknown(OF_OUTCOMES[:1], CheckText("no_outcomes", {"job": self.bundle.kind})), found
        names = OF_OUTCOMES if metrics else OF_OUTCOMES[:2]
        moment, settings = as_of - timedelta(days=days), self.settings.monitoring
        if moment < self.bundle.as_of:
            date = self.bundle.as_of + timedelta(days=days)
            return _unknown(names, CheckText("no_labels", {"date": f"{date:%Y-%m-%d}"})), found
        rows = self.monitored.rows(context, self.bundle, moment)
        if len(rows.days) < MIN_CUSTOMERS:
            few = CheckText("too_few", {"n": len(rows.days), "least": MIN_CUSTOMERS})
            return _unknown(names, few), found
        if found.reference is not None:
            found = replace(found, arrived=histograms_of([rows], found.reference))
        drifted, moved = self._outcome_drift(found)
        groups = calibration(self._groups(rows), settings.calibration_ratio, settings.alpha)
        found = replace(found, calibration=groups, columns={**found.columns, **moved})
        checks = [drifted, of_calibration(groups, moment, len(rows.days))]
        if metrics:
            y, p = rows.outcomes.astype(np.int64), rows.scores
            both = {name: y[:, j] for j, name in enumerate(self._prediction_names) if 0 < y[:, j].sum() < len(y)}
            summary, limits = self.bundle.facts.get(EVALUATION), (settings.auc_drop, settings.alpha / len(metrics))
            told = {
                name: discrimination(both[name], p[:, j], summary, metric, *limits, self.settings.seed)
                for j, (name, metric) in enumerate(zip(self._prediction_names, metrics, strict=True))
                if name in both
            }
            found = replace(found, discrimination=told)
            checks.append(of_discrimination(told, moment, int(y[:, 0].sum()), len(y), len(metrics)))
        return checks, found

    @property
    def _prediction_names(self) -> tuple[str, ...]:
        """Names of the predictions, as groups of calibration; one alone is that of all."""
        return tuple(name or ALL for name in self.monitored.predictions(self.bundle))

    def _groups(self, rows: ScoredRows) -> dict[str, tuple[Floats, Floats]]:
        """Outcomes and scores of each prediction; of one alone, of each risk band too."""
        groups = {name: (rows.outcomes[:, j], rows.scores[:, j]) for j, name in enumerate(self._prediction_names)}
        if (bounds := self.bundle.facts.get(FACT)) and list(groups) == [ALL]:
            (y, p), bands = groups[ALL], np.asarray(RiskBands(*bounds).of(rows.scores[:, 0]))
            groups |= {band: (y[bands == band], p[bands == band]) for band in RISK_BANDS if (bands == band).any()}
        return groups

    def _outcome_drift(self, found: MonitoringReport) -> tuple[Check, dict[str, ColumnDrift]]:
        """Whether the outcomes are those of the reference, at the moments whose outcomes the training knew."""
        columns = [self.names.index(name) for name in self.outcomes]
        reference = found.reference
        if reference is None or found.arrived is None:
            return Check("outcomes", "unknown", CheckText("no_earlier_outcomes")), {}
        with_outcome = np.flatnonzero(reference.rows[:, :, columns[0]].sum(axis=1) > 0).tolist()
        if not with_outcome:
            return Check("outcomes", "unknown", CheckText("no_earlier_outcomes")), {}
        moved = self._drift(reference.take(with_outcome, range(len(self.names))), found.arrived, columns)
        if len(columns) > 1:
            return _drifted("outcomes", moved, found), moved
        (name,) = self.outcomes
        return _mean_of("outcomes", moved[name], *found.means(name)), moved


def _unknown(names: Sequence[str], reason: CheckText) -> list[Check]:
    return [Check(name, "unknown", reason) for name in names]


def _drifted(
    name: str, columns: Mapping[str, ColumnDrift], found: MonitoringReport, growing: Collection[str] = ()
) -> Check:
    """The check of several columns; those that grow with the calendar are named, and are no alarm."""
    order = _by_size(columns)
    drifted = [column for column in order if columns[column].drifted]
    expected = tuple(column for column in drifted if column in growing)
    others = [column for column in drifted if column not in growing]
    if others:
        names = [f"{column} ({_change(columns[column])})" for column in others[:SHOWN]]
        more = ["…"] if len(others) > SHOWN else []
        statement = CheckText("drifted", {"n": len(others), "of": len(columns), "names": (*names, *more)})
    else:
        largest = next((column for column in order if column not in growing), order[0])
        usual = f"{columns[largest].usual_shift:.2f} SD, PSI {columns[largest].usual_psi:.3f}"
        values = {"n": len(columns), "name": largest, "change": _change(columns[largest]), "usual": usual}
        statement = CheckText("no_drift", values)
    if expected:
        statement = CheckText("expected", {"text": statement, "names": expected})
    if found.reference is not None and len(found.reference.days) < 2:
        statement = CheckText("one_window", {"text": statement})
    return Check(name, "alarm" if others else "fine", statement)


def _mean_of(name: str, moved: ColumnDrift, then: float, now: float, in_percent: bool = True) -> Check:
    """The check of one score or outcome."""
    means = {key: f"{value:.1%}" if in_percent else f"{value:,.4g}" for key, value in (("now", now), ("then", then))}
    return Check(name, "alarm" if moved.drifted else "fine", CheckText("mean_of", {**means, "change": _change(moved)}))


def _by_size(columns: Mapping[str, ColumnDrift]) -> list[str]:
    """Names of the columns, the largest change first: in standard deviations, or the root of a PSI, which is alike."""
    return sorted(columns, key=lambda name: -max(abs(np.nan_to_num(columns[name].shift)), columns[name].psi ** 0.5))


def _change(one: ColumnDrift) -> str:
    shift = "" if np.isnan(one.shift) else f"{one.shift:+.2f} SD, "
    return f"{shift}PSI {one.psi:.3f}"


def _population(then: Floats, now: int) -> Check:
    """The number of customers who are scored, beside those of each window of the reference."""
    low, high = int(then.min()), int(then.max())
    usual = low / USUAL <= now <= high * USUAL
    values = {"now": now, "low": low, "high": high}
    return Check("population", "fine" if usual else "alarm", CheckText("population_now", values))
