"""The contract of every recommender: public methods check and map, hooks do the maths (after RecTools' `ModelBase`)."""

from __future__ import annotations

import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.interactions import Interactions, TrainingSet
from models.persist import Arrays, load_arrays, load_json, pack_csr, save_arrays, unpack_csr
from models.ranked import NOT_A_CANDIDATE, Ranked, top_k
from models.recommend.query import (
    Attributes,
    Barred,
    Indices,
    Query,
    at_pairs,
    best_of_rows,
    dense_scores,
    folded,
    row_indices,
    rows_of,
    top_k_rows,
    values_at,
)
from qianmian.errors import ArtifactError, InvalidRequest, UsageError
from qianmian.workspace import write_json

__all__ = [  # all that the file of a model needs
    "Attributes",
    "Barred",
    "Choice",
    "Indices",
    "Query",
    "Recommender",
    "Span",
    "at_pairs",
    "best_of_rows",
    "dense_scores",
    "fitted",
    "folded",
    "row_indices",
    "rows_of",
    "top_k_rows",
    "values_at",
]

BLOCK_CELLS = 8_000_000  # scores held at a time: 32 MB, never n_users × n_items
PADDING: tuple[float, ...] = (-1, float(NOT_A_CANDIDATE), -1)  # of ids, scores, source past the end of a list


@dataclass(frozen=True)
class Span:
    """Values a parameter may be searched over: numbers from `low` to `high`, whole ones where both are int.

    Attributes
    ----------
    log : bool
        Search the exponent.
    """

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Choice:
    """Values a parameter may be searched over, one by one."""

    values: tuple[str | float | bool | None, ...]


def fitted(model: Recommender, train: TrainingSet) -> Recommender:
    """A model fitted on these data: this one, or the one with the same parameters that was asked for earlier."""
    key = ("model", model.name, json.dumps(model.get_params(), sort_keys=True, default=str))
    return train.once(key, lambda: model.fit(train))


