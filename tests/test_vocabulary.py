"""The vocabulary of docs/glossary.md: retired names stay retired, and a class name means one thing."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("qianmian", "features", "models", "training", "serving", "cli")
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def section(title: str) -> list[list[str]]:
    """The cells of each line of the table under a heading, backquotes off."""
    text = GLOSSARY.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in lines]


RETIRED = {line[0]: line[1] for line in section("Retired names")}
EXCEPTIONS = {(name, path) for name, path, _ in section("Exceptions")}


def defined(path: Path) -> set[str]:
    """Every name a file defines: its own, and those of its classes, functions, parameters, variables and attributes."""
    names = {path.stem}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_defines_a_retired_name(path):
    where = str(path.relative_to(ROOT))
    found = {name for name in defined(path) & set(RETIRED) if (name, where) not in EXCEPTIONS}
    assert not found, f"{where}: " + ", ".join(f"{name} (use {RETIRED[name]})" for name in sorted(found))


def test_every_exception_is_needed():
    unneeded = [(name, path) for name, path in EXCEPTIONS if name not in defined(ROOT / path)]
    assert unneeded == []


def test_retired_names_are_listed():
    assert {"Barred", "Shelf", "Clocks", "since", "told_bits", "arrange"} <= set(RETIRED)


def test_the_names_in_the_code_exist():
    tables = GLOSSARY.split("## Retired names", 1)[0]
    rows = [line[1:-1].split("|") for line in tables.splitlines() if line.startswith("| ") and line.count("|") == 6]
    assert len(rows) > 100
    files = [*FILES, *(ROOT / "benchmarks").glob("*.py"), *(ROOT / "deploy").glob("*.py")]
    known = set(re.findall(r"[A-Za-z_]\w*", "\n".join(path.read_text(encoding="utf-8") for path in files)))
    known |= {part for path in files for part in path.relative_to(ROOT).with_suffix("").parts} | {"py"}
    missing = {
        name
        for concept, _, code, *_ in rows
        for span in re.findall(r"`([^`]+)`", code)
        for name in re.findall(r"[A-Za-z_]\w*", span)
        if name not in known
    }
    assert missing == set()


def test_a_class_name_means_one_thing():
    places = defaultdict(list)
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def test_the_formatter_is_switched_off_for_tables_only():
    tracked = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    files = [ROOT / name for name in tracked.split()] or FILES
    texts = {path: path.read_text(encoding="utf-8") for path in files if path != Path(__file__)}
    assert sum(len(re.findall(r"# fmt: skip", text)) for text in texts.values()) < 20
    tables = {str(path.relative_to(ROOT)) for path, text in texts.items() if "# fmt: off" in text}
    allowed = ("features/definitions/", "features/profiles/tags/", "features/data/sources/", "qianmian/schema.py")
    assert [name for name in sorted(tables) if not name.startswith(allowed)] == []
