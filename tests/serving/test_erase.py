"""`/v1/erase`, with a small command in place of `qianmian erase`: what is asked of it, and what is made of its answers."""

from __future__ import annotations

import asyncio
import json
import sys
from types import SimpleNamespace

import orjson
import pytest

from features.data.locking import workspace_lock
from features.data.pii_key import PiiKey
from features.erasure.hasher import TombstoneHasher
from features.erasure.tombstones import tombstone
from qianmian.errors import (
    InvalidRequest,
    NotFound,
    NotReady,
    Overloaded,
    StorageError,
    WorkspaceError,
)
from qianmian.workspace import Workspace
from serving.endpoints import ENDPOINTS, erase
from serving.erasures import COMMAND, ROOT, ErasureFailed, Erasures, NoWorkspace, _not_erased
from serving.http import accept_answer, error_answer

KEY = "a key of the workspace"
# prints the receipt of the id in its input; ids say what else it does
COMMAND_OF_TESTS = r"""
import json, os, pathlib, sys, time
user, options = sys.stdin.readline().rstrip("\n"), sys.argv[1:]
folder = pathlib.Path(os.environ["QIANMIAN_WORKSPACE"]) / "erasures"
(folder / "pending").mkdir(parents=True, exist_ok=True)
(folder / "receipts").mkdir(exist_ok=True)
with (folder / "calls").open("a") as calls:
    calls.write(json.dumps([user, options]) + "\n")
kind = user.partition("-")[0]
if kind == "elsewhere":
    (folder / "pending" / "abc.json").write_text(json.dumps({"erasure_id": "abc", "customer": {"users": [["shop", user]]}}))
errors = {"unknown": "data", "elsewhere": "workspace", "busy": "workspace", "named": "usage", "log": "storage", "odd": "surprise"}
if kind in errors:
    message = f"no {user} (in {os.environ['QIANMIAN_WORKSPACE']})"
    print(json.dumps({"error": {"code": errors[kind], "message": message, "field": None, "hint": f"not {user}"}}))
    sys.exit(3)
if kind == "dies":
    sys.exit(1)
pending = folder / "pending" / "abc.json"
pending.write_text(json.dumps({"erasure_id": "abc", "customer": {"users": [["shop", user]]}}))
if kind == "slow":
    time.sleep(1)
from features.erasure.hasher import TombstoneHasher
tombstones = [TombstoneHasher()("shop", user)]
receipt = {"erasure_id": "abc", "complete": kind != "left", "tombstones": tombstones, "left": [], "reason": None}
(folder / "receipts" / "abc.json").write_text(json.dumps(receipt))
pending.unlink()
if kind == "late":  # another process of the server has done it, so that the command found nobody
    print(json.dumps({"error": {"code": "data", "message": "nobody", "field": None, "hint": None}}))
    sys.exit(3)
print(json.dumps({**receipt, "file": "x"}))
sys.exit(3 if kind == "left" else 0)
"""


@pytest.fixture
def shop(tmp_path, monkeypatch):
    monkeypatch.setenv("QIANMIAN_PII_KEY", KEY)
    return Workspace(tmp_path).create()


@pytest.fixture
def server(shop):
    """What the endpoint sees of a server without models."""

    def no_champions():
        raise NotReady("no model")

    command = (sys.executable, "-c", COMMAND_OF_TESTS, *COMMAND[4:])
    return SimpleNamespace(erasures=Erasures(shop, TombstoneHasher(shop), command), get=no_champions)


def call(server, body):
    return asyncio.run(answer(server, body))


async def answer(server, body):
    status, text = await accept_answer(server, ENDPOINTS["/erase"], orjson.dumps(body))
    found = orjson.loads(text)
    if not body.get("validate_only"):
        ENDPOINTS["/erase"].response.model_validate(found)
    return status, found


