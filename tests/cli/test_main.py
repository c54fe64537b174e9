"""The entry point: help imports little, every error is one message, every kind of error has its exit code."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import typer

from cli.main import VERBS
from cli.models import models
from qianmian.errors import ArtifactError, ConfigError, DataError, GateRefused, NotReady, UsageError, WorkspaceError

HEAVY = (
    "bentoml",
    "duckdb",
    "fastapi",
    "ibis",
    "implicit",
    "lightfm",
    "matplotlib",
    "mlflow",
    "numpy",
    "pandas",
    "pyarrow",
    "pydantic",
    "scipy",
    "sklearn",
    "xgboost",
    "features",
    "models",
    "serving",
    "training",
)
SUBCOMMANDS = [(name,) for name, verb in VERBS.items() if not isinstance(verb, typer.Typer)]
SUBCOMMANDS += [("models", command.name) for command in models.registered_commands]


def test_help_imports_nothing_heavy():
    code = (
        "import json, sys; from cli.main import run; run(['--help']); "
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stderr)
    assert sorted({name.split(".")[0] for name in loaded}.intersection(HEAVY)) == []
    assert len(loaded) < 700
    for verb in VERBS:
        assert verb in done.stdout


@pytest.mark.parametrize("command", SUBCOMMANDS, ids=" ".join)
def test_every_verb_accepts_workspace_and_json(qianmian, command):
    done = qianmian(*command, "--help")
    assert done.code == 0
    assert "--workspace" in done.out
    assert "--json" in done.out


def test_the_verbs_are_listed_in_the_order_of_use(qianmian):
    out = qianmian("--help").out
    listed = [
        line.strip("│ ").split()[0] for line in out[out.index("Commands") :].splitlines() if re.match(r"│ \w", line)
    ]
    assert [word for word in listed if word in VERBS] == list(VERBS)


def test_no_arguments_show_the_help(qianmian):
    done = qianmian()
    assert done.code == 2
    assert "Usage" in done.out + done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["ingest"],
        ["features", "--wings"],
        ["serve", "--port", "0"],
        ["serve", "--port", "x"],
        ["models", "fly"],
    ],
    ids=" ".join,
)
def test_an_invalid_command_line_is_exit_2(qianmian, arguments):
    done = qianmian(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert "Fix: see `qianmian" in done.err
    as_json = qianmian(*arguments, "--json")
    assert as_json.code == 2
    assert as_json.json["error"]["code"] == "usage"
    assert as_json.json["error"]["hint"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("no"), 2),
        (ConfigError(["no"], where="x.yaml"), 2),
        (WorkspaceError("no"), 2),
        (NotReady("no"), 2),
        (DataError("no"), 3),
        (ArtifactError("no"), 3),
        (GateRefused("no"), 4),
        (ValueError("no"), 1),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_each_kind_of_error_has_its_exit_code(qianmian, monkeypatch, error, code):
    def fail(given):
        raise error

    monkeypatch.setattr("qianmian.workspace.Workspace.locate", fail)
    done = qianmian("models", "list")
    assert done.code == code
    assert "Traceback" not in done.err
    assert len(done.err.splitlines()) <= 4


def test_an_internal_error_says_how_to_report_it_and_debug_shows_the_traceback(qianmian, monkeypatch):
    def fail(given):
        raise RuntimeError("the wheel came off")

    monkeypatch.setattr("qianmian.workspace.Workspace.locate", fail)
    done = qianmian("models", "list")
    assert "the wheel came off" in done.err
    assert "--debug" in done.err
    assert "Traceback" in qianmian("models", "list", "--debug").err
    found = qianmian("models", "list", "--json")
    assert found.code == 1
    assert found.json["error"]["code"] == "internal"


@pytest.mark.parametrize(
    "text", ["[Errno 28] No space left on device", "(sqlite3.OperationalError) database or disk is full"]
)
def test_a_full_disk_is_reported_as_a_workspace_error(qianmian, monkeypatch, text):
    def fail(given):
        raise RuntimeError(text)

    monkeypatch.setattr("qianmian.workspace.Workspace.locate", fail)
    done = qianmian("models", "list", "--json")
    assert done.code == 2
    assert done.json["error"]["code"] == "workspace"
    assert "free some space" in done.json["error"]["hint"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["features"],
        ["train", "all"],
        ["train", "churn"],
        ["score", "churn", "--out", "x.csv"],
        ["serve"],
        ["models", "list"],
        ["models", "show", "churn"],
        ["models", "promote", "churn", "1"],
        ["models", "rollback", "churn"],
        ["models", "history"],
        ["models", "export"],
    ],
    ids=" ".join,
)
def test_a_missing_workspace_is_exit_2_and_says_how_to_make_one(qianmian, tmp_path, arguments):
    done = qianmian(*arguments, "--workspace", tmp_path / "nowhere")
    assert done.code == 2
    assert "qianmian ingest" in done.err
    assert not (tmp_path / "nowhere").exists()


def test_the_environment_names_the_workspace(qianmian, shop, monkeypatch):
    monkeypatch.setenv("QIANMIAN_WORKSPACE", str(shop))
    assert qianmian("models", "list", "--json").json == {"workspace": str(shop), "models": []}
