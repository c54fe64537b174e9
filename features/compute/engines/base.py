"""What the builder needs of an engine."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

import pyarrow as pa

from features.compute.algebra import Feature
from features.compute.views import PreparedTables


class Engine(Protocol):
    """Runs expressions over one lake.

    Attributes
    ----------
    backend : ibis.BaseBackend
        With a table a canonical table, and `customers`.
    rows : Rows
        The rows behind every view.
    """

    name: str
    backend: Any
    rows: PreparedTables

    def table(self, features: Sequence[Feature], as_of: datetime) -> pa.Table:
        """`one_id`, `user_id`, `user_source` and a column a feature, sorted by `one_id`, in memory."""
        ...
