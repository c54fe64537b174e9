"""The file of API keys: what is in it, who may read it, and how it changes."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest

from qianmian import settings
from qianmian.errors import NotFound, WorkspaceError
from qianmian.workspace import Workspace
from serving.security.key_file import FILE_VARIABLE, KeyFile
from serving.security.keys import RATE_PATTERN, ApiKey, new_key

NOW = datetime(2026, 5, 1, 12)


@pytest.fixture
def file(tmp_path, monkeypatch) -> KeyFile:
    monkeypatch.delenv(FILE_VARIABLE, raising=False)
    found = KeyFile.locate(Workspace(tmp_path / "shop"))
    assert found is not None
    return found


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_keys_have_256_random_bits_and_only_their_hash_is_stored(file):
    texts = []
    for number in range(50):
        text, key = new_key(f"key {number}", ("events", "read"), NOW)
        file.add(key)
        texts.append(text)
    secrets = {text.split("_")[2] for text in texts}
    assert len(secrets) == 50
    assert {len(bytes.fromhex(secret)) for secret in secrets} == {32}
    stored = file.path.read_text(encoding="utf-8")
    assert not any(secret in stored for secret in secrets)
    assert {key.sha256 for key in file.read()} == {hashlib.sha256(secret.encode()).hexdigest() for secret in secrets}
    assert {key.scopes for key in file.read()} == {("read", "events")}
    assert [f"qm_{key.id}" for key in file.read()] == [text.rpartition("_")[0] for text in texts]


def test_only_the_owner_reads_the_file_and_its_folder(file):
    umask = os.umask(0)
    try:
        file.add(new_key("a", ("read",), NOW)[1])
    finally:
        os.umask(umask)
    assert mode(file.path) == 0o600
    assert mode(file.path.parent) == 0o700
    assert {mode(path) for path in file.path.parent.iterdir()} == {0o600}


def test_the_folder_of_a_workspace_is_closed_to_others(file):
    file.path.parent.mkdir(parents=True, mode=0o755)
    file.add(new_key("a", ("read",), NOW)[1])
    assert mode(file.path.parent) == 0o700


@pytest.mark.parametrize("permissions", [0o644, 0o660, 0o620, 0o602, 0o604, 0o601])
def test_loose_permissions_are_an_error(file, permissions):
    file.add(new_key("a", ("read",), NOW)[1])
    file.path.chmod(permissions)
    with pytest.raises(WorkspaceError, match=f"mode {permissions:04o}.*chmod 600"):
        file.read()
    with pytest.raises(WorkspaceError):
        file.add(new_key("b", ("read",), NOW)[1])


@pytest.mark.parametrize("permissions", [0o600, 0o400, 0o640, 0o440])
def test_a_group_may_read_it_as_a_mounted_secret(file, permissions):
    file.add(new_key("a", ("read",), NOW)[1])
    file.path.chmod(permissions)
    assert len(file.read()) == 1


def damaged(change) -> str:
    raw = new_key("a", ("read",), NOW)[1].as_dict()
    change(raw)
    return json.dumps({"format": 1, "keys": [raw]})


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "[" * 100_000,
        "{}",
        '{"format": 2, "keys": []}',
        '{"format": 1, "keys": {}}',
        '{"format": 1, "keys": [7]}',
        damaged(lambda raw: raw.pop("sha256")),
        damaged(lambda raw: raw.update(more=1)),
        damaged(lambda raw: raw.update(scopes=["root"])),
        damaged(lambda raw: raw.update(scopes=[])),
        damaged(lambda raw: raw.update(scopes=[["read"]])),
        damaged(lambda raw: raw.update(scopes="read")),
        damaged(lambda raw: raw.update(sha256="secret")),
        damaged(lambda raw: raw.update(id="../..")),
        damaged(lambda raw: raw.update(name=None)),
        damaged(lambda raw: raw.update(expires_at="tomorrow")),
        damaged(lambda raw: raw.update(expires_at=1)),
        damaged(lambda raw: raw.update(created_at=None)),
        damaged(lambda raw: raw.update(rate_limit="many")),
        damaged(lambda raw: raw.update(rate_limit=5)),
    ],
)
def test_a_file_of_another_shape_is_an_error_that_repeats_no_secret(file, content):
    file.path.parent.mkdir(parents=True)
    file.path.write_text(content, encoding="utf-8")
    file.path.chmod(0o600)
    with pytest.raises(WorkspaceError, match="damaged") as caught:
        file.read()
    assert str(file.path) in str(caught.value)
    assert "secret'" not in str(caught.value)


def test_two_keys_with_one_id_are_an_error(file):
    key = new_key("a", ("read",), NOW)[1]
    file.add(key)
    file.add(key)
    with pytest.raises(WorkspaceError, match="same id"):
        file.read()


def test_without_a_file_there_are_no_keys_but_a_named_one_must_be_there(file, tmp_path, monkeypatch):
    assert file.read() is None
    monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "elsewhere.json"))
    named = KeyFile.locate(None)
    assert named == KeyFile.locate(Workspace(tmp_path)) == KeyFile(tmp_path / "elsewhere.json", is_named=True)
    with pytest.raises(WorkspaceError, match=FILE_VARIABLE):
        named.read()
    named.add(new_key("a", ("read",), NOW)[1])
    assert len(named.read()) == 1
    monkeypatch.delenv(FILE_VARIABLE)
    assert KeyFile.locate(None) is None


def test_a_key_is_revoked_once_and_for_good(file):
    keys = [new_key(name, ("read",), NOW)[1] for name in "ab"]
    for key in keys:
        file.add(key)
    before = file.signature()
    assert file.revoke(keys[0].id, NOW + timedelta(days=1)).state(NOW) == "revoked"
    assert file.signature() != before
    assert file.revoke(keys[0].id, NOW + timedelta(days=2)).revoked_at == NOW + timedelta(days=1)
    assert [key.state(NOW) for key in file.read()] == ["revoked", "active"]
    with pytest.raises(NotFound, match=keys[1].id):
        file.revoke("0" * 12, NOW)


def test_a_key_ends_when_it_expires():
    key = new_key("a", ("admin",), NOW, NOW + timedelta(days=1))[1]
    assert [key.state(NOW + timedelta(hours=hours)) for hours in (0, 23, 24)] == ["active", "active", "expired"]
    assert ApiKey.from_dict(key.as_dict()) == key
    assert key.allowed == {"read", "events", "admin"}


def test_changes_at_the_same_time_lose_no_key(file):
    def add(number: int) -> None:
        file.add(new_key(f"key {number}", ("read",), NOW)[1])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(20)))
    assert {key.name for key in file.read()} == {f"key {number}" for number in range(20)}


def test_keys_and_settings_write_rate_limits_alike():
    assert RATE_PATTERN.pattern == settings.RATE_PATTERN
