"""The base class by itself: the constructor's arguments, and what is refused."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest

from models.recommend.base import Query, Recommender
from models.recommend.repeat import RepeatPurchaseRecommender
from qianmian.errors import UsageError


class ByPosition(Recommender):
    """The first items first; it has no parameters and no constructor."""

    name: ClassVar[str] = "by_position"

    def _fit(self, train: Any) -> None:
        """Nothing is learnt."""

    def _scores(self, query: Query) -> np.ndarray:
        return np.tile(-np.arange(self.n_items_, dtype=np.float32), (len(query), 1))

    def _state(self) -> dict[str, np.ndarray]:
        return {}

    def _restore(self, state: dict[str, np.ndarray]) -> None:
        """Nothing was saved."""


class SlowlyForgotten(RepeatPurchaseRecommender):
    """A subclass that inherits the constructor."""

    name: ClassVar[str] = "slowly_forgotten"


def test_a_subclass_without_a_constructor(shop, tmp_path):
    model = ByPosition().fit(shop)
    assert model.get_params() == {}
    assert model.recommend([0, -1], 3).ids.tolist() == [[0, 1, 2]] * 2
    model.save(tmp_path / "model")
    loaded = ByPosition.load(tmp_path / "model")
    assert loaded.get_params() == {}
    assert loaded.recommend([0], 3).ids.tolist() == [[0, 1, 2]]


def test_a_subclass_that_inherits_the_constructor(shop, tmp_path):
    model = SlowlyForgotten(half_life_days=700.0).fit(shop)
    assert model.get_params() == {"half_life_days": 700.0, "type_weights": None}
    model.save(tmp_path / "model")
    assert SlowlyForgotten.load(tmp_path / "model").get_params() == {"half_life_days": 700.0, "type_weights": None}


def test_nothing_is_declared_by_default(shop):
    model = ByPosition().fit(shop)
    assert model.submodels == model.attribute_names == ()
    for call in (
        lambda: model.similar_items(0, 1),
        lambda: model.item_vectors(),
        lambda: model.evidence(0, 0),
        lambda: model.purchase_counts(0),
        lambda: model.expected_days(np.array([0]), np.array([0])),
        lambda: model.expected_days_now(Query(np.array([0])), np.array([0]), np.array([0])),
        lambda: model.score_unseen(0, [{}]),
        lambda: model.similar_to({}, 1),
    ):
        with pytest.raises(UsageError, match="'by_position' does not support"):
            call()
