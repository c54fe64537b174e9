"""`MODELS`: the registry of every kind of model that a bundle can hold. Adding a kind takes one line."""

from __future__ import annotations

from models.classify.churn_model import ChurnModel
from models.classify.lifecycle import NextStageClassifier
from models.lookalike import LookalikeExpander
from models.persist import Savable
from models.recommend import RECOMMENDERS
from models.recommend.scene_models import SceneModels
from qianmian.registry import Registry

MODELS: Registry[type[Savable]] = Registry(
    "model",
    {
        **RECOMMENDERS,
        "scenes": SceneModels,
        "churn": ChurnModel,
        "lifecycle": NextStageClassifier,
        "lookalike": LookalikeExpander,
    },
)
