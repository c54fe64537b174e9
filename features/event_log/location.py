"""Where the event log of a workspace is."""

from __future__ import annotations

import os
from pathlib import Path

from qianmian.settings import ServingSettings
from qianmian.workspace import Workspace

ENVIRONMENT_VARIABLE = "QIANMIAN_ONLINE_STORE"
DEFAULT_NAME = "events.db"


def locate(workspace: Workspace | None, settings: ServingSettings) -> str | None:
    """Return the path or URL of the event log: that of the environment, else of the settings, else the default.

    Parameters
    ----------
    workspace : Workspace or None
        A path in the settings is relative to it; without one, as in a Bento, there is no default.
    """
    given = os.environ.get(ENVIRONMENT_VARIABLE)
    if given or workspace is None:
        return given or settings.online_store
    if settings.online_store is None:
        return str(workspace.require().online / DEFAULT_NAME)
    return settings.online_store if "://" in settings.online_store else str(workspace.root / settings.online_store)


def absolute(location: str) -> str:
    """Return the location for a process with another working directory.

    Examples
    --------
    >>> absolute("/data/../data/events.db"), absolute("redis://host:6379/0")
    ('/data/../data/events.db', 'redis://host:6379/0')
    """
    return location if "://" in location else str(Path(location).expanduser().absolute())
