"""What a job is given and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.compute.builder import Builder, ProfileBuild
from features.compute.spec import FeatureSpec, UserFeatures
from features.data.lake import Lake
from features.definitions.pack_features import declared_features
from features.interactions import TrainingSet
from features.profiles.tags.declare import TagValue
from features.training_data import training_set
from models.bundle import ModelBundle
from qianmian.errors import DataError
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from training.gate import GateRule
from training.report import EvalReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Progress = Callable[[str], None]


@dataclass(frozen=True)
class EvaluatedModel:
    """A fitted, evaluated, not yet judged model.

    Attributes
    ----------
    rules : sequence of Rule
        What the gate will ask of `report`.
    parameters : dict
        For the run.
    figures : dict of str to Figure
        File name → matplotlib figure.
    example : pyarrow.Table
        A few input rows of the registered model.
    tags : dict of str to (sequence, sequence)
        Tag → one_ids and their values, published with the model once it is registered (`features.profiles.tags.published`).
    """

    bundle: ModelBundle
    report: EvalReport
    rules: Sequence[GateRule]
    parameters: dict[str, Any]
    figures: Mapping[str, Figure]
    example: pa.Table
    tags: Mapping[str, tuple[Sequence[str], Sequence[TagValue]]] = field(default_factory=dict)


@dataclass
class TrainingContext:
    """One training at one moment; what jobs share is built once.

    Attributes
    ----------
    shuffle_labels : bool
        Permute the outcomes that are learnt from, never those that are evaluated: shows that the gate refuses. Tests only.
    tune : bool
        Search parameters on the validation window first, where the job can.
    """

    workspace: Workspace
    as_of: datetime
    settings: Settings
    progress: Progress
    horizon_days: int | None = None
    active_days: int | None = None
    shuffle_labels: bool = False
    tune: bool = False
    _profiles: dict[datetime, ProfileBuild] = field(default_factory=dict)
    _builder: Builder | None = None

    @property
    def lake(self) -> Lake:
        return self.builder.lake

    @property
    def builder(self) -> Builder:
        if self._builder is None:
            self._builder = Builder(Lake(self.workspace), declared_features(self.settings))
        return self._builder

    def build_profiles(self, as_of: datetime) -> ProfileBuild:
        """Profiles at a moment, built once."""
        if as_of not in self._profiles:
            self.progress(f"features at {as_of:%Y-%m-%d}")
            self._profiles[as_of] = self.builder.build(as_of)
        return self._profiles[as_of]

    def profile(self, as_of: datetime, spec: FeatureSpec | None = None) -> UserFeatures:
        """Profiles at a moment as a matrix."""
        return self.build_profiles(as_of).matrix(spec)

    def stationary_spec(self, as_of: datetime) -> FeatureSpec:
        """The profile's columns at a moment that a model over several moments may learn from: no ids, nothing that grows with the calendar."""
        spec = self.profile(as_of).spec
        return spec.select([one.name for one in spec.features if not (one.grows_with_calendar or one.is_identifier)])

    def require_order_features(self, features: Sequence[str], message: str) -> None:
        """Refuse a job whose features of dated orders the lake cannot give.

        Raises
        ------
        DataError
            With `message` as its message.
        """
        kept, _ = self.builder.supported()
        missing = [name for name in features if name not in {feature.name for feature in kept}]
        if missing:
            hint = "map `order_id` and `ts` of transactions in sources.yaml"
            raise DataError(message, got=f"no {', '.join(missing)}", where="the lake", hint=hint)

    def training_set(self, as_of: datetime, *, min_item_customers: int, with_features: bool = True) -> TrainingSet:
        """Interactions at a moment; features come from the shared build."""
        data = training_set(self.builder, as_of, min_item_customers=min_item_customers, with_features=False)
        if not with_features:
            return data
        features = self.profile(as_of)
        return TrainingSet(
            data.user_ids,
            data.item_ids,
            data.interactions,
            data.item_attributes,
            features.take(features.rows_of(data.user_ids)),
            as_of,
            data.source,
        )

    def history_start(self, *tables: str) -> datetime:
        """Where the history of the named tables begins, stray rows left out.

        Raises
        ------
        DataError
            When none of them is dated.
        """
        states = self.builder.states
        times = [states[name].begin for name in tables if name in states and states[name].begin is not None]
        if not times:
            raise DataError(
                f"{' and '.join(tables)} carry no time, so no period can be held out",
                where="the lake",
                hint="map `ts` in sources.yaml",
            )
        return min(time for time in times if time is not None)

    def facts(self, job: str, **more: Any) -> dict[str, Any]:
        """What every manifest says."""
        return {"job": job, "data_digest": self.lake.digest, "seed": self.settings.seed, **more}

    def shuffled(self, labels: NDArray[Any]) -> NDArray[Any]:
        """The labels themselves, or permuted when `shuffle_labels`."""
        return np.random.default_rng(self.settings.seed).permutation(labels) if self.shuffle_labels else labels


@dataclass(frozen=True)
class Job:
    """A registered way to train one model.

    Attributes
    ----------
    can_tune : bool
        Heeds `TrainingContext.tune`.
    run : callable
        Raises `DataError` where the data cannot support the job: `train all` skips it then, with that reason.
    """

    name: str
    description: str
    run: Callable[[TrainingContext], EvaluatedModel]
    can_tune: bool = False


def snapshot_dates(first: datetime, last: datetime, step_days: int, max_count: int) -> list[datetime]:
    """Moments from `last` backwards every `step_days`, none before `first`, at most `max_count`; oldest first.

    Examples
    --------
    >>> [f"{as_of:%m-%d}" for as_of in snapshot_dates(datetime(2017, 1, 1), datetime(2017, 3, 1), 28, 9)]
    ['01-04', '02-01', '03-01']
    """
    found = [last - timedelta(days=step_days * back) for back in range(max_count)]
    return [as_of for as_of in reversed(found) if as_of >= first]
