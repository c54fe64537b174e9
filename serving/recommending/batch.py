"""Lists of all customers, block by block, written by `qianmian score recommend`.

The pipeline is that of single requests, applied to blocks of customers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.compute.builder import Builder
from features.data.lake import Lake
from features.interaction_types import ANY, target_of
from features.interactions import Interactions
from features.training_data import auxiliary_rows, interaction_rows, interactions_from_rows
from models.recommend.base import Query
from models.recommend.scene import DEFAULT_SCENE, SCENES
from qianmian.errors import DataError, UsageError
from qianmian.times import days_between
from serving.champions import Champion, Champions
from serving.recommending.candidates import CustomerCandidates
from serving.recommending.catalogue import combine_masks
from serving.recommending.pipeline import make_slate
from serving.recommending.plan import JOB, RecommendationPlan, champion_for_scene
from serving.recommending.request_options import ListOptions
from serving.recommending.rows import RecommendedRows, make_rows
from serving.requests import MAX_RESULTS
from serving.scoring.blocks import BlockScores, provenance
from serving.scoring.tables import BLOCK, IDENTITY_COLUMNS, PROVENANCE, at_moment, identity_columns, provenance_columns

MAX_MASK_CELLS = 4_000_000  # customers × items of a block if every customer has eligible items of their own
RECOMMEND = pa.schema(
    [
        *IDENTITY_COLUMNS,
        ("rank", pa.int32()),
        ("item_id", pa.string()),
        ("score", pa.float64()),
        ("source", pa.string()),
    ]
)
PROMOTED = pa.schema([("promotion", pa.string())])  # only with promotions
EXPECTED = pa.schema([("expected_on", pa.date32())])  # only in scenes that show it
EXPLORED = pa.schema(  # only with exploration
    [("explored", pa.bool_()), ("propensity", pa.float64()), ("propensity_in_list", pa.float64())]
)


def score_recommend(
    champions: Champions,
    *,
    num_results: int = 10,
    scene: str = DEFAULT_SCENE,
    candidates: Collection[str] | CustomerCandidates | None = None,
    unavailable: Collection[str] | None = None,
    options: ListOptions | None = None,
    as_of: datetime | None = None,
    builder: Builder | None = None,
) -> BlockScores:
    """Prepare a list for every customer of the profiles.

    Parameters
    ----------
    champions : Champions
        Models and profiles.
    num_results : int
        Length of each list, 1 to 500.
    scene : str
        Scene of the lists.
    candidates : collection of str, or CustomerCandidates, optional
        Recommend only these items; or to each customer only the items named for it, and no list to the others.
    unavailable : collection of str, optional
        Items that are not available now; default: those that were not when the model was fitted.
    options : ListOptions, optional
        Filters, purchased option and re-ranking, as in `/v1/recommendations`.
    as_of : datetime, optional
        Moment of the lists; default: the cutoff of the champion. For a later moment, the interactions in between are
        read with `builder` and folded in.
    builder : Builder, optional
        Access to the lake, required for a later `as_of`.

    Returns
    -------
    BlockScores
        One row per item: user_id, user_source, one_id, rank, item_id, score, source, as_of, model_version. Optional
        columns before as_of: expected_on in a scene that shows it; promotion with promotions; explored, propensity and
        propensity_in_list with exploration.

    Raises
    ------
    DataError
        If `as_of` is before the cutoff of the champion, or if the model knows none of the candidates.
    UsageError or InvalidRequest
        If an argument or an option is invalid.
    """
    scene_record, options = SCENES[scene], options or ListOptions()
    champion = champion_for_scene(champions, scene_record)
    catalogue = champion.catalogue
    if not 1 <= num_results <= MAX_RESULTS:
        raise UsageError(
            "the number of results is out of range", got=num_results, allowed=f"1..{MAX_RESULTS}", field="num_results"
        )
    if not scene_record.needs_model and not catalogue.trained(scene):
        raise UsageError(
            f"the scene {scene} has no model, so it requires the context items of a request",
            hint="send requests to /v1/similar-items or /v1/recommendations instead",
        )
    model = catalogue.model(scene)
    moment = champion.bundle.as_of if as_of is None else as_of
    is_later = moment != champion.bundle.as_of
    champions_at = at_moment(champions, champion, moment, builder) if is_later else champions
    elapsed_days = days_between(champion.bundle.as_of, moment)
    users = champion.bundle.user_map.rows(champions_at.customers.one_ids)
    recent, auxiliary = _recent_interactions(champion, champions_at, moment, builder) if is_later else (None, None)
    query = Query(users, recent_interactions=recent, elapsed_days=elapsed_days, recent_auxiliary=auxiliary)
    available = None if unavailable is None else ~catalogue.item_mask(unavailable)
    plan = RecommendationPlan(champion, scene_record, model, query).with_options(options, available)
    own, counts = None, {}
    if isinstance(candidates, CustomerCandidates):
        known = candidates.known(champions_at.customers, champion.bundle.item_map)
        own, counts = known.matrix, known.counts
        plan = replace(plan, candidates=own)
    elif candidates is not None:
        plan = _restricted(plan, candidates)
    schema, identity = _schema(plan), identity_columns(champions_at)
    item_ids = pa.array(champion.bundle.item_ids)
    customers_with_list = np.arange(len(users)) if own is None else np.flatnonzero(np.diff(own.indptr))

    block = ListBlock(plan, options, num_results, moment, customers_with_list, identity, item_ids, schema)
    n_items = len(catalogue.item_ids) if own is None else len(np.unique(own.indices))
    has_own_items = own is not None or plan.purchased == "only"
    depends_on = {
        **provenance(champions_at, champion),
        "lists": [num_results, scene, moment, options.model_dump(mode="json")],
        "items": _digest(plan.allowed),
        "candidates": None if own is None else _digest(own.indptr, own.indices),
        "promotions": champion.promotions,
        "recent": None if builder is None else builder.lake.digest,
    }
    size = max(1, min(BLOCK, MAX_MASK_CELLS // max(n_items, 1))) if has_own_items else BLOCK
    return BlockScores(schema, len(customers_with_list), block, depends_on, size, counts)


@dataclass(frozen=True)
class ListBlock:
    """Makes the lists of a block of customers.

    Attributes
    ----------
    customers_with_list : ndarray of int64, shape (n,)
        Rows of the profiles that get a list; a block is a range of them.
    identity : pyarrow.Table
        Identity columns of all rows of the profiles.
    item_ids : pyarrow.Array
        Ids of the items of the model.
    """

    plan: RecommendationPlan
    options: ListOptions
    num_results: int
    moment: datetime
    customers_with_list: NDArray[np.int64]
    identity: pa.Table
    item_ids: pa.Array
    schema: pa.Schema

    def __call__(self, start: int, stop: int) -> pa.Table:
        lists = self.customers_with_list[start:stop]
        rng = _random_source(self.plan, self.options, start)
        rows = make_rows(self.plan, make_slate(self.plan, self.num_results, rng, lists), lists)
        columns = [
            *self.identity.take(pa.array(lists[rows.lists])).columns,
            *_columns(rows, self.plan, self.item_ids),
            *provenance_columns(len(rows), self.moment, self.plan.champion.version),
        ]
        return pa.table(columns, schema=self.schema)


def _random_source(plan: RecommendationPlan, options: ListOptions, start: int) -> np.random.Generator | None:
    """Return the generator for the exploration of a block: the draws of the customers before it are skipped."""
    if options.exploration is None:
        return None
    bits = np.random.PCG64(options.exploration.seed or 0)
    bits.advance(start * plan.rerank_options.draws)
    return np.random.Generator(bits)


def _digest(*arrays: NDArray[Any] | None) -> str:
    """Digest of arrays; None is a value of its own."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(b"none" if array is None else np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


