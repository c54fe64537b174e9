"""Personal data: what somebody typed is in no file, no message and no answer; its hash is the same however it was written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import duckdb
import pytest

from cli.main import run
from features.data.ingest import ingest
from features.data.ingest.rejected import redact_values
from features.data.lake import Lake
from features.data.personal_names import personal_data_type
from features.data.pii_key import KEY_VARIABLE, PiiKey, load_key, save_key_fingerprint
from features.data.privacy import HASH_PATTERN, PersonalDataHasher, hash_value
from features.data.sources.files import FileSource
from qianmian.errors import ConfigError, DataError, UsageError, WorkspaceError
from qianmian.settings import ID_TYPES, Settings
from qianmian.workspace import Workspace

PHONE, EMAIL, CARD, LOGIN = "+447700900461", "Wilhelmina.Quist@post.example", "4929123412341234", "wquist1987"
NAME, STREET, MOBILE = "Wilhelmina", "Larkspur Crescent", "447700900999"
# every way in which a piece of it could be told
SECRETS = (
    "7700900461",
    "7700 900461",
    "7700 900 461",
    "quist@post",
    "4929123412341234",
    "4929 1234",
    LOGIN,
    NAME,
    STREET,
    MOBILE,
    "900462",
    "oskar.quist",
)

IDENTITIES = f"""customer,kind,value,seen
w,phone,+44 7700 900461,2024-01-01
w,email, {EMAIL} ,2024-01-01
w,login,{LOGIN},2024-01-02
v,phone,0044 (0)7700 900 461,2024-01-03
v,card,4929 1234 1234 1234,2024-01-03
v,tattoo,{PHONE},2024-01-03
,phone,{PHONE},2024-01-03
{PHONE},v,phone,2024-01-03
v,{PHONE},phone,2024-01-03
v,phone,{PHONE},yesterday
v,phone,{PHONE},2024-01-04,{EMAIL},too,many
"""
PROFILES = f"""id,Given Name,address,mobile,newsletter email opt_in,town,joined
w,{NAME},3 {STREET},{MOBILE},yes,Bath,2024-01-01
v,{NAME},3 {STREET},{MOBILE},no,Bath,not a day
"""
ORDERS = f"""order,customer,item,when,paid,phone,note
1,w,apple,2024-01-05,2,{PHONE},ring {PHONE} or write to {EMAIL}
2,v,pear,2024-01-06,much,{PHONE},ring {PHONE} or write to {EMAIL}
3,oskar.quist@post.example,fig,2024-01-06,3,{PHONE},
4,+44 7700 900462,fig,2024-01-06,3,{PHONE},
"""
CONFIG = """source: corner
tables:
  identities:
    path: identities.csv
    max_rejected: 1
    columns: {source_user_id: customer, id_type: kind, id_value: value, observed_at: seen}
  profiles:
    path: profiles.csv
    max_rejected: 1
    columns: {source_user_id: id, given_name: Given Name, address: address, mobile: "mobile::BIGINT", email_opt_in: newsletter email opt_in, city: town, registered_at: joined}
  transactions:
    path: orders.csv
    max_rejected: 1
    columns: {order_id: order, source_user_id: customer, item_id: item, ts: when, amount: paid}
