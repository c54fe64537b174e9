"""`qianmian tags validate`: compares what tags say about the future with what followed at past moments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import Output
from cli.options import STRICT_EXIT, AsOfOption, JsonOption, WorkspaceOption
from cli.times import as_of_or_default, utc_now
from qianmian.workspace import Workspace

if TYPE_CHECKING:
    from features.profiles.governance.validate import TagCheck, Validation

VALUES_PRINTED = 8


def validate_(
    as_of: AsOfOption = None,
    moments: Annotated[
        int, typer.Option("--moments", min=1, max=12, help="Number of past moments, as far as the data reach back.")
    ] = 4,
    horizon_days: Annotated[
        int,
        typer.Option(
            "--horizon-days",
            min=1,
            max=365,
            help="Number of days after a moment in which claims without their own number of days are evaluated.",
        ),
    ] = 28,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="NAME", help="Check only this tag; may be repeated.")
    ] = None,
    max_customers: Annotated[
        int, typer.Option("--max-customers", min=100, help="More customers are sampled, by a hash of their one_id.")
    ] = 50_000,
    strict: Annotated[
        bool, typer.Option("--strict", help=f"Exit with {STRICT_EXIT} if a claim is not borne out or contradicted.")
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare every claim of a tag about the future with what followed at past moments, and store the verdicts.

    The verdicts are shown in `qianmian tags list` and in profiles until the declaration of the tag changes.
    """
    from features.data.lake import Lake
    from features.definitions.building import make_builder
    from features.profiles.governance.moments import choose_moments
    from features.profiles.governance.validate import claiming_tags, validate
    from features.profiles.tags.checked import write_checks
    from features.profiles.tags.tagging import declared_tags
    from qianmian.config import load_settings

    output, located = Output(as_json), Workspace.locate(workspace).require()
    settings = load_settings(located.config_file)
    declared = declared_tags(settings)
    names = tag or []
    claiming_tags(declared, names)
    lake = Lake(located)
    # days after the end of the data would count as days without orders
    end = min(as_of_or_default(lake, as_of), lake.default_as_of)
    begins = [
        state.begin for name, state in lake.states().items() if name in ("transactions", "events") and state.begin
    ]
    chosen = choose_moments(min(begins), end, horizon_days, moments)
    with output.working():
        output.step(f"computing the tags as of {', '.join(f'{moment:%Y-%m-%d}' for moment in chosen)}")
        builder = make_builder(lake, settings)
        found = validate(builder, settings, declared, chosen, end, horizon_days, names, max_customers)
    now = utc_now()
    entries = {
        check.tag: {
            "verdict": check.verdict,
            "claim": check.claim,
            "reason": check.reason,
            "p_value": check.p_value,
            "moments": [moment.isoformat() for moment in found.moments],
            "as_of": found.end.isoformat(),
            "horizon_days": horizon_days,
        }
        for check in found.checks
    }
    # the verdicts of some tags are adjusted for fewer claims than those of all, so they are not stored beside these
    path = None if names else write_checks(located, declared, settings, entries, now)
    failed = [check for check in found.checks if check.verdict in ("not_borne_out", "contradicted")]
    output.result(
        {
            "workspace": located.root,
            "as_of": found.end,
            "moments": list(found.moments),
            "horizon_days": horizon_days,
            "customers": found.customers,
            "sampled": found.sampled,
            "written": path,
            "tags": [check.as_dict() for check in found.checks],
            "absent": list(found.absent),
        }
    )
    print_validation(output, found)
    if failed and strict:
        raise typer.Exit(STRICT_EXIT)


def print_validation(output: Output, found: Validation) -> None:
    """Print the verdicts, what followed each value, and how to read it."""
    dates = ", ".join(f"{moment:%Y-%m-%d}" for moment in found.moments)
    sample = f", {found.sampled:,} of them sampled by a hash of their one_id" if found.sampled < found.customers else ""
    output.say(
        f"tags as of {dates}, compared with the data up to {found.end:%Y-%m-%d}; {found.customers:,} customers{sample}"
    )
    for check in found.checks:
        print_check(output, check)
    for verdict in dict.fromkeys(check.verdict for check in found.checks):
        names = [check.tag for check in found.checks if check.verdict == verdict]
        output.say(f"\n{verdict} ({len(names)}): {', '.join(names)}")
    if found.absent:
        output.say(f"\nabsent from these data ({len(found.absent)}): {', '.join(found.absent)}")
    output.say(
        "\nborne_out, contradicted: one-sided p value below 2.5 %, adjusted for all claims by the method of Holm"
    )
    output.say("intervals: 95 % for one value, not adjusted, clustered by customer; the rows of all moments are pooled")


def print_check(output: Output, check: TagCheck) -> None:
    """Print the verdict on one tag and what followed its values."""
    output.say(f"\n{check.tag}: {check.verdict}{f' ({check.reason})' if check.reason else ''}")
    output.say(f"  claim: {check.claim}")
    for name, figure in check.evidence.figures.items():
        interval = f" ({figure.low:.3f} – {figure.high:.3f})" if figure.error == figure.error else ""
        output.say(f"  {name}: {figure.value:.3f}{interval}")
    values = [one for one in check.evidence.values if one.rows]
    per_horizon = dict.fromkeys(one.days for one in values)
    shown = [one for days in per_horizon for one in [one for one in values if one.days == days][:VALUES_PRINTED]]
    rows = [
        [
            str(one.value).lower() if isinstance(one.value, bool) else one.value,
            int(one.days),
            one.customers,
            one.mean,
            f"{one.low:.3f} – {one.high:.3f}",
            one.everybody,
            "" if one.compared else "not compared",
        ]
        for one in shown
    ]
    if rows:
        label = "lift" if check.claim.startswith("share of the value") else "mean"
        columns = ["value", "days", "customers", label, "95 % interval", "everybody", ""]
        noted = any(row[-1] for row in rows)
        output.table(
            "", columns if noted else columns[:-1], rows if noted else [row[:-1] for row in rows], columns[1:6]
        )
