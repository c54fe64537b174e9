"""Runs command lines in this process, on a small synthetic shop."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from cli.main import run


@dataclass(frozen=True)
class CommandResult:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        """The JSON object on stdout; fails if there is any other output."""
        return json.loads(self.out)


@pytest.fixture
def qianmian(capfd, monkeypatch):
    """Return a function that runs a command line and returns its `CommandResult`."""
    monkeypatch.setattr("cli.main.quieten", lambda debug: None)  # pytest handles logging and warnings
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("QIANMIAN_WORKSPACE", raising=False)

    def call(*arguments: object) -> CommandResult:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return CommandResult(code, out, err)

    return call


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    """A workspace with 40 customers and 90 days, without profiles and models; tests must not change it."""
    place = tmp_path_factory.mktemp("a shop with a space in its path") / "workspace"
    assert run(["ingest", "synthetic", "--customers", "40", "--days", "90", "--workspace", str(place), "--json"]) == 0
    return place


@pytest.fixture
def fresh_shop(shop, tmp_path):
    """A copy of `shop` that a test may change."""
    import shutil

    place = tmp_path / "workspace"
    shutil.copytree(shop, place)
    return place
