"""Weights of the types of interaction, learnt on the validation period: what a view or a cart tells of a purchase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from features.interaction_types import EVENT_WEIGHTS
from features.interactions import TrainingSet
from training.selection.trials import ParameterTrials

PARAMETER = "type_weights"
# Their fits are cheap, so each type is tried by itself. The other models try what these have found.
LEARN_EACH_TYPE = ("own_events", "item_knn")
FACTORS = (0.0, 0.25, 4.0)  # of the usual weight of a type
Weights = Mapping[str, float]


def usual_weights(train: TrainingSet) -> dict[str, float]:
    """Usual weight of each auxiliary type that occurs, beside 1 of the target; the most frequent type first."""
    if train.auxiliary is None:
        return {}
    counts, target = train.auxiliary.type_counts(), EVENT_WEIGHTS[train.target]
    return {name: EVENT_WEIGHTS[name] / target for name in sorted(counts, key=lambda name: -counts[name])}


def number_of_fits(name: str, usual: Weights) -> int:
    """Largest number of fits of a model for its weights."""
    return 2 + len(usual) * len(FACTORS) if name in LEARN_EACH_TYPE else 4


def learn_type_weights(trials: ParameterTrials, usual: Weights, found: Sequence[Weights]) -> None:
    """Keep the weights of the types that are better beyond noise.

    First all types have their usual weights, or those that were found for another model. Then, for a model of
    `LEARN_EACH_TYPE`, the weight of one type after the other changes. Where a model reads only whether there was an
    interaction (`count_power` 0), a type counts or does not.

    Parameters
    ----------
    trials : ParameterTrials
        Of a model with the parameter `type_weights`.
    usual : mapping of str to float
        `usual_weights` of the training set; not empty.
    found : sequence of mapping of str to float
        Weights learnt for other models.
    """
    if trials.parameters[PARAMETER] is None:
        proposals: list[dict[str, Any]] = [{PARAMETER: dict(usual)}]
        proposals += [{PARAMETER: dict(weights)} for weights in found if dict(weights) != dict(usual)]
        if trials.parameters.get("count_power") == 0:
            proposals.append({PARAMETER: dict(usual), "count_power": 1.0})
        trials.keep_best(proposals)
    if trials.name not in LEARN_EACH_TYPE:
        return
    for name, weight in usual.items():
        current = _relative(trials.parameters[PARAMETER], usual)
        factors = (0.0, 1.0) if trials.parameters.get("count_power") == 0 else (*FACTORS, 1.0)
        values = {factor * weight for factor in factors} - {current.get(name, 0.0)}
        trials.keep_best([{PARAMETER: _with(current, name, value)} for value in sorted(values)])


def _relative(weights: Weights | None, usual: Weights) -> dict[str, float]:
    """The weights of the types that occur; the defaults of a model name all types."""
    if weights is None:
        return {}
    return dict(usual) if weights == EVENT_WEIGHTS else {name: weights[name] for name in usual if name in weights}


def _with(weights: Weights, name: str, weight: float) -> dict[str, float]:
    changed = {**weights, name: weight}
    return {one: value for one, value in changed.items() if value > 0}
