"""`qianmian identity link`: from the user's files to links; personal data are written only with --show-values."""

from __future__ import annotations

import csv
import random

import pyarrow.parquet as pq
import pytest

NAMES = (
    "amelia",
    "bogdan",
    "chiara",
    "dmitri",
    "elodie",
    "fergus",
    "greta",
    "hamish",
    "ingrid",
    "jorge",
    "katya",
    "lorenzo",
    "maeve",
    "nikos",
)
SURNAMES = (
    "abernathy",
    "birkholz",
    "castellano",
    "dvorak",
    "eriksson",
    "fitzroy",
    "gruenwald",
    "hollingsworth",
    "ibarra",
    "jankowski",
    "kowalczyk",
)
HEADER = ("id", "first", "last", "born", "street", "town", "mobile")


@pytest.fixture
def records(tmp_path):
    """Two CSV files of two systems, 120 people, 50 of them in both, and the YAML that describes them."""
    draw = random.Random(11)
    folder = tmp_path / "records of people"
    folder.mkdir()
    rows = []
    for number in range(120):
        born = f"{draw.randrange(1940, 2003)}-{draw.randrange(1, 13):02}-{draw.randrange(1, 29):02}"
        street = f"{draw.randrange(1, 99)} {draw.choice(SURNAMES)} {draw.choice(NAMES)} road"
        rows.append(
            [
                f"t{number}",
                draw.choice(NAMES),
                draw.choice(SURNAMES),
                born,
                street,
                draw.choice(SURNAMES) + "ville",
                f"07{draw.randrange(10**8, 10**9)}",
            ]
        )
    again = [
        [f"c{number}", row[1], row[2][:-1] + "q", *row[3:6], "+44 " + row[6][1:]]
        for number, row in enumerate(rows[:50])
    ]
    for name, held in (("till.csv", rows), ("club.csv", again)):
        with (folder / name).open("w", newline="", encoding="utf-8") as handle:
            csv.writer(handle).writerows([HEADER, *held])
    with (folder / "till.csv").open("a", encoding="utf-8") as handle:
        handle.write(",without,id,1970-01-01,,,\n")
    columns = (
        "{source_user_id: id, given_name: first, surname: last, birth_date: born, "
        "address: street, suburb: town, phone: mobile}"
    )
    config = folder / "records.yaml"
    config.write_text(
        f"records:\n  - {{source: till, path: till.csv, columns: {columns}}}\n"
        f"  - {{source: club, path: club.csv, columns: {columns}}}\n"
    )
    return config


@pytest.fixture
def call(qianmian):
    """Run `qianmian identity link` with these options."""
    return lambda *options: qianmian("identity", "link", *options)


def test_links_are_written_and_values_are_not(call, records, tmp_path):
    place, review, chart = tmp_path / "workspace", tmp_path / "review.csv", tmp_path / "chart.html"
    ran = call("--config", records, "--workspace", place, "--review", review, "--chart", chart, "--json")
    assert ran.code == 0, ran.err
    answer = ran.json
    assert answer["records"] == 170
    assert answer["links"] >= 48
    assert answer["new_links"] == answer["links"]
    assert answer["skipped"] == {"till: source_user_id is missing": 1}
    table = pq.read_table(place / "identity" / "links.parquet")
    assert table.column_names == answer["columns"]
    assert all(row["left_source_user_id"][1:] == row["right_source_user_id"][1:] for row in table.to_pylist())
    assert "<html" in chart.read_text(encoding="utf-8")
    values = [name.encode() for name in (*NAMES, *SURNAMES)]
    files = [path for path in place.rglob("*") if path.is_file()]
    written = (
        b"".join(path.read_bytes() for path in files)
        + table.to_pandas().to_csv().encode()
        + (ran.out + ran.err).encode()
        + review.read_bytes()
    )
    assert not [value for value in values if value in written]
    again = call("--config", records, "--workspace", place, "--json").json
    assert again["new_links"] == 0
    assert pq.read_table(place / "identity" / "links.parquet").equals(table)


def test_a_dry_run_changes_nothing(call, records, tmp_path):
    place = tmp_path / "workspace"
    ran = call("--config", records, "--workspace", place, "--dry-run")
    assert ran.code == 0, ran.err
    assert "would be new" in ran.out
    assert not place.exists()


def test_values_are_shown_only_on_request_and_never_in_the_workspace(call, records, tmp_path):
    place, review = tmp_path / "workspace", tmp_path / "review.csv"
    place.mkdir()
    with (records.parent / "till.csv").open(encoding="utf-8") as handle:
        _, first, last, _, *home = list(csv.reader(handle))[1]
    with (records.parent / "club.csv").open("a", newline="", encoding="utf-8") as handle:
        sibling = "xyzzy" if first != "xyzzy" else "plugh"
        csv.writer(handle).writerow(["sibling", sibling, last, "2001-11-30", *home])
    inside = call("--config", records, "--workspace", place, "--review", place / "review.csv", "--show-values")
    assert inside.code == 2
    assert "outside the workspace" in inside.err
    assert call("--config", records, "--workspace", place, "--show-values").code == 2
    ran = call("--config", records, "--workspace", place, "--review", review, "--show-values")
    assert ran.code == 0, ran.err
    assert "in clear text" in ran.err
    text = review.read_text(encoding="utf-8")
    assert "left_surname" in text
    assert any(name in text for name in SURNAMES)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("records: []", "records.yaml"),
        ("records:\n  - {path: till.csv, columns: {source_user_id: id, surname: last}}", "name of the system"),
        ("records:\n  - {source: till, path: nowhere.csv, columns: {source_user_id: id}}", "matches no file"),
        (
            "records:\n  - {source: till, path: till.csv, columns: {source_user_id: id, surnam: last}}",
            "did you mean surname",
        ),
        ("records:\n  - {source: till, path: till.csv, columns: {surname: last}}", "source_user_id is required"),
        (
            "records:\n  - {source: till, path: till.csv, columns: {source_user_id: id, surname: lastt}}",
            "unknown column lastt",
        ),
        ("people: 1\nrecords:\n  - {source: till, path: till.csv, columns: {source_user_id: id}}", "unknown key"),
    ],
)
def test_mistakes_in_the_file_are_named(call, records, tmp_path, text, says):
    records.write_text(text)
    ran = call("--config", records, "--workspace", tmp_path / "workspace")
    assert ran.code == 2
    assert says in ran.err


@pytest.mark.parametrize("options", [("--review", "review.xls"), ("--chart", "chart.png"), ("--backend", "abacus")])
def test_invalid_options_are_rejected(call, records, tmp_path, options):
    ran = call("--config", records, "--workspace", tmp_path / "workspace", *options)
    assert ran.code == 2
    assert options[0] in ran.err


def test_an_empty_file_is_rejected(call, records, tmp_path):
    (records.parent / "till.csv").write_text("")
    ran = call("--config", records, "--workspace", tmp_path / "workspace")
    assert ran.code == 3
    assert "empty" in ran.err
