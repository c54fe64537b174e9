"""Other users of the machine: they cannot enter a workspace, whatever the umask, and open keys are reported."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from cli.main import run
from features.data.pii_key import KEY_VARIABLE, key_file, load_key
from qianmian.workspace import Workspace

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes of files")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def findings(workspace: Workspace, capfd) -> dict[str, dict[str, str]]:
    capfd.readouterr()
    run(["doctor", "--workspace", str(workspace.root), "--json"])
    return {found["check"]: found for found in json.loads(capfd.readouterr().out)["findings"]}


@pytest.mark.parametrize("umask", [0o000, pytest.param(0o022, marks=pytest.mark.slow)], indirect=True)
def test_a_workspace_is_its_owners_alone(umask, tmp_path, capfd):
    workspace = Workspace(tmp_path / "deep" / "shop")
    arguments = ["--customers", "20", "--days", "60", "--workspace", str(workspace.root), "--json"]
    assert run(["ingest", "synthetic", *arguments]) == 0
    assert run(["features", "--workspace", str(workspace.root), "--json"]) == 0
    load_key(workspace)
    assert mode(workspace.root) == 0o700
    assert mode(workspace.secrets) == 0o700
    assert {mode(path) for path in workspace.secrets.iterdir()} == {0o600}
    assert mode(workspace.root.parent) == 0o777 & ~umask, "only the workspace itself is closed"
    assert findings(workspace, capfd)["permissions"]["status"] == "ok"


@pytest.mark.parametrize("umask", [0o022], indirect=True)
def test_a_folder_that_exists_keeps_its_mode_and_doctor_says_so(umask, tmp_path, capfd):
    workspace = Workspace(tmp_path / "shared")
    workspace.root.mkdir(mode=0o755)
    workspace.create()
    load_key(workspace)
    assert mode(workspace.root) == 0o755
    found = findings(workspace, capfd)["permissions"]
    assert (found["status"], found["hint"].split(" (")[0]) == ("warn", f"chmod 700 {workspace.root}")
    workspace.root.chmod(0o750)  # a group is its owner's decision
    assert findings(workspace, capfd)["permissions"]["status"] == "ok"


@pytest.mark.parametrize("umask", [0o022], indirect=True)
def test_a_key_that_others_can_read_is_reported_with_the_command_that_mends_it(umask, tmp_path, caplog, capfd):
    workspace = Workspace(tmp_path / "a shop").create()
    key = load_key(workspace)
    assert not caplog.records
    key_file(workspace).chmod(0o644)
    workspace.secrets.chmod(0o755)
    assert load_key(workspace) == load_key(workspace) == key
    (said,) = caplog.messages
    assert said.endswith(f"chmod 600 '{key_file(workspace)}'")
    found = findings(workspace, capfd)
    assert "secrets/pii.key" in found["secrets"]["found"]
    assert "permissions" not in found
    os.system(found["secrets"]["hint"])
    assert (mode(workspace.secrets), mode(key_file(workspace))) == (0o700, 0o600)
    assert findings(workspace, capfd)["permissions"]["status"] == "ok"


@pytest.mark.parametrize("umask", [0o000], indirect=True)
def test_settings_are_written_into_a_private_folder(umask, tmp_path):
    assert run(["doctor", "--init-settings", "--workspace", str(tmp_path / "new"), "--json"]) == 0
    assert mode(tmp_path / "new") == 0o700
