"""Why an item or a score, in words that claim no more than the model holds.

A model gives facts (`Evidence`, from its `evidence(user, item)`), this file the words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from features.compute.spec import FeatureSpec
from features.interactions import Interactions
from models.recommend.base import Evidence, Recommender
from serving.champions import Champion
from serving.recommending.catalogue import Catalogue

TOP_REASONS = 3
FREQUENT_MIN_TIMES = 5  # times bought, for "often"
OWN_CYCLE_MIN_TIMES = 3  # bought so often, a customer has a cycle of their own
SOURCE_REASONS = {  # by source; {buy} is what the model counts
    "ials": "customers with a similar history {buy} it",
    "bpr": "customers with a similar history {buy} it",
    "item_knn": "customers with a similar history {buy} it",
    "spectral": "customers with a similar history {buy} it",
    "ease": "customers with a similar history {buy} it",
    "next_basket": "customers with a history like yours {buy} it next",
    "affinity": "like what you often {buy}",
    "hybrid": "popular with customers like you",
    "popular_by_segment": "popular with customers like you",
    "popular": "popular with everybody",
    "trending": "more and more customers {buy} it",
}
CUSTOMER_EVIDENCE = (
    "times",
    "last_days",
    "cycle_days",
    "own_cycle",
)  # true whichever model ranked the item; the rest only its own model may say


class Explainer:
    """Reasons for the items of one list.

    Parameters
    ----------
    row : int
        The customer, −1 for an unknown one.
    recent_interactions : Interactions, optional
        What they did after the fit.
    elapsed_days : float
        How long after the fit the moment is that the list is for.
    context_items : ndarray of int, optional
        The items the list goes with.
    """

    def __init__(
        self,
        champion: Champion,
        row: int,
        recent_interactions: Interactions | None = None,
        elapsed_days: float = 0.0,
        context_items: NDArray[np.int64] | None = None,
    ) -> None:
        self._catalogue = champion.catalogue
        self._events = champion.bundle.facts.get("interactions") == "events"
        self._row, self._recent_interactions, self._elapsed_days = row, recent_interactions, elapsed_days
        self._context_items = context_items if context_items is not None and len(context_items) else None
        self._purchases_by_group: dict[tuple[int, int], int] | None = None

    def reasons(self, column: int, source: str, *, promoted: bool = False, explored: bool = False) -> list[str]:
        """Why this item is in the list; at least one reason."""
        if promoted:
            return ["promoted"]
        has_history = self._recent_interactions is not None or self._catalogue.has_history(self._row)
        told = item_reasons(
            self.evidence(column, source), source, self._name_of, events=self._events, has_history=has_history
        )
        return [*told, "shown to learn whether you like it"] if explored else told

    def evidence(self, column: int, source: str) -> Evidence:
        """All that the models know of the customer and the item."""
        found: Evidence = {}
        for model in self._catalogue.models:
            told = self._evidence_of_model(model, column, own=model.name == source)
            if told is not None:
                found = {**told, **found}
        if self._recent_interactions is not None and (again := self._recent_interactions.items == column).any():
            found["times"] = found.get("times", 0) + int(again.sum())
            found["last_days"] = float(self._recent_interactions.age_days[again].min())
        if "times" not in found and (often := self._frequent_category(column)) is not None:
            found["often"] = often
        return found

    def _evidence_of_model(self, model: Recommender, column: int, own: bool) -> Evidence | None:
        """What one model knows; of other items only where it is the one that ranked this."""
        if not model.supports_evidence:
            return None
        told = model.evidence(
            self._row,
            column,
            recent_interactions=self._recent_interactions,
            elapsed_days=self._elapsed_days,
            items=self._context_items if own else None,
        )
        if told is None or own:
            return told
        return cast(Evidence, {name: value for name, value in told.items() if name in CUSTOMER_EVIDENCE})

    def _name_of(self, column: int) -> str:
        """What a shopper calls an item: the end of its category, as items have no names."""
        values = self._catalogue.category_of(column)
        return values[-1] if values else self._catalogue.item_ids[column]

    def _frequent_category(self, column: int) -> str | None:
        """The narrowest group of the item's category that the customer bought from `FREQUENT_MIN_TIMES` times."""
        path = self._catalogue.category_of(column)
        if not path or self._row < 0:
            return None
        if self._purchases_by_group is None:
            self._purchases_by_group = purchases_by_group(self._catalogue, self._row)
        levels = self._catalogue.levels[column]
        broadest = 1 if len(path) > 1 else 0  # a department says nothing
        for depth in range(min(len(path), len(levels)) - 1, broadest - 1, -1):
            if self._purchases_by_group.get((depth, int(levels[depth])), 0) >= FREQUENT_MIN_TIMES:
                return path[depth]
        return None


def purchases_by_group(catalogue: Catalogue, row: int) -> dict[tuple[int, int], int]:
    """How often a customer had items of each group: (level, group) → times; times are 1 an item where no model counts them."""
    counting = next((model for model in catalogue.models if model.supports_purchase_counts), None)
    columns: NDArray[np.integer[Any]] = catalogue.interacted(row)
    times: NDArray[np.integer[Any]] = np.ones(len(columns), dtype=np.int64)
    if counting is not None:
        columns, times = counting.purchase_counts(row)
    found: dict[tuple[int, int], int] = {}
    for depth in range(catalogue.levels.shape[1]):
        groups, places = np.unique(catalogue.levels[columns, depth], return_inverse=True)
        totals = np.bincount(places, weights=times, minlength=len(groups))
        found.update(
            {
                (depth, int(group)): int(total)
                for group, total in zip(groups.tolist(), totals.tolist(), strict=True)
                if group >= 0
            }
        )
    return found


