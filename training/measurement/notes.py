"""Remarks on a measurement that a marketer reads, in English and Chinese."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Language = Literal["en", "zh"]


@dataclass(frozen=True)
class Note:
    """A remark in both languages.

    Examples
    --------
    >>> Note("3 rows are left out", "已排除 3 行").text("zh")
    '已排除 3 行'
    """

    en: str
    zh: str

    def text(self, language: Language) -> str:
        """The remark in one of the languages."""
        return self.zh if language == "zh" else self.en
