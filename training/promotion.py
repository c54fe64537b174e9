"""Changes to the MLflow registry: register a challenger, promote a version, roll back. Each is recorded as an event.

A change of the champion takes several writes: two aliases, the tags that the version has published, the event. What
will be written is therefore written first, as the tag `INTENT_TAG` of the registered model, and each write can be
repeated. A process that is killed leaves the champion of before or that of after; `mend` finishes what it had begun.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from features.data.locking import champions_lock
from features.profiles.tags.published import forget_versions, keep_published, publish_version, published_files
from qianmian import model_store
from qianmian.errors import GateRefused, UsageError, WorkspaceError
from qianmian.paths import sqlite_file
from qianmian.schema import (
    CHALLENGER,
    CHAMPION,
    EVENT_TAG,
    GATE_TAG,
    INTENT_TAG,
    PREVIOUS,
    REGISTERED_PREFIX,
    registered_name,
)
from qianmian.workspace import Workspace

logger = logging.getLogger(__name__)

ANY_CHAMPION = "any"
REFUSED = "refused"  # value of `GATE_TAG`
INTENTS_QUERY = "SELECT name, value FROM registered_model_tags WHERE key = :key"
MAX_TAG = 4900  # characters; MLflow takes 5,000
MODEL_URI = "models:/"  # begin of the address of a logged model
Event = dict[str, Any]


def register(
    workspace: Workspace, job: str, run_id: str, model_uri: str, tags: Mapping[str, str], *, description: str = ""
) -> int:
    """Register a new version; the champion stays. The alias `challenger` is set by `challenge`.

    Parameters
    ----------
    workspace : Workspace
    job : str
        Name of the training job.
    run_id, model_uri : str
        MLflow run and the model logged in it.
    tags : mapping of str to str
        Tags of the version, among them the verdict of the gate.
    description : str
        Of the version.

    Returns
    -------
    int
        The version.

    Raises
    ------
    WorkspaceError
        If the model was stored outside the workspace, because the workspace was moved during the training.
    """
    from mlflow.exceptions import MlflowException

    client, name = client_of(workspace), registered_name(job)
    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        client.create_registered_model(name)
    _require_inside(workspace, client, model_uri)
    short = {key: value[:MAX_TAG] for key, value in tags.items()}
    version = client.create_model_version(
        name,
        source=model_uri,
        run_id=run_id,
        tags=short,
        description=description or None,
        model_id=model_uri.removeprefix(MODEL_URI),  # an MLflow server takes the address of a model only with it
    )
    return int(version.version)


def challenge(workspace: Workspace, job: str, version: int) -> None:
    """Give a version the alias `challenger`, which the one before it loses."""
    client, name = client_of(workspace), registered_name(job)
    with champions_lock(workspace):
        client.set_registered_model_alias(name, CHALLENGER, str(version))
        _forget_others(workspace, client, name)


def promote(
    workspace: Workspace,
    job: str,
    version: int,
    now: datetime,
    *,
    action: str = "promote",
    reason: str = "",
    despite_gate: bool = False,
    compared_with: str | None = ANY_CHAMPION,
) -> Event | None:
    """Make a version the champion; the champion so far becomes `previous`.

    Parameters
    ----------
    workspace : Workspace
    job : str
    version : int
    now : datetime
        Time of the event.
    action : str
        ``promote``, or ``register`` for a training.
    reason : str
        Why, for `models history`.
    despite_gate : bool
        Promote a version that the gate has refused, too.
    compared_with : str, optional
        The champion with which the version was compared, None if there was none; by default it does not matter.

    Returns
    -------
    dict or None
        Name of the registered model, action, version, previous version, reason, the data of the version, whether its
        tags are published now, and whether those of another version stay instead. None, and nothing has changed, if
        another version than `compared_with` has become the champion meanwhile.

    Raises
    ------
    UsageError
        If the model or the version is not registered.
    GateRefused
        If the gate has refused the version.
    """
    client, name = client_of(workspace), require_registered(workspace, job)
    found = {int(one.version): one for one in client.search_model_versions(f"name = '{name}'")}
    if version not in found:
        raise UsageError(
            f"{name} has no version {version}", allowed=sorted(found), hint=f"see `qianmian models show {job}`"
        )
    tags = found[version].tags
    if tags.get(GATE_TAG) == REFUSED:
        if not despite_gate:
            raise GateRefused(
                f"the gate refused version {version} of {name}",
                got=tags.get("gate_reasons"),
                hint=f"train again, or `qianmian models promote {job} {version} --despite-gate`",
            )
        reason = f"despite the gate: {reason or tags.get('gate_reasons', '')}"
    with champions_lock(workspace):
        mend_locked(workspace, client)
        champion = client.get_registered_model(name).aliases.get(CHAMPION)
        if compared_with != ANY_CHAMPION and compared_with != (None if champion is None else str(champion)):
            return None
        return _set_champion(workspace, client, name, version, action, now, reason, tags)


def rollback(workspace: Workspace, job: str, now: datetime, *, reason: str = "") -> Event:
    """Make `previous` the champion again, and the champion `previous`.

    Raises
    ------
    UsageError
        If the model is not registered or has no previous version.
    """
    client, name = client_of(workspace), require_registered(workspace, job)
    with champions_lock(workspace):
        mend_locked(workspace, client)
        before = client.get_registered_model(name).aliases.get(PREVIOUS)
        if before is None:
            raise UsageError(
                f"{name} has no previous version",
                hint=f"see `qianmian models history {job}`, then `qianmian models promote`",
            )
        tags = client.get_model_version(name, before).tags
        return _set_champion(workspace, client, name, int(before), "rollback", now, reason, tags)


def mend(workspace: Workspace) -> list[Event]:
    """Finish the changes of champions that processes had begun when they were killed.

    Without one this reads one row of the store, without importing MLflow; an MLflow server is asked. A change that
    another process is making at this moment is left to it.

    Returns
    -------
    list of dict
        The events that were finished.

    Raises
    ------
    WorkspaceError
        If the store cannot be written.
    """
    if not _intents(workspace):
        return []
    with champions_lock(workspace):
        return mend_locked(workspace, client_of(workspace))


def mend_locked(workspace: Workspace, client: Any) -> list[Event]:
    """As `mend`, for a caller that holds the lock."""
    done = []
    for name, value in _intents(workspace, client):
        event = json.loads(value)
        logger.warning("registry=mended model=%s action=%s version=%s", name, event["action"], event["version"])
        done.append(_finish(workspace, client, name, event))
    return done


# ---- the writes ------------------------------------------------------------------------------------------------------


def _set_champion(
    workspace: Workspace,
    client: Any,
    name: str,
    version: int,
    action: str,
    now: datetime,
    reason: str,
    tags: Mapping[str, str],
) -> Event:
    aliases = client.get_registered_model(name).aliases
    before = int(aliases[CHAMPION]) if CHAMPION in aliases else None
    kept = int(aliases[PREVIOUS]) if PREVIOUS in aliases else None
    event = {
        "action": action,
        "version": version,
        "previous": before if before != version else kept,
        "reason": reason[: MAX_TAG - 500],
        "as_of": tags.get("as_of", ""),
        "data_digest": tags.get("data_digest", ""),
        "at": f"{now:%Y-%m-%dT%H:%M:%S.%fZ}",
    }
    client.set_registered_model_tag(name, INTENT_TAG, json.dumps(event, ensure_ascii=False))
    return _finish(workspace, client, name, event)


def _finish(workspace: Workspace, client: Any, name: str, intent: Event) -> Event:
    """Make the writes of an intent; each gives the same when it is repeated."""
    version = str(intent["version"])
    if intent["previous"] is not None:  # of a champion that an earlier version of this project registered
        keep_published(workspace, name, str(intent["previous"]))
    event = {key: value for key, value in intent.items() if key != "at"}
    if intent["previous"] is not None:
        client.set_registered_model_alias(name, PREVIOUS, str(intent["previous"]))
    client.set_registered_model_alias(name, CHAMPION, version)
    if str(client.get_registered_model(name).aliases.get(CHALLENGER)) == version:
        client.delete_registered_model_alias(name, CHALLENGER)
    published = publish_version(workspace, name, version)
    _forget_others(workspace, client, name)
    client.set_registered_model_tag(name, f"{EVENT_TAG}{intent['at']}", json.dumps(event, ensure_ascii=False))
    client.delete_registered_model_tag(name, INTENT_TAG)
    of_another = not published and bool(published_files(workspace, name))
    return {"name": name, **event, "tags_published": published, "tags_of_another": of_another}


def _forget_others(workspace: Workspace, client: Any, name: str) -> None:
    """Forget the kept tags of the versions that have no alias."""
    forget_versions(workspace, name, [str(one) for one in client.get_registered_model(name).aliases.values()])


def _intents(workspace: Workspace, client: Any | None = None) -> list[tuple[str, str]]:
    """The changes that were begun and not finished: name of the registered model, and the event as JSON."""
    found = model_store.rows(workspace, INTENTS_QUERY, {"key": INTENT_TAG})
    if found is not None:
        return [(str(name), str(value)) for name, value in found if str(name).startswith(REGISTERED_PREFIX)]
    file = sqlite_file(workspace.tracking_uri)
    if file is not None and not file.exists():
        return []
    models = (client or client_of(workspace)).search_registered_models(
        filter_string=f"name LIKE '{REGISTERED_PREFIX}%'"
    )
    return [(str(model.name), model.tags[INTENT_TAG]) for model in models if INTENT_TAG in model.tags]


def client_of(workspace: Workspace) -> Any:
    """MLflow client of the store of a workspace, which may be written."""
    model_store.check_reachable(workspace)
    from mlflow.tracking import MlflowClient

    model_store.adopt(workspace, required=True)
    return MlflowClient(tracking_uri=workspace.tracking_uri, registry_uri=workspace.tracking_uri)


def _require_inside(workspace: Workspace, client: Any, model_uri: str) -> None:
    """Check that the artifacts of a model are in the workspace, if its own store has recorded them."""
    if model_store.own_store(workspace) is None:
        return
    address = str(client.get_logged_model(model_uri.removeprefix(MODEL_URI)).artifact_location)
    if not model_store.is_inside(workspace, address):
        raise WorkspaceError(
            "the model was stored outside the workspace",
            where=address,
            allowed=str(workspace.artifact_root),
            hint="another process has opened the same workspace under another path; wait for it, then train again",
        )


def require_registered(workspace: Workspace, job: str) -> str:
    """Name of the registered model of a job.

    Raises
    ------
    UsageError
        If there is none.
    """
    name = registered_name(job)
    names = sorted(
        model.name
        for model in client_of(workspace).search_registered_models(filter_string=f"name LIKE '{REGISTERED_PREFIX}%'")
    )
    if name not in names:
        raise UsageError(
            f"no model is registered as {name}",
            allowed=", ".join(names) or "none yet",
            hint=f"run `qianmian train {job}`",
        )
    return name
