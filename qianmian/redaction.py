"""Passwords, keys and tokens that must not appear in what the project prints, logs or stores.

`redact` is applied to the text of every `QianmianError`, to what the command line prints of other errors, and, after
`redact_logs`, to every record of `logging`, those of libraries too.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import unquote

HIDDEN = "***"
_WORD = re.compile(r"[^\s'\"]+")
_VARIABLE = re.compile(r"\$\{\w+\}")  # the reference of a password in sources.yaml
_SECRET_OF_QUERY = re.compile(r"([?&](?:\w*password|passwd|pwd|\w*token|\w*secret|api_?key)=)[^\s&'\"]+", re.IGNORECASE)
_SECRET_NAME = re.compile(r".*(?:PASSWORD|PASSWD|SECRET|TOKEN|_KEY)", re.IGNORECASE)
_PARTS = re.compile(r"[/?#@:\[\]]")  # at which a URL whose password was not escaped falls apart
MIN_SECRET = 8  # characters; a shorter one is hidden in URLs only, because it may be a part of any word
_REDACTED = "redacted_record"


def redact(text: str) -> str:
    """Return a text without the passwords of its URLs, and without the secrets of the environment.

    Examples
    --------
    >>> redact("no answer from redis://shop:hunter2@cache:6379/0")
    'no answer from redis://shop:***@cache:6379/0'
    >>> redact("https://db/api?user=ann&password=hunter2"), redact("write postgresql://reader:${SHOP_PASSWORD}@db/shop")
    ('https://db/api?user=ann&password=***', 'write postgresql://reader:${SHOP_PASSWORD}@db/shop')
    """
    if "://" in text:
        text = _WORD.sub(_without_password, text)
    if "=" in text:
        text = _SECRET_OF_QUERY.sub(rf"\g<1>{HIDDEN}", text)
    for secret in environment_secrets():
        if secret in text:
            text = text.replace(secret, HIDDEN)
    return text


def _without_password(word: re.Match[str]) -> str:
    """Hide what is between the user and the last @; in linear time, because errors repeat parts of requests."""
    text = word[0]
    start, end = text.find("://") + 3, text.rfind("@")
    colon = text.find(":", start, end) if 3 <= start < end else -1
    if colon < 0 or "/" in text[start:colon] or _VARIABLE.fullmatch(text, colon + 1, end):
        return text
    return f"{text[: colon + 1]}{HIDDEN}{text[end:]}"


def secrets_of(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the secrets in environment variables, the longest first: passwords of URLs, and values of secret names.

    A library that cannot read a URL may quote any part of it, so the parts of its password are secrets as well.

    Examples
    --------
    >>> secrets_of({"MLFLOW_TRACKING_URI": "postgresql://mlflow:horse/battery%21@db/mlflow", "API_TOKEN": "0123456789"})
    ('horse/battery%21', 'horse/battery!', '0123456789', 'battery%21', 'battery!')
    """
    found: set[str] = set()
    for name, value in environment.items():
        _, separator, rest = value.partition("://")
        if separator and "@" in rest:
            _, _, password = rest.rpartition("@")[0].partition(":")
            for part in (password, *_PARTS.split(password)):
                found |= {part, unquote(part)}
        elif _SECRET_NAME.fullmatch(name):
            found.add(value)
    return tuple(sorted((secret for secret in found if len(secret) >= MIN_SECRET), key=lambda text: (-len(text), text)))


@cache
def environment_secrets() -> tuple[str, ...]:
    """Return the secrets of this process's environment; read once, because errors of requests pass here too."""
    return secrets_of(os.environ)


def redact_logs() -> None:
    """Redact every log record of this process from now on, whichever logger, handler or formatter it passes."""
    make: Any = logging.getLogRecordFactory()
    if getattr(make, "__name__", "") == _REDACTED:
        return

    def redacted_record(*args: Any, **options: Any) -> logging.LogRecord:
        record: logging.LogRecord = make(*args, **options)
        if isinstance(record.args, tuple):
            record.args = tuple(redact(value) if isinstance(value, str) else value for value in record.args)
        with contextlib.suppress(TypeError, ValueError):  # a format that does not fit, which `logging` reports
            text = record.getMessage()
            if (hidden := redact(text)) != text:
                record.msg, record.args = hidden, None
        if record.exc_info:
            record.exc_text = redact(logging.Formatter().formatException(record.exc_info))  # formatters keep it
        return record

    logging.setLogRecordFactory(redacted_record)
