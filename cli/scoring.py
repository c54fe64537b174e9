"""What the commands of `qianmian score` share: champions and profiles built first, files of ids, the result."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import Output
from cli.features import SUFFIXES, check_engine, check_suffix
from cli.times import as_of_or_default, utc_now
from cli.train import show_result
from qianmian.errors import DataError, GateRefused, UsageError
from qianmian.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from features.compute.builder import Builder
    from qianmian.settings import Settings
    from serving.champions import Champions
    from serving.recommending.candidates import CustomerCandidates
    from serving.scoring.blocks import BlockScores, WrittenScores
    from serving.scoring.spark import SparkScores

OutOption = Annotated[
    Path,
    typer.Option(
        "--out", metavar="FILE", help="Output file: .parquet or .csv; with Spark also a folder, without suffix."
    ),
]
WorkersOption = Annotated[
    int,
    typer.Option(
        "--workers", min=1, max=256, help="Number of processes that score blocks of customers; the file is the same."
    ),
]


@dataclass(frozen=True)
class Execution:
    """Where scores are computed.

    Attributes
    ----------
    engine : str
        ``duckdb`` for this machine, or ``spark``.
    spark_master : str or None
        Master URL of Spark.
    workers : int
        Number of processes on this machine.
    """

    engine: str
    spark_master: str | None
    workers: int

    @property
    def on_spark(self) -> bool:
        """Whether Spark computes the scores."""
        return self.engine == "spark"

    def check(self, out: Path) -> None:
        """Check the options before the work starts.

        Raises
        ------
        UsageError
            The engine is unknown, or the options or `out` do not fit it.
        """
        check_engine(self.engine, self.spark_master, out)
        check_suffix(out, (*SUFFIXES, "") if self.on_spark else SUFFIXES)
        if self.on_spark and self.workers > 1:
            raise UsageError(
                "Spark starts its own processes",
                where="--workers",
                got=self.workers,
                hint="omit --workers, or name the number of cores in --spark-master 'local[4]'",
            )

    def write_on_spark(self, output: Output, located: Workspace, scores: SparkScores, out: Path) -> WrittenScores:
        """Compute and write scores on Spark."""
        from features.compute.engines.spark_session import LOCAL_MASTER
        from features.erasure.exports import record_export
        from serving.scoring.spark import write_on_spark

        output.step(f"scoring by Spark ({self.spark_master or LOCAL_MASTER})")
        written = write_on_spark(located, scores, out, self.spark_master)
        record_export(located, out, utc_now())
        return written


def read_ids(path: Path, option: str, column: str, source_column: str | None = None) -> list[tuple[str, str | None]]:
    """Read ids from a file: one per line, or a column of a CSV or Parquet file.

    Parameters
    ----------
    path : Path
        The file.
    option : str
        Option that names the file, for the error messages.
    column : str
        Column of the ids.
    source_column : str, optional
        Column of their sources, which a table may have.

    Returns
    -------
    list of (str, str or None)
        Each id, and its source if the table names it.

    Raises
    ------
    UsageError
        The file is missing, cannot be read, has no such column, or is empty.
    """
    import pyarrow as pa

    if not path.is_file():
        hint = f"name a text file with one id per line, or a .csv or .parquet file with a column {column}"
        raise UsageError("the file is missing", where=option, got=str(path), hint=hint)
    try:
        if path.suffix.lower() in SUFFIXES:
            table = _read_table(path, option, (column, source_column or column))
            ids = table[column].to_pylist()
            has_sources = source_column is not None and source_column in table.column_names
            sources = table[source_column].to_pylist() if has_sources else [None] * len(ids)
            found = [
                (str(value), None if source in (None, "") else str(source))
                for value, source in zip(ids, sources, strict=True)
                if value not in (None, "")
            ]
        else:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
            found = [(line.strip(), None) for line in lines if line.strip()]
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise UsageError(
            "the file of ids cannot be read",
            where=f"{option} {path}",
            got=str(error).splitlines()[0],
            hint="use a text file in UTF-8 with one id per line",
        ) from error
    if not found:
        raise UsageError("the file contains no id", where=f"{option} {path}", hint="write one id per line")
    return found


def _read_table(path: Path, option: str, columns: Sequence[str]) -> pa.Table:
    """Read a CSV or Parquet file in which `columns`, of which it must have the first, are text."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    as_text = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string()))
    table = (
        pyarrow.parquet.read_table(path)
        if path.suffix.lower() == ".parquet"
        else pyarrow.csv.read_csv(path, convert_options=as_text)
    )
    if columns[0] not in table.column_names:
        raise UsageError(
            f"the file has no column {columns[0]}",
            where=f"{option} {path}",
            got=", ".join(table.column_names),
            hint=f"rename the column with the ids to {columns[0]}",
        )
    return table


