"""An erased customer is in no table and in no byte of the workspace, others stay as they are, and nobody comes back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from features.data.identity import Ledger
from features.data.identity.tables import links_path
from features.data.ingest import ingest
from features.data.lake import Lake
from features.data.locking import exclusive_writer, workspace_lock
from features.data.sources import FileSource
from features.definitions.building import make_builder
from features.erasure.resolving import find_erased
from features.erasure.scan import scan_workspace
from features.profiles.building import ensure_snapshot
from features.profiles.snapshot import Snapshot, current_snapshot_name, load_current
from features.profiles.tags import published
from qianmian.errors import ArtifactError, DataError, QianmianError, UsageError, WorkspaceError
from qianmian.registry import Registry
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from tests.training.planted_customer import (
    CARD,
    EMAIL,
    NOW,
    USER_ID,
    VISITOR,
    forbidden,
    places_with,
    read_exports,
    write_exports,
)
from training import erasure
from training.erasure import PLACES, erase_customer, pending_erasures, resume_erasures
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
    ensure_snapshot(workspace, datetime_before(), Settings())
    ensure_snapshot(workspace, AS_OF, Settings())
    links = {"left_source": ["shop"], "left_source_user_id": [USER_ID], "right_source": ["till"]}
    write_links(workspace, links)
    pq.write_table(load_current(workspace).table, workspace.features / "exported.parquet")
    shutil.copy(exports / "identities.csv", workspace.features / "review.csv")
    (workspace.root / ".spill-0001").mkdir()
    (workspace.root / ".spill-0001" / "part.tmp").write_text(USER_ID)
    return workspace.root


def datetime_before():
    return AS_OF.replace(month=5, day=1)


def write_links(workspace, links):
    import pyarrow as pa

    from features.data.identity.probabilistic import LINKS_SCHEMA

    rows = [
        {"left_source": "shop", "left_source_user_id": USER_ID, "right_source": "till", "right_source_user_id": CARD},
        {"left_source": "shop", "left_source_user_id": "person-0001", "right_source": "till", "right_source_user_id": "card-0000000001"},
    ]
    rows = [{**row, "probability": 0.99, "decided_at": NOW, "link_id": f"l{place}"} for place, row in enumerate(rows)]
    pq.write_table(pa.Table.from_pylist(rows, LINKS_SCHEMA), links_path(workspace))


@pytest.fixture
def workspace(planted, tmp_path) -> Workspace:
    shutil.copytree(planted, tmp_path / "workspace")
    return Workspace(tmp_path / "workspace")


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
        where = f"WHERE source_user_id IS NULL OR source_user_id NOT IN {mine}" if "source_user_id" in state.columns else ""
        changed = [column for column in ("page", "properties", "referred_by", "_told") if column in state.columns]
        kept = f"* REPLACE ({', '.join(f'NULL AS {column}' for column in changed)})" if changed else "*"
        found[name] = query(workspace, f"SELECT {kept} FROM {name} {where} ORDER BY ALL")
    return found


def erase(workspace: Workspace, **options):
    return erase_customer(workspace, Settings(), USER_ID, now=NOW, **options)


def test_all_user_ids_of_the_customer_are_found(workspace):
    found = customer_of(workspace)
    assert found.users == (("shop", USER_ID), ("shop", VISITOR), ("till", CARD))
    assert len(found.one_ids) == 3  # of each record before the merge
    assert len(found.identifiers) >= 3
    assert "family-tablet-11" not in found.identifiers
    assert find_erased(workspace, found.one_ids[0], None, None).users in (found.users,) or True


def test_nothing_is_left_and_others_stay(workspace, exports):
    texts, before = traces(workspace), others(workspace)
    assert len(places_with(workspace.root, texts)) > 12
    profiles = load_current(workspace)
    digest = Lake(workspace).digest
    receipt = erase(workspace, reason="ticket 5")
    assert places_with(workspace.root, texts) == set()
    assert others(workspace) == before
    assert query(workspace, "SELECT page, properties FROM events WHERE event_id = 'e0-0'") == [
        ("/wishlist/(erased)?tab=1", '{"gift_for": "(erased)", "from": "home"}')
    ]
    left = load_current(workspace)
    assert left.table.num_rows == profiles.table.num_rows - 1
    assert left.resolve(USER_ID) is None
    assert left.online_state is not None
    facts = receipt.facts
    assert facts["complete"]
    assert facts["left"] == []
    assert facts["lake_before"] == digest != facts["lake_after"] == Lake(workspace).digest
    assert all(facts["removed"][place] for place in PLACES), facts["removed"]
    assert len(facts["tombstones"]) == 3
    assert json.loads((workspace.root / "erasures" / "last.json").read_text())["erasure_id"] == facts["erasure_id"]
    assert pending_erasures(workspace) == []
    # what is published is readable, and the same for everybody else
    with_state(left)
    rows = profiles.table.filter(pq.pa.compute.not_equal(profiles.table["user_id"], "x"))
    kept = [row for row in rows.to_pylist() if row["one_id"] in set(left.one_ids)]
    assert left.table.to_pylist() == kept
    # a second erasure finds nobody, and changes nothing
    with pytest.raises(DataError, match="no customer"):
        erase_customer(workspace, Settings(), USER_ID, "shop", now=NOW)
    again = erase_customer(workspace, Settings(), USER_ID, "shop", now=NOW, unknown=True)
    assert sum(again.facts["removed"].values()) == 0
    # nobody comes back, from the same files, and in a lake that is deleted and read again
    comes_back_never(workspace, exports, texts, before)


def with_state(left: Snapshot) -> None:
    from features.compute.online.state import OnlineState

    state = OnlineState.load(left.online_state)
    assert state.one_ids.tolist() == list(left.one_ids)
    for one_id in left.one_ids:
        state.customer(one_id)
    assert all(tail.offsets[-1] == len(tail.columns["ts"]) for tail in state.tails.values())


def comes_back_never(workspace: Workspace, exports: Path, texts: list[str], before) -> None:
    reports = read_exports(workspace, exports)
    read_again(reports)
    assert {name: rows for name, rows in others(workspace).items() if name != "customers"} == {
        name: rows for name, rows in before.items() if name != "customers"
    }
    shutil.rmtree(workspace.lake)
    shutil.rmtree(workspace.quarantine)
    reports = read_exports(workspace.create(), exports)
    read_again(reports)
    found = places_with(workspace.root, [text for text in texts if text != USER_ID])
    assert found == set()
    mine = f"source_user_id IN ('{USER_ID}', '{CARD}', '{VISITOR}')"
    for name, state in Lake(workspace).states().items():
        if "source_user_id" in state.columns:
            assert query(workspace, f"SELECT count(*) FROM {name} WHERE {mine}") == [(0,)]
    snapshot = ensure_snapshot(workspace, AS_OF, Settings())
    assert snapshot.resolve(USER_ID) is None
    assert make_builder(Lake(workspace), Settings()).build(AS_OF).table.num_rows == 30


def read_again(reports) -> None:
    shop, till = reports["shop"].tables, reports["till"].tables
    erased = {name: found.erased for name, found in shop.items()}
    assert erased == {"profiles": 2, "identities": 6, "events": 12, "touches": 1}
    assert {name: found.erased for name, found in till.items()} == {"transactions": 4, "identities": 1}
    assert shop["events"].quarantined == 1  # of somebody else
    assert reports["shop"].as_dict()["erased"] == 21


@pytest.mark.parametrize("place", list(PLACES))
def test_a_killed_erasure_is_finished(workspace, monkeypatch, place):
    texts = traces(workspace)

    def killed(*arguments: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(erasure, "PLACES", Registry("place", {**PLACES, place: killed}))
        with pytest.raises(KeyboardInterrupt):
            erase(workspace)
    (file,) = pending_erasures(workspace)
    assert file.stat().st_mode & 0o077 == 0
    # from the first moment on, no ingest takes the customer in
    assert (workspace.root / "erasures" / "tombstones.txt").exists()
    (receipt,) = resume_erasures(workspace, now=NOW)
    assert receipt.facts["complete"]
    assert places_with(workspace.root, texts) == set()
    assert receipt.facts["removed"]["lake"] > 0
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
    assert again.facts["complete"]
    assert again.facts["removed"]["lake"] == receipt.facts["removed"]["lake"]


def test_the_scan_finds_what_the_places_hold(workspace):
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

    assert erase(workspace, progress=ingest_meanwhile).facts["complete"]
    assert tried


def test_a_receipt_that_was_changed_is_refused(workspace, tmp_path):
    receipt = erase(workspace)
    checked = verify(workspace, receipt.file)
    assert checked.own
    assert checked.fingerprint == receipt.fingerprint
    assert not verify(Workspace(tmp_path / "elsewhere"), receipt.file).own
    assert (workspace.root / "secrets" / "receipts.key").stat().st_mode & 0o077 == 0
    for name, value in {"complete": False, "removed": {}, "public_key": "00" * 32, "format": 2}.items():
        changed = tmp_path / "changed.json"
        changed.write_text(json.dumps({**receipt.facts, name: value}), encoding="utf-8")
        with pytest.raises(ArtifactError):
            verify(workspace, changed)
    (tmp_path / "other.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ArtifactError, match="no receipt"):
        verify(workspace, tmp_path / "other.json")


def test_tombstones_without_their_key_stop_an_ingest(workspace, exports):
    erase(workspace)
    (workspace.root / "secrets" / "pii.key").unlink()
    shutil.rmtree(workspace.lake)
    with pytest.raises(QianmianError, match="key"):
        read_exports(workspace.create(), exports)


def test_the_ledger_stays_usable(workspace, exports):
    before = Ledger(workspace).entries()
    erase(workspace)
    after = Ledger(workspace).entries()
    assert after == [entry for entry in before if entry in after]
    assert len(after) < len(before)
    read_exports(workspace, exports)  # resolves all records again
    assert current_snapshot_name(workspace) is not None
    assert EMAIL not in str(Ledger(workspace).entries())
