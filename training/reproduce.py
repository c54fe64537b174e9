"""`qianmian models reproduce`: train a registered version again from what MLflow holds of it, and compare both."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from features.data.lake import Lake
from features.data.locking import workspace_lock
from features.definitions.building import make_builder
from features.snapshot_table import file_digest, read_snapshot_table
from models.bundle import model_hash, state_files
from models.parallel import one_blas_thread
from models.persist import load_json
from qianmian import model_store
from qianmian.errors import ArtifactError, DataError, NotFound, UsageError
from qianmian.packs import builtin_packs
from qianmian.schema import registered_name
from qianmian.settings import Settings, problems_of
from qianmian.workspace import Workspace
from training.gate import apply_gate
from training.jobs import JOBS
from training.jobs.base import EvaluatedModel, Progress, TrainingContext
from training.provenance import ARGUMENTS_FILE, OPTIONS, effective_settings, provenance, versions_of_libraries
from training.tracking import flatten_metrics, tracking_at

TOLERANCE = 1e-9  # of a metric, relative: MLflow's stores keep 64 bits, some of them as text
CODE_FACTS = ("git_commit", "lock_digest")  # of the provenance: what may explain another model
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class RegisteredRun:
    """A version of the registry, and what its run recorded.

    Attributes
    ----------
    name, version, run_id : str
    arguments : mapping
        Content of `ARGUMENTS_FILE`.
    tags : mapping of str to str
        Of the run.
    metrics : mapping of str to float
        Of the run.
    manifest : mapping
        Of the bundle.
    """

    name: str
    version: str
    run_id: str
    arguments: Mapping[str, Any]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    manifest: Mapping[str, Any]

    @property
    def data_digest(self) -> str:
        return self.tags["qianmian.data_digest"]


@dataclass(frozen=True)
class Reproduction:
    """A version beside its repetition.

    Attributes
    ----------
    name, version, run_id : str
    data_digest : str
        Of the lake, the same for both.
    model_hash, repeated_hash : str
        Hash of the registered model and of its repetition (`ModelBundle.model_hash`).
    metrics : int
        Number of metrics that were compared.
    other_metrics : dict of str to (float, float)
        Those that differ: as registered and as repeated; NaN for one that is missing.
    other_files : tuple of str
        Files of the fitted state that differ.
    differences : tuple of str
        What differs between both trainings and may explain it: settings, libraries, code.
    """

    name: str
    version: str
    run_id: str
    data_digest: str
    model_hash: str
    repeated_hash: str
    metrics: int
    other_metrics: dict[str, tuple[float, float]]
    other_files: tuple[str, ...]
    differences: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether the model and all its metrics are the same."""
        return self.model_hash == self.repeated_hash and not self.other_metrics

    def as_dict(self) -> dict[str, Any]:
        """The fields and `same` as plain values for JSON."""
        return {**self.__dict__, "same": self.same}


def reproduce(
    workspace: Workspace,
    name: str,
    version: int,
    *,
    lake_workspace: Workspace | None = None,
    data: Path | None = None,
    progress: Progress = lambda line: None,
) -> Reproduction:
    """Train a version again, on the same data with the same arguments, and compare; nothing is registered or published.

    Parameters
    ----------
    workspace : Workspace
        Its registry has the version.
    name : str
        A registered model, or its job.
    version : int
    lake_workspace : Workspace, optional
        Workspace whose lake is read, such as a restored backup of the time of the training; default: the same.
    data : Path, optional
        The table of a model that was trained on one; it may have another name by now.
    progress : callable, optional
        Called with a line of text at each step.

    Raises
    ------
    NotFound
        There is no such model or version.
    DataError
        The lake or the table has another digest, or the run does not hold what is needed.
    UsageError
        A lake is given for a model of a table or the reverse, or the table is missing.
    """
    workspace.require()
    run = read_run(workspace, registered_name(name), version)
    if OPTIONS in run.arguments:
        if data is None or lake_workspace is not None:
            raise UsageError(
                f"{run.name} version {version} was trained on a table, which is not kept",
                got="no --data" if data is None else "--lake",
                hint=f"give the file of digest {run.data_digest}: "
                f"qianmian models reproduce {run.arguments['job']} {version} --data FILE",
            )
        with workspace_lock(workspace), one_blas_thread():
            return compare(workspace, run, _of_table(run, data, progress), run.arguments["settings"])
    if data is not None:
        raise UsageError(
            f"{run.name} version {version} was trained on the lake", where="--data", hint="omit --data, or see --lake"
        )
    return _of_lake(workspace, run, lake_workspace, progress)


