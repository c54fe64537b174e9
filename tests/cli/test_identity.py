"""`qianmian identity`: dry runs, explanations and unmerges, as tables and as JSON."""

from __future__ import annotations

import shutil

import pytest

PEOPLE = """customer,kind,value,seen
ann,phone,+44 7700 900123,2024-01-01
ann,login,ann@shop.example,2024-01-01
anna,phone,0044 7700 900123,2024-02-03
bob,login,bob@shop.example,2024-01-01
bob,device,d1,2024-02-01
ann,device,d1,2024-02-02
"""
ORDERS = """order,customer,item,when
1,ann,apple,2024-01-05
2,anna,pear,2024-01-15
3,bob,fig,2024-02-06
4,zoe,fig,2024-02-07
"""
CONFIG = """source: corner
tables:
  identities:
    path: people.csv
    columns: {source_user_id: customer, id_type: kind, id_value: value, observed_at: seen}
  transactions:
    path: orders.csv
    columns: {order_id: order, source_user_id: customer, item_id: item, ts: when}
"""


@pytest.fixture(scope="module")
def resolved(tmp_path_factory):
    """A workspace with four records: ann and anna share a telephone, bob is another customer, zoe has no identifier."""
    from cli.main import run

    folder = tmp_path_factory.mktemp("corner shop")
    for name, text in {"people.csv": PEOPLE, "orders.csv": ORDERS, "sources.yaml": CONFIG}.items():
        (folder / name).write_text(text)
    assert (
        run(
            [
                "ingest",
                "files",
                "--config",
                str(folder / "sources.yaml"),
                "--workspace",
                str(folder / "workspace"),
                "--json",
            ]
        )
        == 0
    )
    return folder / "workspace"


@pytest.fixture
def place(resolved, tmp_path):
    """A copy of the workspace that a test may change."""
    return shutil.copytree(resolved, tmp_path / "workspace")


def test_resolve_right_after_an_ingest_changes_nothing(qianmian, place):
    done = qianmian("identity", "resolve", "--dry-run", "--workspace", place)
    assert done.code == 0
    assert "4 records: 3 customers would become 3" in done.out
    assert "no new ledger entries" in done.out


def test_a_dry_run_shows_the_effect_of_a_changed_rule(qianmian, place):
    (place / "qianmian.yaml").write_text("identity: {id_types: [{type: phone, expires_days: 10}]}\n")
    shown = qianmian("identity", "resolve", "--dry-run", "--workspace", place)
    assert "3 customers would become 4; 1 records change one_id" in shown.out
    assert "the link no longer holds" in shown.out
    changes = qianmian("identity", "resolve", "--dry-run", "--workspace", place, "--json").json
    assert (changes["dry_run"], changes["withdrawn"]) == (True, 1)
    assert changes["samples"]["withdraw"][0]["id_type"] == "phone"
    assert qianmian("identity", "resolve", "--workspace", place, "--json").json["customers"] == 4
    assert qianmian("identity", "resolve", "--dry-run", "--workspace", place, "--json").json["customers_before"] == 4


@pytest.mark.parametrize("second", ["anna", "corner:anna"])
@pytest.mark.parametrize("first", ["ann", "phone=+44 (0)7700 900-123"])
def test_why_two_records_are_one(qianmian, resolved, first, second):
    done = qianmian("identity", "explain", first, second, "--workspace", resolved)
    assert done.code == 0
    assert "corner:ann and corner:anna are one customer" in done.out
    assert "7700" not in done.out
    explanation = qianmian("identity", "explain", first, second, "--workspace", resolved, "--json").json
    (step,) = explanation["steps"]
    assert (explanation["same"], step["id_type"], step["since"]) == (True, "phone", "2024-02-03T00:00:00")
    assert step["ledger_id"].startswith("m")
    assert step["id_value"].startswith("h1:")


@pytest.mark.parametrize(
    ("other", "why"), [("bob", "different values of login"), ("zoe", "holds no identifier that anybody else holds")]
)
def test_why_two_records_are_not_one(qianmian, resolved, other, why):
    done = qianmian("identity", "explain", "ann", other, "--workspace", resolved)
    assert done.code == 0
    assert "are two customers" in done.out
    assert why in done.out


def test_one_record_shows_its_customer_in_time(qianmian, resolved):
    done = qianmian("identity", "explain", "anna", "--workspace", resolved)
    assert "with 2 record(s)" in done.out
    assert "one_id of corner:anna over time" in done.out
    assert len(qianmian("identity", "explain", "anna", "--workspace", resolved, "--json").json["periods"]) == 2
    alone = qianmian("identity", "explain", "zoe", "--workspace", resolved)
    assert "with 1 record(s)" in alone.out
    by_one_id = qianmian(
        "identity",
        "explain",
        qianmian("identity", "explain", "zoe", "--workspace", resolved, "--json").json["one_ids"][0],
        "--workspace",
        resolved,
    )
    assert "corner:zoe" in by_one_id.out


def test_unmerge_and_back(qianmian, place):
    ledger_id = qianmian("identity", "explain", "ann", "anna", "--workspace", place, "--json").json["steps"][0][
        "ledger_id"
    ]
    done = qianmian("identity", "unmerge", ledger_id, "--reason", "mother and daughter", "--workspace", place)
    assert done.code == 0
    assert "are two customers, for all dates" in done.out
    why = qianmian("identity", "explain", "ann", "anna", "--workspace", place)
    assert "mother and daughter" in why.out
    features = qianmian("features", "--workspace", place, "--json").json
    assert features["customers"] == 4
    assert qianmian("identity", "unmerge", ledger_id, "--reason", "again", "--workspace", place).code == 2
    unmerge = [part for part in why.out.replace("(", " ").replace(")", " ").split() if part.startswith("x")][0]
    back = qianmian("identity", "unmerge", unmerge, "--reason", "one after all", "--workspace", place)
    assert "may be one customer again" in back.out
    assert qianmian("features", "--workspace", place, "--json").json["customers"] == 3
    assert qianmian("identity", "unmerge", unmerge, "--reason", "again", "--workspace", place).code == 2
    by_names = qianmian("identity", "unmerge", "ann", "anna", "--reason", "two", "--workspace", place, "--json")
    assert by_names.json["changes"]["customers"] == 4


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["explain", "nobody"], 2, "there is no record nobody"),
        (["explain", "phone=+1 555 0100"], 2, "there is no record with this phone"),
        (["explain", "card=4929 0000 0000 0000"], 2, "there is no record with this card"),
        (["unmerge", "m0000000000000000", "--reason", "x"], 2, "the ledger has no such decision"),
        (["unmerge", "ann", "bob", "--reason", "x"], 2, "are not one customer"),
        (["unmerge", "ann", "anna"], 2, "the reason is missing"),
    ],
)
def test_invalid_arguments_are_rejected_with_a_fix(qianmian, resolved, arguments, code, message):
    done = qianmian("identity", *arguments, "--workspace", resolved)
    assert done.code == code
    assert message in done.err
    assert "Fix:" in done.err
    assert "555" not in done.err
    assert "4929" not in done.err


def test_resolve_without_a_lake_is_rejected(qianmian, tmp_path):
    done = qianmian("identity", "resolve", "--workspace", tmp_path)
    assert done.code == 2
    (tmp_path / "lake").mkdir()
    assert qianmian("identity", "resolve", "--workspace", tmp_path).code == 3
