"""The contract of every recommender: public methods check and map, hooks do the maths (after RecTools' `ModelBase`)."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.dataset import Interactions, TrainingSet
from models.persist import Arrays, load_arrays, load_json, pack_csr, save_arrays, unpack_csr
from models.ranked import NOT_A_CANDIDATE, Ranked, top_k
from qianmian.errors import ArtifactError, InvalidRequest, UsageError
from qianmian.workspace import write_json

BLOCK_CELLS = 8_000_000  # scores held at a time: 32 MB, never n_users × n_items
Attributes = Mapping[str, str]
Indices = NDArray[np.integer[Any]]
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


@dataclass(frozen=True)
class Query:
    """Who is asked about, and what is known beyond the fit.

    Attributes
    ----------
    users : ndarray of int64, (n,)
        Indices; −1 for somebody unknown.
    attributes : sequence of mapping or None, (n,), optional
        Profile attributes given with the call.
    since : Interactions, optional
        What these users did after the fit: its `users` are rows of this query, its ages count back from now.
    later_days : float
        From the `as_of` of the fit to now.
    items : sequence of int arrays, (n,), optional
        What the answer should go with: the basket so far, or a given item.
    """

    users: NDArray[np.int64]
    attributes: Sequence[Attributes | None] | None = None
    since: Interactions | None = None
    later_days: float = 0.0
    items: Sequence[Indices] | None = None

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: NDArray[np.int64]) -> Query:
        """The query of these rows only."""
        since = self.since
        if since is not None:
            place = np.full(len(self), -1, dtype=np.int32)
            place[rows] = np.arange(len(rows), dtype=np.int32)
            since = since.where(place[since.users] >= 0)
            since = replace(since, users=place[since.users], shape=(len(rows), since.shape[1]))
        picked = rows.tolist()
        return Query(
            self.users[rows], None if self.attributes is None else [self.attributes[row] for row in picked], since, self.later_days,
            None if self.items is None else [self.items[row] for row in picked],
        )  # fmt: skip


@dataclass(frozen=True)
class Barred:
    """What may not be shown.

    Attributes
    ----------
    allowed : ndarray of bool, (n_items,), or None
        Only these; None for all.
    excluded : csr_matrix, (n, n_items), or None
        Not these, per row of the query; sorted indices.
    """

    allowed: NDArray[np.bool_] | None = None
    excluded: sparse.csr_matrix | None = None

    def apply(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Write −inf over what is barred in dense scores (n, n_items), in place."""
        if self.allowed is not None:
            scores[:, ~self.allowed] = NOT_A_CANDIDATE
        if self.excluded is not None:
            rows = np.repeat(np.arange(len(scores)), np.diff(self.excluded.indptr))
            scores[rows, self.excluded.indices] = NOT_A_CANDIDATE
        return scores

    def at(self, ids: Indices) -> NDArray[np.bool_]:
        """Which of the items (n, m) are barred; −1 is."""
        barred = ids < 0
        if self.allowed is not None:
            barred |= ~self.allowed[ids]
        if self.excluded is not None:
            barred |= at_pairs(self.excluded, ids) >= 0
        return barred

    def without(self, ids: Indices, n_items: int) -> Barred:
        """These items (n, m) barred too; −1 for none."""
        rows, places = np.nonzero(ids >= 0)
        more = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, ids[rows, places])), shape=(len(ids), n_items))
        both = more if self.excluded is None else (self.excluded + more).tocsr()
        both.sort_indices()
        return Barred(self.allowed, both)

    def take(self, rows: NDArray[np.int64]) -> Barred:
        """The same for these rows only."""
        return Barred(self.allowed, None if self.excluded is None else self.excluded[rows])


def at_pairs(matrix: sparse.csr_matrix, ids: Indices) -> NDArray[np.int64]:
    """Where in `matrix.data` each (row, id) stands, −1 where it does not; ids is (n, m), a row of it a row of the matrix.

    The matrix must have sorted indices and no double entries.

    Examples
    --------
    >>> at_pairs(sparse.csr_matrix([[0, 5, 7]]), np.array([[2, 0, 1, -1]])).tolist()
    [[1, -1, 0, -1]]
    """
    n_items = matrix.shape[1]
    if not matrix.nnz:
        return np.full(ids.shape, -1, dtype=np.int64)
    rows = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))
    held = rows * n_items + matrix.indices
    wanted = np.arange(len(ids), dtype=np.int64)[:, None] * n_items + ids
    place = np.minimum(np.searchsorted(held, wanted), len(held) - 1)
    return np.where((held[place] == wanted) & (ids >= 0), place, -1)


