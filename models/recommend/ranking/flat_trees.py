"""`FlatTrees`: the trees of several boosters as flat arrays, for the few rows of a request.

XGBoost takes about 250 µs to be called and 5 µs for each row of 400 trees, the extension 2 µs for each row (measured on
one core for the candidates of one customer, .67 and .17 ms). The margins are equal to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.persist import Arrays
from models.recommend.ranking import compiled

Floats = NDArray[np.float32]
MAX_DEPTH = 8  # a complete tree has 2 ** depth leaves, whatever the tree has


@dataclass(frozen=True)
class FlatTrees:
    """Complete trees of the same depth: node i has the children 2 i + 1 and 2 i + 2.

    Where a tree ends above that depth, the nodes below have the same leaf on all sides.

    Attributes
    ----------
    features : ndarray of int32, (boosters × trees, 2^depth − 1)
        Column that a node compares with its threshold.
    thresholds : ndarray of float32, of the same shape
        A row goes left if its value is below, else right.
    gap_right : ndarray of uint8, of the same shape
        Whether a row without a value goes right.
    leaves : ndarray of float32, (boosters × trees, 2^depth)
    starts : ndarray of float32, (boosters,)
        Margin before the first tree.
    width : int
        Number of columns.
    """

    features: NDArray[np.int32]
    thresholds: Floats
    gap_right: NDArray[np.uint8]
    leaves: Floats
    starts: Floats
    width: int

    @classmethod
    def of(cls, trees: Sequence[Sequence[dict[str, Any]]], starts: Sequence[float], width: int) -> Self | None:
        """Flatten the trees of some boosters, each as in XGBoost's JSON.

        None if the trees are too deep, or the boosters do not have the same number of trees.
        """
        every = [tree for of_booster in trees for tree in of_booster]
        depth = max((_depth(tree) for tree in every), default=0)
        if not 0 < depth <= MAX_DEPTH or len({len(of_booster) for of_booster in trees}) != 1:
            return None
        inner = 2**depth - 1
        features = np.zeros((len(every), inner), dtype=np.int32)
        thresholds = np.full((len(every), inner), np.inf, dtype=np.float32)
        gap_right = np.zeros((len(every), inner), dtype=np.uint8)
        leaves = np.empty((len(every), inner + 1), dtype=np.float32)
        for number, tree in enumerate(every):
            left, right = tree["left_children"], tree["right_children"]
            columns, values, gap_left = tree["split_indices"], tree["split_conditions"], tree["default_left"]
            below = [(0, 0)]  # node of the tree, place in the complete tree
            while below:
                node, place = below.pop()
                if place >= inner:
                    leaves[number, place - inner] = values[node]
                    continue
                children = (node, node)  # a leaf above the last level
                if left[node] >= 0:
                    features[number, place], thresholds[number, place] = columns[node], values[node]
                    gap_right[number, place] = not gap_left[node]
                    children = (left[node], right[node])
                below += [(children[0], 2 * place + 1), (children[1], 2 * place + 2)]
        return cls(features, thresholds, gap_right, leaves, np.array(starts, dtype=np.float32), width)

    def arrays(self) -> Arrays:
        """Return the attributes that are arrays, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "width"}

    def margins(self, X: Floats, missing: float = float("nan")) -> Floats:
        """Margin of each row by each booster, (m, boosters); needs `compiled.COMPILED`.

        Parameters
        ----------
        X : ndarray of float32, (m, width)
        missing : float
            What the boosters were trained on in place of NaN; NaN if they were trained on gaps.
        """
        if X.dtype != np.float32 or X.ndim != 2 or X.shape[1] != self.width:
            raise ValueError(f"rows of {self.width} float32 columns are needed, not {X.dtype} of shape {X.shape}")
        out = np.empty((len(X), len(self.starts)), dtype=np.float32)
        compiled._trees.margins(
            np.ascontiguousarray(X),
            self.features,
            self.thresholds,
            self.gap_right,
            self.leaves,
            self.starts,
            self.width,
            self.leaves.shape[1].bit_length() - 1,
            missing,
            out,
        )
        return out


def _depth(tree: dict[str, Any]) -> int:
    """Number of comparisons on the longest way through a tree; the children of a node come after it."""
    depths = [0] * len(tree["left_children"])
    for node, children in enumerate(zip(tree["left_children"], tree["right_children"], strict=True)):
        for child in children:
            if child >= 0:
                depths[child] = depths[node] + 1
    return max(depths)
