"""The input and the result of a training job, and the record that registers one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.compute.builder import Builder, ProfileBuild
from features.compute.spec import FeatureSpec, UserFeatures
from features.data.lake import Lake
from features.data.shared_accounts import SharedAccount
from features.definitions.building import make_builder
from features.definitions.target_features import target_features
from features.event_log.base import LogPosition
from features.interactions import TrainingSet
from features.profiles.lifecycle import stages_of_build
from features.profiles.purchase_process.fitting import process_of
from features.profiles.tags.declare import TagValue
from features.shared_accounts import shared_accounts
from features.targets import Target, choose_target
from features.training_data import training_set
from models.bundle import ModelBundle
from qianmian.errors import DataError
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from training.arguments import TableArguments, TrainingArguments
from training.attributes import unknown_attributes
from training.comparison import LossComparison
from training.gate import GateRule
from training.monitoring.declared import Monitored
from training.report import EvalReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_UNKNOWN = 0.25  # of the days in which a model is tested, without data
Progress = Callable[[str], None]


@dataclass(frozen=True)
class EvaluatedModel:
    """A fitted model with its evaluation, before the gate has decided.

    Attributes
    ----------
    bundle : ModelBundle
        The model to register.
    report : EvalReport
        Its evaluation on the test period.
    rules : sequence of GateRule
        Conditions on `report` for registration.
    parameters : dict
        Parameters logged to the MLflow run.
    figures : mapping of str to Figure
        File name → matplotlib figure.
    example : pyarrow.Table
        A few input rows of the registered model.
    tags : mapping of str to (sequence, sequence)
        Tag → one_ids and their values, published once the model is the champion (`features.profiles.tags.published`).
    comparison : LossComparison or str
        How the model is compared with the champion; or why two models of its job cannot be compared on rows.
    arguments : TrainingArguments, TableArguments or None
        What a reproduction needs; `training.run` adds that of a training on the lake.
    """

    bundle: ModelBundle
    report: EvalReport
    rules: Sequence[GateRule]
    parameters: dict[str, Any]
    figures: Mapping[str, Figure]
    example: pa.Table
    tags: Mapping[str, tuple[Sequence[str], Sequence[TagValue]]] = field(default_factory=dict)
    comparison: LossComparison | str = "the models of this job are not compared on rows"
    arguments: TrainingArguments | TableArguments | None = None


@dataclass
class TrainingContext:
    """Data, settings and cutoff of one training. Profiles and the feature builder are shared by its jobs.

    Attributes
    ----------
    workspace : Workspace
    as_of : datetime
        Cutoff, naive UTC.
    settings : Settings
    progress : callable
        Called with a line of text at each step.
    horizon_days : int or None
        Prediction horizon in days; None for that of the settings.
    active_days : int or None
        Churn: days since the last order within which a customer counts as active; None for that of the settings.
    shuffle_labels : bool
        Permute the labels of the training data, never those of the test data. For tests of the gate.
    tune : bool
        Search parameters on the validation period first, if the job can be tuned.
    inherited : dict of str to dict
        By job, what it takes from earlier trainings: parameters found by a search, the clusters in production. A job
        that has no entry looks in the workspace and makes one; a reproduction gives that of the run.
    """

    workspace: Workspace
    as_of: datetime
    settings: Settings
    progress: Progress
    horizon_days: int | None = None
    active_days: int | None = None
    shuffle_labels: bool = False
    tune: bool = False
    inherited: dict[str, dict[str, Any]] = field(default_factory=dict)
    _profiles: dict[datetime, ProfileBuild] = field(default_factory=dict)
    _builder: Builder | None = None
    _stages: dict[datetime, NDArray[np.str_]] = field(default_factory=dict)
    _unknown: dict[datetime, tuple[str, ...]] = field(default_factory=dict)
    _shared: list[SharedAccount] | None = None
    _target: Target | None = None
    _event_log: LogPosition | None = None

    def arguments(self, job: str) -> TrainingArguments:
        """What a job was given, for the record of its run; complete when the job is over."""
        return TrainingArguments(
            job,
            self.as_of,
            self.settings,
            self.horizon_days,
            self.active_days,
            self.tune,
            self.inherited.get(job, {}),
        )

    @property
    def target(self) -> Target:
        """What is recommended (`recommend.target`), chosen once at `as_of`; reported when it is first asked for."""
        if self._target is None:
            settings = self.settings.recommend
            days = self.horizon_days or settings.horizon_days
            self._target = choose_target(self.builder, self.as_of, wanted=settings.target, horizon_days=days)
            for note in self._target.notes:
                self.progress(note)
        return self._target

    @property
    def shared_accounts(self) -> list[SharedAccount]:
        """Accounts with which many people buy (`features.shared_accounts`); reported when they are first asked for."""
        if self._shared is None:
            self._shared = shared_accounts(self.builder, self.as_of, self.settings.identity.shared_account_share)
            for account in self._shared:
                self.progress(f"{account.user_id} is no single customer ({account.text}): no churn score, no lookalike")
        return self._shared

    def is_shared(self, one_ids: NDArray[np.str_]) -> NDArray[np.bool_]:
        """Whether each customer is a shared account, shape (n,)."""
        return np.isin(one_ids, [account.one_id for account in self.shared_accounts])

    @property
    def lake(self) -> Lake:
        return self.builder.lake

    @property
    def builder(self) -> Builder:
        if self._builder is None:
            self._builder = make_builder(Lake(self.workspace), self.settings)
        return self._builder

    def build_profiles(self, as_of: datetime) -> ProfileBuild:
        """Profiles at a cutoff, built once and kept."""
        if as_of not in self._profiles:
            self.progress(f"features at {as_of:%Y-%m-%d}")
            self._profiles[as_of] = self.builder.build(as_of)
        return self._profiles[as_of]

    def profile(self, as_of: datetime, spec: FeatureSpec | None = None) -> UserFeatures:
        """Profiles at a cutoff as a feature matrix."""
        return self.build_profiles(as_of).matrix(spec)

    def lifecycle_stages(self, as_of: datetime) -> NDArray[np.str_]:
        """Lifecycle stage of every customer of the profiles at a cutoff, computed once and kept."""
        if as_of not in self._stages:
            table = self.build_profiles(as_of).table
            process = process_of(self.builder.views(as_of), table, self.settings.lifecycle)
            self._stages[as_of] = stages_of_build(process, table, self.settings.lifecycle)
        return self._stages[as_of]

    def stationary_spec(self, as_of: datetime) -> FeatureSpec:
        """Profile columns for models over several snapshot dates: without identifiers and non-stationary features.

        Features of propensity targets are those of `train propensity` alone, so that a target can come and go.
        An unknown profile attribute has a neutral value; `training.attribute_choice` decides which attributes stay.
        """
        features = self.profile(as_of)
        spec = features.neutral_spec()
        of_targets = {feature.name for feature in target_features(self.settings)}
        kept = [
            feature
            for feature, values in zip(spec.features, features.values.T, strict=True)
            if not (feature.grows_with_calendar or feature.is_identifier or feature.name in of_targets)
            # an indicator that is the same for everybody tells nothing
            and not (feature.aggregate == "missing" and (values == values[0]).all())
        ]
        return spec.select([feature.name for feature in kept])

    def unknown_attributes(self, past: datetime) -> tuple[str, ...]:
        """Columns of `profiles` that models do not learn from, because their values at `past` are unknown."""
        if past not in self._unknown:
            self._unknown[past] = unknown_attributes(self.builder, past)
        return self._unknown[past]

    def attributes_known_at(self, as_of: datetime, evaluated_at: datetime | None) -> UserFeatures:
        """Text attributes of the profiles at a cutoff, without those that were unknown at an earlier one, if given.

        Recommenders read nothing else of a profile. A query of the attributes takes a tenth of the time of all features
        (Complete Journey: 0.3 instead of 3.1 CPU seconds).
        """
        unknown = self.unknown_attributes(evaluated_at) if evaluated_at is not None else ()
        attributes = self.builder.attributes(self.builder.states_at(as_of))
        self.progress(f"profile attributes at {as_of:%Y-%m-%d}")
        return self.builder.build(
            as_of, [one for one in attributes if one.categorical and one.column not in unknown]
        ).matrix()

    def require_order_features(self, features: Sequence[str], message: str) -> None:
        """Check that the data supports the order features that a job needs.

        Raises
        ------
        DataError
            With `message`, if a feature is not supported.
        """
        kept, _ = self.builder.supported()
        missing = [name for name in features if name not in {feature.name for feature in kept}]
        if missing:
            hint = "map `order_id` and `ts` of transactions in sources.yaml"
            raise DataError(message, got=f"missing features: {', '.join(missing)}", where="the lake", hint=hint)

    def training_set(
        self,
        as_of: datetime,
        *,
        min_item_customers: int | None,
        with_features: bool = True,
        evaluated_at: datetime | None = None,
    ) -> TrainingSet:
        """Training set at a cutoff, with the profile attributes of its customers.

        Parameters
        ----------
        evaluated_at : datetime, optional
            Cutoff of the training set on which the model was evaluated: attributes that were unknown then are left out.
        """
        data = training_set(
            self.builder,
            as_of,
            min_item_customers=min_item_customers,
            max_items=self.settings.recommend.max_items,
            target=self.target.name,
            with_features=False,
        )
        if data.items_left_out:
            limit = f"only the {data.n_items:,} most popular are recommended (recommend.max_items)"
            self.progress(f"{data.items_left_out:,} items are left out at {as_of:%Y-%m-%d}: {limit}")
        if not with_features:
            return data
        features = self.attributes_known_at(as_of, evaluated_at)
        return replace(data, user_features=features.take(features.rows_of(data.user_ids)))

    def require_outcomes(self, days: int, gap_days: int = 0) -> None:
        """Check that the `days` in which a model is tested, which end `gap_days` before the cutoff, are in the data.

        Raises
        ------
        DataError
            The data ends so early that more than `MOST_UNKNOWN` of these days have no rows: all customers would look
            as if they had stopped.
        """
        end = self.lake.typical_end
        tested = self.as_of - timedelta(days=gap_days)
        missing = (tested - end).days if end is not None else 0
        if end is not None and missing > MOST_UNKNOWN * days:
            raise DataError(
                f"the data ends before the period in which the model is tested, {days} days to {tested:%Y-%m-%d}",
                got=f"data up to {end:%Y-%m-%d}, --as-of {self.as_of:%Y-%m-%d}: nothing is known of {missing} days",
                allowed=f"up to {end + timedelta(days=gap_days + int(MOST_UNKNOWN * days)):%Y-%m-%d}",
                hint=f"choose --as-of {end + timedelta(days=gap_days):%Y-%m-%d}, or ingest the later rows",
            )

    def history_start(self, *tables: str) -> datetime:
        """Start of the history of the named tables, without rows with outlying timestamps.

        Raises
        ------
        DataError
            If none of the tables has timestamps.
        """
        states = self.builder.states
        times = [states[name].begin for name in tables if name in states and states[name].begin is not None]
        if not times:
            raise DataError(
                f"{' and '.join(tables)} have no timestamps, so no period can be held out",
                where="the lake",
                hint="map `ts` in sources.yaml",
            )
        return min(time for time in times if time is not None)

    def facts(self, job: str, **more: Any) -> dict[str, Any]:
        """Facts recorded in the manifest of every bundle, and `more`; digests say from which data it was made."""
        shared = {account.one_id: account.text for account in self.shared_accounts}
        own = {"job": job, "data_digest": self.lake.digest, "seed": self.settings.seed, "shared_accounts": shared}
        if promotions := self.builder.states.get("promotions"):
            own["promotions_digest"] = promotions.digest
        if self._event_log is not None:  # up to where the lake has the accepted events, which servers add the others to
            own["event_log"] = self._event_log._asdict()
        return {**own, **more}

    def shuffled(self, labels: NDArray[Any]) -> NDArray[Any]:
        """The labels, permuted if `shuffle_labels`."""
        return np.random.default_rng(self.settings.seed).permutation(labels) if self.shuffle_labels else labels


@dataclass(frozen=True)
class Job:
    """A registered way to train, evaluate and register one kind of model.

    Attributes
    ----------
    name : str
        Name in `JOBS` and on the command line.
    description : str
        One line for the command line.
    run : callable
        Takes a `TrainingContext`, returns an `EvaluatedModel`. Raises `DataError` if the data does not support the job;
        `train all` then skips it with that reason.
    can_tune : bool
        Whether the job uses `TrainingContext.tune`.
    fits_horizon : bool
        Whether the job shortens its horizon to the history, so that another horizon that nobody named is no surprise.
    monitored : Monitored or None
        How `qianmian monitor` looks at its models; None if they predict nothing of single customers.
    """

    name: str
    description: str
    run: Callable[[TrainingContext], EvaluatedModel]
    can_tune: bool = False
    fits_horizon: bool = False
    monitored: Monitored | None = None


def snapshot_dates(first: datetime, last: datetime, step_days: int, max_count: int) -> list[datetime]:
    """Snapshot dates every `step_days` back from `last`, not before `first`, at most `max_count`; oldest first.

    Examples
    --------
    >>> [f"{as_of:%m-%d}" for as_of in snapshot_dates(datetime(2017, 1, 1), datetime(2017, 3, 1), 28, 9)]
    ['01-04', '02-01', '03-01']
    """
    dates = [last - timedelta(days=step_days * back) for back in range(max_count)]
    return [as_of for as_of in reversed(dates) if as_of >= first]
