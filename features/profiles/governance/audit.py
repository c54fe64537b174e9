"""What is wrong with the tags: doubled, empty, constant, unused, expired, nobody's, badly named; each with what to do about it."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from features.profiles.governance.encoding import Coded, encode_all, entropy_bits, mutual_information
from features.profiles.tags.declare import Tag, TagFacts, TagValue
from qianmian.schema import REGISTERED_PREFIX
from qianmian.times import is_stale

NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
LONGEST_NAME = 40
NEARLY = 0.9
RULES = ("duplicate", "nearly_equal", "empty", "constant", "never_used", "expired", "ownerless", "naming")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes
    ----------
    rule : str
        One of `RULES`.
    tags : tuple of str
        Whom it concerns.
    what, why, mend : str
        What was found, why it matters, what to do.
    """

    rule: str
    tags: tuple[str, ...]
    what: str
    why: str
    mend: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**self.__dict__, "tags": list(self.tags)}


def audit(
    tags: Sequence[Tag],
    values: Mapping[str, Sequence[TagValue]],
    facts: Mapping[str, TagFacts],
    now: datetime,
    uses: Mapping[str, Sequence[str]] | None = None,
    features: Collection[str] = (),
    threshold: float = NEARLY,
) -> list[Finding]:
    """Everything that is wrong, in the order of `RULES`.

    Parameters
    ----------
    values : mapping of str to sequence
        Tag → one value a customer, of the tags the data can support.
    now : datetime
        Naive UTC; what is older than a tag's time to live is expired.
    uses : mapping of str to sequence of str, optional
        Tag → where rules ask about it (`features.profiles.governance.usage`). None: not judged.
    features : collection of str
        Names of the features: a tag called like one must be that one.
    threshold : float
        Two tags with a normalised mutual information (I ÷ the greater entropy) from here on are nearly equal.
    """
    found = [
        *_filled(values),
        *_alike(values, threshold),
        *_unused(tags, uses),
        *_expired(facts, now),
        *(finding for tag in tags for finding in _declared(tag, features)),
    ]
    return sorted(found, key=lambda finding: (RULES.index(finding.rule), finding.tags))


def _filled(values: Mapping[str, Sequence[TagValue]]) -> Iterator[Finding]:
    for name, column in values.items():
        different = set(column)
        if len(column) and different == {None}:
            yield Finding(
                "empty",
                (name,),
                f"unknown for all {len(column):,} customers",
                "it costs a place in every list and says nothing",
                "bring the data it is made of (`qianmian tags list` says which), or take it out",
            )
        elif len(column) > 1 and len(different) == 1:
            yield Finding(
                "constant",
                (name,),
                f"{_text(column[0])} for all {len(column):,} customers",
                "it tells nobody apart",
                "move its threshold, bring the data it is made of, or take it out",
            )


def _alike(values: Mapping[str, Sequence[TagValue]], threshold: float) -> Iterator[Finding]:
    telling = {name: column for name, column in values.items() if len(set(column)) > 1}
    same: dict[str, list[str]] = defaultdict(list)
    for name, column in telling.items():
        same[hashlib.sha256(repr(list(column)).encode()).hexdigest()].append(name)  # tells True from 'True' and 1.0
    twin = {name: group[0] for group in same.values() for name in group}
    for group in same.values():
        if len(group) > 1:
            yield Finding(
                "duplicate",
                tuple(group),
                "the same value for every customer",
                "two names for one thing drift apart in rules and reports",
                f"keep {group[0]} and take the other out, or derive them from different features",
            )
    coded = encode_all(telling)
    shared = normalised_information(coded)
    for i, j in zip(*np.nonzero(np.triu(shared >= threshold, k=1)), strict=True):
        left, right = coded.names[i], coded.names[j]
        if twin[left] != twin[right]:
            yield Finding(
                "nearly_equal",
                (left, right),
                f"normalised mutual information {shared[i, j]:.3f}, {_agreement(telling[left], telling[right])}",
                "who knows one knows the other: a rule on both counts the same thing twice",
                "keep the one people understand",
            )


