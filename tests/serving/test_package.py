"""A Bento built from bentofile.yaml is served from another folder without the workspace."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from serving.server import running

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_bento_contains_its_champions(workspace, buyers, server_environment, request_, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    env = {**server_environment(None), "BENTOML_HOME": str(home)}
    stored = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from qianmian.workspace import Workspace; "
            "from qianmian.settings import Settings; from serving.package import store_champions; "
            "print(store_champions(Workspace(Path(sys.argv[1])), Settings()))",
            str(workspace.root),
        ],
        env=env,
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert stored.stdout.splitlines()[-1].startswith("qianmian-champions:")
    subprocess.run([sys.executable, "-m", "bentoml", "build"], env=env, cwd=ROOT, check=True, capture_output=True)
    built = next((home / "bentos" / "qianmian").glob("*/bento.yaml"))
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
