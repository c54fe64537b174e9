"""`qianmian score predictions`, `value`, `propensity`, `clusters`: all predictions of all customers, or one kind."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from cli.console import Output
from cli.list_options import BomOption, ColumnsOption, ListLangOption, PeopleListOptions, TopOption
from cli.options import AsOfOption, EngineOption, JsonOption, SparkMasterOption, WorkspaceOption
from cli.scoring import (
    Execution,
    OutOption,
    WorkersOption,
    at_published,
    builder_of,
    ensure_champion,
    ensure_profiles,
    report,
    require_customers,
)
from cli.times import parse_as_of
from qianmian.errors import UsageError
from qianmian.workspace import Workspace


def _command(name: str | None, text: str) -> Callable[..., None]:
    """A command that writes one prediction, or all that have a model."""

    def command(
        out: OutOption,
        as_of: AsOfOption = None,
        workers: WorkersOption = 1,
        engine: EngineOption = "duckdb",
        spark_master: SparkMasterOption = None,
        lang: ListLangOption = None,
        columns: ColumnsOption = None,
        top: TopOption = None,
        bom: BomOption = False,
        workspace: WorkspaceOption = None,
        as_json: JsonOption = False,
    ) -> None:
        people = PeopleListOptions(lang, columns, top, bom)
        _score(name, out, as_of, Execution(engine, spark_master, workers), people, workspace, as_json)

    command.__doc__ = text
    return command


predictions = _command(
    None,
    "Write all predictions of every customer that have a model; train that of the lifecycle first if it is missing.",
)
value = _command(
    "value",
    "Write the expected orders, money and date of the next order of every customer; train the model if it is missing.",
)
propensity = _command(
    "propensity", "Write the probability of each declared target for every customer; train the model if it is missing."
)
clusters = _command(
    "clusters", "Write the behaviour cluster of every customer, and its RFM tags; train the model if it is missing."
)


def _score(
    name: str | None,
    out: Path,
    as_of: str | None,
    execution: Execution,
    people: PeopleListOptions,
    workspace: Path | None,
    as_json: bool,
) -> None:
    """Write one prediction, or all that have a model."""
    moment = parse_as_of(as_of)
    execution.check(out)
    people.check(out, execution.engine, execution.workers)

    from features.data.locking import workspace_lock
    from qianmian.config import load_settings
    from serving.champions import load_from_workspace
    from serving.predictions import PREDICTIONS, lifecycle
    from serving.predictions.base import available, unavailable
    from serving.scoring.predictions import predictions_at, score_predictions

    wanted = list(PREDICTIONS.values()) if name is None else [PREDICTIONS[name]]
    if execution.on_spark and name not in (None, lifecycle.PREDICTION.name):  # before a missing model is trained
        raise UsageError("Spark makes no other prediction than lifecycle", where="--engine", got=name)
    needed = lifecycle.JOB if name is None else wanted[0].job
    output, located = Output(as_json), Workspace.locate(workspace).require()
    settings = load_settings(located.config_file)
    begun = time.perf_counter()
    with output.working(), workspace_lock(located):
        trained = ensure_champion(output, located, settings, needed, moment)
        ensure_profiles(output, located, settings, with_tags=people.wanted)
        champions = load_from_workspace(located, settings, list(dict.fromkeys(one.job for one in wanted)))
        left_out = unavailable(champions, wanted)
        for other, reason in left_out.items():
            output.step(f"left out: {other} ({reason})")
        output.step(f"scoring {', '.join(one.name for one in available(champions, wanted))}")
        if execution.on_spark:
            from serving.scoring.spark import predictions_on_spark

            output.step("Spark makes the prediction lifecycle only")
            at_published(champions, moment)
            written = execution.write_on_spark(output, located, predictions_on_spark(champions), out)
        else:
            names = [one.name for one in wanted]
            champions = predictions_at(champions, names, moment, builder_of(located, settings, champions, moment))
            scores = score_predictions(champions, names=names)
            require_customers(scores, moment)
            written = people.write(output, located, scores, out, settings, champions.customers, execution.workers)
    models = {one.name: champions.require(one.job).version for one in wanted if one.name not in left_out}
    made_by = ", ".join(f"{prediction} version {version}" for prediction, version in models.items())
    facts = {
        "model": needed,
        "model_version": models.get(name or lifecycle.PREDICTION.name),
        "models": models,
        "left_out": left_out,
        "trained_first": trained,
        "engine": execution.engine,
    }
    report(output, located, out, written, begun, made_by, **facts)
