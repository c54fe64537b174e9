"""Validation of tags: every tag with a claim is rebuilt at past moments and compared with what followed.

The tags of a moment use only rows before it, and what followed is read up to the end of the data. A horizon counts only
at moments that it ends before that, so no wait counts as endless because the data ends; waits themselves are censored
there (`features.profiles.governance.waits`). The rows of all moments are pooled, and a customer who is seen at several
of them is one cluster.

Each claim is tested twice, for being right and for being wrong, one-sided at 2.5 %. The p values of all claims of a run
are adjusted together by the method of Holm, so the probability that any verdict `borne_out` or `contradicted` of a run
is due to chance is at most 5 %. The intervals of single values are not adjusted.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from features.compute.builder import Builder
from features.profiles.governance.moments import MAX_CUSTOMERS, Moment, needed_names, tags_at
from features.profiles.governance.separation import holm
from features.profiles.governance.verdicts import ClaimEvidence, Cluster, evidence, measures
from features.profiles.tags.claims import claim_text
from features.profiles.tags.declare import Tag
from qianmian.errors import UsageError, did_you_mean
from qianmian.settings import Settings

VERDICTS = ("borne_out", "not_borne_out", "contradicted", "too_few")
BORNE_OUT, NOT_BORNE_OUT, CONTRADICTED, TOO_FEW = VERDICTS
ONE_SIDED_LEVEL = 0.025


@dataclass(frozen=True)
class TagCheck:
    """The verdict on one tag.

    Attributes
    ----------
    verdict : str
        ``borne_out``: what followed agrees with the claim beyond chance. ``not_borne_out``: it does not differ beyond
        chance. ``contradicted``: it differs in the other direction. ``too_few``: there is nothing to compare.
    reason : str
        Why the verdict is not ``borne_out``, if the numbers do not say it; else empty.
    p_value : float or None
        Adjusted p value of the verdict.
    """

    tag: str
    claim: str
    verdict: str
    reason: str
    p_value: float | None
    evidence: ClaimEvidence

    def as_dict(self) -> dict[str, Any]:
        """The check as JSON-compatible data; a number that does not exist is None."""
        found = {
            name: value for name, value in asdict(self.evidence).items() if name in ("values", "contrasts", "figures")
        }
        head = {name: getattr(self, name) for name in ("tag", "claim", "verdict", "reason", "p_value")}
        result: dict[str, Any] = _finite({**head, **found})
        return result


@dataclass(frozen=True)
class Validation:
    """The verdicts on all tags with a claim.

    Attributes
    ----------
    moments : tuple of datetime
        Moments at which the tags were rebuilt, latest first.
    end : datetime
        Rows at or after it were not read.
    customers, sampled : int
        Customers at the latest moment, and those that were compared.
    absent : tuple of str
        Tags with a claim that the data does not support at any of the moments.
    """

    moments: tuple[datetime, ...]
    end: datetime
    horizon_days: int
    customers: int
    sampled: int
    checks: tuple[TagCheck, ...]
    absent: tuple[str, ...]


def claiming_tags(tags: Sequence[Tag], names: Collection[str] = ()) -> list[Tag]:
    """The tags with a claim, or those of them that are named.

    Raises
    ------
    UsageError
        A name is no tag, or a tag without a claim.
    """
    claiming = [tag for tag in tags if tag.claim is not None]
    known = {tag.name for tag in tags}
    for name in names:
        if name not in known:
            raise UsageError("unknown tag", where="--tag", got=f"{name}{did_you_mean(name, sorted(known))}")
        if name not in {tag.name for tag in claiming}:
            raise UsageError(
                "the tag claims nothing about the future",
                where="--tag",
                got=name,
                allowed=", ".join(tag.name for tag in claiming),
            )
    return [tag for tag in claiming if not names or tag.name in names]


def validate(
    builder: Builder,
    settings: Settings,
    tags: Sequence[Tag],
    moments: Sequence[datetime],
    end: datetime,
    horizon_days: int,
    names: Collection[str] = (),
    max_customers: int = MAX_CUSTOMERS,
) -> Validation:
    """Rebuild the tags at past moments and compare their claims with what followed.

    Parameters
    ----------
    tags : sequence of Tag
        All declared tags.
    moments : sequence of datetime
        Moments before `end` (`features.profiles.governance.moments.choose_moments`), latest first.
    end : datetime
        Rows at or after it are not read.
    horizon_days : int
        Days after the moment in which claims without their own are measured.
    names : collection of str
        Tags to check; default: all with a claim.
    max_customers : int
        More customers are sampled, by a hash of their one_id.
    """
    chosen = claiming_tags(tags, names)
    wanted = needed_names(tags, [tag.name for tag in chosen])
    built = [tag for tag in tags if tag.name in wanted]
    customers = builder.views(max(moments)).customers.one_id.nunique().execute()
    share = min(max_customers / max(customers, 1), 1.0)
    rebuilt = [tags_at(builder, moment, end, built, settings, share) for moment in moments]
    return compare(rebuilt, chosen, end, horizon_days, int(customers))


def compare(
    moments: Sequence[Moment], tags: Sequence[Tag], end: datetime, horizon_days: int, customers: int
) -> Validation:
    """Compare the claims of tags with what followed at moments whose tags are there."""
    clusters = number_customers(moments)
    here = [tag for tag in tags if tag.how == "model" or any(tag.name in moment.tags for moment in moments)]
    for moment in moments:
        moment.prepare(one for tag in here if tag.claim for one in measures(tag.claim, horizon_days))
    found = [evidence(tag, moments, clusters, horizon_days) for tag in here]
    return Validation(
        tuple(moment.as_of for moment in moments),
        end,
        horizon_days,
        customers,
        len(moments[0].one_ids),
        tuple(_judge(here, found)),
        tuple(tag.name for tag in tags if tag not in here),
    )


def number_customers(moments: Sequence[Moment]) -> list[Cluster]:
    """Number of the customer of each row, the same at every moment."""
    whole = pa.chunked_array([moment.one_ids for moment in moments]).combine_chunks().dictionary_encode()
    codes = np.asarray(whole.indices.to_numpy(), dtype=np.int64)
    return np.split(codes, np.cumsum([len(moment.one_ids) for moment in moments])[:-1])


def _judge(tags: Sequence[Tag], found: Sequence[ClaimEvidence]) -> list[TagCheck]:
    tested = [number for number, one in enumerate(found) if not one.too_few]
    adjusted = holm([p for number in tested for p in (found[number].right, found[number].wrong)])
    p_values = {number: adjusted[2 * place : 2 * place + 2] for place, number in enumerate(tested)}
    checks = []
    for number, (tag, one) in enumerate(zip(tags, found, strict=True)):
        assert tag.claim is not None
        verdict, p, reason = TOO_FEW, None, one.too_few
        if number in p_values:
            right, wrong = p_values[number]
            verdict, p, reason = NOT_BORNE_OUT, min(right, wrong), one.objection
            if wrong <= ONE_SIDED_LEVEL:
                verdict, p = CONTRADICTED, wrong
            elif right <= ONE_SIDED_LEVEL and not one.objection:
                verdict, p = BORNE_OUT, right
        checks.append(TagCheck(tag.name, claim_text(tag.claim), verdict, reason, p, one))
    return checks


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
