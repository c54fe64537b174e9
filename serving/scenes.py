"""Scenes: where the items are shown, and what follows from it. One line adds one."""

from __future__ import annotations

from dataclasses import dataclass

from qianmian.registry import Registry


@dataclass(frozen=True)
class Scene:
    """Attributes
    ----------
    exclude_purchased : bool
        Items the customer had before are left out.
    """

    name: str
    description: str
    exclude_purchased: bool


SCENES: Registry[Scene] = Registry("scene", {scene.name: scene for scene in (
    Scene("home", "what this customer is likeliest to want now; what was bought before may come again", exclude_purchased=False),
    Scene("discover", "only what this customer never had", exclude_purchased=True),
)})  # fmt: skip
