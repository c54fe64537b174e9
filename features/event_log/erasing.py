"""Taking a customer out of the event log of a workspace."""

from __future__ import annotations

from contextlib import closing

from features.erasure.customer import Erased, ErasedCustomer
from features.erasure.hasher import TombstoneHasher
from features.event_log import open_log
from features.event_log.location import locate
from features.event_log.rows import NO_CUSTOMER
from qianmian.config import load_settings
from qianmian.workspace import Workspace


def erase_events(workspace: Workspace, customer: ErasedCustomer) -> Erased:
    """Remove the events of a customer from the log of the workspace, and let the log refuse those that come later.

    A log that is not there yet is made, because a server that starts later has to know.

    Returns
    -------
    Erased
        How many events were removed.

    Raises
    ------
    StorageError
        The log cannot be opened or written, or somebody reads it all the time. The erasure may be run again.
    """
    location = locate(workspace, load_settings(workspace.config_file).serving)
    assert location is not None, "a workspace has a default"
    if "://" not in location:
        workspace.online.mkdir(exist_ok=True)
    hasher, users = TombstoneHasher(workspace), [user for user in customer.users if user[1] != NO_CUSTOMER]
    with closing(open_log(location, hasher)) as log:
        return Erased(log.erase(users, [hasher(*user) for user in users]))
