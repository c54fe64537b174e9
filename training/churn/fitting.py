"""Fits of a chosen churn recipe at a date, its level at that date and in the weeks after it, and the baselines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from features.compute.spec import FeatureSpec
from models.classify.churn_model import DAYS_PER_STEP, ChurnModel
from models.classify.rhythm import day_number, probability
from training.attribute_choice import without_neutral_values
from training.churn.choice import level_shift
from training.churn.levels import SEASON, SEASON_DRIFT, SEASONAL, YEAR_DAYS, Rates, shift_to_rate, target_rate
from training.churn.recipes import LOGISTIC, LOGISTIC_MONEY, Recipe, Relabel, TrainingRows, can_fit, fit_recipe
from training.churn.snapshots import ChurnRows, Snapshots, stacked

WEEKS = 52  # after the cutoff for which a seasonal level is stored, as far as last year's outcomes are known
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Fitting:
    """What is common to the fits of one training.

    Attributes
    ----------
    snapshots : Snapshots
    wide : FeatureSpec
        Columns of the rows of the profiles: those that trees on the profile may read, then the other rhythm features.
    own : FeatureSpec
        Columns that trees on the profile read.
    relabel : callable
        Applied to the labels that models learn from; for tests of the gate.
    seed : int
    """

    snapshots: Snapshots
    wide: FeatureSpec
    own: FeatureSpec
    relabel: Relabel
    seed: int

    def training_rows(self, at: datetime, profiles: Mapping[datetime, ChurnRows]) -> TrainingRows:
        """All rows whose outcomes were known at a date."""
        rows = stacked(profiles.values()).capped()
        return TrainingRows(
            rhythm=stacked(self.snapshots.rows(date) for date in self.snapshots.dates(at)).capped(),
            profile=replace(rows, X=without_neutral_values(self.wide, rows.X, self.seed)),
            rhythm_features=self.snapshots.features,
            features=self.wide.names,
            process=self.snapshots.process(at),
            horizon_days=self.snapshots.horizon_days,
            season=False,
            seed=self.seed,
            own_columns=tuple(self.own.names),
            records=self.snapshots.records.names,
        )

    def columns(self, model: ChurnModel, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Those columns of rows of the profiles that a model reads."""
        return X[:, [self.wide.names.index(name) for name in model.design.features]]

    def fit_at(self, recipe: Recipe, data: TrainingRows, level: str, at: datetime, now: ChurnRows) -> ChurnModel:
        """A churn model of everything that was known at a date.

        Parameters
        ----------
        now : ChurnRows
            Rows of the profiles of the customers who are active at the date; their outcomes are not read.
        """
        model = self._without_unused_features(fit_recipe(recipe, data, self.relabel), data).at(day_number(at), [0.0])
        if not len(now.y):
            return model
        margins = model.unshifted(self.columns(model, now.X), now.days)
        rhythm = ChurnModel(data.design(data.rhythm_features), model.members[-1:])
        rates = Rates(self.snapshots, at)
        shift = level_shift(level, rhythm, self.snapshots, rates, at, margins) or 0.0
        ahead = self._weeks_ahead(rhythm, rates, level, at) if level in SEASONAL else [0.0]
        return model.at(day_number(at), [shift + change for change in ahead])

    def _without_unused_features(self, model: ChurnModel, data: TrainingRows) -> ChurnModel:
        """The model with those features only that a member reads, or that the derived columns are made of."""
        if tuple(model.design.features) == data.rhythm_features:
            return model
        kept = [name for name in data.features if name in self.own.names or name in data.rhythm_features]
        return replace(model, design=data.design(kept))

    def _weeks_ahead(self, rhythm: ChurnModel, rates: Rates, level: str, at: datetime) -> list[float]:
        """Change of the shift at each week after a date, as the customers of a year earlier show it.

        The customers who will be active then are not known; those who were active in the same week a year earlier are.
        """
        found: list[float] = []
        drift = rates.drift(at) or 0.0 if level == SEASON_DRIFT else 0.0
        for week in range(WEEKS + 1):
            moment = at + timedelta(days=DAYS_PER_STEP * week)
            expected = target_rate(SEASON, rates, moment)
            then = self.snapshots.rows(moment - timedelta(days=YEAR_DAYS)) if expected is not None else None
            if expected is None or then is None or not len(then.y):
                break
            days = np.full(len(then.y), day_number(moment))
            rate = float(probability(np.array(np.log(expected / (1.0 - expected)) + drift)))
            found.append(shift_to_rate(rhythm.unshifted(then.X, days), rate))
        return [value - found[0] for value in found] or [0.0]

    def baselines(
        self, data: TrainingRows, rates: Rates, at: datetime, rows: ChurnRows
    ) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """Predictions of the baselines at a date: those that order the customers, and those that are probabilities."""
        column = {name: rows.X[:, self.wide.names.index(name)].astype(np.float64) for name in self.wide.names}
        rankings = {"recency": column["days_since_last_order"]}
        if "orders_28d" in column:
            rankings["orders in the last 28 days"] = -column["orders_28d"]
        plain = replace(data, season=False)
        probabilities = {}
        for recipe in (LOGISTIC, LOGISTIC_MONEY):
            if not can_fit(recipe, plain):
                continue
            model = fit_recipe(recipe, plain, self.relabel)
            probabilities[recipe.name] = probability(model.unshifted(self.columns(model, rows.X), rows.days))
        probabilities["base rate"] = np.full(len(rows.y), float(stacked_rate(data)))
        season = rates.a_year_before(at)
        if season is not None:
            probabilities["rate a year earlier"] = np.full(len(rows.y), float(probability(np.array(season))))
        return rankings, probabilities


def stacked_rate(data: TrainingRows) -> float:
    """Churn rate of the rows that a model learns from."""
    return float(data.rhythm.y.mean())


def season_note(rates: Rates, moment: datetime, seasonal: bool, level: str) -> tuple[str, ...]:
    """What the report says about the season of a moment, unless the level already tells it."""
    if level in SEASONAL:
        return ()
    weeks = f"the {rates.snapshots.horizon_days} days from {moment:%m-%d}"
    season = rates.a_year_before(moment)
    if season is None:
        return (f"season: the history has no outcomes of {weeks} a year earlier, so no season of the year is known",)
    share = float(probability(np.array(season)))
    if not seasonal:
        return (f"season: a year earlier {share:.1%} churned in {weeks}; the cutoff itself has no such year before it",)
    return (
        f"season: a year earlier {share:.1%} churned in {weeks}; that is not used, because the past dates do not show "
        "that seasons repeat beyond noise, or are too few to tell",
    )
