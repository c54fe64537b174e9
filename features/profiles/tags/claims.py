"""Claims: what a tag says about the time after it, as data that `qianmian tags validate` compares with what followed.

A claim is about all customers with a value together, not about one of them. A tag that only describes the past (the age
band, the channel of the first order, the days since the last one) has no claim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from features.compute.algebra import Condition

Aggregate = Literal["any", "count", "sum", "mean", "share", "ratio", "rows_per", "named_share"]
ZERO_WITHOUT_ROWS = ("any", "count", "sum")  # of the other aggregates, customers without later rows have none
COVERAGE = 0.8  # share of the customers whose next order an interval promises to contain
QUARTERS = ("highest quarter", "third quarter", "second quarter", "lowest quarter")


@dataclass(frozen=True)
class Later:
    """One number per customer about the rows after the moment of a tag.

    Attributes
    ----------
    what : str
        The number in words.
    view : str
        View whose rows are aggregated (`features.compute.views`).
    aggregate : str
        ``any``: 1 if there is a row, else 0; ``count``, ``sum``, ``mean`` as usual; ``share``: rows that pass `where` ÷
        all rows; ``ratio``: sum(`column`) ÷ sum(`over`); ``rows_per``: rows ÷ different values of `column`;
        ``named_share``: share of the rows whose `column` has the value of another tag (`Ordering.named`).
    among : tuple of Condition
        Rows that do not pass are not there at all.
    where : tuple of Condition
        Condition of a ``share``.
    """

    what: str
    view: str
    aggregate: Aggregate
    column: str = ""
    over: str = ""
    where: tuple[Condition, ...] = ()
    among: tuple[Condition, ...] = ()


@dataclass(frozen=True)
class Ordering:
    """The mean of `later` falls from value to value.

    Attributes
    ----------
    later : Later
        What is compared.
    chains : tuple of tuple
        Values of the tag, the one with the highest mean first. In each chain the first is above the last, and no value
        is below its successor beyond chance. Other values of the tag are reported and not compared.
    days : tuple of int
        Days after the moment in which `later` is measured, each on its own; empty for the horizon of the command.
    named : str
        For ``named_share``: the tag whose value is counted.
    """

    later: Later
    chains: tuple[tuple[str | bool, ...], ...]
    days: tuple[int, ...] = ()
    named: str = ""


@dataclass(frozen=True)
class Rising:
    """The mean of `later` rises with the number of the tag, compared by quarters of the customers; or it falls."""

    later: Later
    falls: bool = False

    @property
    def chain(self) -> tuple[str, ...]:
        """The quarters, the one with the highest mean first."""
        return QUARTERS[::-1] if self.falls else QUARTERS


@dataclass(frozen=True)
class Preference:
    """The named value has a larger share in the later rows of the customer than in those of everybody.

    Attributes
    ----------
    view, column : str
        Column of the later rows that has the value.
    names : tuple of (str, tuple)
        Value of the tag → values of the column, if they differ (a weekday → its number); all others count as another.
    """

    view: str
    column: str
    names: tuple[tuple[str, tuple[Any, ...]], ...] = ()


@dataclass(frozen=True)
class NextOrder:
    """The number is the days to the next order: it ranks the waits, and the interval contains `coverage` of them.

    Attributes
    ----------
    low, high : str
        Tags with the bounds of the interval, as dates or in days; empty without an interval.
    coverage : float
        Share of the waits that the interval promises to contain.
    """

    low: str = ""
    high: str = ""
    coverage: float = COVERAGE


Claim = Ordering | Rising | Preference | NextOrder


def needed_tags(claim: Claim) -> tuple[str, ...]:
    """Names of the other tags that a claim reads."""
    if isinstance(claim, NextOrder):
        return tuple(name for name in (claim.low, claim.high) if name)
    return (claim.named,) if isinstance(claim, Ordering) and claim.named else ()


def claim_text(claim: Claim) -> str:
    """The claim in words."""
    if isinstance(claim, Ordering):
        chains = "; ".join(" > ".join(_value_text(value) for value in chain) for chain in claim.chains)
        return f"{claim.later.what}: {chains}"
    if isinstance(claim, Rising):
        return f"{claim.later.what} {'falls' if claim.falls else 'rises'} with the number"
    if isinstance(claim, Preference):
        return f"share of the value in the later {claim.view} above its share among everybody"
    interval = f", and {100 * claim.coverage:.0f} % of the next orders within the interval" if claim.low else ""
    return f"days to the next order, in the right order{interval}"


def _value_text(value: str | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else value
