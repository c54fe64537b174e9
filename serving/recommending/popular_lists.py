"""Popularity lists for a shop whose history is too short to train a recommender."""

from __future__ import annotations

from datetime import datetime

from features.data.lake import Lake
from features.definitions.building import make_builder
from features.profiles.snapshot import load_current
from features.targets import choose_target
from features.training_data import training_set
from models.bundle import ModelBundle
from models.recommend.popular import PopularRecommender
from models.recommend.scene import DEFAULT_SCENE
from models.recommend.scene_models import SceneModels
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from serving.champions import Champion, Champions
from serving.recommending.plan import JOB

VERSION = "popularity"  # in place of the version of a registered model


def popularity_champions(workspace: Workspace, settings: Settings, as_of: datetime) -> Champions:
    """Make champions whose recommender ranks the items by their customers before `as_of`; nothing is registered.

    Raises
    ------
    DataError
        If the lake has no items with enough customers.
    """
    builder = make_builder(Lake(workspace), settings)
    wanted = settings.recommend
    target = choose_target(builder, as_of, wanted=wanted.target, horizon_days=wanted.horizon_days).name
    train = training_set(
        builder,
        as_of,
        min_item_customers=wanted.min_item_customers,  # by default, every item: there is nothing to learn
        max_items=wanted.max_items,
        target=target,
        with_features=False,
    )
    model = PopularRecommender().fit(train)
    bundle = ModelBundle(
        "scenes",
        SceneModels({model.name: model}, {DEFAULT_SCENE: [model.name]}),
        as_of,
        user_ids=train.user_ids,
        item_ids=train.item_ids,
        item_attributes=train.item_attributes,
        facts={"job": JOB, "interactions": train.source, "target": train.target},
    )
    return Champions({JOB: Champion(JOB, VERSION, bundle)}, load_current(workspace), settings)
