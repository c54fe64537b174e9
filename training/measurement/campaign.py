"""`measure ab --campaign`: an experiment from the touches of a campaign and what each customer did after the touch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.campaigns import Campaign, campaigns_of, find_campaigns
from features.compute.builder import Builder
from features.propensity import target_rows
from qianmian.errors import DataError, UsageError
from qianmian.model_settings import UPLIFT_OUTCOMES
from qianmian.propensity_targets import PropensityTarget
from training.measurement.experiment import Experiment, MetricSeries, Series, weights_of
from training.measurement.notes import Note
from training.uplift.outcomes import require_outcome

MOST_OVERLAP = 0.01  # share of customers in two variants that can be left out; more is a mistake of the assignment


@dataclass(frozen=True)
class Exposures:
    """The customers of a campaign whose window is over, each at the first touch.

    Attributes
    ----------
    campaign : Campaign
    one_ids, variant : ndarray of str, (n,)
    start : ndarray of datetime64[us], (n,)
        First touch; for the control the moment at which it was drawn.
    propensity : ndarray of float64, (n,), or None
        Probability of the variant; None if a touch does not tell it.
    window_days : int
    notes : tuple of Note
    """

    campaign: Campaign
    one_ids: NDArray[np.str_]
    variant: NDArray[np.str_]
    start: NDArray[np.datetime64]
    propensity: Series | None
    window_days: int
    notes: tuple[Note, ...]

    @property
    def end(self) -> NDArray[np.datetime64]:
        """End of each customer's window."""
        return self.start + np.timedelta64(self.window_days, "D")

    def as_table(self) -> pa.Table:
        """Columns one_id, variant, start, end, and before: the begin of an equally long period before the touch."""
        before = self.start - np.timedelta64(self.window_days, "D")
        return pa.table(
            {
                "one_id": self.one_ids.tolist(),
                "variant": self.variant.tolist(),
                "before": before,
                "start": self.start,
                "end": self.end,
            }
        )


def find_exposures(builder: Builder, campaign_id: str, as_of: datetime, window_days: int) -> Exposures:
    """Who was drawn into which variant of a campaign, and when.

    Customers whose window is not over at `as_of` are left out in all variants alike, so that a running campaign can be
    looked at every day.

    Raises
    ------
    UsageError
        There is no such campaign.
    DataError
        The touches name no variants, customers are in several, or no window is over.
    """
    found = find_campaigns(campaigns_of(builder, as_of), [campaign_id])
    if len(found) > 1:
        names = ", ".join(campaign.campaign_id for campaign in found)
        raise UsageError("one campaign is measured at a time", where="--campaign", got=campaign_id, allowed=names)
    campaign = found[0]
    touches = builder.views(as_of)["touches"]
    own = touches.filter(touches.campaign_id == campaign.campaign_id)
    rows = (
        own.group_by("one_id")
        .aggregate(
            start=own.ts.min(),
            variant=own.variant.min(),
            variants=own.variant.nunique(),
            unnamed=own.variant.isnull().any(),
            propensity=own.propensity.argmin(own.ts),
            told=own.propensity.notnull().all(),
        )
        .order_by("one_id")
        .to_pyarrow()
    )
    columns = {name: np.asarray(rows[name].to_pylist()) for name in ("variants", "unnamed", "told")}
    if not rows.num_rows or columns["unnamed"].any():
        raise _no_variants(campaign, int(columns["unnamed"].sum()), rows.num_rows, as_of)
    overlapping = columns["variants"] > 1
    if overlapping.sum() > MOST_OVERLAP * rows.num_rows:
        raise DataError(
            "the arms overlap: customers are in more than one variant",
            where=f"campaign {campaign.campaign_id}",
            got=f"{int(overlapping.sum()):,} of {rows.num_rows:,} customers",
            allowed=f"at most {MOST_OVERLAP:.0%}, which are left out",
            hint="correct the touches; a customer with two accounts may have been drawn twice",
        )
    start = rows["start"].to_numpy().astype("datetime64[us]")
    over = start + np.timedelta64(window_days, "D") <= np.datetime64(as_of, "us")
    if not (over & ~overlapping).any():
        first = start.min().astype("datetime64[us]").item()
        raise DataError(
            "no customer's window is over yet, so there are no outcomes",
            where=f"campaign {campaign.campaign_id}",
            got=f"touches from {first:%Y-%m-%d}, --as-of {as_of:%Y-%m-%d}, --window-days {window_days}",
            allowed=f"--as-of {first + timedelta(days=window_days):%Y-%m-%d} or later",
            hint="wait, or choose a shorter --window-days",
        )
    kept = over & ~overlapping
    notes = []
    if overlapping.any():
        both = f"{int(overlapping.sum()):,}"
        notes.append(
            Note(f"left out, in more than one variant: {both} customers", f"已排除同时属于多个组的 {both} 位客户")
        )
    if not over.all():
        waiting = f"{int((~over).sum()):,}"
        text = f"not counted yet, because their {window_days} days are not over: {waiting} customers"
        notes.append(Note(text, f"{waiting} 位客户的 {window_days} 天观察期尚未结束，暂不计入"))
    propensity = rows["propensity"].to_numpy(zero_copy_only=False)[kept].astype(np.float64)
    told = bool(columns["told"][kept].all())
    if not told:
        text = "not every touch tells its propensity: the variants are taken as drawn alike, unless --expected"
        notes.append(Note(text, "并非每次触达都记录了分流概率：除非给出 --expected，否则视为各组等概率分流"))
    elif not ((propensity > 0) & (propensity <= 1)).all():
        raise DataError(
            "a propensity is a probability of the variant that was drawn",
            where=f"touches of campaign {campaign.campaign_id}",
            got=f"{propensity.min():g} to {propensity.max():g}",
            allowed="above 0, at most 1",
        )
    return Exposures(
        campaign,
        np.asarray(rows["one_id"].to_pylist(), dtype=np.str_)[kept],
        np.asarray(rows["variant"].to_pylist(), dtype=np.str_)[kept],
        start[kept],
        propensity if told else None,
        window_days,
        tuple(notes),
    )


