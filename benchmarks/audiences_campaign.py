"""`train uplift --campaign` where the effects are known, and where nobody was held out. A part of `audiences.py`.

The synthetic shop draws who is contacted and what a contact changes, so the interval of the average effect and the rank
of the customers can be held against the truth. The campaigns of Complete Journey are observational: what is reported is
the effect with its interval, the placebo test before the first contact, and whether the gate finds the effect usable.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import common
import numpy as np
from churn import cli
from common import Must

from features.data.ingest import ingest
from features.data.lake import Lake
from features.data.sources import SOURCES
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from training.gate import apply_gate
from training.jobs import uplift as job
from training.jobs.base import EvaluatedModel, TrainingContext

CUSTOMERS, DAYS, SEED = 1500, 105, 1
CAMPAIGNS = ("8", "13", "18")  # the largest of Complete Journey
TIMEZONE = "America/New_York"  # of its days and hours, as in `qianmian demo`
MUSTS = {
    "synthetic: the known effect is inside its interval": Must("metric", least=1.0),
    "synthetic: true lift of the best three tenths minus that of the last three, lower bound": Must(
        "metric", least=0.0
    ),
}


def campaigns(folder: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """Metrics of each shop and campaign, and the values of the musts.

    Parameters
    ----------
    folder : Path
        Folder of the workspaces; Complete Journey is ingested unless it is there already.
    """
    shop, values = synthetic(folder / "synthetic")
    workspace = folder / "completejourney"
    if not (workspace / "lake").exists():
        cli(workspace, "ingest", "completejourney")
    found = {f"completejourney {name}": observational(workspace, name) for name in CAMPAIGNS}
    return {"qianmian": shop, **found}, values


def synthetic(folder: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """The average effect beside the truth, and the true lift of customers by predicted uplift."""
    source, workspace = SOURCES["synthetic"](customers=CUSTOMERS, days=DAYS, seed=SEED), Workspace(folder)
    ingest(workspace, source, Settings())
    settings = {"campaigns": ["kind=message"], "horizon_days": 7, "outcome": "orders"}
    found = evaluated(workspace, settings)
    effect, truth = found.bundle.facts["effect"], source.truth()
    effects = truth["effects"][truth["effects"]["campaign_id"].isin(found.bundle.facts["campaign"])]
    lift = dict(zip(effects["person_id"], effects["lift"], strict=True))
    person = {row.source_user_id: row.person_id for row in truth["accounts"].itertuples()}
    rows = Lake(workspace).connect().table("customers").to_pyarrow().to_pylist()
    of_customer = {row["one_id"]: lift.get(person.get(row["source_user_id"])) for row in rows}
    tenths: dict[bool, list[float]] = {True: [], False: []}
    for one_id, tenth in zip(*found.tags["uplift_decile"], strict=True):
        if of_customer.get(one_id) is not None and (tenth <= 3 or tenth >= 8):
            tenths[tenth <= 3].append(of_customer[one_id])
    difference = float(np.mean(tenths[True]) - np.mean(tenths[False]))
    margin = 1.96 * float(np.sqrt(sum(np.var(part) / len(part) for part in tenths.values())))
    true = float(effects["lift"].mean())
    metrics = {
        "effect": common.value(effect["value"], effect["low"], effect["high"], n=len(effects)),
        "true_effect": common.value(true, n=len(effects)),
        "lift_best_minus_last_tenths": common.value(
            difference, difference - margin, difference + margin, n=sum(map(len, tenths.values()))
        ),
        "usable": common.value(float(apply_gate(found.report, found.rules).passed)),
    }
    return metrics, dict(zip(MUSTS, (float(effect["low"] <= true <= effect["high"]), difference - margin), strict=True))


def observational(workspace: Path, campaign: str) -> dict[str, Any]:
    """The effect of one campaign on the money of its weeks, its placebo test, and whether the gate accepts it."""
    found = evaluated(Workspace(workspace), {"campaigns": [campaign], "outcome": "amount"}, timezone=TIMEZONE)
    facts = found.bundle.facts
    effect, placebo = facts["effect"], facts["placebo"]
    return {
        "effect": common.value(effect["value"], effect["low"], effect["high"]),
        "placebo_passed": common.value(float(bool(placebo["passed"]))),
        "usable": common.value(float(apply_gate(found.report, found.rules).passed)),
    }


def evaluated(workspace: Workspace, settings: dict[str, Any], **more: str) -> EvaluatedModel:
    """The evaluated model of declared campaigns, without the gate and MLflow."""
    moment = Lake(workspace).default_as_of
    return job.run(
        TrainingContext(workspace, moment, Settings.model_validate({"uplift": settings, **more}), lambda line: None)
    )
