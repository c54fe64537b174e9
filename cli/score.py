"""`qianmian score`: answers for every customer in one file; what is missing for that is built first, and said to be."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import datetime
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

JOB_FOR_SCORE = {
    "recommend": "recommend",
    "churn": "churn",
    "predictions": "lifecycle",
}  # what is scored → whose champion scores it
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
JSON_HELP = "JSON, or @FILE with it, as /v1/recommendations takes it"


def score(
    what: Annotated[str, typer.Argument(metavar="recommend|churn|predictions", help="What to score.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write: .parquet or .csv.")],
    as_of: AsOfOption = None,
    num_results: Annotated[
        int | None,
        typer.Option(
            "--num-results",
            metavar="K",
            help="recommend: items a customer, 1 to 500. Default: 10.",
            show_default=False,
        ),
    ] = None,
    scene: Annotated[
        str | None,
        typer.Option(
            "--scene",
            metavar="home|replenish|discover|…",
            help="recommend: what the lists are for. Default: home.",
            show_default=False,
        ),
    ] = None,
    exclude_purchased: Annotated[
        bool, typer.Option("--exclude-purchased", help="recommend: short for --purchased never.")
    ] = False,
    candidates: Annotated[
        Path | None,
        typer.Option(
            "--candidates",
            metavar="FILE",
            help="recommend: only these items; an id a line, or .csv/.parquet with item_id.",
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
            "--purchased", metavar="any|only|never", help="recommend: items by whether the customer had them before."
        ),
    ] = None,
    max_per: Annotated[
        list[str] | None,
        typer.Option(
            "--max-per",
            metavar="ATTRIBUTE=N",
            help="recommend: at most N items of one brand, category, category/2 …; may be repeated.",
        ),
    ] = None,
    mmr: Annotated[
        float | None,
        typer.Option(
            "--mmr", metavar="0..1", help="recommend: 1 only how good an item is, 0 only how unlike the others."
        ),
    ] = None,
    promotions: Annotated[
        str | None,
        typer.Option(
            "--promotions", metavar="JSON|@FILE", help=f"recommend: items that get a share of the places; {JSON_HELP}."
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
    """Score every customer with the champion; without one, it is trained first."""
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
            "--exclude-purchased is --purchased never", got=f"--purchased {purchased}", hint="leave one of them out"
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

    from qianmian.config import load_settings
    from serving.champions import load_from_workspace
    from serving.recommending.batch import write
    from serving.recommending.request_options import parse_list_options

    list_options = parse_list_options({name: value for name, value in raw_options.items() if value is not None})
    output = Output(as_json)
    located = Workspace.locate(workspace).require()
    settings = load_settings(located.config_file)
    begun = time.perf_counter()
    with output.working():
        trained = ensure_champion(output, located, settings, JOB_FOR_SCORE[what], moment)
        ensure_profiles(output, located, settings)
        output.step(f"scoring {what}")
        champions = load_from_workspace(located, settings)
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
        f"{out}: {table.num_rows:,} rows of {customers:,} customers, {JOB_FOR_SCORE[what]} version {version}, {seconds:.1f} s"
    )


def _check_options(what: str, given: list[bool]) -> None:
    if what not in JOB_FOR_SCORE:
        raise UsageError(
            "there is nothing of that name to score",
            got=what,
            allowed=", ".join(JOB_FOR_SCORE),
            hint="qianmian score --help",
        )
    wrong = [name for name, is_given in zip(LIST_OPTIONS, given, strict=True) if is_given]
    if what != "recommend" and wrong:
        raise UsageError(
            f"`score {what}` does not take {', '.join(wrong)}",
            where="qianmian score",
            hint="leave it out, or score recommend",
        )


def read_json(option: str, text: str | None) -> Any:
    """The JSON an option gives, or the file behind its @; None for none.

    Raises
    ------
    UsageError
        It is no JSON, or there is no such file.
    """
    if text is None:
        return None
    try:
        return json.loads(Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text)
    except OSError as error:
        raise UsageError(
            "the file cannot be read", where=option, got=text[1:], hint="@FILE names a file with JSON in it"
        ) from error
    except ValueError as error:
        raise UsageError(
            "not JSON", where=option, got=text[:100], hint=f"{error}; in a shell, put it into single quotes"
        ) from error


def read_limits(texts: Sequence[str]) -> dict[str, int]:
    """``category/2=3`` and such.

    Raises
    ------
    UsageError
        One is not ATTRIBUTE=N.

    Examples
    --------
    >>> read_limits(["category/2=3", "brand=1"])
    {'category/2': 3, 'brand': 1}
    """
    found = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        if not name or not number.isdecimal():
            raise UsageError(
                "a limit is ATTRIBUTE=N",
                where="--max-per",
                got=text,
                hint="such as --max-per brand=2 or --max-per category/2=3",
            )
        found[name] = int(number)
    return found


def read_candidates(path: Path) -> list[str]:
    """The item ids of a file: one a line, or the column `item_id` of a CSV or Parquet file.

    Raises
    ------
    UsageError
        The file is not there, has no `item_id`, or is empty.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    if not path.is_file():
        raise UsageError(
            "there is no such file", where="--candidates", got=str(path), hint="name a file with an item id a line"
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
                    hint="name it item_id",
                )
            found = [str(value) for value in table["item_id"].to_pylist() if value is not None]
        else:
            found = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise UsageError(
            "the candidates cannot be read",
            where=str(path),
            got=str(error).splitlines()[0],
            hint="a text file with an id a line",
        ) from error
    if not found:
        raise UsageError("the file of candidates is empty", where=str(path), hint="an item id a line")
    return found


