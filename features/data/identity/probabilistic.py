"""Probabilistic OneID: which store records are one person although they share no identifier (Fellegi and Sunter 1969, through Splink)."""

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

from features.data.identity.link_model import (
    blocking_keys,
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
DECIMALS = 6  # of a probability: the last bits of a parallel sum differ from run to run
PAIR_KEY = ("left_source", "left_source_user_id", "right_source", "right_source_user_id")
LINKS_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in PAIR_KEY),
        ("probability", pa.float64()),
        ("decided_at", pa.timestamp("us")),
        ("link_id", pa.string()),
    ]
)
_LINK_ID = "'l' || substr(sha256(concat_ws(chr(31), left_source, left_source_user_id, right_source, right_source_user_id)), 1, 16)"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LinkageResult:
    """What linking a set of records found. No value of a record is in it, only keys.

    Attributes
    ----------
    pairs : pa.Table
        The matches: `PAIR_KEY` (the left key is the smaller one), `probability` (float64, threshold to 1) and `link_id`, a digest of the key.
    review : pa.Table
        The pairs for people to judge: the same columns, for each comparison how alike the two records are, in words, and `reason`: the
        probability lies in the review band, or nothing that is a person's own agrees (`link_model.household_condition`).
    sources : tuple of str
        The systems that were linked.
    records, compared : int
        Records, and pairs that were compared.
    oversized_blocks : int
        Values too many records share to be a clue.
    untrained : tuple of str
        Comparisons whose weights are Splink's defaults: too few pairs agree on anything else.
    model : dict
        The settings and learnt parameters, as Splink loads them.
    chart : str
        The chart of the match weights: one HTML page that needs no network. Empty where nothing was compared.
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


def link(
    records: pa.Table,
    settings: LinkingSettings | None = None,
    *,
    seed: int = 0,
    backend: str = "duckdb",
    within_sources: bool = True,
) -> LinkageResult:
    """Find the pairs of records that are one person. Unsupervised: no pair is ever labelled.

    The weight of a comparison level is log2(m / u): m is how often records of one person agree like that (expectation maximisation), u how
    often two strangers do (random pairs). The sum of the weights and the prior is the log-odds of a match.

    Parameters
    ----------
    records : pa.Table
        `source`, `source_user_id` (unique together) and any of `features.data.identity.records.FIELDS`; dates may be dates.
    settings : LinkingSettings, optional
        Threshold, review band and guards.
    seed : int
        Of the random pairs.
    backend : {"duckdb", "spark"}
        What compares. Records are cleaned in this process either way.
    within_sources : bool
        Whether two records of one system may be one person.

    Returns
    -------
    Links

    Raises
    ------
    ConfigError
        For a backend that is not there.
    DataError
        For records that cannot be linked: unknown or missing columns, a key twice, nothing to compare, too many pairs.

    Examples
    --------
    >>> people = {"source": ["till", "till", "club"], "source_user_id": ["1", "2", "9"], "given_name": ["Ana", "Bo", "Anna"],
    ...           "surname": ["Silva", "Li", "Silva"], "birth_date": ["1980-02-01", "1991-12-31", "1980-02-01"],
    ...           "phone": ["+351 912 345 678", "138 0013 8000", "912345678"]}
    >>> found = link(pa.table(people)).pairs
    >>> found.select(["left_source_user_id", "right_source_user_id"]).to_pylist()
    [{'left_source_user_id': '9', 'right_source_user_id': '1'}]
    """
    settings = settings or LinkingSettings()
    if backend not in BACKENDS:
        raise ConfigError(
            [f"backend: there is no such backend as {backend!r}; the backends are {', '.join(BACKENDS)}"],
            where="linking",
        )
    table = validate_records(records)
    sources = tuple(sorted(set(table["source"].to_pylist())))
    with private_connection() as connection:
        prepared = prepare_records(connection, table, blocking_keys(), settings.max_block_records)
        _check_comparable(prepared, table.num_rows, settings)
        between_sources = not within_sources
        if prepared.pairs == 0 or (between_sources and len(sources) < 2):
            nothing = _empty_review()
            return LinkageResult(
                nothing.select([*PAIR_KEY, "probability", "link_id"]),
                nothing,
                sources,
                table.num_rows,
                0,
                prepared.oversized_blocks,
                (),
                {},
                "",
            )
        compared = comparisons(prepared.filled)
        kind = "dedupe_only" if len(sources) == 1 else "link_only" if between_sources else "link_and_dedupe"
        model = splink_settings(
            compared, prepared.filled, kind, prior_match_probability(connection, prepared.filled, between_sources)
        )
        with _quiet(), _engine(backend, connection, prepared, sources) as engine:
            linker, untrained = train(engine, connection, compared, prepared.filled, model, between_sources, seed)
            result: Any = linker.inference.predict(warning_mode="never")
            predicted = result.as_pyarrow_table()
            connection.register("predicted", predicted)
            labels = "".join(
                f", CASE gamma_{each.name} "
                + " ".join(
                    f"WHEN {level} THEN {literal(each.label(level))}" for level in range(-1, len(each.levels) + 1)
                )
                + f" END AS {each.name}"
                for each in compared
            )
            scored = connection.execute(f"""
                SELECT *, {_LINK_ID} AS link_id,
                       CASE WHEN probability < {settings.threshold} THEN '{IN_THE_BAND}' WHEN {household_condition(compared)} THEN '{HOUSEHOLD}' END AS reason
                FROM (
                    SELECT l.source AS left_source, l.source_user_id AS left_source_user_id,
                           r.source AS right_source, r.source_user_id AS right_source_user_id,
                           round(match_probability, {DECIMALS})::DOUBLE AS probability{labels}
                    FROM predicted JOIN cleaned AS l ON l.rid = least(rid_l, rid_r) JOIN cleaned AS r ON r.rid = greatest(rid_l, rid_r))
                WHERE probability >= {settings.review_low} ORDER BY probability DESC, {", ".join(PAIR_KEY)}""").to_arrow_table()
            found = linker.misc.save_model_to_json()
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
        found,
        chart,
    )


def _check_comparable(prepared: PreparedRecords, records: int, settings: LinkingSettings) -> None:
    if records and not comparisons(prepared.filled):
        raise DataError(
            "the records hold nothing to compare",
            where="records",
            got=sorted(prepared.filled) or "only empty columns",
            allowed=", ".join(FIELDS),
            hint="map at least a name and one of birth_date, address, phone, email",
        )
    if prepared.pairs > settings.max_pairs:
        raise DataError(
            "too many pairs would have to be compared",
            where="linking.max_pairs",
            got=f"up to {prepared.pairs:,} pairs",
            allowed=f"{settings.max_pairs:,}",
            hint="lower linking.max_block_records, or raise linking.max_pairs if there is memory for it",
        )


def _empty_review() -> pa.Table:
    texts = [(name, pa.string()) for name in (*PAIR_KEY, "link_id", "reason")]
    return pa.schema([*texts, ("probability", pa.float64())]).empty_table()


@contextlib.contextmanager
def _engine(
    backend: str, connection: duckdb.DuckDBPyConnection, prepared: PreparedRecords, sources: tuple[str, ...]
) -> Iterator[Callable[[Any], Linker]]:
    """Makes linkers over the prepared records, one table a source."""
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
    """Keep Splink's remarks on levels nobody reached, and its SQL, out of our log; `LinkageResult.untrained` says what matters of them."""
    splink = logging.getLogger("splink")
    before = splink.level
    splink.setLevel(logging.ERROR)
    try:
        yield
    finally:
        splink.setLevel(before)


