"""Three reasons of each churn probability, as sentences."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from features.compute.spec import FeatureSpec
from serving.recommending.explain import TOP_REASONS, without_missing_values
from serving.scoring.lists.sentences import Statement, Values, statements
from serving.scoring.lists.subjects import subject_of
from serving.scoring.lists.words import Lang, pick

LEAST_SHARE = 0.02  # of the largest contribution of a group, below which one is no reason


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
    found = []
    for row, values in enumerate(own):
        said: set[str] = set()
        texts: list[str] = []
        least = LEAST_SHARE * float(np.abs(totals[row]).max())
        forward = 1 if raises[row] else -1
        for direction in (forward, -forward):
            strength = direction * totals[row]
            for place in np.argsort(-strength, kind="stable").tolist():
                if len(texts) == top or strength[place] <= least:
                    break
                group, members = list(groups.items())[place]
                statement = _strongest(
                    spec, group, members, direction * moved[row], direction, said, values, typical, lang
                )
                if statement is not None:
                    said.add(statement.says or group)
                    texts.append(statement.text if direction == forward else _against(statement.text, lang))
        found.append(texts)
    return found


def _against(text: str, lang: Lang) -> str:
    """A sentence that speaks against the ones before it; Chinese has a blank before digits."""
    return pick(lang, f"but {text}", f"但 {text}" if text[0].isdigit() else f"但{text}")


def _strongest(
    spec: FeatureSpec,
    group: str,
    members: Sequence[int],
    strength: NDArray[np.float32],
    direction: int,
    said: Collection[str],
    own: Values,
    typical: Values,
    lang: Lang,
) -> Statement | None:
    """The statement of the strongest feature of a group that speaks for the direction and says something new."""
    for place in sorted(members, key=lambda place: -strength[place]):
        if strength[place] <= 0:
            return None
        feature = spec.features[place]
        sign = direction * subject_of(feature).sign
        for statement in statements(feature, own, typical, lang):
            speaks = statement.difference is None or (statement.difference and statement.difference * sign >= 0)
            if speaks and (statement.says or group) not in said:
                return statement
    return None
