"""Access: who may call which path. It is decided from the head of a request, before anything else is done.

A server without API keys answers the programs of its own machine, and nobody else: neither a connection to an address
that others reach, nor a page of a browser that has the name of its own site point here, which sends that name as Host,
nor one that sends a request here as what it is: a browser puts the page's site into Origin, and does send the request.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from hmac import compare_digest
from typing import TYPE_CHECKING, Any

from qianmian.errors import QianmianError
from qianmian.settings import ServingSettings
from serving.http import error_json, retry_after, utc_now
from serving.security.exposure import CREATE_HINT, is_local_name, is_local_origin, is_loopback, name_of
from serving.security.key_file import KeyFile, Signature
from serving.security.keys import SCOPES, ApiKey, Scope, count_active, split_key
from serving.security.rate_limits import RateLimits, parsed_limit

if TYPE_CHECKING:
    from limits import RateLimitItem

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.5  # from one look at the file of keys to the next
LOG_SECONDS = 10.0  # from one line of the log about refusals of a kind to the next
LONGEST_KEY = 256  # bytes of a header that are hashed
LONGEST_NAME = 100  # bytes of a Host or Origin of this machine; longer ones are not remembered
NO_HASH = bytes(32)  # what the secret of an unknown key is compared with
BEARER = b"bearer "
LOOPBACK = frozenset({"127.0.0.1", "::1"})  # the usual ones, which take no parsing

local_name, reached_locally = lru_cache(1024)(is_local_name), lru_cache(1024)(is_loopback)
local_origin = lru_cache(1024)(is_local_origin)


@dataclass(frozen=True)
class Refusal:
    """The response to a request that is refused, and why, for the log."""

    status: int
    reason: str
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


def _refusal(
    status: int, code: str, reason: str, message: str, hint: str | None, *headers: tuple[bytes, bytes]
) -> Refusal:
    body = error_json({"code": code, "message": message, "field": None, "hint": hint})
    return Refusal(status, reason, body, headers)


def _unauthorized(reason: str, message: str) -> Refusal:
    hint = "send a key that is valid: Authorization: Bearer KEY"
    return _refusal(401, "unauthorized", reason, message, hint, (b"www-authenticate", b'Bearer realm="qianmian"'))


NO_KEY = _unauthorized("no_key", "the request has no API key")
WRONG_KEY = _unauthorized("wrong_key", "the API key is unknown, expired or revoked")
SEVERAL_KEYS = _unauthorized("several_keys", "the request has more than one API key")
MISSING_SCOPE = {
    scope: _refusal(
        403,
        "forbidden",
        f"needs_{scope}",
        f"the API key has not the scope that this path needs: {scope}",
        f"use a key that was created with --scope {scope}",
    )
    for scope in SCOPES
}
PUBLIC = _refusal(
    403,
    "forbidden",
    "public_address",
    "without API keys the server answers only on the loopback address of its machine",
    f"create a key: `{CREATE_HINT}`",
)
FOREIGN_HOST = _refusal(
    403,
    "forbidden",
    "foreign_host",
    "without API keys the server answers only to the hosts localhost, 127.0.0.1 and [::1]",
    f"create a key: `{CREATE_HINT}`",
)
FOREIGN_ORIGIN = _refusal(
    403,
    "forbidden",
    "foreign_origin",
    "without API keys the server answers no web pages of other sites",
    f"create a key: `{CREATE_HINT}`",
)
UNKNOWN_HOST = _refusal(
    403, "forbidden", "unknown_host", "the server does not answer for this host", "see serving.allowed_hosts"
)
SEVERAL_HOSTS = _refusal(400, "bad_request", "several_hosts", "the request has more than one Host header", None)
RATE_LIMITED = _refusal(
    429,
    "rate_limited",
    "rate_limited",
    "more requests than the rate limit of this caller allows",
    "send it again after as many seconds as Retry-After says",
)


@dataclass(frozen=True)
class Grant:
    """What a request with one key may do."""

    digest: bytes
    allowed: frozenset[Scope]
    rate_limit: RateLimitItem | None
    caller: str


NOBODY = Grant(NO_HASH, frozenset(), None, "")


class Access:
    """Decides about requests, and follows the file of keys.

    A server that has had keys is never open again before a restart: if their file is lost, becomes readable for others
    or is damaged, the former keys hold.

    Parameters
    ----------
    key_file : KeyFile, optional
        Where the keys are; default: there are none.
    settings : callable
        Returns the settings of now.
    now : callable
        Returns the moment of now, naive UTC.
    """

    def __init__(
        self,
        key_file: KeyFile | None = None,
        settings: Callable[[], ServingSettings] = ServingSettings,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._file, self._settings, self._now = key_file, settings, now
        self._stored: tuple[ApiKey, ...] | None = None  # None: no key was ever made
        self._grants: Mapping[bytes, Grant] | None = None
        self._hosts: frozenset[str] | None = None
        self._rate_limit: RateLimitItem | None = None
        self._limits: RateLimits | None = None
        self._seen: Signature | None = None
        self._problem = ""
        self._thread: threading.Thread | None = None
        self._refused: dict[tuple[str, str], tuple[int, float]] = {}  # number not yet in the log, and its last line
        self.look()

    # ---- a request ---------------------------------------------------------------------------------------------------

    def refusal(self, scope: Mapping[str, Any], needed: Scope | None) -> Refusal | None:
        """Why a request is refused; None if it may be answered.

        Parameters
        ----------
        scope : mapping
            The ASGI scope of the request.
        needed : Scope or None
            What its key must allow; None: any key will do.
        """
        grants = self._grants
        if grants is None:
            return self._refusal_without_keys(scope)
        host = authorization = api_key = None
        for name, value in scope["headers"]:
            if name == b"host":
                if host is not None:
                    return SEVERAL_HOSTS
                host = value
            elif name == b"authorization":
                if authorization is not None:
                    return SEVERAL_KEYS
                authorization = value
            elif name == b"x-api-key":
                if api_key is not None:
                    return SEVERAL_KEYS
                api_key = value
        if self._hosts is not None and name_of(host or b"") not in self._hosts:
            return UNKNOWN_HOST
        text = api_key
        if authorization is not None and authorization[: len(BEARER)].lower() == BEARER:
            if api_key is not None:
                return SEVERAL_KEYS
            text = authorization[len(BEARER) :].strip()
        if text is None:
            return NO_KEY
        key_id, secret = split_key(text[:LONGEST_KEY])
        grant = grants.get(key_id, NOBODY)  # an unknown key takes as long as one with a wrong secret
        if not compare_digest(sha256(secret).digest(), grant.digest):
            return WRONG_KEY
        if needed is not None and needed not in grant.allowed:
            return MISSING_SCOPE[needed]
        return None if grant.rate_limit is None else self._limited(grant.rate_limit, grant.caller)

    def _refusal_without_keys(self, scope: Mapping[str, Any]) -> Refusal | None:
        server = scope.get("server")
        if server is None or (server[0] not in LOOPBACK and not reached_locally(server[0])):
            return PUBLIC
        host = None
        for name, value in scope["headers"]:
            if name == b"host":
                if host is not None:
                    return SEVERAL_HOSTS
                host = value
            elif name == b"origin" and (len(value) > LONGEST_NAME or not local_origin(value)):
                return FOREIGN_ORIGIN
        if host is not None and (len(host) > LONGEST_NAME or not local_name(host)):
            return FOREIGN_HOST
        if self._hosts is not None and name_of(host or b"") not in self._hosts:
            return UNKNOWN_HOST
        if self._rate_limit is None:
            return None
        return self._limited(self._rate_limit, scope["client"][0] if scope.get("client") else "")

    def _limited(self, limit: RateLimitItem, caller: str) -> Refusal | None:
        if self._limits is None:
            self._limits = RateLimits(lambda: utc_now().replace(tzinfo=UTC).timestamp())
        seconds = self._limits.seconds_to_wait(limit, caller)
        return replace(RATE_LIMITED, headers=(retry_after(seconds),)) if seconds else None

    def log(self, route: str, refusal: Refusal) -> None:
        """Log that requests to a route were refused: at most one line in `LOG_SECONDS` for each reason."""
        kind, now = (route, refusal.reason), time.monotonic()
        number, last = self._refused.get(kind, (0, -LOG_SECONDS))
        number += 1
        if now - last >= LOG_SECONDS:
            logger.warning("refused=%d route=%s status=%d reason=%s", number, route, refusal.status, refusal.reason)
            number, last = 0, now
        self._refused[kind] = number, last

    # ---- the keys ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Say whether there are keys, and follow them in a thread; further calls have no effect."""
        if self._thread is not None:
            return
        if self._stored is None:
            logger.warning("api_keys=none: only programs on this machine are answered, and all of them")
        self._thread = threading.Thread(target=self._follow, name="qianmian-keys", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            try:
                self.look()
            except Exception:  # the former keys hold, and the next look may succeed
                logger.exception("api_keys=not followed")

    def look(self) -> None:
        """Take over what has changed: keys that were made, revoked or have expired, and settings."""
        if self._file is not None:
            self._read(self._file)
        settings, now = self._settings(), self._now()
        usual = parsed_limit(settings.rate_limit) if settings.rate_limit is not None else None
        self._hosts = None if settings.allowed_hosts is None else frozenset(map(str.lower, settings.allowed_hosts))
        self._rate_limit = usual
        if self._stored is not None:
            self._grants = {
                key.id.encode(): Grant(
                    bytes.fromhex(key.sha256),
                    key.allowed,
                    usual if key.rate_limit is None else parsed_limit(key.rate_limit),
                    key.id,
                )
                for key in self._stored
                if key.state(now) == "active"
            }
        if self._limits is not None:
            self._limits.sweep()

    def _read(self, file: KeyFile) -> None:
        try:
            signature = file.signature()
            if signature is not None and signature == self._seen:
                return
            keys = file.read()
        except (QianmianError, OSError) as error:
            self._seen = None
            self._keep(str(error))
            return
        self._seen = signature
        if keys is None:
            if self._stored is not None:
                self._keep(f"{file.path} is gone")
            return
        self._stored, self._problem = keys, ""
        logger.info("api_keys=read number=%d active=%d", len(keys), count_active(keys, self._now()))

    def _keep(self, problem: str) -> None:
        """Keep the former keys; a server without any answers nobody, because there is a file of keys."""
        self._stored = self._stored if self._stored is not None else ()
        if problem != self._problem:
            logger.error("api_keys=kept number=%d reason=%s", len(self._stored), problem)
        self._problem = problem
