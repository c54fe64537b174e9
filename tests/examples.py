"""How many examples a property test draws.

Each run draws others, so that few in every run find in time what many would. `make test-all` draws all of them.
"""

from __future__ import annotations

import os

ALL = "QIANMIAN_ALL_EXAMPLES" in os.environ


def examples(number: int) -> int:
    """Number of examples: the given one with the slow tests, a third of it without them."""
    return number if ALL else max(2, round(number / 3))