def ensure_champion(output: Output, located: Workspace, settings: Settings, job: str, moment: datetime | None) -> bool:
    """Train the champion of a job where there is none; True when it was.

    Raises
    ------
    GateRefused
        The gate refused what was trained.
    """
    from features.data.lake import Lake
    from serving.model_registry import version_of

    if version_of(located, job) is not None:
        return False
    from training import train

    output.step(f"there is no {job} champion yet: training it first")
    moment = moment or as_of_or_default(Lake(located), None)
    for result in train(located, [job], clock=utc_now, as_of=moment, settings=settings, progress=output.step):
        show_result(output, result)
        if result.status == "refused":
            raise GateRefused(
                f"the gate refused {job}, so there is nothing to score with",
                got=result.reason,
                hint="see its run in MLflow",
            )
    return True


def ensure_profiles(output: Output, located: Workspace, settings: Settings) -> None:
    """Build the profiles where there are none, or where the lake holds other data than they were made of."""
    from features.data.lake import Lake
    from features.profiles.snapshot import current_snapshot_name, ensure_snapshot, load_current

    lake = Lake(located)
    if current_snapshot_name(located) is None or load_current(located).data_digest != lake.digest:
        moment = as_of_or_default(lake, None)
        output.step(f"the profiles are missing or of other data: building them as of {moment:%Y-%m-%d}")
        ensure_snapshot(located, moment, settings)


def score_table(
    champions: Champions, located: Workspace, what: str, moment: datetime | None, options: dict[str, Any]
) -> pa.Table:
    """The scores of everybody as a table."""
    from features.compute.builder import Builder
    from features.data.lake import Lake
    from features.definitions.pack_features import declared_features
    from serving.recommending.batch import score_churn, score_predictions, score_recommend, unavailable_items

    if what == "recommend":
        # what was bought since the champion was fitted is read from the lake
        other = moment is not None and moment != champions.require("recommend").bundle.as_of
        lake = Lake(located)
        return score_recommend(
            champions,
            as_of=moment,
            builder=Builder(lake, declared_features(champions.settings)) if other else None,
            unavailable=unavailable_items(lake),
            **options,
        )
    # profiles of another moment than the current ones are built for this file only; what is served stays
    other = moment is not None and moment != champions.customers.as_of
    builder = Builder(Lake(located), declared_features(champions.settings)) if other else None
    scored = (score_churn if what == "churn" else score_predictions)(champions, as_of=moment, builder=builder)
    if not scored.num_rows:
        raise DataError("no customer is known at that time", got=str(moment), hint="a later --as-of")
    return scored
