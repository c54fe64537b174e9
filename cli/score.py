"""`qianmian score`: batch scoring of all customers; missing models and profiles are built first."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import Output
from cli.features import check_suffix
from cli.options import AsOfOption, JsonOption, WorkspaceOption
from cli.times import as_of_or_default, parse_as_of, utc_now
from cli.train import show_result
from qianmian.errors import DataError, GateRefused, UsageError
from qianmian.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from qianmian.settings import Settings
    from serving.champions import Champions

# what is scored → the job whose champion scores it
JOB_FOR_SCORE = {"recommend": "recommend", "churn": "churn", "predictions": "lifecycle"}
SUFFIXES = (".parquet", ".csv")
LIST_OPTIONS = (
    "--num-results",
    "--scene",
    "--exclude-purchased",
    "--candidates",
    "--filters",
    "--purchased",
    "--max-per",
    "--mmr",
    "--promotions",
    "--exploration",
)
JSON_HELP = "JSON as in /v1/recommendations, or @FILE that contains it"


def score(
    what: Annotated[str, typer.Argument(metavar="recommend|churn|predictions", help="What to score.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Output file: .parquet or .csv.")],
    as_of: AsOfOption = None,
    num_results: Annotated[
        int | None,
        typer.Option(
            "--num-results",
            metavar="K",
            help="recommend: items per customer, 1 to 500. Default: 10.",
            show_default=False,
        ),
    ] = None,
    scene: Annotated[
        str | None,
        typer.Option(
            "--scene",
            metavar="home|replenish|discover|…",
            help="recommend: scene of the lists. Default: home.",
            show_default=False,
        ),
    ] = None,
    exclude_purchased: Annotated[
        bool, typer.Option("--exclude-purchased", help="recommend: same as --purchased never.")
    ] = False,
    candidates: Annotated[
        Path | None,
        typer.Option(
            "--candidates",
            metavar="FILE",
            help="recommend: only these items; one id per line, or .csv/.parquet with a column item_id.",
        ),
    ] = None,
    filters: Annotated[
        str | None,
        typer.Option(
            "--filters", metavar="JSON|@FILE", help=f'recommend: {{"category": "GROCERY"}} or nested; {JSON_HELP}.'
        ),
    ] = None,
    purchased: Annotated[
        str | None,
        typer.Option(
            "--purchased",
            metavar="any|only|never",
            help="recommend: any items, only items purchased before, or never those.",
        ),
    ] = None,
    max_per: Annotated[
        list[str] | None,
        typer.Option(
            "--max-per",
            metavar="ATTRIBUTE=N",
            help="recommend: at most N items with the same brand, category, category/2 …; may be repeated.",
        ),
    ] = None,
    mmr: Annotated[
        float | None,
        typer.Option(
            "--mmr", metavar="0..1", help="recommend: weight of relevance against diversity (MMR); 1 is relevance only."
        ),
    ] = None,
    promotions: Annotated[
        str | None,
        typer.Option(
            "--promotions", metavar="JSON|@FILE", help=f"recommend: items that get a share of the slots; {JSON_HELP}."
        ),
    ] = None,
    exploration: Annotated[
        str | None,
        typer.Option(
            "--exploration",
            metavar="JSON|@FILE",
            help=f'recommend: {{"share": 0.1, "pool": 50, "seed": 1}}; {JSON_HELP}.',
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score all customers with the champion; train it first if it is missing."""
    moment = parse_as_of(as_of)
    option_values = (
        num_results,
        scene,
        exclude_purchased or None,
        candidates,
        filters,
        purchased,
        max_per or None,
        mmr,
        promotions,
        exploration,
    )
    _check_options(what, [value is not None for value in option_values])
    check_suffix(out, SUFFIXES)
    candidate_ids = read_candidates(candidates) if candidates is not None else None
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
    from models.recommend.scene import DEFAULT_SCENE
    from qianmian.config import load_settings
    from serving.champions import load_from_workspace
    from serving.recommending.popular_lists import popularity_champions
    from serving.recommending.request_options import parse_list_options
    from serving.scoring.tables import write

    list_options = parse_list_options({name: value for name, value in raw_options.items() if value is not None})
    output = Output(as_json)
    located = Workspace.locate(workspace).require()
    settings = load_settings(located.config_file)
    begun = time.perf_counter()
    with output.working():
        popular_only, trained = False, False
        try:
            trained = ensure_champion(output, located, settings, JOB_FOR_SCORE[what], moment)
        except DataError as error:
            popular_only = what == "recommend" and scene in (None, DEFAULT_SCENE)
            if not popular_only:
                raise
            output.step(f"no recommender can be trained, so every list contains the most popular items: {error}")
        ensure_profiles(output, located, settings)
        at = moment or as_of_or_default(Lake(located), None)
        load = load_from_workspace if not popular_only else partial(popularity_champions, as_of=at)
        champions = load(located, settings)
        output.step(f"scoring {what}")
        options = {"num_results": num_results, "scene": scene, "candidates": candidate_ids, "options": list_options}
        table = score_table(
            champions, located, what, moment, {key: value for key, value in options.items() if value is not None}
        )
        output.step(f"writing {out}")
        write(table, out)
    version = champions.require(JOB_FOR_SCORE[what]).version
    seconds = time.perf_counter() - begun
    customers = len(set(table["one_id"].to_pylist()))
    output.result(
        {
            "workspace": located.root,
            "out": out,
            "rows": table.num_rows,
            "customers": customers,
            "columns": table.column_names,
            "as_of": table["as_of"][0].as_py() if table.num_rows else None,
            "model": JOB_FOR_SCORE[what],
            "model_version": version,
            "trained_first": trained,
            "seconds": round(seconds, 3),
        }
    )
    output.say(
        f"{out}: {table.num_rows:,} rows of {customers:,} customers, "
        f"{JOB_FOR_SCORE[what]} version {version}, {seconds:.1f} s"
    )