def campaign_experiment(
    builder: Builder,
    exposures: Exposures,
    outcomes: Sequence[str],
    as_of: datetime,
    control: str,
    weights: dict[str, float] | None = None,
    segments: dict[str, NDArray[np.str_]] | None = None,
) -> Experiment:
    """The experiment of a campaign; each outcome with the same number of days before the touch.

    Parameters
    ----------
    outcomes : sequence of str
        ``order``, ``orders``, ``amount``, or a target such as ``category=NAME``.
    weights : dict of str to float, optional
        How the variants were drawn. Default: their propensities, or alike.

    Raises
    ------
    DataError
        The lake cannot tell an outcome.
    """
    for outcome in outcomes:
        require_outcome(builder, outcome)
    metrics = []
    for outcome in outcomes:
        after, before = _sums(builder, outcome, exposures, as_of)
        metrics.append(MetricSeries(outcome, after, None, before))
    return exposed_experiment(exposures, control, tuple(metrics), weights, segments)


def exposed_experiment(
    exposures: Exposures,
    control: str,
    metrics: tuple[MetricSeries, ...] = (),
    weights: dict[str, float] | None = None,
    segments: dict[str, NDArray[np.str_]] | None = None,
) -> Experiment:
    """The experiment of these customers, drawn as their propensities say, or by the weights."""
    propensity, constant = exposures.propensity, None
    if propensity is not None and (constant := weights_of(exposures.variant, propensity)) is not None:
        propensity = None
    return Experiment(
        exposures.variant, control, metrics, weights or constant, propensity, segments or {}, exposures.notes
    )


def _sums(builder: Builder, outcome: str, exposures: Exposures, as_of: datetime) -> tuple[Series, Series]:
    """The outcome of each customer in the window after the touch, and in the same number of days before it."""
    views = builder.views(as_of)
    rows: Any = views["orders"] if outcome in UPLIFT_OUTCOMES else target_rows(views, PropensityTarget.of(outcome))
    value = rows.amount.cast("float64") if outcome == "amount" else ibis.literal(1.0)
    rows = rows.select("one_id", "ts", value=value)
    joined = rows.inner_join(ibis.memtable(exposures.as_table().drop_columns("variant")), "one_id")
    after = (joined.ts >= joined.start) & (joined.ts < joined.end)
    earlier = (joined.ts >= joined.before) & (joined.ts < joined.start)
    sums = (
        joined.group_by("one_id")
        .aggregate(after=joined.value.sum(where=after), before=joined.value.sum(where=earlier))
        .to_pyarrow()
        .to_pydict()
    )
    by_customer = dict(zip(sums["one_id"], zip(sums["after"], sums["before"], strict=True), strict=True))
    found = [by_customer.get(one_id, (None, None)) for one_id in exposures.one_ids.tolist()]
    both = np.array([(after or 0.0, before or 0.0) for after, before in found], dtype=np.float64)
    if outcome not in ("orders", "amount"):
        both = (both > 0).astype(np.float64)
    return both[:, 0].copy(), both[:, 1].copy()


def _no_variants(campaign: Campaign, unnamed: int, customers: int, as_of: datetime) -> DataError:
    if not customers:
        return DataError(
            "the campaign begins after the cutoff",
            where=f"campaign {campaign.campaign_id}",
            got=f"first touch {campaign.first_contact:%Y-%m-%d}, --as-of {as_of:%Y-%m-%d}",
        )
    return DataError(
        "an experiment with one arm: the touches name no variants, so nobody is known to be held out at random"
        if unnamed == customers
        else "some touches name no variant, so it is not known which arm their customers are in",
        where=f"campaign {campaign.campaign_id}",
        got=f"{unnamed:,} of {customers:,} customers have a touch without a variant",
        allowed="a `variant` for every touch, those of the control group included",
        hint="hold a random tenth of the next campaign out and ingest its customers with variant `control`; "
        f"`qianmian train uplift --campaign {campaign.campaign_id}` estimates under assumptions that it names",
    )
