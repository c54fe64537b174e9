"""`qianmian measure policy`: what another policy would have brought, from a log with propensities."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import Output
from cli.options import STRICT_EXIT, JsonOption, Lang, LangOption, WorkspaceOption
from qianmian.workspace import Workspace

if TYPE_CHECKING:
    from training.measurement.off_policy import OffPolicyValue

NAMES = {
    "ips": ("inverse propensity (IPS)", "逆倾向加权（IPS）"),
    "snips": ("self-normalised (SNIPS)", "自归一化加权（SNIPS）"),
    "dm": ("reward model alone (DM)", "仅用回报模型（DM）"),
    "dr": ("doubly robust (DR)", "双重稳健（DR）"),
}


def policy(
    data: Annotated[Path, typer.Option("--data", metavar="FILE", help="CSV or Parquet file with one row a decision.")],
    action: Annotated[str, typer.Option("--action", metavar="COLUMN", help="The action that was chosen.")],
    reward: Annotated[str, typer.Option("--reward", metavar="COLUMN", help="What it brought: 0 or 1, or an amount.")],
    propensity: Annotated[
        str | None,
        typer.Option(
            "--propensity",
            metavar="COLUMN",
            help="The probability with which that action was chosen, as logged with the decision.",
            show_default=False,
        ),
    ] = None,
    target_action: Annotated[
        str | None,
        typer.Option(
            "--target-action",
            metavar="COLUMN",
            help="The action that the target policy chooses at this decision.",
            show_default=False,
        ),
    ] = None,
    target_prefix: Annotated[
        str | None,
        typer.Option(
            "--target-prefix",
            metavar="PREFIX",
            help="The target policy's probability of each action, in columns named by this prefix and the action.",
            show_default=False,
        ),
    ] = None,
    target_probability: Annotated[
        str | None,
        typer.Option(
            "--target-probability",
            metavar="COLUMN",
            help="The target policy's probability of the action that was chosen; without those of the others the value "
            "is by weights alone.",
            show_default=False,
        ),
    ] = None,
    always: Annotated[
        str | None,
        typer.Option(
            "--always", metavar="ACTION", help="The target policy always chooses this action.", show_default=False
        ),
    ] = None,
    context: Annotated[
        list[str] | None,
        typer.Option(
            "--context",
            metavar="COLUMN",
            help="A column that was there at the decision, for the reward model; repeatable.",
            show_default=False,
        ),
    ] = None,
    customer: Annotated[
        str | None,
        typer.Option(
            "--customer",
            metavar="COLUMN",
            help="The customer of the decision, if some have several: intervals are then over customers.",
            show_default=False,
        ),
    ] = None,
    lang: LangOption = Lang.EN,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Estimate what a policy would have brought, from the log of another policy with propensities.

    Exit code 3: the log says too little about the target policy. The figures are printed, with the reason.
    """
    from qianmian.config import load_settings
    from training.measurement.off_policy import policy_value
    from training.measurement.policy_table import PolicyColumns, read_policy_log
    from training.measurement.policy_words import sentences

    columns = PolicyColumns(
        action,
        reward,
        propensity,
        target_action,
        target_prefix,
        target_probability,
        always,
        tuple(context or ()),
        customer,
    )
    output = Output(as_json)
    with output.working():
        output.step(f"reading {data}")
        table = read_policy_log(data, columns)
        output.step(f"evaluating the target policy on {len(table.log):,} decisions")
        value = policy_value(table.log, load_settings(Workspace.locate(workspace).config_file).seed)
    _print_table(output, value, lang is Lang.ZH)
    for line in [*sentences(value, lang.value), *table.notes]:
        output.say(line)
    output.result({**value.as_dict(lang.value), "sentences": sentences(value, lang.value), "notes": table.notes})
    if value.refusals:
        raise typer.Exit(STRICT_EXIT)


def _print_table(output: Output, value: OffPolicyValue, is_chinese: bool) -> None:
    """The estimates with their intervals, and how much of the log tells something of the target policy."""
    from training.measurement.words import number

    headings = (
        ["估计方法", "每次决策的回报", "下限", "上限"]
        if is_chinese
        else ["estimate", "reward a decision", "low", "high"]
    )
    use_this = "（采用）" if is_chinese else " (use this one)"
    rows = [("实际执行的策略" if is_chinese else "logged policy", value.logged)]
    for name, found in value.estimates.items():
        rows.append((NAMES[name][is_chinese] + use_this * (name == value.best and not value.refusals), found))
    sizes = (value.decisions, value.customers, value.actions)
    output.table(
        "{:,} 次决策，{:,} 位客户，{} 种动作".format(*sizes)
        if is_chinese
        else "{:,} decisions of {:,} customers, {} actions".format(*sizes),
        headings,
        [[name, *("" if math.isnan(x) else number(x) for x in (one.value, one.low, one.high))] for name, one in rows],
        right=headings[1:],
    )
    shares = (value.effective_sample_size, value.largest_weight, value.largest_weight_share, value.mean_weight)
    output.say(
        "有效样本量 {:,.0f} · 最大权重 {:.3g}（占全部的 {:.2%}）· 平均权重 {:.3f}".format(*shares)
        if is_chinese
        else "effective sample size {:,.0f} · largest weight {:.3g} ({:.2%} of all) · mean weight {:.3f}".format(
            *shares
        )
    )
