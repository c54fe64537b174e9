"""Three reasons of each churn probability, as sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from features.compute.spec import FeatureSpec
from serving.recommending.explain import TOP_REASONS, without_missing_values
from serving.scoring.lists.sentences import Values, statements
from serving.scoring.lists.subjects import subject_of
from serving.scoring.lists.words import Lang, pick

LEAST_SHARE = 0.05  # of the largest contribution of a group, below which one is no reason


def sentences(
    spec: FeatureSpec,
    encoded: NDArray[np.float32],
    contributions: NDArray[np.float32],
    raises: Sequence[bool],
    own: Sequence[Values],
    typical: Values,
    lang: Lang,
    top: int = TOP_REASONS,
) -> list[list[str]]:
    """State why each probability is as high, or as low, as it is.

    Features that say the same in other numbers (`Subject.group`) count together, and give one sentence: of the feature
    that contributes most, if its values speak for the direction in which it moves the probability. Where fewer than
    `top` groups move it in the direction of the score, the sentences that follow begin with "but".

    Parameters
    ----------
    spec : FeatureSpec
        Meaning of the f columns.
    encoded, contributions : ndarray of float32, shape (n, f)
        Features of the customers, and what each adds to the log-odds.
    raises : sequence of n bool
        Whether to say why the probability is high; else why it is low.
    own : sequence of n mappings
        Values of each customer, by feature.
    typical : mapping
        Median of all customers with a score.
    lang : str
        Language.
    top : int
        Number of sentences of a customer; fewer if there are not so many reasons.

    Returns
    -------
    list of list of str
        Strongest reason first.
    """
    moved = without_missing_values(spec, encoded, contributions)
    groups: dict[str, list[int]] = {}
    for place, feature in enumerate(spec.features):
        groups.setdefault(subject_of(feature).group, []).append(place)
    totals = np.column_stack([moved[:, places].sum(axis=1) for places in groups.values()])
    members = list(groups.values())
    found = []
    for row, values in enumerate(own):
        least = LEAST_SHARE * float(np.abs(totals[row]).max())

        def told(direction: int, row: int = row, least: float = least, values: Values = values) -> Iterator[str]:
            strength = direction * totals[row]
            for group in np.argsort(-strength, kind="stable").tolist():
                if strength[group] > least:
                    places = members[group]
                    text = _strongest(spec, places, direction * moved[row], direction, values, typical, lang)
                    if text is not None:
                        yield text

        direction = 1 if raises[row] else -1
        texts = list(islice(told(direction), top))
        texts += [pick(lang, f"but {text}", f"但{text}") for text in islice(told(-direction), top - len(texts))]
        found.append(texts)
    return found


def _strongest(
    spec: FeatureSpec,
    places: Sequence[int],
    strength: NDArray[np.float32],
    direction: int,
    own: Values,
    typical: Values,
    lang: Lang,
) -> str | None:
    """The sentence of the strongest feature of a group whose values speak for the direction; None if none does."""
    for place in sorted(places, key=lambda place: -strength[place]):
        if strength[place] <= 0:
            return None
        feature = spec.features[place]
        sign = direction * subject_of(feature).sign
        for statement in statements(feature, own, typical, lang):
            if statement.difference is None or (statement.difference and statement.difference * sign >= 0):
                return statement.text
    return None
