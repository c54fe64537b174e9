"""What items are, in a form in which any two of them (or one nobody has seen) can be compared."""

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
NOT_COMPARED = ("available", "category")  # the category has levels of its own
MAX_TAGS = 256  # of a column that joins several by |; the commonest
UNKNOWN_SIMILARITY = np.float32(0.5)
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ItemFeatures:
    """Items described.

    Attributes
    ----------
    vectors : ndarray of float32, (n, d)
        Of the items' customers, of length 1; 0 where nobody is known to have had the item.
    popularity : ndarray of float32, (n, 2)
        Log of the recent customers, and of all.
    numbers : dict of str to ndarray of float32, (n,)
        Prices as logarithms, other numbers in standard deviations; NaN unknown.
    codes : dict of str to ndarray of int32, (n,)
        Index into `values`; −1 unknown.
    tags : dict of str to ndarray of float32, (n, t)
        Columns whose values are joined by ``|``, of length 1.
    levels : ndarray of int32, (n, depth)
        Category path, level by level: index into `paths`, −1 past its end.
    values : dict of str to ndarray of str
    paths : ndarray of str
    scales : dict of str to float
        Standard deviation of each number.
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
        """The columns of `TrainingSet.item_attributes`; who had the items is not told yet."""
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
                scales[name] = (
                    1.0 if name == "price" else float(np.nanstd(number)) if np.isfinite(number).any() else 0.0
                )
                if scales[name] > 0 and np.isfinite(number).any():
                    numbers[name] = (number / scales[name]).astype(np.float32)
        paths, levels = _levels(attributes["category"])
        nothing = np.zeros((n, 1), dtype=np.float32)
        return cls(nothing, np.zeros((n, 2), np.float32), numbers, codes, tags, levels, values, paths, scales)

    def __len__(self) -> int:
        return len(self.levels)

    @property
    def names(self) -> list[str]:
        """What `similarity_features` compares, in order."""
        return [BEHAVIOUR, *POPULARITY_FEATURES, *self.numbers, *self.codes, *self.tags]

    def type_of(self, name: str) -> str:
        """``number`` or ``text``."""
        return "number" if name in self.numbers else "text"

    @property
    def leaf(self) -> NDArray[np.int32]:
        """The last level of each item's category, −1 without any."""
        depth = (self.levels >= 0).sum(axis=1)
        last = (
            self.levels[np.arange(len(self)), np.maximum(depth - 1, 0)]
            if self.levels.shape[1]
            else np.zeros(len(self), np.int32)
        )
        return np.where(depth > 0, last, -1).astype(np.int32)

    def with_behaviour(self, vectors: Floats, popularity: Floats) -> ItemFeatures:
        """The same items, with who had them."""
        return replace(self, vectors=vectors, popularity=popularity)

    def take(self, rows: NDArray[np.integer[Any]]) -> ItemFeatures:
        """Some of the items."""
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
        """One item that nobody had yet, by its attributes; a value no other item has agrees with none.

        Raises
        ------
        InvalidRequest
            An attribute items do not have, or text where a number belongs.
        """
        known = ["category", *self.numbers, *self.codes, *self.tags]
        if unknown := [name for name in attributes if name not in known]:
            raise InvalidRequest("items have no such attribute", got=", ".join(unknown), allowed=", ".join(known))
        numbers = {name: np.array([np.nan], dtype=np.float32) for name in self.numbers}
        for name in self.numbers:
            given = attributes.get(name)
            if given is None:
                continue
            if isinstance(given, bool) or not isinstance(given, int | float):
                raise InvalidRequest(f"{name} is a number", got=given, field=name)
            number = (
                np.log(given)
                if name == "price" and given > 0
                else np.nan
                if name == "price"
                else given / self.scales[name]
            )
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
        """The text columns two items agree in; the category as far as it is shared."""
        shared = [
            level
            for level, match in zip(self.levels[item], self.levels[other], strict=True)
            if level >= 0 and level == match
        ]
        found = {"category": str(self.paths[shared[-1]])} if shared else {}
        same = {
            name: int(column[item])
            for name, column in self.codes.items()
            if column[item] >= 0 and column[item] == column[other]
        }
        return {**found, **{name: str(self.values[name][code]) for name, code in same.items()}}

    def state(self) -> Arrays:
        """As arrays."""
        kept: Arrays = {
            "vectors": self.vectors,
            "popularity": self.popularity,
            "levels": self.levels,
            "paths": self.paths,
        }
        for part in ("numbers", "codes", "tags"):
            names = list(getattr(self, part))
            kept[f"{part}_names"] = np.array(names, dtype=np.str_)
            for place, name in enumerate(names):  # a column may have any name
                kept[f"{part}_{place}"] = getattr(self, part)[name]
                if part == "numbers":
                    kept[f"scale_{place}"] = np.array(self.scales[name])
                else:
                    kept[f"{part}_values_{place}"] = self.values[name]
        return kept

    @classmethod
    def restored(cls, state: Arrays) -> ItemFeatures:
        """The inverse of `state`."""
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
    """Which sort of likeness each of `ItemFeatures.names` is."""
    return [name if name == BEHAVIOUR else POPULARITY if name in POPULARITY_FEATURES else ATTRIBUTES for name in names]


