"""LightFM hybrid (Kula 2015): users and items as sums of feature embeddings, so attributes alone give an answer."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.dataset import TrainingSet
from models.persist import Arrays, pack_csr, unpack_csr
from models.ranked import NOT_A_CANDIDATE
from models.recommend.base import Attributes, Query, Recommender
from models.recommend.popular import recent_customers

PREFIX = "profile_"
MAX_VALUES = 200  # an attribute with more values than this is an id, not a trait


class HybridRecommender(Recommender):
    """WARP-trained hybrid with user features (identity + profile attributes) and item features (identity + category levels + brand).

    A user without history is represented by the attributes alone; without attributes either, the model has no answer.

    Parameters
    ----------
    prior_days : float
        An item's prior is log(1 + customers of the last `prior_days`); WARP's own item bias is too noisy for strangers.
    personal_weight : float
        Weight of what sets the user apart from the average customer, (user − average) · item, beside the prior. Validated on
        Complete Journey (October 2017, histories hidden): NDCG@10 .257 at 0.5, .252 for the prior alone, .243 for LightFM's own score.

    Attributes
    ----------
    attribute_names_ : ndarray of str, (a,)
        ``attribute=value``; row i of `attribute_vectors_` is its embedding, last column the bias.
    """

    name: ClassVar[str] = "hybrid"
    supports_cold: ClassVar[bool] = True
    supports_similar: ClassVar[bool] = True

    def __init__(
        self,
        factors: int = 32,
        epochs: int = 5,
        prior_days: float = 28.0,
        personal_weight: float = 0.5,
        learning_rate: float = 0.05,
        item_alpha: float = 1e-6,
        user_alpha: float = 1e-5,
        seed: int = 0,
    ) -> None:
        self.factors, self.epochs, self.learning_rate = factors, epochs, learning_rate
        self.prior_days, self.personal_weight = prior_days, personal_weight
        self.item_alpha, self.user_alpha, self.seed = item_alpha, user_alpha, seed

    def _fit(self, train: TrainingSet) -> None:
        from lightfm import LightFM

        names, attributes = user_attributes(train)
        item_traits = item_attributes(train)
        identity = sparse.identity(train.n_users, dtype=np.float32, format="csr")
        user_features = _normalised(sparse.hstack([identity, attributes], format="csr"))
        item_features = _normalised(
            sparse.hstack([sparse.identity(train.n_items, dtype=np.float32, format="csr"), item_traits], format="csr")
        )
        model = LightFM(no_components=self.factors, loss="warp", learning_rate=self.learning_rate, item_alpha=self.item_alpha, user_alpha=self.user_alpha,
                        random_state=np.random.RandomState(self.seed))  # fmt: skip
        counts = train.interactions.matrix()
        model.fit(counts.tocoo(), user_features=user_features, item_features=item_features, epochs=self.epochs, num_threads=1)
        _, user_vectors = model.get_user_representations()
        _, item_vectors = model.get_item_representations(item_features)
        # what the model uses of a user is the embedding of each feature: a user bias shifts all items alike
        self.user_vectors_ = np.asarray(user_features @ user_vectors, dtype=np.float32)
        self.attribute_names_ = names
        self.attribute_vectors_ = np.asarray(user_vectors[train.n_users :], dtype=np.float32)
        self.user_attributes_ = attributes.astype(np.float32)
        self.item_vectors_ = np.asarray(item_vectors, dtype=np.float32)
        self.item_prior_ = np.log1p(recent_customers(train, self.prior_days))
        strangers, described = self._strangers(self.user_attributes_)
        average = strangers[described] if described.any() else self.user_vectors_
        self.center_ = average.mean(axis=0, dtype=np.float32)

    def _scores(self, query: Query) -> NDArray[np.float32]:
        vectors, answerable = self.represent(query)
        scores = np.full((len(query), self.n_items_), NOT_A_CANDIDATE, dtype=np.float32)
        personal = (vectors[answerable] - self.center_) @ self.item_vectors_.T
        scores[answerable] = self.item_prior_ + np.float32(self.personal_weight) * personal
        return scores

    def represent(self, query: Query) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """User vectors (n, d) and whether the model knows enough to answer (n,).

        With history: identity and attributes. Without: the mean of the attribute embeddings, those given in the call first.
        """
        users = query.users
        inside = np.maximum(users, 0)
        vectors, answerable = self._strangers(self.user_attributes_[inside]) if self.n_users_ else self._nobody(len(users))
        answerable &= users >= 0
        warm = self._has_history(query)
        vectors[warm], answerable[warm] = self.user_vectors_[users[warm]], True
        for row, given in enumerate(query.attributes or ()):  # attributes come with a request, a handful at a time
            if given and not warm[row] and len(codes := self._codes(given)):
                vectors[row], answerable[row] = self.attribute_vectors_[codes].mean(axis=0), True
        return vectors, answerable

    def _strangers(self, attributes: sparse.csr_matrix) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        return np.asarray(_normalised(attributes) @ self.attribute_vectors_, dtype=np.float32), np.diff(attributes.indptr) > 0

    def _nobody(self, n: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        return np.zeros((n, self.item_vectors_.shape[1]), dtype=np.float32), np.zeros(n, dtype=bool)

    def _codes(self, given: Attributes) -> NDArray[np.int64]:
        wanted = [f"{name}={value}" for name, value in given.items()]
        return np.flatnonzero(np.isin(self.attribute_names_, wanted)) if wanted else np.empty(0, dtype=np.int64)

    def _item_vectors(self) -> NDArray[np.float32]:
        return self.item_vectors_

    def _state(self) -> Arrays:
        return {
            "user_vectors": self.user_vectors_,
            "attribute_names": self.attribute_names_, "attribute_vectors": self.attribute_vectors_,
            "item_vectors": self.item_vectors_, "item_prior": self.item_prior_,
            "center": self.center_,
            **pack_csr("traits", self.user_attributes_),
        }  # fmt: skip

    def _restore(self, state: Arrays) -> None:
        self.user_vectors_, self.attribute_names_ = state["user_vectors"], state["attribute_names"]
        self.attribute_vectors_, self.user_attributes_ = state["attribute_vectors"], unpack_csr("traits", state)
        self.item_vectors_, self.item_prior_, self.center_ = state["item_vectors"], state["item_prior"], state["center"]


def user_attributes(train: TrainingSet) -> tuple[NDArray[np.str_], sparse.csr_matrix]:
    """One-hot profile attributes: names ``attribute=value`` (a,) and a matrix (n_users, a); unknown values have no column."""
    names: list[str] = []
    blocks = [sparse.csr_matrix((train.n_users, 0), dtype=np.float32)]
    features = train.user_features
    for feature, vocabulary in zip(features.spec.features, features.spec.vocabularies, strict=True) if features is not None else ():
        if not feature.name.startswith(PREFIX) or not feature.categorical or not 0 < len(vocabulary) <= MAX_VALUES:
            continue
        assert features is not None
        codes = features.column(feature.name).astype(np.int64)
        known = np.flatnonzero(codes >= 0)
        blocks.append(sparse.csr_matrix((np.ones(len(known), np.float32), (known, codes[known])), shape=(train.n_users, len(vocabulary))))
        names += [f"{feature.name.removeprefix(PREFIX)}={value}" for value in vocabulary]
    return np.asarray(names, dtype=np.str_), sparse.hstack(blocks, format="csr", dtype=np.float32)


def item_attributes(train: TrainingSet) -> sparse.csr_matrix:
    """One-hot item traits: every level of the category path, and the brand; (n_items, t)."""
    traits: dict[str, int] = {}
    rows, columns = [], []
    for item, (category, brand) in enumerate(zip(train.item_attributes["category"], train.item_attributes["brand"], strict=True)):
        levels = str(category).split("/") if category else []
        paths = ["category:" + "/".join(levels[: depth + 1]) for depth in range(len(levels))] + (["brand:" + str(brand)] if brand else [])
        for path in paths:
            rows.append(item)
            columns.append(traits.setdefault(path, len(traits)))
    return sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(train.n_items, len(traits)))


def _normalised(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    sums = np.asarray(matrix.sum(axis=1)).ravel()
    return (sparse.diags(1.0 / np.maximum(sums, 1e-9)) @ matrix).tocsr().astype(np.float32)