"""


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text, encoding="utf-8")
    return folder / "sources.yaml"


def corner(folder: Path) -> Path:
    return write(folder, identities_csv=IDENTITIES, profiles_csv=PROFILES, orders_csv=ORDERS, sources_yaml=CONFIG)


def told(text: str) -> list[str]:
    return [secret for secret in SECRETS if secret.lower() in text.lower()]


def everything_in(root: Path) -> dict[str, str]:
    """All text of all files, Parquet and SQLite opened."""
    found = {}
    for path in sorted(root.rglob("*")):
        if not path.is_file():
            continue
        text = path.read_bytes().decode("latin-1")
        if path.suffix == ".parquet":
            with duckdb.connect() as connection:
                text += "\n".join(
                    str(row) for row in connection.execute("SELECT * FROM read_parquet(?)", [str(path)]).fetchall()
                )
        found[str(path)] = text
    return found


def test_nothing_that_was_typed_is_anywhere(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("cli.main.quieten", lambda debug: None)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    source, place = tmp_path / "source", tmp_path / "workspace"
    source.mkdir()
    config = corner(source)
    at = ["--workspace", str(place), "--debug"]
    assert run(["ingest", "files", "--config", str(config), *at]) == 0
    assert run(["ingest", "files", "--config", str(config), "--json", *at]) == 0
    assert run(["identity", "resolve", "--dry-run", *at]) == 0
    assert run(["identity", "explain", f"phone={PHONE}", *at]) == 0
    assert run(["identity", "explain", f"email={EMAIL}", "corner:v", *at, "--json"]) == 0
    assert run(["identity", "unmerge", f"phone={PHONE}", "v", "--reason", "two people", *at]) == 0
    assert run(["features", *at]) == 0
    assert run(["tags", "list", *at]) == 0
    # and where things go wrong
    assert run(["identity", "explain", "phone=+44 7700 900999", *at]) == 2
    for table in ("identities", "profiles"):
        (source / f"{table}.csv").write_text(f"customer,kind,value,seen\nw,phone,{PHONE},{PHONE}\n")
        only = f"source: corner\ntables:\n  {table}:\n    path: {table}.csv\n    columns: {{source_user_id: customer, "
        only += (
            "id_type: kind, id_value: value, observed_at: seen}\n"
            if table == "identities"
            else "phone: value, registered_at: seen}\n"
        )
        assert run(["ingest", "files", "--config", str(write(source, sources_yaml=only)), *at]) == 3
    out, err = capfd.readouterr()
    assert told(out + err) == []
    leaks = {path: told(text) for path, text in everything_in(place).items() if told(text)}
    assert leaks == {}


def test_what_is_kept_instead(tmp_path):
    workspace = Workspace(tmp_path / "workspace")
    report = ingest(workspace, FileSource(corner(tmp_path)), Settings())
    assert report.tables["identities"].kept == 5
    assert sorted(report.tables["identities"].reasons.values()) == [1, 1, 1, 1, 2]
    connection = Lake(workspace).connect().con
    values = dict(connection.execute("SELECT source_user_id || ' ' || id_type, id_value FROM identities").fetchall())
    assert (
        values["w phone"]
        == values["v phone"]
        == hash_value(workspace, Settings(), "phone", "+44 7700 900 461")
        == hash_value(workspace, Settings(), "phone_verified", PHONE)
    )
    assert (
        values["v card"]
        == hash_value(workspace, Settings(), "card", CARD)
        != hash_value(workspace, Settings(), "phone", CARD)
    )
    assert len(values["w email"]) == len("h1:") + 32
    profile = connection.execute("SELECT given_name, address, mobile, email_opt_in, city FROM profiles").fetchone()
    assert profile[2] == hash_value(workspace, Settings(), "phone", MOBILE)
    assert profile[3:] == ("yes", "Bath")
    assert all(value.startswith("h1:") for value in profile[:3])
    # one telephone, written in two ways, is one customer
    assert connection.execute(
        "SELECT count(DISTINCT one_id) FROM customers WHERE source_user_id IN ('v', 'w')"
    ).fetchone() == (1,)
    assert ingest(workspace, FileSource(tmp_path / "sources.yaml"), Settings()).kept == 0


def test_refused_rows_say_where_and_why_and_equal_values_look_equal(tmp_path):
    report = ingest(Workspace(tmp_path / "workspace"), FileSource(corner(tmp_path)), Settings()).tables["identities"]
    rows = duckdb.sql(
        f"SELECT reason, position, row FROM '{report.quarantine_file}' ORDER BY position NULLS LAST"
    ).fetchall()
    assert [position for _, position, _ in rows] == [6, 7, 8, 9, 10, None]
    assert "identity.id_types" in rows[0][0]
    assert '"customer":"v"' in rows[0][2]
    hashes = [duckdb.execute("SELECT json_extract_string(?, '$.value')", [row]).fetchone()[0] for _, _, row in rows[:2]]
    assert hashes[0] == hashes[1]
    assert '"line"' in rows[-1][2]


def test_hashes_are_kept_where_the_source_says_they_are(tmp_path):
    workspace = Workspace(tmp_path / "workspace")
    theirs = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    csv = f"c,v\na,{theirs}\nb,{theirs}\n"
    yaml = "source: s\ntables:\n  identities:\n    path: i.csv\n    {}columns: {{source_user_id: c, id_type: \"'phone'\", id_value: v}}\n"
    ingest(workspace, FileSource(write(tmp_path, i_csv=csv, sources_yaml=yaml.format(""))), Settings())
    values = "SELECT DISTINCT id_value FROM identities"
    ours = Lake(workspace).connect().con.execute(values).fetchall()
    assert ours != [(theirs,)]
    other = Workspace(tmp_path / "other")
    ingest(other, FileSource(write(tmp_path, sources_yaml=yaml.format("hashed: true\n    "))), Settings())
    assert Lake(other).connect().con.execute(values).fetchall() == [(theirs,)]
    # ours are known by their prefix: what was exported comes back as it was
    write(tmp_path, i_csv=f"c,v\nc,{ours[0][0]}\n", sources_yaml=yaml.format(""))
    ingest(workspace, FileSource(tmp_path / "sources.yaml"), Settings())
    assert Lake(workspace).connect().con.execute(values).fetchall() == ours
    write(tmp_path, i_csv=f"c,v\nc,{PHONE}\n", sources_yaml=yaml.format("hashed: true\n    "))
    with pytest.raises(DataError, match="not a hash, although the source sets hashed") as caught:
        ingest(workspace, FileSource(tmp_path / "sources.yaml"), Settings())
    assert told(str(caught.value)) == []


# ---- the key -------------------------------------------------------------------------------------------------------


def test_the_key_is_made_once_and_its_owners_alone(tmp_path, monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    workspace = Workspace(tmp_path / "w")
    key = load_key(workspace)
    assert load_key(workspace) == key
    file = workspace.root / "secrets" / "pii.key"
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    assert file.read_text() not in repr(key)
    assert load_key(Workspace(tmp_path / "another")) != key


def test_another_key_is_refused(tmp_path, monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    workspace = Workspace(tmp_path / "w")
    save_key_fingerprint(workspace, load_key(workspace))
    monkeypatch.setenv(KEY_VARIABLE, "another key altogether")
    with pytest.raises(WorkspaceError, match="hashed with another key") as caught:
        load_key(workspace)
    assert "another key altogether" not in str(caught.value)
    monkeypatch.delenv(KEY_VARIABLE)
    (workspace.root / "secrets" / "pii.key").unlink()
    with pytest.raises(WorkspaceError, match="is missing"):
        load_key(workspace)
    assert not (workspace.root / "secrets" / "pii.key").exists()


def test_a_short_key_and_an_unknown_type_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "short")
    with pytest.raises(UsageError, match="too short"):
        load_key(Workspace(tmp_path))
    monkeypatch.setenv(KEY_VARIABLE, "a long enough secret")
    with pytest.raises(UsageError, match="unknown id type"):
        hash_value(Workspace(tmp_path), Settings(), "tattoo", PHONE)


# ---- cleaning and names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("id_type", "one", "other", "equal"),
    [
        ("phone", "+44 (0)7700 900-461", "00447700900461", True),
        ("phone", "07700 900461", "07700900461", True),
        ("phone", "+447700900461", "+447700900462", False),
        ("phone", "call Ann", "CALL  ann ", True),
        ("email", " A.B@C.example", "a.b@c.EXAMPLE ", True),
        ("card", "1234-5678", "12345678", True),
        ("login", "Ann", "ann", False),
        ("login", "Ann@shop.example", "ann@shop.example", True),
        ("cookie", "Ab", "ab", False),
    ],
)
def test_one_value_is_written_in_many_ways(id_type, one, other, equal):
    personal = PersonalDataHasher(PiiKey.of("a key for the test"), ID_TYPES)
    with duckdb.connect() as connection:
        personal.set_key_variables(connection)
        made = [
            connection.execute(
                f"SELECT {personal.identifier('t', 'v')} FROM (SELECT ? AS t, ? AS v)", [id_type, text]
            ).fetchone()
            for text in (one, other)
        ]
        hashed = connection.execute(f"SELECT regexp_matches(?, '{HASH_PATTERN}')", [made[0][0]]).fetchone()
    assert (made[0] == made[1]) is equal
    assert hashed == (id_type != "cookie",)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("phone", "phone"),
        ("Tel", "phone"),
        ("mobileNumber", "phone"),
        ("e-mail", "email"),
        ("surname", "name"),
        ("given_name", "name"),
        ("street_number", "address"),
        ("address_1", "address"),
        ("soc_sec_id", "document"),
        ("手机号", "phone"),
        ("姓名", "name"),
        ("city", None),
        ("postcode", None),
        ("email_opt_in", None),
        ("phone_model", None),
        ("member_tier", None),
        ("brand_name", None),
        ("card_type", None),
        ("kids", None),
    ],
)
def test_personal_columns_are_known_by_their_names(name, kind):
    assert personal_data_type(name) == kind


def test_messages_of_the_engine_lose_their_values():
    text = f"Conversion Error: Could not convert string '{PHONE}' to INT64 in file '/data/people.csv' near \"{EMAIL}\" {EMAIL}"
    assert told(redact_values(text)) == []
    assert "/data/people.csv" in redact_values(text)


def test_a_header_that_is_a_row_is_not_repeated(tmp_path):
    write(
        tmp_path,
        i_csv=f"w,phone,{EMAIL}\nv,phone,{EMAIL}\n",
        sources_yaml="source: s\ntables:\n  identities:\n    path: i.csv\n    columns: {source_user_id: c, id_type: t, id_value: v}\n",
    )
    with pytest.raises(ConfigError, match="header") as caught:
        FileSource(tmp_path / "sources.yaml")
    assert told(str(caught.value)) == []
