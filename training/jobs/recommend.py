"""`train recommend`: the fallback chain, its half-life chosen on validation, measured on the last horizon before `as_of`."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from features.dataset import Interactions, TrainingSet, index_of, interaction_rows, interaction_source
from models.bundle import ModelBundle
from models.ranked import Ranked
from models.recommend.base import Recommender
from models.recommend.chain import FallbackChain
from models.recommend.hybrid import HybridRecommender, user_attributes
from models.recommend.ials import ImplicitALSRecommender
from models.recommend.popular import PopularRecommender
from models.recommend.repeat import RepeatPurchaseRecommender
from qianmian.errors import DataError
from training import plots
from training.gate import Rule
from training.jobs.base import Context, Job, Outcome
from training.metrics import mean_metric, ranking_metrics
from training.report import EvalReport, Metric

K = 10
CURVE = (1, 2, 3, 5, 10, 15, 20)
MIN_USERS = 30
COLD_SHARE = 0.3  # of the customers with attributes, in the cold-start measurement


def run(context: Context) -> Outcome:
    """Choose on validation, measure on test, ship a refit on everything before `as_of`."""
    settings = context.settings.recommend
    horizon = _horizon(context)
    test_start, validation_start = context.as_of - timedelta(days=horizon), context.as_of - timedelta(days=2 * horizon)

    context.progress("recommend: choosing the half-life on the validation window")
    early = context.training_set(validation_start, min_item_customers=settings.min_item_customers, with_features=False)
    users, truth = outcomes(context, early, validation_start, test_start)
    tried = {}
    for half_life in (*settings.half_life_days, None):
        ranked = RepeatPurchaseRecommender(half_life).fit(early).recommend(users, K)
        tried[half_life] = float(ranking_metrics(ranked.ids, truth, K)["ndcg"].mean())
    half_life = max(tried, key=lambda key: tried[key])

    parameters: dict[str, dict[str, Any]] = {
        "repeat": {"half_life_days": half_life},
        "ials": {
            "factors": settings.factors,
            "iterations": settings.iterations,
            "half_life_days": half_life,
            "seed": context.settings.seed,
        },
        "hybrid": {"factors": settings.hybrid_factors, "epochs": settings.hybrid_epochs, "seed": context.settings.seed},
        "popular": {"window_days": float(settings.popular_window_days)},
    }
    context.progress("recommend: measuring on the test window")
    late = context.training_set(test_start, min_item_customers=settings.min_item_customers)
    report, figures = _evaluate(context, late, test_start, parameters)

    context.progress("recommend: fitting on everything before as_of")
    full = context.training_set(context.as_of, min_item_customers=settings.min_item_customers)
    full = _shuffled(context, full)
    chain = FallbackChain(list(parameters.items())).fit(full)
    config = {"stages": parameters, "validation_ndcg@10": {str(key): value for key, value in tried.items()}}
    bundle = ModelBundle(
        "chain", chain, context.as_of, full.user_features.spec if full.user_features else None, full.user_ids, full.item_ids, full.item_attributes,
        config, context.facts("recommend", horizon_days=horizon, interactions=full.source),
    )  # fmt: skip
    rules = [Rule(f"ndcg@{K}:popular"), Rule(f"ndcg@{K}:own purchase counts", clearly=False)]
    flat = {f"{stage}.{name}": value for stage, given in parameters.items() for name, value in given.items()}
    return Outcome(bundle, report, rules, {"horizon_days": horizon, **flat}, figures, pa.table({"one_id": full.user_ids[:5].tolist()}))


def _horizon(context: Context) -> int:
    wanted = context.horizon_days or context.settings.recommend.horizon_days
    table = interaction_source(context.builder, context.as_of)
    span = (context.as_of - context.first(table)).days
    # a short history gets shorter windows: at least half of it stays for learning
    horizon = min(wanted, span // 4)
    if horizon < 1:
        raise DataError(
            "the history is too short to hold out a validation and a test window",
            where=table,
            got=f"{span} days",
            allowed="at least 4 days",
        )
    return horizon


def outcomes(context: Context, train: TrainingSet, start: datetime, end: datetime) -> tuple[NDArray[np.int64], sparse.csr_matrix]:
    """Who took what in ``[start, end)``: user indices with a history and an outcome (n,), and a 0/1 matrix (n, n_items)."""
    rows, _ = interaction_rows(context.builder, end, start)
    users = train.user_rows(np.asarray(rows["one_id"].to_pylist(), dtype=np.str_))
    items = index_of(train.item_ids, np.asarray(rows["item_id"].to_pylist(), dtype=np.str_))
    kept = (users >= 0) & (items >= 0)
    taken = sparse.csr_matrix((np.ones(int(kept.sum()), np.float32), (users[kept], items[kept])), shape=(train.n_users, train.n_items))
    taken.data[:] = 1.0
    with_history = np.bincount(train.interactions.users, minlength=train.n_users) > 0
    chosen = np.flatnonzero(with_history & (np.diff(taken.indptr) > 0))
    if len(chosen) < MIN_USERS:
        raise DataError(
            f"only {len(chosen)} customers have both a history and something in {start:%Y-%m-%d}..{end:%Y-%m-%d}", allowed=f"at least {MIN_USERS}",
            hint="bring more customers, a longer history, or lower recommend.min_item_customers",
        )  # fmt: skip
    return chosen, taken[chosen]


def _evaluate(
    context: Context, train: TrainingSet, start: datetime, parameters: dict[str, dict[str, Any]]
) -> tuple[EvalReport, dict[str, Any]]:
    users, truth = outcomes(context, train, start, context.as_of)
    learnt = _shuffled(context, train)
    # the hybrid answers customers without history only, and those evaluated here have one: it is measured on its own below
    chain = FallbackChain([(name, given) for name, given in parameters.items() if name != "hybrid"]).fit(learnt)
    candidates: dict[str, Recommender] = {
        "chain": chain,
        "popular": PopularRecommender().fit(train),
        "own purchase counts": RepeatPurchaseRecommender(None).fit(train),
        "ials": next(model for model in chain.models if isinstance(model, ImplicitALSRecommender)),
    }
    ranked: dict[str, Ranked] = {name: model.recommend(users, max(CURVE)) for name, model in candidates.items()}
    each = {name: ranking_metrics(answer.ids, truth, K) for name, answer in ranked.items()}
    metrics = {name: {f"{metric}@{K}": mean_metric(values) for metric, values in found.items()} for name, found in each.items()}
    differences = {
        f"{metric}@{K}:{name}": mean_metric(each["chain"][metric] - found[metric])
        for name, found in each.items()
        if name != "chain"
        for metric in ("recall", "ndcg")
    }
    had = learnt.interactions.matrix()[users]
    lines = np.asarray(had.sum(axis=1)).ravel()
    edges = np.quantile(lines, [1 / 3, 2 / 3])
    slices: dict[str, dict[str, Metric]] = {
        name: {f"ndcg@{K}": mean_metric(each["chain"]["ndcg"][rows])}
        for name, rows in {
            "light": lines <= edges[0],
            "medium": (lines > edges[0]) & (lines <= edges[1]),
            "heavy": lines > edges[1],
        }.items()
        if rows.any()
    }
    slices.update(_cold(context, train, start, parameters))
    curves = {name: [float(ranking_metrics(answer.ids, truth, k)["recall"].mean()) for k in CURVE] for name, answer in ranked.items()}
    figures = {"recall_by_k.png": plots.curves(CURVE, curves, "k", "recall", f"Recall by k, {start:%Y-%m-%d} to {context.as_of:%Y-%m-%d}")}
    report = EvalReport(metrics["chain"], {name: found for name, found in metrics.items() if name != "chain"}, differences, slices)
    return report, figures


def _cold(context: Context, train: TrainingSet, start: datetime, parameters: dict[str, dict[str, Any]]) -> dict[str, dict[str, Metric]]:
    """Hide the whole history of some customers with attributes; the hybrid and popularity then answer the same strangers."""
    _, attributes = user_attributes(train)
    described = np.flatnonzero(np.diff(attributes.indptr) > 0)
    users, truth = outcomes(context, train, start, context.as_of)
    testable = np.intersect1d(described, users)
    if len(testable) < MIN_USERS:
        context.progress("recommend: too few customers with attributes to measure the cold start")
        return {}
    hidden = np.random.default_rng(context.settings.seed).permutation(testable)[: max(MIN_USERS, int(COLD_SHARE * len(testable)))]
    data = train.interactions
    kept = ~np.isin(data.users, hidden)
    seen = Interactions(data.users[kept], data.items[kept], data.age_days[kept], data.weights[kept], data.shape)
    strangers = TrainingSet(train.user_ids, train.item_ids, seen, train.item_attributes, train.user_features, train.as_of, train.source)
    wanted = truth[np.searchsorted(users, hidden)]
    hybrid = ranking_metrics(HybridRecommender(**parameters["hybrid"]).fit(strangers).recommend(hidden, K).ids, wanted, K)
    popular = ranking_metrics(PopularRecommender(**parameters["popular"]).fit(strangers).recommend(hidden, K).ids, wanted, K)
    return {
        "cold: hybrid": {f"{metric}@{K}": mean_metric(values) for metric, values in hybrid.items()},
        "cold: popular": {f"{metric}@{K}": mean_metric(values) for metric, values in popular.items()},
        "cold: hybrid minus popular": {f"{metric}@{K}": mean_metric(hybrid[metric] - popular[metric]) for metric in hybrid},
    }


def _shuffled(context: Context, train: TrainingSet) -> TrainingSet:
    if not context.shuffle_labels:
        return train
    data = train.interactions
    mixed = Interactions(data.users, context.shuffled(data.items), data.age_days, data.weights, data.shape)
    return TrainingSet(train.user_ids, train.item_ids, mixed, train.item_attributes, train.user_features, train.as_of, train.source)


JOB = Job("recommend", "what to show each customer: decayed repeat purchase, iALS, LightFM hybrid, popular", run)
