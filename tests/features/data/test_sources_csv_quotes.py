"""Quotes and line ends of CSV files: a wrong quote costs its own line and no neighbour, and lines and rows add up."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.data.sources.files import csv_blocks
from features.data.sources.files.csv_quotes import BACKSLASH, STRAY, UNDOUBLED
from tests.features.data.csv_rows import read_csv
from tests.features.data.test_sources_files import Shop, shop  # noqa: F401

CASES = Path(__file__).parents[2] / "data" / "cases"
FILLER = [f"{number},x{number},2024-01-01,y,ok" for number in range(2, 12)]
HEAD = "a,b,c,d,e"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ('1,x,2024-01-01,y,"27 inch screen', STRAY),
        ('1,"27 inch,2024-01-01,y,ok', STRAY),
        ('"1,x,2024-01-01,y,ok', STRAY),
        ('1,x,2024-01-01,"y" z,ok', UNDOUBLED),
        (r'1,x,2024-01-01,y,"back\"slash"', BACKSLASH),
    ],
)
@pytest.mark.parametrize("position", [0, 4, 10])
@pytest.mark.parametrize("later", ["", '99,x,2024-01-01,y,"a ""good"" one"', '99,x,2024-01-01,"y",ok'])
def test_a_wrong_quote_costs_its_own_line(bad: str, reason: str, position: int, later: str, tmp_path: Path) -> None:
    good = [*FILLER, later] if later else FILLER
    lines = [*good[:position], bad, *good[position:]]
    read = read_csv(tmp_path, "\n".join([HEAD, *lines]).encode())
    assert [row[0] for row in read.rows] == [line.split(",")[0] for line in good]
    assert read.refused == [(position + 2, reason, bad)]
    assert read.warnings[0].code == "lines_and_rows"
    assert "1 refused" in read.warnings[0].message


def test_a_quote_inside_a_cell_without_quotes_is_text(tmp_path: Path) -> None:
    read = read_csv(tmp_path, b'a,b\n1,Monitor 27" wide\n2,5\' 3"\n3,"x"\n')
    assert [row[1] for row in read.rows] == ['Monitor 27" wide', "5' 3\"", "x"]
    assert (read.refused, read.warnings) == ([], ())


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_addresses_and_comments_over_several_lines_stay_one_cell(end: str, tmp_path: Path) -> None:
    text = 'a,b,c\n1,"12 High St\nLondon, N1",x\n2,"Dear Sir,\n\nthanks, bye\nAnn",y\n3,z\n4,"last\none",\n'
    read = read_csv(tmp_path, text.replace("\n", end).encode())
    assert [row[:3] for row in read.rows] == [
        ("1", "12 High St\nLondon, N1", "x"),
        ("2", "Dear Sir,\n\nthanks, bye\nAnn", "y"),
        ("4", "last\none", None),
    ]
    assert read.refused == [(8, "missing columns", "3,z")]
    assert (
        "9 lines became 4 rows and 0 refused lines; 3 rows have a quoted cell with line breaks"
        in read.warnings[0].message
    )


def test_quotes_are_text_where_the_yaml_says_so(tmp_path: Path) -> None:
    read = read_csv(tmp_path, b'a\tb\n1\t"27 inch\n2\tx"y"\n', quote="", delimiter="\t")
    assert [row[:2] for row in read.rows] == [("1", '"27 inch'), ("2", 'x"y"')]


def test_lines_of_two_systems_in_one_file(tmp_path: Path) -> None:
    read = read_csv(tmp_path, b"a,b\r\n1,x\r\n2,x\n3,x\r4,x\r\n5,an old\rmac\n")
    assert [row[:2] for row in read.rows] == [("1", "x"), ("2", "x"), ("3", "x"), ("4", "x"), ("5", "an old mac")]
    assert read.refused == []


def test_refused_lines_have_the_number_of_the_original(tmp_path: Path) -> None:
    lines = ["Report", "", "a,b,c", '1,"x\ny",z', "2", '3,"open,z', "", "4,x,y,z", '5,"x\n\ny",z', "6"]
    read = read_csv(tmp_path, "\r\n".join(lines).encode(), skip=2)
    assert [row[0] for row in read.rows] == ["1", "5"]
    # the cells of 1 and of 5 take two and three lines
    assert [refused[0] for refused in read.refused] == [6, 7, 9, 13]


CELLS = st.text(alphabet=["a", "1", " ", '"', ",", "\n", "é", "杯", ";"], max_size=8).map(str.strip)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=8),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "gb18030"]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    block=st.sampled_from([8, 40, 1 << 22]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_what_the_csv_module_writes_is_read_back(
    rows: list[list[str]],
    encoding: str,
    end: str,
    block: int,
    quoting: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(csv_blocks, "BLOCK_BYTES", block)
    named = [[f"r{number}", *row[1:]] for number, row in enumerate(rows)]
    text = io.StringIO(newline="")
    csv.writer(text, quoting=quoting, lineterminator="\r\n").writerows([["a", "b", "c"], *named])  # type: ignore[call-overload]
    content = text.getvalue().replace("\r\n", "\n").replace("\n", end)
    declared = {"encoding": encoding} if encoding == "gb18030" else {}
    read = read_csv(tmp_path, content.encode(encoding), delimiter=",", **declared)
    assert [[value or "" for value in row[:3]] for row in read.rows] == named
    assert read.refused == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 5), st.integers(0, 12)), min_size=1, max_size=25),
    block=st.sampled_from([16, 64, 1 << 22]),
)
def test_lines_with_stray_quotes_are_kept_or_refused_one_by_one(
    lines: list[tuple[str, int, int]], block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_blocks, "BLOCK_BYTES", block)
    texts = []
    for number, (word, kind, place) in enumerate(lines):
        text = f"{number},{word}{word},2024-01-01,{word},note"
        texts.append(text if kind else text[:place] + '"' + text[place:])  # one in six has a stray quote
    read = read_csv(tmp_path, "\n".join([HEAD, *texts, ""]).encode())
    assert len(read.rows) + len(read.refused) == len(texts)
    kept = {row[0] for row in read.rows}
    assert {str(number) for number, (_, kind, _) in enumerate(lines) if kind} <= kept


def test_the_cases_have_their_right_values(shop: Shop) -> None:  # noqa: F811
    for case, expected in (("09-stray-quotes", (22, 20, 2)), ("08-mixed-line-ends", (4, 4, 0))):
        shop.write("orders.csv", (CASES / case / "orders.csv").read_bytes())
        yaml = (CASES / case / "sources.yaml").read_text().replace("source: shop", f"source: s{case[:2]}")
        report = shop.ingest(yaml).tables["transactions"]
        assert (report.read, report.kept, report.quarantined) == expected
    assert shop.query("SELECT DISTINCT item_id FROM transactions WHERE source = 's08'") == [("85123A",)]
