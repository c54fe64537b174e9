"""A file gets there whole or not at all, and an error of the disk says how to mend it."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from qianmian.errors import WorkspaceError
from qianmian.paths import sqlite_file
from qianmian.workspace import ENVIRONMENT_VARIABLE, Workspace, atomic_path, explain_os_errors, write_json


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_where_the_workspace_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Workspace.locate().root == tmp_path / "workspace"
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "from the environment"))
    assert Workspace.locate().root == tmp_path / "from the environment"
    assert Workspace.locate("given").root == tmp_path / "given"
    assert Workspace.locate("~/x").root == Path.home() / "x"
    assert not everything(tmp_path)  # looking makes nothing


def test_create_and_require(tmp_path):
    workspace = Workspace(tmp_path / "a b" / "workspace")
    with pytest.raises(WorkspaceError, match="workspace does not exist") as caught:
        workspace.require()
    assert "qianmian ingest" in caught.value.hint
    assert workspace.create().require() is workspace
    (workspace.lake / "kept").write_text("x")
    workspace.create()
    assert (workspace.lake / "kept").read_text() == "x"


def test_where_models_are_tracked(tmp_path, monkeypatch):
    workspace = Workspace(tmp_path)
    assert workspace.tracking_uri == f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere")
    assert workspace.tracking_uri == "http://somewhere"


@pytest.mark.parametrize("name", ["a b", "shop?x #1", "100%", "50%25", "100%41 [a]*", "店", "a&b=c;d+e@f:g", "'\"$~{}"])
def test_the_store_is_in_the_workspace_whatever_its_name(tmp_path, name):
    import sqlalchemy

    workspace = Workspace(tmp_path / name).create()
    with sqlalchemy.create_engine(workspace.tracking_uri).begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE t (a INTEGER)"))
    assert everything(tmp_path) == sorted([name, *(f"{name}/{part}" for part in everything(workspace.root))])
    assert workspace.mlflow_db.is_file()
    assert sqlite_file(workspace.tracking_uri) == workspace.mlflow_db


@pytest.mark.parametrize("name", ["a\\b", "a\nb", "a\x00b", os.fsdecode(b"a\xffb")])
def test_a_path_that_the_databases_cannot_read_is_refused(tmp_path, name):
    with pytest.raises(WorkspaceError, match="control characters") as caught:
        Workspace.locate(tmp_path / name)
    str(caught.value).encode()  # printable, although the name is not
    assert not everything(tmp_path)


def test_a_file_is_there_only_when_it_is_whole(tmp_path):
    target = tmp_path / "deep" / "file.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        assert temporary.parent == target.parent  # a rename across disks is a copy
        assert not target.exists()
    assert target.read_text() == "half"
    assert everything(tmp_path) == ["deep", "deep/file.txt"]


def write_and_fail(target: Path) -> None:
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        raise ZeroDivisionError


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError):
        write_and_fail(target)
    assert target.read_text() == "old"
    assert everything(tmp_path) == ["file.txt"]


def test_folders_too(tmp_path):
    with atomic_path(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "inside").write_text("x")
    assert everything(tmp_path) == ["folder", "folder/inside"]
    with pytest.raises(IsADirectoryError), atomic_path(tmp_path / "other") as temporary:
        temporary.mkdir() or temporary.write_text("into a folder")
    assert everything(tmp_path) == ["folder", "folder/inside"]


def test_json_is_readable(tmp_path):
    write_json(tmp_path / "facts.json", {"b": "千面", "a": [1]})
    text = (tmp_path / "facts.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"a": [1], "b": "千面"}
    assert "千面" in text
    assert text.endswith("\n")
    with pytest.raises(TypeError):
        write_json(tmp_path / "facts.json", {"a": object()})
    assert json.loads((tmp_path / "facts.json").read_text(encoding="utf-8"))["b"] == "千面"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOTDIR])
def test_errors_of_the_disk_are_explained(number):
    with pytest.raises(WorkspaceError) as caught, explain_os_errors(Path("/somewhere")):
        raise OSError(number, os.strerror(number))
    assert os.strerror(number) in str(caught.value)
    assert "/somewhere" in str(caught.value)
    assert caught.value.hint
    assert isinstance(caught.value.__cause__, OSError)


def test_other_errors_pass_through():
    with pytest.raises(ConnectionResetError), explain_os_errors(Path("/somewhere")):
        raise ConnectionResetError(errno.ECONNRESET, "reset")


def test_a_file_where_the_workspace_should_be(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(WorkspaceError, match="cannot write"):
        Workspace(tmp_path / "file" / "workspace").create()
    with pytest.raises(WorkspaceError, match="cannot write"):
        Workspace(tmp_path / "file").create()