def _of_table(run: RegisteredRun, data: Path, progress: Progress) -> EvaluatedModel:
    """Train the version of a table again."""
    from training.classify import run as classify
    from training.uplift import table as uplift

    read_snapshot_table(data)  # a file that is missing or no table is refused as `train` does
    if (found := file_digest(data)) != run.data_digest:
        raise DataError(
            f"{run.name} version {run.version} was trained on another table",
            where=str(data),
            got=f"a file of digest {found}",
            allowed=f"digest {run.data_digest}",
            hint="give the same file, byte by byte",
        )
    progress(f"{run.arguments['job']}: training version {run.version} again, on {data.name}")
    options, seed = dict(run.arguments[OPTIONS]), int(run.arguments["settings"]["seed"])
    as_of = datetime.fromisoformat(run.manifest["as_of"])
    if run.manifest["kind"] == classify.KIND:
        return classify.evaluate(classify.SnapshotTask(data, **options), seed, as_of, progress)
    return uplift.evaluate(uplift.UpliftTask(data, **options), seed, as_of, progress)


def _of_lake(
    workspace: Workspace, run: RegisteredRun, lake_workspace: Workspace | None, progress: Progress
) -> Reproduction:
    """Train a version of the lake again and compare."""
    source = (lake_workspace or workspace).require()
    lake = Lake(source)
    if lake.digest != run.data_digest:
        raise DataError(
            f"{run.name} version {run.version} was trained on other data, so it cannot be repeated on this lake",
            where=str(source.lake),
            got=f"a lake of digest {lake.digest}",
            allowed=f"digest {run.data_digest}",
            hint="restore the lake of that time into a workspace, and name it with --lake",
        )
    settings = settings_of(run, source)
    arguments, job = run.arguments, JOBS[str(run.arguments["job"])]
    progress(f"{job.name}: training version {run.version} again, as of {str(arguments['as_of'])[:10]}")
    with workspace_lock(workspace), workspace_lock(source), one_blas_thread():
        context = TrainingContext(
            workspace,
            datetime.fromisoformat(arguments["as_of"]),
            settings,
            progress,
            arguments["horizon_days"],
            arguments["active_days"],
            tune=bool(arguments["tune"]),
            inherited={job.name: dict(arguments["inherited"])},
            _builder=make_builder(lake, settings),
        )
        evaluated_model = job.run(context)
    return compare(workspace, run, evaluated_model, effective_settings(source, settings))


