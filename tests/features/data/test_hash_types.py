"""The type of personal data of a hashed attribute stays, so that the same value has the same hash at every ingest."""

from __future__ import annotations

import json

import pytest

from features.data.lake import Lake
from features.data.privacy import hash_value
from qianmian.settings import Settings
from tests.features.data.exports import Export

PEOPLE = "id,extra,wa\n1,09012345670,+34600123450\n2,09012345671,+34600123451\n"
COLUMNS = "{source_user_id: id, extra: extra, wa: wa}"


@pytest.fixture
def export(tmp_path):
    return Export(tmp_path)


def test_the_same_file_again_changes_no_hash(export):
    export.ingest(PEOPLE, COLUMNS, "profiles")
    first = export.query("SELECT source_user_id, extra, wa FROM profiles ORDER BY 1")
    assert first[0][1] == hash_value(export.workspace, Settings(), "phone", "09012345670")
    assert Lake(export.workspace).notes()["hash_types"] == {"extra": "phone", "wa": "phone"}
    report = export.ingest(PEOPLE, COLUMNS, "profiles").tables["profiles"]
    assert (report.kept, report.updated, report.duplicates) == (0, 0, 2)
    assert export.query("SELECT source_user_id, extra, wa FROM profiles ORDER BY 1") == first


def test_a_value_keeps_its_hash_beside_other_values_and_under_a_personal_name(export):
    export.ingest(PEOPLE, COLUMNS, "profiles")
    (first,) = export.query("SELECT extra FROM profiles WHERE source_user_id = '1'")
    later = "id,Vorname,wa\n9,09012345670,call later\n8,tomorrow,\n7,next week,\n"
    mapping = "{source_user_id: id, extra: Vorname, wa: wa}"
    found = export.preview(later, mapping, "profiles").tables["profiles"]
    assert found.hashed == ("extra", "wa")
    export.ingest(later, mapping, "profiles")
    assert export.query("SELECT extra FROM profiles WHERE source_user_id = '9'") == [first]
    assert export.query("SELECT count(*) FROM profiles WHERE NOT starts_with(wa, 'h1:')") == [(0,)]


def test_a_lake_that_does_not_know_its_types_is_read_on_and_then_knows_them(export):
    export.ingest(PEOPLE, COLUMNS, "profiles")
    first = export.query("SELECT source_user_id, extra, wa FROM profiles ORDER BY 1")
    manifest = export.workspace.lake / "manifest.json"
    saved = json.loads(manifest.read_text())
    del saved["hash_types"]
    manifest.write_text(json.dumps(saved))
    # no value of `extra` tells its type, but the lake has hashes of it
    export.ingest("id,extra,wa\n3,call later,+34600123450\n", COLUMNS, "profiles")
    assert export.query("SELECT extra FROM profiles WHERE source_user_id = '3'")[0][0].startswith("h1:")
    assert export.query("SELECT source_user_id, extra, wa FROM profiles ORDER BY 1")[:2] == first
    assert export.query("SELECT count(DISTINCT wa) FROM profiles") == [(2,)]
    assert Lake(export.workspace).notes()["hash_types"] == {"extra": "extra", "wa": "phone"}


def test_the_name_of_the_column_in_the_file_counts_as_well(export):
    text = "id,住所,Codice fiscale,Vorname,Nachname,Telefon\n1,港区0,RSSMRA85T10A560S,Anna,Roth,0\n"
    columns = (
        "{source_user_id: id, jusho: 住所, cf: Codice fiscale, who: \"Vorname || ' ' || Nachname\", "
        'reachable: "Telefon IS NOT NULL", dial: "length(Telefon)"}'
    )
    report = export.ingest(text, columns, "profiles").tables["profiles"]
    assert (report.hashed, report.readable) == (("cf", "jusho", "who"), ("dial", "reachable"))
    assert Lake(export.workspace).notes()["hash_types"] == {"jusho": "address", "cf": "document", "who": "name"}
    (row,) = export.query("SELECT jusho, cf, who, reachable, dial FROM profiles")
    assert all(value.startswith("h1:") for value in row[:3])
    assert row[3:] == (True, 1)
    other = export.ingest(text, columns, "profiles", "    readable: [jusho]\n").tables["profiles"]
    assert other.readable == ("dial", "jusho", "reachable")
