"""The contract of every recommender: public methods check and map, hooks do the maths (after RecTools' `ModelBase`)."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.dataset import TrainingSet
from models.persist import Arrays, load_arrays, load_json, pack_csr, save_arrays, unpack_csr
from models.ranked import NOT_A_CANDIDATE, Ranked, top_k
from qianmian.errors import ArtifactError, InvalidRequest, UsageError
from qianmian.workspace import write_json

BLOCK_CELLS = 8_000_000  # scores held at a time: 32 MB, never n_users × n_items
Attributes = Mapping[str, str]


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
    """

    name: ClassVar[str]
    supports_cold: ClassVar[bool] = False
    supports_similar: ClassVar[bool] = False

    n_users_: int
    n_items_: int
    history_: sparse.csr_matrix  # who had what, for `exclude_purchased`

    # ---- hooks ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def _fit(self, train: TrainingSet) -> None:
        """Learn; `n_users_`, `n_items_` and `history_` are set."""

    @abstractmethod
    def _scores(self, users: NDArray[np.int64], attributes: Sequence[Attributes | None] | None) -> NDArray[np.float32]:
        """A fresh (len(users), n_items) array; −inf for an item that is no candidate of that user."""

    @abstractmethod
    def _state(self) -> Arrays:
        """Fitted arrays."""

    @abstractmethod
    def _restore(self, state: Arrays) -> None:
        """The inverse of `_state`."""

    def _item_vectors(self) -> NDArray[np.float32]:
        """(n_items, d) vectors whose cosine is the similarity; only where `supports_similar`."""
        raise UsageError(f"{self.name} knows no similar items")

    # ---- public --------------------------------------------------------------------------------------------------

    def get_params(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {name: getattr(self, name) for name in inspect.signature(type(self).__init__).parameters if name != "self"}

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

        Returns
        -------
        Ranked
            Filters are applied before the cut: a list that can be full is full.

        Raises
        ------
        InvalidRequest
            k < 1, a user or an item outside the training set, or a filter of the wrong length.
        """
        wanted = self._check_users(users)
        if k < 1:
            raise InvalidRequest("k must be at least 1", got=k, field="num_results")
        if allowed is not None and allowed.shape != (self.n_items_,):
            raise InvalidRequest("`allowed` needs one entry an item", got=allowed.shape, allowed=(self.n_items_,))
        for name, given in (("exclude", exclude), ("attributes", attributes)):
            if given is not None and len(given) != len(wanted):
                raise InvalidRequest(f"`{name}` needs one entry a user", got=len(given), allowed=len(wanted))
        if exclude:
            self._check_items(np.concatenate(exclude))
        block = max(1, BLOCK_CELLS // max(1, self.n_items_))
        parts = []
        for start in range(0, len(wanted), block) or (0,):
            rows = slice(start, start + block)
            parts.append(self._rank_block(
                wanted[rows], min(k, self.n_items_), allowed, exclude[rows] if exclude is not None else None,
                exclude_purchased, attributes[rows] if attributes is not None else None,
            ))  # fmt: skip
        ids, scores, source = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        ranked = Ranked.of(ids, scores, k, self.name)
        return self._name_sources(ranked, source)

    def rank(self, user: int, items: NDArray[np.integer[Any]], *, attributes: Attributes | None = None) -> Ranked:
        """The given items, best first for that user; (1, len(items))."""
        self._check_items(items)
        allowed = np.zeros(self.n_items_, dtype=bool)
        allowed[items] = True
        return self.recommend([user], max(1, len(items)), allowed=allowed, attributes=[attributes])

    def similar_items(self, item: int, k: int) -> Ranked:
        """The k items most like `item` by cosine, itself left out; (1, k)."""
        self._check_items([item])
        if k < 1:
            raise InvalidRequest("k must be at least 1", got=k, field="num_results")
        vectors = self._item_vectors()
        norms = np.linalg.norm(vectors, axis=1)
        scores = (vectors @ vectors[item]) / np.maximum(norms * norms[item], np.float32(1e-12))
        scores = np.where(norms > 0, scores, NOT_A_CANDIDATE).astype(np.float32)
        scores[item] = NOT_A_CANDIDATE
        return Ranked.of(*top_k(scores[None, :], k), k, self.name)

    def save(self, folder: Path) -> None:
        """Write parameters and fitted arrays into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(
            folder / "params.json", {"name": self.name, "params": self.get_params(), "n_users": self.n_users_, "n_items": self.n_items_}
        )
        save_arrays(folder / "state.npz", {**self._state(), **pack_csr("history", self.history_)})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The inverse of `save`."""
        described = load_json(folder / "params.json")
        if described.get("name") != cls.name:
            raise ArtifactError("the folder holds another model", where=str(folder), got=described.get("name"), allowed=cls.name)
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
                "a user index is outside the training set", got=[int(wanted.min()), int(wanted.max())], allowed=f"-1..{self.n_users_ - 1}"
            )
        return wanted

    def _check_items(self, items: NDArray[np.integer[Any]] | Sequence[int]) -> None:
        # an index of −1 would otherwise mean the last item
        given = np.asarray(items)
        if len(given) and (given.min() < 0 or given.max() >= self.n_items_):
            raise InvalidRequest(
                "an item index is outside the training set", got=[int(given.min()), int(given.max())], allowed=f"0..{self.n_items_ - 1}"
            )

    def _masked(
        self, users: NDArray[np.int64], allowed: NDArray[np.bool_] | None, exclude: Sequence[NDArray[np.integer[Any]]] | None,
        exclude_purchased: bool, attributes: Sequence[Attributes | None] | None,
    ) -> NDArray[np.float32]:  # fmt: skip
        scores = self._scores(users, attributes)
        if allowed is not None:
            scores[:, ~allowed] = NOT_A_CANDIDATE
        if exclude is not None:
            lengths = [len(items) for items in exclude]
            if sum(lengths):
                scores[np.repeat(np.arange(len(users)), lengths), np.concatenate(exclude)] = NOT_A_CANDIDATE
        if exclude_purchased:
            known = np.flatnonzero(users >= 0)
            had = self.history_[users[known]].tocoo()
            scores[known[had.row], had.col] = NOT_A_CANDIDATE
        return scores

    def _rank_block(
        self, users: NDArray[np.int64], k: int, allowed: NDArray[np.bool_] | None, exclude: Sequence[NDArray[np.integer[Any]]] | None,
        exclude_purchased: bool, attributes: Sequence[Attributes | None] | None,
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int8]]:  # fmt: skip
        ids, scores = top_k(self._masked(users, allowed, exclude, exclude_purchased, attributes), k)
        return ids, scores, np.zeros(ids.shape, dtype=np.int8)

    def _name_sources(self, ranked: Ranked, source: NDArray[np.int8]) -> Ranked:
        return ranked

    def _has_history(self, users: NDArray[np.int64]) -> NDArray[np.bool_]:
        counts = np.diff(self.history_.indptr)
        return np.where(users >= 0, counts[np.maximum(users, 0)] > 0, False) if self.n_users_ else np.zeros(len(users), dtype=bool)
