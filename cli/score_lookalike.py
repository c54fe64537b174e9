"""`qianmian score lookalike`: the customers most similar to a file of seed customers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import Output
from cli.features import SUFFIXES, check_suffix
from cli.list_options import BomOption, ColumnsOption, ListLangOption, PeopleListOptions, TopOption
from cli.options import JsonOption, WorkspaceOption
from cli.scoring import OutOption, ensure_champion, ensure_profiles, read_ids, report
from qianmian.errors import UsageError
from qianmian.workspace import Workspace

if TYPE_CHECKING:
    from models.lookalike import SeedEvaluation

IDS_SHOWN = 5
FILE_HELP = "one id per line, or .csv/.parquet with a column user_id and, if several sources use the ids, user_source"


def lookalike(
    seed: Annotated[Path, typer.Option("--seed", metavar="FILE", help=f"The seed customers: {FILE_HELP}.")],
    out: OutOption,
    size: Annotated[
        int | None,
        typer.Option(
            "--size",
            min=1,
            metavar="N",
            help="Number of customers. Default: as many as the seed has.",
            show_default=False,
        ),
    ] = None,
    ratio: Annotated[
        float | None,
        typer.Option("--ratio", metavar="R", help="Number of customers as a share of all, above 0, at most 1."),
    ] = None,
    exclude: Annotated[
        Path | None,
        typer.Option("--exclude", metavar="FILE", help="Customers to leave out, in a file like that of the seed."),
    ] = None,
    lang: ListLangOption = None,
    columns: ColumnsOption = None,
    top: TopOption = None,
    bom: BomOption = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the customers most similar to a seed, as /v1/lookalike finds them; train the model if it is missing."""
    check_suffix(out, SUFFIXES)
    people = PeopleListOptions(lang, columns, top, bom)
    people.check(out)
    if size is not None and ratio is not None:
        raise UsageError("--size and --ratio exclude each other", hint="omit one of the two")
    if ratio is not None and not 0 < ratio <= 1:
        raise UsageError("the ratio is no share", where="--ratio", got=ratio, allowed="above 0, at most 1")
    seed_ids = read_ids(seed, "--seed", "user_id", "user_source")
    excluded = read_ids(exclude, "--exclude", "user_id", "user_source") if exclude is not None else []

    from features.data.locking import workspace_lock
    from qianmian.config import load_settings
    from serving.champions import load_from_workspace
    from serving.scoring.lookalike import JOB, evidence_entry, find_audience, score_audience

    output, located = Output(as_json), Workspace.locate(workspace).require()
    settings = load_settings(located.config_file)
    begun = time.perf_counter()
    with output.working(), workspace_lock(located):
        trained = ensure_champion(output, located, settings, JOB, None)
        ensure_profiles(output, located, settings)
        champions = load_from_workspace(located, settings, [JOB])
        output.step("finding the audience and measuring how well the seed is recognised")
        audience = find_audience(champions, seed_ids, size=size, ratio=ratio, exclude=excluded)
        output.step(f"writing {out}")
        scores = score_audience(champions, audience)
        written = people.write(output, located, scores, out, settings, champions.customers)
    version, evidence = champions.require(JOB).version, audience.evidence
    assert evidence is not None
    facts = {
        "model": JOB,
        "model_version": version,
        "trained_first": trained,
        "seed_ids": len(seed_ids),
        "known_seeds": audience.known_seeds,
        "unknown": list(audience.unknown),
        "short_reason": audience.short_reason,
        "evidence": evidence_entry(evidence),
    }
    report(output, located, out, written, begun, f"{JOB} version {version}", **facts)
    output.say(f"seed: {audience.known_seeds:,} customers are known, from {len(seed_ids):,} ids")
    if audience.unknown:
        shown = ", ".join(audience.unknown[:IDS_SHOWN]) + (", …" if len(audience.unknown) > IDS_SHOWN else "")
        output.say(f"ids that are no customer of the model: {len(audience.unknown):,} ({shown})")
    if audience.short_reason is not None:
        output.say(f"shorter than asked for: {audience.short_reason}")
    print_evidence(output, evidence)


def print_evidence(output: Output, evidence: SeedEvaluation) -> None:
    """Say how well hidden halves of the seed are found."""
    metrics = (("AUC", evidence.auc), ("recall", evidence.recall_at_size), ("lift", evidence.lift_at_size))
    texts = [f"{name} {value:.2f} ({low:.2f} – {high:.2f})" for name, (value, low, high) in metrics]
    output.say(
        f"evidence: half of the seed was hidden {evidence.splits} times and looked for among all customers: "
        f"{texts[0]}, where .5 is chance; in a list of this length {' and '.join(texts[1:])}"
    )
    reach = ", ".join(f"{point['found']:.0%} in the best {point['share']:.0%}" for point in evidence.reach)
    output.say(f"found of the hidden half: {reach}")
