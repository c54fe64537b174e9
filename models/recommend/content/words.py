"""Topics of contents and categories and tags of items, as words of one vocabulary."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.interactions import ContentSet, TrainingSet

SHOWN_WORDS = 0.5  # weight of a word of a shown item, relative to a topic of the content


@dataclass(frozen=True)
class TopicMatrices:
    """Words of contents and items in one vocabulary of topics, category levels and tags, in lower case.

    Attributes
    ----------
    contents : csr_matrix, (n_contents, w)
        Words of each content; topics count 1, words of shown items `SHOWN_WORDS`, and rows are scaled to sum 1.
    items : csr_matrix, (n_items, w)
        1 where an item of the shop has a word; no rows if there are no purchases.
    shown : csr_matrix, (n_contents, n_items)
        1 where a content shows an item.
    vocabulary : ndarray of str, (w,)
        The words, sorted.
    """

    contents: sparse.csr_matrix
    items: sparse.csr_matrix
    shown: sparse.csr_matrix
    vocabulary: NDArray[np.str_]

    @classmethod
    def of(cls, train: TrainingSet) -> TopicMatrices:
        """Build the matrices of a `ContentSet`; in any other training set, the categories serve as topics."""
        columns, purchases = train.item_attributes, train.purchases if isinstance(train, ContentSet) else None
        if "topics" in columns:
            topics = [_parts(text, "|") for text in columns["topics"].tolist()]
        else:
            topics = _levels(columns["category"])
        sold: list[list[str]] = []
        shown = sparse.csr_matrix((train.n_items, 0), dtype=np.float32)
        if purchases is not None:
            tags = purchases.item_attributes.get("tags", np.full(purchases.n_items, ""))
            sold = [
                [*own, *_parts(text, "|")]
                for own, text in zip(_levels(purchases.item_attributes["category"]), tags.tolist(), strict=True)
            ]
            shown = _shown(columns.get("item_ids"), purchases.item_ids, train.n_items)
        distinct = sorted({word for words in (*topics, *sold) for word in words})
        vocabulary = {word: place for place, word in enumerate(distinct)}
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
    """Return a 0/1 matrix of rows by words, with 1 where a row has a word."""
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
