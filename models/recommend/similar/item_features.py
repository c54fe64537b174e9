"""Item features for pairwise comparison, also with new items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.persist import Arrays
from qianmian.errors import InvalidRequest

BEHAVIOUR, POPULARITY, ATTRIBUTES = "behaviour", "popularity", "attributes"
POPULARITY_FEATURES = ("recent customers", "customers")
NOT_COMPARED = ("available", "category")  # the category is compared by its levels
MAX_TAGS = 256  # number of tags kept of a multi-valued column, the most frequent ones
UNKNOWN_SIMILARITY = np.float32(0.5)
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ItemFeatures:
    """Features of items.

    Attributes
    ----------
    vectors : ndarray of float32, (n, d)
        Vectors of the customers of each item, of norm 1; 0 for an item without customers.
    popularity : ndarray of float32, (n, 2)
        Logarithms of the recent customers and of all customers.
    numbers : dict of str to ndarray of float32, (n,)
        Logarithms of prices; other numbers in standard deviations; NaN if missing.
    codes : dict of str to ndarray of int32, (n,)
        Text attributes as indices into `values`; −1 if missing.
    tags : dict of str to ndarray of float32, (n, t)
        Attributes with several values joined by ``|``, as vectors of norm 1.
    levels : ndarray of int32, (n, depth)
        Levels of the category path as indices into `paths`; −1 past the end of the path.
    values : dict of str to ndarray of str
        Distinct values of each text attribute, sorted.
    paths : ndarray of str
        All category paths and their prefixes, sorted.
    scales : dict of str to float
        Standard deviation of each number; 1 for prices.
    """

    vectors: Floats
    popularity: Floats
    numbers: Mapping[str, Floats]
    codes: Mapping[str, NDArray[np.int32]]
    tags: Mapping[str, Floats]
    levels: NDArray[np.int32]
    values: Mapping[str, NDArray[np.str_]]
    paths: NDArray[np.str_]
    scales: Mapping[str, float]

    @classmethod
    def of(cls, attributes: Mapping[str, NDArray[Any]]) -> ItemFeatures:
        """Build the features from `TrainingSet.item_attributes`, with empty vectors and popularity."""
        n = len(attributes["category"])
        numbers, codes, tags, values, scales = {}, {}, {}, {}, {}
        for name, column in attributes.items():
            if name in NOT_COMPARED:
                continue
            if column.dtype.kind == "U":
                if np.char.find(column, "|").max(initial=-1) >= 0:
                    values[name] = _commonest(column)
                    tags[name] = _one_hot(column, values[name])
                elif len(found := np.unique(column)) > 1:
                    values[name] = found[found != ""]
                    codes[name] = _codes(column, values[name])
            elif column.dtype.kind == "f":
                number = np.log(np.where(column > 0, column, np.nan)) if name == "price" else column.astype(np.float64)
                if name == "price":
                    scales[name] = 1.0
                else:
                    scales[name] = float(np.nanstd(number)) if np.isfinite(number).any() else 0.0
                if scales[name] > 0 and np.isfinite(number).any():
                    numbers[name] = (number / scales[name]).astype(np.float32)
        paths, levels = _levels(attributes["category"])
        nothing = np.zeros((n, 1), dtype=np.float32)
        return cls(nothing, np.zeros((n, 2), np.float32), numbers, codes, tags, levels, values, paths, scales)

    def __len__(self) -> int:
        return len(self.levels)

    @property
    def names(self) -> list[str]:
        """The names of the `similarity_features`, in order."""
        return [BEHAVIOUR, *POPULARITY_FEATURES, *self.numbers, *self.codes, *self.tags]

    def type_of(self, name: str) -> str:
        """Return the type of an attribute, ``number`` or ``text``."""
        return "number" if name in self.numbers else "text"

    @property
    def leaf(self) -> NDArray[np.int32]:
        """The last level of the category of each item, (n,); −1 without a category."""
        depth = (self.levels >= 0).sum(axis=1)
        last = np.zeros(len(self), np.int32)
        if self.levels.shape[1]:
            last = self.levels[np.arange(len(self)), np.maximum(depth - 1, 0)]
        return np.where(depth > 0, last, -1).astype(np.int32)

    def with_behaviour(self, vectors: Floats, popularity: Floats) -> ItemFeatures:
        """Return the items with the given vectors and popularity."""
        return replace(self, vectors=vectors, popularity=popularity)

    def take(self, rows: NDArray[np.integer[Any]]) -> ItemFeatures:
        """Return the features of some of the items."""
        return replace(
            self,
            vectors=self.vectors[rows],
            popularity=self.popularity[rows],
            levels=self.levels[rows],
            numbers={name: column[rows] for name, column in self.numbers.items()},
            codes={name: column[rows] for name, column in self.codes.items()},
            tags={name: column[rows] for name, column in self.tags.items()},
        )

    def from_attributes(self, attributes: Mapping[str, Any]) -> ItemFeatures:
        """Return the features of one new item; an unknown value of an attribute equals that of no other item.

        Raises
        ------
        InvalidRequest
            An attribute is unknown, or a numeric attribute is not a number.
        """
        known = ["category", *self.numbers, *self.codes, *self.tags]
        if unknown := [name for name in attributes if name not in known]:
            raise InvalidRequest("unknown item attribute", got=", ".join(unknown), allowed=", ".join(known))
        numbers = {name: np.array([np.nan], dtype=np.float32) for name in self.numbers}
        for name in self.numbers:
            given = attributes.get(name)
            if given is None:
                continue
            if isinstance(given, bool) or not isinstance(given, int | float):
                raise InvalidRequest(f"{name} must be a number", got=given, field=name)
            number = given / self.scales[name]
            if name == "price":
                number = np.log(given) if given > 0 else np.nan
            numbers[name] = np.array([number], dtype=np.float32)
        codes = {name: _codes(np.array([str(attributes.get(name, ""))]), self.values[name]) for name in self.codes}
        tags = {name: _one_hot(np.array([str(attributes.get(name, ""))]), self.values[name]) for name in self.tags}
        path, depth = str(attributes.get("category", "")).split("/"), self.levels.shape[1]
        prefixes = np.array(["/".join(path[: level + 1]) for level in range(min(len(path), depth))] or [""])
        levels = np.full((1, depth), -1, dtype=np.int32)
        if depth:
            levels[0, : len(prefixes)] = _codes(prefixes, self.paths)
        return replace(
            self,
            vectors=np.zeros((1, self.vectors.shape[1]), np.float32),
            popularity=np.zeros((1, 2), np.float32),
            numbers=numbers,
            codes=codes,
            tags=tags,
            levels=levels,
        )

    def shared_attributes(self, item: int, other: int) -> dict[str, str]:
        """Return the text attributes in which two items agree, and the shared levels of the category."""
        shared = [
            level
            for level, match in zip(self.levels[item], self.levels[other], strict=True)
            if level >= 0 and level == match
        ]
        found = {"category": str(self.paths[shared[-1]])} if shared else {}
        for name, column in self.codes.items():
            if column[item] >= 0 and column[item] == column[other]:
                found[name] = str(self.values[name][int(column[item])])
        return found

    def state(self) -> Arrays:
        """Return the features as arrays, for saving."""
        kept: Arrays = {
            "vectors": self.vectors,
            "popularity": self.popularity,
            "levels": self.levels,
            "paths": self.paths,
        }
        for part in ("numbers", "codes", "tags"):
            names = list(getattr(self, part))
            kept[f"{part}_names"] = np.array(names, dtype=np.str_)
            for place, name in enumerate(names):  # columns may have any name, so the arrays are numbered
                kept[f"{part}_{place}"] = getattr(self, part)[name]
                if part == "numbers":
                    kept[f"scale_{place}"] = np.array(self.scales[name])
                else:
                    kept[f"{part}_values_{place}"] = self.values[name]
        return kept

    @classmethod
    def restored(cls, state: Arrays) -> ItemFeatures:
        """Build the features from the arrays of `state`."""
        parts: dict[str, dict[str, Any]] = {"numbers": {}, "codes": {}, "tags": {}}
        values, scales = {}, {}
        for part, columns in parts.items():
            for place, name in enumerate(state[f"{part}_names"].tolist()):
                columns[name] = state[f"{part}_{place}"]
                if part == "numbers":
                    scales[name] = float(state[f"scale_{place}"])
                else:
                    values[name] = state[f"{part}_values_{place}"]
        return cls(
            state["vectors"],
            state["popularity"],
            parts["numbers"],
            parts["codes"],
            parts["tags"],
            state["levels"],
            values,
            state["paths"],
            scales,
        )


def feature_kinds(names: Sequence[str]) -> list[str]:
    """Return the kind of each of `ItemFeatures.names`: behaviour, popularity or attributes."""
    return [name if name == BEHAVIOUR else POPULARITY if name in POPULARITY_FEATURES else ATTRIBUTES for name in names]


def similarity_features(left: ItemFeatures, right: ItemFeatures, *, paired: bool) -> Any:
    """Compute the similarity of items in each of `ItemFeatures.names`.

    The features are the cosine of vectors and tags, the popularity of the right item, ``exp(−|a − b|)`` of numbers (for
    prices, the ratio of the lower to the higher one; `UNKNOWN_SIMILARITY` if a number is missing), and equality of
    text.

    Parameters
    ----------
    left, right : ItemFeatures
        The items to compare.
    paired : bool
        True compares row by row and returns an array (n, f). False compares all a left items with all b right items and
        returns a list of f arrays, (a, b) or (1, b).
    """

    def product(a: Floats, b: Floats) -> Floats:
        result: Floats = np.einsum("nd,nd->n", a, b) if paired else a @ b.T
        return result

    def spread(column: NDArray[Any]) -> NDArray[Any]:
        return column if paired else column[:, None]

    found: list[NDArray[Any]] = [product(left.vectors, right.vectors)]
    found += [
        right.popularity[:, place] if paired else right.popularity[None, :, place]
        for place in range(len(POPULARITY_FEATURES))
    ]
    for name, number in left.numbers.items():
        close = np.exp(-np.abs(spread(number) - right.numbers[name]))
        found.append(np.where(np.isnan(close), UNKNOWN_SIMILARITY, close))
    for name, code in left.codes.items():
        found.append(((spread(code) == right.codes[name]) & (spread(code) >= 0)).astype(np.float32))
    found += [product(tags, right.tags[name]) for name, tags in left.tags.items()]
    return np.column_stack(found).astype(np.float32) if paired else found


def shared_levels(left: ItemFeatures, right: ItemFeatures) -> Floats:
    """Count the category levels that each left item shares with each right item, (a, b)."""
    shared = np.zeros((len(left), len(right)), dtype=np.float32)
    for level in range(left.levels.shape[1]):
        own = left.levels[:, level, None]
        shared += (own >= 0) & (own == right.levels[None, :, level])
    return shared


def _codes(column: NDArray[np.str_], values: NDArray[np.str_]) -> NDArray[np.int32]:
    """Return the index of each text in the sorted `values`; −1 for an unknown or empty text."""
    if not len(values):
        return np.full(len(column), -1, dtype=np.int32)
    place = np.minimum(np.searchsorted(values, column), len(values) - 1)
    return np.where((values[place] == column) & (column != ""), place, -1).astype(np.int32)


def _commonest(column: NDArray[np.str_]) -> NDArray[np.str_]:
    found, counts = np.unique([tag for text in column.tolist() for tag in text.split("|") if tag], return_counts=True)
    return np.sort(found[np.argsort(-counts, kind="stable")[:MAX_TAGS]])


def _one_hot(column: NDArray[np.str_], values: NDArray[np.str_]) -> Floats:
    """Return rows of norm 1, (n, t); 0 for an item without any of the tags."""
    rows = [(row, tag) for row, text in enumerate(column.tolist()) for tag in set(text.split("|"))]
    codes = _codes(np.array([tag for _, tag in rows], dtype=np.str_), values)
    hot = np.zeros((len(column), len(values)), dtype=np.float32)
    known = codes >= 0
    hot[np.array([row for row, _ in rows], dtype=np.int64)[known], codes[known]] = 1.0
    hot /= np.maximum(np.linalg.norm(hot, axis=1, keepdims=True), np.float32(1.0))
    return hot


def _levels(categories: NDArray[np.str_]) -> tuple[NDArray[np.str_], NDArray[np.int32]]:
    """Return all category paths with their prefixes, sorted, and the indices of the levels of each item, (n, depth)."""
    distinct, of = np.unique(categories, return_inverse=True)
    split = [path.split("/") if path else [] for path in distinct.tolist()]
    prefixes = [["/".join(levels[: depth + 1]) for depth in range(len(levels))] for levels in split]
    paths = np.unique(np.array([prefix for own in prefixes for prefix in own] or [""], dtype=np.str_))
    depth = max((len(own) for own in prefixes), default=0)
    table = np.full((len(distinct), depth), -1, dtype=np.int32)
    for row, own in enumerate(prefixes):
        table[row, : len(own)] = np.searchsorted(paths, np.array(own, dtype=np.str_)) if own else []
    return paths, table[of]
