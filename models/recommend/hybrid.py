"""LightFM hybrid (Kula 2015): users and items are sums of feature embeddings, so attributes alone suffice to rank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.compute.algebra import PROFILE_PREFIX
from features.interactions import TrainingSet
from models.inner_product_search import FactorIndex
from models.persist import Arrays, pack_csr, unpack_csr
from models.recommend.base import Query, Range, UserAttributes
from models.recommend.cost import n_lines
from models.recommend.matrix_factorization import FactorRecommender, check_finite
from models.recommend.popular import recent_customers
from models.user_arrays import UserMatrix, UserRows
from qianmian.errors import DataError

MAX_VALUES = 200  # an attribute with more values is treated as an id and ignored


class HybridRecommender(FactorRecommender):
    """Hybrid factor model with user features (identity, attributes) and item features (identity, category path, brand).

    The model is trained with the WARP loss. A user without history is represented by the attributes alone, and a user
    without attributes as well gets no list. An item without history is represented by its category levels and brand
    (its traits) alone, and its prior is the mean prior of the items with these traits.

    Parameters
    ----------
    factors : int
        Number of dimensions.
    epochs : int
        Number of passes over the interactions.
    prior_days : float
        The prior of an item is log(1 + customers of the last `prior_days`). The item bias of WARP is too noisy for
        users without history.
    personal_weight : float
        Weight of the personal score, (user − average user) · item, which is added to the prior. Validated on Complete
        Journey (October 2017, histories hidden): NDCG@10 is .257 at 0.5, .252 for the prior alone and .243 for the
        score of LightFM.
    learning_rate, item_alpha, user_alpha : float
        Learning rate and L2 penalties of LightFM.
    max_pairs : int
        Largest number of (user, item) pairs per epoch; more are sampled once. Users and items without a sampled pair
        are represented by their attributes and traits. Of the 0.8 million pairs of Complete Journey, 200,000 instead of
        all changed NDCG@10 in November by −.0020 ± .0034 for customers and +.0001 ± .0012 for items without history;
        100,000 instead of 200,000 took 1.3 instead of 2.5 CPU seconds, with .197 (.199) for all customers and .0048
        (.0064) for items without history in October.
    seed : int
        Seed of the sampling and of the training.

    Attributes
    ----------
    attribute_names_ : ndarray of str, (a,)
        ``attribute=value``; row i of `attribute_vectors_` is its embedding.
    trait_names_ : ndarray of str, (t,)
        ``category:path`` and ``brand:name``. Row i of `trait_vectors_` is its embedding, entry i of `trait_priors_` is
        the mean prior of its items (NaN without such items).
    """

    name: ClassVar[str] = "hybrid"
    user_arrays = (*FactorRecommender.user_arrays, UserRows("user_vectors"), UserMatrix("traits"))
    supports_cold: ClassVar[bool] = True
    supports_similar: ClassVar[bool] = True
    search_space: ClassVar[Mapping[str, Range]] = {
        "factors": Range(8, 64, log=True),
        "epochs": Range(2, 20),
        "prior_days": Range(7.0, 120.0, log=True),
        "personal_weight": Range(0.0, 2.0),
        "learning_rate": Range(0.01, 0.2, log=True),
        "item_alpha": Range(1e-7, 1e-4, log=True),
        "user_alpha": Range(1e-7, 1e-4, log=True),
    }

    def __init__(
        self,
        factors: int = 32,
        epochs: int = 5,
        prior_days: float = 28.0,
        personal_weight: float = 0.5,
        learning_rate: float = 0.05,
        item_alpha: float = 1e-6,
        user_alpha: float = 1e-5,
        max_pairs: int = 100_000,
        seed: int = 0,
    ) -> None:
        self.factors, self.epochs, self.learning_rate = factors, epochs, learning_rate
        self.prior_days, self.personal_weight = prior_days, personal_weight
        self.item_alpha, self.user_alpha = item_alpha, user_alpha
        self.max_pairs, self.seed = max_pairs, seed

    def estimated_cpu_seconds(self, train: TrainingSet) -> float:
        return 7e-8 * min(n_lines(train), self.max_pairs) * self.factors * self.epochs + 3e-7 * n_lines(train)

    def _fit(self, train: TrainingSet) -> None:
        from lightfm import LightFM

        names, attributes = user_attributes(train)
        trait_names, traits = item_traits(train)
        counts = train.interactions.matrix()
        pairs = _sampled_pairs(counts.tocoo(), self.max_pairs, self.seed)
        user_features, item_features = _with_identity(attributes), _with_identity(traits)
        model = LightFM(
            no_components=self.factors,
            loss="warp",
            learning_rate=self.learning_rate,
            item_alpha=self.item_alpha,
            user_alpha=self.user_alpha,
            random_state=np.random.RandomState(self.seed),
        )
        try:
            model.fit(
                pairs,
                user_features=user_features,
                item_features=item_features,
                epochs=self.epochs,
                num_threads=1,
            )
        except ValueError as error:  # LightFM raises it when an embedding is not finite
            raise DataError(
                "the training of the hybrid model failed",
                where="hybrid",
                got=str(error),
                hint="fit with a lower learning_rate",
            ) from error
        user_embeddings, item_embeddings = model.user_embeddings, model.item_embeddings
        # the user bias of LightFM is left out, because it shifts the scores of all items equally
        self.user_vectors_ = np.asarray(user_features @ user_embeddings, dtype=np.float32)
        self.attribute_names_ = names
        self.attribute_vectors_ = np.asarray(user_embeddings[train.n_users :], dtype=np.float32)
        self.user_attributes_ = attributes.astype(np.float32)
        prior = np.log1p(recent_customers(train, self.prior_days))
        interacted = np.bincount(counts.indices, minlength=train.n_items) > 0
        self.trait_names_ = trait_names
        self.trait_vectors_ = np.asarray(item_embeddings[train.n_items :], dtype=np.float32)
        items_with = np.asarray(traits.T @ interacted.astype(np.float64))
        mean_priors = (traits.T @ (prior * interacted)) / np.maximum(items_with, 1.0)
        self.trait_priors_ = np.where(items_with > 0, mean_priors, np.nan).astype(np.float32)
        vectors = np.asarray(item_features @ item_embeddings, dtype=np.float32)
        new = np.flatnonzero(~interacted)
        vectors[new], prior[new] = self._from_traits(traits[new])  # an untrained identity embedding is noise
        cold_vectors, has_attributes = self._cold_users(self.user_attributes_)
        average = cold_vectors[has_attributes] if has_attributes.any() else self.user_vectors_
        self.center_ = average.mean(axis=0, dtype=np.float32)
        self._set_items(vectors, prior)

    def _set_items(self, vectors: NDArray[np.float32], prior: NDArray[np.float32]) -> None:
        norms = np.linalg.norm(self.user_vectors_ - self.center_, axis=1)
        self.item_prior_ = prior
        self.index_ = FactorIndex(vectors, prior, float(self.personal_weight * np.median(norms)) if len(norms) else 1.0)

    @property
    def attribute_names(self) -> tuple[str, ...]:
        return tuple(self.attribute_names_.tolist())

    def _from_traits(self, traits: sparse.csr_matrix) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the vectors and priors of items from their one-hot traits, (n, t), alone."""
        known = np.isfinite(self.trait_priors_)
        known_traits = _normalised((traits @ sparse.diags(known.astype(np.float32))).tocsr())
        priors = known_traits @ np.where(known, self.trait_priors_, np.float32(0.0))
        return np.asarray(known_traits @ self.trait_vectors_, dtype=np.float32), np.asarray(priors, dtype=np.float32)

    def _user_vectors(self, query: Query) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        vectors, answerable = self.represent(query)
        return np.float32(self.personal_weight) * (vectors - self.center_), answerable

    def represent(self, query: Query) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the user vectors, (n, d), and which users the model can rank for, bool, (n,).

        The vector of a user with history combines identity and attributes. For other users it is the mean of the
        attribute embeddings, where attributes of the query take precedence over those of the profile.
        """
        users = query.users
        inside = np.maximum(users, 0)
        if self.n_users_:
            vectors, answerable = self._cold_users(self.user_attributes_[inside])
        else:
            vectors, answerable = self._unknown_users(len(users))
        answerable &= users >= 0
        warm = self._has_history(query)
        vectors[warm], answerable[warm] = self.user_vectors_[users[warm]], True
        for row, given in enumerate(query.attributes or ()):  # only requests send attributes, so the rows are few
            if given and not warm[row] and len(codes := self._codes(given)):
                vectors[row], answerable[row] = self.attribute_vectors_[codes].mean(axis=0), True
        return vectors, answerable

    def _cold_users(self, attributes: sparse.csr_matrix) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        vectors = np.asarray(_normalised(attributes) @ self.attribute_vectors_, dtype=np.float32)
        return vectors, np.diff(attributes.indptr) > 0

    def _unknown_users(self, n: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        return np.zeros((n, len(self.center_)), dtype=np.float32), np.zeros(n, dtype=bool)

    def _codes(self, given: UserAttributes) -> NDArray[np.int64]:
        wanted = [f"{name}={value}" for name, value in given.items()]
        return np.flatnonzero(np.isin(self.attribute_names_, wanted)) if wanted else np.empty(0, dtype=np.int64)

    def _state(self) -> Arrays:
        return {
            "user_vectors": self.user_vectors_,
            "attribute_names": self.attribute_names_,
            "attribute_vectors": self.attribute_vectors_,
            "item_vectors": self.index_.item_vectors,
            "item_prior": self.item_prior_,
            "center": self.center_,
            "trait_names": self.trait_names_,
            "trait_vectors": self.trait_vectors_,
            "trait_priors": self.trait_priors_,
            **pack_csr("traits", self.user_attributes_),
        }

    def _restore(self, state: Arrays) -> None:
        self.user_vectors_ = check_finite("hybrid: user_vectors", state["user_vectors"])
        self.attribute_names_ = state["attribute_names"]
        self.attribute_vectors_ = check_finite("hybrid: attribute_vectors", state["attribute_vectors"])
        self.user_attributes_ = unpack_csr("traits", state)
        self.center_ = check_finite("hybrid: center", state["center"])
        self.trait_names_, self.trait_priors_ = state["trait_names"], state["trait_priors"]
        self.trait_vectors_ = check_finite("hybrid: trait_vectors", state["trait_vectors"])
        self._set_items(
            check_finite("hybrid: item_vectors", state["item_vectors"]),
            check_finite("hybrid: item_prior", state["item_prior"]),
        )


def _sampled_pairs(pairs: sparse.coo_matrix, most: int, seed: int) -> sparse.coo_matrix:
    if pairs.nnz <= most:
        return pairs
    kept = np.sort(np.random.default_rng(seed).choice(pairs.nnz, most, replace=False))
    return sparse.coo_matrix((pairs.data[kept], (pairs.row[kept], pairs.col[kept])), shape=pairs.shape)


def user_attributes(train: TrainingSet) -> tuple[NDArray[np.str_], sparse.csr_matrix]:
    """Encode profile attributes one-hot.

    Returns
    -------
    names : ndarray of str, (a,)
        ``attribute=value``.
    matrix : csr_matrix of float32, (n_users, a)
        Missing values have no column.
    """
    names: list[str] = []
    blocks = [sparse.csr_matrix((train.n_users, 0), dtype=np.float32)]
    features = train.user_features
    for feature, vocabulary in (
        zip(features.spec.features, features.spec.vocabularies, strict=True) if features is not None else ()
    ):
        if (
            not feature.name.startswith(PROFILE_PREFIX)
            or not feature.categorical
            or not 0 < len(vocabulary) <= MAX_VALUES
        ):
            continue
        assert features is not None
        codes = features.column(feature.name).astype(np.int64)
        known = np.flatnonzero(codes >= 0)
        blocks.append(
            sparse.csr_matrix(
                (np.ones(len(known), np.float32), (known, codes[known])), shape=(train.n_users, len(vocabulary))
            )
        )
        names += [f"{feature.name.removeprefix(PROFILE_PREFIX)}={value}" for value in vocabulary]
    return np.asarray(names, dtype=np.str_), sparse.hstack(blocks, format="csr", dtype=np.float32)


def item_attributes(train: TrainingSet) -> sparse.csr_matrix:
    """Encode the traits of items one-hot, (n_items, t): every level of the category path, and the brand."""
    return item_traits(train)[1]


def item_traits(train: TrainingSet) -> tuple[NDArray[np.str_], sparse.csr_matrix]:
    """Encode the traits of items one-hot, with names.

    Returns
    -------
    names : ndarray of str, (t,)
        ``category:path`` for every level of the category paths, and ``brand:name``.
    matrix : csr_matrix of float32, (n_items, t)
    """
    names: dict[str, int] = {}
    blocks = []
    for column in ("category", "brand"):
        values, codes = np.unique(train.item_attributes[column], return_inverse=True)
        if column == "category":
            traits = [_trait_names(value, "") for value in values.tolist()]
        else:
            traits = [_trait_names("", value) for value in values.tolist()]
        flat = np.asarray([names.setdefault(name, len(names)) for row in traits for name in row], dtype=np.int64)
        edges = np.cumsum([0, *map(len, traits)])
        one_hot = sparse.csr_matrix((np.ones(len(flat), np.float32), flat, edges), shape=(len(values), len(names)))
        blocks.append((one_hot, codes))
    wide = [
        sparse.csr_matrix((block.data, block.indices, block.indptr), shape=(block.shape[0], len(names)))[codes]
        for block, codes in blocks
    ]
    return np.asarray(list(names), dtype=np.str_), (wide[0] + wide[1]).tocsr()


def _trait_names(category: str, brand: str) -> list[str]:
    """Return the names of the traits of one item.

    Examples
    --------
    >>> _trait_names("food/milk", "b")
    ['category:food', 'category:food/milk', 'brand:b']
    """
    levels = category.split("/") if category else []
    names = ["category:" + "/".join(levels[: depth + 1]) for depth in range(len(levels))]
    return [*names, "brand:" + brand] if brand else names


def _with_identity(features: sparse.csr_matrix) -> sparse.csr_matrix:
    """Prepend an identity matrix to features and normalise the rows to sum 1."""
    identity = sparse.identity(features.shape[0], dtype=np.float32, format="csr")
    return _normalised(sparse.hstack([identity, features], format="csr"))


def _normalised(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    sums = np.asarray(matrix.sum(axis=1)).ravel()
    return (sparse.diags(1.0 / np.maximum(sums, 1e-9)) @ matrix).tocsr().astype(np.float32)
