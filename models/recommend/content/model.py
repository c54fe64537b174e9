"""Content recommender: topics, shown items, similarity by readers and engagement rate, with a bonus for uncertainty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.interactions import READ_WEIGHT, ContentSet, Interactions, TrainingSet
from models.persist import Arrays, pack_csr, unpack_csr
from models.ranked import NOT_A_CANDIDATE
from models.recommend.base import Evidence, Query, Range, Recommender, fold_in, row_indices
from models.recommend.choice_models import fit_multinomial_logit
from models.recommend.content.features import FEATURES, NON_NEGATIVE, ContentStatistics, unit_rows
from models.recommend.content.words import TopicMatrices
from models.recommend.hybrid import user_attributes
from models.user_arrays import UserMatrix

MIN_CHOICES = 200  # with fewer choices, the default weights are used
MAX_CHOICES = 3_000  # choices that are sampled
SAMPLED_ALTERNATIVES = 60  # alternatives sampled per choice
# close to the weights learnt on the synthetic shop
DEFAULT_WEIGHTS = {
    "read": 0.6,
    "bought": 0.6,
    "alike": 0.3,
    "shown": 0.3,
    "readers": 0.5,
    "rate": 1.0,
    "age": -0.3,
    "new": -0.5,
}
Floats = NDArray[np.float32]


class ContentRecommender(Recommender):
    """Ranks contents; its items are those of a `features.contents.ContentSet`.

    The score is ``Σ weight × feature + exploration × log((rate + σ) / rate)`` over these features
    (`models.recommend.content.features`):

    - *read*: log-lift of the topics of the content in the engagement of the user against all users (Dirichlet-smoothed
      shares, decayed with `half_life_days`);
    - *bought*: the same for the categories and tags of the user's purchases, which match topics of the same name and
      contents that show such items;
    - *alike*: the same for the engagement of users with the same profile attributes;
    - *shown*: the content shows an item that the user buys, weighted more if the item is due again;
    - *readers*: similarity by readers to the contents that the user engaged with (item k-NN with shrinkage);
    - *rate*: log of the engagement rate, shrunk to that of its topics (empirical Bayes, Beta–binomial);
    - *age*: log of the days since the first engagement; *new*: the content has no engagement.

    The weights are learnt from the contents that users opened in the last `learn_days`, by a multinomial logit over
    contents that existed and were not opened, with features computed from the data before those days. σ is the standard
    deviation of the posterior of the rate: a content with few readers is ranked by an upper confidence bound (Auer et
    al. 2002) until its rate is known. The ranking is deterministic; `models.rerank` explores at random with known
    propensities.

    Contents that the user has read to the end (an event of weight `READ_WEIGHT` or more) are not shown again, unless
    `show_read` is set.

    Parameters
    ----------
    half_life_days : float
        Half-life of an engagement in days.
    purchase_half_life_days : float
        Half-life of a purchase in days.
    neighbour_shrinkage : float
        Shrinkage of the similarity by readers, in shared readers.
    exploration : float
        Weight of the uncertainty; 0 ranks by the expected engagement.
    learn_days : float or None
        Length of the period that the weights are learnt from in days; None uses the default weights.
    show_read : bool
        Whether to rank contents that the user has read to the end.
    seed : int
        Seed of the sampling.
    """

    name: ClassVar[str] = "content"
    user_arrays = (*Recommender.user_arrays, *map(UserMatrix, ("read", "counts", "bought", "shows", "traits")))
    supports_cold: ClassVar[bool] = True
    supports_similar: ClassVar[bool] = True
    supports_fold_in: ClassVar[bool] = True
    returns_partial_lists: ClassVar[bool] = True
    supports_item_vectors: ClassVar[bool] = True
    supports_evidence: ClassVar[bool] = True
    search_space: ClassVar[Mapping[str, Any]] = {
        "half_life_days": Range(7.0, 365.0, log=True),
        "purchase_half_life_days": Range(14.0, 365.0, log=True),
        "neighbour_shrinkage": Range(1.0, 100.0, log=True),
        "exploration": Range(0.0, 2.0),
    }

    def __init__(
        self,
        half_life_days: float = 60.0,
        purchase_half_life_days: float = 90.0,
        neighbour_shrinkage: float = 10.0,
        exploration: float = 0.5,
        learn_days: float | None = 28.0,
        show_read: bool = False,
        seed: int = 0,
    ) -> None:
        self.half_life_days, self.purchase_half_life_days = half_life_days, purchase_half_life_days
        self.neighbour_shrinkage, self.exploration = neighbour_shrinkage, exploration
        self.learn_days, self.show_read, self.seed = learn_days, show_read, seed

    def _fit(self, train: TrainingSet) -> None:
        words = TopicMatrices.of(train)
        self.attribute_names_, traits = user_attributes(train)
        self.vocabulary_ = words.vocabulary
        self.statistics_ = self._statistics(train, words, traits)
        self.read_ = _read_matrix(train.interactions)
        self.weights_ = np.array([DEFAULT_WEIGHTS[name] for name in FEATURES], dtype=np.float32)
        if self.learn_days is not None and (train.interactions.age_days > self.learn_days).any():
            before = self._statistics(train.with_earlier_cutoff(self.learn_days), words, traits)
            learnt = self._fit_weights(train, before)
            self.weights_ = self.weights_ if learnt is None else learnt

    def _statistics(self, train: TrainingSet, words: TopicMatrices, traits: sparse.csr_matrix) -> ContentStatistics:
        purchases = train.purchases if isinstance(train, ContentSet) else None
        return ContentStatistics.of(
            train.interactions,
            None if purchases is None else purchases.interactions,
            words,
            traits,
            self.half_life_days,
            self.purchase_half_life_days,
            self.neighbour_shrinkage,
        )

    def _fit_weights(self, train: TrainingSet, before: ContentStatistics) -> NDArray[np.float32] | None:
        """Fit weights to the contents opened in the last `learn_days`, against contents that were not opened.

        Returns None if there are fewer than `MIN_CHOICES` choices.
        """
        assert self.learn_days is not None
        data, rng = train.interactions, np.random.default_rng(self.seed)
        late = data.age_days <= self.learn_days
        n_items = np.int64(train.n_items)
        opened = np.unique(data.users[late] * n_items + data.items[late])
        done = _read_matrix(data.where(~late))
        finished = np.repeat(np.arange(train.n_users), np.diff(done.indptr)) * n_items + done.indices
        choices = np.setdiff1d(opened, finished)
        if len(choices) < MIN_CHOICES:
            return None
        choices = np.sort(rng.permutation(choices)[:MAX_CHOICES])
        users, chosen = choices // n_items, choices % n_items
        others = rng.integers(0, n_items, (len(choices), SAMPLED_ALTERNATIVES))
        seen = np.column_stack([chosen, others])
        pairs = users[:, None] * n_items + others
        excluded = np.isin(pairs, opened) | np.isin(pairs, finished)
        values = before.pairs(users, seen)
        has_alternative = np.any(~excluded, axis=1, keepdims=True)
        kept = np.column_stack([np.ones(len(choices), dtype=bool), ~excluded]) & has_alternative
        group = np.broadcast_to(np.arange(len(choices))[:, None], kept.shape)[kept]
        of, group = np.unique(group, return_inverse=True)
        first = np.searchsorted(group, np.arange(len(of)))
        if len(of) < MIN_CHOICES:
            return None
        every = np.ones(len(FEATURES), dtype=bool)
        return fit_multinomial_logit(values[kept], first, group, every, non_negative=np.isin(FEATURES, NON_NEGATIVE))

    @property
    def attribute_names(self) -> tuple[str, ...]:
        return tuple(self.attribute_names_.tolist())

    def _evidence(self, query: Query, item: int) -> Evidence | None:
        """Return the ``topic`` of a content with the highest lift for the user, and ``because``; None without a lift.

        ``because`` is ``read`` or ``bought``, whichever of the two has the higher lift.
        """
        user = int(query.users[0])
        statistics = self.statistics_
        words = row_indices(statistics.about, item)
        if user < 0 or not len(words):
            return None
        best, found = 1.0, None
        for because, own, share in (
            ("read", (statistics.counts[user] @ statistics.about).tocsr(), statistics.read_share),
            ("bought", statistics.bought[user], statistics.bought_share),
        ):
            counts = own[:, words].toarray().ravel()
            lift = counts / np.maximum(float(own.sum()) * share[words], 1e-12)
            place = int(np.argmax(lift))
            if counts[place] > 0 and lift[place] > best:
                best = float(lift[place])
                found = Evidence(topic=str(self.vocabulary_[words[place]]), because=because)
        return found

    def _scores(self, query: Query) -> Floats:
        statistics = self.statistics_
        values = statistics.features(
            fold_in(statistics.counts, query, self.half_life_days), query.users, self._user_attributes(query)
        )
        scores = np.zeros((len(query), self.n_items_), dtype=np.float32)
        for weight, value in zip(self.weights_, values, strict=True):
            scores += weight * value
        scores += np.float32(self.exploration) * statistics.uncertainty
        if not self.show_read:
            done = self._read_now(query)
            scores[np.repeat(np.arange(len(query)), np.diff(done.indptr)), done.indices] = NOT_A_CANDIDATE
        return scores

    def _read_now(self, query: Query) -> sparse.csr_matrix:
        """Return the contents read to the end, before or after the fit, (n, n_contents)."""
        before = fold_in(self.read_, Query(query.users), None)
        if query.recent_interactions is None:
            return before
        return (before + _read_matrix(query.recent_interactions)).tocsr()

    def _user_attributes(self, query: Query) -> sparse.csr_matrix:
        """Return one-hot attributes, (n, a): those of the profile, or for an unknown user those of the query."""
        shape = (len(query), len(self.attribute_names_))
        if self.n_users_:
            traits = self.statistics_.traits[np.maximum(query.users, 0)]
        else:
            traits = sparse.csr_matrix(shape, dtype=np.float32)
        traits = sparse.diags((query.users >= 0).astype(np.float32)) @ traits
        rows, columns = [], []
        for row, given in enumerate(query.attributes or ()):  # only requests send attributes, so the rows are few
            if given and query.users[row] < 0:
                names = [f"{name}={value}" for name, value in given.items()]
                codes = np.flatnonzero(np.isin(self.attribute_names_, names))
                rows += [row] * len(codes)
                columns += codes.tolist()
        return (traits + sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=shape)).tocsr()

    def _similarity(self, item: int) -> Floats:
        """Return the mean of the cosine of the topics and the similarity by readers, (n_contents,)."""
        statistics, topics = self.statistics_, self.item_vectors()
        return np.asarray((topics @ topics[item] + statistics.alike[item].toarray().ravel()) / 2.0, dtype=np.float32)

    def item_vectors(self) -> Floats:
        """Return the TF-IDF vectors of the words of each content, (n_contents, w)."""
        about = self.statistics_.about
        many = np.asarray((about > 0).sum(axis=0)).ravel()
        rarity = sparse.diags((np.log((1.0 + self.n_items_) / (1.0 + many)) + 1.0).astype(np.float32))
        return np.asarray(unit_rows(about @ rarity).todense(), dtype=np.float32)

    def _state(self) -> Arrays:
        return {
            "weights": self.weights_,
            "attribute_names": self.attribute_names_,
            "vocabulary": self.vocabulary_,
            **pack_csr("read", self.read_),
            **self.statistics_.state(),
        }

    def _restore(self, state: Arrays) -> None:
        self.weights_, self.attribute_names_ = state["weights"], state["attribute_names"]
        self.vocabulary_ = state["vocabulary"]
        self.read_, self.statistics_ = unpack_csr("read", state), ContentStatistics.restored(state)


def _read_matrix(data: Interactions) -> sparse.csr_matrix:
    """Return the contents that each user read to the end, 0/1, (n_users, n_contents)."""
    ends = data.weights >= READ_WEIGHT
    done = sparse.csr_matrix(
        (np.ones(int(ends.sum()), np.float32), (data.users[ends], data.items[ends])), shape=data.shape
    )
    done.data[:] = 1.0
    done.sort_indices()
    return done
