"""What becomes of a model that was trained: champion, challenger that waits, or version that the gate refused."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from models.persist import load_json
from qianmian import model_store
from qianmian.errors import ArtifactError
from qianmian.model_settings import GateSettings
from qianmian.paths import local_path, sqlite_file
from qianmian.schema import CHAMPION, registered_name
from qianmian.workspace import Workspace
from training.bounds import broken_bounds
from training.comparison import HORIZONS, TEST_START, Verdict, compare
from training.gate import apply_gate
from training.jobs.base import EvaluatedModel
from training.report import EvalReport

NAMED = "horizon_named"  # tag of a version whose horizon somebody named
CHOSEN = ("label", "outcome")  # facts of a model whose question is not that of the job alone, but was chosen


@dataclass(frozen=True)
class ProductionVersion:
    """The version in production.

    Attributes
    ----------
    version : str
    folder : Path or None
        Its bundle; None if its artifacts cannot be read.
    tags : dict of str to str
        Of the version.
    manifest : dict
        Of the bundle; empty if it cannot be read.
    problem : str
        Why the bundle cannot be read; empty if it can.
    """

    version: str
    folder: Path | None
    tags: dict[str, str]
    manifest: dict[str, Any]
    problem: str = ""

    @property
    def as_of(self) -> datetime | None:
        text = self.manifest.get("as_of") or self.tags.get("as_of")
        return datetime.fromisoformat(text) if text else None

    @property
    def facts(self) -> Mapping[str, Any]:
        """Those of the bundle; those that are tags, too, if it cannot be read."""
        known: Mapping[str, Any] = self.manifest.get("facts", self.tags)
        return known


@dataclass(frozen=True)
class TrainingCall:
    """How a training was called.

    Attributes
    ----------
    promote : bool or None
        True: promote what the gate accepts, whatever its horizon and cutoff. False: never promote. None: promote it
        unless it answers another question than the champion, or knows less.
    horizon_named : bool
        Whether the horizon was named, and does not follow from settings and history.
    fits_horizon : bool
        `Job.fits_horizon` of the job.
    computed : collection of str, optional
        Names of the features that profiles have.
    """

    promote: bool | None = None
    horizon_named: bool = False
    fits_horizon: bool = False
    computed: Collection[str] | None = None


@contextlib.contextmanager
def version_in_production(workspace: Workspace, job: str) -> Iterator[ProductionVersion | None]:
    """Context manager of the champion of a job, None if it has none; remote artifacts are downloaded meanwhile."""
    file = sqlite_file(workspace.tracking_uri)
    if file is not None and not file.exists():
        yield None  # nothing was ever registered; MLflow would make the store
        return
    model_store.check_reachable(workspace)
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    client, name = MlflowClient(workspace.tracking_uri, workspace.tracking_uri), registered_name(job)
    models = client.search_registered_models(f"name = '{name}'")
    number = models[0].aliases.get(CHAMPION) if models else None
    if number is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="qianmian-champion-") as scratch:
        folder, problem, tags, manifest = None, "", {}, {}
        try:
            tags = dict(client.get_model_version(name, number).tags)
            folder = _bundle_folder(workspace, client, name, str(number), scratch)
            manifest = load_json(folder / "manifest.json")
        except (MlflowException, ArtifactError, OSError) as error:
            problem = (str(error).splitlines() or [type(error).__name__])[0]
        yield ProductionVersion(str(number), folder, tags, manifest, problem)


def _bundle_folder(workspace: Workspace, client: Any, name: str, version: str, scratch: str) -> Path:
    import mlflow.artifacts

    uri = client.get_model_version_download_uri(name, version)
    local = local_path(uri)
    root = (
        Path(mlflow.artifacts.download_artifacts(uri, dst_path=scratch, tracking_uri=workspace.tracking_uri))
        if local is None
        else model_store.current_path(workspace, local)
    )
    found = sorted(root.glob("artifacts/*/manifest.json"))
    if len(found) != 1:
        raise ArtifactError("the version does not contain exactly one bundle", where=str(root), got=len(found))
    return found[0].parent


def with_test_start(evaluated_model: EvaluatedModel) -> EvaluatedModel:
    """The model with the begin of its test period among the facts of its bundle, for comparisons with later models."""
    comparison, bundle = evaluated_model.comparison, evaluated_model.bundle
    if isinstance(comparison, str):
        return evaluated_model
    facts = {**bundle.facts, TEST_START: comparison.start.isoformat()}
    return replace(evaluated_model, bundle=replace(bundle, facts=facts))


def judged(
    evaluated_model: EvaluatedModel, champion: ProductionVersion | None, settings: GateSettings, call: TrainingCall
) -> EvalReport:
    """The report with the verdict of the gate: the baselines, then the bounds, then the champion.

    The champion is compared only with a model that passes the others.
    """
    report = apply_gate(evaluated_model.report, evaluated_model.rules)
    broken = broken_bounds(evaluated_model, settings, call.computed)
    if not report.passed or broken:
        return report.with_verdict(False, (*(() if report.passed else report.reasons), *broken))
    verdict = _against(evaluated_model, champion)
    reasons = verdict.failed or (*report.reasons, *verdict.passed)
    report = replace(report, differences={**report.differences, **verdict.differences})
    return report.with_verdict(not verdict.failed, reasons)


def _against(evaluated_model: EvaluatedModel, champion: ProductionVersion | None) -> Verdict:
    if champion is None:
        return Verdict(("there is no champion: the baselines decide",))
    if champion.folder is None or champion.problem:
        return Verdict.not_compared(f"version {champion.version} cannot be read ({champion.problem})")
    return compare(evaluated_model.comparison, evaluated_model.bundle, champion.version, champion.folder)


def reasons_to_wait(
    evaluated_model: EvaluatedModel, champion: ProductionVersion | None, call: TrainingCall
) -> tuple[str, ...]:
    """Why a model that the gate accepts does not replace the champion by itself; empty if it does."""
    if call.promote is not None:
        return () if call.promote else ("--no-promote was given",)
    if champion is None:
        return ()
    found = []
    bundle = evaluated_model.bundle
    if champion.as_of is not None and bundle.as_of < champion.as_of:
        found.append(
            f"its data end at {bundle.as_of:%Y-%m-%d}, before those of the champion (version {champion.version}, "
            f"{champion.as_of:%Y-%m-%d})"
        )
    compares_horizon = not call.fits_horizon or call.horizon_named or champion.tags.get(NAMED) == "true"
    found += [
        f"{name} is {bundle.facts.get(name)}, and that of the champion (version {champion.version}) is "
        f"{champion.facts[name]}"
        for name in (*CHOSEN, *(HORIZONS if compares_horizon else ()))
        if name in champion.facts and str(bundle.facts.get(name)) != str(champion.facts[name])
    ]
    return tuple(found)
