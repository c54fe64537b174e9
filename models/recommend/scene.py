"""The scenes: where a list is shown, what a request may ask of it, which job and which task decide its model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qianmian.registry import Registry

PurchasedOption = Literal["any", "only", "never"]
PURCHASED_OPTIONS: tuple[PurchasedOption, ...] = ("any", "only", "never")
DEFAULT_SCENE = "home"  # the scene of a request that names none; without a model for it no recommender is registered


@dataclass(frozen=True)
class Scene:
    """Attributes
    ----------
    task : str or None
        Name of the held-out task that chooses the scene's model, a module of `training.tasks`; None where the job measures its only model itself.
    purchased : tuple of str
        Which items, by whether the customer had them before, may be requested: ``any``, ``only`` those, ``never`` those. The first is the default.
    accepts_items : bool
        A request may give items that the answer goes with; without them it goes with what the customer did.
    needs_model : bool
        False: where no model was trained for the scene, the items most similar to the given ones answer it, and a request must give some.
    shows_expected_on : bool
        Each item comes with the day on which the customer is expected to want it again.
    job : str
        The training job whose champion answers; where it has none, the champion of `recommend` says that the scene is not answered.
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
            Scene("home", "what this customer is likeliest to want now; what was bought before may come again", "home"),
            Scene(
                "replenish",
                "what was bought before and is about to be used up",
                "replenish",
                purchased=("any", "only"),
                shows_expected_on=True,
            ),
            Scene("discover", "only what this customer never had", "discover", purchased=("never",)),
            Scene(
                "complement",
                "what goes with the items given, else with the last order",
                "complement",
                accepts_items=True,
            ),
            Scene(
                "upgrade",
                "a better or a larger one of what is bought, or of the items given",
                "upgrade",
                accepts_items=True,
            ),
            Scene("content", "what to read, watch or be told", None, job="content"),
            Scene(
                "similar",
                "what is like the items given, else like the last order",
                "similar",
                accepts_items=True,
                needs_model=False,
            ),
        )
    },
)
