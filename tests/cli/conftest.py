"""Runs command lines in this process, on a small synthetic shop."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli.main import run
from tests.shared import made_once


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
def shop(tmp_path_factory) -> Path:
    """A workspace with 40 customers and 90 days, without profiles and models; tests must not change it."""

    def make(folder: Path) -> None:
        words = ["ingest", "synthetic", "--customers", "40", "--days", "90"]
        assert run([*words, "--workspace", str(folder / "workspace"), "--json"]) == 0

    return copy_of(made_once(tmp_path_factory, "shop", make)[0], tmp_path_factory)


@pytest.fixture(scope="session")
def published_shop(shop, tmp_path_factory) -> Path:
    """A copy of `shop` with published profiles; tests must not change it."""

    def make(folder: Path) -> None:
        shutil.copytree(shop, folder / "workspace")
        assert run(["features", "--workspace", str(folder / "workspace"), "--json"]) == 0

    return copy_of(made_once(tmp_path_factory, "shop with profiles", make)[0], tmp_path_factory)


def copy_of(folder: Path, factory: pytest.TempPathFactory) -> Path:
    """The workspace in a folder, for this process alone: commands lock the workspace that they read."""
    return Path(shutil.copytree(folder / "workspace", factory.mktemp("a shop with a space in its path") / "workspace"))


@pytest.fixture
def fresh_shop(shop, tmp_path) -> Path:
    """A copy of `shop` that a test may change."""
    return Path(shutil.copytree(shop, tmp_path / "workspace"))
