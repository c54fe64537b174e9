"""Which churn model ships: models of the past are evaluated on what came after them, before the test date."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from models.classify.churn_model import ChurnModel
from models.classify.rhythm import probability
from models.parallel import run_parallel
from training.bootstrap import bootstrap_means
from training.churn.levels import (
    OWN,
    RECENT,
    SEASON,
    SEASON_DRIFT,
    Rates,
    choose_level,
    missed,
    shift_to_rate,
    target_rate,
)
from training.churn.middle import MIDDLE, WEEKS, in_middle
from training.churn.recipes import (
    FOLDS,
    LOGISTIC,
    RECIPES,
    TREES,
    Recipe,
    TrainingRows,
    can_fit,
    fit_member,
    fit_recipe,
)
from training.churn.snapshots import ChurnRows, Snapshots, stacked

MAX_ORIGINS = 13  # past dates at which the level is compared: a year of horizons of four weeks
VALIDATIONS = 3  # last of them, at which the models are compared
LEVEL_FOLDS = 2  # of the calibration of the trees of a backtest
BACKTEST_ROWS = 40_000  # of a fit on the past; a comparison needs fewer than the shipped model
SMALLEST = 1e-9
ENOUGH_HARD = 50  # rows of each outcome in the slice `training.churn.middle`, for a say in the choice
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Backtest:
    """Models of the past at one date, and what they predicted.

    Attributes
    ----------
    as_of : datetime
    rows : ChurnRows
        Rhythm features and outcomes of the customers who were active at the date.
    predictions : dict of str to ndarray, each of shape (n,)
        Churn probabilities by level.
    """

    as_of: datetime
    rows: ChurnRows
    predictions: dict[str, Floats]


def log_losses(y: NDArray[np.int64], p: Floats) -> Floats:
    """Log loss of each row, shape (n,)."""
    p = np.clip(p, SMALLEST, 1.0 - SMALLEST)
    return np.asarray(-np.log(np.where(y == 1, p, 1.0 - p)), dtype=np.float64)


def level_shift(
    level: str, model: ChurnModel, snapshots: Snapshots, rates: Rates, moment: datetime, margins: Floats
) -> float | None:
    """The shift of a model at a moment; None if the history does not tell it.

    Parameters
    ----------
    model : ChurnModel
        Model that reads the rhythm features, for the dates whose outcomes it missed.
    margins : ndarray of float64, shape (n,)
        Log-odds of the customers who are active at the moment, without a shift.
    """
    if level == OWN:
        return 0.0
    if level == RECENT:
        rows = [snapshots.rows(date) for date in rates.recent(moment)]
        return missed([(model.unshifted(part.X, part.days), part.y) for part in rows]) if rows else None
    rate = target_rate(level, rates, moment)
    return None if rate is None else shift_to_rate(margins, rate)


def training_rows(snapshots: Snapshots, at: datetime, base: TrainingRows, max_rows: int | None = None) -> TrainingRows:
    """The rhythm rows whose outcomes were known at a date, with the purchase process of then; `base` has the rest."""
    rhythm = stacked([snapshots.rows(date) for date in snapshots.dates(at)])
    return replace(base, rhythm=rhythm.capped(max_rows) if max_rows else rhythm.capped())


def backtests(
    snapshots: Snapshots, origins: Sequence[datetime], base: TrainingRows, relabel: Callable[..., Any], seasonal: bool
) -> list[Backtest]:
    """Trees on the rhythm of the past at each date, with each level that the history allows."""

    def backtest(at: datetime) -> Backtest | None:
        data = replace(training_rows(snapshots, at, base, BACKTEST_ROWS), season=False)
        if len(snapshots.dates(at)) < 2 or not can_fit(TREES, data):
            return None
        rows, rates = snapshots.rows(at), Rates(snapshots, at)
        if not len(rows.y):
            return None
        found: dict[str, Floats] = {}
        levels = {False: (OWN, RECENT), True: (SEASON, SEASON_DRIFT)}
        for season, names in levels.items():
            if season and (not seasonal or target_rate(SEASON, rates, at) is None):
                continue
            model = fit_recipe(TREES, replace(data, season=season), relabel, folds=LEVEL_FOLDS)
            margins = model.unshifted(rows.X, rows.days)
            for name in names:
                shift = level_shift(name, model, snapshots, rates, at, margins)
                if shift is not None:
                    found[name] = probability(margins + shift)
        return Backtest(at, rows, found)

    for at in origins:  # the rows of each date are computed once, before threads share them
        snapshots.dates(at)
        stacked([snapshots.rows(date) for date in [*snapshots.dates(at), at]])
    made = run_parallel([lambda at=at: backtest(at) for at in origins])  # type: ignore[misc]
    return [one for one in made if one is not None]


def chosen_level(made: Sequence[Backtest]) -> tuple[str, str]:
    """The level of the backtests, and a sentence about it."""
    losses = {one.as_of: {level: log_losses(one.rows.y, p) for level, p in one.predictions.items()} for one in made}
    return choose_level(losses, {one.as_of: one.rows.owners for one in made})


@dataclass(frozen=True)
class RecipeValidation:
    """Predictions of each recipe for the same customers, after the dates that it learnt from.

    Attributes
    ----------
    y : ndarray of int64, shape (n,)
    owners : ndarray, shape (n,)
    predictions : dict of str to ndarray, each of shape (n,)
        By the name of the recipe.
    days : ndarray of float64, shape (n,)
        Date of each row, in days since 1970.
    middle : ndarray of bool, shape (n,)
        Whether the customer is one of those who are hard to tell (`training.churn.middle`).
    """

    y: NDArray[np.int64]
    owners: NDArray[Any]
    predictions: dict[str, Floats]
    days: Floats
    middle: NDArray[np.bool_]


def validate(
    snapshots: Snapshots,
    profiles: Mapping[datetime, ChurnRows],
    base: TrainingRows,
    level: str,
    relabel: Callable[..., Any],
    recipes: Sequence[Recipe] = RECIPES,
    prepared: Callable[[NDArray[np.float32]], NDArray[np.float32]] = lambda X: X,
) -> RecipeValidation | None:
    """Fit every recipe on the dates before each of the last dates, and predict that date.

    If there is only one date, the recipes learn from some of its customers and predict the others.

    Parameters
    ----------
    profiles : mapping of datetime to ChurnRows
        Rows with all features of the dates whose outcomes are known, oldest first.
    recipes : sequence of Recipe
        Those that can be fitted.
    prepared : callable
        Applied to the profile features of the rows that are learnt from (`without_neutral_values`).

    Returns
    -------
    RecipeValidation or None
        None if there are too few rows to compare the recipes.
    """
    dates = list(profiles)
    splits: list[tuple[TrainingRows, ChurnRows, datetime]] = []
    for number in range(max(1, len(dates) - VALIDATIONS), len(dates)):
        at = dates[number]
        profile = stacked([profiles[date] for date in dates[:number]]).capped(BACKTEST_ROWS)
        profile = replace(profile, X=prepared(profile.X))
        if len(snapshots.dates(at)):
            data = training_rows(snapshots, at, base, BACKTEST_ROWS)
            data = replace(data, profile=profile, process=snapshots.process(at))
            if all(can_fit(recipe, data) for recipe in recipes):
                splits.append((data, profiles[at], at))
    if not splits:
        at, rows = dates[-1], profiles[dates[-1]]
        folds = min(3, len(np.unique(rows.owners)))
        if folds < 2:
            return None
        rhythm = base.rhythm
        for train, held_out in GroupKFold(folds).split(rows.X, rows.y, rows.owners):
            kept = np.flatnonzero(~np.isin(rhythm.owners, rows.owners[held_out]))
            learnt = rows.take(train)
            learnt = replace(learnt, X=prepared(learnt.X))
            splits.append((replace(base, rhythm=rhythm.take(kept), profile=learnt), rows.take(held_out), at))
        if not all(can_fit(recipe, data) for recipe in recipes for data, _, _ in splits):
            return None

    members = list(dict.fromkeys(member for recipe in recipes for member in recipe.members))  # some share a member
    fits = [(member, data) for data, _, _ in splits for member in members]
    fitted_members = run_parallel([partial(fit_member, member, data, relabel, FOLDS) for member, data in fits])
    found: dict[str, list[Floats]] = {recipe.name: [] for recipe in recipes}
    for number, (data, rows, at) in enumerate(splits):
        of_split = dict(zip(members, fitted_members[number * len(members) :], strict=False))
        rates, design = Rates(snapshots, at), data.design(data.rhythm_features)
        wide = ChurnModel(data.design(data.features), tuple(of_split.values()))
        margins = {member: wide.unshifted(rows.X, rows.days, [one]) for member, one in of_split.items()}
        for recipe in recipes:
            mean = np.mean([margins[member] for member in recipe.members], axis=0)
            model = ChurnModel(design, (of_split[recipe.members[-1]],))
            shift = level_shift(level, model, snapshots, rates, at, mean)
            found[recipe.name].append(probability(mean + (shift or 0.0)))
    held_out = stacked(rows for _, rows, _ in splits)
    middle = [in_middle(snapshots.active_weeks(at, rows.owners, WEEKS)) for _, rows, at in splits]
    predictions = {name: np.concatenate(parts) for name, parts in found.items()}
    return RecipeValidation(held_out.y, held_out.owners, predictions, held_out.days, np.concatenate(middle))


def choose_recipe(validation: RecipeValidation | None, recipes: Sequence[Recipe], seed: int) -> tuple[Recipe, str]:
    """The simplest recipe within noise of the best one by log loss, and a sentence about the choice.

    It must be within noise among all customers, and among those who are hard to tell if there are enough of them.

    Parameters
    ----------
    validation : RecipeValidation or None
        None if the recipes cannot be compared; a simple one is taken then.
    recipes : sequence of Recipe
        Those that `validation` compares, the simplest first.
    """
    if validation is None:
        simple = LOGISTIC if LOGISTIC in recipes else recipes[0]
        return simple, f"model: {simple.name}; there are too few dates or customers to compare it with others"
    losses = np.column_stack([log_losses(validation.y, validation.predictions[recipe.name]) for recipe in recipes])
    customers = len(np.unique(validation.owners))
    within, where = _within_noise(losses, validation.owners, seed), ""
    hard = validation.middle
    if min(int(validation.y[hard].sum()), int((1 - validation.y[hard]).sum())) >= ENOUGH_HARD:
        # the best of all may be behind the best of these; among those within noise of both the simplest ships
        both = within & _within_noise(losses[hard], validation.owners[hard], seed)
        within, where = (both, f", also of those {MIDDLE}") if both.any() else (within, "")
    first = int(np.argmax(within))
    means = losses.mean(axis=0).tolist()
    table = ", ".join(f"{recipe.name} {mean:.4f}" for recipe, mean in zip(recipes, means, strict=True))
    return recipes[first], (
        f"model: {recipes[first].name}, the simplest within noise of the best on {len(validation.y):,} rows of "
        f"{customers:,} customers before the test date{where}; log loss {table}"
    )


def _within_noise(losses: Floats, owners: NDArray[Any], seed: int) -> NDArray[np.bool_]:
    """Whether each of k models is behind the best one by no more than noise, shape (k,).

    Parameters
    ----------
    losses : ndarray of float64, shape (n, k)
    owners : ndarray, shape (n,)
        Customer of each row; a customer with several rows is one draw.
    """
    best = int(losses.mean(axis=0).argmin())
    customers, place = np.unique(owners, return_inverse=True)
    behind = [np.bincount(place, weights=column, minlength=len(customers)) for column in (losses.T - losses[:, best])]
    return np.asarray(np.quantile(bootstrap_means(np.column_stack(behind), seed), 0.025, axis=0) <= 0)
