"""`RecommendationPlan`: everything decided about n lists before they are ranked, and how a request becomes a plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.interaction_types import target_of
from models.ranked import Ranked
from models.recommend.base import Query, Recommender
from models.recommend.scene import SCENES, PurchasedOption, Scene
from models.rerank import RerankOptions
from qianmian.errors import InvalidRequest
from serving.champions import Champion, Champions
from serving.recommending.accepted import accepted_events
from serving.recommending.catalogue import Catalogue, Mask, combine_masks
from serving.recommending.kept_lists import KeptLists
from serving.recommending.recent import ItemEvent, RecentActivity, recent_activity
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
STEPS = ("filters leave", "removing unavailable items leaves", "exclude leaves")  # in short_reason
Columns = NDArray[np.int64]


def _no_columns() -> Columns:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class RecommendationPlan:
    """Plan of n lists of one scene: the customers, the eligible items and the re-ranking after scoring.

    Attributes
    ----------
    champion : Champion
        Model version that the items, histories and metadata come from.
    scene : Scene
        Scene of the lists.
    model : Recommender
        Model that ranks the items.
    query : Query
        The n customers, with their attributes, recent interactions and context items.
    filter_mask : ndarray of bool, shape (n_items,), or None
        Items that pass the filters; None if all do. Used only to explain short lists.
    allowed : ndarray of bool, shape (n_items,), or None
        Items that pass the filters and are available; None if all are.
    excluded : ndarray of int64, shape (m,)
        Columns of items that no list may contain.
    purchased : {"any", "only", "never"}
        Whether a list may contain any item, only items the customer interacted with, or only other items.
    rerank_options : RerankOptions
        Caps, diversity, promotions and exploration.
    similar_to : ndarray of int64, mapping, or None
        If set, the list contains the items most similar to any of these columns, or to an item with these attributes,
        and the model is not used.
    candidates : csr_matrix, shape (n, n_items), or None
        Items that each list may contain; None if the lists share their items.
    kept : KeptLists or None
        Where the only list may be kept, if it depends on nothing but the customer, the scene and `purchased`.
    steps : tuple of str
        Names of the steps `filter_mask`, `allowed` and `excluded` in a short reason.
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
    candidates: sparse.csr_matrix | None = None
    kept: KeptLists | None = None
    steps: tuple[str, str, str] = STEPS

    @property
    def catalogue(self) -> Catalogue:
        """Users and items of the champion."""
        return self.champion.catalogue

    @property
    def context_items(self) -> Columns:
        """Columns of the context items of the first list."""
        return np.asarray(self.query.items[0], dtype=np.int64) if self.query.items is not None else _no_columns()

    @property
    def is_personalized(self) -> bool:
        """Whether the first customer has a history, context items or recent interactions."""
        return bool(
            self.catalogue.has_history(int(self.query.users[0]))
            or self.query.items is not None
            or self.query.recent_interactions is not None
            or self.query.recent_auxiliary is not None
        )

    def with_options(self, options: ListOptions, available: Mask | None = None) -> RecommendationPlan:
        """Return this plan with the filters, the purchased option and the re-ranking of a request.

        Parameters
        ----------
        options : ListOptions
            Options of the request.
        available : ndarray of bool, shape (n_items,), optional
            Items that are available; default: those of the catalogue.

        Raises
        ------
        InvalidRequest
            If the scene or the item attributes do not support an option.
        """
        filter_mask, allowed = allowed_items(self.catalogue, options.filters, available)
        return replace(
            self,
            filter_mask=filter_mask,
            allowed=allowed,
            purchased=resolve_purchased(self.scene, options.purchased),
            rerank_options=rerank_options_for(self.catalogue, options),
        )

    def interacted(self, query: Query) -> tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]]:
        """Items that the customers of a query interacted with, before the cutoff and since.

        Returns
        -------
        rows, columns : ndarray of int, shape (n_pairs,)
            Row of the query and column of the item, in no particular order.
        """
        history, known = self.catalogue.history, np.flatnonzero(query.users >= 0)
        starts = history.indptr[query.users[known]]
        counts = history.indptr[query.users[known] + 1] - starts
        rows = np.repeat(known, counts)
        columns = history.indices[np.arange(len(rows)) + np.repeat(starts - (np.cumsum(counts) - counts), counts)]
        if query.recent_interactions is None:
            return rows, columns
        return np.append(rows, query.recent_interactions.users), np.append(columns, query.recent_interactions.items)

    def ranked(self, lists: NDArray[np.int64], n_candidates: int, items: Mask | None = None) -> Ranked:
        """Rank the eligible items of these lists.

        Parameters
        ----------
        lists : ndarray of int64, shape (n,)
            Numbers of the lists, increasing.
        n_candidates : int
            Length of the ranking.
        items : ndarray of bool, shape (n_items,), optional
            Rank only these items.

        Returns
        -------
        Ranked
            Shape (n, at most `n_candidates`).
        """
        if self.kept is not None and items is None:
            key = self.scene.name, int(self.query.users[0]), self.purchased
            rank = partial(self._ranked, lists, items=None)
            return self.kept.get(key, n_candidates, rank, self.catalogue.version)
        return self._ranked(lists, n_candidates, items)

    def _ranked(self, lists: NDArray[np.int64], n_candidates: int, items: Mask | None) -> Ranked:
        query = self.query if len(lists) == len(self.query) else self.query.take(lists)
        allowed = combine_masks(self.allowed, items)
        if self.similar_to is not None:
            return self._most_similar(query, n_candidates, allowed)
        exclude: list[NDArray[np.integer[Any]]] | None = [self.excluded] * len(query) if len(self.excluded) else None
        for rows, columns in self._own_items(query, lists):
            allowed, others = self._restrict_to_own(len(query), rows, columns, allowed)
            if others is not None:
                exclude = others if exclude is None else list(map(np.append, exclude, others))
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
            recent_auxiliary=query.recent_auxiliary,
        )

    def _own_items(
        self, query: Query, lists: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]]]:
        """Yield pairs of a row of the query and a column of an item; a list may contain only its items of each."""
        if self.purchased == "only":
            yield self.interacted(query)
        if self.candidates is not None:
            own = self.candidates[lists]
            yield np.repeat(np.arange(len(lists)), np.diff(own.indptr)), own.indices

    def _restrict_to_own(
        self, n: int, rows: NDArray[np.integer[Any]], columns: NDArray[np.integer[Any]], allowed: Mask | None
    ) -> tuple[Mask, list[NDArray[np.integer[Any]]] | None]:
        """Return the items of any of the n lists, and what to exclude from each; the lists have these items.

        Excluded are the items that only other lists have; None for a single list.
        """
        union = self.catalogue.mask_of(columns)
        allowed = union if allowed is None else allowed & union
        if n == 1:
            return allowed, None
        own = np.zeros((n, int(union.sum())), dtype=bool)
        own[rows, (np.cumsum(union) - 1)[columns]] = True
        row, position = np.nonzero(~own)
        others = np.flatnonzero(union)[position]
        return allowed, np.split(others, np.cumsum(np.bincount(row, minlength=n))[:-1])

    def _most_similar(self, query: Query, n_candidates: int, allowed: Mask | None) -> Ranked:
        """Rank the items by similarity to `similar_to`, shape (1, at most `n_candidates`)."""
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
class ResolvedRequest:
    """A request about one customer, resolved against the models in production.

    Attributes
    ----------
    user : ResolvedUser
        The customer.
    plan : RecommendationPlan
        Plan of the customer's list.
    unknown : list of str
        Item ids of the request that the model does not know.
    recent : RecentActivity or None
        What the request and the accepted events of the customer say about the time after the cutoff.
    """

    user: ResolvedUser
    plan: RecommendationPlan
    unknown: list[str]
    recent: RecentActivity | None


