"""A Bento built from bentofile.yaml is served from another folder without the workspace."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from datetime import datetime
from pathlib import Path

import pytest

from serving.security.key_file import FILE_VARIABLE, KeyFile
from serving.security.keys import new_key
from serving.server import command, free_port, running

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow
STORE = """
import sys
from pathlib import Path
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from serving.package import store_champions

print(store_champions(Workspace(Path(sys.argv[1])), Settings()))
"""
# what a fresh environment must have, and must not have
CHECK = """
from importlib.util import find_spec
from models.recommend.ranking.compiled import COMPILED

assert COMPILED
assert [name for name in ("mlflow", "cli", "training", "lightfm", "duckdb") if find_spec(name)] == []
"""


@pytest.fixture(scope="module")
def bento(workspace, server_environment, tmp_path_factory):
    """Environment of a server whose BentoML home has the Bento, and the file `bento.yaml` of it."""
    home = tmp_path_factory.mktemp("home")
    env = {**server_environment(None), "BENTOML_HOME": str(home)}
    command = [sys.executable, "-c", STORE, str(workspace.root)]
    stored = subprocess.run(command, env=env, cwd=ROOT, check=True, capture_output=True, text=True)
    assert stored.stdout.splitlines()[-1].startswith("qianmian-champions:")
    subprocess.run([sys.executable, "-m", "bentoml", "build"], env=env, cwd=ROOT, check=True, capture_output=True)
    return env, next((home / "bentos" / "qianmian").glob("*/bento.yaml"))


def test_the_bento_contains_its_champions(workspace, bento, buyers, request_, tmp_path):
    env, built = bento
    assert sorted(path.name for path in (built.parent / "src").iterdir() if path.is_dir()) == [
        "features",
        "models",
        "packs",
        "qianmian",
        "serving",
    ]
    away = workspace.root.with_name("renamed away")
    workspace.root.rename(away)
    try:
        with running(None, target="qianmian:latest", env=env, cwd=tmp_path) as url:
            status, body = request_(f"{url}/v1/recommendations", {"user_id": buyers[0], "num_results": 3})
            assert status == 200
            assert len(body["items"]) == 3
            assert request_(f"{url}/v1/churn", {"user_ids": buyers[:3]})[0] == 200
            # only the code inside the Bento reads its champions; the installed project would look for ./workspace
    finally:
        away.rename(workspace.root)


def test_a_bento_is_not_open_on_a_public_address(bento, request_, tmp_path):
    env, _ = bento
    arguments = command("0.0.0.0", free_port(), "qianmian:latest")
    done = subprocess.run(arguments, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "qianmian keys create" in done.stderr
    file = KeyFile(tmp_path / "keys.json")
    text, key = new_key("shop", ("read",), datetime(2026, 5, 1))
    file.add(key)
    with_keys = {**env, FILE_VARIABLE: str(file.path)}
    with running(None, host="0.0.0.0", target="qianmian:latest", env=with_keys, cwd=tmp_path) as url:
        url = url.replace("0.0.0.0", "127.0.0.1")
        assert request_(f"{url}/docs.json")[0] == 401
        assert request_(f"{url}/docs.json", headers={"X-API-Key": text})[0] == 200


@pytest.mark.timeout(1_200)
def test_a_fresh_environment_without_project_and_compiler_serves_the_bento(
    workspace, bento, buyers, request_, tmp_path, monkeypatch
):
    """It installs what the Bento lists, from wheels alone, and answers every route as the project does."""
    env, built = bento
    fresh = tmp_path / "fresh environment"
    venv.create(fresh, with_pip=True)
    python = str(fresh / "bin" / "python")
    requirements = built.parent / "env" / "python" / "requirements.txt"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
    subprocess.run([*install, "--require-hashes", "--no-deps", "-r", str(requirements)], check=True)
    alone = {**env, "PATH": str(fresh / "bin")}
    assert not [name for name in ("cc", "gcc", "clang") if shutil.which(name, path=alone["PATH"])]
    subprocess.run([python, "-c", CHECK], cwd=built.parent / "src", env=alone, check=True)

    bodies = {
        "recommendations": {"user_id": buyers[0], "explain": True},
        "rank": {"user_id": buyers[0], "item_ids": []},
        "similar-items": {},
        "churn": {"user_ids": buyers[:3], "explain": True},
        "predictions": {"user_ids": buyers[:3]},
        "profile": {"user_id": buyers[0]},
        "lookalike": {"seed_user_ids": buyers[:60], "size": 20},
    }

    def responses(url):
        _, listed = request_(f"{url}/v1/recommendations", {"user_id": buyers[1]})
        items = [item["item_id"] for item in listed["items"]]
        bodies["rank"]["item_ids"], bodies["similar-items"]["item_id"] = items, items[0]
        return {route: request_(f"{url}/v1/{route}", body) for route, body in bodies.items()}

    with running(workspace) as url:
        expected = responses(url)
    monkeypatch.setattr(sys, "executable", python)
    with running(None, target="qianmian:latest", env=alone, cwd=tmp_path) as url:
        found = responses(url)
    assert {route: status for route, (status, _) in found.items()} == dict.fromkeys(bodies, 200)
    assert {route: without_id(body) for route, (_, body) in found.items()} == {
        route: without_id(body) for route, (_, body) in expected.items()
    }


def without_id(body):
    return {name: value for name, value in body.items() if name != "recommendation_id"}
