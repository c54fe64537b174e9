"""Reasons for an item or a score, as short texts that state only what the model knows.

A model returns facts (`Evidence`, from `Recommender.evidence`); this module turns them into texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from features.compute.spec import FeatureSpec
from features.interaction_types import PURCHASE, target_of
from features.interactions import Interactions
from models.recommend.base import Evidence, Recommender
from models.recommend.evidence import PURCHASE_EVIDENCE
from qianmian.interruption import checkpoint
from serving.champions import Champion
from serving.recommending.catalogue import Catalogue

TOP_REASONS = 3
FREQUENT_MIN_TIMES = 5  # purchases in a category that count as often
OWN_CYCLE_MIN_TIMES = 3  # purchases of an item from which a customer has a purchase cycle of their own
SOURCE_REASONS = {  # by source; {buy} is the verb for the interactions that the model is trained on
    "ials": "customers with a similar history {buy} it",
    "bpr": "customers with a similar history {buy} it",
    "item_knn": "customers with a similar history {buy} it",
    "spectral": "customers with a similar history {buy} it",
    "ease": "customers with a similar history {buy} it",
    "next_basket": "customers with a history like yours {buy} it next",
    "session": "often next in visits like yours",
    "session_knn": "often seen in visits like yours",
    "session_transitions": "often next in visits like yours",
    "affinity": "similar to what you often {buy}",
    "hybrid": "popular with customers like you",
    "popular_by_segment": "popular with customers like you",
    "popular": "popular with all customers",
    "trending": "more and more customers {buy} it",
}


class Explainer:
    """Reasons for the items of one list.

    Parameters
    ----------
    champion : Champion
        Recommender that made the list.
    row : int
        Row of the customer in the model, −1 for an unknown user.
    recent_interactions : Interactions, optional
        Interactions of the customer after the cutoff.
    elapsed_days : float
        Days from the `as_of` of the fit to the moment of the list.
    context_items : ndarray of int64, shape (m,), optional
        Columns of the context items.
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
        self._events = target_of(champion.bundle.facts) != PURCHASE
        self._row, self._recent_interactions, self._elapsed_days = row, recent_interactions, elapsed_days
        self._context_items = context_items if context_items is not None and len(context_items) else None
        self._purchases_by_group: dict[tuple[int, int], int] | None = None

    def reasons(self, column: int, source: str, *, promoted: bool = False, explored: bool = False) -> list[str]:
        """Return the reasons for an item, at least one.

        Parameters
        ----------
        column : int
            Column of the item.
        source : str
            Name of the model that ranked it.
        promoted, explored : bool
            Whether a promotion or exploration placed it.
        """
        checkpoint()
        if promoted:
            return ["promoted"]
        has_history = self._recent_interactions is not None or self._catalogue.has_history(self._row)
        reasons = item_reasons(
            self.evidence(column, source), source, self._name_of, events=self._events, has_history=has_history
        )
        return [*reasons, "shown to learn whether you like it"] if explored else reasons

    def evidence(self, column: int, source: str) -> Evidence:
        """Collect the facts of all models about the customer and the item; earlier models have precedence."""
        evidence: Evidence = {}
        for model in self._catalogue.models:
            own = model.name == source
            states = model.supports_evidence and (own or model.supports_purchase_evidence)
            if states and (facts := self._evidence_of_model(model, column, own=own)) is not None:
                evidence = {**facts, **evidence}
        if self._recent_interactions is not None and (again := self._recent_interactions.items == column).any():
            evidence["times"] = evidence.get("times", 0) + int(again.sum())
            evidence["last_days"] = float(self._recent_interactions.age_days[again].min())
        if "times" not in evidence and (often := self._frequent_category(column)) is not None:
            evidence["often"] = often
        return evidence

    def _evidence_of_model(self, model: Recommender, column: int, own: bool) -> Evidence | None:
        """Facts of one model; only `PURCHASE_EVIDENCE` unless the model ranked the item (`own`)."""
        facts = model.evidence(
            self._row,
            column,
            recent_interactions=self._recent_interactions,
            elapsed_days=self._elapsed_days,
            items=self._context_items if own else None,
        )
        if facts is None or own:
            return facts
        return cast(Evidence, {name: value for name, value in facts.items() if name in PURCHASE_EVIDENCE})

    def _name_of(self, column: int) -> str:
        """Name of an item in a reason: the last level of its category, because items have no names, else its id."""
        levels = self._catalogue.category_of(column)
        return levels[-1] if levels else self._catalogue.item_ids[column]

    def _frequent_category(self, column: int) -> str | None:
        """Narrowest category level of the item with at least `FREQUENT_MIN_TIMES` purchases, None if there is none."""
        path = self._catalogue.category_of(column)
        if not path or self._row < 0:
            return None
        if self._purchases_by_group is None:
            self._purchases_by_group = purchases_by_group(self._catalogue, self._row)
        levels = self._catalogue.levels[column]
        broadest = 1 if len(path) > 1 else 0  # the top level is too broad to be a reason
        for depth in range(min(len(path), len(levels)) - 1, broadest - 1, -1):
            if self._purchases_by_group.get((depth, int(levels[depth])), 0) >= FREQUENT_MIN_TIMES:
                return path[depth]
        return None


