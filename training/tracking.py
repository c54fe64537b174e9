"""MLflow runs: parameters, metrics, figures and the model of each job."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qianmian import model_store
from qianmian.model_store import EXPERIMENT
from qianmian.schema import EVALUATION
from qianmian.workspace import Workspace, explain_os_errors
from training.jobs.base import EvaluatedModel
from training.report import EvalReport, Metric

BUNDLE = "bundle"
MAX_METRICS_PER_REQUEST = 1000  # limit of an MLflow tracking server
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoggedModel:
    """Run and URI of a model logged to MLflow."""

    run_id: str
    model_uri: str


@contextlib.contextmanager
def run(workspace: Workspace, name: str) -> Iterator[Any]:
    """Start an MLflow run in the tracking store of the workspace, nested in the active run if there is one.

    When `mlflow run` started the process, the run of ``MLFLOW_RUN_ID`` is continued. Artifacts are stored in the
    workspace for a database store, by the server for an MLflow server, and by the experiment for a continued run.

    Raises
    ------
    WorkspaceError
        If the workspace was copied or moved, and its store cannot be changed, or its database server does not answer.
    """
    model_store.check_reachable(workspace)
    import mlflow

    uri = workspace.tracking_uri
    for chatty in ("alembic", "mlflow.store.db.utils", "mlflow.utils.requirements_utils"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    joined = os.environ.get("MLFLOW_RUN_ID")
    model_store.adopt(workspace, required=True)
    with explain_os_errors(workspace.root), tracking_at(uri):
        if joined is None and mlflow.get_experiment_by_name(EXPERIMENT) is None:
            local = not uri.startswith(("http://", "https://", "databricks"))
            mlflow.create_experiment(EXPERIMENT, artifact_location=workspace.artifact_root.as_uri() if local else None)
        model_store.keep_inside(workspace)
        if joined is None:
            mlflow.set_experiment(EXPERIMENT)
        nested = mlflow.active_run() is not None
        with mlflow.start_run(run_name=None if joined and not nested else name, nested=nested) as active:
            mlflow.set_tag("qianmian.job", name)
            yield active


@contextlib.contextmanager
def tracking_at(uri: str) -> Iterator[None]:
    """Let MLflow use a store inside the `with` block.

    ``MLFLOW_TRACKING_URI`` is restored: `mlflow.set_tracking_uri` sets it, and later workspaces would read it.
    """
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    try:
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        yield
    finally:
        if before is None:
            os.environ.pop("MLFLOW_TRACKING_URI", None)
        else:
            os.environ["MLFLOW_TRACKING_URI"] = before


def log(evaluated_model: EvaluatedModel, report: EvalReport) -> LoggedModel:
    """Log parameters, data digest, spec hash, seed, metrics, figures and the model with its signature."""
    import mlflow
    from mlflow.models import infer_signature

    from training import pyfunc

    bundle = evaluated_model.bundle
    facts = {"as_of": bundle.as_of.isoformat(), "spec_hash": bundle.spec.hash if bundle.spec else "", **bundle.facts}
    if "shared_accounts" in facts:  # by their one_id, which only the bundle has: a logged parameter cannot be changed
        facts["shared_accounts"] = len(bundle.facts["shared_accounts"])
    _log_parameters({**facts, **evaluated_model.parameters})
    mlflow.set_tags({f"qianmian.{key}": str(facts.get(key, "")) for key in ("data_digest", "spec_hash", "as_of")})
    figures = flatten_metrics(report)
    mlflow.log_metrics({name: value for name, value in figures.items() if "/" not in name})
    mlflow.log_dict(report.as_dict(), "report.json")
    for name, figure in evaluated_model.figures.items():
        mlflow.log_figure(figure, f"plots/{name}")
    # MLflow warns of missing values in integer columns; the only one is the rank, which is never missing
    warnings.filterwarnings("ignore", message=".*Inferred schema contains integer column.*", category=UserWarning)
    example = evaluated_model.example.to_pandas()
    parameters = pyfunc.PARAMETERS.get(bundle.kind)
    signature = infer_signature(example, pyfunc.predict_table(bundle, example, parameters), parameters)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / BUNDLE
        # readers of a bundle have no MLflow; the parameters above are without it, because it is no parameter
        replace(bundle, facts={**bundle.facts, EVALUATION: report.summary()}).save(folder)
        # the signature is inferred from the example, so no input example is stored
        warnings.filterwarnings("ignore", message=".*input example was not provided.*", category=UserWarning)
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(pyfunc.__file__)),
            artifacts={BUNDLE: str(folder)},
            signature=signature,
            pip_requirements=[f"qianmian=={_version()}"],
        )
    # logged after `log_model`, which copies the metrics of the run to the model one by one: 1,300 metrics take 8 s
    namespaced = [(name, value) for name, value in figures.items() if "/" in name]
    for start in range(0, len(namespaced), MAX_METRICS_PER_REQUEST):
        mlflow.log_metrics(dict(namespaced[start : start + MAX_METRICS_PER_REQUEST]))
    return LoggedModel(info.run_id or "", info.model_uri)


def _log_parameters(parameters: dict[str, Any]) -> None:
    """Log parameters; where `mlflow run` has logged another value, which cannot change, log ours as ``used.NAME``."""
    import mlflow

    active = mlflow.active_run()
    logged_params = mlflow.get_run(active.info.run_id).data.params if active is not None else {}
    mlflow.log_params(
        {
            f"used.{key}" if logged_params.get(key, str(value)) != str(value) else key: value
            for key, value in parameters.items()
        }
    )


def flatten_metrics(report: EvalReport) -> dict[str, float]:
    """The report as one value per name, in characters that MLflow accepts.

    Returns
    -------
    dict of str to float
        Metrics of the model, ``baseline/…``, ``difference/…`` and ``slice/…``, each also with ``.low`` and ``.high``. A
        slash in a name, such as that of a category, is no level: MLflow refuses ``a//b``.
    """
    flat: dict[str, float] = {}

    def add(prefix: str, metrics: Any) -> None:
        for name, metric in metrics.items():
            assert isinstance(metric, Metric)
            key = "".join(
                c if c.isalnum() or c in "_-. /" else "_"
                for c in (prefix + name.replace("/", "_")).replace("@", "_at_").replace("%", "pct")
            )
            flat[key], flat[f"{key}.low"], flat[f"{key}.high"] = metric.value, metric.low, metric.high

    add("", report.metrics)
    for name, metrics in report.baselines.items():
        add(f"baseline/{name}/", metrics)
    add("difference/", report.differences)
    for name, metrics in report.slices.items():
        add(f"slice/{name}/", metrics)
    return {key: value for key, value in flat.items() if value == value}  # some of MLflow's SQL stores reject NaN


def _version() -> str:
    from qianmian import __version__

    return __version__