def _restricted(plan: RecommendationPlan, candidates: Collection[str]) -> RecommendationPlan:
    """Return the plan with the allowed items limited to the candidates.

    Raises
    ------
    DataError
        If the model knows none of the candidates.
    """
    candidate_mask = plan.catalogue.item_mask(candidates)
    if not candidate_mask.any():
        raise DataError(
            "the model knows none of the candidates",
            got=f"{len(candidates)} item ids",
            hint="check that the file contains one item id per line",
        )
    return replace(plan, allowed=combine_masks(plan.allowed, candidate_mask))


def _schema(plan: RecommendationPlan) -> pa.Schema:
    """Columns of the table, which depend on the scene and the options."""
    return pa.schema(
        [
            *RECOMMEND,
            *(EXPECTED if plan.scene.shows_expected_on else ()),
            *(PROMOTED if plan.rerank_options.promotions else ()),
            *(EXPLORED if plan.rerank_options.exploration is not None else ()),
            *(pa.field(*name_and_type) for name_and_type in PROVENANCE),
        ]
    )


def _columns(rows: RecommendedRows, plan: RecommendationPlan, item_ids: pa.Array) -> list[pa.Array]:
    """The columns of `_schema` between the identity columns and the provenance columns."""
    columns = [
        pa.array(rows.positions.astype(np.int32) + 1),
        item_ids.take(pa.array(rows.columns)),
        pa.array(rows.scores),
        pa.array(rows.source_names).take(pa.array(rows.sources)),
    ]
    if rows.expected_on is not None:
        columns.append(pa.array(rows.expected_on, pa.date32()))
    if promotions := plan.rerank_options.promotions:
        names = pa.array([promotion.name for promotion in promotions])
        columns.append(names.take(pa.array(rows.promotions, mask=rows.promotions < 0)))
    if (exploration := rows.exploration) is not None:
        by_slot = (exploration.explored, exploration.propensity, exploration.slate_propensity)
        columns += [pa.array(rows.gather(values)) for values in by_slot]
    return columns


