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

from features.profiles.governance.encoding import EncodedTags, encode_tags, entropy_bits, mutual_information
from features.profiles.tags.declare import Tag, TagFacts, TagValue
from qianmian.schema import REGISTERED_PREFIX
from qianmian.times import is_stale

NAME_PATTERN = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
MAX_NAME_LENGTH = 40
NEARLY_EQUAL_THRESHOLD = 0.9
AUDIT_RULES = ("duplicate", "nearly_equal", "empty", "constant", "never_used", "expired", "ownerless", "naming")


@dataclass(frozen=True)
class AuditFinding:
    """One thing that is wrong.

    Attributes
    ----------
    rule : str
        One of `AUDIT_RULES`.
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
    usage: Mapping[str, Sequence[str]] | None = None,
    features: Collection[str] = (),
    threshold: float = NEARLY_EQUAL_THRESHOLD,
) -> list[AuditFinding]:
    """Everything that is wrong, in the order of `AUDIT_RULES`.

    Parameters
    ----------
    values : mapping of str to sequence
        Tag → one value a customer, of the tags the data can support.
    now : datetime
        Naive UTC; what is older than a tag's time to live is expired.
    usage : mapping of str to sequence of str, optional
        Tag → where rules ask about it (`features.profiles.governance.usage`). None: not judged.
    features : collection of str
        Names of the features: a tag called like one must be that one.
    threshold : float
        Two tags with a normalised mutual information (I ÷ the greater entropy) from here on are nearly equal.
    """
    found = [
        *_empty_or_constant(values),
        *_duplicates(values, threshold),
        *_unused(tags, usage),
        *_expired(facts, now),
        *(finding for tag in tags for finding in _declaration_findings(tag, features)),
    ]
    return sorted(found, key=lambda finding: (AUDIT_RULES.index(finding.rule), finding.tags))


def _empty_or_constant(values: Mapping[str, Sequence[TagValue]]) -> Iterator[AuditFinding]:
    for name, column in values.items():
        different = set(column)
        if len(column) and different == {None}:
            yield AuditFinding(
                "empty",
                (name,),
                f"unknown for all {len(column):,} customers",
                "it costs a place in every list and says nothing",
                "bring the data it is made of (`qianmian tags list` says which), or take it out",
            )
        elif len(column) > 1 and len(different) == 1:
            yield AuditFinding(
                "constant",
                (name,),
                f"{_text(column[0])} for all {len(column):,} customers",
                "it tells nobody apart",
                "move its threshold, bring the data it is made of, or take it out",
            )


def _duplicates(values: Mapping[str, Sequence[TagValue]], threshold: float) -> Iterator[AuditFinding]:
    informative = {name: column for name, column in values.items() if len(set(column)) > 1}
    same: dict[str, list[str]] = defaultdict(list)
    for name, column in informative.items():
        same[hashlib.sha256(repr(list(column)).encode()).hexdigest()].append(name)  # tells True from 'True' and 1.0
    duplicate_of = {name: group[0] for group in same.values() for name in group}
    for group in same.values():
        if len(group) > 1:
            yield AuditFinding(
                "duplicate",
                tuple(group),
                "the same value for every customer",
                "two names for one thing drift apart in rules and reports",
                f"keep {group[0]} and take the other out, or derive them from different features",
            )
    encoded = encode_tags(informative)
    shared = normalised_information(encoded)
    for i, j in zip(*np.nonzero(np.triu(shared >= threshold, k=1)), strict=True):
        left, right = encoded.names[i], encoded.names[j]
        if duplicate_of[left] != duplicate_of[right]:
            yield AuditFinding(
                "nearly_equal",
                (left, right),
                f"normalised mutual information {shared[i, j]:.3f}, {_agreement(informative[left], informative[right])}",
                "who knows one knows the other: a rule on both counts the same thing twice",
                "keep the one people understand",
            )


def normalised_information(encoded: EncodedTags) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Mutual information of every two tags ÷ the greater of their entropies, (t, t): 1 where each tells the other exactly."""
    Z = encoded.one_hot()
    joint_counts = np.asarray((Z.T @ Z).todense(), dtype=np.float64)
    starts, sizes = encoded.starts, encoded.sizes
    entropies = [
        float(entropy_bits(np.bincount(encoded.codes[:, tag]).astype(np.float64))) for tag in range(len(encoded.names))
    ]
    shared = np.eye(len(encoded.names))
    for i in range(len(encoded.names)):
        for j in range(i + 1, len(encoded.names)):
            counts = joint_counts[starts[i] : starts[i] + sizes[i], starts[j] : starts[j] + sizes[j]]
            most = max(entropies[i], entropies[j])
            shared[i, j] = shared[j, i] = float(mutual_information(counts)) / most if most > 0 else 0.0
    return shared


def _agreement(left: Sequence[TagValue], right: Sequence[TagValue]) -> str:
    return f"the same word for {np.mean([a == b for a, b in zip(left, right, strict=True)]):.0%} of the customers"


def _unused(tags: Sequence[Tag], usage: Mapping[str, Sequence[str]] | None) -> Iterator[AuditFinding]:
    if usage is None:
        return
    names = [tag.name for tag in tags]
    why = "a tag no rule asks about is upkeep without a reader; the profile shows it all the same"
    if not set(usage).intersection(names):
        yield AuditFinding(
            "never_used",
            tuple(names),
            "no rule kept in this workspace asks about any tag",
            why,
            "keep segment rules as files under segments/ of the workspace, then audit again",
        )
        return
    for name in names:
        if name not in usage:
            yield AuditFinding(
                "never_used",
                (name,),
                "no rule kept in this workspace asks about it",
                why,
                "take it out, unless people read it in the profile: `qianmian tags value` says what it is worth",
            )


def _expired(facts: Mapping[str, TagFacts], now: datetime) -> Iterator[AuditFinding]:
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
        yield AuditFinding(
            "expired",
            tuple(names),
            f"as of {as_of:%Y-%m-%d}, {(now - as_of).days:,} days ago; they keep {' or '.join(map(str, lives))} days",
            "old values served as new ones decide wrongly; the profile says stale: true",
            mend,
        )


def _declaration_findings(tag: Tag, features: Collection[str]) -> Iterator[AuditFinding]:
    if not tag.owner.strip():
        yield AuditFinding(
            "ownerless",
            (tag.name,),
            "nobody answers for it",
            "nobody will notice when it goes wrong",
            "name an owner in its declaration",
        )
    problems = []
    if not NAME_PATTERN.fullmatch(tag.name):
        problems.append("not snake_case")
    if len(tag.name) > MAX_NAME_LENGTH:
        problems.append(f"longer than {MAX_NAME_LENGTH} characters")
    if tag.name.startswith("tag_") or tag.name.endswith("_tag"):
        problems.append("the word tag is part of the name")
    if tag.name in features and tag.name not in tag.inputs:
        problems.append("called like a feature it is not made of")
    odd = [value for value in tag.values if not NAME_PATTERN.fullmatch(value)]
    if odd:
        problems.append(f"values that are not snake_case: {', '.join(odd)}")
    if problems:
        yield AuditFinding(
            "naming",
            (tag.name,),
            "; ".join(problems),
            "people guess names: one that follows the rules is found",
            "rename it in its declaration",
        )


def _text(value: TagValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
