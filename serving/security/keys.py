"""API keys: how they are made and written, and what each one may do."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias, get_args

Scope: TypeAlias = Literal["read", "events", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
PREFIX = "qm"
ID_BYTES = 6  # of the id of a key, which is no secret
SECRET_BYTES = 32
ADMIN: Scope = "admin"  # allows what all others allow
ID_PATTERN = re.compile(r"[0-9a-f]{12}")
# that of `serving.rate_limit`, without importing all settings into the process that supervises the workers
RATE_PATTERN = re.compile(r"^[1-9][0-9]{0,8}/(second|minute|hour|day)$")
SHA256_PATTERN = re.compile(r"[0-9a-f]{64}")
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
FIELDS = frozenset({"id", "name", "scopes", "sha256", "created_at", "expires_at", "revoked_at", "rate_limit"})


@dataclass(frozen=True)
class ApiKey:
    """What is stored of a key: everything but its secret.

    Attributes
    ----------
    id : str
        The part of the key by which it is found.
    name : str
        For whom or what it was made.
    scopes : tuple of Scope
        What it may do; `admin` includes the others.
    sha256 : str
        Hash of the secret. A slow hash would protect secrets that can be guessed; this one has 256 random bits.
    created_at, expires_at, revoked_at : datetime
        Naive UTC, whole seconds; None: never.
    rate_limit : str or None
        Requests in a time, such as ``100/second``; None: that of `serving.rate_limit`.
    """

    id: str
    name: str
    scopes: tuple[Scope, ...]
    sha256: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    rate_limit: str | None = None

    @property
    def allowed(self) -> frozenset[Scope]:
        """Every scope that the key has, also those that `admin` includes."""
        return frozenset(SCOPES if ADMIN in self.scopes else self.scopes)

    def state(self, now: datetime) -> Literal["active", "expired", "revoked"]:
        """Whether the key may be used at a moment."""
        if self.revoked_at is not None:
            return "revoked"
        return "active" if self.expires_at is None or now < self.expires_at else "expired"

    def as_dict(self) -> dict[str, Any]:
        """The key as it is in the file, with times as text."""
        return {
            "id": self.id,
            "name": self.name,
            "scopes": list(self.scopes),
            "sha256": self.sha256,
            "created_at": _text(self.created_at),
            "expires_at": _text(self.expires_at),
            "revoked_at": _text(self.revoked_at),
            "rate_limit": self.rate_limit,
        }

    @classmethod
    def from_dict(cls, raw: Any) -> ApiKey:
        """Read a key as `as_dict` writes it.

        Raises
        ------
        ValueError
            If it has another shape; the message does not repeat what may be a secret.
        """
        if not isinstance(raw, dict) or raw.keys() != FIELDS:
            raise ValueError(f"a key has not the fields {', '.join(sorted(FIELDS))}")
        texts = [raw[name] for name in ("id", "name", "sha256", "created_at")]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("id, name, sha256 and created_at of a key are not all texts")
        if not ID_PATTERN.fullmatch(raw["id"]) or not SHA256_PATTERN.fullmatch(raw["sha256"]):
            raise ValueError("the id or the sha256 of a key is not in hexadecimal digits")
        scopes = raw["scopes"]
        if not isinstance(scopes, list) or not scopes or any(scope not in SCOPES for scope in scopes):
            raise ValueError(f"the scopes of key {raw['id']} are no list of {', '.join(SCOPES)}")
        limit = raw["rate_limit"]
        if limit is not None and not is_rate(limit):
            raise ValueError(f"the rate_limit of key {raw['id']} is not like 100/second")
        times = [_time(raw[name], f"{name} of key {raw['id']}") for name in ("created_at", "expires_at", "revoked_at")]
        created, expires, revoked = times
        if created is None:
            raise ValueError(f"created_at of key {raw['id']} is missing")
        return cls(raw["id"], raw["name"], tuple(scopes), raw["sha256"], created, expires, revoked, limit)


def new_key(
    name: str,
    scopes: tuple[Scope, ...],
    now: datetime,
    expires_at: datetime | None = None,
    rate_limit: str | None = None,
) -> tuple[str, ApiKey]:
    """Make a key; returns its text, which is stored nowhere, and what is stored of it.

    Examples
    --------
    >>> text, key = new_key("shop", ("read",), datetime(2026, 5, 1))
    >>> text.startswith(f"qm_{key.id}_"), len(text), sorted(key.allowed)
    (True, 80, ['read'])
    """
    key_id, secret = secrets.token_hex(ID_BYTES), secrets.token_hex(SECRET_BYTES)
    ordered = tuple(scope for scope in SCOPES if scope in scopes)
    stored = hashlib.sha256(secret.encode()).hexdigest()
    key = ApiKey(key_id, name, ordered, stored, now.replace(microsecond=0), expires_at, None, rate_limit)
    return f"{PREFIX}_{key_id}_{secret}", key


def count_active(keys: Iterable[ApiKey], now: datetime) -> int:
    """How many of some keys are neither revoked nor expired."""
    return sum(key.state(now) == "active" for key in keys)


def split_key(text: bytes) -> tuple[bytes, bytes]:
    """The id and the secret of a key; of a text that is no key, an id that no key has, and the text.

    Examples
    --------
    >>> split_key(b"qm_0a_1f"), split_key(b"no key")
    ((b'0a', b'1f'), (b'', b'no key'))
    """
    parts = text.split(b"_", 2)
    return (parts[1], parts[2]) if len(parts) == 3 and parts[0] == PREFIX.encode() else (b"", text)


def is_rate(text: object) -> bool:
    """Whether a value is a rate limit.

    Examples
    --------
    >>> is_rate("100/second"), is_rate("0/second"), is_rate("1/week"), is_rate(None)
    (True, False, False, False)
    """
    return isinstance(text, str) and RATE_PATTERN.fullmatch(text) is not None


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.strftime(TIME_FORMAT)


def _time(text: Any, what: str) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z").astimezone(UTC).replace(tzinfo=None)
    except (ValueError, TypeError):
        raise ValueError(f"{what} is no time like 2026-05-01T12:00:00Z") from None
