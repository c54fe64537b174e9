"""`qianmian features`: builds and publishes the profiles of all customers, and optionally writes them to a file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import Output
from cli.options import AsOfOption, EngineOption, JsonOption, SparkMasterOption, WorkspaceOption
from cli.times import as_of_or_default, note_empty_days, note_missing_timezone, utc_now
from qianmian.errors import UsageError
from qianmian.workspace import Workspace, atomic_path

if TYPE_CHECKING:
    from datetime import datetime

    import pyarrow as pa

    from features.data.lake import Lake
    from features.profiles.tags.previous_stage import StageMoves
    from qianmian.settings import Settings

MAX_OFF_SHOWN = 8
MAX_MOVES_SHOWN = 8
SUFFIXES = (".parquet", ".csv")


def features(
    as_of: AsOfOption = None,
    engine: EngineOption = "duckdb",
    spark_master: SparkMasterOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Also write the profiles to this file: .parquet or .csv, one row per customer. Required by Spark.",
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build the profiles of all customers who are known before a date."""
    check_engine(engine, spark_master, out)
    check_suffix(out, SUFFIXES if engine != "spark" else (*SUFFIXES, ""))
    from features.data.lake import Lake
    from features.data.locking import workspace_lock
    from features.definitions.building import make_builder
    from features.profiles.building import ensure_snapshot, snapshot_at
    from features.profiles.snapshot import published_as_of
    from features.profiles.tags.previous_stage import stage_moves
    from qianmian.config import load_settings

    output = Output(as_json)
    located = Workspace.locate(workspace).require()
    settings = load_settings(located.config_file)
    lake = Lake(located)
    moment = as_of_or_default(lake, as_of)
    note_empty_days(output, lake, moment)
    note_missing_timezone(output, lake, settings)
    begun = time.perf_counter()
    if engine == "spark" and out is not None:
        _on_spark(output, lake, settings, moment, spark_master, out)
        return
    with output.working(), workspace_lock(located):
        output.step(f"building profiles as of {moment:%Y-%m-%d %H:%M}")
        published = published_as_of(located)
        # profiles of an earlier date are only written to the file, so that the served ones do not move back
        publishes = out is None or published is None or moment >= published
        snapshot = (
            ensure_snapshot(located, moment, settings)
            if publishes
            else snapshot_at(make_builder(lake, settings), moment, settings)
        )
        if out is not None:
            output.step(f"writing {out}")
            write_table(located, snapshot.table, out)
    seconds = time.perf_counter() - begun
    names, moves = list(snapshot.spec.names), stage_moves(snapshot)
    output.result(
        {
            "workspace": located.root,
            "as_of": moment,
            "customers": snapshot.table.num_rows,
            "features": names,
            "tags": sorted(snapshot.tags),
            "timezone": snapshot.spec.timezone,
            "off": list(snapshot.unsupported),
            "spec_hash": snapshot.spec.hash,
            "data_digest": snapshot.data_digest,
            "stage_moves": _moves_as_dict(moves),
            "out": out,
            "published": publishes,
            "seconds": round(seconds, 3),
        }
    )
    output.say(
        f"{snapshot.table.num_rows:,} customers, {len(names)} features and {len(snapshot.tags)} tags "
        f"as of {moment}, {seconds:.1f} s"
    )
    if moves is not None:
        listed = ", ".join(f"{a} → {b} {n:,}" for (a, b), n in list(moves.moves.items())[:MAX_MOVES_SHOWN])
        output.say(
            f"lifecycle stages since {moves.previous_as_of:%Y-%m-%d}: {moves.stayed:,} customers stayed, "
            f"{sum(moves.moves.values()):,} moved{': ' if listed else ''}{listed}"
        )
    _report_unsupported(output, snapshot.unsupported)
    if out is not None:
        output.say(f"written: {out}")
    if not publishes:
        output.say(f"not published, because the published profiles are of a later date, {published}")