def calls(shop):
    file = shop.root / "erasures" / "calls"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_a_receipt_is_returned_and_found_again(server, shop):
    body = {"user_id": "u-1", "user_source": "shop", "reason": "--ticket 7"}
    status, found = call(server, body)
    assert (status, found["status"], found["erasure_id"]) == (200, "done", "abc")
    assert found["receipt"]["tombstones"] == [tombstone(PiiKey.of(KEY), "shop", "u-1")]
    again = call(server, body)
    assert again[0] == 200
    assert again[1]["receipt"]["erasure_id"] == "abc"
    assert calls(shop) == [["u-1", ["erase", "-", "--json", "--source=shop", "--reason=--ticket 7"]]]


def test_what_takes_longer_is_asked_for_again(server, shop, monkeypatch):
    monkeypatch.setattr(erase, "WAIT_SECONDS", 0.5)
    body = {"user_id": "slow-1", "user_source": "shop"}

    async def several():
        first, same = await asyncio.gather(answer(server, body), answer(server, body))
        while (last := await answer(server, body))[0] == 202:
            pass
        return first, same, last

    first, same, last = asyncio.run(several())
    assert first[0] == same[0] == 202
    assert (first[1]["status"], first[1]["receipt"]) == ("running", None)
    assert (last[0], last[1]["status"], last[1]["erasure_id"]) == (200, "done", "abc")
    assert len(calls(shop)) == 1


def test_a_receipt_of_the_same_id_in_another_system_is_not_that_of_the_customer(server, shop):
    """Without a source the command decides who is meant; a receipt counts only if nobody has the id any more."""
    assert call(server, {"user_id": "u-1", "user_source": "shop"})[0] == 200
    known: list[str | None] = [None]
    customers = {"source": SimpleNamespace(unique=lambda: SimpleNamespace(to_pylist=lambda: ["shop", "till"]))}
    snapshot = SimpleNamespace(customers=customers, resolve=lambda *_: known[0])
    server.get = lambda: SimpleNamespace(customers=snapshot, live=snapshot)
    assert call(server, {"user_id": "u-1"})[0] == 200
    assert [user for user, _ in calls(shop)] == ["u-1", "u-1"], "that of the till was erased"
    (shop.root / "erasures" / "receipts" / "aaa.json").write_text("{")  # a damaged one stops no other
    file = shop.root / "erasures" / "receipts" / "abc.json"
    for user_id, error in (("unknown-1", NotFound), ("named-1", InvalidRequest)):
        with pytest.raises(error):
            call(server, {"user_id": user_id})
        receipt = {**json.loads(file.read_text()), "tombstones": [tombstone(PiiKey.of(KEY), "shop", user_id)]}
        file.write_text(json.dumps(receipt))
        assert call(server, {"user_id": user_id})[1]["receipt"] == receipt
    known[0] = "one-id"  # of two customers, one in each system, of whom one was erased
    with pytest.raises(InvalidRequest):
        call(server, {"user_id": "named-1"})


def test_what_another_worker_is_erasing_is_asked_for_again(server, shop):
    body = {"user_id": "elsewhere-1", "user_source": "shop"}
    with workspace_lock(shop, exclusive=True):
        status, found = call(server, body)
        with pytest.raises(WorkspaceError):  # of another system, another customer
            call(server, {**body, "user_source": "till"})
    assert (status, found["status"], found["erasure_id"]) == (202, "running", "abc")
    with pytest.raises(WorkspaceError):
        call(server, body)


def test_the_command_runs_where_the_server_does(server, tmp_path, monkeypatch):
    """Relative paths in its environment, such as that of the event log, would be others elsewhere."""
    folder = tmp_path / "elsewhere"
    (folder / "cli").mkdir(parents=True)
    (folder / "cli" / "__init__.py").write_text("raise SystemExit('not ours')")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    text = "import json, os, sys, cli; print(json.dumps({'seen': [os.getcwd(), cli.__file__, sys.stdin.readline()]}))"
    erasures = Erasures(server.erasures.workspace, TombstoneHasher(), (*COMMAND[:2], "-c", text))
    seen = asyncio.run(erasures.erase("ünïque", None, None, 60))["seen"]
    assert seen == [str(folder), str(ROOT / "cli" / "__init__.py"), "ünïque\n"]


