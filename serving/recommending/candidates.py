"""Candidates of each customer: the items among which a batch chooses, named in pairs of a user id and an item id."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import sparse

from features.id_map import IdMap
from features.profiles.snapshot import Snapshot
from qianmian.errors import DataError, InvalidRequest

SEPARATOR = "\x1f"


@dataclass(frozen=True)
class KnownCandidates:
    """Pairs of a customer of the profiles and an item of the model.

    Attributes
    ----------
    matrix : csr_matrix, shape (n, n_items)
        A row for each customer of the profiles; every pair is a 1.
    counts : dict of str to int
        `pairs` of the file = `used` + `repeated` + `of_unknown_users` + `of_unknown_items`.
    """

    matrix: sparse.csr_matrix
    counts: dict[str, int]


@dataclass(frozen=True)
class CustomerCandidates:
    """Pairs of a user id and an item id, as a caller names them.

    Attributes
    ----------
    pairs : pyarrow.Table
        Text columns user_id and item_id, and user_source if several sources use the ids.
    """

    pairs: pa.Table

    def known(self, customers: Snapshot, items: IdMap) -> KnownCandidates:
        """Resolve the ids. A user id that several sources use counts as unknown unless its source is named.

        Raises
        ------
        DataError
            No pair names a customer of the profiles, or none an item of the model.
        """
        rows, columns = self._rows(customers), items.rows(self.pairs["item_id"])
        for column, found, kind in (
            ("user_id", rows, "customer of the profiles; where several sources use an id, add a column user_source"),
            ("item_id", columns, "item of the model"),
        ):
            if not (found >= 0).any():
                raise DataError(
                    f"no {column} of the candidates is known",
                    got=", ".join(map(str, self.pairs[column].slice(0, 5).to_pylist())),
                    hint=f"name pairs of which {column} is a {kind}",
                )
        known = (rows >= 0) & (columns >= 0)
        shape = len(customers.one_ids), len(items)
        matrix = sparse.csr_matrix((np.ones(known.sum(), np.float32), (rows[known], columns[known])), shape=shape)
        matrix.sum_duplicates()
        matrix.data[:] = 1
        counts = {
            "pairs": len(rows),
            "used": matrix.nnz,
            "repeated": int(known.sum()) - matrix.nnz,
            "of_unknown_users": int((rows < 0).sum()),
            "of_unknown_items": int(((rows >= 0) & (columns < 0)).sum()),
        }
        return KnownCandidates(matrix, counts)

    def _rows(self, customers: Snapshot) -> NDArray[np.int64]:
        """Row of the profiles of each pair, −1 where the customer is unknown."""
        keys = self.pairs["user_id"]
        if "user_source" in self.pairs.column_names:
            keys = pc.binary_join_element_wise(keys, self.pairs["user_source"].fill_null(""), SEPARATOR)
        encoded = keys.combine_chunks().dictionary_encode()
        row_of = np.empty(len(encoded.dictionary), dtype=np.int64)
        for number, key in enumerate(encoded.dictionary.to_pylist()):
            user_id, _, source = key.partition(SEPARATOR)
            try:
                row_of[number] = customers.user_map.row(customers.resolve(user_id, source or None))
            except InvalidRequest:  # the id is ambiguous
                row_of[number] = -1
        rows: NDArray[np.int64] = row_of[np.asarray(encoded.indices)]
        return rows
