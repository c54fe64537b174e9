"""`Catalogue`: lookups of the users, items and scenes of a recommender by id or name, and operations on its items."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.interactions import Interactions
from models.bundle import ModelBundle
from models.filters import FilterExpression, conditions, parse
from models.item_table import PATH_ATTRIBUTES, ItemTable
from models.ranked import NOT_A_CANDIDATE, Ranked, top_k
from models.recommend.base import Recommender
from models.recommend.fallback import FallbackChain
from models.recommend.scene import SCENES
from models.recommend.scene_models import SceneModels
from models.rerank import Cap, PathSimilarity, Similarity, VectorSimilarity, item_vectors
from qianmian.errors import InvalidRequest, NotReady

NON_PERSONALIZED = ("popular", "popular_by_segment", "trending")  # models that do not use the customer's history
AVAILABLE = "available"
WITHOUT_MODEL = tuple(scene.name for scene in SCENES.values() if not scene.needs_model)
MAX_DEPTH = 20  # levels of a category path
Mask = NDArray[np.bool_]


class Catalogue:
    """Lookups over the bundle of a recommender.

    Parameters
    ----------
    bundle : ModelBundle
        Bundle whose model is a `SceneModels`.

    Attributes
    ----------
    version : int or None
        Number of changes of the availability of its items; None if it does not change (`LiveCatalogue`).
    """

    version: int | None = None

    def __init__(self, bundle: ModelBundle) -> None:
        self.item_ids: list[str] = bundle.item_ids.tolist()
        self._bundle = bundle

    # ---- scenes ------------------------------------------------------------------------------------------------------

    @cached_property
    def scenes(self) -> tuple[str, ...]:
        """Names of the scenes that have a model, or that need none."""
        names = {*(self._scene_models.scenes or ()), *(WITHOUT_MODEL if self._similar is not None else ())}
        return (*(scene for scene in SCENES if scene in names), *sorted(names.difference(SCENES)))

    def model(self, scene: str) -> Recommender:
        """Return the model of a scene.

        Raises
        ------
        InvalidRequest
            If the recommender has no model for the scene.
        """
        if self.trained(scene):
            return self._scene_models.scene(scene)
        if scene in self.scenes:
            return self.similar
        why = self._bundle.facts.get("scenes_left_out", {}).get(scene)
        raise InvalidRequest(
            "the recommender in production has no model for this scene" + (f": {why}" if why else ""),
            got=scene,
            allowed=", ".join(self.scenes) or "none",
            field="scene",
            hint="run `qianmian train recommend`; its report says why a scene is left out",
        )

    def trained(self, scene: str) -> bool:
        """Whether the recommender was trained for the scene."""
        return scene in (self._scene_models.scenes or ())

    @property
    def _scene_models(self) -> SceneModels:
        scene_models: SceneModels = self._bundle.model
        return scene_models

    def fallback_sources(self, model: Recommender) -> tuple[bool, ...]:
        """For each source of a model's lists, whether it is a non-personalized model that fills remaining slots.

        Items that a two-stage ranker takes from a popularity model do not count: it ranks them for the customer.
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
        """Every model once, including submodels; the models of the scenes come first, in their order."""
        models, scenes = self._scene_models.models or {}, self._scene_models.scenes or {}
        scene_model_names = [name for scene in (*SCENES, *sorted(scenes)) for name in scenes.get(scene, ())]
        return tuple(
            {
                id(model): model for name in (*scene_model_names, *models) for model in models[name].with_submodels()
            }.values()
        )

    @property
    def similar(self) -> Recommender:
        """Model that answers which items are similar.

        Raises
        ------
        NotReady
            If no model supports it.
        """
        if self._similar is None:
            raise NotReady(
                "no model of the recommender in production computes similar items",
                hint="run `qianmian train recommend`",
            )
        return self._similar

    @cached_property
    def _similar(self) -> Recommender | None:
        models, scenes = self._scene_models.models or {}, self._scene_models.scenes or {}
        preferred = [models[name] for scene in WITHOUT_MODEL for name in scenes.get(scene, ())]
        return next(
            (
                model
                for parent in (*preferred, *self.models)
                for model in parent.with_submodels()
                if model.supports_similar and not isinstance(model, FallbackChain)
            ),
            None,
        )

    def similar_items(self, columns: NDArray[np.int64], k: int, allowed: Mask | None) -> Ranked:
        """Rank the other items by their similarity to any of the given columns, shape (1, at most `k`)."""
        model, others = self.similar, np.ones(len(self.item_ids), dtype=bool) if allowed is None else allowed.copy()
        others[columns] = False
        if len(columns) == 1:
            return model.similar_items(int(columns[0]), k, allowed=others)
        scores = np.full((1, len(self.item_ids)), NOT_A_CANDIDATE, dtype=np.float32)
        for column in columns.tolist():
            ranked = model.similar_items(column, k, allowed=others)
            ranked_columns = ranked.ids[0, : int(ranked.valid[0])]
            scores[0, ranked_columns] = np.maximum(scores[0, ranked_columns], ranked.scores[0, : len(ranked_columns)])
        ids, values = top_k(scores, k)
        return Ranked.of(ids, values, np.zeros(ids.shape, dtype=np.int8), k, (model.name,))

    def similar_to_attributes(self, attributes: Mapping[str, Any], k: int, allowed: Mask | None) -> Ranked:
        """Rank the items by their similarity to an unknown item with these attributes, shape (1, at most `k`).

        Raises
        ------
        InvalidRequest
            If the items have no such attribute, or the model compares items by their customers only.
        """
        if not self.similar.supports_similar_to:
            raise InvalidRequest(
                "the recommender in production compares items by their customers only, and this item has none",
                field="attributes",
                hint="use an item that the model knows, or train a recommender with the scene similar",
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
        """Score unknown items by their attributes.

        Parameters
        ----------
        row : int
            Row of the customer, −1 for an unknown user.
        new_item_attributes : sequence of mapping
            Attributes of m items.

        Returns
        -------
        tuple or None
            Name of the model, scores for this customer and scores for an unknown user, both float32 of shape (m,);
            None if no model supports it.
        """
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
        """Return the attributes that two items share, empty if the model of similar items does not state them."""
        model = self.similar
        evidence = model.evidence(-1, other, items=np.array([item])) if model.supports_evidence else None
        return {} if evidence is None else evidence.get("alike", {})

    # ---- users -------------------------------------------------------------------------------------------------------

    @cached_property
    def history(self) -> sparse.csr_matrix:
        """Interaction matrix before the cutoff, 0/1, shape (n_users, n_items)."""
        return self.models[0].history_

    @cached_property
    def known_attributes(self) -> frozenset[str]:
        """``attribute=value`` of every user attribute that a model uses for users without history."""
        return frozenset(name for model in self.models for name in model.attribute_names)

    def user_row(self, one_id: str | None) -> int:
        """Row of a customer, −1 for an unknown user."""
        return self._bundle.user_map.row(one_id)

    def interacted(self, row: int) -> NDArray[np.int32]:
        """Columns of the items that a customer interacted with before the cutoff, sorted."""
        if row < 0:
            return np.empty(0, np.int32)
        columns: NDArray[np.int32] = self.history.indices[slice(*self.history.indptr[row : row + 2])]
        return columns

    def has_history(self, row: int) -> bool:
        """Whether the customer has a history in the model."""
        return row >= 0 and bool(self.history.indptr[row + 1] > self.history.indptr[row])

    # ---- items -------------------------------------------------------------------------------------------------------

    @cached_property
    def items(self) -> ItemTable:
        """Attributes of the items."""
        return ItemTable(self._bundle.item_attributes, self.item_ids)

    @cached_property
    def available(self) -> Mask | None:
        """Mask of the available items, shape (n_items,); None if all are. A missing value counts as available."""
        values = self._bundle.item_attributes.get(AVAILABLE)
        if values is None or values.dtype.kind not in "biu" or (values != 0).all():
            return None
        return np.asarray(values != 0)

    @cached_property
    def similarity(self) -> Similarity:
        """Similarity of items for diversity: cosine of a model's item vectors, else shared category levels."""
        vectors = next((vectors for vectors in map(item_vectors, self.models) if vectors is not None), None)
        return VectorSimilarity(vectors) if vectors is not None else PathSimilarity(self.levels)

    @cached_property
    def levels(self) -> NDArray[np.int64]:
        """Codes of the first 1, 2, … levels of each item's category, −1 past its end, shape (n_items, depth ≥ 1)."""
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
        """Levels of an item's category, broadest first; empty if it is unknown."""
        categories = self._bundle.item_attributes.get("category")
        return [] if categories is None or not categories[column] else str(categories[column]).split("/")

    def warm(self) -> None:
        """Compute the cached lookups, so that the first request does not wait for them."""
        self.user_row("")
        self.item_column("")
        self.known_attributes, self.scenes, self.history, self.available, self._prefixes  # noqa: B018 - cached properties
        self.items.warm()

    def item_column(self, item_id: str) -> int:
        """Column of an item, −1 for an unknown item."""
        return self._bundle.item_map.row(item_id)

    def lake_item_id(self, item_id: str, source: str) -> str:
        """The id of the lake for an item of an event; a source whose name begins ids of the model may leave it out."""
        prefix = f"{source}:"
        return item_id if item_id.startswith(prefix) or prefix not in self._prefixes else prefix + item_id

    @cached_property
    def _prefixes(self) -> frozenset[str]:
        """The begins of the ids of items, up to each colon; not kept by source, of which events may name any number."""
        return frozenset(item_id[: colon.end()] for item_id in self.item_ids for colon in re.finditer(":", item_id))

    def columns_of(self, item_ids: Iterable[str]) -> tuple[NDArray[np.int64], list[str]]:
        """Columns of the known items, in order and without duplicates, and the unknown ids."""
        return self._bundle.item_map.split(item_ids)

    def parse_filter(self, raw: Any, where: str = "filters") -> tuple[Mask | None, bool]:
        """Evaluate a filter expression (`models.filters`).

        Parameters
        ----------
        raw : mapping
            Filter expression as plain data.
        where : str
            Field named in an error.

        Returns
        -------
        mask : ndarray of bool, shape (n_items,), or None
            Items that pass; None for an empty filter.
        filters_availability : bool
            Whether the expression names ``available``.

        Raises
        ------
        InvalidRequest
            If it is not a filter expression, or the items do not support it.
        """
        expression = parse(raw, where)
        if expression is None:
            return None, False
        table = self._table_for(expression)
        table.check(expression)
        filters_availability = any(condition.attribute == AVAILABLE for condition in conditions(expression))
        return table.mask(expression), filters_availability

    def _table_for(self, _expression: FilterExpression) -> ItemTable:
        """The items that a filter is evaluated on."""
        return self.items

    def cap(self, name: str, limit: int, where: str) -> Cap:
        """Make a limit of items per value of an attribute.

        Parameters
        ----------
        name : str
            Attribute, or a category with the number of levels to compare (``category/2``).
        limit : int
            Maximum number of items per value.
        where : str
            Field named in an error.

        Raises
        ------
        InvalidRequest
            If the attribute is unknown or numeric, or has no levels.
        """
        groupable = [attribute for attribute in self.items.names if self.items.kind(attribute) != "number"]
        attribute, _, depth = (name, "", "") if name in groupable else name.partition("/")
        if attribute not in groupable:
            raise InvalidRequest(
                f"{where}: not an attribute with discrete values", got=name, allowed=", ".join(groupable), field=where
            )
        if not depth:
            return Cap(name, self.items.codes(attribute), limit)
        is_number = depth.isascii() and depth.isdigit()
        if attribute not in PATH_ATTRIBUTES or not is_number or not 1 <= int(depth) <= MAX_DEPTH:
            raise InvalidRequest(
                f"{where}: only {', '.join(PATH_ATTRIBUTES)} has levels, from 1 to {MAX_DEPTH}",
                got=name,
                allowed=f"{PATH_ATTRIBUTES[0]}/1 to {PATH_ATTRIBUTES[0]}/{MAX_DEPTH}",
                field=where,
            )
        return Cap(name, self.items.codes(attribute, int(depth)), limit)

    def item_mask(self, item_ids: Iterable[str]) -> Mask:
        """Mask of these items, shape (n_items,); unknown ids are ignored."""
        return self.mask_of(self.columns_of(item_ids)[0])

    def mask_of(self, columns: NDArray[np.integer[Any]]) -> Mask:
        """Mask of these columns, shape (n_items,)."""
        mask = np.zeros(len(self.item_ids), dtype=bool)
        mask[columns] = True
        return mask


def combine_masks(first: Mask | None, second: Mask | None) -> Mask | None:
    """Return the items in both masks; None means all items."""
    return second if first is None else first if second is None else first & second
