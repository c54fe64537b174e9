"""`RecommendationPlan`: everything decided about n lists before they are ranked, and the plans of requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.ranked import Ranked
from models.recommend.base import Query, Recommender
from models.recommend.scene import SCENES, PurchasedOption, Scene
from models.rerank import RerankOptions
from qianmian.errors import InvalidRequest
from serving.champions import Champion, Champions
from serving.recommending.catalogue import Catalogue, Mask, combine_masks
from serving.recommending.recent import RecentActivity, recent_activity
from serving.recommending.request_options import (
    NO_RERANKING,
    ListOptions,
    RequestContext,
    allowed_items,
    rerank_options_for,
    resolve_purchased,
)
from serving.requests import UserRequest
from serving.users import ResolvedUser, resolve_user

JOB = "recommend"
STEPS = ("filters leave", "those that can be had are", "exclude leaves")  # what a short reason calls them
Columns = NDArray[np.int64]


def _no_columns() -> Columns:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class RecommendationPlan:
    """n lists of one scene: who they are for, what they may hold, what is done with them after ranking.

    Attributes
    ----------
    query : Query
        The n customers, and what is known of them beyond the fit.
    filter_mask : ndarray of bool, (n_items,), or None
        What the filters let through.
    allowed : ndarray of bool, (n_items,), or None
        What of that is available.
    excluded : ndarray of int64
        Columns that no list holds.
    purchased : str
        ``any`` item, ``only`` those that the customer of a list had before, or ``never`` those.
    similar_to : ndarray of int64, mapping, or None
        Instead of what the model has for the customers, the items most similar to any of these columns, or to an item with these attributes.
    steps : tuple of str
        What a short reason calls `filter_mask`, `allowed` and `excluded`.
    """

    champion: Champion
    scene: Scene
    model: Recommender
    query: Query
    filter_mask: Mask | None = None
    allowed: Mask | None = None
    excluded: Columns = field(default_factory=_no_columns)
    purchased: PurchasedOption = "any"
    rerank_options: RerankOptions = NO_RERANKING
    similar_to: Columns | Mapping[str, Any] | None = None
    steps: tuple[str, str, str] = STEPS

    @property
    def catalogue(self) -> Catalogue:
        """The users and items of the champion."""
        return self.champion.catalogue

    @property
    def context_items(self) -> Columns:
        """Columns of the items that the first list goes with."""
        return np.asarray(self.query.items[0], dtype=np.int64) if self.query.items is not None else _no_columns()

    @property
    def is_personalized(self) -> bool:
        """Something is known that is the first customer's own."""
        return bool(
            self.catalogue.has_history(int(self.query.users[0]))
            or self.query.items is not None
            or self.query.recent_interactions is not None
        )

    def interacted(self, query: Query) -> tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]]:
        """What the customers of a query had, before the fit and since: pairs of a row of the query and a column, in no order."""
        history, known = self.catalogue.history, np.flatnonzero(query.users >= 0)
        starts = history.indptr[query.users[known]]
        counts = history.indptr[query.users[known] + 1] - starts
        rows = np.repeat(known, counts)
        columns = history.indices[np.arange(len(rows)) + np.repeat(starts - (np.cumsum(counts) - counts), counts)]
        if query.recent_interactions is None:
            return rows, columns
        return np.append(rows, query.recent_interactions.users), np.append(columns, query.recent_interactions.items)

    def ranked(self, lists: NDArray[np.int64], n_candidates: int, items: Mask | None = None) -> Ranked:
        """The best items, of `items` only where given, that these lists may hold, (len(lists), many)."""
        query = self.query if len(lists) == len(self.query) else self.query.take(lists)
        allowed = combine_masks(self.allowed, items)
        if self.similar_to is not None:
            return self._most_similar(query, n_candidates, allowed)
        exclude: list[NDArray[np.integer[Any]]] | None = [self.excluded] * len(query) if len(self.excluded) else None
        if self.purchased == "only":
            allowed, others = self._only_had(query, allowed)
            if others is not None:
                exclude = others if exclude is None else [np.append(self.excluded, columns) for columns in others]
        return self.model.recommend(
            query.users,
            n_candidates,
            allowed=allowed,
            exclude=exclude,
            exclude_purchased=self.purchased == "never",
            attributes=query.attributes,
            recent_interactions=query.recent_interactions,
            elapsed_days=query.elapsed_days,
            items=query.items,
        )

    def _only_had(self, query: Query, allowed: Mask | None) -> tuple[Mask, list[NDArray[np.integer[Any]]] | None]:
        """The items that any customer of the query had, and for each customer those of them that only others had; None for one customer."""
        rows, columns = self.interacted(query)
        anyones = self.catalogue.mask_of(columns)
        allowed = anyones if allowed is None else allowed & anyones
        if len(query) == 1:
            return allowed, None
        own = np.zeros((len(query), int(anyones.sum())), dtype=bool)
        own[rows, (np.cumsum(anyones) - 1)[columns]] = True
        row, position = np.nonzero(~own)
        others = np.flatnonzero(anyones)[position]
        return allowed, np.split(others, np.cumsum(np.bincount(row, minlength=len(query)))[:-1])

    def _most_similar(self, query: Query, n_candidates: int, allowed: Mask | None) -> Ranked:
        """The items most similar to `similar_to`, (1, many)."""
        if len(self.excluded) or self.purchased != "any":
            allowed = np.ones(len(self.catalogue.item_ids), dtype=bool) if allowed is None else allowed.copy()
            allowed[self.excluded] = False
        if self.purchased != "any":
            interacted = self.catalogue.mask_of(self.interacted(query)[1])
            allowed = combine_masks(allowed, interacted if self.purchased == "only" else ~interacted)
        if isinstance(self.similar_to, Mapping):
            return self.catalogue.similar_to_attributes(self.similar_to, n_candidates, allowed)
        assert self.similar_to is not None
        return self.catalogue.similar_items(self.similar_to, n_candidates, allowed)


