"""`qianmian features`: build every customer's profile, make it the one that is served, and write it to a file if asked."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import Output
from cli.options import AsOfOption, JsonOption, WorkspaceOption
from cli.times import as_of_or_default, note_empty_days
from qianmian.errors import UsageError
from qianmian.workspace import Workspace, atomic_path

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN_OFF = 8
ENGINES = ("duckdb", "spark")
ENDINGS = (".parquet", ".csv")


def features(
    as_of: AsOfOption = None,
    engine: Annotated[str, typer.Option("--engine", metavar="duckdb|spark", help="What computes the features.")] = "duckdb",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the profiles here too: .parquet (or .csv), a row a customer.")
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build the profile of every customer known before a date."""
    check_engine(engine)
    check_ending(out, ENDINGS)
    from features.lake import Lake
    from features.snapshot import ensure

    output = Output(as_json)
    place = Workspace.locate(workspace).require()
    lake = Lake(place)
    moment = as_of_or_default(lake, as_of)
    note_empty_days(output, lake, moment)
    begun = time.perf_counter()
    with output.working():
        output.step(f"building profiles as of {moment:%Y-%m-%d %H:%M}")
        snapshot = ensure(place, moment, with_state=True)
        if out is not None:
            output.step(f"writing {out}")
            write_table(snapshot.table, out)
    seconds = time.perf_counter() - begun
    names = list(snapshot.spec.names)
    output.result({
        "workspace": place.root, "as_of": moment, "customers": snapshot.table.num_rows, "features": names, "tags": sorted(snapshot.tags),
        "off": list(snapshot.off), "spec_hash": snapshot.spec.hash, "data_digest": snapshot.data_digest, "out": out, "seconds": round(seconds, 3),
    })  # fmt: skip
    output.say(
        f"{snapshot.table.num_rows:,} customers, {len(names)} features and {len(snapshot.tags)} tags as of {moment}, {seconds:.1f} s"
    )
    if snapshot.off:
        shown = ", ".join(snapshot.off[:SHOWN_OFF]) + (
            f", … ({len(snapshot.off)} in all; --json lists them)" if len(snapshot.off) > SHOWN_OFF else ""
        )
        output.say(f"off, because the data holds nothing to make them of: {shown}")
    if out is not None:
        output.say(f"written: {out}")


def check_engine(engine: str) -> None:
    """Refuse an engine that is not there, before anything is read."""
    if engine == "spark":
        raise UsageError(
            "features are not computed on Spark yet", where="--engine", got=engine, allowed="duckdb",
            hint="leave --engine out: DuckDB gives the same features; Spark comes with its own execution in a later version",
        )  # fmt: skip
    if engine not in ENGINES:
        raise UsageError("there is no such engine", where="--engine", got=engine, allowed=", ".join(ENGINES), hint="leave --engine out")


def check_ending(out: Path | None, endings: tuple[str, ...]) -> None:
    """Refuse a file name that does not say a format, before the work and not after it."""
    if out is not None and out.is_dir():
        raise UsageError(
            "that is a folder",
            where="--out",
            got=str(out),
            allowed=", ".join(endings),
            hint=f"name a file in it, such as {out / 'table'}{endings[0]}",
        )
    if out is not None and out.suffix not in endings:
        raise UsageError(
            "the file's name does not say a format", where="--out", got=str(out), allowed=", ".join(endings),
            hint=f"name it {out.with_suffix(endings[0])}",
        )  # fmt: skip


def write_table(table: pa.Table, out: Path) -> None:
    """Write a table whole or not at all, in the format its name says."""
    import pyarrow.csv
    import pyarrow.parquet

    with atomic_path(out) as temporary:
        if out.suffix == ".csv":
            pyarrow.csv.write_csv(table, temporary)
        else:
            pyarrow.parquet.write_table(table, temporary, compression="zstd")
