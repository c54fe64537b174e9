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
from features.profiles.snapshot import make_snapshot
from features.training_data import interaction_rows, interactions_of
from models.ranked import Ranked
from models.recommend.base import Query, Recommender, folded
from models.recommend.scene import SCENES
from models.rerank import Arranged, Controls, arrange
from qianmian.errors import DataError, UsageError
from qianmian.times import SECONDS_PER_DAY, days_between
from qianmian.workspace import atomic_path
from serving.champions import Champion, Champions
from serving.endpoints import churn, predictions
from serving.endpoints.base import MAX_RESULTS
from serving.endpoints.recommendations import JOB, PROMOTION, REPLENISH, champion_of
from serving.recommending.catalogue import SIMILAR, Mask, both, expected_days
from serving.recommending.request_options import ListOptions, allowed_by, controls_of, purchased_of

ONLY_CELLS = 4_000_000  # customers × items looked at together where each may be shown their own items only
BLOCK = 8_192  # customers scored at a time: what is held beside the result does not grow with their number
FORMATS = (".parquet", ".csv")
IDENTITY = [("user_id", pa.string()), ("user_source", pa.string()), ("one_id", pa.string())]
MADE = [("as_of", pa.timestamp("us")), ("model_version", pa.string())]
REASON = pa.struct([(name, pa.string()) for name in ("feature", "description", "value", "effect")])
CHURN = pa.schema(
    [
        *IDENTITY,
        ("churn_probability", pa.float64()),
        ("risk_band", pa.string()),
        ("reasons", pa.list_(REASON)),
        ("no_score_reason", pa.string()),
        *MADE,
    ]
)
RECOMMEND = pa.schema(
    [
        *IDENTITY,
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
    gone: Collection[str] | None = None,
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
    gone : collection of str, optional
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
    champion = champion_of(champions, SCENES[scene])
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
    model, shown = catalogue.model(scene), purchased_of(where, options.purchased)
    at = champions
    if as_of is not None and as_of != champion.bundle.as_of:
        at = _at_moment(champions, champion, as_of, builder)
    later = days_between(champion.bundle.as_of, as_of) if as_of is not None else 0.0
    allowed = allowed_by(catalogue, options.filters, None if gone is None else ~catalogue.restricted(gone))[1]
    if candidates is not None:
        wanted = catalogue.restricted(candidates)
        if not wanted.any():
            raise DataError(
                "the model knows none of the candidates",
                got=f"{len(candidates)} item ids",
                hint="check that the file holds item ids, one a line",
            )
        allowed = both(allowed, wanted)
    controls, exploration = controls_of(catalogue, options), options.exploration
    chance = np.random.default_rng(exploration.seed or 0) if exploration is not None else None
    people = _People(
        model,
        index_of(champion.bundle.user_ids, np.asarray(at.customers.one_ids, dtype=np.str_)),
        allowed,
        shown,
        _since(champion, at, as_of, builder) if later else None,
        later,
    )
    block = BLOCK if shown != "only" else max(1, ONLY_CELLS // max(len(catalogue.item_ids), 1))
    schema = pa.schema(
        [
            *RECOMMEND,
            *(EXPECTED if scene == REPLENISH else ()),
            *(PROMOTED if options.promotions else ()),
            *(EXPLORED if chance is not None else ()),
            *(pa.field(*one) for one in MADE),
        ]
    )
    who = at.customers.table.select([name for name, _ in IDENTITY])
    item_ids, parts = pa.array(champion.bundle.item_ids), []
    for start in range(0, who.num_rows, block):
        lists = people.lists(np.arange(start, min(start + block, who.num_rows)), num_results, controls, chance)
        row, place = np.nonzero(lists.ranked.ids >= 0)
        columns = [
            *who.slice(start, block).take(pa.array(row)).columns,
            pa.array(place.astype(np.int32) + 1),
            item_ids.take(pa.array(lists.ranked.ids[row, place])),
            pa.array(np.round(lists.ranked.scores[row, place].astype(np.float64), 6)),
            _sources(lists, row, place),
            *(
                [people.expected(start + row, lists.ranked.ids[row, place], champion.bundle.as_of)]
                if scene == REPLENISH
                else ()
            ),
            *_extras(lists, row, place, controls),
            *_made(len(row), champion.bundle.as_of if as_of is None else as_of, champion),
        ]
        parts.append(pa.table(columns, schema=schema))
    return pa.concat_tables(parts) if parts else schema.empty_table()


@dataclass(frozen=True)
class _People:
    """Everybody, and what may be shown to them; blocks of them are ranked.

    Attributes
    ----------
    users : ndarray of int64, (n,)
        Rows of the model, −1 for one it does not know.
    since : Interactions or None
        What they did since the fit, rows as `users`.
    """

    model: Recommender
    users: NDArray[np.int64]
    allowed: Mask | None
    purchased: str
    since: Interactions | None
    later_days: float

    def lists(
        self, rows: NDArray[np.int64], k: int, controls: Controls, chance: np.random.Generator | None
    ) -> Arranged:
        """The lists of these customers."""
        if not controls:
            ranked = self._ask(rows, k, None)
            nobody = np.full(ranked.ids.shape, -1, dtype=np.int64)
            return Arranged(ranked, nobody, None, ranked.valid.astype(np.int64), ranked.valid.astype(np.int64))
        draws = chance.random((len(rows), controls.draws)) if chance is not None else None
        return arrange(lambda some, many, items: self._ask(rows[some], many, items), len(rows), k, controls, draws)

    def expected(self, rows: NDArray[np.int64], items: NDArray[np.int32], as_of: datetime) -> pa.Array:
        """The day on which each of these customers is expected to want an item again; null where nobody knows, or it was bought since."""
        users = self.users[rows]
        days = expected_days(self.model, np.maximum(users, 0), items) if self.model.n_users_ else None
        if days is None:
            return pa.nulls(len(rows), pa.date32())
        n_items = np.int64(self.model.n_items_)
        again = self.since.users * n_items + self.since.items if self.since is not None else np.empty(0, np.int64)
        unknown = np.isnan(days) | (users < 0) | np.isin(rows * n_items + items, again)
        moments = np.datetime64(as_of, "s") + np.where(unknown, 0.0, days * SECONDS_PER_DAY).astype("timedelta64[s]")
        return pa.array(moments.astype("datetime64[D]"), pa.date32(), mask=unknown)

    def _ask(self, rows: NDArray[np.int64], many: int, items: Mask | None) -> Ranked:
        users, allowed, since = self.users[rows], both(self.allowed, items), None
        if self.since is not None:
            place = np.full(len(self.users), -1, dtype=np.int32)
            place[rows] = np.arange(len(rows), dtype=np.int32)
            since = self.since.where(place[self.since.users] >= 0)
            since = replace(since, users=place[since.users], shape=(len(rows), since.shape[1]))
        exclude = None
        if self.purchased == "only":
            had = folded(self.model.history_, Query(users, since=since), None)
            columns = np.unique(had.indices)
            anybody = np.zeros(self.model.n_items_, dtype=bool)
            anybody[columns] = True
            allowed = both(allowed, anybody)
            row, column = np.nonzero(had[:, columns].toarray() == 0)
            exclude = np.split(columns[column], np.cumsum(np.bincount(row, minlength=len(rows)))[:-1])
        return self.model.recommend(
            users,
            many,
            allowed=allowed,
            exclude=exclude,
            exclude_purchased=self.purchased == "never",
            since=since,
            later_days=self.later_days,
        )


def _since(champion: Champion, at: Champions, as_of: datetime | None, builder: Builder | None) -> Interactions | None:
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
    users = pc.index_in(rows["one_id"], value_set=pa.array(at.customers.one_ids)).combine_chunks()
    items = pc.index_in(rows["item_id"], value_set=pa.array(champion.bundle.item_ids)).combine_chunks()
    found = interactions_of(rows, users, items, (len(at.customers.one_ids), len(champion.bundle.item_ids)))
    return found if len(found.users) else None


def _sources(lists: Arranged, row: NDArray[np.int64], place: NDArray[np.int64]) -> pa.Array:
    """Where each item comes from."""
    names = pa.array([*lists.ranked.sources, PROMOTION])
    number = np.where(lists.promotion[row, place] >= 0, len(lists.ranked.sources), lists.ranked.source[row, place])
    return names.take(pa.array(number))


def _extras(lists: Arranged, row: NDArray[np.int64], place: NDArray[np.int64], controls: Controls) -> list[pa.Array]:
    """The columns of the controls."""
    found = []
    if controls.promotions:
        number = lists.promotion[row, place]
        names = pa.array([promotion.name for promotion in controls.promotions])
        found.append(names.take(pa.array(number, mask=number < 0)))
    if lists.explored is not None:
        found += [
            pa.array(values[row, place])
            for values in (lists.explored.drawn, lists.explored.propensity, lists.explored.in_list)
        ]
    return found


def gone_from(lake: Lake) -> list[str]:
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
    champion = champions.need(churn.JOB)
    at = _at_moment(champions, champion, as_of, builder)
    encoded = at.customers.encoded(champion.bundle.spec) if champion.bundle.spec is not None else at.customers.features
    parts = []
    for who, rows in _blocks(at):
        scores = churn.score_rows(at, encoded, rows, explain)
        for score in scores:
            score["reasons"] = [{**reason, "value": _text(reason["value"])} for reason in score.get("reasons", [])]
        parts.append(_with_identity(who, scores, champion, at, CHURN))
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
    champion = champions.need(predictions.JOB)
    at = _at_moment(champions, champion, as_of, builder)
    encoded = at.customers.encoded(champion.bundle.spec) if champion.bundle.spec is not None else at.customers.features
    stages = pa.struct([(name, pa.float64()) for name in champion.bundle.model.classes_.tolist()])
    schema = pa.schema(
        [
            *IDENTITY,
            ("lifecycle_stage", pa.string()),
            ("next_stage", stages),
            ("average_days_between_orders", pa.float64()),
            ("average_order_value", pa.float64()),
            ("no_score_reason", pa.string()),
            *MADE,
        ]
    )
    return pa.concat_tables(
        [
            _with_identity(who, predictions.predict_rows(at, encoded, rows), champion, at, schema)
            for who, rows in _blocks(at)
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
        wanted = champions.with_snapshot(make_snapshot(builder, as_of, champions.settings))
    return wanted


def _blocks(champions: Champions) -> Iterator[tuple[pa.Table, NDArray[np.int64]]]:
    """Customers of the profiles, some at a time: who they are, and their rows; one empty block where there are none."""
    who = champions.customers.table.select([name for name, _ in IDENTITY])
    for start in range(0, max(1, who.num_rows), BLOCK):
        yield who.slice(start, BLOCK), np.arange(start, min(start + BLOCK, who.num_rows), dtype=np.int64)


def _with_identity(
    who: pa.Table, scores: list[dict[str, Any]], champion: Champion, at: Champions, schema: pa.Schema
) -> pa.Table:
    own = pa.schema([field for field in schema if field.name not in {name for name, _ in (*IDENTITY, *MADE)}])
    values = pa.Table.from_pylist(scores, schema=own)
    return pa.table([*who.columns, *values.columns, *_made(who.num_rows, at.customers.as_of, champion)], schema=schema)


def _made(rows: int, as_of: datetime, champion: Champion) -> list[pa.Array]:
    return [pa.repeat(pa.scalar(as_of, MADE[0][1]), rows), pa.repeat(pa.scalar(champion.version, pa.string()), rows)]


def _text(value: float | str | None) -> str | None:
    return f"{value:g}" if isinstance(value, float) else value


def _json(column: pa.ChunkedArray) -> pa.Array:
    return pa.array(
        [None if value is None else orjson.dumps(value).decode() for value in column.to_pylist()], pa.string()
    )
