"""Probabilistic linking on made-up people whose truth is known: typing errors, swapped names, missing fields, families, odd input."""

from __future__ import annotations

import dataclasses
import random
import subprocess
import sys
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.data.identity.link_spark import spark_api
from features.data.identity.probabilistic import HOUSEHOLD, LINKS_SCHEMA, PAIR_KEY, link, write_links
from features.data.identity.records import FIELDS
from features.data.identity.tables import links_path
from qianmian.config import load_settings
from qianmian.errors import ConfigError, DataError, UsageError
from qianmian.settings import LinkingSettings
from qianmian.workspace import Workspace

SYLLABLES = (
    "ba",
    "ke",
    "lo",
    "mi",
    "nu",
    "ra",
    "si",
    "to",
    "ve",
    "wen",
    "dar",
    "fel",
    "gor",
    "han",
    "jul",
    "pet",
    "quin",
    "stan",
    "tor",
    "zel",
)
DECIDED = datetime(2024, 5, 1, 12)


def word(draw: random.Random, parts: int) -> str:
    return "".join(draw.choice(SYLLABLES) for _ in range(parts))


def typing_error(draw: random.Random, text: str) -> str:
    at = draw.randrange(max(len(text) - 1, 1))
    swapped = text[:at] + text[at + 1 : at + 2] + text[at] + text[at + 2 :]
    letter = draw.choice("0123456789" if text[at].isdigit() else "abcdefgh")
    return draw.choice((swapped, text[:at] + text[at + 1 :], text[:at] + letter + text[at + 1 :]))


def person(draw: random.Random) -> dict[str, str | None]:
    year, month, day = draw.randrange(1930, 2005), draw.randrange(1, 13), draw.randrange(1, 29)
    given, surname = word(draw, 2), word(draw, 3)
    return {
        "given_name": given,
        "surname": surname,
        "birth_date": f"{year}-{month:02}-{day:02}",
        "street_number": str(draw.randrange(1, 200)),
        "address": f"{word(draw, 3)} street",
        "suburb": word(draw, 3),
        "postcode": str(draw.randrange(1000, 9999)),
        "phone": f"0{draw.randrange(10**8, 10**9)}",
        "email": f"{given}.{surname}{draw.randrange(99)}@example.org",
    }


def corrupted(draw: random.Random, record: dict[str, str | None]) -> dict[str, str | None]:
    """The record as a second shop wrote it down: up to three mistakes, one field missing, now and then the names in the wrong boxes."""
    made = dict(record)
    if draw.random() < 0.1:
        made["given_name"], made["surname"] = made["surname"], made["given_name"]
    for name in draw.sample(sorted(made), draw.randrange(4)):
        made[name] = typing_error(draw, made[name] or "")
    made[draw.choice(("birth_date", "address", "suburb", "phone", "email"))] = None
    return made


def shop(people: int, seed: int = 7, share: float = 0.4) -> tuple[pa.Table, set[tuple[str, str]]]:
    """Records of a till and a club, and the true pairs (club id, till id)."""
    draw = random.Random(seed)
    rows, truth = [], set()
    for number in range(people):
        record = person(draw)
        rows.append({"source": "till", "source_user_id": f"t{number}", **record})
        if draw.random() < share:
            rows.append({"source": "club", "source_user_id": f"c{number}", **corrupted(draw, record)})
            truth.add((f"c{number}", f"t{number}"))
    return pa.Table.from_pylist(rows), truth


def found(pairs: pa.Table) -> set[tuple[str, str]]:
    return set(zip(pairs["left_source_user_id"].to_pylist(), pairs["right_source_user_id"].to_pylist(), strict=True))


@pytest.fixture(scope="module")
def linked():
    records, truth = shop(200)
    return records, truth, link(records)


def test_finds_the_people_and_nearly_nobody_else(linked):
    _, truth, links = linked
    right = len(found(links.pairs) & truth)
    assert right / links.pairs.num_rows >= 0.99
    assert right / len(truth) >= 0.95
    assert links.untrained == ()
    assert links.compared < 5_000  # of the 39,000 there are


def test_the_review_band_is_apart_from_the_matches(linked):
    records, truth, _ = linked
    wide = link(records, LinkingSettings(threshold=0.999999, review_low=0.001))
    between = [row for row in wide.review.to_pylist() if row["reason"] != HOUSEHOLD]
    assert between
    assert all(0.001 <= row["probability"] < 0.999999 for row in between)
    assert min(wide.pairs["probability"].to_pylist()) >= 0.999999
    assert not found(wide.pairs) & found(wide.review)
    assert {row["surname"] for row in between} <= {
        "same",
        "similar",
        "typing error",
        "given name and surname swapped",
        "different",
        "missing",
    }
    # keys and words only: no value of a record
    values = {value for name in FIELDS if name in records.column_names for value in records[name].to_pylist() if value}
    assert not values & {value for row in wide.review.to_pylist() for value in row.values()}


