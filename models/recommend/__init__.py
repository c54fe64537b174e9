"""Recommenders behind one contract (`base.Recommender`); `RECOMMENDERS` is the registry the contract tests run over."""

from __future__ import annotations

from models.recommend.base import Recommender
from models.recommend.fallback import FallbackChain
from models.recommend.ranking.two_stage import TwoStageRecommender
from models.recommend.single_stage import SINGLE_STAGE
from qianmian.registry import Registry

# those made of other recommenders come last: they are built from the ones above
RECOMMENDERS: Registry[type[Recommender]] = Registry(
    "recommender", {**SINGLE_STAGE, "chain": FallbackChain, "two_stage": TwoStageRecommender}
)

__all__ = ["RECOMMENDERS", "SINGLE_STAGE", "Recommender"]
