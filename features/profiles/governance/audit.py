"""Tag audit: duplicate, empty, constant, one-sided, unused, expired, ownerless and badly named tags, with fixes.

Two tags are compared among the customers for whom both are known. Customers for whom both are unknown say nothing about
the values, and would make tags that miss the same customers look alike. Where only one is known the tags differ, so the
result is multiplied by the share of the customers with both values among those with at least one.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from features.profiles.governance.encoding import UNKNOWN, EncodedTags, encode_tags, entropy_bits, mutual_information
from features.profiles.tags.declare import Tag, TagValue
from features.profiles.tags.facts import TagFacts
from qianmian.schema import REGISTERED_PREFIX
from qianmian.times import is_stale

NAME_PATTERN = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
MAX_NAME_LENGTH = 40
NEARLY_EQUAL_THRESHOLD = 0.9
DOMINANT_SHARE = 0.95  # a value of more than this share of the customers with a known value
MIN_KNOWN = 20  # customers with a known value from which such a share is no accident of a small number
AUDIT_RULES = (
    *("duplicate", "nearly_equal", "empty", "constant", "dominant"),
    *("never_used", "expired", "ownerless", "naming"),
)


@dataclass(frozen=True)
class AuditFinding:
    """One problem of one or more tags.

    Attributes
    ----------
    rule : str
        One of `AUDIT_RULES`.
    tags : tuple of str
        Names of the tags.
    what, why, mend : str
        The problem, its consequence, and how to fix it.
    """

    rule: str
    tags: tuple[str, ...]
    what: str
    why: str
    mend: str

    def as_dict(self) -> dict[str, Any]:
        """The finding as JSON-compatible data."""
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
    """Find the problems of all tags, in the order of `AUDIT_RULES`.

    Parameters
    ----------
    tags : sequence of Tag
        Declarations.
    values : mapping of str to sequence
        Tag → values, one per customer, for the supported tags.
    facts : mapping of str to TagFacts
        Tag → metadata of its values.
    now : datetime
        Current time, naive UTC; values older than the `ttl_days` of a tag are expired.
    usage : mapping of str to sequence of str, optional
        Tag → files whose rules refer to it (`features.profiles.governance.usage`). If None, usage is not checked.
    features : collection of str
        Names of all features: a tag with the name of a feature must use that feature.
    threshold : float
        Minimum normalised mutual information (I ÷ the larger entropy) of nearly equal tags.
    """
    found = [
        *_one_sided(values),
        *_duplicates(values, threshold),
        *_unused(tags, usage),
        *_expired(facts, now),
        *(finding for tag in tags for finding in _declaration_findings(tag, features)),
    ]
    return sorted(found, key=lambda finding: (AUDIT_RULES.index(finding.rule), finding.tags))


def _one_sided(values: Mapping[str, Sequence[TagValue]]) -> Iterator[AuditFinding]:
    """Tags without a known value, with one, and with one that nearly all customers have."""
    for name, column in values.items():
        counts = Counter(value for value in column if value is not None)
        known = counts.total()
        if not known:
            if column:
                yield AuditFinding(
                    "empty",
                    (name,),
                    f"unknown for all {len(column):,} customers",
                    "the tag takes up space in every list without information",
                    "ingest the data the tag needs (see `qianmian tags list`), or remove the tag",
                )
            continue
        top, most = max(counts.items(), key=lambda item: (item[1], str(item[0])))
        unknown = f", unknown for the other {len(column) - known:,}" if known < len(column) else ""
        if len(counts) == 1 and known > 1:
            yield AuditFinding(
                "constant",
                (name,),
                f"{_text(top)} for all {known:,} customers with a known value{unknown}",
                "the tag does not distinguish any customers",
                "change its threshold, ingest the data it needs, or remove the tag",
            )
        elif known >= MIN_KNOWN and most > DOMINANT_SHARE * known:
            yield AuditFinding(
                "dominant",
                (name,),
                f"{_text(top)} for {most / known:.1%} of {known:,} customers with a known value{unknown}",
                f"the tag distinguishes only {known - most:,} customers",
                "change its threshold or remove the tag, unless it exists to find these few",
            )


def _duplicates(values: Mapping[str, Sequence[TagValue]], threshold: float) -> Iterator[AuditFinding]:
    informative = {name: column for name, column in values.items() if len(set(column)) > 1}
    same: dict[str, list[str]] = defaultdict(list)
    for name, column in informative.items():
        same[hashlib.sha256(repr(list(column)).encode()).hexdigest()].append(name)  # distinguishes True, 'True' and 1.0
    duplicate_of = {name: group[0] for group in same.values() for name in group}
    for group in same.values():
        if len(group) > 1:
            yield AuditFinding(
                "duplicate",
                tuple(group),
                "the same value for every customer",
                "rules and reports that use two names for the same tag become inconsistent",
                f"keep {group[0]} and remove the others, or derive them from different features",
            )
    encoded = encode_tags(informative)
    shared = normalised_information(encoded)
    for i, j in zip(*np.nonzero(np.triu(shared >= threshold, k=1)), strict=True):
        left, right = encoded.names[i], encoded.names[j]
        if duplicate_of[left] != duplicate_of[right]:
            agreement = _agreement(informative[left], informative[right])
            yield AuditFinding(
                "nearly_equal",
                (left, right),
                f"normalised mutual information {shared[i, j]:.3f}, {agreement}",
                "each tag nearly determines the other, so a rule on both uses the same information twice",
                "keep the tag that is easier to understand",
            )


def normalised_information(encoded: EncodedTags) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Mutual information of each pair of tags ÷ the larger entropy, shape (t, t); 1 if they determine each other.

    Each pair is compared among the customers for whom both are known, and the result is multiplied by their share of
    the customers for whom at least one of the two is known.
    """
    Z = encoded.one_hot()
    joint_counts = np.asarray((Z.T @ Z).todense(), dtype=np.float64)
    starts, sizes = encoded.starts, encoded.sizes
    unknown = [[code for code, label in enumerate(labels) if label == UNKNOWN] for labels in encoded.labels]
    shared = np.eye(len(encoded.names))
    for i in range(len(encoded.names)):
        for j in range(i + 1, len(encoded.names)):
            counts = joint_counts[starts[i] : starts[i] + sizes[i], starts[j] : starts[j] + sizes[j]]
            both = np.delete(np.delete(counts, unknown[i], axis=0), unknown[j], axis=1)
            neither = counts[np.ix_(unknown[i], unknown[j])].sum()
            most = max(float(entropy_bits(both.sum(axis=axis))) for axis in (0, 1))
            if most > 0:
                overlap = both.sum() / (counts.sum() - neither)
                shared[i, j] = shared[j, i] = overlap * float(mutual_information(both)) / most
    return shared