def item_reasons(
    evidence: Evidence, source: str, name_of: Callable[[int], str], *, events: bool = False, has_history: bool = True
) -> list[str]:
    """The evidence in words a shopper would accept, the strongest first.

    Examples
    --------
    >>> item_reasons({"times": 9, "last_days": 26.2, "cycle_days": 24.4, "own_cycle": True}, "replenish", str)
    ['bought every 24 days, last 26 days ago']
    >>> item_reasons({"with_item": 7, "with_days": 9.0, "often": "SOUP"}, "complement", {7: "PASTA SAUCE"}.__getitem__)
    ['goes with PASTA SAUCE you bought last week', 'new in SOUP, which you buy often']
    >>> item_reasons({}, "ials", str)
    ['customers with a similar history buy it']
    """
    past_verb, buy = ("dealt with", "like") if events else ("bought", "buy")
    told = []
    if "instead_of" in evidence:
        told.append(f"a {evidence.get('better', 'better')} {name_of(evidence['instead_of'])} than you {buy}")
    elif "with_item" in evidence:
        when = f" you {past_verb} {days_ago_text(evidence['with_days'])}" if "with_days" in evidence else ""
        told.append(f"goes with {name_of(evidence['with_item'])}{when}")
    elif "alike" in evidence:
        told.append(similarity_reason(evidence["alike"]))
    if evidence.get("times"):
        told.append(_repeat_reason(evidence, past_verb))
    elif "often" in evidence and has_history:
        told.append(f"new in {evidence['often']}, which you {buy} often")
    if told:
        return told
    if source == "hybrid" and has_history:
        return ["matches what you had before and customers like you"]
    return [
        SOURCE_REASONS.get(source, "chosen for you" if has_history else "popular with customers like you").format(
            buy=buy
        )
    ]


def similarity_reason(alike: Mapping[str, str]) -> str:
    """What an item has in common with the one it is like.

    Examples
    --------
    >>> similarity_reason({"category": "GROCERY/CHEESE", "brand": "A"}), similarity_reason({})
    ('CHEESE too, of the same brand', 'had by the same kind of customers')
    """
    group = alike.get("category", "").split("/")[-1]
    if not group:
        return "of the same brand" if "brand" in alike else "had by the same kind of customers"
    return f"{group} too" + (", of the same brand" if "brand" in alike else "")


def _repeat_reason(evidence: Evidence, past_verb: str) -> str:
    times, last, cycle = evidence["times"], evidence.get("last_days", -1.0), evidence.get("cycle_days", 0.0)
    if evidence.get("own_cycle", times >= OWN_CYCLE_MIN_TIMES) and cycle >= 1 and last >= 1:
        return f"{past_verb} every {days_text(round(cycle))}, last {days_text(int(last))} ago"
    often = "once" if times == 1 else f"{times} times, last" if last >= 0 else f"{times} times"
    if last < 0:
        return f"you {past_verb} it {often}"
    return (
        f"you {past_verb} it {often} {days_text(int(last))} ago"
        if last >= 1
        else f"you {past_verb} it {often} less than a day ago"
    )


def days_ago_text(days: float) -> str:
    """How long ago, as people say it.

    Examples
    --------
    >>> [days_ago_text(days) for days in (0.2, 1.5, 4, 9, 20, 100, 800)]
    ['today', 'yesterday', '4 days ago', 'last week', '3 weeks ago', '3 months ago', 'more than a year ago']
    """
    if days < 1:
        return "today"
    if days < 2:
        return "yesterday"
    if days < 7:
        return f"{int(days)} days ago"
    if days < 14:
        return "last week"
    if days < 60:
        return f"{round(days / 7)} weeks ago"
    return f"{round(days / 30.44)} months ago" if days < 365 else "more than a year ago"


def score_reasons(
    spec: FeatureSpec, values: NDArray[np.float32], contributions: NDArray[np.float32], top: int = TOP_REASONS
) -> list[list[dict[str, Any]]]:
    """The features that moved each score most.

    Parameters
    ----------
    values, contributions : ndarray, (n, f)
        Features and what each adds to the log-odds.
    """
    best = np.argsort(-np.abs(contributions), axis=1, kind="stable")[:, :top]
    return [
        [
            _reason(spec, int(j), float(values[i, j]), float(contributions[i, j]))
            for j in columns
            if contributions[i, j] != 0.0
        ]
        for i, columns in enumerate(best.tolist())
    ]


def _reason(spec: FeatureSpec, j: int, value: float, contribution: float) -> dict[str, Any]:
    feature, vocabulary = spec.features[j], spec.vocabularies[j]
    shown: float | str | None = round(value, 4)
    if feature.categorical:
        shown = vocabulary[int(value)] if 0 <= int(value) < len(vocabulary) else None
    return {
        "feature": feature.name,
        "description": feature.description,
        "value": shown,
        "effect": "raises" if contribution > 0 else "lowers",
    }


def days_text(days: float) -> str:
    """A number of days, without needless decimals."""
    return f"{days:g} day" + ("" if days == 1 else "s")