def _on_spark(output: Output, lake: Lake, settings: Settings, moment: datetime, master: str | None, out: Path) -> None:
    """Compute and write the profiles with Spark; the rows stay in Spark, and nothing is published."""
    from features.compute.engines.spark import SparkEngine
    from features.compute.engines.spark_session import LOCAL_MASTER
    from features.data.locking import workspace_lock
    from features.definitions.building import make_builder
    from features.erasure.exports import record_export

    begun = time.perf_counter()
    with output.working(), workspace_lock(lake.workspace):
        output.step(f"starting Spark ({master or LOCAL_MASTER})")
        with SparkEngine(lake, master or LOCAL_MASTER, timezone=settings.calendar_timezone) as spark:
            kept, unsupported = make_builder(lake, settings, spark).supported(as_of=moment)
            output.step(f"building profiles as of {moment:%Y-%m-%d %H:%M} into {out}")
            customers = spark.write(kept, moment, out)
            record_export(lake.workspace, out, utc_now())
    seconds = time.perf_counter() - begun
    names = [feature.name for feature in kept]
    output.result(
        {
            "workspace": lake.workspace.root,
            "as_of": moment,
            "customers": customers,
            "features": names,
            "off": list(unsupported),
            "data_digest": lake.digest,
            "engine": "spark",
            "spark_master": master or LOCAL_MASTER,
            "out": out,
            "seconds": round(seconds, 3),
        }
    )
    output.say(f"{customers:,} customers and {len(names)} features as of {moment}, by Spark in {seconds:.1f} s")
    _report_unsupported(output, unsupported)
    output.say(f"written: {out}; not published (run `qianmian features` without --engine spark for that)")


def _moves_as_dict(moves: StageMoves | None) -> dict[str, Any] | None:
    if moves is None:
        return None
    listed = [{"from": a, "to": b, "customers": n} for (a, b), n in moves.moves.items()]
    return {"previous_as_of": moves.previous_as_of, "stayed": moves.stayed, "moves": listed}


def _report_unsupported(output: Output, unsupported: Sequence[str]) -> None:
    if unsupported:
        shown = ", ".join(unsupported[:MAX_OFF_SHOWN])
        more = f", … ({len(unsupported)} in total; --json lists all)" if len(unsupported) > MAX_OFF_SHOWN else ""
        output.say(f"features that the data does not support: {shown}{more}")


def check_engine(engine: str, spark_master: str | None = None, out: Path | None = None) -> None:
    """Check the engine and its options before any data is read.

    Raises
    ------
    UsageError
        The engine is unknown, or the options do not fit it.
    """
    from features.compute.engines import ENGINES

    if engine not in ENGINES:
        raise UsageError(
            "unknown engine",
            where="--engine",
            got=engine,
            allowed=", ".join(ENGINES),
            hint="omit --engine",
        )
    if engine != "spark" and spark_master is not None:
        raise UsageError(
            "only the engine spark has a master",
            where="--spark-master",
            got=spark_master,
            hint="add --engine spark, or omit --spark-master",
        )
    if engine == "spark" and out is None:
        raise UsageError(
            "Spark only writes profiles to a file and needs --out",
            where="--engine spark",
            got="no --out",
            hint="add --out profiles.parquet (one file) or --out profiles (a folder of part files), "
            "or omit --engine to build the profiles that are served",
        )


def check_suffix(out: Path | None, suffixes: tuple[str, ...]) -> None:
    """Check the suffix of an output file before the work starts; with the suffix '' it is a folder to be made.

    Raises
    ------
    UsageError
        `out` is a folder, or its suffix is not in `suffixes`.
    """
    if out is not None and out.is_dir() and "" in suffixes:
        raise UsageError(
            "the output folder exists",
            where="--out",
            got=str(out),
            hint="remove the folder, or name another one or a file",
        )
    if out is not None and out.is_dir():
        raise UsageError(
            "the output path is a folder",
            where="--out",
            got=str(out),
            allowed=", ".join(suffix for suffix in suffixes if suffix),
            hint=f"name a file in it, such as {out / 'table'}{suffixes[0]}",
        )
    if out is not None and out.suffix not in suffixes:
        raise UsageError(
            "the file name has no known suffix",
            where="--out",
            got=str(out),
            allowed=", ".join(suffix for suffix in suffixes if suffix),
            hint=f"name it {out.with_suffix(suffixes[0])}",
        )


def write_table(workspace: Workspace, table: pa.Table, out: Path) -> None:
    """Write a table atomically, in the format of the suffix of `out`, and note it in the index of written files."""
    import pyarrow.csv
    import pyarrow.parquet

    from features.erasure.exports import record_export

    with atomic_path(out) as temporary:
        if out.suffix == ".csv":
            pyarrow.csv.write_csv(table, temporary)
        else:
            pyarrow.parquet.write_table(table, temporary, compression="zstd")
    record_export(workspace, out, utc_now())