def purchases_by_group(catalogue: Catalogue, row: int) -> dict[tuple[int, int], int]:
    """Count the purchases of a customer per category level.

    Returns
    -------
    dict
        (level, group) → number of purchases. If no model counts purchases, every item counts once.
    """
    counting = next((model for model in catalogue.models if model.supports_purchase_counts), None)
    columns: NDArray[np.integer[Any]] = catalogue.interacted(row)
    times: NDArray[np.integer[Any]] = np.ones(len(columns), dtype=np.int64)
    if counting is not None:
        columns, times = counting.purchase_counts(row)
    counts: dict[tuple[int, int], int] = {}
    for depth in range(catalogue.levels.shape[1]):
        groups, inverse = np.unique(catalogue.levels[columns, depth], return_inverse=True)
        totals = np.bincount(inverse, weights=times, minlength=len(groups))
        for group, total in zip(groups.tolist(), totals.tolist(), strict=True):
            if group >= 0:
                counts[depth, int(group)] = int(total)
    return counts


def item_reasons(
    evidence: Evidence, source: str, name_of: Callable[[int], str], *, events: bool = False, has_history: bool = True
) -> list[str]:
    """Turn evidence into texts for the customer, strongest first.

    Parameters
    ----------
    evidence : Evidence
        Facts about the customer and the item.
    source : str
        Name of the model that ranked the item.
    name_of : callable
        Column of an item → its name in a text.
    events : bool
        Whether the model recommends what customers meet in any way instead of what they buy.
    has_history : bool
        Whether the customer has a history.

    Examples
    --------
    >>> item_reasons({"times": 9, "last_days": 26.2, "cycle_days": 24.4, "own_cycle": True}, "replenish", str)
    ['bought every 24 days, last 26 days ago']
    >>> item_reasons({"with_item": 7, "with_days": 9.0, "often": "SOUP"}, "complement", {7: "PASTA SAUCE"}.__getitem__)
    ['goes with PASTA SAUCE you bought last week', 'new in SOUP, which you buy often']
    >>> item_reasons({}, "ials", str)
    ['customers with a similar history buy it']
    """
    past_verb, buy = ("interacted with", "like") if events else ("bought", "buy")
    reasons = []
    if "instead_of" in evidence:
        reasons.append(f"a {evidence.get('better', 'better')} {name_of(evidence['instead_of'])} than you {buy}")
    elif "with_item" in evidence:
        when = f" you {past_verb} {days_ago_text(evidence['with_days'])}" if "with_days" in evidence else ""
        reasons.append(f"goes with {name_of(evidence['with_item'])}{when}")
    elif "alike" in evidence:
        reasons.append(similarity_reason(evidence["alike"]))
    if evidence.get("times"):
        reasons.append(_repeat_reason(evidence, past_verb))
    elif "often" in evidence and has_history:
        reasons.append(f"new in {evidence['often']}, which you {buy} often")
    if reasons:
        return reasons
    if source == "hybrid" and has_history:
        return ["based on your history and on customers like you"]
    default = "chosen for you" if has_history else "popular with customers like you"
    return [SOURCE_REASONS.get(source, default).format(buy=buy)]