def similarity_features(left: ItemFeatures, right: ItemFeatures, *, paired: bool) -> Any:
    """How close items are in each of `ItemFeatures.names`.

    The cosine of vectors and tags; the popularity of the right one; ``exp(−|a − b|)`` of numbers (of prices the cheaper one's share of the
    other), `UNKNOWN_SIMILARITY` where one is unknown; 1 or 0 for text.

    Parameters
    ----------
    paired : bool
        True: row by row, an array (n, f). False: each with each, a list of f arrays (a, b) or (1, b).
    """

    def product(one: Floats, other: Floats) -> Floats:
        made: Floats = np.einsum("nd,nd->n", one, other) if paired else one @ other.T
        return made

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
    """How many levels of its category each left item shares with each right one, (a, b)."""
    shared = np.zeros((len(left), len(right)), dtype=np.float32)
    for level in range(left.levels.shape[1]):
        own = left.levels[:, level, None]
        shared += (own >= 0) & (own == right.levels[None, :, level])
    return shared


def _codes(column: NDArray[np.str_], values: NDArray[np.str_]) -> NDArray[np.int32]:
    """Place of each text in sorted `values`, −1 where it is not in them or is empty."""
    if not len(values):
        return np.full(len(column), -1, dtype=np.int32)
    place = np.minimum(np.searchsorted(values, column), len(values) - 1)
    return np.where((values[place] == column) & (column != ""), place, -1).astype(np.int32)


def _commonest(column: NDArray[np.str_]) -> NDArray[np.str_]:
    found, counts = np.unique([tag for text in column.tolist() for tag in text.split("|") if tag], return_counts=True)
    return np.sort(found[np.argsort(-counts, kind="stable")[:MAX_TAGS]])


def _one_hot(column: NDArray[np.str_], values: NDArray[np.str_]) -> Floats:
    """Rows of length 1, 0 for an item without any of the tags, (n, t)."""
    rows = [(row, tag) for row, text in enumerate(column.tolist()) for tag in set(text.split("|"))]
    codes = _codes(np.array([tag for _, tag in rows], dtype=np.str_), values)
    hot = np.zeros((len(column), len(values)), dtype=np.float32)
    known = codes >= 0
    hot[np.array([row for row, _ in rows], dtype=np.int64)[known], codes[known]] = 1.0
    hot /= np.maximum(np.linalg.norm(hot, axis=1, keepdims=True), np.float32(1.0))
    return hot


def _levels(categories: NDArray[np.str_]) -> tuple[NDArray[np.str_], NDArray[np.int32]]:
    """Every category path and what it begins with, sorted; and for each item the places of its own, (n, depth)."""
    distinct, of = np.unique(categories, return_inverse=True)
    split = [path.split("/") if path else [] for path in distinct.tolist()]
    prefixes = [["/".join(levels[: depth + 1]) for depth in range(len(levels))] for levels in split]
    paths = np.unique(np.array([prefix for own in prefixes for prefix in own] or [""], dtype=np.str_))
    depth = max((len(own) for own in prefixes), default=0)
    table = np.full((len(distinct), depth), -1, dtype=np.int32)
    for row, own in enumerate(prefixes):
        table[row, : len(own)] = np.searchsorted(paths, np.array(own, dtype=np.str_)) if own else []
    return paths, table[of]
