"""`qianmian keys`, and that `qianmian serve` does not start open on a public address."""

from __future__ import annotations

import stat
from datetime import datetime

import pytest

from cli.doctor import _api_keys
from qianmian.workspace import Workspace
from serving.security.key_file import FILE_VARIABLE


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The folder of an empty workspace."""
    monkeypatch.delenv(FILE_VARIABLE, raising=False)
    (tmp_path / "lake").mkdir()
    return tmp_path


def api_keys_of_doctor(place):
    (found,) = _api_keys(Workspace(place))
    return found.status, found.found


def test_a_key_is_shown_once_listed_and_revoked(qianmian, place):
    assert "no API keys" in qianmian("keys", "list", "--workspace", place).out
    assert api_keys_of_doctor(place)[0] == "ok"
    made = qianmian("keys", "create", "--name", "shop", "--scope", "read", "--scope", "events", "--workspace", place)
    assert made.code == 0
    text = made.out.splitlines()[0]
    secret = text.split("_")[2]
    listed = qianmian("keys", "list", "--workspace", place)
    assert all(word in listed.out for word in (text.split("_")[1], "shop", "read, events", "active"))
    assert secret not in listed.out + qianmian("keys", "list", "--workspace", place, "--json").out
    file = place / "secrets" / "api_keys.json"
    assert secret not in file.read_text(encoding="utf-8")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert api_keys_of_doctor(place) == ("ok", "1 active of 1")
    revoked = qianmian("keys", "revoke", text.split("_")[1], "--workspace", place)
    assert revoked.code == 0
    assert "revoked" in qianmian("keys", "list", "--workspace", place).out
    assert api_keys_of_doctor(place) == ("warn", "0 active of 1")


def test_keys_for_machines(qianmian, place):
    options = ("--scope", "admin", "--expires-days", 30, "--rate-limit", "10/minute", "--workspace", place, "--json")
    made = qianmian("keys", "create", "--name", "ops", *options).json
    assert made["key"].startswith(f"qm_{made['id']}_")
    assert (made["scopes"], made["rate_limit"], made["state"]) == (["admin"], "10/minute", "active")
    created, expires = (datetime.fromisoformat(made[name]) for name in ("created_at", "expires_at"))
    assert (expires - created).days == 30
    (listed,) = qianmian("keys", "list", "--workspace", place, "--json").json["keys"]
    assert listed == {name: value for name, value in made.items() if name not in ("key", "file")}
    revoked = qianmian("keys", "revoke", made["id"], "--workspace", place, "--json").json
    assert revoked["state"] == "revoked"


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "--name", "a"),
        ("create", "--scope", "read"),
        ("create", "--name", "a", "--scope", "root"),
        ("create", "--name", " ", "--scope", "read"),
        ("create", "--name", "a\nb", "--scope", "read"),
        ("create", "--name", "a", "--scope", "read", "--expires-days", "0"),
        ("create", "--name", "a", "--scope", "read", "--rate-limit", "many"),
        ("revoke", "0" * 12),
    ],
)
def test_wrong_arguments_are_exit_2_and_make_no_key(qianmian, place, arguments):
    assert qianmian("keys", *arguments, "--workspace", place).code == 2
    assert qianmian("keys", "list", "--workspace", place, "--json").json["keys"] == []


def test_keys_may_be_in_a_file_without_a_workspace(qianmian, tmp_path, monkeypatch):
    missing = tmp_path / "no workspace"
    assert qianmian("keys", "create", "--name", "a", "--scope", "read", "--workspace", missing).code == 2
    monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "elsewhere" / "keys.json"))
    assert qianmian("keys", "create", "--name", "a", "--scope", "read", "--workspace", missing).code == 0
    (key,) = qianmian("keys", "list", "--workspace", missing, "--json").json["keys"]
    assert key["name"] == "a"
    assert not missing.exists()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_serve_does_not_start_open_on_a_public_address(qianmian, place, host):
    done = qianmian("serve", "--host", host, "--workspace", place)
    assert done.code == 2
    assert "qianmian keys create" in done.err
    error = qianmian("serve", "--host", host, "--workspace", place, "--json").json["error"]
    assert error["code"] == "usage"
    assert qianmian("keys", "create", "--name", "a", "--scope", "read", "--workspace", place).code == 0
    with_keys = qianmian("serve", "--host", host, "--port", 1, "--workspace", place)
    assert "API keys" not in with_keys.err, "it goes on to the next check"
