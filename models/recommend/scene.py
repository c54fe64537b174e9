"""The scenes: the purpose of a list, the request options it supports, and the job and task that select its model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qianmian.registry import Registry

PurchasedOption = Literal["any", "only", "never"]
PURCHASED_OPTIONS: tuple[PurchasedOption, ...] = ("any", "only", "never")
DEFAULT_SCENE = "home"  # default scene of a request; a recommender without a model for it is not registered


@dataclass(frozen=True)
class Scene:
    """A scene: the place and purpose of a list.

    Attributes
    ----------
    name : str
        Name of the scene in requests.
    description : str
        Noun phrase that describes the items of the list, for the API documentation and error messages.
    task : str or None
        Name of the evaluation task that selects the model, a module of `training.tasks`; None if the job evaluates its
        only model itself.
    purchased : tuple of {"any", "only", "never"}
        Supported values of the option ``purchased``: any item, only items the customer interacted with, or never those.
        The first value is the default.
    accepts_items : bool
        Whether a request may contain context items; without them the list is based on the customer's history.
    needs_model : bool
        False if the items most similar to the context items are shown when no model was trained for the scene; a
        request must then contain context items.
    shows_expected_on : bool
        Whether each item has the day of the expected next purchase.
    job : str
        Training job whose champion serves the scene.
    """

    name: str
    description: str
    task: str | None
    purchased: tuple[PurchasedOption, ...] = PURCHASED_OPTIONS
    accepts_items: bool = False
    needs_model: bool = True
    shows_expected_on: bool = False
    job: str = "recommend"


SCENES: Registry[Scene] = Registry(
    "scene",
    {
        scene.name: scene
        for scene in (
            Scene("home", "the items this customer is most likely to want now, bought before or not", "home"),
            Scene(
                "replenish",
                "items bought before that are about to run out",
                "replenish",
                purchased=("any", "only"),
                shows_expected_on=True,
            ),
            Scene("discover", "items the customer has never bought", "discover", purchased=("never",)),
            Scene(
                "complement",
                "items that go with the context items, or with the last order",
                "complement",
                accepts_items=True,
            ),
            Scene(
                "upgrade",
                "a better or larger version of the items the customer buys, or of the context items",
                "upgrade",
                accepts_items=True,
            ),
            Scene(
                "session",
                "what the customer will look at or buy next in this visit, also for strangers, from the context events",
                "session",
                accepts_items=True,
            ),
            Scene("content", "articles, banners and messages", None, job="content"),
            Scene(
                "similar",
                "items similar to the context items, or to the last order",
                "similar",
                accepts_items=True,
                needs_model=False,
            ),
        )
    },
)