def merged(workspace: Workspace, links: LinkageResult, decided_at: datetime) -> pa.Table:
    """The links of the workspace as `write_links` would leave them (`LINKS_SCHEMA`), in the order of their key.

    Links between two of the systems that were linked are replaced; links with other systems stay. A link found again keeps the moment it
    was first decided, so that history is not rewritten by every run.
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
            SELECT {columns}, probability, decided_at, link_id FROM before_ WHERE NOT (left_source IN ({listed}) AND right_source IN ({listed}))
            UNION ALL SELECT {", ".join(f"n.{name}" for name in PAIR_KEY)}, n.probability,
                least(coalesce(b.decided_at, $1), $1)::TIMESTAMP AS decided_at, n.link_id
            FROM now_ AS n LEFT JOIN before_ AS b USING (link_id) ORDER BY {columns}""",
                [decided_at],
            )
            .to_arrow_table()
            .cast(LINKS_SCHEMA)
        )


def write_links(workspace: Workspace, links: LinkageResult, decided_at: datetime) -> Path:
    """Put the matches into the workspace, whole or not at all; beside them the model as JSON.

    Parameters
    ----------
    decided_at : datetime
        Naive UTC: from when on the links hold.
    """
    table = merged(workspace, links, decided_at)
    path = links_path(workspace)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    if links.model:
        write_json(path.with_name("linking_model.json"), links.model)
    return path
