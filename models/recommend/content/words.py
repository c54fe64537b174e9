"""What contents and items are about: topics, categories and tags as words of one vocabulary."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.contents import ContentSet
from features.interactions import TrainingSet

SHOWN_WORDS = 0.5  # what a word of an item that a content shows counts beside one of its own topics


@dataclass(frozen=True)
class TopicMatrices:
    """What contents and items are about, in one vocabulary: topics, levels of categories, tags; lower case.

    Attributes
    ----------
    contents : csr_matrix, (n_contents, w)
        Topics count 1, words of the items a content shows `SHOWN_WORDS`; rows sum to 1.
    items : csr_matrix, (n_items, w)
        1 where an item of the shop has a word; no rows where nothing is known of it.
    shown : csr_matrix, (n_contents, n_items)
        1 where a content shows an item.
    vocabulary : ndarray of str, (w,)
        Sorted.
    """

    contents: sparse.csr_matrix
    items: sparse.csr_matrix
    shown: sparse.csr_matrix
    vocabulary: NDArray[np.str_]

    @classmethod
    def of(cls, train: TrainingSet) -> TopicMatrices:
        """Of a `ContentSet`; of any other training set the categories are the topics."""
        columns, purchases = train.item_attributes, train.purchases if isinstance(train, ContentSet) else None
        topics = (
            [_parts(text, "|") for text in columns["topics"].tolist()]
            if "topics" in columns
            else _levels(columns["category"])
        )
        sold: list[list[str]] = []
        shown = sparse.csr_matrix((train.n_items, 0), dtype=np.float32)
        if purchases is not None:
            tags = purchases.item_attributes.get("tags", np.full(purchases.n_items, ""))
            sold = [
                [*own, *_parts(text, "|")]
                for own, text in zip(_levels(purchases.item_attributes["category"]), tags.tolist(), strict=True)
            ]
            shown = _shown(columns.get("item_ids"), purchases.item_ids, train.n_items)
        vocabulary = {
            word: place for place, word in enumerate(sorted({word for own in (*topics, *sold) for word in own}))
        }
        about, items = _counts(topics, vocabulary), _counts(sold, vocabulary)
        by_items = (shown @ items).tocsr()
        by_items.data[:] = SHOWN_WORDS
        about = about.maximum(by_items).tocsr()
        sums = np.asarray(about.sum(axis=1)).ravel()
        scaled = (sparse.diags((1.0 / np.maximum(sums, 1e-9)).astype(np.float32)) @ about).tocsr()
        return cls(scaled, items, shown, np.array(list(vocabulary), dtype=np.str_))


def _parts(text: str, separator: str) -> list[str]:
    return [part.strip().lower() for part in text.split(separator) if part.strip()]


def _levels(categories: NDArray[np.str_]) -> list[list[str]]:
    return [_parts(path, "/") for path in categories.tolist()]


def _counts(words: Iterable[list[str]], vocabulary: dict[str, int]) -> sparse.csr_matrix:
    """1 where a row has a word."""
    rows = [[vocabulary[word] for word in sorted(set(own))] for own in words]
    bounds = np.concatenate([[0], np.cumsum([len(own) for own in rows])]).astype(np.int64)
    columns = np.array([column for own in rows for column in own], dtype=np.int64)
    return sparse.csr_matrix((np.ones(len(columns), np.float32), columns, bounds), shape=(len(rows), len(vocabulary)))


def _shown(item_ids: NDArray[np.str_] | None, known: NDArray[np.str_], n_contents: int) -> sparse.csr_matrix:
    place = {item: column for column, item in enumerate(known.tolist())}
    pairs = [
        (row, place[item])
        for row, text in enumerate([] if item_ids is None else item_ids.tolist())
        for item in dict.fromkeys(text.split("|"))
        if item in place
    ]
    rows, columns = zip(*pairs, strict=True) if pairs else ((), ())
    return sparse.csr_matrix((np.ones(len(pairs), np.float32), (rows, columns)), shape=(n_contents, len(known)))
