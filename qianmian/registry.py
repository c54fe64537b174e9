"""A read-only registry of named entries: sources, features, tags, models, endpoints and commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
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
        self._entries: Mapping[str, Any] = dict(entries)

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            raise UsageError(f"unknown {self.kind}", got=name, allowed=", ".join(self._entries))
        entry: T = self._entries[name]
        return entry

    def get(self, name: str, default: Any = None) -> Any:
        """The entry of that name, or `default`; does not raise."""
        return self._entries.get(name, default)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


class LazyRegistry(Registry[T]):
    """A registry whose entries are imported at first use.

    Parameters
    ----------
    kind : str
        What an entry is, for the error message.
    places : mapping of str to str
        Module and attribute of each entry by its name, as ``package.module:ATTRIBUTE``.

    Examples
    --------
    >>> LazyRegistry("constant", {"pi": "math:pi"})["pi"]
    3.141592653589793
    """

    def __init__(self, kind: str, places: Mapping[str, str]) -> None:
        super().__init__(kind, {})
        self._entries = dict(places)

    def __getitem__(self, name: str) -> T:
        module, attribute = str(super().__getitem__(name)).split(":")
        entry: T = getattr(import_module(module), attribute)
        return entry

    def get(self, name: str, default: Any = None) -> Any:
        """The entry of that name, or `default`; does not raise."""
        return self[name] if name in self._entries else default
