"""`train content`: recommend articles, banners and messages; evaluated on the last horizon before `as_of`.

The baselines are rankings that one SQL query could make. Contents have no publication date: a content without events is
either new or was never shown. In the test period such contents are candidates like all others, and the report has
separate metrics for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from features.contents import content_interactions, content_rows, content_set
from features.interactions import READ_WEIGHT, ContentSet, Interactions, TrainingSet
from models.bundle import ModelBundle
from models.ranked import NOT_A_CANDIDATE, top_k
from models.recommend.content.model import ContentRecommender
from models.recommend.content.words import TopicMatrices
from models.recommend.popular import recent_customers
from models.recommend.scene import SCENES
from models.recommend.scene_models import SceneModels
from qianmian.errors import DataError
from training import plots
from training.attributes import left_out_notes
from training.bootstrap import mean_metric
from training.evaluation.compare import evaluate
from training.evaluation.metrics import ranking_metrics
from training.evaluation.split import interaction_matrix
from training.gate import GateRule
from training.jobs.base import EvaluatedModel, Job, TrainingContext
from training.report import EvalReport, Metric
from training.tasks.base import MIN_EXAMPLES

K = 10
RECALL_KS = (1, 2, 3, 5, 10, 15, 20)
OURS, MOST_CLICKED, MOST_RECENT, NEW_FIRST, BY_TOPIC = (
    "content",
    "most clicked",
    "most recent",
    "new first",
    "topic popularity",
)
NEW = "of contents nobody had met"  # contents without events before the cutoff; part of a metric name in MLflow
RECENT_DAYS = 28.0
ItemLists = NDArray[np.int32]
# said where the champion would be compared
NOT_COMPARED = "its lists are those of the readers at its own cutoff, older than those of the new model"


def run(context: TrainingContext) -> EvaluatedModel:
    """Evaluate on the last horizon and ship a fit on all data before `as_of`."""
    content_rows(context.builder, context.as_of)  # raises for a lake without contents before any other check
    span = (context.as_of - context.history_start("events")).days
    horizon = min(context.horizon_days or context.settings.recommend.horizon_days, span // 4)
    if horizon < 1:
        raise DataError(
            "the history is too short to hold out a test period",
            where="events",
            got=f"{span} days",
            allowed="at least 4 days",
        )
    start = context.as_of - timedelta(days=horizon)
    context.progress("content: evaluating on the test period")
    train = _contents(context, start)
    rows = content_rows(context.builder, context.as_of, start)
    holdout = content_interactions(rows, train.user_ids, train.item_ids, train.item_attributes["category"])
    users, truth, read = _evaluation_examples(train, holdout)
    if len(users) < MIN_EXAMPLES:
        raise DataError(
            f"only {len(users)} customers with a history have an event on an unread content in the test period",
            where=f"{start:%Y-%m-%d}..{context.as_of:%Y-%m-%d}",
            allowed=f"at least {MIN_EXAMPLES}",
            hint="ingest more events with contents, or a longer history",
        )
    model = ContentRecommender(seed=context.settings.seed).fit(_shuffled(context, train))
    lists = {OURS: model.recommend(users, max(RECALL_KS)).ids, **_baselines(train, read[users])}
    notes = left_out_notes(context.unknown_attributes(start), start)
    report = replace(_report(train, users, truth, lists), notes=notes)
    curves = {
        name: [float(ranking_metrics(ids, truth, k, ("recall",))["recall"].mean()) for k in RECALL_KS]
        for name, ids in lists.items()
    }
    period = f"{start:%Y-%m-%d} to {context.as_of:%Y-%m-%d}"
    figures = {"recall_by_k.png": plots.curves(RECALL_KS, curves, "k", "recall", f"Recall by k, {period}")}

    context.progress("content: fitting on all data before as_of")
    full = _shuffled(context, _contents(context, context.as_of, evaluated_at=start))
    final = ContentRecommender(seed=context.settings.seed).fit(full)
    spec = full.user_features.spec if full.user_features else None
    facts = context.facts("content", horizon_days=horizon, interactions="contents")
    bundle = ModelBundle(
        "scenes",
        SceneModels({OURS: final}, {scene.name: [OURS] for scene in SCENES.values() if scene.job == JOB.name}),
        context.as_of,
        spec,
        full.user_ids,
        full.item_ids,
        full.item_attributes,
        {"model": final.get_params()},
        facts,
    )
    rules = [GateRule(f"ndcg@{K}:{name}") for name in (MOST_CLICKED, BY_TOPIC)]
    rules += [GateRule(f"ndcg@{K}:{name}", require_improvement=False) for name in (MOST_RECENT, NEW_FIRST)]
    parameters = {"horizon_days": horizon, **final.get_params()}
    example = pa.table({"one_id": full.user_ids[:5].tolist()})
    return EvaluatedModel(bundle, report, rules, parameters, figures, example, comparison=NOT_COMPARED)


def _contents(context: TrainingContext, as_of: datetime, evaluated_at: datetime | None = None) -> ContentSet:
    """Training set of contents at a cutoff, with purchases if the lake has any, and with profiles."""
    purchases: TrainingSet | None = None
    least = context.settings.recommend.usual_min_item_customers
    try:
        purchases = context.training_set(as_of, min_item_customers=least, evaluated_at=evaluated_at)
    except DataError as error:
        context.progress(f"content: purchases are not used, only events on contents ({error.message})")
    contents = content_set(context.builder, as_of, purchases)
    if contents.user_features is None:
        profile = context.attributes_known_at(as_of, evaluated_at)
        contents = replace(contents, user_features=profile.take(profile.rows_of(contents.user_ids)))
    return contents


def _evaluation_examples(
    train: ContentSet, holdout: Interactions
) -> tuple[NDArray[np.int64], sparse.csr_matrix, sparse.csr_matrix]:
    """Customers with a history and an event in the test period on a content that they have not read to the end.

    Returns
    -------
    ndarray of int64, shape (n,)
        Indices of the customers.
    csr_matrix, shape (n, n_contents)
        Their contents of the test period, without those read to the end before.
    csr_matrix, shape (n_users, n_contents)
        Contents read to the end before the cutoff, of all customers.
    """
    ends = train.interactions.weights >= READ_WEIGHT
    read = interaction_matrix(train.interactions.users[ends], train.interactions.items[ends], train.interactions.shape)
    met = interaction_matrix(holdout.users, holdout.items, holdout.shape)
    truth = (met - met.multiply(read)).tocsr()
    truth.eliminate_zeros()
    truth.sort_indices()
    known = np.bincount(train.interactions.users, minlength=train.n_users) > 0
    if train.purchases is not None:
        known |= np.bincount(train.purchases.interactions.users, minlength=train.n_users) > 0
    users = np.flatnonzero(known & (np.diff(truth.indptr) > 0))
    return users, truth[users], read


def _baselines(train: ContentSet, read: sparse.csr_matrix) -> dict[str, ItemLists]:
    """Lists of the non-personalised baselines, without the contents that a customer has read to the end.

    Contents are ordered by clicks, by their first event (contents without events last, or first), or by the mean clicks
    of their topics.

    Parameters
    ----------
    train : ContentSet
    read : csr_matrix, shape (n, n_contents)
        Contents each customer has read to the end.
    """
    data, words = train.interactions, TopicMatrices.of(train)
    first = np.full(train.n_items, -1.0, dtype=np.float32)
    np.maximum.at(first, data.items, data.age_days)
    met = first >= 0
    clicks = recent_customers(train, RECENT_DAYS)
    by_word = np.asarray(words.contents.T @ clicks) / np.maximum(np.asarray(words.contents.sum(axis=0)).ravel(), 1e-9)
    orders = {
        MOST_CLICKED: clicks,
        MOST_RECENT: np.where(met, -first, -np.float32(1e9)),
        NEW_FIRST: np.where(met, -first, np.float32(0.0)),
        BY_TOPIC: np.asarray(words.contents @ by_word, dtype=np.float32),
    }
    out = np.repeat(np.arange(read.shape[0]), np.diff(read.indptr)), read.indices
    found = {}
    for name, order in orders.items():
        scores = np.repeat(order.astype(np.float32)[None, :], read.shape[0], axis=0)
        scores[out] = NOT_A_CANDIDATE
        ids, values = top_k(scores, max(RECALL_KS))
        found[name] = np.where(np.isfinite(values), ids, -1).astype(np.int32)
    return found


def _report(
    train: ContentSet, users: NDArray[np.int64], truth: sparse.csr_matrix, lists: Mapping[str, ItemLists]
) -> EvalReport:
    many = np.bincount(train.interactions.users, minlength=train.n_users)[users]
    usual = float(np.median(many[many > 0])) if (many > 0).any() else 0.0
    groups = {
        "never read before": many == 0,
        "light readers": (many > 0) & (many <= usual),
        "heavy readers": many > usual,
    }
    compared = evaluate(
        lists,
        truth,
        K,
        item_customers=train.item_customers,
        n_customers=train.n_users,
        categories=None,
        slices={name: rows for name, rows in groups.items() if int(rows.sum()) >= MIN_EXAMPLES},
        reference=OURS,
    )
    slices: dict[str, dict[str, Metric]] = {
        name: {f"ndcg@{K}": found[OURS][f"ndcg@{K}"]} for name, found in compared.slices.items()
    }
    new = train.item_customers == 0
    of_new = truth.copy()
    of_new.data[~new[of_new.indices]] = 0.0
    of_new.eliminate_zeros()
    some = np.flatnonzero(np.diff(of_new.indptr) > 0)
    for name, ids in lists.items():
        top = ids[:, :K]
        share = (new[np.maximum(top, 0)] & (top >= 0)).sum(axis=1) / np.maximum((top >= 0).sum(axis=1), 1)
        slices[f"{NEW}: {name}"] = {f"share_of_places@{K}": mean_metric(share)}
        if len(some):
            found = ranking_metrics(ids[some], of_new[some], K, ("recall", "ndcg"))
            slices[f"{NEW}: {name}"] |= {f"{metric}@{K}": mean_metric(values) for metric, values in found.items()}
    baselines = {name: found for name, found in compared.models.items() if name != OURS}
    return EvalReport(compared.models[OURS], baselines, compared.differences, slices)


def _shuffled(context: TrainingContext, train: ContentSet) -> ContentSet:
    if not context.shuffle_labels:
        return train
    data = train.interactions
    mixed = Interactions(data.users, context.shuffled(data.items), data.age_days, data.weights, data.shape, data.orders)
    return replace(train, interactions=mixed, returned=None)


JOB = Job(
    "content",
    "which articles, banners and messages to show: by topics, purchases and readers, with exposure for new contents",
    run,
    fits_horizon=True,
)
