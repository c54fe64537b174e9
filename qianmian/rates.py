"""Rates, as settings and API keys write them: so many in a time."""

from __future__ import annotations

import re

RATE_PATTERN = r"^[1-9][0-9]{0,8}/(second|minute|hour|day)$"


def is_rate(text: object) -> bool:
    """Whether a value is a rate.

    Examples
    --------
    >>> is_rate("100/second"), is_rate("0/second"), is_rate("1/week"), is_rate(None)
    (True, False, False, False)
    """
    return isinstance(text, str) and re.fullmatch(RATE_PATTERN, text) is not None
