"""`qianmian features`: build every customer's profile, make it the one that is served, and write it to a file if asked."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import Output
from cli.options import AsOfOption, JsonOption, WorkspaceOption
from cli.times import as_of_or_default, note_empty_days
from qianmian.errors import UsageError
from qianmian.workspace import Workspace, atomic_path

if TYPE_CHECKING:
    from datetime import datetime

    import pyarrow as pa

    from features.data.lake import Lake
    from qianmian.settings import Settings

MAX_OFF_SHOWN = 8
SUFFIXES = (".parquet", ".csv")


def features(
    as_of: AsOfOption = None,
    engine: Annotated[
        str, typer.Option("--engine", metavar="duckdb|spark", help="What computes the features.")
    ] = "duckdb",
    spark_master: Annotated[
        str | None,
        typer.Option(
            "--spark-master", metavar="URL", help="Spark's master, such as spark://host:7077; default local[*]."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Write the profiles here too: .parquet (or .csv), a row a customer. Spark writes only this.",
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build the profile of every customer known before a date."""
    check_engine(engine, spark_master, out)
    check_suffix(out, SUFFIXES if engine != "spark" else (*SUFFIXES, ""))
    from features.compute.builder import Builder
    from features.data.lake import Lake
    from features.definitions.pack_features import declared_features
    from features.profiles.snapshot import ensure_snapshot, published_as_of, snapshot_at
    from qianmian.config import load_settings

    output = Output(as_json)
    located = Workspace.locate(workspace).require()
    settings = load_settings(located.config_file)
    lake = Lake(located)
    moment = as_of_or_default(lake, as_of)
    note_empty_days(output, lake, moment)
    begun = time.perf_counter()
    if engine == "spark" and out is not None:
        _on_spark(output, lake, settings, moment, spark_master, out)
        return
    with output.working():
        output.step(f"building profiles as of {moment:%Y-%m-%d %H:%M}")
        published = published_as_of(located)
        # profiles of the past are written to a file; what is served does not go back for that
        publishes = out is None or published is None or moment >= published
        snapshot = (
            ensure_snapshot(located, moment, settings, with_state=True)
            if publishes
            else snapshot_at(Builder(lake, declared_features(settings)), moment, settings)
        )
        if out is not None:
            output.step(f"writing {out}")
            write_table(snapshot.table, out)
    seconds = time.perf_counter() - begun
    names = list(snapshot.spec.names)
    output.result(
        {
            "workspace": located.root,
            "as_of": moment,
            "customers": snapshot.table.num_rows,
            "features": names,
            "tags": sorted(snapshot.tags),
            "off": list(snapshot.unsupported),
            "spec_hash": snapshot.spec.hash,
            "data_digest": snapshot.data_digest,
            "out": out,
            "published": publishes,
            "seconds": round(seconds, 3),
        }
    )
    output.say(
        f"{snapshot.table.num_rows:,} customers, {len(names)} features and {len(snapshot.tags)} tags as of {moment}, {seconds:.1f} s"
    )
    _report_unsupported(output, snapshot.unsupported)
    if out is not None:
        output.say(f"written: {out}")
    if not publishes:
        output.say(f"the published profiles stay those of {published}, which is later")


def _on_spark(output: Output, lake: Lake, settings: Settings, moment: datetime, master: str | None, out: Path) -> None:
    """Let Spark compute the profiles and write them; nothing but counts comes here, and what is served stays as it is."""
    from features.compute.builder import Builder
    from features.compute.engines.spark import LOCAL_MASTER, SparkEngine
    from features.definitions.pack_features import declared_features

    begun = time.perf_counter()
    with output.working():
        output.step(f"starting Spark ({master or LOCAL_MASTER})")
        with SparkEngine(lake, master or LOCAL_MASTER) as spark:
            kept, unsupported = Builder(lake, declared_features(settings), spark).supported(as_of=moment)
            output.step(f"building profiles as of {moment:%Y-%m-%d %H:%M} into {out}")
            customers = spark.write(kept, moment, out)
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
    output.say(
        f"written: {out}; the profiles that are served are those of the last `qianmian features` without --engine spark"
    )


def _report_unsupported(output: Output, unsupported: Sequence[str]) -> None:
    if unsupported:
        shown = ", ".join(unsupported[:MAX_OFF_SHOWN]) + (
            f", … ({len(unsupported)} in all; --json lists them)" if len(unsupported) > MAX_OFF_SHOWN else ""
        )
        output.say(f"off, because the data holds nothing to make them of: {shown}")


def check_engine(engine: str, spark_master: str | None = None, out: Path | None = None) -> None:
    """Refuse an engine that is not there, or asked for what it does not do, before anything is read."""
    from features.compute.engines import ENGINES

    if engine not in ENGINES:
        raise UsageError(
            "there is no such engine",
            where="--engine",
            got=engine,
            allowed=", ".join(ENGINES),
            hint="leave --engine out",
        )
    if engine != "spark" and spark_master is not None:
        raise UsageError(
            "only Spark has a master",
            where="--spark-master",
            got=spark_master,
            hint="add --engine spark, or leave --spark-master out",
        )
    if engine == "spark" and out is None:
        raise UsageError(
            "Spark writes the profiles and keeps none here",
            where="--engine spark",
            got="no --out",
            hint="add --out profiles.parquet (one file) or --out profiles (a folder of part files); the profiles that are served are built without --engine",
        )


def check_suffix(out: Path | None, suffixes: tuple[str, ...]) -> None:
    """Refuse a file name that does not say a format, before the work and not after it."""
    if out is not None and out.is_dir():
        raise UsageError(
            "that is a folder",
            where="--out",
            got=str(out),
            allowed=", ".join(suffix for suffix in suffixes if suffix),
            hint=f"name a file in it, such as {out / 'table'}{suffixes[0]}",
        )
    if out is not None and out.suffix not in suffixes:
        raise UsageError(
            "the file's name does not say a format",
            where="--out",
            got=str(out),
            allowed=", ".join(suffix for suffix in suffixes if suffix),
            hint=f"name it {out.with_suffix(suffixes[0])}",
        )


def write_table(table: pa.Table, out: Path) -> None:
    """Write a table whole or not at all, in the format its name says."""
    import pyarrow.csv
    import pyarrow.parquet

    with atomic_path(out) as temporary:
        if out.suffix == ".csv":
            pyarrow.csv.write_csv(table, temporary)
        else:
            pyarrow.parquet.write_table(table, temporary, compression="zstd")
