"""A read-only registry of named entries: sources, features, tags, models, endpoints and commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

from qianmian.errors import UsageError

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Ordered, read-only mapping from name to entry; a failed lookup lists the valid names.

    Parameters
    ----------
    kind : str
        What an entry is, for the error message.
    entries : mapping of str to T
        Entries by name, in the order of the listing.

    Examples
    --------
    >>> colours = Registry("colour", {"red": 1, "blue": 2})
    >>> colours["red"]
    1
    >>> colours["green"]
    Traceback (most recent call last):
    ...
    qianmian.errors.UsageError: unknown colour (got 'green'; allowed: red, blue)
    """

    def __init__(self, kind: str, entries: Mapping[str, T]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            raise UsageError(f"unknown {self.kind}", got=name, allowed=", ".join(self._entries))
        return self._entries[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The entry of that name, or `default`; does not raise."""
        return self._entries.get(name, default)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
