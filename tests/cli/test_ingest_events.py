"""`qianmian ingest events`: nothing is lost or doubled, wherever it is killed; the log shrinks behind the profiles."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cli.main import run
from features.data.lake import Lake
from features.event_log import AcceptedEvent, open_log
from features.event_log.rows import encode, make_row
from features.profiles.snapshot import load_current
from qianmian.workspace import Workspace

END = datetime(2025, 12, 1)  # after the last row of the synthetic shop
EVENTS = 2_500  # compaction takes three steps

# Runs the verb, and kills the process where `function` of `module` is called for the n-th time, before or after it.
KILLED = """
import importlib, os, signal, sys
module, name, when, at = sys.argv[1:5]
module, calls = importlib.import_module(module), 0
original = getattr(module, name)
def killed(*arguments, **options):
    global calls
    calls += 1
    if when == "before" and calls == int(at):
        os.kill(os.getpid(), signal.SIGKILL)
    result = original(*arguments, **options)
    if when == "after" and calls == int(at):
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(module, name, killed)
from cli.main import run
sys.exit(run(sys.argv[5:]))
"""
STEPS = {
    "nothing is staged": ("features.data.ingest.run", "_ingest_table", "before", 1),
    "one table is staged": ("features.data.ingest.run", "_ingest_table", "after", 1),
    "the rows are written": ("features.data.lake", "write_json", "before", 1),
    "the manifest is written": ("features.data.lake", "write_json", "after", 1),
    "nothing is removed": ("features.event_log.sqlite", "remove_events", "before", 1),
    "a part is removed": ("features.event_log.sqlite", "remove_events", "after", 1),
    "all is removed": ("features.event_log.sqlite", "forget_identities", "before", 1),
}


def event(number: int, at: datetime) -> AcceptedEvent:
    """A view of the kiosk, a purchase, a login of a visitor, a consent, or an availability."""
    values = {"source": "kiosk", "source_user_id": "k1", "item_id": "i1", "ts": at + timedelta(seconds=number)}
    if number % 5 == 0:
        more = {"event_type": "purchase", "amount": 1.5}
    elif number % 50 == 21:
        more = {"event_type": "login", "anonymous_id": f"visitor {number}"}
    elif number % 50 == 22:
        del values["item_id"]
        more = {"event_type": "consent", "source_user_id": f"k{number}", "channel": "sms", "granted": False}
    elif number % 50 == 33:
        more = {"event_type": "availability", "source_user_id": "", "item_id": f"i{number}", "available": False}
    else:
        more = {"event_type": "view"}
    return encode(make_row(f"e{number}", values | more))


def append(place: Path, numbers: range, at: datetime) -> None:
    log = open_log(Workspace(place).online / "events.db")
    log.append([event(number, at) for number in numbers])
    log.close()


@pytest.fixture(scope="module")
def published(published_shop, tmp_path_factory):
    """A shop with published profiles, and events that are older than what must be kept."""
    place = tmp_path_factory.mktemp("published") / "workspace"
    shutil.copytree(published_shop, place)
    append(place, range(EVENTS), first_moment(place))
    return place


@pytest.fixture(scope="module")
def known(published, tmp_path_factory):
    """The same shop with profiles that know the events, which may be removed now."""
    place = tmp_path_factory.mktemp("known") / "workspace"
    shutil.copytree(published, place)
    for words in (["ingest", "events"], ["features"]):
        assert run([*words, "--workspace", str(place), "--json"]) == 0
    return place


def first_moment(place: Path) -> datetime:
    return Lake(Workspace(place)).states()["transactions"].first


ROWS = {  # of the events
    "transactions": EVENTS // 5,
    "profiles": EVENTS // 50,
    "items": EVENTS // 50,
    "events": EVENTS - EVENTS // 5 - 2 * (EVENTS // 50),
    "identities": 2 * (EVENTS // 50),  # of each login
}


def kiosk_rows(place: Path) -> dict[str, int]:
    """Rows of each table that the events made."""
    connection = Lake(Workspace(place)).connect().con
    query = "SELECT count(*) FROM {} WHERE source = 'kiosk'"
    return {name: connection.execute(query.format(name)).fetchone()[0] for name in ROWS}


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_any_step_neither_loses_nor_doubles_events(step, published, known, tmp_path, qianmian):
    place = tmp_path / "workspace"
    shutil.copytree(known if "removed" in step else published, place)
    words = ["ingest", "events", "--workspace", str(place), "--json"]
    command = [sys.executable, "-c", KILLED, *map(str, STEPS[step]), *words]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, timeout=120)
    assert done.returncode == -9, done.stderr.decode()
    assert qianmian(*words).code == 0
    assert qianmian("features", "--workspace", place, "--json").code == 0
    again = qianmian(*words)
    assert again.code == 0
    assert again.json["log"] | {"log_id": ""} == {
        "log_id": "",
        "first_seq": EVENTS + 1,
        "last_seq": EVENTS,
        "ingested_seq": EVENTS,
    }
    assert kiosk_rows(place) == ROWS
    append(place, range(EVENTS - 10, EVENTS + 10), first_moment(place))  # ten are known by their identities
    assert qianmian(*words).json["kept"] == 10


def test_the_log_keeps_what_the_profiles_may_not_know(published, tmp_path, qianmian):
    place = tmp_path / "workspace"
    shutil.copytree(published, place)
    recent = Lake(Workspace(place)).default_as_of - timedelta(days=3)
    append(place, range(EVENTS, EVENTS + 10), recent - timedelta(seconds=EVENTS))

    def ingested() -> tuple[int, dict[str, int]]:
        done = qianmian("ingest", "events", "--workspace", place, "--json").json
        return done["kept"], done["compacted"]

    nothing = {"events": 0, "identities": 0}
    assert ingested() == (EVENTS + 2 * (EVENTS // 50) + 10, nothing), "no profile knows them"
    assert qianmian("features", "--workspace", place).code == 0
    assert ingested() == (0, {"events": EVENTS, "identities": 0})
    assert ingested() == (0, nothing)
    done = qianmian("ingest", "events", "--workspace", place, "--keep-days", 2)
    assert "10 events removed, 0 kept" in done.out
    # a late event is in no profile before the next build, however old it is
    append(place, range(EVENTS + 10, EVENTS + 15), first_moment(place))
    assert ingested() == (5, nothing)
    assert ingested() == (0, nothing)
    assert qianmian("features", "--workspace", place).code == 0
    assert ingested() == (0, {"events": 5, "identities": 0})


def test_without_profiles_the_log_keeps_all(fresh_shop, qianmian):
    append(fresh_shop, range(5), END)
    done = qianmian("ingest", "events", "--workspace", fresh_shop)
    assert done.code == 0
    assert "0 events removed, 5 kept" in done.out


def test_a_workspace_begins_with_events_and_before_the_first_one_nothing_happens(tmp_path, qianmian):
    place = tmp_path / "workspace"
    assert qianmian("ingest", "events", "--workspace", place).code == 2
    Workspace(place).create()
    done = qianmian("ingest", "events", "--workspace", place)
    assert (done.code, "nothing new" in done.out, "no event has been accepted yet" in done.out) == (0, True, True)
    append(place, range(5), END)
    assert qianmian("ingest", "events", "--workspace", place, "--check").code == 0
    elsewhere = qianmian(
        "ingest", "events", "--workspace", place, "--online-store", place / "online" / "events.db", "--json"
    )
    assert elsewhere.json["kept"] == 5
    assert elsewhere.json["source"] == "events"


@pytest.mark.parametrize(
    "words",
    [
        ("events", "--online-store", "nowhere.db"),
        ("events", "--online-store", "ftp://host"),
        ("events", "--seed", 3),
        ("events", "--keep-days", -1),
        ("synthetic", "--keep-days", 1),
        ("synthetic", "--online-store", "events.db"),
    ],
)
def test_options_that_do_not_belong_there_are_exit_2(words, tmp_path, qianmian):
    assert qianmian("ingest", *words, "--workspace", tmp_path / "workspace").code == 2


def test_profiles_of_a_shop_that_trades_now_are_not_of_the_future(tmp_path, qianmian):
    place, now = tmp_path / "shop", datetime.now(UTC).replace(tzinfo=None)
    location = place / "online" / "events.db"
    Workspace(place).create()
    location.parent.mkdir(exist_ok=True)
    log = open_log(location)
    for day in range(20):
        values = {"source": "app", "item_id": "milk", "amount": 1.0, "ts": now - timedelta(days=day, minutes=1)}
        rows = [
            make_row(f"{day}-{user}", {**values, "source_user_id": user, "event_type": "purchase"}) for user in "ab"
        ]
        log.append([encode(row) for row in rows])
    log.close()
    assert qianmian("ingest", "events", "--workspace", place).code == 0
    assert qianmian("features", "--workspace", place).code == 0
    published = load_current(Workspace(place))
    assert now - timedelta(hours=2) <= published.as_of <= datetime.now(UTC).replace(tzinfo=None)
    assert Lake(Workspace(place)).default_as_of > now
    done = qianmian("doctor", "--workspace", place)
    assert "the lake has changed" not in done.out