def read_candidates(path: Path, option: str) -> list[str] | CustomerCandidates:
    """Read candidates: item ids for every customer, or pairs of a user id and an item id.

    Parameters
    ----------
    path : Path
        Text file with one item id per line, or CSV or Parquet file with a column item_id; with a column user_id it
        names the candidates of each customer, and user_source the source of the user ids.

    Raises
    ------
    UsageError
        The file is missing, cannot be read, has no column item_id, or names nothing.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if path.suffix.lower() in SUFFIXES and path.is_file():
        columns = ("item_id", "user_id", "user_source")
        try:
            table = _read_table(path, option, columns)
        except pa.ArrowException:
            table = None  # `read_ids` says why
        if table is not None and "user_id" in table.column_names:
            from serving.recommending.candidates import CustomerCandidates

            pairs = table.select([name for name in columns if name in table.column_names])
            pairs = pairs.cast(pa.schema([(name, pa.string()) for name in pairs.column_names]))
            complete = pairs.filter(
                pc.and_(*(pc.fill_null(pc.not_equal(pairs[name], ""), False) for name in columns[:2]))
            )
            if not complete.num_rows:
                raise UsageError(
                    "the file names no pair", where=f"{option} {path}", hint="give each row a user_id and an item_id"
                )
            return CustomerCandidates(complete)
    return [item for item, _ in read_ids(path, option, "item_id")]


def ensure_champion(output: Output, located: Workspace, settings: Settings, job: str, moment: datetime | None) -> bool:
    """Train the champion of a job if it is missing.

    Returns
    -------
    bool
        Whether the champion was trained.

    Raises
    ------
    GateRefused
        The gate refused the trained model.
    """
    from features.data.lake import Lake
    from serving.model_registry import version_of

    if version_of(located, job) is not None:
        return False
    from training import train

    output.step(f"no {job} champion exists yet: training it first")
    moment = moment or as_of_or_default(Lake(located), None)
    for result in train(located, [job], clock=utc_now, as_of=moment, settings=settings, progress=output.step):
        show_result(output, result)
        if result.status == "refused":
            raise GateRefused(
                f"the gate refused {job}, so no model can score",
                got=result.reason,
                hint="inspect the run in MLflow",
            )
    return True


def ensure_profiles(output: Output, located: Workspace, settings: Settings, *, with_tags: bool = False) -> None:
    """Build the profiles if they are missing or the lake has changed since they were built.

    With `with_tags` also if the declarations or settings of the tags have changed, or a model has published one.
    """
    from features.data.lake import Lake
    from features.profiles.building import ensure_snapshot
    from features.profiles.snapshot import current_snapshot_name, load_current, read_facts
    from features.profiles.tags.tagging import tags_digest

    lake, name = Lake(located), current_snapshot_name(located)
    if name is None:
        outdated = True
    elif with_tags:  # the tags are read by blocks later on
        facts = read_facts(located.online / name)
        outdated = [facts["data_digest"], facts["tags_digest"]] != [lake.digest, tags_digest(settings, located)]
    else:
        outdated = load_current(located).data_digest != lake.digest
    if outdated:
        moment = as_of_or_default(lake, None)
        output.step(f"the profiles are missing or outdated: building them as of {moment:%Y-%m-%d}")
        ensure_snapshot(located, moment, settings)


def builder_of(located: Workspace, settings: Settings, champions: Champions, moment: datetime | None) -> Builder | None:
    """The builder of the profiles of another date than that of the published ones, which stay published; else None."""
    from features.data.lake import Lake
    from features.definitions.building import make_builder

    other = moment is not None and moment != champions.customers.as_of
    return make_builder(Lake(located), settings) if other else None


def require_customers(scores: BlockScores, moment: datetime | None) -> None:
    """Check that there is a customer to score.

    Raises
    ------
    DataError
        There is none.
    """
    if not scores.customers:
        raise DataError("no customer is known before the cutoff", got=str(moment), hint="use a later --as-of")


def at_published(champions: Champions, moment: datetime | None) -> None:
    """Check that scores on Spark, which reads the published profiles, are not wanted for another moment.

    Raises
    ------
    UsageError
        They are.
    """
    published = champions.customers.as_of
    if moment not in (None, published):
        raise UsageError(
            "Spark scores the published profiles",
            where="--as-of",
            got=str(moment),
            allowed=str(published),
            hint="run `qianmian features --as-of` with this date first, or omit --engine spark",
        )


def write_scores(output: Output, located: Workspace, scores: BlockScores, out: Path, workers: int = 1) -> WrittenScores:
    """Write scores block by block with a line of progress for every tenth of the customers.

    The file is in the index of written files before its first block is written: an erasure has to find the blocks too.
    """
    from features.erasure.exports import begin_export, record_export
    from serving.scoring.blocks import write_blocks

    said = 0

    def progress(done: int, of: int) -> None:
        nonlocal said
        if of > scores.size and done * 10 // of > said:
            said = done * 10 // of
            output.step(f"{done:,} of {of:,} customers")

    begin_export(located, out, utc_now())
    written = write_blocks(scores, out, progress, workers)
    record_export(located, out, utc_now())
    return written


def report(
    output: Output, located: Workspace, out: Path, written: WrittenScores, begun: float, made_by: str, **more: Any
) -> None:
    """Say what the file has; `more` are further fields of the JSON."""
    seconds = time.perf_counter() - begun
    output.result(
        {
            "workspace": located.root,
            "out": out,
            "rows": written.rows,
            "customers": written.customers,
            "columns": written.columns,
            "as_of": written.as_of,
            "resumed_customers": written.resumed,
            **more,
            "seconds": round(seconds, 3),
        }
    )
    if written.resumed:
        output.say(f"{written.resumed:,} customers had been scored by a run that was interrupted")
    output.say(f"{out}: {written.rows:,} rows of {written.customers:,} customers, {made_by}, {seconds:.1f} s")
