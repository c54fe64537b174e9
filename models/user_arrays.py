"""Which arrays of a saved model belong to single users: declared on each class, so that a user can be taken out.

A class lists its declarations in `user_arrays`; whatever it does not list is of the items, or of all users together.
The contract test of the registry finds an array with an entry per user that is not declared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.persist import Arrays, UserArrays

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class UserRows:
    """An array whose rows are the users."""

    name: str

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    def of(self, arrays: Arrays, kept: Mask) -> Arrays:
        return {self.name: arrays[self.name][kept]} if self.name in arrays else {}


@dataclass(frozen=True)
class UserMatrix:
    """A CSR matrix that `pack_csr` stored under `name`, whose rows are the users.

    Attributes
    ----------
    name : str
    entries : tuple of str
        Further arrays with a value for every stored entry.
    """

    name: str
    entries: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (*_csr_names(self.name), *self.entries)

    def of(self, arrays: Arrays, kept: Mask) -> Arrays:
        return _matrix_rows(self.name, arrays, kept, self.entries)


@dataclass(frozen=True)
class UserLines:
    """Arrays with an entry per line (interaction, order, day), sorted by user.

    Attributes
    ----------
    users : str
        The user of each line; empty if `starts` alone says it.
    columns : tuple of str
        Arrays with a value per line.
    starts : str
        The lines of user u are ``starts[u]:starts[u + 1]``.
    matrix : str
        A CSR matrix, stored under this name, whose rows are the lines.
    places, columns_of : str
        An array of places of lines, and the CSR matrix with a column for each of these places.
    """

    users: str = ""
    columns: tuple[str, ...] = ()
    starts: str = ""
    matrix: str = ""
    places: str = ""
    columns_of: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        single = tuple(name for name in (self.users, self.starts, self.places) if name)
        return (*single, *self.columns, *(name for part in (self.matrix, self.columns_of) for name in _csr_names(part)))

    def of(self, arrays: Arrays, kept: Mask) -> Arrays:
        if (self.users or self.starts) not in arrays:
            return {}
        found: Arrays = {}
        if self.users:
            users = arrays[self.users]
            lines = kept[users]
            found[self.users] = (np.cumsum(kept) - 1)[users[lines]].astype(users.dtype)
        else:
            lines = np.repeat(kept, np.diff(arrays[self.starts]))
        if self.starts:
            found[self.starts] = _starts(arrays[self.starts], kept)
        found |= {name: arrays[name][lines] for name in self.columns if name in arrays}
        if self.matrix:
            found |= _matrix_rows(self.matrix, arrays, lines)
        if self.places:
            places = arrays[self.places]
            some = lines[places]
            found[self.places] = (np.cumsum(lines) - 1)[places[some]].astype(places.dtype)
            found |= _matrix_columns(self.columns_of, arrays, some)
        return found


def without_users(declared: tuple[UserArrays, ...], arrays: Arrays, kept: Mask) -> Arrays:
    """Return all arrays of a model, of the users `kept` alone.

    Examples
    --------
    >>> arrays = {"factors": np.array([[1, 1], [2, 2], [3, 3]]), "items": np.array([7, 8])}
    >>> left = without_users((UserRows("factors"),), arrays, np.array([True, False, True]))
    >>> left["factors"].tolist(), left["items"].tolist()
    ([[1, 1], [3, 3]], [7, 8])
    """
    return dict(arrays, **{name: array for one in declared for name, array in one.of(arrays, kept).items()})


def _csr_names(name: str) -> tuple[str, ...]:
    return tuple(f"{name}_{part}" for part in ("data", "indices", "indptr", "shape")) if name else ()


def _starts(starts: NDArray[Any], kept: Mask) -> NDArray[Any]:
    return np.concatenate([[0], np.cumsum(np.diff(starts)[kept])]).astype(starts.dtype)


def _matrix_rows(name: str, arrays: Mapping[str, NDArray[Any]], kept: Mask, entries: tuple[str, ...] = ()) -> Arrays:
    """Rows of a CSR matrix; `data` and `shape` may be missing, where all values are 1."""
    starts = arrays.get(f"{name}_indptr")
    if starts is None:
        return {}
    held = np.repeat(kept, np.diff(starts))
    found = {part: arrays[part][held] for part in (f"{name}_data", f"{name}_indices", *entries) if part in arrays}
    found[f"{name}_indptr"] = _starts(starts, kept)
    if (shape := arrays.get(f"{name}_shape")) is not None:
        found[f"{name}_shape"] = np.array([kept.sum(), shape[1]], dtype=shape.dtype)
    return found


def _matrix_columns(name: str, arrays: Mapping[str, NDArray[Any]], kept: Mask) -> Arrays:
    data, columns, starts, shape = (arrays[part] for part in _csr_names(name))
    held = kept[columns]
    before = np.concatenate([[0], np.cumsum(held)])
    return {
        f"{name}_data": data[held],
        f"{name}_indices": (np.cumsum(kept) - 1)[columns[held]].astype(columns.dtype),
        f"{name}_indptr": before[starts].astype(starts.dtype),
        f"{name}_shape": np.array([shape[0], kept.sum()], dtype=shape.dtype),
    }
