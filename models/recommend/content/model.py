"""Contents for customers: matched by topics, by the items they show, by who else read them, and by how well they do; the new get their turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.contents import READ_WEIGHT, ContentSet
from features.interactions import Interactions, TrainingSet
from models.persist import Arrays, pack_csr, unpack_csr
from models.ranked import NOT_A_CANDIDATE
from models.recommend.base import Evidence, Query, Range, Recommender, fold_in, row_indices
from models.recommend.choice_models import fit_multinomial_logit
from models.recommend.content.features import FEATURES, NON_NEGATIVE, ContentStatistics, unit_rows
from models.recommend.content.words import TopicMatrices
from models.recommend.hybrid import user_attributes

MIN_CHOICES = 200  # fewer teach nothing: the weights below then
MAX_CHOICES = 3_000
SAMPLED_ALTERNATIVES = 60  # contents a choice is seen against
# about what the made-up shop teaches
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

    The score is ``Σ weight × feature + exploration × log((rate + σ) / rate)`` with the features (`models.recommend.content.features`)

    - *read*: how much more the customer engages with the topics of a content than everybody does, fading with `half_life_days` (log-lift of
      Dirichlet-smoothed shares);
    - *bought*: the same with the categories and tags of what the customer buys, where topics share words with them or contents show such items;
    - *alike*: the same with what customers with the same profile attributes engage with;
    - *shown*: it shows an item the customer buys, the more so when that is due again;
    - *readers*: who met what this customer met, met this (item-based k-NN with shrinkage);
    - *rate*: log of the share of readers it engages, shrunk to what its topics let expect (empirical Bayes, Beta–binomial), *new*: nobody met it.

    The weights are learnt from what customers opened in the last `learn_days` (a multinomial logit over what was there and not opened), seen with
    what was known before. σ is the standard deviation of the rate's posterior: a content few have met yet is ranked by what it may turn out to
    be (an upper confidence bound, Auer et al. 2002), so it is met, and then judged. That is an order, not a draw: drawing with a known propensity is left to the
    exploration of `models.rerank`.

    What a customer read to the end (an event of weight `READ_WEIGHT` or more) is not shown again, unless `show_read`; see `including_read`.

    Parameters
    ----------
    purchase_half_life_days : float
        How fast a purchase fades.
    neighbour_shrinkage : float
        Shared readers that a likeness of two contents is seen against.
    exploration : float
        0 ranks by what is expected alone.
    learn_days : float or None
        None takes usual weights.
    """

    name: ClassVar[str] = "content"
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
            learnt = self._fit_weights(
                train, self._statistics(train.with_earlier_cutoff(self.learn_days), words, traits)
            )
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
        """Weights that make what was opened in the last days likeliest, among what there was and the customer had not read."""
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
        kept = np.column_stack([np.ones(len(choices), dtype=bool), ~excluded]) & np.any(
            ~excluded, axis=1, keepdims=True
        )
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
        """The ``topic`` of a content that is most the user's own, and ``because`` they ``read`` or ``bought`` of it more than others; None for none."""
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
        """What was read to the end, before the fit or since."""
        before = fold_in(self.read_, Query(query.users), None)
        return (
            before if query.recent_interactions is None else (before + _read_matrix(query.recent_interactions)).tocsr()
        )

    def _user_attributes(self, query: Query) -> sparse.csr_matrix:
        """Profile attributes, (n, a): the profile's, or those given for somebody nobody knows."""
        shape = (len(query), len(self.attribute_names_))
        known = (query.users >= 0).astype(np.float32)
        traits = sparse.diags(known) @ (
            self.statistics_.traits[np.maximum(query.users, 0)]
            if self.n_users_
            else sparse.csr_matrix(shape, dtype=np.float32)
        )
        rows, columns = [], []
        for row, given in enumerate(query.attributes or ()):  # attributes come with a request, a handful at a time
            if given and query.users[row] < 0:
                codes = np.flatnonzero(
                    np.isin(self.attribute_names_, [f"{name}={value}" for name, value in given.items()])
                )
                rows += [row] * len(codes)
                columns += codes.tolist()
        return (traits + sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=shape)).tocsr()

    def _similarity(self, item: int) -> Floats:
        """Half the cosine of the topics, half the likeness of the readers."""
        statistics, topics = self.statistics_, self.item_vectors()
        return np.asarray((topics @ topics[item] + statistics.alike[item].toarray().ravel()) / 2.0, dtype=np.float32)

    def item_vectors(self) -> Floats:
        """TF-IDF vectors of the words of each content, (n_contents, w)."""
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
        self.weights_, self.attribute_names_, self.vocabulary_ = (
            state["weights"],
            state["attribute_names"],
            state["vocabulary"],
        )
        self.read_, self.statistics_ = unpack_csr("read", state), ContentStatistics.restored(state)


def _read_matrix(data: Interactions) -> sparse.csr_matrix:
    """What each user read to the end, 0/1, (n_users, n_contents)."""
    ends = data.weights >= READ_WEIGHT
    done = sparse.csr_matrix(
        (np.ones(int(ends.sum()), np.float32), (data.users[ends], data.items[ends])), shape=data.shape
    )
    done.data[:] = 1.0
    done.sort_indices()
    return done
