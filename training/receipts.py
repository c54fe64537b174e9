"""Signed receipts of erasures: what was erased where and when, without anything that tells whose it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from qianmian.errors import ArtifactError
from qianmian.workspace import Workspace, atomic_path

FORMAT = 1
FINGERPRINT_DIGITS = 16


@dataclass(frozen=True)
class CheckedReceipt:
    """A receipt whose signature is right: its facts, and the fingerprint of the key that has signed it.

    Attributes
    ----------
    own : bool
        The key is that of this workspace. Otherwise compare the fingerprint with one that you were told.
    """

    facts: Mapping[str, Any]
    fingerprint: str
    own: bool


def receipt_key_file(workspace: Workspace) -> Path:
    return workspace.root / "secrets" / "receipts.key"


def sign(workspace: Workspace, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts with the public key and an Ed25519 signature; the key of the workspace is made at the first call."""
    key = _signing_key(workspace)
    signed = {**facts, "format": FORMAT, "public_key": key.public_key().public_bytes_raw().hex()}
    return {**signed, "signature": key.sign(_canonical(signed)).hex()}


def verify(workspace: Workspace, file: Path) -> CheckedReceipt:
    """Check the signature of a receipt.

    Raises
    ------
    ArtifactError
        The file is no receipt, or was changed after it had been signed.
    """
    try:
        receipt = json.loads(file.read_text(encoding="utf-8"))
        signature = bytes.fromhex(receipt.pop("signature"))
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(receipt["public_key"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        hint = "name a file of erasures/receipts/"
        raise ArtifactError("this is no receipt of an erasure", where=str(file), hint=hint) from error
    try:
        public.verify(signature, _canonical(receipt))
    except InvalidSignature:
        raise ArtifactError(
            "the signature of the receipt is wrong: it was changed after it had been signed",
            where=str(file),
            hint="ask for the receipt again",
        ) from None
    own = receipt_key_file(workspace).exists() and _signing_key(workspace).public_key() == public
    return CheckedReceipt(receipt, fingerprint(receipt["public_key"]), own)


def fingerprint(public_key: str) -> str:
    """Short digest of a public key, given in hex, to compare by eye."""
    return hashlib.sha256(bytes.fromhex(public_key)).hexdigest()[:FINGERPRINT_DIGITS]


def _signing_key(workspace: Workspace) -> Ed25519PrivateKey:
    file = receipt_key_file(workspace)
    if not file.exists():
        with atomic_path(file) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_text(Ed25519PrivateKey.generate().private_bytes_raw().hex(), encoding="utf-8")
    try:
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(file.read_text(encoding="utf-8").strip()))
    except ValueError as error:
        hint = "restore the file; or remove it, and receipts are signed with a new key from then on"
        raise ArtifactError("the key of the receipts cannot be read", where=str(file), hint=hint) from error


def _canonical(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
