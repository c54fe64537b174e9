"""The contract of every recommender: public methods validate, hooks compute (design after RecTools' `ModelBase`)."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.interactions import Interactions, TrainingSet
from models.persist import Arrays, UserArrays, load_arrays, load_json, pack_csr, save_arrays, unpack_csr
from models.ranked import NOT_A_CANDIDATE, Ranked, top_k
from models.recommend.cost import FitCost
from models.recommend.evidence import Evidence
from models.recommend.planned import ReadsPromotions
from models.recommend.query import (
    Indices,
    ItemFilter,
    Query,
    UserAttributes,
    check_indices,
    dense_scores,
    entry_positions,
    exclusion_matrix,
    fold_in,
    has_entries,
    row_indices,
    rows_of,
    top_k_rows,
    top_k_sparse,
    values_at,
)
from models.search_space import Choice, Range
from models.user_arrays import UserMatrix
from qianmian.errors import ArtifactError, InvalidRequest, UsageError
from qianmian.workspace import write_json

__all__ = [  # everything that the module of a model needs
    "Choice",
    "Evidence",
    "Indices",
    "ItemFilter",
    "Query",
    "Range",
    "Recommender",
    "UserAttributes",
    "dense_scores",
    "entry_positions",
    "fold_in",
    "has_entries",
    "row_indices",
    "rows_of",
    "top_k_rows",
    "top_k_sparse",
    "values_at",
]

BLOCK_CELLS = 8_000_000  # scores held in memory at a time: 32 MB, independent of n_users × n_items


class Recommender(FitCost, ReadsPromotions, ABC):
    """Abstract base class of the recommenders, which rank items for users.

    The ``__init__`` of a subclass stores its parameters and nothing else; the subclass implements the hooks. Users and
    items are indices into the `TrainingSet` of the fit; user −1 is an unknown user.

    Class flags declare what a model can do beyond ranking, so that callers never probe it. A subclass that sets
    `supports_item_vectors` overrides `item_vectors`, and so on; for `evidence` and `similar_items` it overrides the
    hooks. Where a flag is not set, the method raises `UsageError`.

    Attributes
    ----------
    name : str
        Key in the registry; also the `source` of every item that the model ranks.
    supports_cold : bool
        The model ranks items for a user without history.
    supports_fold_in : bool
        Interactions after the fit (`recent_interactions`) change the list, and suffice to rank for a new user.
    returns_partial_lists : bool
        The model ranks only items that it has evidence for, so a list may be short. Other models rank every item.
    needs_several_types : bool
        The model is made for interactions of several types; where there is only one, simpler models do the same.
    supports_similar, supports_item_vectors, supports_evidence, supports_purchase_counts, supports_expected_days,
    supports_score_unseen, supports_similar_to : bool
        The model implements `similar_items`, `item_vectors`, `evidence`, `purchase_counts`, `expected_days` and
        `expected_days_now`, `score_unseen`, `similar_to`.
    supports_purchase_evidence : bool
        The facts of `evidence` include the customer's own purchases of the item, which hold whichever model ranked it.
    search_space : mapping of str to Range or Choice
        Constructor parameters that `train recommend --tune` searches, and their values.
    """

    name: ClassVar[str]
    supports_cold: ClassVar[bool] = False
    supports_fold_in: ClassVar[bool] = False
    returns_partial_lists: ClassVar[bool] = False
    needs_several_types: ClassVar[bool] = False
    supports_similar: ClassVar[bool] = False
    supports_item_vectors: ClassVar[bool] = False
    supports_evidence: ClassVar[bool] = False
    supports_purchase_evidence: ClassVar[bool] = False
    supports_purchase_counts: ClassVar[bool] = False
    supports_expected_days: ClassVar[bool] = False
    supports_score_unseen: ClassVar[bool] = False
    supports_similar_to: ClassVar[bool] = False
    user_arrays: ClassVar[tuple[UserArrays, ...]] = (UserMatrix("history"),)  # a subclass adds its own
    search_space: ClassVar[Mapping[str, Range | Choice]] = {}

    n_users_: int
    n_items_: int
    history_: sparse.csr_matrix  # 0/1 interactions of the fit, (n_users, n_items), for `exclude_purchased`

    # ---- hooks ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def _fit(self, train: TrainingSet) -> None:
        """Learn from `train`; `n_users_`, `n_items_` and `history_` are already set."""

    @abstractmethod
    def _scores(self, query: Query) -> NDArray[np.float32]:
        """Score all items for a block of users in a new array, (n, n_items); −inf for items that are not candidates."""

    def _top_k(self, query: Query, k: int, item_filter: ItemFilter) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Return the k best items of each user and their scores, each (n, ≤ k); scores past the end of a list are −inf.

        A model that ranks without dense scores overrides this method.
        """
        return top_k(item_filter.apply(self._scores(query)), k)

    def _score_items(self, query: Query, ids: Indices) -> NDArray[np.float32]:
        """Return the scores of given items, (n, m); −inf for the id −1 and for items that are not candidates."""
        scores = np.take_along_axis(self._scores(query), np.maximum(ids, 0), axis=1)
        return np.where(ids >= 0, scores, NOT_A_CANDIDATE).astype(np.float32)

    @abstractmethod
    def _state(self) -> Arrays:
        """Return the fitted arrays by name."""

    @abstractmethod
    def _restore(self, state: Arrays) -> None:
        """Set the fitted attributes from the arrays of `_state`."""

    def _similarity(self, item: int) -> NDArray[np.float32]:
        """Return the similarity of every item to `item` in a new array, (n_items,); −inf for items without one.

        The default is the cosine of `item_vectors`.
        """
        vectors = self.item_vectors()
        norms = np.linalg.norm(vectors, axis=1)
        scores = (vectors @ vectors[item]) / np.maximum(norms * norms[item], np.float32(1e-12))
        return np.where(norms > 0, scores, NOT_A_CANDIDATE).astype(np.float32)

    def _evidence(self, query: Query, item: int) -> Evidence | None:
        """Return what is known about the only user of a query and an item; called only where `supports_evidence`."""
        raise NotImplementedError

    # ---- public --------------------------------------------------------------------------------------------------

    def get_params(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def fit(self, train: TrainingSet) -> Self:
        """Fit the model on `train`; the state of earlier fits is dropped."""
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)
        self.n_users_, self.n_items_ = train.n_users, train.n_items
        # shared by all models of a training set: of a large shop, it is most of what some of them hold
        self.history_ = train.memoize("history", lambda: train.interactions.matrix().sign())
        self._fit(train)
        return self

    def recommend(
        self,
        users: NDArray[np.integer[Any]] | Sequence[int],
        k: int,
        *,
        allowed: NDArray[np.bool_] | None = None,
        exclude: Sequence[NDArray[np.integer[Any]]] | None = None,
        exclude_purchased: bool = False,
        attributes: Sequence[UserAttributes | None] | None = None,
        recent_interactions: Interactions | None = None,
        elapsed_days: float = 0.0,
        items: Sequence[Indices] | None = None,
        recent_auxiliary: Interactions | None = None,
    ) -> Ranked:
        """Rank the k best items of each user.

        Parameters
        ----------
        users : int array, (n,)
            User indices; −1 is an unknown user.
        k : int
            Length of the lists, ≥ 1. It may exceed the number of items; rows are padded with −1.
        allowed : bool array, (n_items,), optional
            Items that may be ranked; all by default.
        exclude : sequence of int arrays, (n,), optional
            Items to leave out of the list of each user.
        exclude_purchased : bool
            Leave out the items that the user has interacted with, including those of `recent_interactions`.
        attributes : sequence of mapping or None, (n,), optional
            Profile attributes of users that the model may not know (`{"age_band": "25-34"}`).
        recent_interactions : Interactions, optional
            Interactions of these users after the fit (see `Query`). A model that `supports_fold_in` uses them.
        elapsed_days : float
            Days from the `as_of` of the fit to now, ≥ 0.
        items : sequence of int arrays, (n,), optional
            Context items of each user, which the list should go with, such as the basket.
        recent_auxiliary : Interactions, optional
            Interactions of other types than the target after the fit; `exclude_purchased` does not leave them out.

        Returns
        -------
        Ranked
            Lists of length k. Filters are applied before top-k, so a list is short only if too few candidates pass.

        Raises
        ------
        InvalidRequest
            k < 1, a user or an item is outside the training set, or an argument has the wrong length.
        """
        given_users = self._check_users(users)
        query = Query(given_users, attributes, recent_interactions, elapsed_days, items, recent_auxiliary)
        n = len(query)
        if k < 1:
            raise InvalidRequest("k must be at least 1", got=k, field="num_results")
        if allowed is not None and allowed.shape != (self.n_items_,):
            raise InvalidRequest("`allowed` needs one entry per item", got=allowed.shape, allowed=(self.n_items_,))
        for name, given in (("exclude", exclude), ("attributes", attributes), ("items", items)):
            if given is not None and len(given) != n:
                raise InvalidRequest(f"`{name}` needs one entry per user", got=len(given), allowed=n)
        query.check_recent(self.n_items_)
        for given in (exclude, items):
            if given:
                self._check_items(np.concatenate(given))
        history = self.history_ if exclude_purchased else None
        item_filter = ItemFilter(allowed, exclusion_matrix(query, self.n_items_, exclude, history))
        block = max(1, BLOCK_CELLS // max(1, self._cells_per_user(k)))
        blocks = []
        for start in range(0, n, block) or (0,):
            rows = np.arange(start, min(start + block, n))
            part, left = (query, item_filter) if n <= block else (query.take(rows), item_filter.take(rows))
            blocks.append(Ranked.of(*self._rank_block(part, min(k, self.n_items_), left), k, self.sources))
        return Ranked.concatenate(blocks)

    def rank(self, user: int, items: Indices, *, attributes: UserAttributes | None = None, **given: Any) -> Ranked:
        """Rank the given items for one user, (1, len(items)); further keyword arguments are passed to `recommend`."""
        self._check_items(items)
        allowed = np.zeros(self.n_items_, dtype=bool)
        allowed[items] = True
        return self.recommend([user], max(1, len(items)), allowed=allowed, attributes=[attributes], **given)

    def similar_items(self, item: int, k: int, *, allowed: NDArray[np.bool_] | None = None) -> Ranked:
        """Rank the k items most similar to `item` among those `allowed`, without `item` itself, (1, k)."""
        if not self.supports_similar:
            raise self._unsupported("similar_items")
        self._check_items([item])
        if k < 1:
            raise InvalidRequest("k must be at least 1", got=k, field="num_results")
        scores = self._similarity(item)
        scores[item] = NOT_A_CANDIDATE
        ids, values = top_k(ItemFilter(allowed).apply(scores[None, :]), k)
        return Ranked.of(ids, values, np.zeros(ids.shape, dtype=np.int8), k, (self.name,))

    def save(self, folder: Path) -> None:
        """Write the parameters and the fitted arrays into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        shape = {"n_users": self.n_users_, "n_items": self.n_items_}
        write_json(folder / "params.json", {"name": self.name, "params": self.get_params(), **shape})
        save_arrays(folder / "state.npz", {**self._state(), **pack_csr("history", self.history_)})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a model that `save` wrote; raise `ArtifactError` if the folder holds another model or is damaged."""
        described = load_json(folder / "params.json")
        if (name := described.get("name")) != cls.name:
            raise ArtifactError("the folder holds another model", where=str(folder), got=name, allowed=cls.name)
        model, state = cls(**described["params"]), load_arrays(folder / "state.npz")
        model.n_users_, model.n_items_ = described["n_users"], described["n_items"]
        model.history_ = unpack_csr("history", state)
        model._restore(state)
        return model

    # ---- capabilities --------------------------------------------------------------------------------------------

    @property
    def submodels(self) -> tuple[Recommender, ...]:
        """The fitted models that this model is composed of."""
        return ()

    def with_submodels(self) -> Iterator[Recommender]:
        """Iterate over this model and then, recursively, over its submodels."""
        yield self
        for part in self.submodels:
            yield from part.with_submodels()

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """The values of profile attributes that the model uses, as ``attribute=value``."""
        return ()

    @property
    def auxiliary_types(self) -> tuple[str, ...]:
        """The types of interaction beside the target that the fitted model and its submodels learnt from."""
        return tuple(dict.fromkeys(name for part in self.submodels for name in part.auxiliary_types))

    def item_vectors(self) -> NDArray[np.float32]:
        """Return item vectors, (n_items, d); similar items have a high cosine."""
        raise self._unsupported("item_vectors")

    def evidence(
        self,
        user: int,
        item: int,
        *,
        recent_interactions: Interactions | None = None,
        elapsed_days: float = 0.0,
        items: Indices | None = None,
    ) -> Evidence | None:
        """Return what the model knows about a user and an item, or None; keyword arguments are as in `recommend`."""
        if not self.supports_evidence:
            raise self._unsupported("evidence")
        if not (-1 <= user < self.n_users_ and 0 <= item < self.n_items_):  # called for every item of a list
            self._check_users([user])
            self._check_items([item])
        users = np.array([user], dtype=np.int64)
        query = Query(users, None, recent_interactions, elapsed_days, None if items is None else [items])
        return self._evidence(query, item)

    def purchase_counts(self, user: int) -> tuple[Indices, Indices]:
        """Return the items that a user interacted with before the fit, in ascending order, and their counts, (m,)."""
        raise self._unsupported("purchase_counts")

    def expected_days(self, users: Indices, items: Indices, within_days: float | None = None) -> NDArray[np.float64]:
        """Predict when each of m users will buy an item again.

        With `within_days`, the expectation is conditional on a purchase within this many days. The result, float64 of
        shape (m,), is in days from the `as_of` of the fit, > 0; NaN where unknown.
        """
        raise self._unsupported("expected_days")

    def expected_days_now(self, query: Query, rows: Indices, items: Indices) -> NDArray[np.float64]:
        """As `expected_days`, for rows of a query, knowing what its users have bought and how long they have not."""
        raise self._unsupported("expected_days_now")

    def score_unseen(
        self,
        user: int,
        described: Sequence[Mapping[str, Any]],
        *,
        recent_interactions: Interactions | None = None,
        elapsed_days: float = 0.0,
    ) -> NDArray[np.float32]:
        """Score new items for a user from the item attributes, (m,); the scores are comparable with one another."""
        raise self._unsupported("score_unseen")

    def similar_to(self, attributes: Mapping[str, Any], k: int, *, allowed: NDArray[np.bool_] | None = None) -> Ranked:
        """Rank the k items most similar to a new item, which is described by its attributes, (1, k)."""
        raise self._unsupported("similar_to")

    def _unsupported(self, method: str) -> UsageError:
        return UsageError(f"recommender '{self.name}' does not support {method}", hint="see its `supports_` flags")

    # ---- shared --------------------------------------------------------------------------------------------------

    def _check_users(self, users: NDArray[np.integer[Any]] | Sequence[int]) -> NDArray[np.int64]:
        wanted = np.asarray(users, dtype=np.int64).reshape(-1)
        check_indices("a user", wanted, -1, self.n_users_)
        return wanted

    def _check_items(self, items: NDArray[np.integer[Any]] | Sequence[int]) -> None:
        check_indices("an item", np.asarray(items), 0, self.n_items_)  # −1 would otherwise be the last item

    def _cells_per_user(self, k: int) -> int:
        """Return how many numbers one user of a call needs in memory: one per item, unless a model needs fewer."""
        return self.n_items_

    def _rank_block(
        self, query: Query, k: int, item_filter: ItemFilter
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int8]]:
        ids, scores = self._top_k(query, k, item_filter)
        return ids, scores, np.zeros(ids.shape, dtype=np.int8)

    @property
    def sources(self) -> tuple[str, ...]:
        """The possible sources of an item; `_rank_block` returns indices into this tuple."""
        return (self.name,)

    def _has_history(self, query: Query) -> NDArray[np.bool_]:
        """Return which users have history, before the fit or, if the model folds it in, after it; bool, (n,)."""
        interacted = has_entries(self.history_, query.users)
        for recent in (query.recent_interactions, query.recent_auxiliary if self.auxiliary_types else None):
            if self.supports_fold_in and recent is not None:
                interacted[recent.users] = True
        return interacted
