"""`train content`: what to read, watch or be told, measured on the last horizon before `as_of` beside what one line of SQL would show.

Contents carry no date: those nobody has met are the newest ones, and those that were never shown. On the days that are measured they are
candidates like any other, and what becomes of them is reported apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from features.contents import READ_WEIGHT, ContentSet, content_interactions, content_rows, content_set
from features.interactions import Interactions, TrainingSet
from models.bundle import ModelBundle
from models.ranked import NOT_A_CANDIDATE, top_k
from models.recommend.content.model import ContentRecommender
from models.recommend.content.words import TopicMatrices
from models.recommend.popular import recent_customers
from models.recommend.scene import SCENES
from models.recommend.scene_models import SceneModels
from qianmian.errors import DataError
from training import plots
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
NEW = "of contents nobody had met"
RECENT_DAYS = 28.0
ItemLists = NDArray[np.int32]


def run(context: TrainingContext) -> EvaluatedModel:
    """Measure on the last horizon, ship a fit on everything before `as_of`."""
    content_rows(context.builder, context.as_of)  # a lake without contents is told apart first
    span = (context.as_of - context.history_start("events")).days
    horizon = min(context.horizon_days or context.settings.recommend.horizon_days, span // 4)
    if horizon < 1:
        raise DataError(
            "the history is too short to hold out a test window",
            where="events",
            got=f"{span} days",
            allowed="at least 4 days",
        )
    start = context.as_of - timedelta(days=horizon)
    context.progress("content: measuring on the test window")
    train = _contents(context, start)
    rows = content_rows(context.builder, context.as_of, start)
    holdout = content_interactions(rows, train.user_ids, train.item_ids, train.item_attributes["category"])
    users, truth, read = _evaluation_examples(train, holdout)
    if len(users) < MIN_EXAMPLES:
        raise DataError(
            f"only {len(users)} customers with a history met a content in {start:%Y-%m-%d}..{context.as_of:%Y-%m-%d} they had not read",
            allowed=f"at least {MIN_EXAMPLES}",
            hint="bring more events with contents, or a longer history",
        )
    model = ContentRecommender(seed=context.settings.seed).fit(_shuffled(context, train))
    lists = {OURS: model.recommend(users, max(RECALL_KS)).ids, **_baselines(train, read[users])}
    report = _report(train, users, truth, lists)
    curves = {
        name: [float(ranking_metrics(ids, truth, k, ("recall",))["recall"].mean()) for k in RECALL_KS]
        for name, ids in lists.items()
    }
    period = f"{start:%Y-%m-%d} to {context.as_of:%Y-%m-%d}"
    figures = {"recall_by_k.png": plots.curves(RECALL_KS, curves, "k", "recall", f"Recall by k, {period}")}

    context.progress("content: fitting on everything before as_of")
    full = _shuffled(context, _contents(context, context.as_of))
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
    return EvaluatedModel(bundle, report, rules, parameters, figures, pa.table({"one_id": full.user_ids[:5].tolist()}))


def _contents(context: TrainingContext, as_of: datetime) -> ContentSet:
    """Contents, with what the customers buy and their profiles, where the lake has any."""
    purchases: TrainingSet | None = None
    try:
        purchases = context.training_set(as_of, min_item_customers=context.settings.recommend.min_item_customers)
    except DataError as error:
        context.progress(f"content: by what is read alone ({error.message})")
    made = content_set(context.builder, as_of, purchases)
    if made.user_features is None:
        profile = context.profile(as_of)
        made = replace(made, user_features=profile.take(profile.rows_of(made.user_ids)))
    return made


def _evaluation_examples(
    train: ContentSet, holdout: Interactions
) -> tuple[NDArray[np.int64], sparse.csr_matrix, sparse.csr_matrix]:
    """Customers with a history who met a content they had not read to the end: indices (n,), what they met (n, n_contents), and what everybody had read."""
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
    """One order for everybody, what each has read to the end left out: by clicks, by age (what nobody met last, or first), by the clicks of the topics.

    Parameters
    ----------
    read : csr_matrix, (n, n_contents)
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
    return replace(train, interactions=mixed)


JOB = Job(
    "content",
    "articles, banners and messages for each customer: by topics, by what is bought, by readers; the new get their turn",
    run,
)
