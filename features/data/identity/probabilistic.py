"""Record linkage: find store records of one person that share no identifier (Fellegi and Sunter 1969, with Splink)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.data.identity.blocking import blocking_keys
from features.data.identity.link_model import (
    ComparisonSpec,
    comparisons,
    household_condition,
    prior_match_probability,
    splink_settings,
    train,
)
from features.data.identity.records import (
    FIELDS,
    PreparedRecords,
    prepare_records,
    private_connection,
    validate_records,
)
from features.data.identity.tables import links_path
from features.data.lake import literal
from qianmian.errors import ConfigError, DataError
from qianmian.settings import LinkingSettings
from qianmian.workspace import Workspace, atomic_path, write_json

if TYPE_CHECKING:
    from splink import Linker

IN_THE_BAND, HOUSEHOLD = "probability in the review band", "may be two people of one household"
BACKENDS = ("duckdb", "spark")
DECIMALS = 6  # probabilities are rounded, because the last bits of a parallel sum differ between runs
PAIR_KEY = ("left_source", "left_source_user_id", "right_source", "right_source_user_id")
LINKS_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in PAIR_KEY),
        ("probability", pa.float64()),
        ("decided_at", pa.timestamp("us")),
        ("link_id", pa.string()),
    ]
)
_LINK_ID = f"'l' || substr(sha256(concat_ws(chr(31), {', '.join(PAIR_KEY)})), 1, 16)"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LinkageResult:
    """Result of record linkage. It contains keys of records, but none of their values.

    Attributes
    ----------
    pairs : pa.Table
        Matches: `PAIR_KEY` (the left key is the smaller one), `probability` (float64, from the threshold to 1) and
        `link_id`, a digest of the key.
    review : pa.Table
        Pairs for clerical review: the same columns, a label per comparison, and `reason`: the probability lies in the
        review band, or the pair may be one household (`link_model.household_condition`).
    sources : tuple of str
        Source systems that were linked.
    records, compared : int
        Number of records, and of compared pairs.
    oversized_blocks : int
        Number of blocking key values that are not used because too many records share them.
    untrained : tuple of str
        Comparisons with Splink's default weights: too few pairs agree on other columns.
    model : dict
        Settings and learnt parameters, in Splink's format.
    chart : str
        Chart of the match weights as an HTML page that needs no network. Empty if no pairs were compared.
    placeholders : dict of str to int
        Field → number of records whose value stands for "not known" and is not compared.
    """

    pairs: pa.Table
    review: pa.Table
    sources: tuple[str, ...]
    records: int
    compared: int
    oversized_blocks: int
    untrained: tuple[str, ...]
    model: dict[str, Any]
    chart: str
    placeholders: dict[str, int]


def link(
    records: pa.Table,
    settings: LinkingSettings | None = None,
    *,
    seed: int = 0,
    backend: str = "duckdb",
    within_sources: bool = True,
) -> LinkageResult:
    """Find pairs of records of one person; the model is unsupervised.

    The weight of a comparison level is log2(m / u), where m is the probability of that level for two records of one
    person (expectation maximisation) and u for two records of different people (random pairs). The sum of the weights
    and the prior is the log-odds of a match.

    Parameters
    ----------
    records : pa.Table
        `source`, `source_user_id` (unique together) and any of `features.data.identity.records.FIELDS`, text or dates.
    settings : LinkingSettings, optional
        Threshold, review band and size limits.
    seed : int
        Seed of the random pairs.
    backend : {"duckdb", "spark"}
        Engine of the comparison. Records are cleaned in this process with either engine.
    within_sources : bool
        Whether two records of one source may be one person.

    Returns
    -------
    LinkageResult

    Raises
    ------
    ConfigError
        If the backend is unknown.
    DataError
        If the records cannot be linked: unknown or missing columns, duplicate keys, no comparable column, too many
        pairs.

    Examples
    --------
    >>> people = {"source": ["till", "till", "club"], "source_user_id": ["1", "2", "9"],
    ...           "given_name": ["Ana", "Bo", "Anna"], "surname": ["Silva", "Li", "Silva"],
    ...           "birth_date": ["1980-02-01", "1991-12-31", "1980-02-01"],
    ...           "phone": ["+351 912 345 678", "138 0013 8000", "912345678"]}
    >>> pairs = link(pa.table(people)).pairs
    >>> pairs.select(["left_source_user_id", "right_source_user_id"]).to_pylist()
    [{'left_source_user_id': '9', 'right_source_user_id': '1'}]
    """
    settings = settings or LinkingSettings()
    if backend not in BACKENDS:
        raise ConfigError(
            [f"backend: unknown backend {backend!r}; the backends are {', '.join(BACKENDS)}"],
            where="linking",
        )
    table = validate_records(records)
    sources = tuple(sorted(set(table["source"].to_pylist())))
    with private_connection() as connection:
        prepared = prepare_records(connection, table, blocking_keys(), settings.max_block_records)
        _check_comparable(prepared, table.num_rows, settings)
        between_sources = not within_sources
        if prepared.pairs == 0 or (between_sources and len(sources) < 2):
            empty = _empty_review()
            return LinkageResult(
                empty.select([*PAIR_KEY, "probability", "link_id"]),
                empty,
                sources,
                table.num_rows,
                0,
                prepared.oversized_blocks,
                (),
                {},
                "",
                prepared.placeholders,
            )
        specs = comparisons(prepared.filled)
        kind = "dedupe_only" if len(sources) == 1 else "link_only" if between_sources else "link_and_dedupe"
        model = splink_settings(
            specs, prepared.filled, kind, prior_match_probability(connection, prepared.filled, between_sources)
        )
        with _quiet(), _engine(backend, connection, prepared, sources) as engine:
            linker, untrained = train(engine, connection, specs, prepared.filled, model, between_sources, seed)
            result: Any = linker.inference.predict(warning_mode="never")
            predicted = result.as_pyarrow_table()
            connection.register("predicted", predicted)
            labels = "".join(f", {_label_sql(spec)} AS {spec.name}" for spec in specs)
            scored = connection.execute(f"""
                SELECT *, {_LINK_ID} AS link_id,
                       CASE WHEN probability < {settings.threshold} THEN '{IN_THE_BAND}'
                            WHEN {household_condition(specs)} THEN '{HOUSEHOLD}' END AS reason
                FROM (
                    SELECT l.source AS left_source, l.source_user_id AS left_source_user_id,
                           r.source AS right_source, r.source_user_id AS right_source_user_id,
                           round(match_probability, {DECIMALS})::DOUBLE AS probability{labels}
                    FROM predicted JOIN cleaned AS l ON l.rid = least(rid_l, rid_r)
                    JOIN cleaned AS r ON r.rid = greatest(rid_l, rid_r))
                WHERE probability >= {settings.review_low}
                ORDER BY probability DESC, {", ".join(PAIR_KEY)}""").to_arrow_table()
            trained_model = linker.misc.save_model_to_json()
            chart = linker.visualisations.match_weights_chart().to_html(inline=True)
    matched = pc.is_null(scored["reason"])
    pairs, review = scored.filter(matched), scored.filter(pc.invert(matched))
    logger.info(
        "records=%d compared=%d pairs=%d review=%d", table.num_rows, predicted.num_rows, pairs.num_rows, review.num_rows
    )
    return LinkageResult(
        pairs.select([*PAIR_KEY, "probability", "link_id"]),
        review,
        sources,
        table.num_rows,
        predicted.num_rows,
        prepared.oversized_blocks,
        tuple(untrained),
        trained_model,
        chart,
        prepared.placeholders,
    )


def _label_sql(spec: ComparisonSpec) -> str:
    """SQL of the label of a comparison, from the level number that Splink predicts."""
    cases = (f"WHEN {level} THEN {literal(spec.label(level))}" for level in range(-1, len(spec.levels) + 1))
    return f"CASE gamma_{spec.name} {' '.join(cases)} END"


def _check_comparable(prepared: PreparedRecords, records: int, settings: LinkingSettings) -> None:
    if records and not comparisons(prepared.filled):
        raise DataError(
            "the records have no columns that can be compared",
            where="records",
            got=sorted(prepared.filled) or "only empty columns",
            allowed=", ".join(FIELDS),
            hint="map at least a name and one of birth_date, address, phone, email",
        )
    if prepared.pairs > settings.max_pairs:
        raise DataError(
            "too many pairs to compare",
            where="linking.max_pairs",
            got=f"up to {prepared.pairs:,} pairs",
            allowed=f"{settings.max_pairs:,}",
            hint="lower linking.max_block_records, or raise linking.max_pairs if the memory is sufficient",
        )


def _empty_review() -> pa.Table:
    texts = [(name, pa.string()) for name in (*PAIR_KEY, "link_id", "reason")]
    return pa.schema([*texts, ("probability", pa.float64())]).empty_table()


@contextlib.contextmanager
def _engine(
    backend: str, connection: duckdb.DuckDBPyConnection, prepared: PreparedRecords, sources: tuple[str, ...]
) -> Iterator[Callable[[Any], Linker]]:
    """Yield a function from Splink settings to a linker over the prepared records, with one table per source."""
    with contextlib.ExitStack() as stack:
        if backend == "spark":
            from features.data.identity.link_spark import spark_api

            api: Any = stack.enter_context(spark_api(prepared.table.num_rows))
        else:
            from splink import DuckDBAPI

            api = DuckDBAPI(connection)
        from splink import Linker

        tables = []
        for number, source in enumerate(sources):
            part = prepared.table.filter(pc.equal(prepared.table["source"], source)).drop_columns(
                ["source", "source_user_id"]
            )
            tables.append(api.register(part, dataset_display_name=f"source_{number}"))
        yield lambda settings: Linker(tables if len(tables) > 1 else tables[0], settings, log_level=None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress Splink's SQL and its warnings about untrained levels; `LinkageResult.untrained` reports the latter."""
    splink = logging.getLogger("splink")
    before = splink.level
    splink.setLevel(logging.ERROR)
    try:
        yield
    finally:
        splink.setLevel(before)


