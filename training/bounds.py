"""The bounds of the gate that need no other model: calibration, size, time of an answer, features of the profiles."""

from __future__ import annotations

import re
import time
from collections.abc import Collection

from models.bundle import ModelBundle
from qianmian.model_settings import GateSettings
from training.jobs.base import EvaluatedModel
from training.report import EvalReport

CALIBRATION = re.compile(r"(.* )?ece(_.*)?")  # names of calibration errors: `ece`, `ece_purchase`, `category=tea ece`
REPEATS = 3  # of the prediction that is timed; the fastest counts
MEGABYTE = 1e6


def broken_bounds(
    evaluated_model: EvaluatedModel, settings: GateSettings, computed: Collection[str] | None
) -> tuple[str, ...]:
    """The bounds that a model does not keep to, in words with the value and the bound; empty if it keeps to all.

    Parameters
    ----------
    evaluated_model : EvaluatedModel
    settings : GateSettings
    computed : collection of str, optional
        Names of the features that profiles have; None for a model that reads no profiles.
    """
    report, bundle = evaluated_model.report, evaluated_model.bundle
    return (
        *_calibration(report, settings.max_calibration_error),
        *_footprint(evaluated_model, settings),
        *_features(bundle, computed),
    )


def _calibration(report: EvalReport, bound: float) -> list[str]:
    return [
        f"calibration: {name} is {metric}, beyond noise above gate.max_calibration_error = {bound:g}"
        for name, metric in report.metrics.items()
        if CALIBRATION.fullmatch(name) and metric.low > bound
    ]


def _footprint(evaluated_model: EvaluatedModel, settings: GateSettings) -> list[str]:
    found = []
    size = evaluated_model.bundle.state_bytes / MEGABYTE
    if size > settings.max_size_mb:
        found.append(f"size: the model has {size:,.1f} MB, more than gate.max_size_mb = {settings.max_size_mb:g}")
    seconds = answer_seconds(evaluated_model)
    if seconds > settings.max_answer_seconds:
        bound = f"gate.max_answer_seconds = {settings.max_answer_seconds:g}"
        found.append(f"latency: {evaluated_model.example.num_rows} rows take {seconds:.2f} CPU s, more than {bound}")
    return found


def _features(bundle: ModelBundle, computed: Collection[str] | None) -> list[str]:
    """Features that no profile would have: the model would be served with their defaults."""
    if bundle.spec is None or computed is None:
        return []
    unknown = [one.name for one in bundle.spec.features if one.name not in computed and one.view != "profiles"]
    return [f"features: {', '.join(unknown[:5])}: not among those that a server computes"] if unknown else []


def answer_seconds(evaluated_model: EvaluatedModel) -> float:
    """CPU seconds of a prediction of the example, the fastest of a few."""
    from training import pyfunc

    bundle, frame = evaluated_model.bundle, evaluated_model.example.to_pandas()
    cpu_seconds = []
    for _ in range(REPEATS):
        started = time.process_time()
        pyfunc.predict_table(bundle, frame, pyfunc.PARAMETERS.get(bundle.kind))
        cpu_seconds.append(time.process_time() - started)
    return min(cpu_seconds)