def resolve_request(
    champions: Champions,
    request: UserRequest,
    scene: Scene,
    context: RequestContext,
    *,
    candidates: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    options: ListOptions | None = None,
    now: datetime | None = None,
) -> ResolvedRequest:
    """Resolve the ids of a request about one customer and plan its list.

    Parameters
    ----------
    candidates : sequence of str, optional
        Item ids to rank, whether or not they are available. Without them, all items that pass `options` are ranked.
    exclude : sequence of str, optional
        Item ids to leave out. Context items are left out too.
    options : ListOptions, optional
        Filters, purchased option and re-ranking; not used with `candidates`.
    now : datetime, optional
        Current time, naive UTC; without it, no accepted event is read. Later ones are left out, unless the context has
        a moment, up to which they count.

    Raises
    ------
    InvalidRequest
        If the user id is ambiguous, the recommender has no model for the scene, or the context or an option is invalid.
    """
    user = resolve_user(champions, request)
    champion = champions.with_live_items(champion_for_scene(champions, scene))
    catalogue = champion.catalogue
    model = catalogue.model(scene.name)
    columns, unknown = catalogue.columns_of(exclude if candidates is None else candidates)
    accepted: Sequence[ItemEvent] = ()
    if now is not None:
        accepted = accepted_events(champions, champion, user, now if context.now is None else None)
    recent = recent_activity_of(champion, context, accepted)
    context_items, unknown_items = resolve_context_items(catalogue, scene, context.items)
    if unknown_items or (recent is not None and recent.unknown):
        unknown = list(dict.fromkeys([*unknown, *unknown_items, *(recent.unknown if recent is not None else ())]))
    query = Query(
        np.array([catalogue.user_row(user.one_id)], dtype=np.int64),
        [context.attributes or None],
        recent.interactions if recent is not None else None,
        recent.elapsed_days if recent is not None else 0.0,
        [context_items] if len(context_items) else None,
        recent.auxiliary if recent is not None else None,
    )
    similar_to = None if scene.needs_model or catalogue.trained(scene.name) else context_items
    plan = RecommendationPlan(champion, scene, model, query, similar_to=similar_to)
    if candidates is not None:
        plan = replace(plan, allowed=catalogue.mask_of(columns))
    elif options is not None:
        excluded = np.union1d(columns, context_items)
        says_more = options.filters or context.attributes or recent is not None or len(excluded)
        kept = None if says_more or similar_to is not None else champions.kept_lists
        plan = replace(plan, excluded=excluded, kept=kept).with_options(options)
    return ResolvedRequest(user, plan, unknown, recent)