def _recent_interactions(
    champion: Champion, champions_at: Champions, as_of: datetime, builder: Builder | None
) -> tuple[Interactions | None, Interactions | None]:
    """Interactions of the customers of the profiles between the cutoff of the champion and `as_of`, None if none.

    The first are of the target of the champion, the second of the other types.

    Raises
    ------
    DataError
        If the champion does not support fold-in of the interactions that the lake contains.
    UsageError
        If there is no builder.
    """
    if champion.job != JOB:
        raise DataError(
            f"recent interactions cannot be folded into the {champion.job} model",
            where=f"{champion.name} version {champion.version}",
            got=f"--as-of {as_of:%Y-%m-%d}",
            allowed=f"{champion.bundle.as_of:%Y-%m-%d}",
            hint=f"run `qianmian train {champion.job}` again",
        )
    if builder is None:
        raise UsageError(
            "recent interactions can only be read from a lake", got=f"--as-of {as_of:%Y-%m-%d}", field="as_of"
        )
    batch_users, items = champions_at.customers.user_map, champion.bundle.item_map

    def arrays(rows: pa.Table | None) -> Interactions | None:
        if rows is None:
            return None
        users, columns = batch_users.rows(rows["one_id"]), items.rows(rows["item_id"])
        found = interactions_from_rows(rows, users, columns, (len(batch_users), len(items)))
        return found if len(found) else None

    start, target = champion.bundle.as_of, target_of(champion.bundle.facts)
    reads_others = any(model.supports_fold_in and model.auxiliary_types for model in champion.catalogue.models)
    of_target = arrays(interaction_rows(builder, as_of, start, target=target))
    return (
        of_target if of_target is None or target == ANY else replace(of_target, types=None),
        arrays(auxiliary_rows(builder, as_of, start, target=target)) if reads_others else None,
    )


def unavailable_items(lake: Lake) -> list[str]:
    """Return the ids of the items whose `available` is false in the lake; a missing value counts as available."""
    items = lake.connect().table("items")
    unavailable = items.filter(~items.available).select("item_id").to_pyarrow()
    return [str(item_id) for item_id in unavailable["item_id"].to_pylist()]