def compare(
    workspace: Workspace, run: RegisteredRun, evaluated_model: EvaluatedModel, settings: Mapping[str, Any]
) -> Reproduction:
    """What is the same and what differs between a version and its repetition.

    Parameters
    ----------
    settings : mapping
        Effective settings of the repetition.
    """
    report = apply_gate(evaluated_model.report, evaluated_model.rules)
    repeated = flatten_metrics(report)
    pairs = {
        metric: (run.metrics.get(metric, math.nan), value)
        for metric, value in repeated.items()  # the run may have more, such as a comparison with the champion
    }
    other_metrics = {
        metric: pair for metric, pair in pairs.items() if not math.isclose(*pair, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    }
    kind, files = str(run.manifest["kind"]), state_files(run.manifest["files"])
    with tempfile.TemporaryDirectory(prefix="qianmian-reproduce-") as folder:
        evaluated_model.bundle.save(Path(folder))
        manifest = load_json(Path(folder) / MANIFEST)
    own = state_files(manifest["files"])
    hashes = run.tags.get("qianmian.model_hash") or model_hash(kind, files), str(manifest["model_hash"])
    other_files = tuple(sorted(file for file in {*files, *own} if files.get(file) != own.get(file)))
    now = provenance(workspace, evaluated_model)
    return Reproduction(
        run.name,
        run.version,
        run.run_id,
        run.data_digest,
        *hashes,
        len(pairs),
        other_metrics,
        other_files if hashes[0] != hashes[1] else (),
        (
            *different_values("settings", flat(run.arguments["settings"]), flat(settings)),
            *different_values("library", run.arguments["libraries"], versions_of_libraries()),
            *different_values(
                "code",
                {fact: run.tags.get(f"qianmian.{fact}", "") for fact in CODE_FACTS},
                {f: now[f] for f in CODE_FACTS},
            ),
            *different_values("features", {"spec": run.manifest["spec_hash"] or ""}, {"spec": now["spec_hash"]}),
        ),
    )


def read_run(workspace: Workspace, name: str, version: int) -> RegisteredRun:
    """A version of a registered model with what its run recorded.

    Raises
    ------
    NotFound
        There is no such model, version or run.
    DataError
        The run has no `ARGUMENTS_FILE`.
    ArtifactError
        The bundle of the version cannot be read.
    """
    model_store.check_reachable(workspace)
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    model_store.adopt(workspace)
    uri = workspace.tracking_uri
    client = MlflowClient(uri, uri)
    with tracking_at(uri), tempfile.TemporaryDirectory(prefix="qianmian-reproduce-") as folder:
        versions = {int(one.version): one for one in client.search_model_versions(f"name='{name}'", max_results=1000)}
        if version not in versions:
            raise NotFound(
                f"{name} has no version {version}" if versions else f"no model is registered as {name}",
                allowed=", ".join(map(str, sorted(versions))) or None,
                hint="see `qianmian models list`",
            )
        run_id = str(versions[version].run_id)
        try:
            run = client.get_run(run_id)
            recorded = [file.path for file in client.list_artifacts(run_id)]
        except MlflowException as error:
            raise NotFound(
                f"the run of {name} version {version} was deleted, so nothing says how it was trained", got=run_id
            ) from error
        if ARGUMENTS_FILE not in recorded:
            raise DataError(
                f"{name} version {version} cannot be repeated: its run does not hold its arguments",
                got="a model of an earlier version of this project",
                hint="train again: this version of the project records them",
            )
        arguments = load_json(Path(client.download_artifacts(run_id, ARGUMENTS_FILE, folder)))
        try:
            address = client.get_model_version_download_uri(name, str(version))
            root = Path(mlflow.artifacts.download_artifacts(address, dst_path=folder))
        except (MlflowException, OSError) as error:
            raise ArtifactError(
                "the artifacts of the model version cannot be read",
                where=f"models:/{name}/{version}",
                got=str(error).splitlines()[0],
            ) from error
        manifests = sorted(root.glob(f"artifacts/*/{MANIFEST}"))
        if len(manifests) != 1:
            raise ArtifactError("the model version has no bundle", where=f"models:/{name}/{version}")
        manifest = load_json(manifests[0])
    return RegisteredRun(name, str(version), run_id, arguments, dict(run.data.tags), dict(run.data.metrics), manifest)


def settings_of(run: RegisteredRun, workspace: Workspace) -> Settings:
    """The settings of a run; a pack in the workspace is looked for in the given one.

    Raises
    ------
    DataError
        This version of the project does not accept them.
    """
    recorded = dict(run.arguments["settings"])
    if (pack := recorded.get("pack")) and pack not in builtin_packs():
        recorded["pack"] = str(workspace.root / pack)
    try:
        return Settings.model_validate(recorded)
    except ValidationError as error:
        raise DataError(
            f"the settings of {run.name} version {run.version} are not valid in this version of the project",
            got="; ".join(problems_of(error)),
            hint=f"use the code of the run: commit {run.tags.get('qianmian.git_commit') or 'unknown'}",
        ) from error


def different_values(what: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """A line for each key whose value differs.

    Examples
    --------
    >>> different_values("library", {"numpy": "2.1", "scipy": "1.15"}, {"numpy": "2.2", "scipy": "1.15"})
    ('library numpy: 2.1 in the run, 2.2 now',)
    """

    def said(values: Mapping[str, Any], key: str) -> str:
        return str(values[key]) if key in values and values[key] != "" else "none"

    keys = sorted({*before, *now})
    return tuple(
        f"{what} {key}: {said(before, key)} in the run, {said(now, key)} now"
        for key in keys
        if said(before, key) != said(now, key)
    )


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings by their dotted names, the values as JSON.

    Examples
    --------
    >>> flat({"seed": 0, "churn": {"risk_bands": None}})
    {'seed': '0', 'churn.risk_bands': 'null'}
    """
    found: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = json.dumps(value, sort_keys=True)
    return found