def champion_for_scene(champions: Champions, scene: Scene) -> Champion:
    """Return the champion of the scene's job.

    If the job has no champion, that of `recommend` is returned, whose `Catalogue.model` explains that the scene has no
    model.

    Raises
    ------
    NotReady
        If `recommend` has no champion either.
    """
    return champions.models.get(scene.job) or champions.require(JOB)


def recent_activity_of(
    champion: Champion, context: RequestContext, accepted: Sequence[ItemEvent] = ()
) -> RecentActivity | None:
    """Return what the context and accepted events say about the time after the cutoff, None if they say nothing."""
    says_nothing = not context.events and context.now is None
    if says_nothing and not accepted:
        return None
    target, as_of = target_of(champion.bundle.facts), champion.bundle.as_of
    recent = recent_activity(champion.catalogue, as_of, target, context.events, context.now, accepted)
    return None if says_nothing and not recent.n_accepted else recent


def resolve_context_items(catalogue: Catalogue, scene: Scene, item_ids: Sequence[str]) -> tuple[Columns, list[str]]:
    """Return the columns of the context items, and the ids that the model does not know.

    Raises
    ------
    InvalidRequest
        If the scene does not use context items, or requires a known one and has none.
    """
    if item_ids and not scene.accepts_items:
        accepting = ", ".join(other.name for other in SCENES.values() if other.accepts_items)
        raise InvalidRequest(
            f"the scene {scene.name} does not use context items",
            field="context.items",
            allowed=f"with the scenes {accepting}",
        )
    context_items, unknown = catalogue.columns_of(item_ids)
    if not scene.needs_model and not len(context_items) and not catalogue.trained(scene.name):
        raise InvalidRequest(
            f"the scene {scene.name} requires a context item that the model knows",
            got=", ".join(item_ids[:5]) or "none",
            field="context.items",
            hint="name one in context.items",
        )
    return context_items, unknown
