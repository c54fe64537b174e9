"""The interface between the builder and an engine."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

import pyarrow as pa

from features.compute.algebra import Feature
from features.compute.views import PreparedTables


class Engine(Protocol):
    """Runs feature expressions over one lake.

    Attributes
    ----------
    backend : ibis.BaseBackend
        Connection with one table per canonical table, and `customers`.
    rows : PreparedTables
        Source rows of all views, with days and hours in the time zone of the engine (`rows.local_time`).
    """

    name: str
    backend: Any
    rows: PreparedTables

    def table(self, features: Sequence[Feature], as_of: datetime) -> pa.Table:
        """In-memory table of `one_id`, `user_id`, `user_source` and one column per feature, sorted by `one_id`."""
        ...