def normalised_information(coded: Coded) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Mutual information of every two tags ÷ the greater of their entropies, (t, t): 1 where each tells the other exactly."""
    Z = coded.one_hot()
    together = np.asarray((Z.T @ Z).todense(), dtype=np.float64)
    starts, sizes = coded.starts, coded.sizes
    entropies = [
        float(entropy_bits(np.bincount(coded.codes[:, tag]).astype(np.float64))) for tag in range(len(coded.names))
    ]
    shared = np.eye(len(coded.names))
    for i in range(len(coded.names)):
        for j in range(i + 1, len(coded.names)):
            counts = together[starts[i] : starts[i] + sizes[i], starts[j] : starts[j] + sizes[j]]
            most = max(entropies[i], entropies[j])
            shared[i, j] = shared[j, i] = float(mutual_information(counts)) / most if most > 0 else 0.0
    return shared


def _agreement(left: Sequence[TagValue], right: Sequence[TagValue]) -> str:
    return f"the same word for {np.mean([a == b for a, b in zip(left, right, strict=True)]):.0%} of the customers"


def _unused(tags: Sequence[Tag], uses: Mapping[str, Sequence[str]] | None) -> Iterator[Finding]:
    if uses is None:
        return
    names = [tag.name for tag in tags]
    why = "a tag no rule asks about is upkeep without a reader; the profile shows it all the same"
    if not set(uses).intersection(names):
        yield Finding(
            "never_used",
            tuple(names),
            "no rule kept in this workspace asks about any tag",
            why,
            "keep segment rules as files under segments/ of the workspace, then audit again",
        )
        return
    for name in names:
        if name not in uses:
            yield Finding(
                "never_used",
                (name,),
                "no rule kept in this workspace asks about it",
                why,
                "take it out, unless people read it in the profile: `qianmian tags value` says what it is worth",
            )


def _expired(facts: Mapping[str, TagFacts], now: datetime) -> Iterator[Finding]:
    groups: dict[tuple[datetime, str], list[str]] = defaultdict(list)
    for name, about in facts.items():
        if is_stale(about.as_of, now, about.ttl_days):
            groups[about.as_of, about.source if about.how == "model" else ""].append(name)
    for (as_of, model), names in groups.items():
        job = model.removeprefix("model:").removeprefix(REGISTERED_PREFIX)
        mend = (
            f"train the model again: `qianmian train {job}`"
            if model
            else "ingest what has happened since and run `qianmian features`"
        )
        lives = sorted({facts[name].ttl_days for name in names})
        yield Finding(
            "expired",
            tuple(names),
            f"as of {as_of:%Y-%m-%d}, {(now - as_of).days:,} days ago; they keep {' or '.join(map(str, lives))} days",
            "old values served as new ones decide wrongly; the profile says stale: true",
            mend,
        )


def _declared(tag: Tag, features: Collection[str]) -> Iterator[Finding]:
    if not tag.owner.strip():
        yield Finding(
            "ownerless",
            (tag.name,),
            "nobody answers for it",
            "nobody will notice when it goes wrong",
            "name an owner in its declaration",
        )
    problems = []
    if not NAME.fullmatch(tag.name):
        problems.append("not snake_case")
    if len(tag.name) > LONGEST_NAME:
        problems.append(f"longer than {LONGEST_NAME} characters")
    if tag.name.startswith("tag_") or tag.name.endswith("_tag"):
        problems.append("the word tag is part of the name")
    if tag.name in features and tag.name not in tag.inputs:
        problems.append("called like a feature it is not made of")
    odd = [value for value in tag.values if not NAME.fullmatch(value)]
    if odd:
        problems.append(f"values that are not snake_case: {', '.join(odd)}")
    if problems:
        yield Finding(
            "naming",
            (tag.name,),
            "; ".join(problems),
            "people guess names: one that follows the rules is found",
            "rename it in its declaration",
        )


def _text(value: TagValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
