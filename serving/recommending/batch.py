"""The list of every customer as a table, which `qianmian score recommend` writes. It is the pipeline of single requests, some customers at a time."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime

import numpy as np
import pyarrow as pa

from features.compute.builder import Builder
from features.data.lake import Lake
from features.interactions import Interactions
from features.training_data import interaction_rows, interactions_from_rows
from models.recommend.base import Query
from models.recommend.scene import DEFAULT_SCENE, SCENES
from qianmian.errors import DataError, UsageError
from qianmian.times import days_between
from serving.champions import Champion, Champions
from serving.recommending.catalogue import combine_masks
from serving.recommending.pipeline import make_slate
from serving.recommending.plan import JOB, RecommendationPlan, champion_for_scene, limits_of
from serving.recommending.request_options import ListOptions
from serving.recommending.rows import RecommendedRows, make_rows
from serving.requests import MAX_RESULTS
from serving.scoring.tables import BLOCK, IDENTITY_COLUMNS, PROVENANCE, at_moment, made_columns

MAX_MASK_CELLS = 4_000_000  # customers × items looked at together where each may be shown their own items only
RECOMMEND = pa.schema(
    [
        *IDENTITY_COLUMNS,
        ("rank", pa.int32()),
        ("item_id", pa.string()),
        ("score", pa.float64()),
        ("source", pa.string()),
    ]
)
PROMOTED = pa.schema([("promotion", pa.string())])  # with promotions
EXPECTED = pa.schema([("expected_on", pa.date32())])  # in replenish
EXPLORED = pa.schema(
    [("explored", pa.bool_()), ("propensity", pa.float64()), ("propensity_in_list", pa.float64())]
)  # with exploration


def score_recommend(
    champions: Champions,
    *,
    num_results: int = 10,
    scene: str = DEFAULT_SCENE,
    candidates: Collection[str] | None = None,
    unavailable: Collection[str] | None = None,
    options: ListOptions | None = None,
    as_of: datetime | None = None,
    builder: Builder | None = None,
) -> pa.Table:
    """A list for every customer known.

    Parameters
    ----------
    num_results : int
        1 to 500.
    candidates : collection of str, optional
        Only these items.
    unavailable : collection of str, optional
        Items that cannot be had now; default those that could not when the model was fitted.
    options : ListOptions, optional
        Filters and controls, as `/v1/recommendations` takes them.
    as_of : datetime, optional
        Default: the champion's. What customers did between that and a later one is read with `builder` and folded in.

    Returns
    -------
    pyarrow.Table
        user_id, user_source, one_id, rank, item_id, score, source, as_of, model_version; a row an item. Before `as_of`: expected_on in a scene
        that shows it; promotion where there are promotions; explored, propensity, propensity_in_list with exploration.

    Raises
    ------
    DataError
        An earlier `as_of`, or candidates none of which the model knows.
    UsageError or InvalidRequest
        Something is asked that cannot be.
    """
    where, options = SCENES[scene], options or ListOptions()
    champion = champion_for_scene(champions, where)
    catalogue = champion.catalogue
    if not 1 <= num_results <= MAX_RESULTS:
        raise UsageError(
            "that many results cannot be given", got=num_results, allowed=f"1..{MAX_RESULTS}", field="num_results"
        )
    if not where.needs_model and not catalogue.trained(scene):
        raise UsageError(
            f"without a model trained for it, {scene} needs the items of a request",
            hint="ask /v1/similar-items or /v1/recommendations",
        )
    model, champions_at = catalogue.model(scene), champions
    if as_of is not None and as_of != champion.bundle.as_of:
        champions_at = at_moment(champions, champion, as_of, builder)
    elapsed_days = days_between(champion.bundle.as_of, as_of) if as_of is not None else 0.0
    users = champion.bundle.user_map.rows(champions_at.customers.one_ids)
    recent_interactions = _recent_interactions(champion, champions_at, as_of, builder) if elapsed_days else None
    limits = limits_of(where, catalogue, options, None if unavailable is None else ~catalogue.item_mask(unavailable))
    plan = RecommendationPlan(
        champion,
        where,
        model,
        Query(users, recent_interactions=recent_interactions, elapsed_days=elapsed_days),
        **limits,
    )
    if candidates is not None:
        plan = _restricted(plan, candidates)
    exploration = options.exploration
    rng = np.random.default_rng(exploration.seed or 0) if exploration is not None else None
    schema = _schema(plan)
    identity_columns = champions_at.customers.table.select([name for name, _ in IDENTITY_COLUMNS])
    moment = champion.bundle.as_of if as_of is None else as_of
    block = BLOCK if plan.purchased != "only" else max(1, MAX_MASK_CELLS // max(len(catalogue.item_ids), 1))
    item_ids, parts = pa.array(champion.bundle.item_ids), []
    for start in range(0, len(users), block):
        lists = np.arange(start, min(start + block, len(users)))
        rows = make_rows(plan, make_slate(plan, num_results, rng, lists), start)
        columns = [
            *identity_columns.slice(start, block).take(pa.array(rows.lists)).columns,
            *_columns(rows, plan, item_ids),
            *made_columns(len(rows), moment, champion),
        ]
        parts.append(pa.table(columns, schema=schema))
    return pa.concat_tables(parts) if parts else schema.empty_table()


def _restricted(plan: RecommendationPlan, candidates: Collection[str]) -> RecommendationPlan:
    wanted = plan.catalogue.item_mask(candidates)
    if not wanted.any():
        raise DataError(
            "the model knows none of the candidates",
            got=f"{len(candidates)} item ids",
            hint="check that the file holds item ids, one a line",
        )
    return replace(plan, allowed=combine_masks(plan.allowed, wanted))


def _schema(plan: RecommendationPlan) -> pa.Schema:
    return pa.schema(
        [
            *RECOMMEND,
            *(EXPECTED if plan.scene.shows_expected_on else ()),
            *(PROMOTED if plan.rerank_options.promotions else ()),
            *(EXPLORED if plan.rerank_options.exploration is not None else ()),
            *(pa.field(*one) for one in PROVENANCE),
        ]
    )


def _columns(rows: RecommendedRows, plan: RecommendationPlan, item_ids: pa.Array) -> list[pa.Array]:
    """The columns between those that say who and those that say by what, as in `_schema`."""
    found = [
        pa.array(rows.positions.astype(np.int32) + 1),
        item_ids.take(pa.array(rows.columns)),
        pa.array(rows.scores),
        pa.array(rows.source_names).take(pa.array(rows.sources)),
    ]
    if rows.expected_on is not None:
        found.append(pa.array(rows.expected_on, pa.date32()))
    if promotions := plan.rerank_options.promotions:
        names = pa.array([promotion.name for promotion in promotions])
        found.append(names.take(pa.array(rows.promotions, mask=rows.promotions < 0)))
    if (exploration_result := rows.exploration) is not None:
        found += [
            pa.array(rows.of_entries(values))
            for values in (
                exploration_result.explored,
                exploration_result.propensity,
                exploration_result.slate_propensity,
            )
        ]
    return found


def _recent_interactions(
    champion: Champion, champions_at: Champions, as_of: datetime | None, builder: Builder | None
) -> Interactions | None:
    """What the customers of the profiles did between the champion's moment and `as_of`."""
    assert as_of is not None
    if champion.job != JOB:
        raise DataError(
            f"what happened since cannot be folded into the {champion.job} model",
            where=f"{champion.name} version {champion.version}",
            got=f"--as-of {as_of:%Y-%m-%d}",
            allowed=f"{champion.bundle.as_of:%Y-%m-%d}",
            hint="train it again",
        )
    if builder is None:
        raise UsageError(
            "what was bought since needs the data it stands in", got=f"--as-of {as_of:%Y-%m-%d}", field="as_of"
        )
    rows, source = interaction_rows(builder, as_of, champion.bundle.as_of)
    learnt = champion.bundle.facts.get("interactions", "transactions")
    if source != learnt:
        raise DataError(
            f"the recommender in production learnt from {learnt}, and the data now says who had what in {source}",
            where=f"{champion.name} version {champion.version}",
            hint="run `qianmian train recommend` again",
        )
    batch_users, items = champions_at.customers.user_map, champion.bundle.item_map
    users, columns = batch_users.rows(rows["one_id"]), items.rows(rows["item_id"])
    found = interactions_from_rows(rows, users, columns, (len(batch_users), len(items)))
    return found if len(found.users) else None


def unavailable_items(lake: Lake) -> list[str]:
    """Items the data says cannot be had."""
    items = lake.connect().table("items")
    found = items.filter(~items.available).select("item_id").to_pyarrow()  # an unknown one is not false
    return [str(item_id) for item_id in found["item_id"].to_pylist()]
