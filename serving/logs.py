"""The log of the server: one line an event, as text or as JSON, with the id of the request that it is about.

No line says who a request is about or what it contains.
"""

from __future__ import annotations

import logging
import sqlite3
import traceback
from datetime import UTC, datetime
from typing import Any

import orjson

from qianmian.errors import QianmianError
from qianmian.redaction import redact
from qianmian.settings import ServingSettings
from serving.request_ids import current

logger = logging.getLogger(__name__)

NEVER = float("inf")
FIELDS = ("route", "status", "seconds")  # of lines about requests; attributes of their records
HANDLED = ("", "bentoml", "uvicorn.error", "circus")  # loggers to which BentoML gives handlers
# the texts of these say what is wrong with a file, a connection or a database, never with a request
SAFE = (OSError, ImportError, sqlite3.Error)


class TextFormatter(logging.Formatter):
    """Lines as BentoML writes them, ``time [level] [worker] text``, and the id of the request."""

    def __init__(self, worker: str) -> None:
        line = f"%(asctime)s [%(levelname)s] [{worker}] %(message)s%(trace_msg)s"
        super().__init__(line, "%Y-%m-%dT%H:%M:%S%z", defaults={"trace_msg": ""})  # which BentoML sets

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - a method of `logging.Formatter`
        record.message = message_of(record)
        line, request_id = super().formatMessage(record), current()
        return f"{line} request_id={request_id}" if request_id else line

    def format(self, record: logging.LogRecord) -> str:
        if record.exc_info:  # what is there already, of `redact_logs` or another formatter, has the texts of all errors
            record.exc_text = exception_text(record.exc_info[1])
        return super().format(record)


class JsonFormatter(logging.Formatter):
    """Each line is an object: time, level, logger, worker, message; of a request its id, route, status and seconds.

    With trace spans it also has their ids.
    """

    def __init__(self, worker: str) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": time,
            "level": record.levelname,
            "logger": record.name,
            "worker": self._worker,
            "message": message_of(record),
        }
        if request_id := current():
            line["request_id"] = request_id
        if getattr(record, "trace_msg", ""):
            from bentoml._internal.context import trace_context

            line |= {"trace_id": f"{trace_context.trace_id:032x}", "span_id": f"{trace_context.span_id:016x}"}
        line |= {name: record.__dict__[name] for name in FIELDS if name in record.__dict__}
        if record.exc_info:
            line["exception"] = exception_text(record.exc_info[1])
        return orjson.dumps(line, default=str).decode()


def message_of(record: logging.LogRecord) -> str:
    """The text of a record; of asyncio's its first line, as the others show tasks with the texts of exceptions."""
    text = record.getMessage()
    return text.partition("\n")[0] if record.name == "asyncio" else text


def exception_text(error: BaseException | None) -> str:
    """The traceback of an exception and of what led to it, as Python prints it, but with few of the texts.

    Of the errors of Python itself, only their type is safe to be logged: a `KeyError` repeats its key. Passwords of the
    texts that are safe otherwise are hidden.
    """
    return "" if error is None else redact(_exception_text(error))


def _exception_text(error: BaseException) -> str:
    parts = []
    if error.__cause__ is not None:
        parts += [_exception_text(error.__cause__), "which led to:"]
    elif error.__context__ is not None and not error.__suppress_context__:
        parts += [_exception_text(error.__context__), "while that was handled:"]
    frames = "".join(traceback.format_tb(error.__traceback__)).rstrip()
    safe = SAFE if current() else (*SAFE, QianmianError)
    text = f": {error}" if isinstance(error, safe) else ""
    parts += [f"Traceback (most recent call last):\n{frames}", f"{type(error).__qualname__}{text}"]
    if isinstance(error, BaseExceptionGroup):
        parts += [_exception_text(one) for one in error.exceptions]
    return "\n".join(parts)


class RequestLog:
    """Which requests get a line, apart from the lines about errors.

    Attributes
    ----------
    least_seconds : float
        Those that take so long or longer.
    """

    def __init__(self) -> None:
        self.least_seconds = NEVER

    def configure(self, settings: ServingSettings) -> None:
        """Follow the settings."""
        least = {"errors": NEVER, "slow": settings.slow_seconds, "all": 0.0}
        self.least_seconds = least[settings.log_requests]

    def log(self, route: str, status: int, seconds: float) -> None:
        """Log a request that was answered."""
        log_request(logging.INFO, route, status, "seconds=%.4f", seconds, seconds=round(seconds, 6))


REQUEST_LOG = RequestLog()


def log_request(
    level: int, route: str, status: int, more: str = "", *values: object, exc_info: bool = False, **fields: object
) -> None:
    """Log a line about a request; `more` continues its text, `fields` are further ones of its object."""
    text = f"route=%s status=%d {more}".rstrip()
    extra = {"route": route, "status": status, **fields}
    logger.log(level, text, route, status, *values, exc_info=exc_info, extra=extra)


def configure(settings: ServingSettings, worker: str) -> None:
    """Let the handlers that BentoML has made write lines as the settings say."""
    make = JsonFormatter if settings.log_format == "json" else TextFormatter
    for name in HANDLED:
        for handler in logging.getLogger(name).handlers:
            handler.setFormatter(make(worker))
    REQUEST_LOG.configure(settings)
