"""The consents of a customer with several records: what was told last, and on a tie the withdrawal."""

from __future__ import annotations

from datetime import datetime
from itertools import permutations
from typing import Any

import pytest

from features.data.ingest import ingest
from features.data.lake import Lake
from features.data.sources.event_log import EventLogSource
from features.definitions.building import make_builder
from features.event_log import open_log
from features.event_log.rows import encode, make_row
from features.profiles.building import build_snapshot
from features.profiles.snapshot import Snapshot
from features.profiles.tags.consents import CONSENTS
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from tests.features.data.test_profile_history import Files

SETTINGS = Settings()
LATER = datetime(2026, 7, 1)


def consent(day: int, granted: bool, user: str = "ann", channel: str = "email", hour: int = 12) -> dict[str, Any]:
    at = datetime(2026, 5, day, hour)
    return {"source_user_id": user, "ts": at, "event_type": "consent", "channel": channel, "granted": granted}


def built(tmp_path: Any, *events: dict[str, Any], as_of: datetime = LATER, groups: int = 1) -> Snapshot:
    """The profiles after ann's and anna's events were ingested in some portions; both have one e-mail address."""
    tmp_path.mkdir(exist_ok=True)
    workspace = Workspace(tmp_path / "workspace").create()
    addresses = [
        {"source_user_id": user, "id_type": "email", "id_value": "ann@x.org", "observed_at": "2026-01-01"}
        for user in ("ann", "anna")
    ]
    ingest(workspace, Files(addresses, table="identities"), SETTINGS)
    view = {"source_user_id": "ann", "ts": datetime(2026, 4, 1), "event_type": "view"}
    size = -(-len(events) // groups)
    for number in range(0, len(events), size):
        with_view = [view, *events[number : number + size]] if number == 0 else events[number : number + size]
        log = open_log(workspace.online / "events.db")
        log.append([encode(make_row(f"e{number}-{at}", {"source": "crm", **row})) for at, row in enumerate(with_view)])
        log.close()
        ingest(workspace, EventLogSource(workspace.online / "events.db"), SETTINGS)
    return build_snapshot(make_builder(Lake(workspace), SETTINGS), as_of, SETTINGS)


def test_without_a_consent_there_are_no_tags(tmp_path):
    view = {"source_user_id": "ann", "ts": datetime(2026, 6, 1), "event_type": "view"}
    assert not set(CONSENTS) & set(built(tmp_path, view).tags)
    before = built(tmp_path / "told later", view, consent(1, True), as_of=datetime(2026, 4, 20))
    assert not set(CONSENTS) & set(before.tags)


def test_a_channel_that_nobody_tells_has_no_tag_and_a_customer_who_tells_none_no_value(tmp_path):
    stranger = {"source_user_id": "bob", "ts": datetime(2026, 5, 1), "event_type": "view"}
    snapshot = built(tmp_path, consent(1, True), stranger)
    assert set(CONSENTS) & set(snapshot.tags) == {"consent_email"}
    values = dict(zip(snapshot.table["user_id"].to_pylist(), snapshot.tags["consent_email"], strict=True))
    assert values == {"ann": True, "bob": None}
    assert snapshot.tag_facts["consent_email"].source == "profiles"
    assert not [name for name in snapshot.spec.names if "consent" in name], "no model learns from it"


@pytest.mark.parametrize(
    ("events", "email", "sms"),
    [
        ([consent(1, True), consent(2, False, "anna")], False, None),
        ([consent(2, True), consent(1, False, "anna")], True, None),
        ([consent(1, True), consent(1, False, "anna")], False, None),  # on a tie the withdrawal
        # told again, although it did not change, is told later
        ([consent(1, True), consent(2, False, "anna"), consent(3, True)], True, None),
        # each channel has its own moment, whatever the date of the row is
        ([consent(1, False), consent(2, True, "anna"), consent(3, True, channel="sms")], True, True),
    ],
)
@pytest.mark.parametrize("groups", [1, 3])
def test_what_was_told_last_counts(tmp_path, events, email, sms, groups):
    snapshot = built(tmp_path, *events, groups=groups)
    assert len(snapshot.tags["consent_email"]) == 1
    assert snapshot.tags["consent_email"] == [email]
    assert snapshot.tags.get("consent_sms", [None]) == [sms]


@pytest.mark.parametrize("order", list(permutations(range(3)))[::2])
def test_at_a_past_moment_it_is_what_was_told_before_it(tmp_path, order):
    told = [consent(1, True), consent(5, False, "anna"), consent(10, True)]
    view = {"source_user_id": "ann", "ts": datetime(2026, 6, 1), "event_type": "view"}
    snapshot = built(tmp_path, *[told[place] for place in order], view, groups=2, as_of=datetime(2026, 5, 7))
    assert snapshot.tags["consent_email"] == [False]


def test_a_consent_without_any_date_is_the_oldest(tmp_path):
    workspace = Workspace(tmp_path / "workspace").create()
    rows = [{"source_user_id": "ann", "consent_email": "no"}]
    ingest(workspace, Files(rows), SETTINGS)
    snapshot = built(tmp_path, consent(1, True, "anna"))
    assert snapshot.tags["consent_email"] == [True]
    ingest(workspace, Files([{"source_user_id": "anna", "consent_push": "yes"}, *rows], fixed="all"), SETTINGS)
    again = build_snapshot(make_builder(Lake(workspace), SETTINGS), LATER, SETTINGS)
    assert again.tags["consent_push"] == [True]
