"""Erasing a customer from a workspace: in order, finished after a kill, checked, and with a signed receipt.

`PLACES` lists what holds customers. First of all the tombstones are written, so that from then on no ingest and no
server takes the customer in again. The file under ``erasures/pending/`` names the customer until all places are erased.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from features.data.lake import Lake
from features.data.locking import exclusive_writer, workspace_lock
from features.data.pii_key import load_key, save_key_fingerprint
from features.erasure.customer import Erased, ErasedCustomer, Eraser
from features.erasure.matching import is_distinctive
from features.erasure.profiles import erase_model_tags, erase_profiles
from features.erasure.resolving import find_erased
from features.erasure.scan import Trace, scan_workspace
from features.erasure.tables import erase_identity, erase_lake, erase_other_files, erase_quarantine
from features.erasure.tombstones import add_tombstones, tombstone
from features.event_log.erasing import erase_events
from features.event_log.location import locate
from qianmian import __version__
from qianmian.errors import UsageError, WorkspaceError
from qianmian.registry import Registry
from qianmian.settings import Settings
from qianmian.workspace import Workspace, atomic_path, write_json
from training.erased_exports import erase_exports
from training.erased_models import erase_models
from training.receipts import fingerprint, sign
from training.wheel import wheels_below

Progress = Callable[[str], None]
UNREACHED = (
    "backups and copies of the workspace: erase them there too, or run this command after restoring one",
    "an event log that neither the settings nor QIANMIAN_ONLINE_STORE name",
    "files outside the workspace that were copied, moved or changed, or that no command of this workspace wrote",
    "the systems that the data came from: their next export has the customer again, whose rows are then dropped",
    "parameters of trained models and tag statistics that were computed over all customers; the next training and the "
    "next build compute them without this one",
)
SHORT_IDS = (
    "ids of the customer that are too short to be told from other words were looked for in the columns of user ids only"
)


def erase_leftovers(workspace: Workspace, customer: ErasedCustomer) -> Erased:
    """Remove the temporary files of processes that were killed; none runs, because the locks are held."""
    found = [*workspace.root.rglob(".*.tmp"), *workspace.root.glob(".spill-*")]
    for path in found:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return Erased(len(found))


# in this order: servers are told first, by the log; then what others are made from
PLACES: Registry[Eraser] = Registry(
    "place",
    {
        "event_log": erase_events,  # first, so that no server and no ingest takes the customer in again
        "lake": erase_lake,
        "identity": erase_identity,
        "quarantine": erase_quarantine,
        "profiles": erase_profiles,
        "model_tags": erase_model_tags,
        "models": erase_models,
        "exports": erase_exports,  # before `files`, which would change files that are known by their digest
        "files": erase_other_files,
        "leftovers": erase_leftovers,
    },
)


@dataclass(frozen=True)
class Receipt:
    """The receipt of one erasure.

    Attributes
    ----------
    facts : mapping
        What is in the file, signature included.
    file : Path
        Where it is.
    """

    facts: Mapping[str, Any]
    file: Path

    @property
    def left(self) -> list[dict[str, str]]:
        """What the check still found: path and kind."""
        return list(self.facts["left"])

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the key that has signed it."""
        return fingerprint(self.facts["public_key"])

    def as_dict(self) -> dict[str, Any]:
        """The facts, with the file."""
        return {**self.facts, "file": str(self.file), "fingerprint": self.fingerprint}


@dataclass(frozen=True)
class _Pending:
    """An erasure that has begun; `removed` grows with each place."""

    erasure_id: str
    customer: ErasedCustomer
    reason: str | None
    digest_before: str
    removed: dict[str, int] = field(default_factory=dict)

    def file(self, workspace: Workspace) -> Path:
        return workspace.root / "erasures" / "pending" / f"{self.erasure_id}.json"

    def save(self, workspace: Workspace) -> None:
        """Only its owner reads the file, which names the customer."""
        values = {**self.__dict__, "customer": dict(self.customer.__dict__)}
        with atomic_path(self.file(workspace)) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, file: Path) -> _Pending:
        values = json.loads(file.read_text(encoding="utf-8"))
        customer = values.pop("customer")
        users = tuple((source, user_id) for source, user_id in customer["users"])
        texts = (tuple(customer.get(name, ())) for name in ("one_ids", "identifiers", "longer_ids"))
        found = ErasedCustomer(users, *texts)
        return cls(customer=found, **values)


def pending_erasures(workspace: Workspace) -> list[Path]:
    """The files of the erasures that have begun and are not complete."""
    return sorted((workspace.root / "erasures" / "pending").glob("*.json"))