def test_one_runs_at_a_time_and_few_wait(server, shop, monkeypatch):
    monkeypatch.setattr("serving.erasures.MOST_WAITING", 2)

    async def several():
        bodies = [{"user_id": f"u-{n}", "user_source": "shop"} for n in range(4)]
        return await asyncio.gather(*(answer(server, body) for body in bodies), return_exceptions=True)

    found = asyncio.run(several())  # which of them comes last is up to the threads that look for receipts
    (refused,) = (one for one in found if isinstance(one, Exception))
    assert [one[0] for one in found if one is not refused] == [200] * 3
    assert isinstance(refused, Overloaded)
    assert error_answer("/erase", refused)[0] == 429


@pytest.mark.parametrize(
    ("user_id", "kind"),
    [
        ("unknown-7f3a", NotFound),
        ("busy-7f3a", WorkspaceError),
        ("named-7f3a", InvalidRequest),
        ("log-7f3a", StorageError),
        ("odd-7f3a", ErasureFailed),
        ("dies-7f3a", ErasureFailed),
    ],
)
def test_errors_of_the_command_never_name_the_customer(server, user_id, kind):
    with pytest.raises(kind) as caught:
        call(server, {"user_id": user_id, "user_source": "shop"})
    status, body, *headers = error_answer("/erase", caught.value)
    assert bool(headers) == (kind is WorkspaceError), "Retry-After"
    assert status == {"unknown": 404, "busy": 503, "named": 422, "log": 503}.get(user_id[:-5], 500)
    assert user_id.encode() not in body
    assert str(server.erasures.workspace.root).encode() not in body


def test_errors_of_the_command_speak_of_fields(tmp_path):
    """Not of options; and an id that is a letter does not spoil the words."""
    several = "the user id occurs in more than one source (in --source; allowed: shop, web)"
    named = {"code": "usage", "message": several, "field": None, "hint": "name the source of the customer"}
    error = _not_erased(named, "a", Workspace(tmp_path))
    assert (error.field, error.hint) == ("user_source", named["hint"])
    assert error.message == "the user id occurs in more than one source (in user_source; allowed: shop, web)"
    unknown = {"code": "data", "message": f"x (in {tmp_path})", "field": None, "hint": "add --unknown"}
    error = _not_erased(unknown, "a", Workspace(tmp_path))
    assert (error.message, error.field) == ("no customer has this user id", "user_id")
    fault = {"code": "internal", "message": "KeyError: 'inside'", "field": None, "hint": "report it"}
    assert _not_erased(fault, "1816", Workspace(tmp_path)).message == "the erasure has failed"
    reason = {"code": "usage", "message": "the reason names the customer (in --reason)", "field": None, "hint": None}
    assert _not_erased(reason, "1816", Workspace(tmp_path)).field == "reason"


def test_an_erasure_by_another_process_of_the_server_is_found(server):
    status, found = call(server, {"user_id": "late-1", "user_source": "shop"})
    assert (status, found["status"], found["erasure_id"]) == (200, "done", "abc")


def test_what_is_left_is_said(server):
    status, found = call(server, {"user_id": "left-1", "user_source": "shop"})
    assert (status, found["status"]) == (200, "incomplete")


def test_nothing_runs_for_what_cannot_be_erased(server, shop):
    assert call(server, {"user_id": "u-1", "validate_only": True})[1]["valid"] is True
    for user_id in ("u-1\nu-2", "u-1\r"):
        with pytest.raises(NotFound, match="line break"):
            call(server, {"user_id": user_id})
    assert calls(shop) == []
    bento = SimpleNamespace(erasures=Erasures(None, TombstoneHasher()), get=server.get)
    with pytest.raises(NoWorkspace) as caught:
        call(bento, {"user_id": "u-1"})
    assert (caught.value.http_status, ENDPOINTS["/erase"].scope) == (501, "admin")
