"""MLflow runs: parameters, metrics, figures and the model of each job."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qianmian import model_store
from qianmian.schema import EVALUATION, registered_name
from qianmian.workspace import Workspace, explain_os_errors
from training import descriptions
from training.jobs.base import EvaluatedModel
from training.provenance import git_commit
from training.report import EvalReport, Metric

BUNDLE = "bundle"
MAX_DIGEST = 36  # characters of the digest of a dataset in MLflow
MAX_METRICS_PER_REQUEST = 1000  # limit of an MLflow tracking server
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoggedModel:
    """Run and URI of a model logged to MLflow."""

    run_id: str
    model_uri: str


@contextlib.contextmanager
def run(workspace: Workspace, job: str, name: str | None = None) -> Iterator[Any]:
    """Start an MLflow run in the experiment of a job, nested in the active run if there is one.

    When `mlflow run` started the process, the run of ``MLFLOW_RUN_ID`` is continued: its name and its experiment are
    those that the caller of `mlflow run` has chosen. Artifacts are stored in the workspace for a database store, by the
    server for an MLflow server, and by the experiment for a continued run.

    Parameters
    ----------
    workspace : Workspace
        With the tracking store.
    job : str
        Name of the job, for example ``churn``; its experiment is ``qianmian-churn``. A nested run is in the experiment
        of the active one, whatever the job.
    name : str, optional
        Name of the run; default: `job`.

    Raises
    ------
    WorkspaceError
        If the workspace was copied or moved, and its store cannot be changed, or its database server does not answer.
    """
    model_store.check_reachable(workspace)
    import mlflow

    uri = workspace.tracking_uri
    for chatty in ("alembic", "mlflow.store.db.utils", "mlflow.utils.requirements_utils", "mlflow.pyfunc"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    joined = os.environ.get("MLFLOW_RUN_ID")
    model_store.adopt(workspace, required=True)
    with explain_os_errors(workspace.root), tracking_at(uri):
        parent = mlflow.active_run()
        if joined is None and parent is None:
            _use_experiment(workspace, registered_name(job))
        model_store.keep_inside(workspace)
        with mlflow.start_run(
            run_name=None if joined and parent is None else name or job,
            nested=parent is not None,
            experiment_id=parent.info.experiment_id if parent is not None else None,
        ) as active:
            if parent is None:
                mlflow.set_tag("qianmian.job", job)
            yield active


def _use_experiment(workspace: Workspace, name: str) -> None:
    """Make an experiment the active one; a new one of a database store has its artifacts in the workspace."""
    import mlflow

    if mlflow.get_experiment_by_name(name) is None:
        local = not workspace.tracking_uri.startswith(("http://", "https://", "databricks"))
        mlflow.create_experiment(name, artifact_location=workspace.artifact_root.as_uri() if local else None)
    mlflow.set_experiment(name)


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
    """Log parameters, data, metrics, figures, a description and the model with its signature to the active run."""
    import mlflow

    from training import pyfunc, signatures, wheel

    bundle = evaluated_model.bundle
    facts = {"as_of": bundle.as_of.isoformat(), "spec_hash": bundle.spec.hash if bundle.spec else "", **bundle.facts}
    if "shared_accounts" in facts:  # by their one_id, which only the bundle has: a logged parameter cannot be changed
        facts["shared_accounts"] = len(bundle.facts["shared_accounts"])
    _log_parameters({**facts, **evaluated_model.parameters})
    mlflow.set_tags({f"qianmian.{key}": str(facts.get(key, "")) for key in ("data_digest", "spec_hash", "as_of")})
    mlflow.set_tag("qianmian.command", descriptions.command(evaluated_model))
    # of the project, or else of the folder in which a user keeps settings and scripts; MLflow looks beside the program
    if commit := (git_commit() or git_commit(Path.cwd())).removesuffix("-dirty"):
        mlflow.set_tag("mlflow.source.git.commit", commit)
    _log_data(evaluated_model)
    figures = flatten_metrics(report)
    mlflow.log_metrics({name: value for name, value in figures.items() if "/" not in name})
    mlflow.log_dict(report.as_dict(), "report.json")
    for name, figure in evaluated_model.figures.items():
        mlflow.log_figure(figure, f"plots/{name}")
    # MLflow warns of missing values in integer columns; the only one is the rank, which is never missing
    warnings.filterwarnings("ignore", message=".*Inferred schema contains integer column.*", category=UserWarning)
    rows = evaluated_model.example.to_pandas()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / BUNDLE
        # readers of a bundle have no MLflow; the parameters above are without it, because it is no parameter
        replace(bundle, facts={**bundle.facts, EVALUATION: report.summary()}).save(folder)
        # a model that is given ids has no input example, because an id is personal
        warnings.filterwarnings("ignore", message=".*input example was not provided.*", category=UserWarning)
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(pyfunc.__file__)),
            artifacts={BUNDLE: str(folder)},
            signature=signatures.signature_of(bundle, rows),
            input_example=signatures.input_example(bundle, rows),
            code_paths=[str(wheel.write_wheel(Path(scratch)))],
            pip_requirements=wheel.requirements(),
            metadata={"columns": signatures.input_columns(bundle)},
        )
    # logged after `log_model`, which copies the metrics of the run to the model one by one: 1,300 metrics take 8 s
    namespaced = [(name, value) for name, value in figures.items() if "/" in name]
    for start in range(0, len(namespaced), MAX_METRICS_PER_REQUEST):
        mlflow.log_metrics(dict(namespaced[start : start + MAX_METRICS_PER_REQUEST]))
    return LoggedModel(info.run_id or "", info.model_uri)


def describe(
    workspace: Workspace,
    evaluated_model: EvaluatedModel,
    report: EvalReport,
    origin: Mapping[str, str],
    version: int,
    description: str,
) -> None:
    """Write the descriptions of a registered model and of its version.

    Parameters
    ----------
    workspace : Workspace
    evaluated_model : EvaluatedModel
    report : EvalReport
        With the verdict of the gate.
    origin : mapping of str to str
        Where the model comes from (`training.provenance.record`).
    version : int
        Number of the version in the registry.
    description : str
        That of the job; empty for a model of a table.
    """
    from mlflow.tracking import MlflowClient

    client = MlflowClient(workspace.tracking_uri, workspace.tracking_uri)
    name = registered_name(str(evaluated_model.bundle.facts["job"]))
    client.update_registered_model(name, descriptions.of_model(evaluated_model, description))
    client.update_model_version(name, str(version), descriptions.of_version(evaluated_model, report, origin))


def _log_data(evaluated_model: EvaluatedModel) -> None:
    """Log what the model was trained on as a dataset of the run: the lake or the table, by its digest.

    MLflow's source is a set of tags, because the path of a lake changes when its workspace is moved.
    """
    import mlflow
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset

    facts = evaluated_model.bundle.facts
    digests = {"table" if evaluated_model.bundle.kind in descriptions.OF_TABLES else "lake": facts["data_digest"]}
    if "promotions_digest" in facts:
        digests["promotions"] = facts["promotions_digest"]
    for name, digest in digests.items():
        tags = {"qianmian": name, "before": evaluated_model.bundle.as_of.isoformat()}
        dataset: Any = MetaDataset(CodeDatasetSource(tags), name, str(digest)[:MAX_DIGEST])  # type: ignore[abstract]
        mlflow.log_input(dataset, context="training")


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
