"""`qianmian measure`: what a campaign caused, from the lake or from a file."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.console import Output
from cli.features import SUFFIXES, check_suffix, write_table
from cli.measure_campaign import DEFAULT_OUTCOMES, open_lake, outcomes_of, read_exposures, tags_before
from cli.measure_policy import policy
from cli.options import STRICT_EXIT, AsOfOption, JsonOption, Lang, LangOption, WorkspaceOption
from qianmian.errors import UsageError
from qianmian.workspace import Workspace

measure = typer.Typer(
    help="What a campaign caused: differences between randomised arms. What another policy would have brought.",
    no_args_is_help=True,
)
DEFAULT_WINDOW_DAYS = 28


class Looks(StrEnum):
    """How often a result is looked at before it is decided."""

    DAILY = "daily"
    ONCE = "once"


CampaignOption = Annotated[
    str | None, typer.Option("--campaign", metavar="ID", help="Campaign of the lake, by its id.", show_default=False)
]
ControlOption = Annotated[
    str | None,
    typer.Option(
        "--control",
        metavar="VALUE",
        help="Variant that the others are compared with. Default: the one whose name says so.",
        show_default=False,
    ),
]
LooksOption = Annotated[
    Looks,
    typer.Option(
        "--looks",
        help="daily: intervals that hold however often you look. once: narrower ones, for the one look that was "
        "planned before the experiment.",
    ),
]
PlannedOption = Annotated[
    int | None,
    typer.Option(
        "--planned-customers",
        metavar="N",
        min=2,
        help="Customers of both arms at which the daily intervals are narrowest; chosen before the first look. "
        "Default: 5000.",
        show_default=False,
    ),
]
ExpectedOption = Annotated[
    str | None,
    typer.Option(
        "--expected",
        metavar="A=1,B=1",
        help="How the variants were drawn, for the sample-ratio check. Default: their propensities, or equal sizes.",
        show_default=False,
    ),
]
WindowOption = Annotated[
    int,
    typer.Option(
        "--window-days", metavar="N", min=1, help="Campaign: outcomes count in the N days after each customer's touch."
    ),
]
StrictOption = Annotated[
    bool,
    typer.Option("--strict", help=f"Exit with {STRICT_EXIT} on a sample-ratio mismatch, which is else only reported."),
]
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Also write the rows to this file: .parquet or .csv.")
]


def column_option(name: str, text: str) -> Any:
    """An option that names a column of the file."""
    return typer.Option(name, metavar="COLUMN", help=text, show_default=False)


@measure.command("ab")
def ab(
    campaign: CampaignOption = None,
    outcome: Annotated[
        list[str] | None,
        typer.Option(
            "--outcome",
            metavar="OUTCOME",
            help="Campaign: order (whether any), orders, amount, item=ID, category=NAME, brand=NAME or event=TYPE; "
            f"repeatable. Default: {', '.join(DEFAULT_OUTCOMES)}.",
            show_default=False,
        ),
    ] = None,
    window_days: WindowOption = DEFAULT_WINDOW_DAYS,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="FILE", help="CSV or Parquet file with one row a customer.", show_default=False),
    ] = None,
    variant: Annotated[str | None, column_option("--variant", "File: the variant of the customer.")] = None,
    metric: Annotated[
        list[str] | None, column_option("--metric", "File: an outcome, a number or a yes or no; repeatable.")
    ] = None,
    pre: Annotated[
        list[str] | None,
        column_option("--pre", "File: the metric before the exposure, for CUPED; as many as --metric, in its order."),
    ] = None,
    denominator: Annotated[
        list[str] | None,
        column_option("--denominator", "File: the metric is divided by it, as amount by orders; as many as --metric."),
    ] = None,
    segment: Annotated[
        list[str] | None,
        column_option(
            "--segment",
            "A column of the file, or a tag as of the first touch, by which the difference is reported, too; choose it "
            "before you see results. Repeatable.",
        ),
    ] = None,
    propensity: Annotated[
        str | None, column_option("--propensity", "File: the probability of the row's variant.")
    ] = None,
    customer: Annotated[
        str | None, column_option("--customer", "File: the customer, to check that nobody is in two rows.")
    ] = None,
    exposed_at: Annotated[
        str | None, column_option("--exposed-at", "File: time of the exposure; with --outcome-at.")
    ] = None,
    outcome_at: Annotated[
        str | None, column_option("--outcome-at", "File: time of the outcome, which may not be before the exposure.")
    ] = None,
    control: ControlOption = None,
    expected: ExpectedOption = None,
    looks: LooksOption = Looks.DAILY,
    planned: PlannedOption = None,
    strict: StrictOption = False,
    as_of: AsOfOption = None,
    lang: LangOption = Lang.EN,
    out: OutOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what the variants of a campaign, or of a file, changed: differences with intervals, and in words.

    Exit code 3: the data allow no answer, or --strict and a sample-ratio mismatch.
    """
    check_suffix(out, SUFFIXES)
    of_file = {
        "--variant": variant,
        "--metric": metric,
        "--pre": pre,
        "--denominator": denominator,
        "--propensity": propensity,
        "--customer": customer,
        "--exposed-at": exposed_at,
        "--outcome-at": outcome_at,
    }
    _check_sources(campaign, data, of_file, {"--outcome": outcome, "--as-of": as_of})
    weights, segments = parse_weights(expected), segment or []
    from cli.measure_output import effect_table, print_measurement
    from training.measurement.differences import PLANNED
    from training.measurement.effects import measure as measure_experiment

    output = Output(as_json)
    with output.working():
        moment: datetime | None = None
        if data is not None:
            assert variant is not None
            assert metric is not None
            from training.measurement.table import ExperimentColumns, read_experiment

            columns = ExperimentColumns(
                variant,
                metric,
                pre or (),
                denominator or (),
                segments,
                control,
                weights,
                propensity,
                customer,
                exposed_at,
                outcome_at,
            )
            output.step(f"reading {data}")
            experiment = read_experiment(data, columns)
        else:
            assert campaign is not None
            builder, settings, moment = open_lake(output, workspace, as_of)
            output.step(f"reading campaign {campaign}")
            exposures, baseline = read_exposures(builder, campaign, moment, window_days, control, weights)
            tags = tags_before(output, builder, settings, exposures, segments)
            experiment = outcomes_of(builder, exposures, outcome, moment, baseline, weights, tags)
        output.step("computing the differences")
        found = measure_experiment(experiment, looks is Looks.DAILY, planned or PLANNED)
        if out is not None:
            write_table(Workspace.locate(workspace), effect_table(found.effects, found.daily, found.is_valid), out)
    source = {"campaign": campaign, "as_of": moment, "window_days": window_days} if data is None else {"data": data}
    from training.measurement.words import sentences

    words = sentences(found, lang.value)
    output.result(
        {**source, **found.as_dict(lang.value), "planned_customers": planned or PLANNED, "sentences": words, "out": out}
    )
    print_measurement(output, found, lang.value)
    _finish(output, out, strict, found.is_valid)