def erase_customer(
    workspace: Workspace,
    settings: Settings,
    user_id: str,
    user_source: str | None = None,
    *,
    now: datetime,
    reason: str | None = None,
    unknown: bool = False,
    progress: Progress = lambda line: None,
) -> Receipt:
    """Take a customer out of all places of the workspace, and return the receipt.

    Parameters
    ----------
    user_id : str
        A user id of the customer in any source, or the one_id.
    user_source : str, optional
        Source of the user id; needed if several sources use it for different customers.
    now : datetime
        Current time, naive UTC.
    reason : str, optional
        For the receipt; it must not name the customer.
    unknown : bool
        Accept a user id that no row names, for rows that come later.

    Raises
    ------
    DataError
        The user id is unknown; nothing was changed.
    UsageError
        Several sources use the id, or the reason names the customer.
    WorkspaceError
        Another process writes the workspace.
    """
    with _locked(workspace):
        begun = _begun_for(workspace, user_id, user_source)
        if begun is None:
            progress("looking for the customer")
            event_log = locate(workspace, settings.serving)
            customer = find_erased(workspace, user_id, user_source, event_log, unknown)
            _check_reason(reason, customer)
            begun = _Pending(secrets.token_hex(8), customer, reason, Lake(workspace).digest)
            begun.save(workspace)
        return _finish(workspace, begun, now, progress)


def resume_erasures(workspace: Workspace, *, now: datetime, progress: Progress = lambda line: None) -> list[Receipt]:
    """Finish the erasures that were interrupted, or whose check has found something; none if there are none."""
    with _locked(workspace):
        found = [_Pending.load(file) for file in pending_erasures(workspace)]
        return [_finish(workspace, pending, now, progress) for pending in found]


@contextlib.contextmanager
def _locked(workspace: Workspace) -> Iterator[None]:
    """Nobody else writes: no erasure, no build and no training, and no ingest."""
    if not os.access(workspace.root, os.W_OK):
        raise WorkspaceError(
            "the workspace cannot be written by this user or on this machine",
            where=str(workspace.root),
            hint="run `qianmian erase` where it can, as its owner",
        )
    with workspace_lock(workspace, exclusive=True), exclusive_writer(workspace):
        yield


def _begun_for(workspace: Workspace, user_id: str, user_source: str | None) -> _Pending | None:
    """The erasure of this user id that was begun: its customer may be no longer in the lake."""
    for pending in map(_Pending.load, pending_erasures(workspace)):
        for source, user in pending.customer.users:
            if user == user_id and user_source in (None, source):
                return pending
    return None


def _check_reason(reason: str | None, customer: ErasedCustomer) -> None:
    names = {*(user_id for _, user_id in customer.users), *customer.one_ids, *customer.identifiers}
    if reason is not None and any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", reason) for name in names):
        hint = "name a ticket instead; the receipt must not tell who was erased"
        raise UsageError("the reason names the customer", where="--reason", hint=hint)


def _finish(workspace: Workspace, pending: _Pending, now: datetime, progress: Progress) -> Receipt:
    customer = pending.customer
    key = load_key(workspace)
    save_key_fingerprint(workspace, key)  # from now on no other key is accepted: it would recognise nobody
    add_tombstones(workspace, key, customer.users)
    not_reached: list[str] = []
    for name, eraser in PLACES.items():
        progress(f"erasing from {name.replace('_', ' ')}")
        erased = eraser(workspace, customer)
        pending.removed[name] = pending.removed.get(name, 0) + erased.removed
        not_reached += erased.not_reached
        pending.save(workspace)
    progress("checking what is left")
    without_data = wheels_below(workspace.artifact_root)
    left = scan_workspace(workspace, customer, frozenset(pending_erasures(workspace)) | without_data)
    receipt = _write_receipt(workspace, pending, now, left, not_reached)
    if not left:
        pending.file(workspace).unlink()
    # servers load everything again, also if an erasure that was not complete goes on
    moment = now.isoformat(timespec="microseconds")
    write_json(workspace.root / "erasures" / "last.json", {"erasure_id": pending.erasure_id, "erased_at": moment})
    return receipt


def _write_receipt(
    workspace: Workspace, pending: _Pending, now: datetime, left: list[Trace], not_reached: list[str]
) -> Receipt:
    key, customer = load_key(workspace), pending.customer
    short = not all(is_distinctive(user_id) for _, user_id in customer.users)
    facts = {
        "erasure_id": pending.erasure_id,
        "erased_at": now.isoformat(timespec="seconds"),
        "reason": pending.reason,
        "complete": not left,
        "tombstones": sorted(tombstone(key, *user) for user in customer.users),
        "removed": pending.removed,
        "left": [trace._asdict() for trace in left],
        "not_reached": [*not_reached, *UNREACHED, *((SHORT_IDS,) if short else ())],
        "lake_before": pending.digest_before,
        "lake_after": Lake(workspace).digest,
        "version": __version__,
    }
    file = workspace.root / "erasures" / "receipts" / f"{pending.erasure_id}.json"
    signed = sign(workspace, facts)
    write_json(file, signed)
    return Receipt(signed, file)
