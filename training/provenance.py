"""Where a model comes from: digests of data, features, settings and model, the seed, the code and the libraries."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import qianmian
from models.bundle import library_versions
from qianmian.redaction import redact
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from training.arguments import TableArguments, TrainingArguments
from training.jobs.base import EvaluatedModel

NOT_OF_TRAINING = frozenset({"serving", "lists"})  # sections of the settings that no training reads
ARGUMENTS_FILE = "training.json"  # artifact of a run: what `qianmian models reproduce` trains again from
OPTIONS = "options"  # key of that file, for a table
VERSION_TAGS = ("data_digest", "model_hash", "git_commit")  # what the version in the registry says, too
CODE = Path(qianmian.__file__).resolve().parent.parent  # a checkout, or where packages are installed
GIT_SECONDS = 10


def provenance(workspace: Workspace, evaluated_model: EvaluatedModel) -> dict[str, str]:
    """What a run, a version and a description say of the origin of a model.

    Parameters
    ----------
    workspace : Workspace
        Paths in the settings are relative to it, so that a copy of a workspace has the same settings.
    evaluated_model : EvaluatedModel

    Returns
    -------
    dict of str to str
        ``data_digest`` of the lake (of a table: of its file), ``spec_hash`` of the columns that the model reads (empty
        if it reads none), ``settings_hash`` (empty for a table, of which only the seed counts), ``model_hash``,
        ``seed``, ``git_commit`` and ``lock_digest`` (both empty outside a checkout; ``-dirty`` marks uncommitted
        changes), and ``libraries``, the versions of Python and of what fits models.
    """
    bundle, arguments = evaluated_model.bundle, evaluated_model.arguments
    settings = effective_settings(workspace, arguments.settings) if isinstance(arguments, TrainingArguments) else {}
    return {
        "data_digest": str(bundle.facts["data_digest"]),
        "spec_hash": bundle.spec.hash if bundle.spec else "",
        "settings_hash": digest(settings) if settings else "",
        "model_hash": bundle.model_hash,
        "seed": str(bundle.facts["seed"]),
        "git_commit": git_commit(),
        "lock_digest": lock_digest(),
        "libraries": ", ".join(f"{name} {version}" for name, version in versions_of_libraries().items()),
    }


def effective_settings(workspace: Workspace, settings: Settings) -> dict[str, Any]:
    """The settings that a training can read, as plain values, without passwords.

    Examples
    --------
    >>> found = effective_settings(Workspace(Path("/shop")), Settings(pack="/shop/packs/tea"))
    >>> found["pack"], "serving" in found
    ('packs/tea', False)
    """
    found = settings.model_dump(mode="json", exclude=set(NOT_OF_TRAINING))
    pack = Path(settings.pack or "")
    if pack.is_absolute() and pack.is_relative_to(workspace.root):
        found["pack"] = pack.relative_to(workspace.root).as_posix()
    plain: dict[str, Any] = json.loads(redact(json.dumps(found)))
    return plain


def recorded_arguments(workspace: Workspace, arguments: TrainingArguments | TableArguments) -> dict[str, Any]:
    """What `ARGUMENTS_FILE` holds: the arguments of a training as plain values."""
    if isinstance(arguments, TableArguments):
        return {
            "job": arguments.job,
            OPTIONS: dict(arguments.options),
            "settings": {"seed": arguments.seed},
            "libraries": versions_of_libraries(),
        }
    return {
        "job": arguments.job,
        "as_of": arguments.as_of.isoformat(),
        "horizon_days": arguments.horizon_days,
        "active_days": arguments.active_days,
        "tune": arguments.tune,
        "inherited": dict(arguments.inherited),
        "settings": effective_settings(workspace, arguments.settings),
        "libraries": versions_of_libraries(),
    }


def record(workspace: Workspace, evaluated_model: EvaluatedModel) -> dict[str, str]:
    """Write the provenance into the active MLflow run: tags, and `ARGUMENTS_FILE`. Returns the tags of a version."""
    import mlflow

    found = provenance(workspace, evaluated_model)
    mlflow.set_tags({f"qianmian.{name}": value for name, value in found.items()})
    if evaluated_model.arguments is not None:
        mlflow.log_dict(recorded_arguments(workspace, evaluated_model.arguments), ARGUMENTS_FILE)
    return {name: found[name] for name in VERSION_TAGS}


def versions_of_libraries() -> dict[str, str]:
    """Versions of Python and of the libraries that fit models."""
    return {"python": platform.python_version(), **library_versions()}


def digest(value: Mapping[str, Any]) -> str:
    """Digest of plain values; the order of the keys does not matter.

    Examples
    --------
    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


@cache
def git_commit(folder: Path = CODE) -> str:
    """The commit of a checkout, with ``-dirty`` if tracked files were changed; empty outside one, or without git."""
    if not (folder / ".git").exists():
        return ""
    commit, changes = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}-dirty" if commit and changes else commit


def lock_digest(folder: Path = CODE) -> str:
    """Digest of ``requirements.lock`` of a checkout; empty outside one."""
    lock = folder / "requirements.lock"
    return hashlib.sha256(lock.read_bytes()).hexdigest()[:16] if (folder / ".git").exists() and lock.exists() else ""


def _git(folder: Path, *arguments: str) -> str:
    try:
        found = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=GIT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):  # git is not installed, or hangs on a remote disk
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
