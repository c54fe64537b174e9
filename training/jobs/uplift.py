"""`train uplift`: who does more because of the contact of a campaign, and who does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from features.campaigns import Arms, Campaign, arms_of, campaigns_of, find_campaigns
from features.compute.spec import FeatureSpec
from models.bundle import ModelBundle
from models.uplift.deciles import decile_of
from models.uplift.uplift_model import UpliftModel
from qianmian.errors import DataError
from training.attributes import left_out_notes
from training.gate import GateRule
from training.jobs.base import EvaluatedModel, Job, TrainingContext
from training.propensity.rows import rows_with_history
from training.uplift.campaign_figures import campaign_figures
from training.uplift.campaign_report import ASSUMPTIONS, RULES, facts_of, report_of
from training.uplift.campaign_rows import campaign_rows, is_over, require_over, stacked
from training.uplift.campaign_trial import campaign_trial
from training.uplift.choice import choose
from training.uplift.outcomes import outcome_words, outcomes_between, require_outcome
from training.uplift.overlap import require_overlap
from training.uplift.placebo import placebo_test
from training.uplift.trial import check

HORIZON_DAYS = 28  # where the campaigns do not say how long they last
SHOWN = 5  # campaigns that an error lists


def run(context: TrainingContext) -> EvaluatedModel:
    """Learn from the declared campaigns what a contact changes, and test whether that can be trusted."""
    settings, builder, seed = context.settings.uplift, context.builder, context.settings.seed
    known = campaigns_of(builder, context.as_of)
    if not settings.campaigns:
        raise _none_declared(context, known)
    chosen = find_campaigns(known, settings.campaigns)
    outcome, horizon = settings.outcome, _horizon(context, chosen)
    require_outcome(builder, outcome)
    arms, not_over = _arms_of_those_over(context, chosen, horizon)
    chosen = [one.campaign for one in arms]
    randomised = _all_randomised(chosen)
    context.progress(
        f"uplift: {'; '.join(map(str, chosen))}; {outcome_words(outcome)} within {horizon} days of the contact"
    )
    spec = _spec(context, arms)
    rows = stacked([campaign_rows(context, one, spec, outcome, horizon) for one in arms])
    _require_arms(rows.treated)
    made = campaign_trial(rows, spec, seed, randomised=randomised)
    if made.overlap is not None:
        require_overlap(made.overlap)
    trial = replace(made.trial, treated=context.shuffled(made.trial.treated))
    check(trial)
    context.progress("uplift: placebo test on the time before the first contact")
    placebo = placebo_test(context, arms, spec, outcome, horizon)
    context.progress(str(placebo))
    found = choose(trial, seed, context.progress)
    notes = (
        *_arms_notes(arms),
        *([f"not over at the cutoff, and left out: {', '.join(not_over)}"] if not_over else []),
        f"without any correction, {outcome_words(outcome)}: {rows.outcome[rows.treated].mean():.4g} of those "
        f"contacted, {rows.outcome[~rows.treated].mean():.4g} of the others",
        *((ASSUMPTIONS, *made.overlap.notes()) if made.overlap is not None else ()),
        str(placebo),
        *left_out_notes(context.unknown_attributes(arms[0].as_of), arms[0].as_of),
    )
    facts = facts_of(arms, found.evaluation, placebo, made.overlap, outcome, horizon)
    one_ids, uplift = _uplift_now(context, spec, found.model)
    edges = np.quantile(uplift, np.arange(1, 10) / 10.0) if len(uplift) else np.zeros(9)
    bundle = ModelBundle(
        "uplift",
        found.model,
        context.as_of,
        spec,
        config={"model": found.model.get_params()},
        facts=context.facts("uplift", **facts, decile_edges=edges.tolist()),
    )
    parameters = {
        "campaigns": ", ".join(one.campaign_id for one in chosen),
        "outcome": outcome,
        "horizon_days": horizon,
        "rows": len(trial),
        "randomised": randomised,
        **found.model.get_params(),
    }
    rules: list[GateRule] = list(RULES)
    return EvaluatedModel(
        bundle,
        report_of(found.evaluation, placebo, made.overlap, notes),
        rules,
        parameters,
        campaign_figures(found.evaluation, made.overlap, outcome_words(outcome)),
        context.build_profiles(context.as_of).table.select(["one_id", *spec.names]).slice(0, 5),
        {"uplift_decile": (one_ids, decile_of(uplift, edges.tolist()).astype(np.float64).tolist())},
        "it may have learnt from the customers of the same campaign",
    )


def _none_declared(context: TrainingContext, known: Sequence[Campaign]) -> DataError:
    """The error that lists the campaigns of the lake, with what is known of them."""
    outcome = context.settings.uplift.outcome
    listed = [f"{one}{_outcome_words(context, one, outcome)}" for one in known[:SHOWN]]
    more = f"; and {len(known) - SHOWN} smaller ones" if len(known) > SHOWN else ""
    return DataError(
        "no campaign is declared",
        where="uplift.campaigns",
        allowed="; ".join(listed) + more,
        hint=f"name one, as in `qianmian train uplift --campaign {known[0].campaign_id}`, or in qianmian.yaml",
    )


def _outcome_words(context: TrainingContext, campaign: Campaign, outcome: str) -> str:
    """What those contacted did afterwards, for the list of campaigns; empty where it is not known yet."""
    horizon, arms = _horizon(context, [campaign]), arms_of(context.builder, campaign, context.as_of)
    if not is_over(context, arms, horizon):
        return ", not over"
    try:
        require_outcome(context.builder, outcome)
    except DataError:  # the lake cannot tell it; the error that this is a part of is another one
        return ""
    end = arms.outcome_from + timedelta(days=horizon)
    values = outcomes_between(context.builder, outcome, arms.contacted, arms.outcome_from, end)
    if not len(values):
        return ""
    return f", {outcome} {values.mean():.3g} a contacted customer in {horizon} days"


def _arms_of_those_over(
    context: TrainingContext, campaigns: Sequence[Campaign], horizon: int
) -> tuple[list[Arms], list[str]]:
    """The arms of the campaigns whose outcomes are known, and the ids of the others.

    Of a kind, there may always be one that is not over: it is left out. One that is named by its id must be over.

    Raises
    ------
    DataError
        A campaign that is named is not over, or none of the kind is.
    """
    arms = [arms_of(context.builder, one, context.as_of) for one in campaigns]
    over, others = ([one for one in arms if is_over(context, one, horizon) == wanted] for wanted in (True, False))
    for one in others:
        if not over or one.campaign.campaign_id in context.settings.uplift.campaigns:
            require_over(context, one, horizon)
    return over, [one.campaign.campaign_id for one in others]


def _all_randomised(campaigns: Sequence[Campaign]) -> bool:
    """Whether customers were held out at random.

    Raises
    ------
    DataError
        In some of the campaigns only: one comparison cannot be both.
    """
    kinds = {one.is_randomised for one in campaigns}
    if len(kinds) > 1:
        randomised = ", ".join(one.campaign_id for one in campaigns if one.is_randomised)
        raise DataError(
            "customers were held out at random in some of the campaigns only, which cannot be learnt from together",
            where="--campaign",
            got=f"held out in {randomised}",
            hint="name these campaigns alone: what they tell needs no assumptions",
        )
    return kinds.pop()


def _horizon(context: TrainingContext, campaigns: Sequence[Campaign]) -> int:
    """Days in which outcomes count: as named, or as long as the shortest of the campaigns."""
    named = context.horizon_days or context.settings.uplift.horizon_days
    return named or min((one.days for one in campaigns if one.days is not None), default=HORIZON_DAYS)


def _spec(context: TrainingContext, arms: Sequence[Arms]) -> FeatureSpec:
    """The features at the first contact that differ between customers.

    Attributes of the profiles stay although they may add nothing to a prediction: they may have decided who was
    contacted. `profiles.in_models: never` leaves them out.

    Raises
    ------
    DataError
        No feature differs.
    """
    candidates = context.stationary_spec(arms[0].as_of)
    values = context.profile(arms[0].as_of, candidates).values
    never = context.settings.profiles.in_models == "never"
    kept = [
        feature.name
        for feature, column in zip(candidates.features, values.T, strict=True)
        if not (column == column[:1]).all() and not (never and feature.aggregate in ("attribute", "missing"))
    ]
    if not kept:
        raise DataError(
            "all customers have the same features at the first contact, so nobody can be told from anybody else",
            where=f"the profiles at {arms[0].as_of:%Y-%m-%d}",
            got=f"{len(candidates.names)} features, none of which differs between customers",
            allowed="at least one that differs",
            hint="ingest orders or events from before the campaign",
        )
    return candidates.select(kept)


def _require_arms(treated: NDArray[np.bool_]) -> None:
    """Refuse a campaign that everybody or nobody received, before anything is estimated.

    Raises
    ------
    DataError
    """
    if 0 < treated.sum() < len(treated):
        return
    everybody = bool(len(treated)) and bool(treated.all())
    raise DataError(
        "everybody was contacted, so there is nobody to compare with"
        if everybody
        else "nobody with an order or an event before the first contact was contacted",
        where="--campaign",
        got=f"{int(treated.sum()):,} of {len(treated):,} customers contacted",
        allowed="at least 30 customers contacted and 30 not contacted",
        hint="hold out a tenth of the next campaign at random, with the variant `control` in `touches`",
    )


def _uplift_now(
    context: TrainingContext, spec: FeatureSpec, model: UpliftModel
) -> tuple[list[str], NDArray[np.float64]]:
    """The customers with a history at the cutoff, and their uplift."""
    profile = context.profile(context.as_of, spec)
    rows = rows_with_history(context, context.as_of)
    return profile.one_ids[rows].tolist(), model.predict(profile.values[rows])


def _arms_notes(arms: Sequence[Arms]) -> list[str]:
    found = []
    for one in arms:
        left = [
            f"{count:,} {why}"
            for count, why in ((one.late, "contacted more than a day later"), (one.both, "both contacted and held out"))
            if count
        ]
        out = f"; left out: {', '.join(left)}" if left else ""
        found.append(
            f"campaign {one.campaign}; profiles before {one.as_of:%Y-%m-%d %H:%M}, outcomes from "
            f"{one.outcome_from:%Y-%m-%d %H:%M}{out}"
        )
    return found


JOB = Job("uplift", "who does more because of a campaign, and whom not to contact", run, fits_horizon=True)
