"""`Catalogue`: the users, items and scenes of a recommender by the names callers use, and what may be said of its items."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.interactions import Interactions
from models.bundle import ModelBundle
from models.filters import conditions, parse
from models.item_table import PATH_ATTRIBUTES, ItemTable
from models.ranked import NOT_A_CANDIDATE, Ranked, top_k
from models.recommend.base import Recommender
from models.recommend.fallback import FallbackChain
from models.recommend.scene import SCENES
from models.recommend.scene_models import SceneModels
from models.rerank import Cap, PathSimilarity, Similarity, VectorSimilarity, item_vectors
from qianmian.errors import InvalidRequest, NotReady

NON_PERSONALIZED = ("popular", "popular_by_segment", "trending")  # models that know nothing of what this customer did
AVAILABLE = "available"
WITHOUT_MODEL = tuple(scene.name for scene in SCENES.values() if not scene.needs_model)
MAX_DEPTH = 20  # of a category path
Mask = NDArray[np.bool_]


class Catalogue:
    """Lookups over a recommender's bundle.

    Parameters
    ----------
    bundle : ModelBundle
        Its model is `SceneModels`.
    """

    def __init__(self, bundle: ModelBundle) -> None:
        self.item_ids: list[str] = bundle.item_ids.tolist()
        self._bundle = bundle

    # ---- scenes ------------------------------------------------------------------------------------------------------

    @cached_property
    def scenes(self) -> tuple[str, ...]:
        """The scenes the recommender answers."""
        answered = {*(self._scene_models.scenes or ()), *(WITHOUT_MODEL if self._similar is not None else ())}
        return (*(scene for scene in SCENES if scene in answered), *sorted(answered.difference(SCENES)))

    def model(self, scene: str) -> Recommender:
        """What answers a scene.

        Raises
        ------
        InvalidRequest
            It was not trained for it.
        """
        if self.trained(scene):
            return self._scene_models.scene(scene)
        if scene in self.scenes:
            return self.similar
        why = self._bundle.facts.get("scenes_left_out", {}).get(scene)
        raise InvalidRequest(
            "the recommender in production does not answer this scene" + (f": {why}" if why else ""),
            got=scene,
            allowed=", ".join(self.scenes) or "none",
            field="scene",
            hint="run `qianmian train recommend`; it says why a scene is left out",
        )

    def trained(self, scene: str) -> bool:
        """The recommender has models for the scene."""
        return scene in (self._scene_models.scenes or ())

    @property
    def _scene_models(self) -> SceneModels:
        made: SceneModels = self._bundle.model
        return made

    def fallback_sources(self, model: Recommender) -> tuple[bool, ...]:
        """Whether each source of a model's lists is one that knows nothing of this customer, and fills what the others leave open.

        What a ranker took from the most popular items it has ranked for this customer: that is none.
        """
        if id(model) not in self._fallback_sources:
            stages = model.submodels if isinstance(model, FallbackChain) else (model,)
            self._fallback_sources[id(model)] = tuple(
                stage.name in NON_PERSONALIZED for stage in stages for _ in stage.sources
            )
        return self._fallback_sources[id(model)]

    @cached_property
    def _fallback_sources(self) -> dict[int, tuple[bool, ...]]:
        return {}

    @cached_property
    def models(self) -> tuple[Recommender, ...]:
        """Every model once, those that others are made of included: first those of the scenes, in the order they are asked."""
        made, scenes = self._scene_models.models or {}, self._scene_models.scenes or {}
        scene_model_names = [name for scene in (*SCENES, *sorted(scenes)) for name in scenes.get(scene, ())]
        return tuple(
            {id(model): model for name in (*scene_model_names, *made) for model in made[name].with_submodels()}.values()
        )

    @property
    def similar(self) -> Recommender:
        """What says which items are alike.

        Raises
        ------
        NotReady
            No model does.
        """
        if self._similar is None:
            raise NotReady(
                "the recommender in production knows no similar items", hint="run `qianmian train recommend`"
            )
        return self._similar

    @cached_property
    def _similar(self) -> Recommender | None:
        made, scenes = self._scene_models.models or {}, self._scene_models.scenes or {}
        named = [made[name] for scene in WITHOUT_MODEL for name in scenes.get(scene, ())]
        return next(
            (
                model
                for one in (*named, *self.models)
                for model in one.with_submodels()
                if model.supports_similar and not isinstance(model, FallbackChain)
            ),
            None,
        )

    def similar_items(self, columns: NDArray[np.int64], k: int, allowed: Mask | None) -> Ranked:
        """The items most like any of the given ones, these left out; (1, many)."""
        model, left = self.similar, np.ones(len(self.item_ids), dtype=bool) if allowed is None else allowed.copy()
        left[columns] = False
        if len(columns) == 1:
            return model.similar_items(int(columns[0]), k, allowed=left)
        scores = np.full((1, len(self.item_ids)), NOT_A_CANDIDATE, dtype=np.float32)
        for column in columns.tolist():
            found = model.similar_items(column, k, allowed=left)
            own = found.ids[0, : int(found.valid[0])]
            scores[0, own] = np.maximum(scores[0, own], found.scores[0, : len(own)])
        ids, values = top_k(scores, k)
        return Ranked.of(ids, values, np.zeros(ids.shape, dtype=np.int8), k, (model.name,))

    def similar_to_attributes(self, attributes: Mapping[str, Any], k: int, allowed: Mask | None) -> Ranked:
        """The items most like one that the model does not know, by what it is; (1, many).

        Raises
        ------
        InvalidRequest
            The items have no such attribute, or the recommender compares items by their customers alone.
        """
        if not self.similar.supports_similar_to:
            raise InvalidRequest(
                "the recommender in production compares items by their customers alone, and nobody has had this one",
                field="attributes",
                hint="ask about an item it knows, or train a recommender with the scene similar",
            )
        try:
            return self.similar.similar_to(attributes, k, allowed=allowed)
        except InvalidRequest as error:
            raise InvalidRequest(
                error.message,
                got=error.got,
                allowed=error.allowed,
                field=f"attributes.{error.field}" if error.field else "attributes",
            ) from error

    def score_new_items(
        self,
        row: int,
        new_item_attributes: Sequence[Mapping[str, Any]],
        recent_interactions: Interactions | None = None,
        elapsed_days: float = 0.0,
    ) -> tuple[str, NDArray[np.float32], NDArray[np.float32]] | None:
        """Items the model does not know, by what they are: the source, the scores for this customer, and those for anybody; None where no model can tell."""
        model = next((model for model in self.models if model.supports_score_unseen), None)
        if model is None:
            return None
        return (
            model.name,
            model.score_unseen(
                row, new_item_attributes, recent_interactions=recent_interactions, elapsed_days=elapsed_days
            ),
            model.score_unseen(-1, new_item_attributes),
        )

    def shared_attributes(self, item: int, other: int) -> dict[str, str]:
        """The columns two items agree in, where the model of similar items tells."""
        told = self.similar.evidence(-1, other, items=np.array([item])) if self.similar.supports_evidence else None
        return {} if told is None else told.get("alike", {})

    # ---- users -------------------------------------------------------------------------------------------------------

    @cached_property
    def history(self) -> sparse.csr_matrix:
        """Who had what, 0/1, (n_users, n_items)."""
        return self.models[0].history_

    @cached_property
    def known_attributes(self) -> frozenset[str]:
        """``attribute=value`` of every customer trait a cold answer can be made of."""
        return frozenset(name for model in self.models for name in model.attribute_names)

    def user_row(self, one_id: str | None) -> int:
        """Row of a customer, −1 for one the model has never seen."""
        return self._bundle.user_map.row(one_id)

    def interacted(self, row: int) -> NDArray[np.int32]:
        """The items a customer had, sorted."""
        found: NDArray[np.int32] = (
            self.history.indices[slice(*self.history.indptr[row : row + 2])] if row >= 0 else np.empty(0, np.int32)
        )
        return found

    def has_history(self, row: int) -> bool:
        """The model knows something the customer did."""
        return row >= 0 and bool(self.history.indptr[row + 1] > self.history.indptr[row])

    # ---- items -------------------------------------------------------------------------------------------------------

    @cached_property
    def items(self) -> ItemTable:
        """What is known of the items."""
        return ItemTable(self._bundle.item_attributes, self.item_ids)

    @cached_property
    def available(self) -> Mask | None:
        """Which items can be had, (n_items,); None where all can. What nobody says counts as available."""
        told = self._bundle.item_attributes.get(AVAILABLE)
        if told is None or told.dtype.kind not in "biu" or (told != 0).all():
            return None
        return np.asarray(told != 0)

    @cached_property
    def similarity(self) -> Similarity:
        """How alike items are: by the vectors of a model, else by their categories."""
        found = next((vectors for vectors in map(item_vectors, self.models) if vectors is not None), None)
        if found is not None:
            return VectorSimilarity(found)
        return PathSimilarity(self.levels)

    @cached_property
    def levels(self) -> NDArray[np.int64]:
        """For each item the group of the first 1, 2, … levels of its category, −1 past its end, (n_items, depth ≥ 1)."""
        if "category" not in self.items.names:
            return np.full((len(self.item_ids), 1), -1, dtype=np.int64)
        values, codes = self.items.distinct("category")
        depths = np.asarray([value.count("/") + 1 for value in values.tolist()], dtype=np.int64)
        deepest = min(int(depths.max(initial=1)), MAX_DEPTH)
        columns = [
            np.where(depths[codes] >= depth, self.items.codes("category", depth), -1) for depth in range(1, deepest + 1)
        ]
        return np.column_stack(columns)

    def category_of(self, column: int) -> list[str]:
        """The levels of an item's category, broadest first; none where it is not known."""
        told = self._bundle.item_attributes.get("category")
        return [] if told is None or not told[column] else str(told[column]).split("/")

    def warm(self) -> None:
        """Make every lookup now."""
        self.user_row("")
        self.item_column("")
        self.known_attributes, self.scenes, self.history, self.available  # noqa: B018 - cached properties
        self.items.warm()

    def item_column(self, item_id: str) -> int:
        """Column of an item, −1 for one that the model does not know."""
        return self._bundle.item_map.row(item_id)

    def columns_of(self, item_ids: Iterable[str]) -> tuple[NDArray[np.int64], list[str]]:
        """Columns of the items the model knows, in order and once each, and the ids it does not know."""
        return self._bundle.item_map.split(item_ids)

    def parse_filter(self, raw: Any, where: str = "filters") -> tuple[Mask | None, bool]:
        """Which items pass a filter (`models.filters`), (n_items,), None for all; and whether it asks for availability itself.

        Raises
        ------
        InvalidRequest
            It is not a filter, or asks what the items cannot answer.
        """
        found = parse(raw, where)
        if found is None:
            return None, False
        self.items.check(found)
        return self.items.mask(found), any(condition.attribute == AVAILABLE for condition in conditions(found))

    def cap(self, name: str, limit: int, where: str) -> Cap:
        """At most so many items with one value of an attribute, or of one category of a depth (``category/2``).

        Raises
        ------
        InvalidRequest
            There is no such attribute, or its values make no groups.
        """
        groupable = [known for known in self.items.names if self.items.kind(known) != "number"]
        attribute, _, depth = (name, "", "") if name in groupable else name.partition("/")
        if attribute not in groupable:
            raise InvalidRequest(
                f"{where}: no groups can be made by this", got=name, allowed=", ".join(groupable), field=where
            )
        if not depth:
            return Cap(name, self.items.codes(attribute), limit)
        if (
            attribute not in PATH_ATTRIBUTES
            or not depth.isascii()
            or not depth.isdigit()
            or not 1 <= int(depth) <= MAX_DEPTH
        ):
            raise InvalidRequest(
                f"{where}: levels are of {', '.join(PATH_ATTRIBUTES)}",
                got=name,
                allowed=f"{PATH_ATTRIBUTES[0]}/1 to {PATH_ATTRIBUTES[0]}/{MAX_DEPTH}",
                field=where,
            )
        return Cap(name, self.items.codes(attribute, int(depth)), limit)

    def item_mask(self, item_ids: Iterable[str]) -> Mask:
        """A mask of these items, (n_items,)."""
        return self.mask_of(self.columns_of(item_ids)[0])

    def mask_of(self, columns: NDArray[np.integer[Any]]) -> Mask:
        """A mask of these columns, (n_items,)."""
        mask = np.zeros(len(self.item_ids), dtype=bool)
        mask[columns] = True
        return mask


def expected_days(
    model: Recommender, users: NDArray[np.int64], items: NDArray[np.integer[Any]]
) -> NDArray[np.float64] | None:
    """Days from the `as_of` of the fit until each of m customers is expected to want an item again, NaN unknown, (m,); None where no model says."""
    able = next((part for part in model.with_submodels() if part.supports_expected_days), None)
    return None if able is None else able.expected_days(users, items)


def combine_masks(one: Mask | None, other: Mask | None) -> Mask | None:
    """What passes both masks; None is all."""
    return other if one is None else one if other is None else one & other
