"""`qianmian erase`: an id from the arguments or from standard input, receipts, what is pending, and exit codes."""

from __future__ import annotations

import io
import json
from pathlib import Path

from features.data.lake import Lake
from features.data.locking import workspace_lock
from features.erasure.customer import ErasedCustomer
from qianmian.workspace import Workspace
from tests.training.planted_customer import places_with
from training.erasure import PLACES


def an_id(place: Path) -> tuple[str, str]:
    """A user of the shop: the source and the id."""
    rows = Lake(Workspace(place)).connect().con.execute("SELECT source, source_user_id FROM customers ORDER BY ALL")
    return rows.fetchone()


def test_erase_verify_and_doctor(qianmian, fresh_shop, monkeypatch):
    source, user_id = an_id(fresh_shop)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{user_id}\n"))
    done = qianmian("erase", "-", "--source", source, "--workspace", fresh_shop, "--json")
    assert done.code == 0, done.out
    assert list(done.json["removed"]) == list(PLACES)
    assert done.json["removed"]["lake"] > 0
    assert user_id not in done.out
    assert user_id not in done.err
    receipt = Path(done.json["file"])
    assert json.loads(receipt.read_text())["signature"] == done.json["signature"]
    checked = qianmian("erase", "--verify", receipt, "--workspace", fresh_shop)
    assert checked.code == 0
    assert done.json["fingerprint"] in checked.out
    assert "key of this workspace" in checked.out
    receipt.write_text(receipt.read_text().replace('"complete": true', '"complete": false'))
    assert qianmian("erase", "--verify", receipt, "--workspace", fresh_shop).code == 3
    unknown = qianmian("erase", user_id, "--source", source, "--workspace", fresh_shop)
    assert unknown.code == 3
    assert "was erased before" in unknown.err
    assert user_id not in unknown.err
    assert qianmian("erase", "--resume", "--workspace", fresh_shop).out.startswith("no erasure")
    assert qianmian("erase", "--workspace", fresh_shop).code == 2
    assert qianmian("erase", user_id, "--resume", "--workspace", fresh_shop).code == 2


def test_what_is_left_is_told_and_the_doctor_reminds_of_it(qianmian, fresh_shop):
    user_id = "a-customer-of-later"
    notes = fresh_shop / "notes.txt"
    notes.write_text(f"to do: {user_id}", encoding="utf-8")
    call = ("erase", user_id, "--source", "shop", "--unknown", "--workspace", fresh_shop)
    done = qianmian(*call)
    assert done.code == 3
    assert "user id in notes.txt" in done.out
    assert user_id not in done.out + done.err
    findings = qianmian("doctor", "--workspace", fresh_shop, "--json").json["findings"]
    found = {finding["status"]: finding for finding in findings if finding["check"] == "erasures"}
    assert "--resume" in found["warn"]["hint"]
    assert "1 user ids" in found["ok"]["found"]
    notes.unlink()
    assert qianmian("erase", "--resume", "--workspace", fresh_shop, "--json").json["receipts"][0]["complete"]
    assert places_with(fresh_shop, [user_id]) == set()
    (fresh_shop / "secrets" / "pii.key").unlink()
    findings = qianmian("doctor", "--workspace", fresh_shop, "--json").json["findings"]
    assert [finding["status"] for finding in findings if finding["check"] == "erasures"] == ["fail"]


def test_places_take_a_customer_of_nobody(fresh_shop):
    nobody = ErasedCustomer((), ())
    found = [place(Workspace(fresh_shop), nobody).removed for place in PLACES.values()]
    assert found == [0] * len(PLACES)


def test_nothing_is_written_of_a_customer_who_is_being_erased(qianmian, fresh_shop, tmp_path):
    """A command that had read the customer before would write the customer afterwards."""
    out = tmp_path / "out.csv"
    seed = tmp_path / "seed.txt"
    seed.write_text("a\n")
    commands = [["score", job, "--out", out] for job in ("recommend", "churn", "predictions", "tags")]
    commands += [["score", "lookalike", "--seed", seed, "--out", out], ["features", "--out", out], ["models", "export"]]
    with workspace_lock(Workspace(fresh_shop), exclusive=True):
        for command in commands:
            done = qianmian(*command, "--workspace", fresh_shop)
            assert done.code == 2, command
            assert "a customer is being erased" in done.err, command
    assert not out.exists()