def test_the_same_seed_gives_the_same_links_whatever_the_order(linked):
    records, _, links = linked
    again = link(records.take(pa.array(random.Random(1).sample(range(records.num_rows), records.num_rows))))
    assert again.pairs.equals(links.pairs)
    assert again.review.equals(links.review)


def test_between_sources_compares_no_record_with_its_own_system(linked):
    records, truth, _ = linked
    doubled = pa.concat_tables(
        [
            records,
            records.filter(pa.compute.equal(records["source"], "till"))
            .slice(0, 50)
            .set_column(1, "source_user_id", pa.array([f"again{n}" for n in range(50)])),
        ]
    )
    across = link(doubled, within_sources=False).pairs
    assert all(row["left_source"] != row["right_source"] for row in across.to_pylist())
    assert len(found(across) & truth) / len(truth) >= 0.95


def family(draw: random.Random, number: int, twins: bool) -> list[dict[str, str | None]]:
    one = {"source": "till", "source_user_id": f"f{number}a", **person(draw)}
    other = {
        **one,
        "source_user_id": f"f{number}b",
        "given_name": "".join(draw.sample("cxyo", 4)) + "cy",
        "email": None,
    }
    if not twins:
        other["birth_date"] = person(draw)["birth_date"]
    return [one, other]


def test_a_family_is_not_one_person(linked):
    """Same surname, address and telephone, and twins share the birth date too: however probable the sum of the weights, people decide."""
    records, truth, _ = linked
    draw = random.Random(3)
    families = [row for number in range(40) for row in family(draw, number, twins=number % 2 == 0)]
    links = link(pa.concat_tables([records, pa.Table.from_pylist(families)], promote_options="default"))
    assert not [pair for pair in found(links.pairs) if pair[0].startswith("f")]
    assert len(found(links.pairs) & truth) / len(truth) >= 0.9
    assert HOUSEHOLD in links.review["reason"].to_pylist()


@pytest.mark.parametrize("backend_rows", [0, 1])
def test_nobody_and_one_person(backend_rows):
    records, _ = shop(1, share=0)
    links = link(records.slice(0, backend_rows))
    assert links.pairs.num_rows == links.review.num_rows == links.compared == 0
    assert links.pairs.column_names == [*PAIR_KEY, "probability", "link_id"]


def test_identical_records_are_one_person():
    record = person(random.Random(5))
    rows = [{"source": source, "source_user_id": "1", **record} for source in ("a", "b")]
    links = link(pa.Table.from_pylist(rows))
    assert links.pairs.num_rows == 1
    assert links.untrained  # two records teach nothing, and that is said


def test_a_column_without_a_value_changes_nothing(linked):
    records, _, links = linked
    more = records.append_column("national_id", pa.nulls(records.num_rows, pa.string())).append_column(
        "state", pa.nulls(records.num_rows)
    )
    assert link(more).pairs.equals(links.pairs)


def test_any_script_links():
    people = [
        ("李小龙", "１９８０年０２月０３日", "+86 138 0013 8000", "王府井大街"),
        ("Żółć Gęślą", "1990-01-02", "+48 601 234 567", "Łódź ulica"),
        ("Łukasz Śmigły", "1971-03-04", "+48 777 888 999", "Mała"),
        ("محمد علي", "1985-06-07", "+966 50 123 4567", "شارع"),
    ]
    rows = [
        {
            "source": source,
            "source_user_id": f"{source}{n}",
            "full_name": name if source == "a" else name.upper(),
            "birth_date": born,
            "phone": phone if source == "a" else phone.replace(" ", ""),
            "address": street,
        }
        for source in ("a", "b")
        for n, (name, born, phone, street) in enumerate(people)
    ]
    assert found(link(pa.Table.from_pylist(rows)).pairs) == {(f"a{n}", f"b{n}") for n in range(4)}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: pa.concat_tables([t, t]), "same key"),
        (lambda t: t.drop_columns(["source"]), "key column is missing"),
        (lambda t: t.append_column("shoe_size", pa.array(["42"] * t.num_rows)), "unknown column"),
        (lambda t: t.set_column(1, "source_user_id", pa.nulls(t.num_rows, pa.string())), "has no key"),
        (lambda t: t.select(["source", "source_user_id"]), "no columns that can be compared"),
    ],
)
def test_records_that_cannot_be_linked_are_refused_without_showing_them(change, says):
    records, _ = shop(5)
    with pytest.raises(DataError, match=says) as refused:
        link(change(records))
    values = [
        value
        for name in FIELDS
        if name in records.column_names
        for value in records[name].to_pylist()
        if value and len(value) > 3
    ]
    assert not [value for value in values if value in str(refused.value)]


