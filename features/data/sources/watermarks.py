"""The last value of a column that grows with every change: where the next read of a database begins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

OVERLAP_SECONDS = 3_600.0  # longer than the transactions of a shop last
OVERLAP_NUMBERS = 1_000.0


@dataclass(frozen=True)
class Watermark:
    """One value of a watermark column: a time, a date, a number or a text that sorts.

    Examples
    --------
    >>> mark = Watermark.largest(None, [3, 5, None, 4])
    >>> mark.as_dict()
    {'kind': 'int', 'value': '5'}
    >>> Watermark.of(mark.as_dict()).less(2).value
    3
    """

    value: Any

    @classmethod
    def largest(cls, before: Watermark | None, values: Iterable[Any]) -> Watermark | None:
        """The largest of the values and of `before`; None if there is none."""
        found = [value for value in values if value is not None]
        largest = max([*found, *([before.value] if before else [])], default=None)
        return None if largest is None else cls(largest)

    def less(self, overlap: float | None) -> Watermark:
        """The value from which the next read begins: `overlap` seconds or numbers before this one."""
        if isinstance(self.value, datetime):
            return Watermark(self.value - timedelta(seconds=OVERLAP_SECONDS if overlap is None else overlap))
        if isinstance(self.value, date):
            return Watermark(self.value - timedelta(days=(overlap or 0) / 86_400))
        if isinstance(self.value, int | float | Decimal):
            kind: Any = type(self.value)
            return Watermark(self.value - kind(OVERLAP_NUMBERS if overlap is None else overlap))
        return self

    def as_dict(self) -> dict[str, str]:
        """The value as JSON-ready texts."""
        value = self.value.isoformat() if isinstance(self.value, date) else str(self.value)
        return {"kind": type(self.value).__name__, "value": value}

    @classmethod
    def of(cls, saved: dict[str, str]) -> Watermark:
        """The value that `as_dict` made the texts of."""
        read: dict[str, Any] = {
            "datetime": datetime.fromisoformat,
            "date": date.fromisoformat,
            "int": int,
            "float": float,
            "Decimal": Decimal,
            "str": str,
        }
        return cls(read[saved["kind"]](saved["value"]))
