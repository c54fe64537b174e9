"""What MLflow shows of a run, a registered model and a version: names, the command that repeats it, and a description.

Descriptions are Markdown, which the pages of MLflow render.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from qianmian.schema import registered_name
from training.arguments import TrainingArguments
from training.jobs.base import EvaluatedModel
from training.report import EvalReport

MAX_CHARACTERS = 4_900  # the registry of MLflow stores 5,000 of a description
MAX_METRICS, MAX_BASELINES = 8, 4
OF_TABLES = {
    "classify": "The probability of an answer to the label of a table without history.",
    "uplift_table": "What a contact changes, learnt from the table of a randomised test.",
}
# of a table: option → the parameter or fact that has its value
TABLE_OPTIONS = {
    "classify": {"data": "file", "label": "label", "positive": "positive", "id": "id_column", "exclude": "excluded"},
    "uplift_table": {
        "data": "file",
        "treatment": "treatment",
        "outcome": "outcome",
        "control": "control",
        "id": "id_column",
        "exclude": "excluded",
    },
}
TABLE_NAMES = {"classify": "classify", "uplift_table": "uplift"}  # kind → prefix of the model's name, and the job


def run_name(evaluated_model: EvaluatedModel) -> str:
    """Return what a run is called, such as ``churn 2018-01-02 h28``: job, cutoff and horizon in days."""
    bundle = evaluated_model.bundle
    midnight = bundle.as_of == bundle.as_of.replace(hour=0, minute=0)
    moment = f"{bundle.as_of:%Y-%m-%d}" if midnight else f"{bundle.as_of:%Y-%m-%d %H:%M}"
    horizon = evaluated_model.parameters.get("horizon_days")
    return " ".join([str(bundle.facts["job"]), moment, *([f"h{horizon}"] if horizon else [])])


def command(evaluated_model: EvaluatedModel) -> str:
    """Return the command that repeats a run, in the workspace of the run and with its settings.

    A value that came from the settings is named too, so that a later change of them does not change the command. The
    file of a table is named without its folder.
    """
    bundle, parameters = evaluated_model.bundle, evaluated_model.parameters
    job = str(bundle.facts["job"])
    if bundle.kind in TABLE_OPTIONS:
        job, name = TABLE_NAMES[bundle.kind], job.removeprefix(TABLE_NAMES[bundle.kind]).removeprefix("-")
        facts = {**bundle.facts, **parameters}
        options: dict[str, Any] = {option: facts.get(key) for option, key in TABLE_OPTIONS[bundle.kind].items()}
        options["name"] = None if name in ("", "table") else name
    else:
        options = {
            "as-of": bundle.as_of.isoformat(timespec="minutes").removesuffix("T00:00"),
            "horizon-days": parameters.get("horizon_days"),
            "active-days": parameters.get("active_days"),
            "campaign": bundle.facts.get("campaign"),
            "outcome": bundle.facts.get("outcome"),
        }
    words = ["qianmian", "train", job]
    for option, value in options.items():
        for one in value if isinstance(value, (list, tuple)) else [value]:
            words += [f"--{option}", str(one)] if one not in (None, "") else []
    if isinstance(evaluated_model.arguments, TrainingArguments) and evaluated_model.arguments.tune:
        words.append("--tune")
    return shlex.join(words)


def of_model(evaluated_model: EvaluatedModel, description: str) -> str:
    """Return the description of a registered model: what it predicts, and where to read on.

    Parameters
    ----------
    evaluated_model : EvaluatedModel
        One of its versions.
    description : str
        That of the job; empty for a model of a table.
    """
    bundle = evaluated_model.bundle
    what = description or OF_TABLES.get(bundle.kind, "")
    return (
        f"**{registered_name(str(bundle.facts['job']))}**: {what[:1].upper()}{what[1:]}\n\n"
        f"Trained by `qianmian train`; the alias `champion` is the version that is served. Each version has its data, "
        f"metrics and gate in its own description; `docs/mlflow.md` explains them."
    )


def of_version(evaluated_model: EvaluatedModel, report: EvalReport, origin: Mapping[str, str]) -> str:
    """Return the description of a run and of its version: data, horizon, metrics beside baselines, gate and notes.

    Parameters
    ----------
    evaluated_model : EvaluatedModel
    report : EvalReport
        With the verdict of the gate.
    origin : mapping of str to str
        Where the model comes from (`training.provenance.record`); empty values are left out.
    """
    bundle, parameters = evaluated_model.bundle, evaluated_model.parameters
    of_table = bundle.kind in TABLE_OPTIONS
    data = f"{'table' if of_table else 'lake'} `{bundle.facts['data_digest']}`"
    facts = {
        "data": f"{data}, before {bundle.as_of:%Y-%m-%d %H:%M}",
        "horizon": f"{parameters['horizon_days']} days" if parameters.get("horizon_days") else "",
        "columns": f"{len(bundle.spec.names)} features, spec `{bundle.spec.hash}`" if bundle.spec else "",
        "model": parameters.get("model", bundle.facts.get("model", "")),
        **{name.replace("_", " "): value for name, value in origin.items() if name != "data_digest"},
        "repeat": f"`{command(evaluated_model)}`",
    }
    rows = [f"| {name} | {_cell(str(value))} |" for name, value in facts.items() if value]
    text = "\n".join(
        [
            f"**{run_name(evaluated_model)}**",
            "",
            "| | |",
            "|---|---|",
            *rows,
            "",
            *_metrics(report),
            "",
            f"**Gate: {'passed' if report.passed else 'refused'}**",
            "",
            *(f"- {reason}" for reason in report.reasons),
            *(["", "**Notes**", "", *(f"- {note}" for note in report.notes)] if report.notes else []),
        ]
    )
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]} … (the rest is in report.json)"


def _metrics(report: EvalReport) -> list[str]:
    """The metrics on the test period beside those of the baselines, as a table."""
    baselines = dict(list(report.baselines.items())[:MAX_BASELINES])
    lines = [
        f"| {' | '.join(['metric', 'model', *map(_cell, baselines)])} |",
        f"|{'---|' * (2 + len(baselines))}",
    ]
    for name, metric in list(report.metrics.items())[:MAX_METRICS]:
        others = [f"{found[name].value:.4g}" if name in found else "" for found in baselines.values()]
        cells = [name, f"{metric.value:.4g} [{metric.low:.4g}, {metric.high:.4g}]", *others]
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    if len(report.metrics) > MAX_METRICS:
        lines += ["", f"and {len(report.metrics) - MAX_METRICS} more in `report.json`"]
    return lines


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
