"""One command line after the other, in this process, on a tiny made-up shop."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from cli.main import run


@dataclass(frozen=True)
class CommandResult:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        """The one JSON object on stdout; anything else there is a mistake."""
        return json.loads(self.out)


@pytest.fixture
def qianmian(capfd, monkeypatch):
    """Run a command line and give back exit code, stdout and stderr."""
    monkeypatch.setattr("cli.main.quieten", lambda debug: None)  # logging and warnings are pytest's here
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
    """A workspace with 40 people and 90 days, ingested and never trained on; read it, do not change it."""
    place = tmp_path_factory.mktemp("a shop with a space in its path") / "workspace"
    assert run(["ingest", "synthetic", "--customers", "40", "--days", "90", "--workspace", str(place), "--json"]) == 0
    return place


@pytest.fixture
def fresh_shop(shop, tmp_path):
    """A copy of `shop` a test may change."""
    import shutil

    place = tmp_path / "workspace"
    shutil.copytree(shop, place)
    return place