@dataclass(frozen=True)
class UserPlan:
    """The plan of the one list a request is about.

    Attributes
    ----------
    unknown : list of str
        The items of the request that the model does not know.
    """

    user: ResolvedUser
    plan: RecommendationPlan
    unknown: list[str]
    recent: RecentActivity | None


def plan_for_user(
    champions: Champions,
    request: UserRequest,
    scene: Scene,
    context: RequestContext,
    *,
    candidates: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    options: ListOptions | None = None,
) -> UserPlan:
    """The plan of a request about one customer: of all items that `options` leave, or of the `candidates`, whatever they are.

    Raises
    ------
    InvalidRequest
        The user id is ambiguous, the scene is not answered, or the context or an option is not possible.
    """
    user, champion = resolve_user(champions, request), champion_for_scene(champions, scene)
    catalogue = champion.catalogue
    model = catalogue.model(scene.name)
    columns, unknown = catalogue.columns_of(exclude if candidates is None else candidates)
    recent = recent_activity_of(champion, context)
    context_items, unknown_items = resolve_context_items(catalogue, scene, context.items)
    if unknown_items or (recent is not None and recent.unknown):
        unknown = list(dict.fromkeys([*unknown, *unknown_items, *(recent.unknown if recent is not None else ())]))
    query = Query(
        np.array([catalogue.user_row(user.one_id)], dtype=np.int64),
        [context.attributes or None],
        recent.interactions if recent is not None else None,
        recent.elapsed_days if recent is not None else 0.0,
        [context_items] if len(context_items) else None,
    )
    similar_to = None if scene.needs_model or catalogue.trained(scene.name) else context_items
    limits: dict[str, Any] = {}
    if candidates is not None:
        limits = {"allowed": catalogue.mask_of(columns)}
    elif options is not None:
        excluded = np.union1d(columns, context_items) if len(context_items) else columns
        limits = {"excluded": excluded, **limits_of(scene, catalogue, options)}
    return UserPlan(
        user, RecommendationPlan(champion, scene, model, query, similar_to=similar_to, **limits), unknown, recent
    )


def limits_of(
    scene: Scene, catalogue: Catalogue, options: ListOptions, available: Mask | None = None
) -> dict[str, Any]:
    """What options mean for the fields of a plan; `available` is that of the catalogue by default.

    Raises
    ------
    InvalidRequest
        The scene or the items cannot answer an option.
    """
    filter_mask, allowed = allowed_items(catalogue, options.filters, available)
    return {
        "filter_mask": filter_mask,
        "allowed": allowed,
        "purchased": resolve_purchased(scene, options.purchased),
        "rerank_options": rerank_options_for(catalogue, options),
    }


def champion_for_scene(champions: Champions, scene: Scene) -> Champion:
    """The champion that answers a scene; that of `recommend`, which says that none does, where there is no other.

    Raises
    ------
    NotReady
        There is not even that one.
    """
    return champions.models.get(scene.job) or champions.require(JOB)


def recent_activity_of(champion: Champion, context: RequestContext) -> RecentActivity | None:
    """What the context tells of the time after the fit; None where it tells nothing."""
    if not context.events and context.now is None:
        return None
    interaction_source = str(champion.bundle.facts.get("interactions", "transactions"))
    return recent_activity(champion.catalogue, champion.bundle.as_of, interaction_source, context.events, context.now)


def resolve_context_items(catalogue: Catalogue, scene: Scene, item_ids: Sequence[str]) -> tuple[Columns, list[str]]:
    """Columns of the items a list goes with, and the ids the model does not know.

    Raises
    ------
    InvalidRequest
        The scene takes none, or nothing else says what the list should be like.
    """
    if item_ids and not scene.accepts_items:
        goes = ", ".join(one.name for one in SCENES.values() if one.accepts_items)
        raise InvalidRequest(
            f"a list for {scene.name} goes with no items", field="context.items", allowed=f"with the scenes {goes}"
        )
    context_items, unknown = catalogue.columns_of(item_ids)
    if not scene.needs_model and not len(context_items) and not catalogue.trained(scene.name):
        raise InvalidRequest(
            f"{scene.name} needs an item the model knows",
            got=", ".join(item_ids[:5]) or "none",
            field="context.items",
            hint="name it in context.items",
        )
    return context_items, unknown
