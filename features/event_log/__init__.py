"""The event log: accepted events are durable at once, deduplicated, and readable by all processes.

`open_log` opens one. A new store is one file and one line in `EVENT_LOGS`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from features.event_log.base import AcceptedEvent, EventLog, LoggedEvent, Stored
from features.event_log.erased_users import Hasher
from features.event_log.tail import Tail
from qianmian.errors import UsageError
from qianmian.registry import Registry

# scheme → module and class, so that a driver is imported only where it is used
EVENT_LOGS: Registry[str] = Registry(
    "event log",
    {
        "sqlite": "features.event_log.sqlite:SqliteLog",
        "redis": "features.event_log.redis_log:RedisLog",
        "rediss": "features.event_log.redis_log:RedisLog",
    },
)


def open_log(location: str | Path, hasher: Hasher | None = None) -> EventLog:
    """Open the log at a path (SQLite) or a URL, `redis://…` or `rediss://…`; a file that is missing is created.

    Parameters
    ----------
    location : str or Path
    hasher : Hasher, optional
        Makes the tombstone of a user id (`features.erasure.hasher.TombstoneHasher`). Without it a log can be read, and
        appended to only as long as no user was erased from it.

    Raises
    ------
    StorageError
        It cannot be opened, or is of a newer format.
    UsageError
        No store has this scheme, or its driver is not installed.
    """
    scheme = str(location).partition("://")[0] if "://" in str(location) else "sqlite"
    module, name = EVENT_LOGS[scheme].split(":")
    try:
        store: Callable[[str | Path, Hasher | None], EventLog] = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise UsageError(f"the driver {error.name} is not installed", hint="pip install 'qianmian[redis]'") from error
    return store(location, hasher)


__all__ = ["EVENT_LOGS", "AcceptedEvent", "EventLog", "LoggedEvent", "Stored", "Tail", "open_log"]
