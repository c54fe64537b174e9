"""The demand type that newcomers will show, from what they look at in their first sessions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from models.persist import UserArrays, load_arrays, load_json, save_arrays
from qianmian.schema import DEMAND_TYPES
from qianmian.workspace import write_json

Floats = NDArray[np.float64]
CLIP = 5.0  # limit of the standardised features, in standard deviations
RULE, LOGISTIC = "rule", "logistic"
LOOKED_LEVEL, LOOKED_CONTENT = "viewed_price_level_mean", "content_event_share"
RULE_PRIOR = 10.0  # pseudo-newcomers with the shares of all, in each group of the rule


class DemandClassifier:
    """Probabilities of the demand types: a shrunk rule, or a multinomial logistic regression.

    The rule groups newcomers by what they look at: content (upper third of the share of content), else dear items
    (upper third of the price level), cheap ones (lower third), or neither. The probabilities of a group are the shares
    of what such newcomers went on to be, shrunk to the shares of all.

    Parameters
    ----------
    method : str
        `RULE` or `LOGISTIC`.
    columns : sequence of str
        Names of the features, in order.
    regularization : float
        Inverse regularization strength C of the regression.
    """

    user_arrays: ClassVar[tuple[UserArrays, ...]] = ()
    classes_ = DEMAND_TYPES

    def __init__(self, method: str = RULE, columns: Sequence[str] = (), regularization: float = 0.1) -> None:
        self.method, self.columns, self.regularization = method, tuple(columns), regularization

    def get_params(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {"method": self.method, "columns": list(self.columns), "regularization": self.regularization}

    def fit(self, X: NDArray[np.float32], types: NDArray[np.str_]) -> Self:
        """Learn from newcomers.

        Parameters
        ----------
        X : ndarray of float32, (n, f)
            Features, as the first sessions show them.
        types : ndarray of str, (n,)
            What the newcomers went on to be, of `DEMAND_TYPES`.
        """
        y = np.array([DEMAND_TYPES.index(one) for one in types.tolist()], dtype=np.int64)
        shares = (np.bincount(y, minlength=len(DEMAND_TYPES)) + 0.5) / (len(y) + 0.5 * len(DEMAND_TYPES))
        looked = (self._looked(X, name) for name in (LOOKED_LEVEL, LOOKED_CONTENT))
        self.edges_ = np.array([np.quantile(values, [1 / 3, 2 / 3]) for values in looked])
        self.rule_ = np.tile(shares, (len(DEMAND_TYPES), 1))
        groups = self.groups(X)
        for group in range(len(DEMAND_TYPES)):
            counts = np.bincount(y[groups == group], minlength=len(DEMAND_TYPES))
            self.rule_[group] = (counts + RULE_PRIOR * shares) / (counts.sum() + RULE_PRIOR)
        compressed = np.sign(X) * np.log1p(np.abs(X))
        spread = compressed.std(axis=0)
        self.mean_, self.scale_ = compressed.mean(axis=0), np.where(spread > 1e-6, spread, 1.0)
        self.weights_, self.intercepts_ = np.zeros((len(DEMAND_TYPES), X.shape[1])), np.log(shares)
        if self.method == LOGISTIC and len(np.unique(y)) > 1:
            from sklearn.linear_model import LogisticRegression  # not for prediction

            estimated = LogisticRegression(C=self.regularization, max_iter=500).fit(self._scaled(X), y)
            weights, intercepts = estimated.coef_, estimated.intercept_
            if len(estimated.classes_) == 2:  # one row of weights, of the second class against the first
                weights, intercepts = np.vstack([-weights, weights]) / 2, np.append(-intercepts, intercepts) / 2
            self.intercepts_ = np.full(len(DEMAND_TYPES), intercepts.min() - np.log(len(y)))  # of a type that none had
            self.weights_[estimated.classes_], self.intercepts_[estimated.classes_] = weights, intercepts
        return self

    def groups(self, X: NDArray[np.float32]) -> NDArray[np.int64]:
        """Place in `DEMAND_TYPES` of what newcomers look at, (n,)."""
        level, content = self._looked(X, LOOKED_LEVEL), self._looked(X, LOOKED_CONTENT)
        (cheap, dear), (_, much) = self.edges_
        found = np.select([content > much, level > dear, level < cheap], [2, 1, 0], default=3)
        return np.asarray(found, dtype=np.int64)

    def predict_proba(self, X: NDArray[np.float32]) -> Floats:
        """Return the probabilities of `DEMAND_TYPES`, (n, 4)."""
        if self.method == RULE:
            return np.asarray(self.rule_[self.groups(X)])
        scores = self._scaled(X) @ self.weights_.T + self.intercepts_
        exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))

    def save(self, folder: Path) -> None:
        """Write the parameters as npz and JSON."""
        folder.mkdir(parents=True, exist_ok=True)
        names = ("edges", "rule", "mean", "scale", "weights", "intercepts")
        save_arrays(folder / "state.npz", {name: getattr(self, f"{name}_") for name in names})
        write_json(folder / "params.json", {"params": self.get_params()})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a model that `save` wrote."""
        params = load_json(folder / "params.json")["params"]
        model = cls(params["method"], tuple(params["columns"]), params["regularization"])
        for name, values in load_arrays(folder / "state.npz").items():
            setattr(model, f"{name}_", values)
        return model

    def _looked(self, X: NDArray[np.float32], name: str) -> NDArray[np.float32]:
        """A column, or zeros where the data do not have it."""
        return X[:, self.columns.index(name)] if name in self.columns else np.zeros(len(X), dtype=np.float32)

    def _scaled(self, X: NDArray[np.float32]) -> Floats:
        compressed = np.sign(X) * np.log1p(np.abs(X))
        return np.asarray(np.clip((compressed - self.mean_) / self.scale_, -CLIP, CLIP), dtype=np.float64)
