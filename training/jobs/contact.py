"""`train contact`: at which time of the week, and through which channel, each customer responds best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import sparse

from features.compute.algebra import PROFILE_PREFIX
from features.id_map import IdMap
from features.profiles.tags.consents import consent_columns
from features.profiles.tags.declare import TagValue
from models.bundle import ModelBundle
from models.contact import CELLS, CHANNELS, TIMES, ContactPreferences, consent_channel
from models.pooled_patterns import LEVELS, Codes, PooledPatterns, Responses
from qianmian.errors import DataError
from training import plots
from training.bootstrap import mean_metric
from training.contact.choice import PatternChoice, PatternTest, choose_patterns, evaluate
from training.contact.evidence import MIN_CUSTOMERS, ContactEvidence, read_evidence, too_little
from training.gate import GateRule
from training.jobs.base import EvaluatedModel, Job, TrainingContext
from training.report import EvalReport, Metric

MAX_GROUPS = 20  # of a profile attribute that makes segments
ACTIVITY_GROUPS = 3
MIN_HORIZON_DAYS = 7  # every time of the week once
PARTS = {TIMES: "the time of the week", CHANNELS: "the channel"}
# said where the champion would be compared
NOT_COMPARED = "it has the responses of each customer before its own cutoff, fewer than the new model"


def run(context: TrainingContext) -> EvaluatedModel:
    """Choose on one held-out period, evaluate on the next, and ship a fit on all data before `as_of`."""
    start = context.history_start("transactions", "events", "touches")
    span = (context.as_of - start).days
    horizon = context.horizon_days or min(context.settings.contact.horizon_days, span // 4)
    if horizon < MIN_HORIZON_DAYS or 3 * horizon > span:
        least = max(horizon, MIN_HORIZON_DAYS)
        raise DataError(
            "the history is too short to tell when customers respond",
            got=f"{span} days",
            allowed=f"at least {3 * least if context.horizon_days else 4 * least} days for a horizon of {least}",
            hint="choose a shorter --horizon-days or ingest a longer history",
        )
    context.require_outcomes(horizon)
    test = context.as_of - timedelta(days=horizon)
    validation = test - timedelta(days=horizon)
    context.progress(f"contact: responses of {horizon} days for the choice, of the next {horizon} for the evaluation")
    records = context.builder.views(context.as_of).customers
    one_ids = np.array(sorted(records.select("one_id").distinct().to_pyarrow()["one_id"].to_pylist()), dtype=np.str_)
    one_ids = one_ids[~context.is_shared(one_ids)]
    found = read_evidence(context.builder, context.as_of, (validation, test), IdMap(one_ids))
    evidence, missing = _usable(found)
    groupings = _attribute_groups(context, validation, one_ids)
    report, models, rules, levels = _evaluated(context, evidence, groupings, missing)
    context.progress("contact: fitting on all responses")
    now = _attribute_groups(context, context.as_of, one_ids)
    patterns: dict[str, PooledPatterns] = {}
    for part, choice in models.items():
        periods = evidence[part].of(part)
        patterns[part] = _fit(choice, periods[0] + periods[1] + periods[2], now)
    channel_names = evidence[CHANNELS].channel_names if CHANNELS in patterns else ()
    model = ContactPreferences(channel_names, patterns.get(TIMES), patterns.get(CHANNELS))
    kinds = {part: evidence[part].name for part in patterns}
    bundle = ModelBundle(
        "contact",
        model,
        context.as_of,
        user_ids=one_ids,
        config={part: one.get_params() for part, one in patterns.items()},
        facts=context.facts("contact", horizon_days=horizon, responses=kinds, timezone=context.builder.timezone),
    )
    parameters = {
        "horizon_days": horizon,
        "customers": len(one_ids),
        **{f"{part}_responses": kind for part, kind in kinds.items()},
        **{f"{part}_level": level for part, level in levels.items()},
    }
    example = pa.table({"one_id": one_ids[:5].tolist()})
    tags = _tags(context, model, one_ids)
    return EvaluatedModel(bundle, report, rules, parameters, _figures(model), example, tags, NOT_COMPARED)


def _usable(found: list[ContactEvidence]) -> tuple[dict[str, ContactEvidence], dict[str, str]]:
    """The best evidence of times and of channels, and why there is none.

    Raises
    ------
    DataError
        There is none of either.
    """
    evidence: dict[str, ContactEvidence] = {}
    missing: dict[str, str] = {}
    for part, name in PARTS.items():
        reasons = {one.name: too_little(one, part) for one in found}
        usable = next((one for one in found if not reasons[one.name]), None)
        if usable is not None:
            evidence[part] = usable
        told = "; ".join(f"{kind}: {reason}" for kind, reason in reasons.items() if reason)
        missing[part] = f"{name} is unknown ({told or 'there are no contacts, events or orders with times'})"
    if not evidence:
        raise DataError(
            "there are too few responses to tell when and how to contact customers",
            where="touches, events, transactions",
            got="; ".join(missing.values()),
            allowed=f"contacts with opened or clicked, events or orders, with clock times or channels, of at least "
            f"{MIN_CUSTOMERS} customers in each of three periods",
            hint="map clock times in `ts`, `opened`, `clicked` or `channel`; or choose another --horizon-days",
        )
    return evidence, {part: text for part, text in missing.items() if part not in evidence}


def _evaluated(
    context: TrainingContext,
    evidence: dict[str, ContactEvidence],
    attributes: dict[str, Codes],
    missing: dict[str, str],
) -> tuple[EvalReport, dict[str, PatternChoice], list[GateRule], dict[str, str]]:
    """Choice and evaluation of each part; a part that is no better than chance on the validation period is left out."""
    seed = context.settings.seed
    choices: dict[str, PatternChoice] = {}
    tests: dict[str, PatternTest] = {}
    notes = list(missing.values())
    for part, found in evidence.items():
        history, validation, test = found.of(part)
        if context.shuffle_labels:
            history, validation = (_without_signal(one, seed) for one in (history, validation))
        choice = choose_patterns(history, validation, _groups(attributes, history), seed)
        choices[part] = choice
        tests[part] = evaluate(_fit(choice, history + validation, attributes), test)
        stand_in = ", which stand in for responses to contacts" if found.is_stand_in else ""
        sent = "" if found.is_stand_in or found.exposures is not None else "; how many messages were sent is unknown"
        notes.append(f"{PARTS[part]} is that of {found.name}{stand_in}{sent}")
        notes.append(f"{PARTS[part]} is told by {LEVELS[choice.patterns.level]}; {choice.note}")
    kept = [part for part, choice in choices.items() if choice.beats_chance]
    if not kept and not context.shuffle_labels:
        raise DataError(
            "no usable signal: responses come at any time and through any channel alike",
            where="the validation period",
            got="; ".join(notes),
            allowed="patterns that are better than chance beyond noise",
            hint="ingest a longer history, or touches with `opened` and `clicked`",
        )
    kept = kept or list(choices)[:1]  # of permuted responses, which the gate must refuse
    left_out = [part for part in choices if part not in kept]
    notes += [f"{PARTS[part]} is left out: its patterns are no better than chance" for part in left_out]
    metrics: dict[str, Metric] = {}
    baselines: dict[str, dict[str, Metric]] = {"chance": {}, "all customers": {}}
    differences: dict[str, Metric] = {}
    rules = []
    for part in kept:
        shown = tests[part]
        metrics[f"{part}_log_loss"] = mean_metric(shown.losses, seed)
        metrics[f"{part}_best_share"] = mean_metric(shown.best_shares, seed)
        baselines["all customers"][f"{part}_best_share"] = mean_metric(shown.all_best_shares, seed)
        for name, losses in (("chance", shown.chance_losses), ("all customers", shown.all_losses)):
            baselines[name][f"{part}_log_loss"] = mean_metric(losses, seed)
            differences[f"{part}_log_loss:{name}"] = mean_metric(shown.losses - losses, seed)
        rules.append(GateRule(f"{part}_log_loss:chance", higher_is_better=False))
        if choices[part].patterns.level:
            rules.append(GateRule(f"{part}_log_loss:all customers", higher_is_better=False))
    report = EvalReport(metrics, baselines, differences, {}, notes=tuple(notes))
    levels = {part: LEVELS[choices[part].patterns.level] for part in kept}
    return report, {part: choices[part] for part in kept}, rules, levels


def _fit(choice: PatternChoice, data: Responses, attributes: dict[str, Codes]) -> PooledPatterns:
    """The chosen kind of patterns, of these responses."""
    none = np.full(data.responses.shape[0], -1, dtype=np.int64)
    codes = _groups(attributes, data).get(choice.grouping, none)
    return PooledPatterns(**choice.patterns.get_params()).fit(data, codes)


def _without_signal(data: Responses, seed: int) -> Responses:
    """The responses of each customer in random cells: labels that nothing can predict."""
    rng = np.random.default_rng(seed)

    def permuted(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
        entries = matrix.tocoo()
        columns = rng.integers(0, matrix.shape[1], entries.nnz)
        return sparse.csr_matrix((entries.data, (entries.row, columns)), shape=matrix.shape)

    return replace(data, responses=permuted(data.responses), exposures=None)


def _groups(attributes: dict[str, Codes], data: Responses) -> dict[str, Codes]:
    """What segments may be: an attribute, or how many responses a customer has (thirds)."""
    totals = data.totals
    inner = np.linspace(0, 1, ACTIVITY_GROUPS + 1)[1:-1]
    edges = np.quantile(totals[totals > 0], inner) if totals.any() else np.empty(0)
    activity = np.where(totals > 0, np.searchsorted(edges, totals, side="right"), -1)
    return {**attributes, "number of responses": activity.astype(np.int64)}


def _attribute_groups(context: TrainingContext, as_of: datetime, one_ids: NDArray[np.str_]) -> dict[str, Codes]:
    """Text attributes of the profiles with few values → code of each customer, −1 if it is unknown."""
    states = context.builder.states_at(as_of)
    if context.settings.profiles.in_models == "never" or not context.builder.attributes(states):
        return {}
    features = context.attributes_known_at(as_of, None)
    rows = IdMap(features.one_ids).rows(one_ids)
    found = {}
    for place, (feature, words) in enumerate(zip(features.spec.features, features.spec.vocabularies, strict=True)):
        if feature.categorical and 2 <= len([word for word in words if word]) <= MAX_GROUPS:
            codes = np.append(features.values[:, place], -1)[rows].astype(np.int64)
            empty = words.index("") if "" in words else -1
            found[feature.column] = np.where(codes == empty, -1, codes)
    return found


def _figures(model: ContactPreferences) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    if model.times is not None:
        shares = {f"{day} {slot}": float(share) for (day, slot), share in zip(CELLS, model.times.all_, strict=True)}
        figures["times.png"] = plots.bars(shares, "share of the responses of all customers", "Times of the week", 35)
    return figures


def _tags(
    context: TrainingContext, model: ContactPreferences, one_ids: NDArray[np.str_]
) -> dict[str, tuple[Sequence[str], Sequence[TagValue]]]:
    """Published tags; a channel that the customer refused is none of the best."""
    predictions = model.predict(np.arange(len(one_ids)))
    tags: dict[str, tuple[Sequence[str], Sequence[TagValue]]] = {}
    if predictions.times is not None:
        best = predictions.times.argmax(axis=1).tolist()
        tags["best_contact_time"] = (one_ids.tolist(), ["_".join(CELLS[place]) for place in best])
    if predictions.channels is not None:
        table = pa.table({"one_id": one_ids.tolist()})
        views, states = context.builder.views(context.as_of), context.builder.states_at(context.as_of)
        consents = consent_columns(views, table, states)
        refused = np.zeros(predictions.channels.shape, dtype=bool)
        for place, name in enumerate(model.channel_names):
            column = f"{PROFILE_PREFIX}consent_{consent_channel(name)}"
            if column in consents:
                refused[:, place] = [value is False for value in consents[column].to_pylist()]
        ranked = model.ranked_channels(predictions, refused)
        tags["best_channel"] = (one_ids.tolist(), [found[0]["channel"] if found else None for found in ranked])
    return tags


JOB = Job("contact", "at which time and through which channel each customer responds best", run, fits_horizon=True)