def test_a_shared_value_is_no_clue_and_too_many_pairs_are_refused():
    records, _ = shop(60, share=0)
    everywhere = records.set_column(
        records.column_names.index("phone"), "phone", pa.array(["0800 123 456"] * records.num_rows)
    )
    links = link(everywhere, LinkingSettings(max_block_records=20))
    assert links.oversized_blocks >= 1
    assert links.pairs.num_rows == 0
    with pytest.raises(DataError, match="max_pairs"):
        link(everywhere, LinkingSettings(max_pairs=100))


def test_settings_out_of_range_are_refused(tmp_path):
    for text in ("linking: {threshold: 1.5}", "linking: {threshold: 0.3, review_low: 0.5}", "linking: {treshold: 0.9}"):
        file = tmp_path / "qianmian.yaml"
        file.write_text(text)
        with pytest.raises(ConfigError, match="linking"):
            load_settings(file)
    with pytest.raises(ConfigError, match="backend"):
        link(shop(2)[0], backend="abacus")


def test_links_are_replaced_for_the_systems_linked_and_nothing_else(tmp_path, linked):
    _, _, links = linked
    place = Workspace(tmp_path / "workspace").create()
    other = pa.Table.from_pylist(
        [
            {
                **dict.fromkeys(LINKS_SCHEMA.names, "x"),
                "left_source": "fair",
                "right_source": "till",
                "probability": 1.0,
                "decided_at": DECIDED,
            }
        ],
        schema=LINKS_SCHEMA,
    )
    links_path(place).parent.mkdir()
    pq.write_table(other, links_path(place))
    write_links(place, links, DECIDED)
    first = pq.read_table(links_path(place))
    assert first.schema.equals(LINKS_SCHEMA)
    assert first.num_rows == links.pairs.num_rows + 1
    assert len(set(first["link_id"].to_pylist())) == first.num_rows
    fewer = dataclasses.replace(links, pairs=links.pairs.slice(0, 10))
    write_links(place, fewer, datetime(2025, 1, 1))
    second = pq.read_table(links_path(place))
    assert second.num_rows == 11
    assert set(second["decided_at"].to_pylist()) == {DECIDED}  # a link found again keeps its moment
    assert sorted(path.name for path in links_path(place).parent.iterdir()) == ["linking_model.json", "links.parquet"]


def test_a_failed_write_leaves_the_links_as_they_were(tmp_path, linked, monkeypatch):
    _, _, links = linked
    place = Workspace(tmp_path / "workspace").create()
    before = write_links(place, links, DECIDED).read_bytes()

    def half(table, path, **_):
        path.write_bytes(b"half")
        raise OSError("the disk went away")

    monkeypatch.setattr(pq, "write_table", half)
    with pytest.raises(OSError, match="went away"):
        write_links(place, dataclasses.replace(links, pairs=links.pairs.slice(0, 1)), DECIDED)
    assert links_path(place).read_bytes() == before
    assert {path.name for path in links_path(place).parent.iterdir()} == {"links.parquet", "linking_model.json"}


def test_no_value_of_a_record_is_kept(tmp_path, linked):
    records, _, links = linked
    place = Workspace(tmp_path / "workspace").create()
    write_links(place, links, DECIDED)
    written = [
        pq.read_table(links_path(place)).to_pandas().to_csv(),
        links_path(place).with_name("linking_model.json").read_text(),
        links.chart,
    ]
    values = {
        value
        for name in ("given_name", "surname", "address", "email", "phone")
        for value in records[name].to_pylist()
        if value and len(value) > 5
    }
    assert not [value for value in values if any(value in text for text in written)]


def test_the_chart_needs_no_network(linked):
    _, _, links = linked
    assert "<html" in links.chart
    assert 'src="http' not in links.chart
    assert "given name and surname swapped" in links.chart


def same_pairs_on_spark() -> None:
    records, _ = shop(200)
    here, there = link(records), link(records, backend="spark")
    assert there.pairs.drop_columns(["probability"]).equals(here.pairs.drop_columns(["probability"]))
    assert there.pairs["probability"].to_pylist() == pytest.approx(here.pairs["probability"].to_pylist(), abs=1e-4)


@pytest.mark.slow
def test_spark_links_the_same_pairs():
    code = "from tests.features.data.test_linking import same_pairs_on_spark; same_pairs_on_spark()"  # another test may have started Spark here
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_spark_without_the_functions_is_not_joined(monkeypatch):
    pyspark = pytest.importorskip("pyspark")
    monkeypatch.setattr(pyspark.SparkContext, "_gateway", object())
    monkeypatch.setattr("features.data.identity.link_spark._started_here", [])
    with pytest.raises(UsageError, match="already runs Spark"), spark_api(10):
        pass
