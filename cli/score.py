"""`qianmian score`: files with a row per customer or score; missing models and profiles are built first."""

from __future__ import annotations

import time
from pathlib import Path

import typer

from cli.console import Output
from cli.features import SUFFIXES, check_suffix
from cli.list_options import BomOption, ColumnsOption, ListLangOption, PeopleListOptions, TopOption
from cli.options import AsOfOption, JsonOption, WorkspaceOption
from cli.score_churn import churn
from cli.score_classify import classify
from cli.score_lookalike import lookalike
from cli.score_predictions import clusters, predictions, propensity, value
from cli.score_recommend import recommend
from cli.score_uplift import uplift
from cli.scoring import OutOption, ensure_profiles, report
from cli.times import parse_as_of
from qianmian.workspace import Workspace

score = typer.Typer(
    help="Score all customers into a file: recommend, churn, predictions (or value, propensity or clusters alone), "
    "tags, lookalike or uplift. An interrupted run continues after its last block; all but tags, lookalike and uplift "
    "take --workers, and recommend, churn and predictions --engine spark. With --lang, --columns or --top, all but "
    "recommend write a list for people.",
    no_args_is_help=True,
)
score.command("recommend")(recommend)
score.command("classify")(classify)


score.command("churn")(churn)
score.command("predictions")(predictions)
score.command("value")(value)
score.command("propensity")(propensity)
score.command("clusters")(clusters)


@score.command()
def tags(
    out: OutOption,
    as_of: AsOfOption = None,
    lang: ListLangOption = None,
    columns: ColumnsOption = None,
    top: TopOption = None,
    bom: BomOption = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write all tags of every customer, one row per customer; no model is needed."""
    moment, people = parse_as_of(as_of), PeopleListOptions(lang, columns, top, bom)
    check_suffix(out, SUFFIXES)
    people.check(out)

    from features.data.lake import Lake
    from features.data.locking import workspace_lock
    from features.definitions.building import make_builder
    from features.profiles.building import snapshot_at
    from features.profiles.snapshot import Snapshot, current_snapshot_name
    from qianmian.config import load_settings
    from serving.scoring.tables import IDENTITY_COLUMNS
    from serving.scoring.tags import score_tags

    output, located = Output(as_json), Workspace.locate(workspace).require()
    settings = load_settings(located.config_file)
    begun = time.perf_counter()
    with output.working(), workspace_lock(located):
        profiles: Snapshot | Path
        if moment is None:
            ensure_profiles(output, located, settings, with_tags=True)
            profiles = located.online / str(current_snapshot_name(located))
        else:
            output.step(f"building profiles as of {moment:%Y-%m-%d %H:%M}")
            profiles = snapshot_at(make_builder(Lake(located), settings), moment, settings)
        output.step(f"writing {out}")
        scores = score_tags(profiles)
        written = people.write(output, located, scores, out, settings)
    n_tags = len(scores.schema) - len(IDENTITY_COLUMNS) - len(scores.depends_on["tags"])  # without the moments
    report(output, located, out, written, begun, f"{n_tags} tags as of {written.as_of}")


score.command("lookalike")(lookalike)
score.command("uplift")(uplift)