@measure.command("funnel")
def funnel(
    campaign: Annotated[str, typer.Option("--campaign", metavar="ID", help="Campaign of the lake, by its id.")],
    steps: Annotated[
        str | None,
        typer.Option(
            "--steps",
            metavar="A,B,…",
            help="Event types in order; 'buy' is a paid order or purchase event. Default: those of view,cart,buy that "
            "are recorded.",
            show_default=False,
        ),
    ] = None,
    window_days: WindowOption = DEFAULT_WINDOW_DAYS,
    control: ControlOption = None,
    expected: ExpectedOption = None,
    looks: LooksOption = Looks.DAILY,
    planned: PlannedOption = None,
    strict: StrictOption = False,
    as_of: AsOfOption = None,
    lang: LangOption = Lang.EN,
    out: OutOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare how many customers of each variant reach the steps of a funnel after their touch."""
    check_suffix(out, SUFFIXES)
    weights = parse_weights(expected)
    from cli.measure_output import funnel_table, print_funnel
    from features.profiles.analytics import choose_steps
    from training.measurement.campaign import exposed_experiment
    from training.measurement.differences import PLANNED
    from training.measurement.experiment import check_sample_ratio
    from training.measurement.funnels import compare_funnels

    output = Output(as_json)
    with output.working():
        builder, _, moment = open_lake(output, workspace, as_of)
        exposures, baseline = read_exposures(builder, campaign, moment, window_days, control, weights)
        names = steps.split(",") if steps else choose_steps(builder.views(moment))
        output.step(f"computing the funnel {' → '.join(names)}")
        found = compare_funnels(
            builder,
            exposures,
            [name.strip() for name in names],
            moment,
            baseline,
            check_sample_ratio(exposed_experiment(exposures, baseline, weights=weights)),
            looks is Looks.DAILY,
            planned or PLANNED,
        )
        if out is not None:
            write_table(builder.lake.workspace, funnel_table(found), out)
    output.result(
        {"campaign": campaign, "as_of": moment, "window_days": window_days, **found.as_dict(lang.value), "out": out}
    )
    print_funnel(output, found, lang.value)
    _finish(output, out, strict, found.is_valid)


measure.command("policy")(policy)


def parse_weights(text: str | None) -> dict[str, float] | None:
    """How the variants were drawn, as ``A=1,B=1``.

    Raises
    ------
    UsageError
        It has another form, or a weight is not positive.

    Examples
    --------
    >>> parse_weights("control=1, mail=9")
    {'control': 1.0, 'mail': 9.0}
    """
    if text is None:
        return None
    found = {}
    for part in text.split(","):
        name, _, weight = part.rpartition("=")
        try:
            found[name.strip()] = float(weight)
        except ValueError:
            found[name.strip()] = 0.0
    if "" in found or not all(0 < weight < float("inf") for weight in found.values()):
        raise UsageError("how the variants were drawn", where="--expected", got=text, allowed="A=1,B=1")
    return found


def _check_sources(
    campaign: str | None, data: Path | None, of_file: dict[str, Any], of_campaign: dict[str, Any]
) -> None:
    if (campaign is None) == (data is None):
        raise UsageError(
            "name a campaign of the lake or a file, not both" if data else "what is to be measured is missing",
            hint="qianmian measure ab --campaign ID, or --data FILE --variant COLUMN --metric COLUMN",
        )
    for options, of in ((of_file, "--data"),) if data is None else ((of_campaign, "--campaign"),):
        if given := [option for option, value in options.items() if value]:
            raise UsageError(f"{given[0]} is an option of {of}", hint=f"omit {given[0]}")
    if data is None:
        return
    if missing := [option for option in ("--variant", "--metric") if not of_file[option]]:
        raise UsageError(
            f"{missing[0]} is missing", hint="qianmian measure ab --data FILE --variant COLUMN --metric COLUMN"
        )
    for option in ("--pre", "--denominator"):
        if of_file[option] and len(of_file[option]) != len(of_file["--metric"]):
            raise UsageError(
                f"{option} is given for some metrics only",
                got=len(of_file[option]),
                allowed=f"none, or {len(of_file['--metric'])} as --metric",
            )
    if bool(of_file["--exposed-at"]) != bool(of_file["--outcome-at"]):
        raise UsageError("--exposed-at and --outcome-at are given together")


def _finish(output: Output, out: Path | None, strict: bool, valid: bool) -> None:
    if out is not None:
        output.say(f"written: {out}")
    if strict and not valid:
        raise typer.Exit(STRICT_EXIT)
