"""Why an item or a score, in words that claim no more than the model holds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.spec import FeatureSpec
from models.recommend.repeat import RepeatPurchaseRecommender
from serving.champions import Champion

TOP_REASONS = 3
WORDS = {
    "ials": "customers with a similar history have it",
    "hybrid": "popular with customers like you",
    "popular": "popular with everybody",
}


def item_reasons(champion: Champion, row: int, column: int, source: str) -> list[str]:
    """Why this item is in the list."""
    if source == "repeat":
        return [_repeat_reason(champion, row, column)]
    if source == "hybrid" and champion.catalogue.from_history(row, source):
        return ["matches what you had before and customers like you"]
    return [WORDS.get(source, f"chosen by {source}")]


def _repeat_reason(champion: Champion, row: int, column: int) -> str:
    stage = next(model for model in champion.bundle.model.models if isinstance(model, RepeatPurchaseRecommender))
    found = stage.evidence(row, column)
    if found is None:
        return "you had it before"
    times, days = found
    had = "dealt with" if champion.bundle.facts.get("interactions") == "events" else "bought"
    often = "once" if times == 1 else f"{times} times, last"
    return f"you {had} it {often} {days_text(int(days))} ago" if days >= 1 else f"you {had} it {often} less than a day ago"


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
        [_reason(spec, int(j), float(values[i, j]), float(contributions[i, j])) for j in columns if contributions[i, j] != 0.0]
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
