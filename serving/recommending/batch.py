"""Scoring everybody: the tables `qianmian score` writes. The same functions answer single requests, so the numbers are the same."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.compute.builder import Builder
from features.data.lake import Lake
from features.interactions import Interactions, index_of
from features.profiles.snapshot import build_snapshot
from features.training_data import interaction_rows, interactions_from_rows
from models.ranked import Ranked
from models.recommend.base import Query, Recommender, fold_in
from models.recommend.scene import SCENES
from models.rerank import RerankOptions, Slate, rerank
from qianmian.errors import DataError, UsageError
from qianmian.times import SECONDS_PER_DAY, days_between
from qianmian.workspace import atomic_path
from serving.champions import Champion, Champions
from serving.endpoints import churn, predictions
from serving.endpoints.base import MAX_RESULTS
from serving.endpoints.recommendations import JOB, PROMOTION, REPLENISH, champion_for_scene
from serving.recommending.catalogue import SIMILAR, Mask, combine_masks, expected_days
from serving.recommending.request_options import ListOptions, allowed_items, rerank_options_for, resolve_purchased

MAX_MASK_CELLS = 4_000_000  # customers × items looked at together where each may be shown their own items only
BLOCK = 8_192  # customers scored at a time: what is held beside the result does not grow with their number
FORMATS = (".parquet", ".csv")
IDENTITY_COLUMNS = [("user_id", pa.string()), ("user_source", pa.string()), ("one_id", pa.string())]
PROVENANCE = [("as_of", pa.timestamp("us")), ("model_version", pa.string())]
REASON = pa.struct([(name, pa.string()) for name in ("feature", "description", "value", "effect")])
CHURN = pa.schema(
    [
        *IDENTITY_COLUMNS,
        ("churn_probability", pa.float64()),
        ("risk_band", pa.string()),
        ("reasons", pa.list_(REASON)),
        ("no_score_reason", pa.string()),
        *PROVENANCE,
    ]
)
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
    scene: str = "home",
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
        user_id, user_source, one_id, rank, item_id, score, source, as_of, model_version; a row an item. Before `as_of`: expected_on in the scene
        replenish; promotion where there are promotions; explored, propensity, propensity_in_list with exploration.

    Raises
    ------
    DataError
        An earlier `as_of`, or candidates none of which the model knows.
    UsageError or InvalidRequest
        Something is asked that cannot be.
    """
    champion = champion_for_scene(champions, SCENES[scene])
    if not 1 <= num_results <= MAX_RESULTS:
        raise UsageError(
            "that many results cannot be given", got=num_results, allowed=f"1..{MAX_RESULTS}", field="num_results"
        )
    where, catalogue, options = SCENES[scene], champion.catalogue, options or ListOptions()
    if scene == SIMILAR and not catalogue.trained(scene):
        raise UsageError(
            "without a model trained for it, similar needs the items of a request",
            hint="ask /v1/similar-items or /v1/recommendations",
        )
    model, purchased = catalogue.model(scene), resolve_purchased(where, options.purchased)
    champions_at = champions
    if as_of is not None and as_of != champion.bundle.as_of:
        champions_at = _at_moment(champions, champion, as_of, builder)
    elapsed_days = days_between(champion.bundle.as_of, as_of) if as_of is not None else 0.0
    allowed = allowed_items(
        catalogue, options.filters, None if unavailable is None else ~catalogue.item_mask(unavailable)
    )[1]
    if candidates is not None:
        wanted = catalogue.item_mask(candidates)
        if not wanted.any():
            raise DataError(
                "the model knows none of the candidates",
                got=f"{len(candidates)} item ids",
                hint="check that the file holds item ids, one a line",
            )
        allowed = combine_masks(allowed, wanted)
    rerank_options, exploration = rerank_options_for(catalogue, options), options.exploration
    rng = np.random.default_rng(exploration.seed or 0) if exploration is not None else None
    batch_users = _BatchUsers(
        model,
        index_of(champion.bundle.user_ids, np.asarray(champions_at.customers.one_ids, dtype=np.str_)),
        allowed,
        purchased,
        _recent_interactions(champion, champions_at, as_of, builder) if elapsed_days else None,
        elapsed_days,
    )
    block = BLOCK if purchased != "only" else max(1, MAX_MASK_CELLS // max(len(catalogue.item_ids), 1))
    schema = pa.schema(
        [
            *RECOMMEND,
            *(EXPECTED if scene == REPLENISH else ()),
            *(PROMOTED if options.promotions else ()),
            *(EXPLORED if rng is not None else ()),
            *(pa.field(*one) for one in PROVENANCE),
        ]
    )
    identity_columns = champions_at.customers.table.select([name for name, _ in IDENTITY_COLUMNS])
    item_ids, parts = pa.array(champion.bundle.item_ids), []
    for start in range(0, identity_columns.num_rows, block):
        slate = batch_users.slate(
            np.arange(start, min(start + block, identity_columns.num_rows)), num_results, rerank_options, rng
        )
        row, position = np.nonzero(slate.ranked.ids >= 0)
        columns = [
            *identity_columns.slice(start, block).take(pa.array(row)).columns,
            pa.array(position.astype(np.int32) + 1),
            item_ids.take(pa.array(slate.ranked.ids[row, position])),
            pa.array(np.round(slate.ranked.scores[row, position].astype(np.float64), 6)),
            _source_names(slate, row, position),
            *(
                [batch_users.expected(start + row, slate.ranked.ids[row, position], champion.bundle.as_of)]
                if scene == REPLENISH
                else ()
            ),
            *_rerank_columns(slate, row, position, rerank_options),
            *_provenance(len(row), champion.bundle.as_of if as_of is None else as_of, champion),
        ]
        parts.append(pa.table(columns, schema=schema))
    return pa.concat_tables(parts) if parts else schema.empty_table()


@dataclass(frozen=True)
class _BatchUsers:
    """Everybody, and what may be shown to them; blocks of them are ranked.

    Attributes
    ----------
    users : ndarray of int64, (n,)
        Rows of the model, −1 for one it does not know.
    recent_interactions : Interactions or None
        What they did since the fit, rows as `users`.
    """

    model: Recommender
    users: NDArray[np.int64]
    allowed: Mask | None
    purchased: str
    recent_interactions: Interactions | None
    elapsed_days: float

    def slate(
        self, rows: NDArray[np.int64], k: int, rerank_options: RerankOptions, rng: np.random.Generator | None
    ) -> Slate:
        """The lists of these customers."""
        if not rerank_options:
            ranked = self._rank(rows, k, None)
            no_promotion = np.full(ranked.ids.shape, -1, dtype=np.int64)
            return Slate(ranked, no_promotion, None, ranked.valid.astype(np.int64), ranked.valid.astype(np.int64))
        draws = rng.random((len(rows), rerank_options.draws)) if rng is not None else None
        return rerank(
            lambda some, n_candidates, items: self._rank(rows[some], n_candidates, items),
            len(rows),
            k,
            rerank_options,
            draws,
        )

    def expected(self, rows: NDArray[np.int64], items: NDArray[np.int32], as_of: datetime) -> pa.Array:
        """The day on which each of these customers is expected to want an item again; null where nobody knows, or it was bought since."""
        users = self.users[rows]
        days = expected_days(self.model, np.maximum(users, 0), items) if self.model.n_users_ else None
        if days is None:
            return pa.nulls(len(rows), pa.date32())
        n_items = np.int64(self.model.n_items_)
        repurchased = (
            self.recent_interactions.users * n_items + self.recent_interactions.items
            if self.recent_interactions is not None
            else np.empty(0, np.int64)
        )
        unknown = np.isnan(days) | (users < 0) | np.isin(rows * n_items + items, repurchased)
        moments = np.datetime64(as_of, "s") + np.where(unknown, 0.0, days * SECONDS_PER_DAY).astype("timedelta64[s]")
        return pa.array(moments.astype("datetime64[D]"), pa.date32(), mask=unknown)

    def _rank(self, rows: NDArray[np.int64], n_candidates: int, items: Mask | None) -> Ranked:
        users, allowed, recent_interactions = self.users[rows], combine_masks(self.allowed, items), None
        if self.recent_interactions is not None:
            position = np.full(len(self.users), -1, dtype=np.int32)
            position[rows] = np.arange(len(rows), dtype=np.int32)
            recent_interactions = self.recent_interactions.where(position[self.recent_interactions.users] >= 0)
            recent_interactions = replace(
                recent_interactions,
                users=position[recent_interactions.users],
                shape=(len(rows), recent_interactions.shape[1]),
            )
        exclude = None
        if self.purchased == "only":
            interacted = fold_in(self.model.history_, Query(users, recent_interactions=recent_interactions), None)
            columns = np.unique(interacted.indices)
            anybody = np.zeros(self.model.n_items_, dtype=bool)
            anybody[columns] = True
            allowed = combine_masks(allowed, anybody)
            row, column = np.nonzero(interacted[:, columns].toarray() == 0)
            exclude = np.split(columns[column], np.cumsum(np.bincount(row, minlength=len(rows)))[:-1])
        return self.model.recommend(
            users,
            n_candidates,
            allowed=allowed,
            exclude=exclude,
            exclude_purchased=self.purchased == "never",
            recent_interactions=recent_interactions,
            elapsed_days=self.elapsed_days,
        )


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
    users = pc.index_in(rows["one_id"], value_set=pa.array(champions_at.customers.one_ids)).combine_chunks()
    items = pc.index_in(rows["item_id"], value_set=pa.array(champion.bundle.item_ids)).combine_chunks()
    found = interactions_from_rows(
        rows, users, items, (len(champions_at.customers.one_ids), len(champion.bundle.item_ids))
    )
    return found if len(found.users) else None


def _source_names(slate: Slate, row: NDArray[np.int64], position: NDArray[np.int64]) -> pa.Array:
    """Where each item comes from."""
    names = pa.array([*slate.ranked.sources, PROMOTION])
    number = np.where(
        slate.promotion[row, position] >= 0, len(slate.ranked.sources), slate.ranked.source[row, position]
    )
    return names.take(pa.array(number))


def _rerank_columns(
    slate: Slate, row: NDArray[np.int64], position: NDArray[np.int64], rerank_options: RerankOptions
) -> list[pa.Array]:
    """The columns of the controls."""
    found = []
    if rerank_options.promotions:
        number = slate.promotion[row, position]
        names = pa.array([promotion.name for promotion in rerank_options.promotions])
        found.append(names.take(pa.array(number, mask=number < 0)))
    if slate.exploration_result is not None:
        found += [
            pa.array(values[row, position])
            for values in (
                slate.exploration_result.explored,
                slate.exploration_result.propensity,
                slate.exploration_result.slate_propensity,
            )
        ]
    return found


def unavailable_items(lake: Lake) -> list[str]:
    """Items the data says cannot be had."""
    items = lake.connect().table("items")
    found = items.filter(~items.available).select("item_id").to_pyarrow()  # an unknown one is not false
    return [str(item_id) for item_id in found["item_id"].to_pylist()]


def score_churn(
    champions: Champions, *, as_of: datetime | None = None, builder: Builder | None = None, explain: bool = True
) -> pa.Table:
    """A churn score, or the reason there is none, for every customer known.

    Parameters
    ----------
    as_of : datetime, optional
        Default: that of the current profiles. Others are built with `builder`.
    explain : bool
        Fill `reasons`.

    Returns
    -------
    pyarrow.Table
        user_id, user_source, one_id, churn_probability, risk_band, reasons, no_score_reason, as_of, model_version.

    Raises
    ------
    DataError
        `as_of` lies before the champion's: it has learnt from later rows.
    """
    champion = champions.require(churn.JOB)
    champions_at = _at_moment(champions, champion, as_of, builder)
    encoded = (
        champions_at.customers.encoded(champion.bundle.spec)
        if champion.bundle.spec is not None
        else champions_at.customers.features
    )
    parts = []
    for identity_columns, rows in _blocks(champions_at):
        scores = churn.score_rows(champions_at, encoded, rows, explain)
        for score in scores:
            score["reasons"] = [{**reason, "value": _text(reason["value"])} for reason in score.get("reasons", [])]
        parts.append(_with_identity(identity_columns, scores, champion, champions_at, CHURN))
    return pa.concat_tables(parts)


def score_predictions(
    champions: Champions, *, as_of: datetime | None = None, builder: Builder | None = None
) -> pa.Table:
    """Lifecycle stage, next stage and averages for every customer known; parameters and errors as in `score_churn`.

    Returns
    -------
    pyarrow.Table
        user_id, user_source, one_id, lifecycle_stage, next_stage (a struct, a field a stage), average_days_between_orders,
        average_order_value, no_score_reason, as_of, model_version.
    """
    champion = champions.require(predictions.JOB)
    champions_at = _at_moment(champions, champion, as_of, builder)
    encoded = (
        champions_at.customers.encoded(champion.bundle.spec)
        if champion.bundle.spec is not None
        else champions_at.customers.features
    )
    stages = pa.struct([(name, pa.float64()) for name in champion.bundle.model.classes_.tolist()])
    schema = pa.schema(
        [
            *IDENTITY_COLUMNS,
            ("lifecycle_stage", pa.string()),
            ("next_stage", stages),
            ("average_days_between_orders", pa.float64()),
            ("average_order_value", pa.float64()),
            ("no_score_reason", pa.string()),
            *PROVENANCE,
        ]
    )
    return pa.concat_tables(
        [
            _with_identity(
                identity_columns, predictions.predict_rows(champions_at, encoded, rows), champion, champions_at, schema
            )
            for identity_columns, rows in _blocks(champions_at)
        ]
    )


def write(table: pa.Table, path: Path) -> Path:
    """Write a table as Parquet or CSV, by its ending; all of it or nothing. Lists and structs are JSON text in a CSV.

    Raises
    ------
    UsageError
        Another ending.
    """
    if path.suffix not in FORMATS:
        raise UsageError(
            "a table is written as Parquet or CSV", got=path.name, allowed=", ".join(FORMATS), hint="name the file so"
        )
    with atomic_path(path) as temporary:
        if path.suffix == ".parquet":
            pq.write_table(table, temporary, compression="zstd")
            return path
        nested = [field.name for field in table.schema if pa.types.is_nested(field.type)]
        flat = pa.schema(
            [pa.field(field.name, pa.string()) if field.name in nested else field for field in table.schema]
        )
        with pa_csv.CSVWriter(temporary, flat) as writer:
            for start in range(0, max(1, table.num_rows), BLOCK):
                block = table.slice(start, BLOCK)
                columns = [_json(block[name]) if name in nested else block[name] for name in block.column_names]
                writer.write_table(pa.table(columns, schema=flat))
    return path


# ---- helpers ---------------------------------------------------------------------------------------------------------


def _at_moment(champions: Champions, champion: Champion, as_of: datetime | None, builder: Builder | None) -> Champions:
    """The champions over the profiles at `as_of`."""
    if as_of is None or as_of == champions.customers.as_of:
        wanted = champions
    elif builder is None:
        raise UsageError(
            "profiles of another moment need the data they are built from",
            got=f"--as-of {as_of:%Y-%m-%d}",
            field="as_of",
        )
    else:
        wanted = None
    if as_of is not None and as_of < champion.bundle.as_of:
        raise DataError(
            f"the {champion.job} model in production has seen rows after that",
            where=f"{champion.name} version {champion.version}",
            got=f"--as-of {as_of:%Y-%m-%d}",
            allowed=f"{champion.bundle.as_of:%Y-%m-%d} or later",
            hint=f"run `qianmian train {champion.job} --as-of {as_of:%Y-%m-%d}` first",
        )
    if wanted is None:
        assert as_of is not None
        assert builder is not None
        wanted = champions.with_snapshot(build_snapshot(builder, as_of, champions.settings))
    return wanted


def _blocks(champions: Champions) -> Iterator[tuple[pa.Table, NDArray[np.int64]]]:
    """Customers of the profiles, some at a time: who they are, and their rows; one empty block where there are none."""
    identity_columns = champions.customers.table.select([name for name, _ in IDENTITY_COLUMNS])
    for start in range(0, max(1, identity_columns.num_rows), BLOCK):
        yield (
            identity_columns.slice(start, BLOCK),
            np.arange(start, min(start + BLOCK, identity_columns.num_rows), dtype=np.int64),
        )


def _with_identity(
    identity_columns: pa.Table,
    scores: list[dict[str, Any]],
    champion: Champion,
    champions_at: Champions,
    schema: pa.Schema,
) -> pa.Table:
    own = pa.schema(
        [field for field in schema if field.name not in {name for name, _ in (*IDENTITY_COLUMNS, *PROVENANCE)}]
    )
    values = pa.Table.from_pylist(scores, schema=own)
    return pa.table(
        [
            *identity_columns.columns,
            *values.columns,
            *_provenance(identity_columns.num_rows, champions_at.customers.as_of, champion),
        ],
        schema=schema,
    )


def _provenance(rows: int, as_of: datetime, champion: Champion) -> list[pa.Array]:
    return [
        pa.repeat(pa.scalar(as_of, PROVENANCE[0][1]), rows),
        pa.repeat(pa.scalar(champion.version, pa.string()), rows),
    ]


def _text(value: float | str | None) -> str | None:
    return f"{value:g}" if isinstance(value, float) else value


def _json(column: pa.ChunkedArray) -> pa.Array:
    return pa.array(
        [None if value is None else orjson.dumps(value).decode() for value in column.to_pylist()], pa.string()
    )