def similarity_reason(alike: Mapping[str, str]) -> str:
    """Return what an item has in common with the item it is similar to.

    Examples
    --------
    >>> similarity_reason({"category": "GROCERY/CHEESE", "brand": "A"}), similarity_reason({})
    ('also CHEESE, same brand', 'popular with similar shoppers')
    """
    group, same_brand = alike.get("category", "").split("/")[-1], "brand" in alike
    if not group:
        return "same brand" if same_brand else "popular with similar shoppers"
    return f"also {group}, same brand" if same_brand else f"also {group}"


def _repeat_reason(evidence: Evidence, past_verb: str) -> str:
    """How often and when the customer interacted with the item."""
    times, last, cycle = evidence["times"], evidence.get("last_days", -1.0), evidence.get("cycle_days", 0.0)
    if evidence.get("own_cycle", times >= OWN_CYCLE_MIN_TIMES) and cycle >= 1 and last >= 1:
        return f"{past_verb} every {days_text(round(cycle))}, last {days_text(int(last))} ago"
    often = "once" if times == 1 else f"{times} times, last" if last >= 0 else f"{times} times"
    if last < 0:
        return f"you {past_verb} it {often}"
    ago = f"{days_text(int(last))} ago" if last >= 1 else "less than a day ago"
    return f"you {past_verb} it {often} {ago}"


def days_ago_text(days: float) -> str:
    """Format an age in days as a phrase.

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
    """Return the features with the largest contributions to each score.

    Parameters
    ----------
    spec : FeatureSpec
        Meaning of the columns.
    values : ndarray of float32, shape (n, f)
        Features.
    contributions : ndarray of float32, shape (n, f)
        Contribution of each feature to the log-odds (SHAP values).
    top : int
        Maximum number of features per score; features without contribution are left out.

    Returns
    -------
    list of list of dict
        Per score: feature, description, value, effect (``raises`` or ``lowers``), largest contribution first.
    """
    contributions = without_missing_values(spec, values, contributions)
    best = np.argsort(-np.abs(contributions), axis=1, kind="stable")[:, :top]
    reasons = []
    for i, columns in enumerate(best.tolist()):
        checkpoint()
        reasons.append(
            [
                _reason(spec, int(j), float(values[i, j]), float(contributions[i, j]))
                for j in columns
                if contributions[i, j] != 0.0
            ]
        )
    return reasons


def without_missing_values(
    spec: FeatureSpec, values: NDArray[np.float32], contributions: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Contributions in which an unknown profile attribute has none, shape (n, f).

    What the model makes of the neutral value of an attribute without a record is an effect of the missing record, and
    is added to the missing indicator.
    """
    result = contributions.copy()
    missing = spec.missing(values)
    result[missing] = 0.0
    for j in np.flatnonzero(missing.any(axis=0)).tolist():
        for i in spec.indicators(j)[:1]:
            rows = missing[:, j] & (values[:, i] == 1)
            result[rows, i] += contributions[rows, j]
    return result


def _reason(spec: FeatureSpec, j: int, value: float, contribution: float) -> dict[str, Any]:
    feature, vocabulary = spec.features[j], spec.vocabularies[j]
    shown: float | str | None = round(value, 4)
    if feature.categorical:
        shown = vocabulary[int(value)] if value == int(value) and 0 <= value < len(vocabulary) else None
    return {
        "feature": feature.name,
        "description": feature.description,
        "value": shown,
        "effect": "raises" if contribution > 0 else "lowers",
    }


def days_text(days: float) -> str:
    """Format a number of days, such as ``1 day`` or ``2.5 days``."""
    return f"{days:g} day" + ("" if days == 1 else "s")
