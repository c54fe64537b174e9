"""The two simple models of a session: items of visits like this one, and transitions from the last items."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from scipy import sparse

from features.interactions import INTERACTION_TYPES, TrainingSet
from models.persist import Arrays, pack_csr, unpack_csr
from models.recommend.base import Choice, Query, Range
from models.recommend.session.links import MOST_DAYS, decayed_rows, transitions, visit_links
from models.recommend.session.trails import TRAIL_ARRAYS, Trails, auxiliary_kinds, has_visits, untyped_kind
from models.recommend.sparse_scores import SparseScoresRecommender
from qianmian.errors import DataError

MINUTES_PER_DAY = 1440.0


class _SessionLinksRecommender(SparseScoresRecommender):
    """Scores item j by ``Σ_e decay^place(e) × L_ij`` over the entries e of the user's last visit, i being their items.

    The place counts from the end: 0 is the newest entry. The last visit is the one of the recent interactions, if there
    are any. L is `links_`. Items without a link to the visit are no candidates.
    """

    user_arrays = (*SparseScoresRecommender.user_arrays, TRAIL_ARRAYS)
    supports_fold_in: ClassVar[bool] = True
    returns_partial_lists: ClassVar[bool] = True

    decay: float
    links: int
    visit_gap_minutes: float

    @abstractmethod
    def _links_of(self, trails: Trails) -> sparse.csr_matrix:
        """Compute the links, (n_items, n_items)."""

    @property
    def auxiliary_types(self) -> tuple[str, ...]:
        return tuple(INTERACTION_TYPES[code] for code in self.types_.tolist())

    def _fit(self, train: TrainingSet) -> None:
        trails = Trails.of_training(train)
        self.links_ = self._links_of(trails)
        # of users without later entries, the last visit before the fit is continued
        self.trails_, self.untyped_ = (
            trails.last_visits(self.visit_gap_minutes / MINUTES_PER_DAY).newest(),
            untyped_kind(train),
        )
        self.types_ = auxiliary_kinds(train)

    def _score_candidates(self, query: Query) -> sparse.csr_matrix:
        trails = self.trails_.of_query(query, self.untyped_)
        visit = trails.last_visits(self.visit_gap_minutes / MINUTES_PER_DAY)
        found = (
            decayed_rows(visit, np.power(self.decay, visit.place_from_end.astype(np.float64))) @ self.links_
        ).tocsr()
        found.sort_indices()
        return found

    def _state(self) -> Arrays:
        kinds = {"types": self.types_, "untyped": np.array(self.untyped_)}
        return {**pack_csr("links", self.links_), **self.trails_.state(), **kinds}

    def _restore(self, state: Arrays) -> None:
        self.links_, self.types_ = unpack_csr("links", state), state["types"]
        self.trails_, self.untyped_ = Trails.restore(state, self.n_items_), int(state["untyped"])


class SessionItemKNNRecommender(_SessionLinksRecommender):
    """Session item k-NN: ranks items that are met in the same visits as the items of this visit.

    The links are the cosine of the visits of two items (`session.links.visit_links`); a later item of the visit counts
    more (Ludewig & Jannach 2018).

    Parameters
    ----------
    decay : float
        Factor for each step back in the visit, in (0, 1].
    links : int
        Number of links kept per item, ≥ 1.
    visit_gap_minutes : float
        A visit ends when the user does nothing for longer than this.

    orders_are_visits : bool
        Whether data of purchases alone are accepted; the items of an order are then those of a visit.

    Raises
    ------
    DataError
        There are purchases alone, and they are not accepted.

    Examples
    --------
    >>> users, items = np.array([0, 0, 1]), np.array([0, 1, 0])
    >>> train = TrainingSet.from_arrays(users, items, n_users=2, n_items=2)
    >>> SessionItemKNNRecommender().fit(train).recommend([1], 1).ids.tolist()
    [[1]]
    """

    name: ClassVar[str] = "session_knn"
    search_space: ClassVar[Mapping[str, Range | Choice]] = {"decay": Range(0.5, 1.0)}

    def __init__(
        self, decay: float = 0.9, links: int = 100, visit_gap_minutes: float = 30.0, orders_are_visits: bool = True
    ) -> None:
        self.decay, self.links, self.visit_gap_minutes = decay, links, visit_gap_minutes
        self.orders_are_visits = orders_are_visits

    def _fit(self, train: TrainingSet) -> None:
        if not self.orders_are_visits and not has_visits(train):
            raise DataError(
                "there are no visits, only orders",
                where=train.source,
                hint="ingest events (views, carts) with item_id and ts; `complement` says what goes with an order",
            )
        super()._fit(train)

    def _links_of(self, trails: Trails) -> sparse.csr_matrix:
        return visit_links(trails, self.links, self.visit_gap_minutes / MINUTES_PER_DAY)


class SessionTransitionsRecommender(_SessionLinksRecommender):
    """Markov chain over items: ranks what users met next after the last items of this visit.

    The links are transition probabilities over several steps (`session.links.transitions`). With ``decay = 0`` only the
    last item counts (a first-order chain).

    Parameters
    ----------
    decay : float
        Factor for each step back in the visit, in [0, 1].
    links : int
        Number of links kept per item, ≥ 1.
    visit_gap_minutes : float
        A visit ends when the user does nothing for longer than this.
    steps : int
        Transitions lead up to this many entries ahead, ≥ 1.
    """

    name: ClassVar[str] = "session_transitions"
    search_space: ClassVar[Mapping[str, Range | Choice]] = {"decay": Range(0.0, 1.0), "steps": Range(1, 10)}

    def __init__(self, decay: float = 0.5, links: int = 100, steps: int = 5, visit_gap_minutes: float = 30.0) -> None:
        self.decay, self.links, self.steps, self.visit_gap_minutes = decay, links, steps, visit_gap_minutes

    def _links_of(self, trails: Trails) -> sparse.csr_matrix:
        most_days = max(MOST_DAYS, self.visit_gap_minutes / MINUTES_PER_DAY)
        return transitions(trails, self.links, self.steps, most_days)