def values_at(matrix: sparse.csr_matrix, ids: Indices) -> NDArray[np.float32]:
    """The entries of a sparse matrix at (n, m) column ids, −inf where there is none; see `at_pairs`."""
    place = at_pairs(matrix, ids)
    if not matrix.nnz:
        return np.full(ids.shape, NOT_A_CANDIDATE, dtype=np.float32)
    return np.where(place >= 0, matrix.data[place], NOT_A_CANDIDATE).astype(np.float32)


def best_of_rows(matrix: sparse.csr_matrix, k: int, barred: Barred) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The k greatest entries of each row that are not barred, (n, ≤ k), −inf past the end; equal ones go to the lower column.

    Only what is stored is a candidate, and no dense row is made.

    Examples
    --------
    >>> best_of_rows(sparse.csr_matrix([[0, 5.0, 7.0], [0, 0, 2.0]]), 2, Barred())[0].tolist()
    [[2, 1], [2, -1]]
    """
    n = matrix.shape[0]
    rows = np.repeat(np.arange(n), np.diff(matrix.indptr))
    columns, values = matrix.indices, matrix.data
    if barred.allowed is not None or barred.excluded is not None:
        kept = np.ones(len(columns), dtype=bool) if barred.allowed is None else barred.allowed[columns]
        if barred.excluded is not None:
            n_items = matrix.shape[1]
            out = np.repeat(np.arange(n), np.diff(barred.excluded.indptr)) * n_items + barred.excluded.indices
            keys = rows * n_items + columns
            place = np.minimum(np.searchsorted(out, keys), max(len(out) - 1, 0))  # sorted as the rows and their indices are
            kept &= out[place] != keys if len(out) else True
        rows, columns, values = rows[kept], columns[kept], values[kept]
    order = np.lexsort((columns, -values, rows))
    rows, columns, values = rows[order], columns[order], values[order]
    place = np.arange(len(rows)) - np.searchsorted(rows, np.arange(n))[rows]
    first = place < k
    width = int(place[first].max(initial=-1)) + 1
    ids = np.full((n, width), -1, dtype=np.int32)
    scores = np.full((n, width), NOT_A_CANDIDATE, dtype=np.float32)
    ids[rows[first], place[first]] = columns[first]
    scores[rows[first], place[first]] = values[first] + np.float32(0.0)
    return ids, scores


def folded(counts: sparse.csr_matrix, query: Query, half_life_days: float | None) -> sparse.csr_matrix:
    """Each user's weights now, (n, n_items): those of the fit, decayed until now, and what they did since.

    Parameters
    ----------
    counts : csr_matrix, (n_users, n_items)
        `Interactions.matrix(half_life_days)` of the fit.
    """
    known = query.users >= 0
    now = counts[np.maximum(query.users, 0)] if counts.shape[0] else sparse.csr_matrix((len(query), counts.shape[1]), dtype=np.float32)
    keep = known.astype(np.float32)
    if query.since is not None and half_life_days is not None:
        keep *= np.float32(2.0 ** (-query.later_days / half_life_days))
    if query.since is not None or not known.all():
        now = sparse.diags(keep).dot(now).tocsr()
        now.eliminate_zeros()
    if query.since is not None:
        now = now + query.since.matrix(half_life_days)
    now = now.astype(np.float32)
    now.sort_indices()
    return now


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
        block = max(1, BLOCK_CELLS // max(1, self.n_items_))
        parts = []
        for start in range(0, n, block) or (0,):
            if n <= block:
                parts.append(self._rank_block(query, min(k, self.n_items_), barred))
                break
            rows = np.arange(start, min(start + block, n))
            parts.append(self._rank_block(query.take(rows), min(k, self.n_items_), barred.take(rows)))
        width = max(part[0].shape[1] for part in parts)
        ids, scores, source = (np.concatenate([_widened(part[i], width, fill) for part in parts]) for i, fill in enumerate(PADDING))
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

    def _excluded(self, query: Query, exclude: Sequence[Indices] | None, exclude_purchased: bool) -> sparse.csr_matrix | None:
        shape = (len(query), self.n_items_)
        parts = []
        if exclude is not None and (lengths := [len(items) for items in exclude]) and sum(lengths):
            columns = np.concatenate(exclude)
            parts.append(
                sparse.csr_matrix((np.ones(len(columns), np.float32), (np.repeat(np.arange(len(query)), lengths), columns)), shape=shape)
            )
        if exclude_purchased:
            parts.append(folded(self.history_, query, None))
        if not parts:
            return None
        both = parts[0] if len(parts) == 1 else (parts[0] + parts[1]).tocsr()
        both.sort_indices()
        return both

    def _rank_block(
        self, query: Query, k: int, barred: Barred
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int8]]:  # fmt: skip
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
