"""Every error says what, where, got, allowed and how to mend it, and has a code, a status and an exit code."""

from __future__ import annotations

import pytest

from qianmian import errors
from qianmian.errors import ConfigError, DataError, QianmianError, UsageError
from qianmian.registry import Registry

TREE = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, QianmianError)]


def test_codes_are_told_apart():
    assert len({kind.code for kind in TREE}) == len(TREE)
    assert {kind.exit_code for kind in TREE} <= {1, 2, 3, 4}
    assert all(400 <= kind.http_status < 600 for kind in TREE)


@pytest.mark.parametrize("kind", [kind for kind in TREE if kind is not ConfigError], ids=lambda kind: kind.__name__)
def test_the_whole_sentence(kind):
    error = kind("it is wrong", where="here", got=0, allowed="1 or 2", hint="say 1", field="number")
    assert str(error) == "it is wrong (in here; got 0; allowed: 1 or 2). Fix: say 1"
    assert error.as_dict() == {
        "code": kind.code,
        "message": "it is wrong (in here; got 0; allowed: 1 or 2)",
        "field": "number",
        "hint": "say 1",
    }
    assert str(kind("it is wrong")) == "it is wrong"
    assert isinstance(error, QianmianError)


def test_nothing_is_lost_that_looks_like_nothing():
    assert "got False" in str(DataError("x", got=False))
    assert "got []" in str(DataError("x", got=[]))
    assert "got ''" in str(DataError("x", got=""))


def test_all_mistakes_of_a_configuration_are_told():
    error = ConfigError(["first: a", "second: b"], where="file.yaml")
    assert error.problems == ["first: a", "second: b"]
    assert "2 mistake(s)" in str(error)
    assert "\n  - first: a\n  - second: b" in str(error)
    assert "file.yaml" in error.hint
    assert ConfigError([], where="x", hint="do this").hint == "do this"


def test_a_registry_says_what_there_is():
    things = Registry("thing", {"b": 1, "a": 2})
    assert (list(things), len(things), things["a"], "a" in things, "c" in things, things.get("c")) == (
        ["b", "a"],
        2,
        2,
        True,
        False,
        None,
    )
    with pytest.raises(UsageError, match=r"unknown thing \(got 'c'; allowed: b, a\)"):
        things["c"]
