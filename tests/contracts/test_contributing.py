"""CONTRIBUTING.md followed to the letter: a feature, a tag, a recommender and a verb, in a copy of the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from models.recommend.scene import SCENES
from qianmian.schema import TABLES
from serving.endpoints import ENDPOINTS

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("qianmian", "features", "models", "training", "serving", "cli", "packs", "docs", "tests")

RECOMMENDER = '''"""Ranks items by their id."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from features.interactions import TrainingSet
from models.persist import Arrays
from models.recommend.base import Query, Recommender


class AlphabeticalRecommender(Recommender):
    """Ranks items by their id; it has no parameters."""

    name: ClassVar[str] = "alphabetical"
    supports_cold: ClassVar[bool] = True

    def _fit(self, train: TrainingSet) -> None:
        self.scores_ = -np.argsort(np.argsort(train.item_ids)).astype(np.float32)

    def _scores(self, query: Query) -> NDArray[np.float32]:
        return np.repeat(self.scores_[None, :], len(query), axis=0)

    def _state(self) -> Arrays:
        return {"scores": self.scores_}

    def _restore(self, state: Arrays) -> None:
        self.scores_ = state["scores"]
'''
VERB = '''"""`qianmian hello`: prints a greeting."""

from __future__ import annotations

from cli.console import Output
from cli.options import JsonOption, WorkspaceOption


def hello(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Print a greeting."""
    Output(as_json).result({"hello": str(workspace)})
'''
FEATURE = """
    Feature("refunded_lines_56d", "refunds", "count", window_days=56, unit="lines", description="of the last 56 days"),"""
TAG = """
    Tag("first_shop", "basic", "store of the first order", ("first_store",), lambda c, _: c["first_store"]),"""
CHINESE = """
    "first_shop": ChineseTag("首单门店", "首单所在的门店"),"""
TAG_ROW = "| `first_shop` | store of the first order | dynamic | rule |  | 35 |\n"
KNOWN = """
    ("first_shop", {"first_store": ["s1", ""]}, ["s1", None]),"""
NAMES = ("alphabetical", "hello", "refunded_lines_56d", "first_shop")
CHECKS = (
    "tests/contracts/test_registries.py",
    "tests/models/recommend/test_contract.py",
    "tests/features/profiles/test_tags.py",
    "tests/features/profiles/test_tags_chinese.py",
    "tests/features/profiles/test_tags_documented.py",
    "tests/cli/test_main.py",
)


def insert(path: Path, after: str, line: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert after in text, f"{path} has no {after!r}"
    path.write_text(text.replace(after, after + line, 1), encoding="utf-8")


def test_the_steps_of_contributing_suffice(tmp_path):
    for name in COPIED:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "data"))
    # the folders of code called data are needed, those of the test cases are not
    shutil.copytree(ROOT / "features" / "data", tmp_path / "features" / "data", dirs_exist_ok=True)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    imports = "from __future__ import annotations\n"
    (tmp_path / "models" / "recommend" / "alphabetical.py").write_text(RECOMMENDER)
    single_stage = tmp_path / "models" / "recommend" / "single_stage.py"
    insert(single_stage, imports, "from models.recommend.alphabetical import AlphabeticalRecommender\n")
    insert(single_stage, '"recommender",\n    {', '\n        "alphabetical": AlphabeticalRecommender,')
    (tmp_path / "cli" / "hello.py").write_text(VERB)
    insert(tmp_path / "cli" / "main.py", imports, "from cli.hello import hello\n")
    insert(tmp_path / "cli" / "main.py", '"verb",\n    {', '\n        "hello": hello,')
    insert(tmp_path / "features" / "definitions" / "recency.py", "FEATURES = (", FEATURE)
    insert(tmp_path / "features" / "profiles" / "tags" / "basic.py", "\nTAGS = (", TAG)
    insert(tmp_path / "features" / "profiles" / "tags" / "chinese.py", "ChineseTag] = {", CHINESE)
    insert(
        tmp_path / "docs" / "tags.md",
        "### Basic\n\n| tag | meaning | kind | how | values | ttl |\n|---|---|---|---|---|---|\n",
        TAG_ROW,
    )
    insert(tmp_path / "tests" / "features" / "profiles" / "test_tags.py", "\nKNOWN = [", KNOWN)
    chosen = " or ".join((*NAMES, "documented", "chinese", "every_tag_but"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-v", "-p", "no:cacheprovider", *CHECKS, "-k", chosen],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4_000:]
    for name in NAMES:
        assert f"[{name}" in done.stdout, f"no check ran for {name}"


# ---- rows of the documents that CONTRIBUTING asks for ----------------------------------------------------------------


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def test_every_column_is_in_the_row_of_its_table():
    section = page("data-reference.md").split("\n## The tables\n")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*)$", section, re.MULTILINE))
    for name, table in TABLES.items():
        named = set(re.findall(r"\w+", rows[name]))
        missing = [column.name for column in table.columns if not column.derived and column.name not in named]
        assert set(missing) <= {"source"}, (
            f"add {missing} to the row `{name}` under 'The tables' in docs/data-reference.md"
        )


def test_every_endpoint_and_scene_has_a_row():
    text = page("http.md")
    for row in (*(f"| `/v1{route}` |" for route in ENDPOINTS), *(f"| `{scene}` |" for scene in SCENES)):
        assert row in text, f"docs/http.md needs a row that begins with {row}"
