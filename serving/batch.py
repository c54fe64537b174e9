"""Scoring everybody: the tables `qianmian score` writes. The same functions answer single requests, so the numbers are the same."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.builder import Builder
from features.dataset import index_of
from features.snapshot import make_snapshot
from qianmian.errors import DataError, UsageError
from qianmian.workspace import atomic_path
from serving.answers import churn, predictions
from serving.answers.base import MAX_RESULTS
from serving.champions import Champion, Champions
from serving.scenes import SCENES

BLOCK = 8_192  # customers scored at a time: what is held beside the result does not grow with their number
FORMATS = (".parquet", ".csv")
IDENTITY = [("user_id", pa.string()), ("user_source", pa.string()), ("one_id", pa.string())]
MADE = [("as_of", pa.timestamp("us")), ("model_version", pa.string())]
REASON = pa.struct([(name, pa.string()) for name in ("feature", "description", "value", "effect")])
CHURN = pa.schema([
    *IDENTITY, ("churn_probability", pa.float64()), ("risk_band", pa.string()), ("reasons", pa.list_(REASON)), ("no_score_reason", pa.string()), *MADE,
])  # fmt: skip
RECOMMEND = pa.schema([
    *IDENTITY, ("rank", pa.int32()), ("item_id", pa.string()), ("score", pa.float64()), ("source", pa.string()), *MADE,
])  # fmt: skip


def score_recommend(
    champions: Champions, *, num_results: int = 10, scene: str = "home", exclude_purchased: bool = False,
    candidates: Collection[str] | None = None, as_of: datetime | None = None,
) -> pa.Table:  # fmt: skip
    """A list for every customer known.

    Parameters
    ----------
    num_results : int
        1 to 500.
    exclude_purchased : bool
        Leave out what the customer had, whatever the scene says.
    candidates : collection of str, optional
        Only these items.
    as_of : datetime, optional
        Must be the champion's: its histories end there.

    Returns
    -------
    pyarrow.Table
        user_id, user_source, one_id, rank, item_id, score, source, as_of, model_version; a row an item.

    Raises
    ------
    DataError
        Another `as_of`, or candidates none of which the model knows.
    UsageError
        `num_results` or `scene` that do not exist.
    """
    champion = champions.need("recommend")
    if not 1 <= num_results <= MAX_RESULTS:
        raise UsageError("that many results cannot be given", got=num_results, allowed=f"1..{MAX_RESULTS}", field="num_results")
    hides = SCENES[scene].exclude_purchased or exclude_purchased
    _check_recommend_moment(champion, as_of)
    allowed = None
    if candidates is not None:
        allowed = champion.catalogue.restricted(candidates)
        if not allowed.any():
            raise DataError(
                "the model knows none of the candidates",
                got=f"{len(candidates)} item ids",
                hint="check that the file holds item ids, one a line",
            )
    customers = champions.customers
    who = customers.table.select([name for name, _ in IDENTITY])
    rows = index_of(champion.bundle.user_ids, np.asarray(customers.one_ids, dtype=np.str_))
    item_ids = pa.array(champion.bundle.item_ids)
    parts = []
    for start in range(0, len(rows), BLOCK):
        ranked = champion.bundle.model.recommend(rows[start : start + BLOCK], num_results, allowed=allowed, exclude_purchased=hides)
        row, place = np.nonzero(ranked.ids >= 0)
        names = pa.array(ranked.sources)
        block = who.slice(start, BLOCK).take(pa.array(row))
        columns = [
            *block.columns, pa.array(place.astype(np.int32) + 1), item_ids.take(pa.array(ranked.ids[row, place])),
            pa.array(np.round(ranked.scores[row, place].astype(np.float64), 6)), names.take(pa.array(ranked.source[row, place])),
            *_made(len(row), champion.bundle.as_of, champion),
        ]  # fmt: skip
        parts.append(pa.table(columns, schema=RECOMMEND))
    return pa.concat_tables(parts) if parts else RECOMMEND.empty_table()


def score_churn(champions: Champions, *, as_of: datetime | None = None, builder: Builder | None = None, explain: bool = True) -> pa.Table:
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


def score_predictions(champions: Champions, *, as_of: datetime | None = None, builder: Builder | None = None) -> pa.Table:
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
    schema = pa.schema([
        *IDENTITY, ("lifecycle_stage", pa.string()), ("next_stage", stages), ("average_days_between_orders", pa.float64()),
        ("average_order_value", pa.float64()), ("no_score_reason", pa.string()), *MADE,
    ])  # fmt: skip
    return pa.concat_tables(
        [_with_identity(who, predictions.predict_rows(at, encoded, rows), champion, at, schema) for who, rows in _blocks(at)]
    )


def write(table: pa.Table, path: Path) -> Path:
    """Write a table as Parquet or CSV, by its ending; all of it or nothing. Lists and structs are JSON text in a CSV.

    Raises
    ------
    UsageError
        Another ending.
    """
    if path.suffix not in FORMATS:
        raise UsageError("a table is written as Parquet or CSV", got=path.name, allowed=", ".join(FORMATS), hint="name the file so")
    with atomic_path(path) as temporary:
        if path.suffix == ".parquet":
            pq.write_table(table, temporary, compression="zstd")
            return path
        nested = [field.name for field in table.schema if pa.types.is_nested(field.type)]
        flat = pa.schema([pa.field(field.name, pa.string()) if field.name in nested else field for field in table.schema])
        with pa_csv.CSVWriter(temporary, flat) as writer:
            for start in range(0, max(1, table.num_rows), BLOCK):
                block = table.slice(start, BLOCK)
                columns = [_json(block[name]) if name in nested else block[name] for name in block.column_names]
                writer.write_table(pa.table(columns, schema=flat))
    return path


# ---- helpers ---------------------------------------------------------------------------------------------------------


def _check_recommend_moment(champion: Champion, as_of: datetime | None) -> None:
    fitted = champion.bundle.as_of
    if as_of is None or as_of == fitted:
        return
    why = "has seen rows after that" if as_of < fitted else "does not know what was bought since"
    raise DataError(
        f"the recommender in production {why}", where=f"{champion.name} version {champion.version}", got=f"--as-of {as_of:%Y-%m-%d}",
        allowed=f"{fitted:%Y-%m-%d}", hint=f"run `qianmian train recommend --as-of {as_of:%Y-%m-%d}` first",
    )  # fmt: skip


def _at_moment(champions: Champions, champion: Champion, as_of: datetime | None, builder: Builder | None) -> Champions:
    """The champions over the profiles at `as_of`."""
    if as_of is None or as_of == champions.customers.as_of:
        wanted = champions
    elif builder is None:
        raise UsageError("profiles of another moment need the data they are built from", got=f"--as-of {as_of:%Y-%m-%d}", field="as_of")
    else:
        wanted = None
    if as_of is not None and as_of < champion.bundle.as_of:
        raise DataError(
            f"the {champion.job} model in production has seen rows after that", where=f"{champion.name} version {champion.version}",
            got=f"--as-of {as_of:%Y-%m-%d}", allowed=f"{champion.bundle.as_of:%Y-%m-%d} or later",
            hint=f"run `qianmian train {champion.job} --as-of {as_of:%Y-%m-%d}` first",
        )  # fmt: skip
    if wanted is None:
        assert as_of is not None
        assert builder is not None
        wanted = champions.with_snapshot(make_snapshot(builder, as_of))
    return wanted


def _blocks(champions: Champions) -> Iterator[tuple[pa.Table, NDArray[np.int64]]]:
    """Customers of the profiles, some at a time: who they are, and their rows; one empty block where there are none."""
    who = champions.customers.table.select([name for name, _ in IDENTITY])
    for start in range(0, max(1, who.num_rows), BLOCK):
        yield who.slice(start, BLOCK), np.arange(start, min(start + BLOCK, who.num_rows), dtype=np.int64)


def _with_identity(who: pa.Table, scores: list[dict[str, Any]], champion: Champion, at: Champions, schema: pa.Schema) -> pa.Table:
    own = pa.schema([field for field in schema if field.name not in {name for name, _ in (*IDENTITY, *MADE)}])
    values = pa.Table.from_pylist(scores, schema=own)
    return pa.table([*who.columns, *values.columns, *_made(who.num_rows, at.customers.as_of, champion)], schema=schema)


def _made(rows: int, as_of: datetime, champion: Champion) -> list[pa.Array]:
    return [pa.repeat(pa.scalar(as_of, MADE[0][1]), rows), pa.repeat(pa.scalar(champion.version, pa.string()), rows)]


def _text(value: float | str | None) -> str | None:
    return f"{value:g}" if isinstance(value, float) else value


def _json(column: pa.ChunkedArray) -> pa.Array:
    return pa.array([None if value is None else orjson.dumps(value).decode() for value in column.to_pylist()], pa.string())
