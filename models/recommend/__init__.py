"""Recommenders with one contract (`base.Recommender`); the contract tests run over the registry `RECOMMENDERS`."""

from __future__ import annotations

from models.recommend.base import Recommender
from models.recommend.blend import BlendRecommender
from models.recommend.fallback import FallbackChain
from models.recommend.ranking.two_stage import TwoStageRecommender
from models.recommend.single_stage import SINGLE_STAGE
from qianmian.registry import Registry

# composite recommenders come last, because they are built from the single-stage ones
RECOMMENDERS: Registry[type[Recommender]] = Registry(
    "recommender", {**SINGLE_STAGE, "chain": FallbackChain, "two_stage": TwoStageRecommender, "blend": BlendRecommender}
)

__all__ = ["RECOMMENDERS", "SINGLE_STAGE", "Recommender"]
