"""`SceneModels`: the recommender of a shop, a list of models for each scene; scenes share models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from models.persist import load_json
from models.recommend import RECOMMENDERS
from models.recommend.base import Recommender
from models.recommend.fallback import FallbackChain
from qianmian.errors import ArtifactError, InvalidRequest
from qianmian.workspace import write_json


class SceneModels:
    """Models by name, and the ordered models of each scene.

    Parameters
    ----------
    models : mapping of str to Recommender
        Models fitted on the same users and items.
    scenes : mapping of str to sequence of str
        Names of the models of each scene; a later model fills the slots that earlier ones leave (`FallbackChain`).
    """

    def __init__(
        self, models: Mapping[str, Recommender] | None = None, scenes: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self.models = models
        self.scenes = scenes

    def scene(self, name: str) -> FallbackChain:
        """Return the fallback chain of a scene.

        Raises
        ------
        InvalidRequest
            This recommender was not trained for the scene.
        """
        chains = self._chains
        if name not in chains:
            raise InvalidRequest(
                "the champion recommender does not support this scene",
                got=name,
                allowed=", ".join(chains) or "none",
                field="scene",
                hint="run `qianmian train recommend`; its report says why a scene was left out",
            )
        return chains[name]

    @cached_property
    def _chains(self) -> dict[str, FallbackChain]:
        models = self.models or {}
        return {
            scene: FallbackChain.of([models[name] for name in names]) for scene, names in (self.scenes or {}).items()
        }

    def save(self, folder: Path) -> None:
        """Write each model into a folder of its name, and the scenes into ``scenes.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        models = self.models or {}
        for name, model in models.items():
            model.save(folder / name)
        described: dict[str, Any] = {"models": {name: model.name for name, model in models.items()}}
        write_json(
            folder / "scenes.json",
            {**described, "scenes": {scene: list(names) for scene, names in (self.scenes or {}).items()}},
        )

    @classmethod
    def load(cls, folder: Path) -> SceneModels:
        """Read what `save` wrote.

        Raises
        ------
        ArtifactError
            The scenes name an unknown model, or a file is missing or damaged.
        """
        described = load_json(folder / "scenes.json")
        kinds, scenes = described["models"], described["scenes"]
        if unknown := sorted(
            {kind for kind in kinds.values() if kind not in RECOMMENDERS}
            | {name for names in scenes.values() for name in names} - set(kinds)
        ):
            raise ArtifactError(
                "the scenes name models that this version does not know",
                where=str(folder),
                got=", ".join(unknown),
                hint="train again with this version",
            )
        return cls({name: RECOMMENDERS[kind].load(folder / name) for name, kind in kinds.items()}, scenes)