def _check_options(what: str, given: list[bool]) -> None:
    if what not in JOB_FOR_SCORE:
        raise UsageError(
            "unknown kind of score",
            got=what,
            allowed=", ".join(JOB_FOR_SCORE),
            hint="see `qianmian score --help`",
        )
    wrong = [name for name, is_given in zip(LIST_OPTIONS, given, strict=True) if is_given]
    if what != "recommend" and wrong:
        raise UsageError(
            f"`score {what}` does not accept {', '.join(wrong)}",
            where="qianmian score",
            hint="omit it, or use `qianmian score recommend`",
        )


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


def read_candidates(path: Path) -> list[str]:
    """Read item ids from a file: one per line, or the column `item_id` of a CSV or Parquet file.

    Raises
    ------
    UsageError
        The file is missing, cannot be read, has no column `item_id`, or is empty.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    if not path.is_file():
        raise UsageError(
            "the file is missing", where="--candidates", got=str(path), hint="name a file with one item id per line"
        )
    try:
        if path.suffix in SUFFIXES:
            as_text = pyarrow.csv.ConvertOptions(column_types={"item_id": pa.string()})
            table = (
                pyarrow.parquet.read_table(path)
                if path.suffix == ".parquet"
                else pyarrow.csv.read_csv(path, convert_options=as_text)
            )
            if "item_id" not in table.column_names:
                raise UsageError(
                    "the candidates have no column item_id",
                    where=str(path),
                    got=", ".join(table.column_names),
                    hint="rename the column with the item ids to item_id",
                )
            found = [str(value) for value in table["item_id"].to_pylist() if value is not None]
        else:
            found = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise UsageError(
            "the candidates cannot be read",
            where=str(path),
            got=str(error).splitlines()[0],
            hint="use a text file with one item id per line",
        ) from error
    if not found:
        raise UsageError("the file of candidates is empty", where=str(path), hint="write one item id per line")
    return found


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


def ensure_profiles(output: Output, located: Workspace, settings: Settings) -> None:
    """Build the profiles if they are missing or the lake has changed since they were built."""
    from features.data.lake import Lake
    from features.profiles.snapshot import current_snapshot_name, ensure_snapshot, load_current

    lake = Lake(located)
    if current_snapshot_name(located) is None or load_current(located).data_digest != lake.digest:
        moment = as_of_or_default(lake, None)
        output.step(f"the profiles are missing or outdated: building them as of {moment:%Y-%m-%d}")
        ensure_snapshot(located, moment, settings)


def score_table(
    champions: Champions, located: Workspace, what: str, moment: datetime | None, options: dict[str, Any]
) -> pa.Table:
    """Score all customers; one row per score."""
    from features.compute.builder import Builder
    from features.data.lake import Lake
    from features.definitions.pack_features import declared_features
    from serving.recommending.batch import score_recommend, unavailable_items
    from serving.scoring.churn import score_churn
    from serving.scoring.lifecycle import score_predictions

    if what == "recommend":
        # recent interactions, after the fit of the champion, are read from the lake
        other = moment is not None and moment != champions.require("recommend").bundle.as_of
        lake = Lake(located)
        return score_recommend(
            champions,
            as_of=moment,
            builder=Builder(lake, declared_features(champions.settings)) if other else None,
            unavailable=unavailable_items(lake),
            **options,
        )
    # profiles of another date are built for this file only and not published
    other = moment is not None and moment != champions.customers.as_of
    builder = Builder(Lake(located), declared_features(champions.settings)) if other else None
    scored = (score_churn if what == "churn" else score_predictions)(champions, as_of=moment, builder=builder)
    if not scored.num_rows:
        raise DataError("no customer is known before the cutoff", got=str(moment), hint="use a later --as-of")
    return scored
