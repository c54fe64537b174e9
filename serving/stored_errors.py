"""Errors that are kept and raised for many requests."""

from __future__ import annotations

from typing import TypeVar

from qianmian.errors import QianmianError

E = TypeVar("E", bound=QianmianError)


def fresh(error: E) -> E:
    """Return a copy of an error that has no traceback, to store it, and again each time that it is raised.

    Python adds the frames of each raise to the traceback of an error and keeps all that they hold: of a stored error
    those of every request, and the models that were being loaded when it was caught. `copy.copy` would call the
    constructor, and those of some errors need more than a message.
    """
    copied = type(error).__new__(type(error), *error.args)
    copied.__dict__.update(error.__dict__)
    return copied
