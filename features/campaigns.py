"""The campaigns of a lake: who was contacted when, who was held out at random, and with which probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import ibis
import numpy as np
from numpy.typing import NDArray

from features.compute.builder import Builder
from features.compute.views import timestamp
from qianmian.errors import DataError, UsageError, did_you_mean

# variants of touches that were not sent: customers who were drawn and left alone, for comparison
CONTROL_VARIANTS = ("control", "control_group", "held_out", "holdout", "对照", "对照组")
WAVE = timedelta(days=1)  # of the contacts of a campaign, those of the first so many hours belong together
KIND = "kind="
EVERY_ROW = datetime(9999, 1, 1)  # a cutoff after all rows, so that a campaign that begins later is one that there is


@dataclass(frozen=True)
class Campaign:
    """One campaign with contacts in the lake.

    Attributes
    ----------
    campaign_id : str
    kind, channel : str or None
        As the table of campaigns has them.
    first_contact : datetime
        Time of the first touch, naive UTC.
    days : int or None
        Days from start to end; None where the table of campaigns does not say it.
    contacted, held_out : int
        Customers with a contact, and with a control variant only, before the cutoff.
    """

    campaign_id: str
    kind: str | None
    channel: str | None
    first_contact: datetime
    days: int | None
    contacted: int
    held_out: int

    @property
    def is_randomised(self) -> bool:
        """Whether customers were held out at random; else the others are no random sample."""
        return self.held_out > 0

    def __str__(self) -> str:
        kind = f" ({self.kind})" if self.kind else ""
        control = f", {self.held_out:,} held out" if self.is_randomised else ""
        return f"{self.campaign_id}{kind}: {self.contacted:,} contacted{control}"


@dataclass(frozen=True)
class Arms:
    """Who was contacted by a campaign, and who was held out, at one moment.

    Attributes
    ----------
    campaign : Campaign
    as_of : datetime
        The first contact: what is known of the customers ends here.
    outcome_from : datetime
        The last contact of the first wave: outcomes count from here on, in both arms, so that none comes before the
        contact that it would be an outcome of.
    contacted : ndarray of str
        one_ids of the customers contacted in the first wave.
    held_out : ndarray of str
        Of those held out at random; empty where nobody was.
    propensity : ndarray of float64 or None
        Probability with which each of them, first the contacted ones, was to be contacted; None if it is not told.
    others : frozenset of str
        one_ids that are in neither arm: contacted later than the first wave, or both contacted and held out.
    late, both : int
        How many of these there are.
    """

    campaign: Campaign
    as_of: datetime
    outcome_from: datetime
    contacted: NDArray[np.str_]
    held_out: NDArray[np.str_]
    propensity: NDArray[np.float64] | None
    others: frozenset[str]
    late: int
    both: int


def campaigns_of(builder: Builder, as_of: datetime) -> list[Campaign]:
    """The campaigns of the lake, those with the most contacts first.

    Of one that begins at or after the cutoff only the first touch is told, so that an error can say that it does.

    Raises
    ------
    DataError
        The lake has no touches.
    """
    state = builder.states.get("touches")
    if state is None or not state.rows:
        raise DataError(
            "the lake has no campaign contacts, so nothing tells what a contact changes",
            where="touches",
            hint="ingest `touches` and `campaigns`, see docs/data.md; for a table: `train uplift --data FILE`",
        )
    touches = builder.views(EVERY_ROW)["touches"]
    is_control, is_before = _is_control(touches), touches.ts < timestamp(as_of)
    customers = touches.group_by(["campaign_id", "one_id"]).aggregate(
        first=touches.ts.min(),
        contacted=(is_before & ~is_control).any(),
        held_out=(is_before & is_control).any(),
    )
    found = customers.group_by("campaign_id").aggregate(
        first=customers["first"].min(),
        contacted=customers.contacted.sum(),
        held_out=(customers.held_out & ~customers.contacted).sum(),
    )
    declared = builder.backend.table("campaigns").select("campaign_id", "kind", "channel", "start", "end")
    rows = found.left_join(declared, "campaign_id").to_pyarrow().to_pylist()
    campaigns = [
        Campaign(
            row["campaign_id"],
            row["kind"],
            row["channel"],
            row["first"],
            max(1, (row["end"] - row["start"]).days) if row["start"] is not None and row["end"] is not None else None,
            int(row["contacted"] or 0),
            int(row["held_out"] or 0),
        )
        for row in rows
    ]
    return sorted(campaigns, key=lambda one: (-one.contacted, one.campaign_id))


def find_campaigns(campaigns: Sequence[Campaign], names: Sequence[str]) -> list[Campaign]:
    """The campaigns that are named by their ids, or all of a kind (``kind=TypeA``), each once, the earliest first.

    Raises
    ------
    UsageError
        There is no such campaign; the error names similar ones.
    """
    found: dict[str, Campaign] = {}
    for name in names:
        if name.startswith(KIND):
            wanted = _plain(name.removeprefix(KIND))
            matches = [one for one in campaigns if one.kind is not None and _plain(one.kind) == wanted]
            allowed = sorted({one.kind for one in campaigns if one.kind})
        else:
            matches = [one for one in campaigns if one.campaign_id == name]
            allowed = sorted(one.campaign_id for one in campaigns)
        if not matches:
            similar = did_you_mean(name.removeprefix(KIND), allowed)
            raise UsageError(
                f"no campaign of the lake is called so{similar}",
                where="--campaign",
                got=name,
                allowed=", ".join(allowed) or "none: the campaigns of the lake have no kind",
            )
        found |= {one.campaign_id: one for one in matches}
    return sorted(found.values(), key=lambda one: (one.first_contact, one.campaign_id))


def arms_of(builder: Builder, campaign: Campaign, as_of: datetime) -> Arms:
    """Who was contacted in the first wave of a campaign, and who was held out, by the touches before the cutoff."""
    touches = builder.views(as_of)["touches"]
    own = touches.filter(touches.campaign_id == campaign.campaign_id)
    is_control = _is_control(own)
    customers = (
        own.group_by("one_id")
        .aggregate(
            first=own.ts.min(),
            contacted=(~is_control).any(),
            held_out=is_control.any(),
            propensity=ibis.ifelse(is_control, 1.0 - own.propensity, own.propensity).mean(),
            told=own.propensity.notnull().all(),
        )
        .order_by("one_id")
        .to_pyarrow()
    )
    variants = own.variant.lower().nunique().to_pyarrow().as_py()
    one_ids = np.asarray(customers["one_id"].to_pylist(), dtype=np.str_)
    times = customers["first"].to_numpy().astype("datetime64[us]")
    contacted, held_out, told = (
        np.asarray(customers[name].to_pylist(), dtype=bool) for name in ("contacted", "held_out", "told")
    )
    late = times > np.datetime64(campaign.first_contact + WAVE, "us")
    both = contacted & held_out
    inside = ~late & ~both
    treated, control = np.flatnonzero(inside & contacted), np.flatnonzero(inside & held_out)
    rows = np.concatenate([treated, control])
    # of three variants or more, the probability of one does not tell that of any contact
    has_propensity = len(control) > 0 and variants == 2 and bool(told[rows].all())
    last = times[rows].max() if len(rows) else np.datetime64(campaign.first_contact, "us")
    return Arms(
        campaign,
        campaign.first_contact,
        last.astype("datetime64[us]").item(),
        one_ids[treated],
        one_ids[control],
        customers["propensity"].to_numpy()[rows].astype(np.float64) if has_propensity else None,
        frozenset(one_ids[~inside].tolist()),
        int(late.sum()),
        int((both & ~late).sum()),
    )


def _is_control(touches: Any) -> Any:
    return touches.variant.lower().isin(CONTROL_VARIANTS).fill_null(False)


def _plain(text: str) -> str:
    return "".join(text.split()).casefold()
