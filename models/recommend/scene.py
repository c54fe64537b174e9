"""Scenes: where the items are shown, and what follows from it. One line adds one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qianmian.registry import Registry

PurchasedOption = Literal["any", "only", "never"]
PURCHASED_OPTIONS: tuple[PurchasedOption, ...] = ("any", "only", "never")


@dataclass(frozen=True)
class Scene:
    """Attributes
    ----------
    purchased : tuple of str
        Which items, by whether the customer had them before, may be asked for: ``any``, ``only`` those, ``never`` those. The first is what
        is shown unless something else is asked.
    accepts_items : bool
        A request may give items that the answer goes with; without them it goes with what the customer did.
    job : str
        The training job whose champion answers, where there is one; else that of `recommend` says that nobody does.
    """

    name: str
    description: str
    purchased: tuple[PurchasedOption, ...] = PURCHASED_OPTIONS
    accepts_items: bool = False
    job: str = "recommend"

    @property
    def exclude_purchased(self) -> bool:
        """Items the customer had before are left out, unless something else is asked."""
        return self.purchased[0] == "never"


SCENES: Registry[Scene] = Registry(
    "scene",
    {
        scene.name: scene
        for scene in (
            Scene("home", "what this customer is likeliest to want now; what was bought before may come again"),
            Scene("replenish", "what was bought before and is about to be used up", ("any", "only")),
            Scene("discover", "only what this customer never had", ("never",)),
            Scene("complement", "what goes with the items given, else with the last order", accepts_items=True),
            Scene("upgrade", "a better or a larger one of what is bought, or of the items given", accepts_items=True),
            Scene("content", "what to read, watch or be told", job="content"),
            Scene("similar", "what is like the items given, else like the last order", accepts_items=True),
        )
    },
)
