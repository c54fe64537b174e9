"""The churn models that `train churn` chooses between, the simplest first, and how each is fitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.compute.spec import FeatureSpec
from features.profiles.purchase_process.process import PurchaseProcess
from models.classify.boosting import MIN_ROWS, check_outcomes
from models.classify.churn import CHURN, WEEKS, ChurnClassifier
from models.classify.churn_model import ChurnModel, Member
from models.classify.logistic import LogisticClassifier
from models.classify.own_window import OwnWindow
from models.classify.rhythm import (
    COUNT_COLUMNS,
    HABIT_COLUMNS,
    MADE_OF,
    PROCESS,
    RHYTHM_COLUMNS,
    RHYTHM_FEATURES,
    SEASON,
    Design,
)
from qianmian.errors import DataError
from qianmian.settings import AttributeUse
from training.churn.snapshots import ChurnRows

FOLDS = 3  # of the calibration: five fit two more models, and the error of the calibration stays (.01)
RHYTHM, PROFILE = "rhythm", "profile"  # which rows a member learns from
Relabel = Callable[[NDArray[np.int64]], NDArray[np.int64]]


@dataclass(frozen=True)
class MemberRecipe:
    """How one member of a churn model is made.

    Attributes
    ----------
    kind : str
        Key of `models.classify.churn_model.MEMBER_KINDS`.
    rows : str
        `RHYTHM`: the many moments with rhythm features; `PROFILE`: the few moments with all features.
    columns : tuple of str
        Columns that it reads; empty for all features of the profile.
    records : bool
        Whether it also reads which customers have a record (`training.churn.records`).
    target : str
        What trees learn (`models.classify.churn.OBJECTIVES`).
    """

    kind: str
    rows: str
    columns: tuple[str, ...] = ()
    records: bool = False
    target: str = CHURN


@dataclass(frozen=True)
class Recipe:
    """A churn model that may be shipped.

    Attributes
    ----------
    name : str
        Name in reports.
    members : tuple of MemberRecipe
        The members of the mean.
    """

    name: str
    members: tuple[MemberRecipe, ...]

    @property
    def reads_profiles(self) -> bool:
        return any(member.rows == PROFILE for member in self.members)


RHYTHM_TREES = MemberRecipe("trees", RHYTHM, RHYTHM_COLUMNS)
LOGISTIC = Recipe("logistic, 7 columns", (MemberRecipe("logistic", RHYTHM, COUNT_COLUMNS),))
LOGISTIC_MONEY = Recipe("logistic, 12 columns", (MemberRecipe("logistic", RHYTHM, RHYTHM_COLUMNS),))
TREES = Recipe("trees, 12 columns", (RHYTHM_TREES,))
HABIT = (
    MemberRecipe("logistic", RHYTHM, HABIT_COLUMNS, records=True),
    MemberRecipe("trees", RHYTHM, HABIT_COLUMNS, records=True),
    MemberRecipe("trees", RHYTHM, HABIT_COLUMNS, records=True, target=WEEKS),
)
# a straight line and steps miss in different ways; so do trees of churn and of weeks with an order, and the many dates
# with few columns and the few with all
MEAN_HABIT = Recipe("logistic and trees, 27 columns", HABIT)
MEAN = Recipe("trees on the profile, and logistic and trees on 27 columns", (MemberRecipe("trees", PROFILE), *HABIT))
# the simplest first: of models within noise of the best, the first one ships
RECIPES = (
    Recipe("logistic, recency", (MemberRecipe("logistic", RHYTHM, RHYTHM_FEATURES[:1]),)),
    LOGISTIC,
    LOGISTIC_MONEY,
    TREES,
    # after the trees, because its shape was fitted to all waits and not to the horizon: it must be ahead beyond noise
    Recipe("purchase process", (MemberRecipe("logistic", RHYTHM, (PROCESS,)),)),
    MEAN_HABIT,
    MEAN,
)


@dataclass(frozen=True)
class TrainingRows:
    """What models learn from at one date.

    Attributes
    ----------
    rhythm : ChurnRows
        Rows of many moments with the rhythm features.
    profile : ChurnRows or None
        Rows of a few moments with the features of `features`; None if profiles are not used.
    rhythm_features : tuple of str
        Columns of `rhythm`.
    features : tuple of str
        Columns of `profile`, among them the rhythm features.
    process : PurchaseProcess
        Fitted on the orders before the date.
    horizon_days : int
    season : bool
        Whether the date of the year is a column.
    seed : int
    own_columns : tuple of str
        Columns of `profile` that a member without named columns reads; by default all.
    records : tuple of str
        Columns that say which customers have no record.
    window : OwnWindow or None
        Instead of the horizon, each customer's own window.
    trees : mapping of str to any
        Parameters of trees that differ from the defaults of `ChurnClassifier`.
    """

    rhythm: ChurnRows
    profile: ChurnRows | None
    rhythm_features: tuple[str, ...]
    features: tuple[str, ...]
    process: PurchaseProcess
    horizon_days: int
    season: bool
    seed: int
    own_columns: tuple[str, ...] = ()
    records: tuple[str, ...] = ()
    window: OwnWindow | None = None
    trees: Mapping[str, Any] = field(default_factory=dict)

    def design(self, features: Sequence[str]) -> Design:
        return Design(tuple(features), float(self.horizon_days), self.process, self.window)

    def columns(self, member: MemberRecipe) -> tuple[str, ...]:
        """Columns of a member, without those whose features the lake lacks, and with the season if it is a column."""
        wanted = member.columns or self.own_columns or self.features
        if member.records:
            wanted = (*wanted, *self.records)
        known = {*self.rhythm_features} if member.rows == RHYTHM else {*self.features}
        known |= {name for name, parts in MADE_OF.items() if known.issuperset(parts)}
        season = SEASON if self.season and member.rows == RHYTHM else ()
        found = tuple(name for name in wanted if name in known)
        return (*found, *season) if found else ()


def fit_member(
    member: MemberRecipe, data: TrainingRows, relabel: Relabel, folds: int, parameters: dict[str, Any] | None = None
) -> Member:
    """Fit one member.

    Parameters
    ----------
    relabel : callable
        Applied to the labels of the rows; for tests of the gate.
    folds : int
        Folds of the calibration of trees.
    """
    rows = data.rhythm if member.rows == RHYTHM else data.profile
    assert rows is not None
    names = data.rhythm_features if member.rows == RHYTHM else data.features
    columns = data.columns(member)
    X = data.design(names).columns(rows.X, columns, rows.days)
    y = relabel(rows.y)
    if member.kind == "logistic":
        return Member(member.kind, columns, LogisticClassifier().fit(X, y))
    chosen = {**data.trees, **(parameters or {})}
    trees = ChurnClassifier(folds=folds, seed=data.seed, target=member.target, **chosen)
    weeks = relabel(rows.weeks) if member.target == WEEKS and rows.weeks is not None else None
    return Member(member.kind, columns, trees.fit(X, y, rows.owners, weeks))


def fit_recipe(recipe: Recipe, data: TrainingRows, relabel: Relabel, folds: int = FOLDS) -> ChurnModel:
    """Fit a churn model without shifts; its features are those of the profile if it reads profiles."""
    members = tuple(fit_member(member, data, relabel, folds) for member in recipe.members)
    features = data.features if recipe.reads_profiles else data.rhythm_features
    return ChurnModel(data.design(features), members)


def can_fit(recipe: Recipe, data: TrainingRows) -> bool:
    """Whether each member has columns, and enough rows of both outcomes and of more than one customer."""
    for member in recipe.members:
        if not data.columns(member):
            return False
        rows = data.rhythm if member.rows == RHYTHM else data.profile
        if rows is None or (member.target == WEEKS and rows.weeks is None):
            return False
        if not rows.both_outcomes(MIN_ROWS) or len(np.unique(rows.owners)) < 2:
            return False
    return True


def usable_recipes(data: TrainingRows, use: AttributeUse, own: FeatureSpec) -> list[Recipe]:
    """The recipes that can be fitted, the simplest first; those that read profiles only, if attributes must be read.

    Parameters
    ----------
    use : {"auto", "always", "never"}
        `settings.profiles.in_models`.
    own : FeatureSpec
        Features that trees on the profile read.

    Raises
    ------
    DataError
        None of them can be fitted.
    """
    found = [recipe for recipe in RECIPES if can_fit(recipe, data)]
    if use == "always" and any(feature.aggregate == "attribute" for feature in own.features):
        found = [recipe for recipe in found if recipe.reads_profiles] or found
    if not found:
        check_outcomes(data.rhythm.y)
        raise DataError("the churn model needs more than one customer", hint="ingest more customers")
    return found
