"""`qianmian score recommend`: lists of all customers, with the options of single requests."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.console import Output
from cli.options import AsOfOption, EngineOption, JsonOption, SparkMasterOption, WorkspaceOption
from cli.scoring import (
    Execution,
    OutOption,
    WorkersOption,
    ensure_champion,
    ensure_profiles,
    read_candidates,
    report,
    write_scores,
)
from cli.times import as_of_or_default, parse_as_of
from qianmian.errors import DataError, UsageError
from qianmian.workspace import Workspace

JOB = "recommend"
JSON_HELP = "JSON as in /v1/recommendations, or @FILE that contains it"


def recommend(
    out: OutOption,
    as_of: AsOfOption = None,
    num_results: Annotated[
        int | None,
        typer.Option(
            "--num-results",
            metavar="K",
            help="Items per customer, 1 to 500. Default: 10.",
            show_default=False,
        ),
    ] = None,
    scene: Annotated[
        str | None,
        typer.Option(
            "--scene",
            metavar="home|replenish|discover|…",
            help="Scene of the lists. Default: home.",
            show_default=False,
        ),
    ] = None,
    exclude_purchased: Annotated[bool, typer.Option("--exclude-purchased", help="Same as --purchased never.")] = False,
    candidates: Annotated[
        Path | None,
        typer.Option(
            "--candidates",
            metavar="FILE",
            help="Only these items: one id per line, or .csv/.parquet with a column item_id. With a column user_id: "
            "only these items for each customer, and no list for customers who are not in the file.",
        ),
    ] = None,
    filters: Annotated[
        str | None,
        typer.Option("--filters", metavar="JSON|@FILE", help=f'{{"category": "GROCERY"}} or nested; {JSON_HELP}.'),
    ] = None,
    purchased: Annotated[
        str | None,
        typer.Option(
            "--purchased",
            metavar="any|only|never",
            help="Any items, only items purchased before, or never those.",
        ),
    ] = None,
    max_per: Annotated[
        list[str] | None,
        typer.Option(
            "--max-per",
            metavar="ATTRIBUTE=N",
            help="At most N items with the same brand, category, category/2 …; may be repeated.",
        ),
    ] = None,
    mmr: Annotated[
        float | None,
        typer.Option("--mmr", metavar="0..1", help="Weight of relevance against diversity (MMR); 1 is relevance only."),
    ] = None,
    promotions: Annotated[
        str | None,
        typer.Option("--promotions", metavar="JSON|@FILE", help=f"Items that get a share of the slots; {JSON_HELP}."),
    ] = None,
    exploration: Annotated[
        str | None,
        typer.Option(
            "--exploration",
            metavar="JSON|@FILE",
            help=f'{{"share": 0.1, "pool": 50, "seed": 1}}; {JSON_HELP}.',
        ),
    ] = None,
    workers: WorkersOption = 1,
    engine: EngineOption = "duckdb",
    spark_master: SparkMasterOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a list of items for every customer; train the recommender first if it is missing."""
    moment = parse_as_of(as_of)
    execution = Execution(engine, spark_master, workers)
    execution.check(out)
    named = read_candidates(candidates, "--candidates") if candidates else None
    if exclude_purchased and purchased not in (None, "never"):
        raise UsageError(
            "--exclude-purchased means --purchased never", got=f"--purchased {purchased}", hint="omit one of the two"
        )
    diversity = (
        {"max_per": read_limits(max_per or []), **({} if mmr is None else {"mmr": mmr})}
        if max_per or mmr is not None
        else None
    )
    raw_options = {
        "filters": read_json("--filters", filters),
        "purchased": "never" if exclude_purchased else purchased,
        "diversity": diversity,
        "promotions": read_json("--promotions", promotions),
        "exploration": read_json("--exploration", exploration),
    }

    from features.data.lake import Lake
    from features.data.locking import workspace_lock
    from features.definitions.building import make_builder
    from models.recommend.scene import DEFAULT_SCENE, SCENES
    from qianmian.config import load_settings
    from serving.champions import load_from_workspace
    from serving.recommending.batch import score_recommend, unavailable_items
    from serving.recommending.popular_lists import popularity_champions
    from serving.recommending.request_options import parse_list_options

    list_options = parse_list_options({name: value for name, value in raw_options.items() if value is not None})
    output = Output(as_json)
    located = Workspace.locate(workspace).require()
    settings = load_settings(located.config_file)
    begun = time.perf_counter()
    with output.working(), workspace_lock(located):
        popular_only, trained = False, False
        warnings: tuple[str, ...] = ()
        try:
            trained = ensure_champion(output, located, settings, JOB, moment)
        except DataError as error:
            popular_only = scene in (None, DEFAULT_SCENE) and not execution.on_spark
            if not popular_only:
                raise
            output.step(f"no recommender can be trained, so every list contains the most popular items: {error}")
        ensure_profiles(output, located, settings)
        lake = Lake(located)
        at = moment or as_of_or_default(lake, None)
        # SCENES names what it has if the scene is unknown
        jobs = {JOB, SCENES[scene or DEFAULT_SCENE].job}
        champions = (
            popularity_champions(located, settings, at)
            if popular_only
            else load_from_workspace(located, settings, sorted(jobs))
        )
        output.step("scoring recommend")
        options: dict[str, Any] = {
            "num_results": num_results,
            "scene": scene,
            "candidates": named,
            "options": list_options,
        }
        model_as_of = champions.require(JOB).bundle.as_of
        scores = score_recommend(
            champions,
            as_of=moment,
            # reads the interactions after the fit of the champion
            builder=make_builder(lake, settings) if moment not in (None, model_as_of) else None,
            unavailable=unavailable_items(lake),
            **{key: value for key, value in options.items() if value is not None},
        )
        if execution.on_spark:
            from serving.scoring.spark import recommend_on_spark

            prepared = recommend_on_spark(scores)
            warnings = prepared.warnings
            written = execution.write_on_spark(output, located, prepared, out)
        else:
            written = write_scores(output, located, scores, out, workers)
    version = champions.require(JOB).version
    facts: dict[str, Any] = {"model": JOB, "model_version": version, "trained_first": trained, "engine": engine}
    if scores.counts:
        facts["candidates"] = scores.counts
        output.say(
            "candidates: {pairs:,} pairs = {used:,} used + {repeated:,} repeated + {of_unknown_users:,} of "
            "unknown users + {of_unknown_items:,} of unknown items".format(**scores.counts)
        )
    if warnings:
        facts["warnings"] = warnings
        for warning in warnings:
            output.say(f"warning: {warning}")
    report(output, located, out, written, begun, f"{JOB} version {version}", **facts)


def read_json(option: str, text: str | None) -> Any:
    """Parse the JSON of an option, or of the file it names as @FILE; None if the option is not set.

    Raises
    ------
    UsageError
        The text is not JSON, or the file cannot be read.
    """
    if text is None:
        return None
    try:
        return json.loads(Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text)
    except OSError as error:
        raise UsageError(
            "the file cannot be read", where=option, got=text[1:], hint="@FILE must name a file that contains JSON"
        ) from error
    except ValueError as error:
        raise UsageError(
            "invalid JSON", where=option, got=text[:100], hint=f"{error}; put JSON in single quotes in a shell"
        ) from error


def read_limits(texts: Sequence[str]) -> dict[str, int]:
    """Parse limits such as ``category/2=3``.

    Raises
    ------
    UsageError
        A limit is not ATTRIBUTE=N.

    Examples
    --------
    >>> read_limits(["category/2=3", "brand=1"])
    {'category/2': 3, 'brand': 1}
    """
    limits = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        if not name or not number.isdecimal():
            raise UsageError(
                "the limit is not ATTRIBUTE=N",
                where="--max-per",
                got=text,
                hint="write --max-per brand=2 or --max-per category/2=3",
            )
        limits[name] = int(number)
    return limits