def merged(workspace: Workspace, links: LinkageResult, decided_at: datetime) -> pa.Table:
    """Merge the new links with those of the workspace (`LINKS_SCHEMA`), ordered by their key.

    Links between two of the linked sources are replaced; links with other sources stay. A link that is found again
    keeps its first decision time, so that a new run does not change the past.
    """
    path = links_path(workspace)
    before = pq.read_table(path) if path.exists() else LINKS_SCHEMA.empty_table()
    with private_connection() as connection:
        connection.register("before_", before)
        connection.register("now_", links.pairs)
        listed = ", ".join(literal(source) for source in links.sources) or "NULL"
        columns = ", ".join(PAIR_KEY)
        return (
            connection.execute(
                f"""
            SELECT {columns}, probability, decided_at, link_id FROM before_
            WHERE NOT (left_source IN ({listed}) AND right_source IN ({listed}))
            UNION ALL SELECT {", ".join(f"n.{name}" for name in PAIR_KEY)}, n.probability,
                least(coalesce(b.decided_at, $1), $1)::TIMESTAMP AS decided_at, n.link_id
            FROM now_ AS n LEFT JOIN before_ AS b USING (link_id) ORDER BY {columns}""",
                [decided_at],
            )
            .to_arrow_table()
            .cast(LINKS_SCHEMA)
        )


def write_links(workspace: Workspace, links: LinkageResult, decided_at: datetime) -> Path:
    """Write the matches to the workspace atomically, and the model as JSON beside them.

    Parameters
    ----------
    decided_at : datetime
        Time from which the links hold, naive UTC.

    Returns
    -------
    Path
        File with the links.
    """
    table = merged(workspace, links, decided_at)
    path = links_path(workspace)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    if links.model:
        write_json(path.with_name("linking_model.json"), links.model)
    return path
