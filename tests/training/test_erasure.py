"""An erased customer is in no table and in no byte of the workspace, others stay as they are, and nobody comes back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.compute.online.state import OnlineState
from features.data.identity import Ledger
from features.data.identity.probabilistic import LINKS_SCHEMA
from features.data.identity.tables import links_path
from features.data.ingest import IngestReport, ingest
from features.data.lake import Lake
from features.data.locking import exclusive_writer, workspace_lock
from features.data.sources import FileSource
from features.erasure.customer import Erased
from features.erasure.exports import CHAMPIONS, record_export
from features.erasure.resolving import find_erased
from features.erasure.scan import scan_workspace
from features.erasure.tombstones import read_tombstones
from features.event_log import open_log
from features.event_log.rows import encode, make_row
from features.profiles.building import ensure_snapshot
from features.profiles.snapshot import Snapshot, current_snapshot_name, load_current
from features.profiles.tags import published
from qianmian.errors import ArtifactError, DataError, QianmianError, UsageError, WorkspaceError
from qianmian.registry import Registry
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from tests.training.planted_customer import (
    CARD,
    NOW,
    USER_ID,
    VISITOR,
    forbidden,
    places_with,
    read_exports,
    write_exports,
)
from training import erasure
from training.erasure import PLACES, Receipt, erase_customer, pending_erasures, resume_erasures
from training.receipts import verify

AS_OF = NOW


@pytest.fixture(scope="module")
def exports(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    write_exports(folder)
    return folder


@pytest.fixture(scope="module")
def planted(tmp_path_factory, exports) -> Path:
    """A workspace with the customer in every place; tests copy it."""
    workspace = Workspace(tmp_path_factory.mktemp("a shop") / "workspace").create()
    read_exports(workspace, exports)
    one_ids = [str(row[0]) for row in query(workspace, "SELECT DISTINCT one_id FROM customers ORDER BY 1")]
    published.publish(
        workspace, "churn_risk", one_ids, ["high"] * len(one_ids), as_of=AS_OF, model_name="churn", model_version="1"
    )
    published.keep_version(
        workspace,
        {"churn_risk": (one_ids, ["high"] * len(one_ids))},
        as_of=AS_OF,
        model_name="qianmian-churn",
        model_version="2",
    )
    ensure_snapshot(workspace, AS_OF, Settings())
    current = workspace.online / str(current_snapshot_name(workspace))
    shutil.copytree(current, workspace.online / "20260501T000000-0000-0000")  # those of an earlier date
    write_links(workspace)
    pq.write_table(load_current(workspace).table, workspace.features / "exported.parquet")
    shutil.copy(exports / "identities.csv", workspace.features / "review.csv")
    with closing(open_log(workspace.online / "events.db")) as log:
        row = {"source": "shop", "source_user_id": USER_ID, "event_type": "view", "item_id": "item-1", "ts": NOW}
        log.append([encode(make_row("live-1", row))])
    (workspace.root / ".spill-0001").mkdir()
    (workspace.root / ".spill-0001" / "part.tmp").write_text(USER_ID)
    return workspace.root


def write_links(workspace: Workspace) -> None:
    rows = [
        ("shop", one, "till", card, 0.99, NOW, f"l-{card}")
        for one, card in ((USER_ID, CARD), ("person-0001", "card-0000000001"))
    ]
    columns = dict(zip(LINKS_SCHEMA.names, zip(*rows, strict=True), strict=True))
    pq.write_table(
        pa.table({name: list(values) for name, values in columns.items()}, LINKS_SCHEMA), links_path(workspace)
    )


@pytest.fixture
def workspace(planted, tmp_path) -> Workspace:
    return copied(planted, tmp_path)


def copied(planted: Path, folder: Path) -> Workspace:
    workspace = Workspace(Path(shutil.copytree(planted, folder / "workspace")))
    exported = folder / "exported"  # outside the workspace
    current = workspace.online / str(current_snapshot_name(workspace))
    shutil.copytree(current, exported / "champions" / "snapshot")
    (exported / "champions" / "index.json").write_text("{}")
    shutil.copy(workspace.features / "exported.parquet", exported)
    record_export(workspace, exported / "exported.parquet", NOW)
    record_export(workspace, exported / "champions", NOW, CHAMPIONS)
    return workspace


def query(workspace: Workspace, sql: str) -> list[tuple[object, ...]]:
    return Lake(workspace).connect().con.execute(sql).fetchall()


def customer_of(workspace: Workspace):
    return find_erased(workspace, USER_ID, None, None)


def traces(workspace: Workspace) -> list[str]:
    found = customer_of(workspace)
    return forbidden(found.one_ids, found.identifiers)


def others(workspace: Workspace) -> dict[str, list[tuple[object, ...]]]:
    """All rows of the lake that are not of the customer, but for the texts that mention the customer."""
    mine = f"('{USER_ID}', '{CARD}', '{VISITOR}')"
    found = {}
    for name, state in Lake(workspace).states().items():
        where = (
            f"WHERE source_user_id IS NULL OR source_user_id NOT IN {mine}" if "source_user_id" in state.columns else ""
        )
        changed = [column for column in ("page", "properties", "referred_by", "_told") if column in state.columns]
        kept = f"* REPLACE ({', '.join(f'NULL AS {column}' for column in changed)})" if changed else "*"
        found[name] = query(workspace, f"SELECT {kept} FROM {name} {where} ORDER BY ALL")
    return found


def erase(workspace: Workspace, **options):
    return erase_customer(workspace, Settings(), USER_ID, now=NOW, **options)


def test_all_user_ids_of_the_customer_are_found(planted):
    workspace = Workspace(planted)
    found = customer_of(workspace)
    assert found.users == (("shop", USER_ID), ("shop", VISITOR), ("till", CARD))
    assert len(found.one_ids) == 3  # of each record before the merge
    assert len(found.identifiers) >= 3
    assert "family-tablet-11" not in found.identifiers
    (current,) = query(workspace, f"SELECT one_id FROM customers WHERE source_user_id = '{USER_ID}' LIMIT 1")[0]
    assert find_erased(workspace, str(current), None, None).users == found.users


def test_nothing_is_left_and_others_stay(planted, exports, tmp_path):
    former, workspace = Workspace(planted), copied(planted, tmp_path)
    texts, before, profiles = traces(former), others(former), load_current(former)
    assert len(places_with(workspace.root, texts)) > 20
    receipt = erase(workspace, reason="ticket 5")
    assert receipt.left == []
    assert places_with(workspace.root, texts) == set()
    assert places_with(tmp_path / "exported", texts) == set()
    check_profiles(profiles, Snapshot.load(tmp_path / "exported" / "champions" / "snapshot"))
    assert pending_erasures(workspace) == []
    assert others(workspace) == before
    assert query(workspace, "SELECT page, properties FROM events WHERE event_id = 'e0-0'") == [
        ("/wishlist/(erased)?tab=1", '{"gift_for": "(erased)", "from": "home"}')
    ]
    check_profiles(profiles, load_current(workspace))
    check_receipt(workspace, receipt, former)
    entries = Ledger(workspace).entries()
    assert entries == [entry for entry in Ledger(former).entries() if entry in entries]
    # a second erasure finds nobody, and changes nothing
    with pytest.raises(DataError, match="was erased before"):
        erase_customer(workspace, Settings(), USER_ID, "shop", now=NOW)
    again = erase_customer(workspace, Settings(), USER_ID, "shop", now=NOW, unknown=True)
    assert sum(again.facts["removed"].values()) == 0
    # the same exports do not bring the customer back: not into this lake, and not into one that was deleted
    # with them comes the event of somebody else whose text mentions the customer: it differs from what the lake has
    check_counts(read_exports(workspace, exports), events=13)
    comparable = [name for name in before if name != "customers"]  # resolved again, without the shared device
    assert {name: others(workspace)[name] for name in comparable} == {name: before[name] for name in comparable}
    shutil.rmtree(workspace.lake)
    shutil.rmtree(workspace.quarantine)
    check_counts(read_exports(workspace.create(), exports), events=12)
    assert places_with(workspace.root, [text for text in texts if text != USER_ID]) == set()
    snapshot = ensure_snapshot(workspace, AS_OF, Settings())
    assert snapshot.resolve(USER_ID) is None
    assert snapshot.table.num_rows == profiles.table.num_rows - 1
    # without their key, tombstones would recognise nobody
    (workspace.root / "secrets" / "pii.key").unlink()
    with pytest.raises(QianmianError, match="key"):
        read_exports(workspace, exports)


def check_profiles(profiles: Snapshot, left: Snapshot) -> None:
    """The profiles and the online state of all others can be read and are the same."""
    assert left.resolve(USER_ID) is None
    kept = [row for row in profiles.table.to_pylist() if row["one_id"] in set(left.one_ids)]
    assert repr(left.table.to_pylist()) == repr(kept).replace(USER_ID, "(erased)")  # NaN is NaN
    assert len(kept) == profiles.table.num_rows - 1
    assert profiles.online_state is not None
    assert left.online_state is not None
    before, state = OnlineState.load(profiles.online_state), OnlineState.load(left.online_state)
    assert state.one_ids.tolist() == list(left.one_ids)
    for one_id in state.one_ids:
        assert str(state.customer(one_id).base) == str(before.customer(one_id).base)
        for view, tail in state.customer(one_id).tails.items():
            former = before.customer(one_id).tails[view]
            assert repr({name: values.tolist() for name, values in tail.items()}) == repr(
                {name: values.tolist() for name, values in former.items()}
            )
            assert state.customer(one_id).keys(view) == before.customer(one_id).keys(view)


def check_receipt(workspace: Workspace, receipt: Receipt, former: Workspace) -> None:
    """It counts all places, names nobody, and is followed; a changed one is refused."""
    facts = receipt.facts
    assert facts["complete"]
    assert facts["lake_before"] == Lake(former).digest != facts["lake_after"] == Lake(workspace).digest
    assert held(receipt)
    assert len(facts["tombstones"]) == 3
    assert json.loads((workspace.root / "erasures" / "last.json").read_text())["erasure_id"] == facts["erasure_id"]
    checked = verify(workspace, receipt.file)
    assert checked.own
    assert checked.fingerprint == receipt.fingerprint
    assert not verify(former, receipt.file).own
    assert (workspace.root / "secrets" / "receipts.key").stat().st_mode & 0o077 == 0
    changed = workspace.root.parent / "changed.json"
    for name, value in {"complete": False, "removed": {}, "public_key": "00" * 32, "format": 2}.items():
        changed.write_text(json.dumps({**facts, name: value}), encoding="utf-8")
        with pytest.raises(ArtifactError):
            verify(workspace, changed)
    changed.write_text("[]", encoding="utf-8")
    with pytest.raises(ArtifactError, match="no receipt"):
        verify(workspace, changed)


def held(receipt: Receipt) -> bool:
    """Whether each place had something of the customer; no model was trained here (`test_erased_models.py`)."""
    return {place for place, removed in receipt.facts["removed"].items() if removed} == {*PLACES} - {"models"}


def check_counts(reports: Mapping[str, IngestReport], events: int) -> None:
    shop, till = reports["shop"].tables, reports["till"].tables
    assert {name: found.erased for name, found in shop.items()} == {
        "profiles": 2,
        "identities": 6,
        "events": events,
        "touches": 1,
    }
    assert {name: found.erased for name, found in till.items()} == {"transactions": 4, "identities": 1}
    assert shop["events"].quarantined == 1  # of somebody else
    assert reports["shop"].as_dict()["erased"] == 9 + events


def test_a_killed_erasure_is_finished(workspace, monkeypatch):
    """Killed in each place, one after the other; each time it is taken up again."""
    texts = traces(workspace)

    def killed(*arguments: object) -> Erased:
        raise KeyboardInterrupt

    for place in PLACES:
        with monkeypatch.context() as patch:
            patch.setattr(erasure, "PLACES", Registry("place", {**PLACES, place: killed}))
            go_on = partial(resume_erasures, now=NOW) if pending_erasures(workspace) else erase
            with pytest.raises(KeyboardInterrupt):
                go_on(workspace)
        (file,) = pending_erasures(workspace)
        assert file.stat().st_mode & 0o077 == 0
        # from the first moment on, no ingest takes the customer in
        assert len(read_tombstones(workspace)) == 3
    (receipt,) = resume_erasures(workspace, now=NOW)
    assert receipt.left == []
    assert held(receipt)
    assert places_with(workspace.root, texts) == set()
    assert resume_erasures(workspace, now=NOW) == []


def test_what_is_left_is_reported_and_erased_later(workspace):
    notes = workspace.root / "notes.txt"
    notes.write_text(f"call {USER_ID} back", encoding="utf-8")
    receipt = erase(workspace)
    assert not receipt.facts["complete"]
    assert receipt.left == [{"path": "notes.txt", "kind": "user id"}]
    assert len(pending_erasures(workspace)) == 1
    notes.unlink()
    again = erase(workspace)  # the same erasure goes on, although the lake no longer knows the id
    assert again.facts["erasure_id"] == receipt.facts["erasure_id"]
    assert again.left == []
    assert again.facts["removed"]["lake"] == receipt.facts["removed"]["lake"]


def test_the_scan_finds_what_the_places_hold(planted):
    workspace = Workspace(planted)
    found = {finding.path.split("/")[0] for finding in scan_workspace(workspace, customer_of(workspace))}
    assert found == {"lake", "identity", "quarantine", "online", "features", ".spill-0001"}


def test_an_unknown_user_changes_nothing(workspace):
    with pytest.raises(DataError, match="no customer has this user id"):
        erase_customer(workspace, Settings(), "nobody", "shop", now=NOW)
    with pytest.raises(UsageError, match="source"):
        erase_customer(workspace, Settings(), "nobody", now=NOW)
    assert not (workspace.root / "erasures" / "tombstones.txt").exists()
    receipt = erase_customer(workspace, Settings(), "somebody-later-on", "shop", now=NOW, unknown=True)
    assert len(receipt.facts["tombstones"]) == 1
    assert places_with(workspace.root, ["somebody-later-on"]) == set()
    with pytest.raises(DataError, match="was erased before"):
        erase_customer(workspace, Settings(), "somebody-later-on", "shop", now=NOW)


def test_a_workspace_that_cannot_be_written_is_said(workspace, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(WorkspaceError, match="cannot be written"):
        erase(workspace)
    assert pending_erasures(workspace) == []


def test_a_reason_may_not_name_the_customer(workspace):
    with pytest.raises(UsageError, match="reason"):
        erase(workspace, reason=f"{USER_ID} wrote to us")
    assert pending_erasures(workspace) == []


def test_an_ingest_and_an_erasure_exclude_each_other(workspace, exports):
    with exclusive_writer(workspace), pytest.raises(WorkspaceError, match="another process is writing"):
        erase(workspace)
    with workspace_lock(workspace), pytest.raises(WorkspaceError, match="profiles are being built"):
        erase(workspace)
    with workspace_lock(workspace, exclusive=True), pytest.raises(WorkspaceError, match="is being erased"):
        ensure_snapshot(workspace, AS_OF, Settings())
    with workspace_lock(workspace), workspace_lock(workspace):
        pass
    tried = []

    def ingest_meanwhile(line: str) -> None:
        if line == "erasing from lake":
            with pytest.raises(WorkspaceError, match="another process is writing"):
                ingest(workspace, FileSource(exports / "till.yaml"), Settings(), now=NOW)
            tried.append(line)

    assert erase(workspace, progress=ingest_meanwhile).left == []
    assert tried
