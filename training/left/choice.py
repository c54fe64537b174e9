"""The models of customers who left that `train left` chooses between, the simplest first, and how they are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from models.classify.churn_model import ChurnModel
from models.classify.rhythm import COUNT_COLUMNS, PATTERN_COLUMNS, PROCESS, RHYTHM_COLUMNS, WINDOW, probability
from models.parallel import run_parallel
from training.churn.choice import BACKTEST_ROWS, RecipeValidation
from training.churn.middle import WEEKS, in_middle
from training.churn.recipes import RHYTHM, MemberRecipe, Recipe, Relabel, TrainingRows, can_fit, fit_member
from training.churn.snapshots import ChurnRows, stacked
from training.left.windows import Windows

SHORT = Recipe("logistic, 8 columns", (MemberRecipe("logistic", RHYTHM, (*COUNT_COLUMNS, WINDOW)),))
TREES = MemberRecipe("trees", RHYTHM, (*PATTERN_COLUMNS, WINDOW))
RECIPES = (
    SHORT,
    Recipe("logistic, 13 columns", (MemberRecipe("logistic", RHYTHM, (*RHYTHM_COLUMNS, WINDOW)),)),
    Recipe("trees, 26 columns", (TREES,)),
    # its shape was fitted to all waits and not to the windows: it must be ahead beyond noise
    Recipe("purchase process", (MemberRecipe("logistic", RHYTHM, (PROCESS,)),)),
    Recipe("logistic and trees, 26 columns", (replace(TREES, kind="logistic"), TREES)),
)
FOLDS = 3  # of customers, where the history has no other date, and of the calibration of trees


def training_rows(windows: Windows, seed: int, rows: ChurnRows | None = None) -> TrainingRows:
    """What models learn from at the date of `windows`."""
    rhythm = windows.learnt().rows if rows is None else rows
    design = windows.design
    assert design.process is not None
    return TrainingRows(
        rhythm=rhythm.capped(),
        profile=None,
        rhythm_features=design.features,
        features=design.features,
        process=design.process,
        horizon_days=int(windows.window.min_days),
        season=False,
        seed=seed,
        window=windows.window,
    )


def usable_recipes(data: TrainingRows) -> list[Recipe]:
    """The recipes that can be fitted, the simplest first."""
    return [recipe for recipe in RECIPES if can_fit(recipe, data)]


def validate(
    test: Windows, before: Windows | None, recipes: Sequence[Recipe], relabel: Relabel, seed: int
) -> RecipeValidation | None:
    """Predictions of each recipe for customers whose outcomes were known at the test date.

    Parameters
    ----------
    test : Windows
        Of the test date.
    before : Windows or None
        Of an earlier date, whose models predict its customers. Where the history is too short for one, models that
        learnt from some customers predict the others.

    Returns
    -------
    RecipeValidation or None
        None if there are too few rows.
    """
    splits: list[tuple[TrainingRows, ChurnRows]] = []
    if before is not None:
        outcomes = before.at(before.known_at, test.known_at).rows
        splits.append((training_rows(before, seed, before.learnt().rows.capped(BACKTEST_ROWS)), outcomes))
    else:
        rows = test.learnt().rows.capped(BACKTEST_ROWS)
        if len(np.unique(rows.owners)) < FOLDS:
            return None
        for learnt, held_out in GroupKFold(FOLDS).split(rows.X, rows.y, rows.owners):
            splits.append((training_rows(test, seed, rows.take(learnt)), rows.take(held_out)))
    if not all(can_fit(recipe, data) for recipe in recipes for data, _ in splits):
        return None
    members = list(dict.fromkeys(member for recipe in recipes for member in recipe.members))
    fits = [partial(fit_member, member, data, relabel, FOLDS) for data, _ in splits for member in members]
    fitted_members = run_parallel(fits)
    predictions: dict[str, list[NDArray[np.float64]]] = {recipe.name: [] for recipe in recipes}
    for number, (data, rows) in enumerate(splits):
        of_split = dict(zip(members, fitted_members[number * len(members) :], strict=False))
        for recipe in recipes:
            chosen = tuple(of_split[member] for member in recipe.members)
            model = ChurnModel(data.design(data.features), chosen)
            predictions[recipe.name].append(probability(model.unshifted(rows.X, rows.days)))
    held_out_rows = stacked(rows for _, rows in splits)
    hard = np.zeros(len(held_out_rows.y), dtype=bool)
    if before is not None:
        hard = in_middle(test.snapshots.active_weeks(before.known_at, held_out_rows.owners, WEEKS))
    means = {name: np.concatenate(parts) for name, parts in predictions.items()}
    return RecipeValidation(held_out_rows.y, held_out_rows.owners, means, held_out_rows.days, hard)