class Recommender(ABC):
    """Ranks items for users.

    Subclasses store their parameters in ``__init__`` and nothing else, and fill the hooks. Users and items are the indices
    of the `TrainingSet` they were fitted on; user −1 is nobody known.

    Attributes
    ----------
    name : str
        As in the registry; also the `source` of every item it ranks.
    supports_cold : bool
        Answers a user without history.
    supports_similar : bool
        Has `similar_items`.
    supports_fold_in : bool
        What a user did after the fit (`since`) changes the answer, and is enough for one.
    may_be_short : bool
        Ranks what it has evidence for, so a list may be short; the others rank every item.
    search_space : mapping of str to Span or Choice
        What `train recommend --tune` searches: parameters of the constructor.
    """

    name: ClassVar[str]
    supports_cold: ClassVar[bool] = False
    supports_similar: ClassVar[bool] = False
    supports_fold_in: ClassVar[bool] = False
    may_be_short: ClassVar[bool] = False
    search_space: ClassVar[Mapping[str, Span | Choice]] = {}

    n_users_: int
    n_items_: int
    history_: sparse.csr_matrix  # who had what, for `exclude_purchased`

    # ---- hooks ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def _fit(self, train: TrainingSet) -> None:
        """Learn; `n_users_`, `n_items_` and `history_` are set."""

    @abstractmethod
    def _scores(self, query: Query) -> NDArray[np.float32]:
        """A fresh (n, n_items) array; −inf for an item that is no candidate of that user. Asked for a block of users at a time."""

    def _best(self, query: Query, k: int, barred: Barred) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The k best items of each user and their scores, (n, ≤ k), −inf past the end; where that needs no dense scores, say so here."""
        return top_k(barred.apply(self._scores(query)), k)

    def _scores_at(self, query: Query, ids: Indices) -> NDArray[np.float32]:
        """The scores of given items (n, m); −inf for the id −1 and for what is no candidate."""
        scores = np.take_along_axis(self._scores(query), np.maximum(ids, 0), axis=1)
        return np.where(ids >= 0, scores, NOT_A_CANDIDATE).astype(np.float32)

    @abstractmethod
    def _state(self) -> Arrays:
        """Fitted arrays."""

    @abstractmethod
    def _restore(self, state: Arrays) -> None:
        """The inverse of `_state`."""

    def _similarity(self, item: int) -> NDArray[np.float32]:
        """How alike each item is to one, a fresh (n_items,) array, −inf for no candidate; only where `supports_similar`."""
        vectors = self._item_vectors()
        norms = np.linalg.norm(vectors, axis=1)
        scores = (vectors @ vectors[item]) / np.maximum(norms * norms[item], np.float32(1e-12))
        return np.where(norms > 0, scores, NOT_A_CANDIDATE).astype(np.float32)

    def _item_vectors(self) -> NDArray[np.float32]:
        """(n_items, d) vectors whose cosine is the similarity; only where `supports_similar`."""
        raise UsageError(f"{self.name} knows no similar items")

    # ---- public --------------------------------------------------------------------------------------------------

    def get_params(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            name: getattr(self, name) for name in inspect.signature(type(self).__init__).parameters if name != "self"
        }

    def fit(self, train: TrainingSet) -> Self:
        """Learn from `train`, forgetting earlier fits."""
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)
        self.n_users_, self.n_items_ = train.n_users, train.n_items
        history = train.interactions.matrix()
        history.data = np.ones_like(history.data)
        self.history_ = history
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
        attributes: Sequence[Attributes | None] | None = None,
        since: Interactions | None = None,
        later_days: float = 0.0,
        items: Sequence[Indices] | None = None,
    ) -> Ranked:
        """The k best items of each user.

        Parameters
        ----------
        users : int array, (n,)
            Indices; −1 for somebody unknown.
        k : int
            ≥ 1; may exceed the number of items (rows are then padded with −1).
        allowed : bool array, (n_items,), optional
            Only these items.
        exclude : sequence of int arrays, (n,), optional
            Items to leave out, per user.
        exclude_purchased : bool
            Leave out what the user had before.
        attributes : sequence of mapping or None, (n,), optional
            Profile attributes of a user the model may not know (`{"age_band": "25-34"}`).
        since : Interactions, optional
            What these users did after the fit (see `Query`). A model that `supports_fold_in` answers from it; what was had counts as had.
        later_days : float
            From the `as_of` of the fit to now, days ≥ 0.
        items : sequence of int arrays, (n,), optional
            What the answer should go with, per user.

        Returns
        -------
        Ranked
            Filters are applied before the cut: a list that can be full is full.

        Raises
        ------
        InvalidRequest
            k < 1, a user or an item outside the training set, or an argument of the wrong length.
        """
        query = Query(self._check_users(users), attributes, since, later_days, items)
        n = len(query)
        if k < 1:
            raise InvalidRequest("k must be at least 1", got=k, field="num_results")
        if allowed is not None and allowed.shape != (self.n_items_,):
            raise InvalidRequest("`allowed` needs one entry an item", got=allowed.shape, allowed=(self.n_items_,))
        for name, given in (("exclude", exclude), ("attributes", attributes), ("items", items)):
            if given is not None and len(given) != n:
                raise InvalidRequest(f"`{name}` needs one entry a user", got=len(given), allowed=n)
        if since is not None and since.shape != (n, self.n_items_):
            raise InvalidRequest("`since` is of other users or items", got=since.shape, allowed=(n, self.n_items_))
        for given in (exclude, items):
            if given:
                self._check_items(np.concatenate(given))
        barred = Barred(allowed, self._excluded(query, exclude, exclude_purchased))
        block = max(1, BLOCK_CELLS // max(1, self._cells_a_user(k)))
        parts = []
        for start in range(0, n, block) or (0,):
            if n <= block:
                parts.append(self._rank_block(query, min(k, self.n_items_), barred))
                break
            rows = np.arange(start, min(start + block, n))
            parts.append(self._rank_block(query.take(rows), min(k, self.n_items_), barred.take(rows)))
        width = max(part[0].shape[1] for part in parts)
        ids, scores, source = (
            np.concatenate([_widened(part[i], width, fill) for part in parts]) for i, fill in enumerate(PADDING)
        )
        return Ranked.of(ids, scores, source, k, self.sources)

    def rank(self, user: int, items: Indices, *, attributes: Attributes | None = None, **given: Any) -> Ranked:
        """The given items, best first for that user; (1, len(items)). What else is `given` goes to `recommend`."""
        self._check_items(items)
        allowed = np.zeros(self.n_items_, dtype=bool)
        allowed[items] = True
        return self.recommend([user], max(1, len(items)), allowed=allowed, attributes=[attributes], **given)

    def similar_items(self, item: int, k: int, *, allowed: NDArray[np.bool_] | None = None) -> Ranked:
        """The k items most like `item`, itself left out, of those `allowed`; (1, k)."""
        self._check_items([item])
        if k < 1:
            raise InvalidRequest("k must be at least 1", got=k, field="num_results")
        scores = self._similarity(item)
        scores[item] = NOT_A_CANDIDATE
        ids, values = top_k(Barred(allowed).apply(scores[None, :]), k)
        return Ranked.of(ids, values, np.zeros(ids.shape, dtype=np.int8), k, (self.name,))

    def save(self, folder: Path) -> None:
        """Write parameters and fitted arrays into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(
            folder / "params.json",
            {"name": self.name, "params": self.get_params(), "n_users": self.n_users_, "n_items": self.n_items_},
        )
        save_arrays(folder / "state.npz", {**self._state(), **pack_csr("history", self.history_)})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The inverse of `save`."""
        described = load_json(folder / "params.json")
        if described.get("name") != cls.name:
            raise ArtifactError(
                "the folder holds another model", where=str(folder), got=described.get("name"), allowed=cls.name
            )
        model = cls(**described["params"])
        state = load_arrays(folder / "state.npz")
        model.n_users_, model.n_items_ = described["n_users"], described["n_items"]
        model.history_ = unpack_csr("history", state)
        model._restore(state)
        return model

    # ---- shared --------------------------------------------------------------------------------------------------

    def _check_users(self, users: NDArray[np.integer[Any]] | Sequence[int]) -> NDArray[np.int64]:
        wanted = np.asarray(users, dtype=np.int64).reshape(-1)
        if len(wanted) and (wanted.min() < -1 or wanted.max() >= self.n_users_):
            raise InvalidRequest(
                "a user index is outside the training set",
                got=[int(wanted.min()), int(wanted.max())],
                allowed=f"-1..{self.n_users_ - 1}",
            )
        return wanted

    def _check_items(self, items: NDArray[np.integer[Any]] | Sequence[int]) -> None:
        # an index of −1 would otherwise mean the last item
        given = np.asarray(items)
        if len(given) and (given.min() < 0 or given.max() >= self.n_items_):
            raise InvalidRequest(
                "an item index is outside the training set",
                got=[int(given.min()), int(given.max())],
                allowed=f"0..{self.n_items_ - 1}",
            )

    def _excluded(
        self, query: Query, exclude: Sequence[Indices] | None, exclude_purchased: bool
    ) -> sparse.csr_matrix | None:
        shape = (len(query), self.n_items_)
        parts = []
        if exclude is not None and (lengths := [len(items) for items in exclude]) and sum(lengths):
            columns = np.concatenate(exclude)
            parts.append(
                sparse.csr_matrix(
                    (np.ones(len(columns), np.float32), (np.repeat(np.arange(len(query)), lengths), columns)),
                    shape=shape,
                )
            )
        if exclude_purchased:
            parts.append(folded(self.history_, query, None))
        if not parts:
            return None
        both = parts[0] if len(parts) == 1 else (parts[0] + parts[1]).tocsr()
        both.sort_indices()
        return both

    def _cells_a_user(self, k: int) -> int:
        """How many numbers are held at a time for one user of a call: dense scores, unless a model does with fewer."""
        return self.n_items_

    def _rank_block(
        self, query: Query, k: int, barred: Barred
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int8]]:
        ids, scores = self._best(query, k, barred)
        return ids, scores, np.zeros(ids.shape, dtype=np.int8)

    @property
    def sources(self) -> tuple[str, ...]:
        """What an item's source may be; `_rank_block` gives indices into it."""
        return (self.name,)

    def _has_history(self, query: Query) -> NDArray[np.bool_]:
        """Who did something, before the fit or (where the model folds it in) since, (n,)."""
        users = query.users
        had = np.zeros(len(users), dtype=bool)
        if self.n_users_:
            had = (users >= 0) & (np.diff(self.history_.indptr)[np.maximum(users, 0)] > 0)
        if self.supports_fold_in and query.since is not None:
            had[query.since.users] = True
        return had


def _widened(part: NDArray[Any], width: int, fill: float) -> NDArray[Any]:
    missing = width - part.shape[1]
    return np.pad(part, ((0, 0), (0, missing)), constant_values=fill) if missing else part
