"""The error hierarchy: every error a user can cause is a `QianmianError` that says what is wrong and how to fix it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, ClassVar

from qianmian.redaction import redact


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """Suggestion to append to a message about an unknown name; empty if no allowed name is similar.

    Examples
    --------
    >>> did_you_mean("quantty", ["quantity", "price"]), did_you_mean("x", ["quantity"])
    (' (did you mean quantity?)', '')
    """
    close = get_close_matches(name, list(allowed), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


class QianmianError(Exception):
    """Base class of every error this project raises on purpose. Its texts hold no passwords (`qianmian.redaction`).

    Parameters
    ----------
    message : str
        What is wrong, in one sentence.
    where : str, optional
        File, table, column, route or command in which the error was found.
    got, allowed : object, optional
        Value that was found, and the values that are accepted.
    hint : str, optional
        How to fix it: a command or an edit.
    field : str, optional
        Field of the HTTP request that the error is about.

    Examples
    --------
    >>> str(DataError("column is missing", where="orders.csv", got=["id"], allowed=["ts"], hint="name it in `columns`"))
    "column is missing (in orders.csv; got ['id']; allowed: ['ts']). Fix: name it in `columns`"
    """

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        got: Any = None,
        allowed: Any = None,
        hint: str | None = None,
        field: str | None = None,
    ) -> None:
        self.message, self.field, self.got, self.allowed = redact(message), field, got, allowed
        self.where, self.hint = where and redact(where), hint and redact(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        facts = []
        if self.where is not None:
            facts.append(f"in {self.where}")
        if self.got is not None:
            facts.append(f"got '{self.got}'" if isinstance(self.got, str) else f"got {self.got!r}")
        if self.allowed is not None:
            facts.append(f"allowed: {self.allowed}")
        text = self.message + (f" ({'; '.join(facts)})" if facts else "")
        return redact(f"{text}. Fix: {self.hint}" if self.hint else text)

    def as_dict(self) -> dict[str, Any]:
        """The error object of HTTP responses and of `--json`: code, message, field, hint."""
        text = QianmianError(self.message, where=self.where, got=self.got, allowed=self.allowed)
        return {"code": self.code, "message": str(text), "field": self.field, "hint": self.hint}


class UsageError(QianmianError):
    """A command was called with invalid arguments."""

    code, http_status, exit_code = "usage", 400, 2


class ConfigError(QianmianError):
    """A configuration file is invalid. All mistakes in the file are reported together.

    Parameters
    ----------
    problems : sequence of str
        One line per mistake.
    """

    code, http_status, exit_code = "config", 500, 2

    def __init__(self, problems: Sequence[str], *, where: str, hint: str | None = None) -> None:
        self.problems = [redact(problem) for problem in problems]
        listing = "".join(f"\n  - {problem}" for problem in self.problems)
        super().__init__(
            f"{where}: {len(self.problems)} mistake(s):{listing}\n",
            hint=hint or f"correct {where} and run the command again",
        )


class WorkspaceError(QianmianError):
    """The workspace is missing, not writable, or its disk is full."""

    code, http_status, exit_code = "workspace", 503, 2


class DataError(QianmianError):
    """The data is not sufficient or not valid for the requested operation."""

    code, http_status, exit_code = "data", 422, 3


class ArtifactError(QianmianError):
    """A saved model or snapshot is corrupt, incomplete or has an unknown format."""

    code, http_status, exit_code = "artifact", 503, 3


class GateRefused(QianmianError):
    """The gate refused a model: it does not beat its baseline, is behind the champion, or is out of bounds."""

    code, http_status, exit_code = "gate_refused", 409, 4


class MalformedRequest(QianmianError):
    """The body of an HTTP request is not JSON."""

    code, http_status, exit_code = "malformed_json", 400, 2


class InvalidRequest(QianmianError):
    """A field of an HTTP request is invalid, missing or unknown."""

    code, http_status, exit_code = "invalid_request", 422, 2


class NotFound(QianmianError):
    """The requested object does not exist."""

    code, http_status, exit_code = "not_found", 404, 2


class NotReady(QianmianError):
    """The server has no model for this route yet."""

    code, http_status, exit_code = "not_ready", 503, 2


class StorageError(QianmianError):
    """The event log cannot be read or written: locked, read-only, damaged, unreachable or of another format."""

    code, http_status, exit_code = "storage", 503, 2


class StorageFull(StorageError):
    """The event log has no room. None of the refused events was stored; it accepts events again once there is room."""

    code, http_status, exit_code = "storage_full", 507, 2


class Overloaded(QianmianError):
    """More events wait for being stored than a process accepts; they may be sent again later."""

    code, http_status, exit_code = "overloaded", 429, 1
