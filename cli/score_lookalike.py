"""`qianmian score lookalike`: the customers most similar to a file of seed customers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import Output
from cli.features import SUFFIXES, check_suffix
from cli.list_options import BomOption, ColumnsOption, ListLangOption, PeopleListOptions, TopOption, tag_words
from cli.options import JsonOption, WorkspaceOption
from cli.scoring import OutOption, ensure_champion, ensure_profiles, read_ids, report
from qianmian.errors import UsageError
from qianmian.workspace import Workspace

if TYPE_CHECKING:
    from models.lookalike import SeedEvaluation

IDS_SHOWN = 5
COUNTED = {
    "contact": "to contact",
    "control": "in the control group",
    "not_chosen": "less similar",
    "seed": "in the seed",
    "excluded_ids": "left out by their id",
    "excluded_tags": "left out by a tag",
    "shared_accounts": "shared accounts",
    "not_in_profiles": "not in the profiles",
    "erased": "erased",
}
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
    exclude_tag: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude-tag",
            metavar="TAG=VALUE",
            help="Leave out whoever has this tag in the profiles, such as lifecycle_stage=lost; may be repeated.",
            show_default=False,
        ),
    ] = None,
    control_share: Annotated[
        float,
        typer.Option(
            "--control-share",
            min=0.0,
            max=0.5,
            help="Share of the audience that is set aside at random (column group), to measure the effect afterwards.",
        ),
    ] = 0.0,
    salt: Annotated[
        str,
        typer.Option("--salt", help="Name of the campaign: another one draws another control group.", metavar="NAME"),
    ] = "",
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
    excluded_tags = read_tags(exclude_tag or [])

    from features.data.locking import workspace_lock
    from qianmian.config import load_settings
    from serving.champions import load_from_workspace
    from serving.scoring.lookalike import JOB, Exclusions, evidence_entry, find_audience, score_audience

    output, located = Output(as_json), Workspace.locate(workspace).require()
    settings = load_settings(located.config_file)
    begun = time.perf_counter()
    with output.working(), workspace_lock(located):
        trained = ensure_champion(output, located, settings, JOB, None)
        ensure_profiles(output, located, settings)
        champions = load_from_workspace(located, settings, [JOB])
        output.step("finding the audience and measuring how well the seed is recognised")
        audience = find_audience(
            champions,
            seed_ids,
            size=size,
            ratio=ratio,
            exclude=Exclusions(excluded, excluded_tags),
            control_share=control_share,
            salt=salt,
            words=tag_words(settings),
            lang=people.language,
        )
        output.step(f"writing {out}")
        scores = score_audience(champions, audience, with_groups=control_share > 0)
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
        "traits": [trait.as_dict() for trait in audience.traits],
        "counts": audience.counts,
    }
    report(output, located, out, written, begun, f"{JOB} version {version}", **facts)
    output.say(f"seed: {audience.known_seeds:,} customers are known, from {len(seed_ids):,} ids")
    if audience.unknown:
        shown = ", ".join(audience.unknown[:IDS_SHOWN]) + (", …" if len(audience.unknown) > IDS_SHOWN else "")
        output.say(f"ids that are no customer of the model: {len(audience.unknown):,} ({shown})")
    if audience.short_reason is not None:
        output.say(f"shorter than asked for: {audience.short_reason}")
    print_counts(output, audience.counts)
    print_evidence(output, evidence)
    output.say(f"the seed's traits, the strongest first:{'' if audience.traits else ' none, nothing sets it apart'}")
    for trait in audience.traits:
        output.say(f"  {trait.text}")


def read_tags(texts: list[str]) -> dict[str, list[str | bool | None]]:
    """Read ``TAG=VALUE`` texts: yes and no are those of a tag that is either, nothing is an unknown value.

    Raises
    ------
    UsageError
        A text has no ``=``.

    Examples
    --------
    >>> read_tags(["lifecycle_stage=lost", "lifecycle_stage=asleep", "consent_sms=no", "consent_email="])
    {'lifecycle_stage': ['lost', 'asleep'], 'consent_sms': [False], 'consent_email': [None]}
    """
    words: dict[str, bool | None] = {"yes": True, "true": True, "no": False, "false": False, "": None}
    found: dict[str, list[str | bool | None]] = {}
    for text in texts:
        tag, separator, value = text.partition("=")
        if not tag or not separator:
            raise UsageError("no tag and value", where="--exclude-tag", got=text, allowed="TAG=VALUE")
        found.setdefault(tag, []).append(words.get(value, value))
    return found


def print_counts(output: Output, counts: dict[str, int]) -> None:
    """Say where all customers went."""
    parts = [f"{count:,} {COUNTED[reason]}" for reason, count in counts.items() if count and reason in COUNTED]
    output.say(f"{counts['considered']:,} customers: {', '.join(parts)}")


def print_evidence(output: Output, evidence: SeedEvaluation) -> None:
    """Say how well hidden halves of the seed are found."""
    from serving.scoring.lookalike import separability_words

    metrics = (("AUC", evidence.auc), ("recall", evidence.recall_at_size), ("lift", evidence.lift_at_size))
    output.say(f"evidence: {separability_words(evidence)}")
    texts = [f"{name} {value:.2f} ({low:.2f} – {high:.2f})" for name, (value, low, high) in metrics]
    output.say(
        f"half of the seed was hidden {evidence.splits} times and looked for among all customers: "
        f"{texts[0]}, where .5 is chance; in a list of this length {' and '.join(texts[1:])}"
    )
    reach = ", ".join(f"{point['found']:.0%} in the best {point['share']:.0%}" for point in evidence.reach)
    output.say(f"found of the hidden half: {reach}")
