"""`qianmian score uplift`: what a contact changes for every customer, or each row of a table; whom to contact."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import Output
from cli.features import SUFFIXES, check_suffix
from cli.list_options import BomOption, ColumnsOption, ListLangOption, PeopleListOptions, TopOption
from cli.options import AsOfOption, JsonOption, WorkspaceOption
from cli.score_table import score_table
from cli.scoring import OutOption, builder_of, ensure_champion, ensure_profiles, report, require_customers
from cli.times import parse_as_of
from cli.train_table import NameOption
from qianmian.errors import UsageError
from qianmian.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from models.bundle import ModelBundle
    from serving.scoring.uplift import ScoredUplift


def uplift(
    out: OutOption,
    budget_share: Annotated[
        float | None,
        typer.Option(
            "--budget-share",
            metavar="R",
            help="Share of the customers to contact, above 0, at most 1. Default: all with a positive uplift.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="FILE",
            help="Score the rows of this table, by the model of `train uplift --data`, instead of the customers.",
            show_default=False,
        ),
    ] = None,
    name: NameOption = None,
    as_of: AsOfOption = None,
    lang: ListLangOption = None,
    columns: ColumnsOption = None,
    top: TopOption = None,
    bom: BomOption = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the uplift of every customer, and whom to contact; train the model if it is missing.

    With --data: of every row of a table, by the model of `train uplift --data`.
    """
    moment, people = parse_as_of(as_of), PeopleListOptions(lang, columns, top, bom)
    check_suffix(out, SUFFIXES)
    people.check(out)
    if budget_share is not None and not 0 < budget_share <= 1:
        raise UsageError("no such budget", where="--budget-share", got=budget_share, allowed="above 0, at most 1")
    if data is not None:
        of_the_lake = {"--as-of": as_of, "--lang": lang, "--columns": columns, "--top": top, "--bom": bom}
        if given := [option for option, value in of_the_lake.items() if value]:
            raise UsageError(f"{given[0]} is no option of score uplift --data", hint=f"omit {given[0]}")
        from training.uplift.table import job_name

        named = f" --name {name}" if name else ""
        hint = f"qianmian train uplift --data FILE --treatment COLUMN --outcome COLUMN{named}"
        located = Workspace.locate(workspace).require()
        score_table(Output(as_json), located, job_name(name), data, out, hint, partial(_of_table, budget_share))
        return
    if name is not None:
        raise UsageError("--name is an option of score uplift with a table", hint="add --data FILE, or omit --name")

    from features.data.locking import workspace_lock
    from qianmian.config import load_settings
    from serving.champions import load_from_workspace
    from serving.scoring.uplift import JOB, about, reason_counts, score_uplift

    output, located = Output(as_json), Workspace.locate(workspace).require()
    settings = load_settings(located.config_file)
    begun = time.perf_counter()
    with output.working(), workspace_lock(located):
        trained = ensure_champion(output, located, settings, JOB, moment)
        ensure_profiles(output, located, settings, with_tags=True)
        champions = load_from_workspace(located, settings, [JOB])
        output.step("scoring uplift")
        builder = builder_of(located, settings, champions, moment)
        scored = score_uplift(champions, budget_share=budget_share, as_of=moment, builder=builder)
        scores = scored.blocks()
        require_customers(scores, moment)
        written = people.write(output, located, scores, out, settings, scored.champions.customers)
    champion = champions.require(JOB)
    facts = {
        "model": JOB,
        "model_version": champion.version,
        "trained_first": trained,
        "policy": scored.policy,
        "do_not_contact": reason_counts(scored.scores),
        **about(champion.bundle.facts),
    }
    report(output, located, out, written, begun, f"{JOB} version {champion.version}", **facts)
    _say(output, scored)


def _of_table(budget_share: float | None, bundle: ModelBundle, table: pa.Table) -> dict[str, Any]:
    """Uplift of each row, and whether to contact it: of those with an uplift above 0, the highest within the budget."""
    import numpy as np

    uplift = bundle.model.predict(bundle.model.encode(table))
    n = len(uplift) if budget_share is None else round(budget_share * len(uplift))
    contact = np.zeros(len(uplift), dtype=bool)
    contact[np.argsort(-uplift, kind="stable")[:n]] = True
    return {"uplift": uplift, "contact": contact & (uplift > 0)}


def _say(output: Output, scored: ScoredUplift) -> None:
    """Say whom to contact, why the others are not, what it is worth, and how far the estimate can be trusted."""
    from serving.scoring.uplift import JOB, about, reason_counts

    policy, told = scored.policy, about(scored.champions.require(JOB).bundle.facts)
    others = ", ".join(f"{reason} {count:,}" for reason, count in reason_counts(scored.scores).items())
    output.say(f"to contact: {policy['contacted']:,} of {len(scored.scores):,} customers; not: {others or 'nobody'}")
    low, high = policy["expected_gain_low"], policy["expected_gain_high"]
    output.say(
        f"expected gain within {told['horizon_days']:g} days: {policy['expected_gain']:+.4f} [{low:.4f}, {high:.4f}] "
        f"({told['outcome']}) per customer with a score"
    )
    if not told["randomised"]:
        output.say("nobody was held out at random: this holds only if nothing unknown decided who was contacted")
    if told["placebo_passed"] is False:
        output.say("do not trust this estimate: the contact seems to have an effect on the time before it")
