"""`SceneModels`: the model of a recommender bundle, an ordered list of models for each scene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from models.persist import UserArrays, load_json
from models.recommend import RECOMMENDERS
from models.recommend.base import Recommender
from models.recommend.fallback import FallbackChain
from qianmian.errors import ArtifactError, InvalidRequest
from qianmian.workspace import write_json


class SceneModels:
    """Models by name, and the models of each scene. A model that several scenes use is stored once.

    Parameters
    ----------
    models : mapping of str to Recommender
        Models fitted on the same customers and items.
    scenes : mapping of str to sequence of str
        Scene → names of its models; a later model fills the slots that the earlier ones leave empty (`FallbackChain`).
    """

    user_arrays: ClassVar[tuple[UserArrays, ...]] = ()  # its models have them

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
            If the recommender was not trained for the scene.
        """
        chains = self._chains
        if name not in chains:
            raise InvalidRequest(
                "the recommender in production has no model for this scene",
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
        """Write each model into a subfolder of its name, and `scenes.json`."""
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
            If the scenes refer to models that this version does not know.
        """
        described = load_json(folder / "scenes.json")
        kinds, scenes = described["models"], described["scenes"]
        if unknown := sorted(
            {kind for kind in kinds.values() if kind not in RECOMMENDERS}
            | {name for names in scenes.values() for name in names} - set(kinds)
        ):
            raise ArtifactError(
                "the scenes refer to models that this version does not know",
                where=str(folder),
                got=", ".join(unknown),
                hint="train again with this version",
            )
        return cls({name: RECOMMENDERS[kind].load(folder / name) for name, kind in kinds.items()}, scenes)
