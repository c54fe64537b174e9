"""The customers whom a model scores, in histograms: the reference of a bundle, and those of later moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from features.compute.algebra import Feature
from features.compute.builder import Builder, ProfileBuild
from features.compute.spec import FeatureSpec
from models.bundle import ModelBundle
from models.classify.rhythm import day_number
from models.day_histograms import DayHistograms, day_histograms
from training.jobs.base import EvaluatedModel, Job, TrainingContext
from training.monitoring.declared import Monitored, ScoredRows

WINDOWS = 6  # of a reference: moments at which a training of all jobs has built profiles anyway
UNITS = 8  # of a window: whole days with about equally many customers


@dataclass
class MonitoringContext(TrainingContext):
    """A context whose profiles have the features of one model only, which are a tenth of the cost of all.

    Attributes
    ----------
    monitored : Monitored
        What its job declares.
    spec : FeatureSpec
        Features of the model.
    """

    monitored: Monitored = field(kw_only=True)
    spec: FeatureSpec = field(kw_only=True)

    @classmethod
    def of(cls, context: TrainingContext, monitored: Monitored, bundle: ModelBundle) -> MonitoringContext:
        """The context of a model, at the cutoff of another context, whose profiles it uses and does not change."""
        return cls(
            context.workspace,
            context.as_of,
            context.settings,
            context.progress,
            _profiles=dict(context._profiles),
            _builder=context.builder,
            _shared=context._shared,
            monitored=monitored,
            spec=monitored.spec(bundle),
        )

    def build_profiles(self, as_of: datetime) -> ProfileBuild:
        """Profiles at a cutoff, built once and kept."""
        if as_of not in self._profiles:
            features, _ = served_features(self.builder, self.spec, as_of, self.monitored.features)
            self._profiles[as_of] = self.builder.build(as_of, features)
        return self._profiles[as_of]


def histograms_of(rows: Sequence[ScoredRows], like: DayHistograms | None = None) -> DayHistograms:
    """Histograms of the rows of several moments, by the day of the last order; units and bins are those of `like`."""
    return day_histograms([(day_number(one.as_of), one.values, one.days) for one in rows], UNITS, like)


def reference_moments(context: TrainingContext, monitored: Monitored, bundle: ModelBundle) -> list[datetime]:
    """The cutoff of a model, and up to `WINDOWS` − 1 moments before it, the latest first."""
    periods = monitored.periods(bundle)
    first = context.history_start(*monitored.tables) + timedelta(days=periods.first_days)
    moments = [bundle.as_of - timedelta(days=periods.step_days * back) for back in range(WINDOWS)]
    return [at for at in moments if at >= first or at == bundle.as_of]


def reference_of(context: MonitoringContext, bundle: ModelBundle) -> DayHistograms | None:
    """What later customers are compared with: the rows at the reference moments; None if there is no row.

    The score of a past moment is that of the final model, which has learnt from its outcome.
    """
    monitored = context.monitored
    rows = [monitored.rows(context, bundle, at) for at in reference_moments(context, monitored, bundle)]
    rows = [one for one in rows if len(one.days)]
    return histograms_of(rows) if rows else None


def with_reference(context: TrainingContext, job: Job, evaluated_model: EvaluatedModel) -> EvaluatedModel:
    """The model with its reference in the bundle, if `qianmian monitor` can look at models of this job."""
    if job.monitored is None:
        return evaluated_model
    bundle = evaluated_model.bundle
    reference = reference_of(MonitoringContext.of(context, job.monitored, bundle), bundle)
    return replace(evaluated_model, bundle=replace(bundle, reference=reference))


# ---- the features that serving gives a model now ---------------------------------------------------------------------


def served_features(
    builder: Builder, spec: FeatureSpec, as_of: datetime, others: Sequence[str] = ()
) -> tuple[list[Feature], list[str]]:
    """The features of a model as they are declared now, and the names of those that have vanished.

    Vanished is what is no longer declared, or what the data before `as_of` does not support: the model reads its
    default. What a quotient is made of, and `others`, which say whom the model scores, are computed too.
    """
    declared = {feature.name: feature for feature in (*builder.declared, *builder.attributes(builder.states_at(as_of)))}
    wanted, queue = set(), [*spec.names, *others]
    while queue:
        name = queue.pop()
        if name in declared and name not in wanted:
            wanted.add(name)
            feature = declared[name]
            if feature.aggregate == "quotient":
                queue += [part for part in (feature.column, feature.over) if part]
    kept, _ = builder.supported([feature for name, feature in declared.items() if name in wanted], as_of)
    names = {feature.name for feature in kept}
    return list(kept), [name for name in spec.names if name not in names]
