"""The reward of each action at each decision, by a regression that has not seen the customer of the decision."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression, RidgeCV

from models.classify.column_encoding import ColumnEncoding

FOLDS = 3
PENALTIES = (0.3, 3.0, 30.0, 300.0, 3000.0)
MAX_PRODUCTS = 2000  # columns; where actions × columns are more, an action has the same place for everybody
Floats = NDArray[np.float64]


def cross_fitted_rewards(
    X: NDArray[np.float32],
    categorical: tuple[bool, ...],
    actions: NDArray[np.int64],
    rewards: Floats,
    groups: NDArray[np.int64],
    action_count: int,
    seed: int,
) -> Floats:
    """Expected reward of each action at each decision.

    The doubly robust estimate is right whatever the model says; a better one makes its interval shorter.

    Parameters
    ----------
    X : ndarray of float32, (n, f)
    categorical : tuple of bool
        Which columns of X are codes; empty if none is.
    actions : ndarray of int, (n,)
    rewards : ndarray of float64, (n,)
    groups : ndarray of int, (n,)
        The customer of each decision: all decisions of one are in the same fold.
    action_count : int
        k.
    seed : int
        Of the folds.

    Returns
    -------
    ndarray of float64, (n, k)
    """
    folds = (np.random.default_rng(seed).permutation(int(groups.max()) + 1) % FOLDS)[groups]
    found = np.empty((len(actions), action_count))
    for fold in range(FOLDS):
        learnt = folds != fold
        model = RewardModel(action_count).fit(X[learnt], categorical, actions[learnt], rewards[learnt])
        found[~learnt] = model.predict(X[~learnt])
    return found


class RewardModel:
    """Regression of the reward on what is known at a decision, on the action, and on their products.

    Logistic for a reward of 0 or 1, else ridge regression whose penalty is chosen by leave-one-out error. Numbers are
    splines of their logarithms and categories are indicators (`ColumnEncoding.linear_columns`); the products are of the
    actions and the first piece of each spline, or each indicator.

    Parameters
    ----------
    action_count : int
        k: actions are numbers below it.
    """

    def __init__(self, action_count: int) -> None:
        self.action_count = action_count

    def fit(
        self, X: NDArray[np.float32], categorical: tuple[bool, ...], actions: NDArray[np.int64], rewards: Floats
    ) -> Self:
        """Fit on the decisions `X` of shape (n, f), their actions and rewards, (n,) each."""
        is_category = categorical or (False,) * X.shape[1]
        self.encoding_ = ColumnEncoding.of(X, is_category)
        columns = self._columns(X)
        self.mean_, self.scale_ = columns.mean(axis=0), columns.std(axis=0)
        sources = self.encoding_.linear_sources()
        first = np.r_[True, sources[1:] != sources[:-1]] if len(sources) else np.zeros(0, bool)
        self.crossed_ = (first | np.asarray(is_category, bool)[sources])[self.scale_ > 0]
        if self.crossed_.sum() * self.action_count > MAX_PRODUCTS:
            self.crossed_[:] = False
        main, indicators = self._standardised(X), np.eye(self.action_count)[actions]
        products = indicators[:, :, None] * main[:, None, self.crossed_]
        design = np.concatenate([main, indicators, products.reshape(len(main), -1)], axis=1)
        self.is_yes_or_no_ = bool(np.isin(rewards, (0.0, 1.0)).all() and rewards.min() < rewards.max())
        if self.is_yes_or_no_:
            model = LogisticRegression(max_iter=500).fit(design, rewards)
            self.coefficients_, self.intercept_ = model.coef_[0], float(model.intercept_[0])
        else:
            model = RidgeCV(alphas=PENALTIES).fit(design, rewards)
            self.coefficients_, self.intercept_ = model.coef_, float(model.intercept_)
        self.range_ = float(rewards.min()), float(rewards.max())
        return self

    def predict(self, X: NDArray[np.float32]) -> Floats:
        """Expected reward of each action at each decision, within the range of the rewards learnt from, (n, k)."""
        main, k = self._standardised(X), self.action_count
        of_context, of_action, of_both = np.split(self.coefficients_, [main.shape[1], main.shape[1] + k])
        expected = self.intercept_ + (main @ of_context)[:, None] + of_action[None, :]
        expected = expected + main[:, self.crossed_] @ of_both.reshape(k, -1).T
        return np.asarray(expit(expected) if self.is_yes_or_no_ else np.clip(expected, *self.range_))

    def _columns(self, X: NDArray[np.float32]) -> Floats:
        return self.encoding_.linear_columns(X) if X.shape[1] else np.zeros((len(X), 0))

    def _standardised(self, X: NDArray[np.float32]) -> Floats:
        varies = self.scale_ > 0
        return np.asarray((self._columns(X)[:, varies] - self.mean_[varies]) / self.scale_[varies])
