"""`SINGLE_STAGE`: the registry of recommenders that are not composed of others. Adding one takes one line."""

from __future__ import annotations

from models.recommend.affinity import AffinityRecommender
from models.recommend.base import Recommender
from models.recommend.bpr import BPRRecommender
from models.recommend.complement import ComplementRecommender
from models.recommend.content.model import ContentRecommender
from models.recommend.ease import EASERecommender
from models.recommend.hybrid import HybridRecommender
from models.recommend.ials import ImplicitALSRecommender
from models.recommend.item_knn import ItemKNNRecommender
from models.recommend.next_basket.model import NextBasketRecommender
from models.recommend.popular import PopularRecommender, TrendingRecommender
from models.recommend.popular_by_segment import SegmentPopularRecommender
from models.recommend.repeat import OwnEventsRecommender, RepeatPurchaseRecommender
from models.recommend.replenish.model import ReplenishRecommender
from models.recommend.similar.model import SimilarRecommender
from models.recommend.spectral import SpectralRecommender
from models.recommend.upgrade.model import UpgradeRecommender
from qianmian.registry import Registry

SINGLE_STAGE: Registry[type[Recommender]] = Registry(
    "recommender",
    {
        "popular": PopularRecommender,
        "popular_by_segment": SegmentPopularRecommender,
        "trending": TrendingRecommender,
        "repeat": RepeatPurchaseRecommender,
        "own_events": OwnEventsRecommender,
        "next_basket": NextBasketRecommender,
        "replenish": ReplenishRecommender,
        "affinity": AffinityRecommender,
        "ials": ImplicitALSRecommender,
        "item_knn": ItemKNNRecommender,
        "ease": EASERecommender,
        "spectral": SpectralRecommender,
        "bpr": BPRRecommender,
        "hybrid": HybridRecommender,
        "complement": ComplementRecommender,
        "similar": SimilarRecommender,
        "upgrade": UpgradeRecommender,
        "content": ContentRecommender,
    },
)