def _agreement(left: Sequence[TagValue], right: Sequence[TagValue]) -> str:
    same = [a == b for a, b in zip(left, right, strict=True) if a is not None or b is not None]
    return f"the same value for {np.mean(same):.0%} of the {len(same):,} customers for whom one is known"


def _unused(tags: Sequence[Tag], usage: Mapping[str, Sequence[str]] | None) -> Iterator[AuditFinding]:
    if usage is None:
        return
    names = [tag.name for tag in tags]
    why = "a tag that no rule uses must still be maintained; profiles show it nevertheless"
    if not set(usage).intersection(names):
        yield AuditFinding(
            "never_used",
            tuple(names),
            "no rule in this workspace refers to any tag",
            why,
            "store segment rules as files under segments/ of the workspace, and run the audit again",
        )
        return
    for name in names:
        if name not in usage:
            yield AuditFinding(
                "never_used",
                (name,),
                "no rule in this workspace refers to the tag",
                why,
                "remove the tag, unless people read it in profiles; `qianmian tags value` measures its information",
            )


def _expired(facts: Mapping[str, TagFacts], now: datetime) -> Iterator[AuditFinding]:
    groups: dict[tuple[datetime, str], list[str]] = defaultdict(list)
    for name, about in facts.items():
        if is_stale(about.as_of, now, about.ttl_days):
            groups[about.as_of, about.source if about.how == "model" else ""].append(name)
    for (as_of, model), names in groups.items():
        job = model.removeprefix("model:").removeprefix(REGISTERED_PREFIX)
        fix = (
            f"train the model again: `qianmian train {job}`"
            if model
            else "ingest newer data and run `qianmian features`"
        )
        lives = sorted({facts[name].ttl_days for name in names})
        yield AuditFinding(
            "expired",
            tuple(names),
            f"as of {as_of:%Y-%m-%d}, {(now - as_of).days:,} days ago; valid for {' or '.join(map(str, lives))} days",
            "decisions on outdated values are wrong; profiles mark these values with stale: true",
            fix,
        )


def _declaration_findings(tag: Tag, features: Collection[str]) -> Iterator[AuditFinding]:
    if not tag.owner.strip():
        yield AuditFinding(
            "ownerless",
            (tag.name,),
            "the tag has no owner",
            "errors in the tag are not noticed",
            "set an owner in the declaration of the tag",
        )
    problems = []
    if not NAME_PATTERN.fullmatch(tag.name):
        problems.append("not snake_case")
    if len(tag.name) > MAX_NAME_LENGTH:
        problems.append(f"longer than {MAX_NAME_LENGTH} characters")
    if tag.name.startswith("tag_") or tag.name.endswith("_tag"):
        problems.append("contains the word tag")
    if tag.name in features and tag.name not in tag.inputs:
        problems.append("has the name of a feature that it does not use")
    odd = [value for value in tag.values if not NAME_PATTERN.fullmatch(value)]
    if odd:
        problems.append(f"values that are not snake_case: {', '.join(odd)}")
    if problems:
        yield AuditFinding(
            "naming",
            (tag.name,),
            "; ".join(problems),
            "names that follow the conventions are easier to find",
            "rename the tag in its declaration",
        )


def _text(value: TagValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
