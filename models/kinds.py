"""`MODELS`: the registry of every kind of model that a bundle can hold. Adding a kind takes one line."""

from __future__ import annotations

from importlib import import_module

from models.persist import Savable
from models.recommend import RECOMMENDERS
from qianmian.registry import Registry

# kind → module and class: what no model of a server needs is not imported there (XGBoost and scikit-learn take a CPU
# second and 60 MB)
MODELS: Registry[str] = Registry(
    "model",
    {
        **{name: f"{model.__module__}:{model.__name__}" for name, model in RECOMMENDERS.items()},
        "scenes": "models.recommend.scene_models:SceneModels",
        "churn": "models.classify.churn_model:ChurnModel",
        "classify": "models.classify.snapshot_model:SnapshotModel",
        "propensity": "models.classify.propensity:PropensityModel",
        "lifecycle": "models.classify.lifecycle:NextStageClassifier",
        "left": "models.classify.churn_model:ChurnModel",
        "lookalike": "models.lookalike:LookalikeExpander",
        "uplift": "models.uplift.uplift_model:UpliftModel",
        "uplift_table": "models.uplift.table_model:UpliftTableModel",
        "value": "models.value.value_model:ValueModel",
        "demand": "models.classify.demand:DemandClassifier",
        "contact": "models.contact:ContactPreferences",
        "clusters": "models.clusters:BehaviourClusters",
    },
)


def model_class(kind: str) -> type[Savable]:
    """Import the class of a kind of model.

    Raises
    ------
    UsageError
        The kind is unknown.
    """
    module, name = MODELS[kind].split(":")
    model: type[Savable] = getattr(import_module(module), name)
    return model
