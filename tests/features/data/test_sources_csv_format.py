"""The format of a CSV file is found by looking at its bytes: encoding, BOM, `sep=` line, preface, header, delimiter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from features.data.ingest import ingest
from features.data.sources.files import FileSource
from features.data.sources.files.csv_format import UnreadableFile
from qianmian.errors import ConfigError, DataError
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from tests.features.data.csv_rows import read_csv
from tests.features.data.test_sources_files import Shop, shop  # noqa: F401

CASES = Path(__file__).parents[2] / "data" / "cases"
TEXT = "a,b\n1,杯子 é\n2,茶\n"
ROWS = [("1", "杯子 é", "0.csv"), ("2", "茶", "0.csv")]


@pytest.mark.parametrize(
    ("content", "settings"),
    [
        (TEXT.encode(), {}),
        (TEXT.encode("utf-8-sig"), {}),
        (TEXT.encode("utf-16"), {}),  # the byte order mark says it
        (b"\xfe\xff" + TEXT.encode("utf-16-be"), {}),
        (TEXT.encode("utf-16-le"), {"encoding": "utf-16-le"}),
        (TEXT.encode("utf-32"), {}),
        (TEXT.encode("gb18030"), {"encoding": "gb18030"}),
        (TEXT.encode("gb18030"), {"encoding": "gb2312"}),  # the larger encoding of the family is read
        (TEXT.encode("utf-8-sig"), {"encoding": "gb18030"}),  # the byte order mark counts, not the declaration
        (TEXT.replace("\n", "\r\n").encode("utf-16"), {}),
        (TEXT.replace("\n", "\r").encode(), {}),
        (TEXT.replace("\n", "\r").encode("utf-16"), {}),
        (TEXT.replace("\n", "\r\n", 1).encode(), {}),
        (b"sep=;\n" + TEXT.replace(",", ";").encode(), {}),
        (b"sep=\t\r\n" + TEXT.replace(",", "\t").replace("\n", "\r\n").encode(), {}),
        ("\ufeffsep=|\n".encode() + TEXT.replace(",", "|").encode(), {}),
        (b'"Report, of, the, day"\n\nAll in GBP\n' + TEXT.encode(), {"skip": 3}),
        (b"\n\n" + TEXT.encode(), {}),
        (b"\xef\xbb\xbf" + TEXT.partition("\n")[2].encode(), {"header": ["a", "b"]}),
        (TEXT.partition("\n")[2].encode("utf-16"), {"header": ["a", "b"]}),
        (b"x,y\n" + TEXT.partition("\n")[2].encode(), {"header": ["a", "b"], "skip": 1}),
        (TEXT.replace(",", "||").encode(), {"delimiter": "||"}),
    ],
)
def test_every_format_gives_the_same_rows(content: bytes, settings: dict[str, Any], tmp_path: Path) -> None:
    read = read_csv(tmp_path, content, **settings)
    assert (read.columns, read.rows, read.refused, read.warnings) == (["a", "b"], ROWS, [], ())


def test_plain_files_are_read_in_place(tmp_path: Path) -> None:
    read = read_csv(tmp_path, TEXT.encode(), TEXT.replace("\n", "\r\n").encode(), TEXT.encode("utf-16"), TEXT.encode())
    assert read.copies == ["items-000002.csv"]
    assert [row[2] for row in read.rows] == ["0.csv", "0.csv", "1.csv", "1.csv", "2.csv", "2.csv", "3.csv", "3.csv"]


def test_any_codec_of_python_is_read(tmp_path: Path) -> None:
    assert read_csv(tmp_path, "a,b\n1,Привет\n".encode("cp1251"), encoding="windows-1251").rows[0][1] == "Привет"
    assert read_csv(tmp_path, "a,b\n1,テスト表\n".encode("shift_jis"), encoding="shift_jis").rows[0][1] == "テスト表"
    assert (
        read_csv(tmp_path, "a,b\n1,5€ – l’eau\n".encode("cp1252"), encoding="windows-1252").rows[0][1] == "5€ – l’eau"
    )
    assert read_csv(tmp_path, "a,b\n1,Übung\n".encode("cp500"), encoding="cp500", delimiter=",").rows[0][1] == "Übung"


def test_columns_of_the_mapping_decide_the_delimiter(tmp_path: Path) -> None:
    content = b"a;price (net, GBP, rounded)\n1;2\n"  # more commas than semicolons
    assert read_csv(tmp_path, content).columns == ["a", "price (net, GBP, rounded)"]


def test_a_header_with_a_line_break_is_one_name(tmp_path: Path) -> None:
    read = read_csv(tmp_path, b'"a\r\nb",c\r\n1,2\r\n3\r\n')
    assert (read.columns, read.rows) == (["a\nb", "c"], [("1", "2", "0.csv")])
    assert read.refused == [(4, "missing columns", "3")]  # the line of the original


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "订单号,客户\n1,2\n".encode("gbk"),
            r"header \(line 1\) is not valid utf-8; as gb18030 it is '订单号,客户': add `encoding: gb18030`",
        ),
        ("Größe,Maß\n".encode("cp1252"), "is not valid utf-8.*`encoding:"),
        ("a,b\n1,2\n".encode("utf-16-le"), "UTF-16: add `encoding: utf-16-le`"),
        ("a,b\n1,2\n".encode("utf-16-be"), "UTF-16: add `encoding: utf-16-be`"),
        (b"\xef\xbb\xbf", "there is no header line"),
        (b'"a,b\n' + b"1,2\n" * 20, "a quote in the header is never closed"),
        (b"a,ann@shop.com\n", "e-mail address"),
    ],
)
def test_a_header_that_cannot_be_read_says_why(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=f"0.csv: .*{message}"):
        read_csv(tmp_path, content)


def test_a_body_in_another_encoding_is_refused_line_by_line(tmp_path: Path) -> None:
    read = read_csv(tmp_path, b"a,b\n1,x\n" + "2,面霜\n".encode("gbk") + b"3,y\n")
    assert [row[0] for row in read.rows] == ["1", "3"]
    assert [refused[:2] for refused in read.refused] == [
        (3, "invalid encoding: not utf-8; it looks like gb18030: add `encoding: gb18030` beside `path`")
    ]
    assert [(found.code, found.rows, found.fix) for found in read.warnings] == [
        ("undecodable_lines", 1, "add `encoding: gb18030` beside `path`")
    ]


def test_one_damaged_line_of_a_utf8_file_asks_for_no_other_encoding(tmp_path: Path) -> None:
    read = read_csv(tmp_path, "a,b\n1,é\n2,杯\n3,ü\n".encode() + b"4,\xe9\n")
    assert read.refused == [(5, "invalid encoding: not utf-8", "4,\ufffd")]
    assert "repair these lines" in read.warnings[0].fix


def test_a_large_file_in_another_encoding_stops_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 2 and nearly all others are not valid utf-8: add `encoding: gb18030`"):
        read_csv(tmp_path, b"a,b\n" + "1,面霜\n".encode("gbk") * 3000)


def test_latin_1_with_control_characters_is_windows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 3 has control characters.*`encoding: windows-1252`"):
        read_csv(tmp_path, "a,b\n1,é\n2,5€\n".encode("cp1252"), encoding="latin-1")
    assert read_csv(tmp_path, b"a,b\n1,\xe9\n", encoding="latin-1").rows[0][1] == "é"


def test_a_declared_encoding_that_is_wrong_is_said(tmp_path: Path) -> None:
    read = read_csv(
        tmp_path, b"a,b\n" + "1,café à la crème, déjà\n".replace(", ", " ").encode() * 4, encoding="windows-1252"
    )
    assert [found.code for found in read.warnings] == ["declared_encoding_is_wrong"]


@pytest.mark.parametrize(("name", "known"), [("utf8", True), ("GBK", True), ("base64", False), ("klingon", False)])
def test_encodings_that_python_knows_are_allowed(name: str, known: bool, shop: Shop) -> None:  # noqa: F811
    shop.write("items.csv", "sku\n1\n")
    yaml = (
        f"source: x\ntimezone: UTC\ntables: {{items: {{path: items.csv, encoding: {name}, columns: {{item_id: sku}}}}}}"
    )
    if known:
        assert shop.ingest(yaml).kept == 1
    else:
        assert "no text encoding" in shop.mistakes(yaml)[0]


@pytest.mark.parametrize(
    ("case", "yaml", "message"),
    [
        (
            "19-amazon-preface",
            "sources.yaml",
            "'\"Includes Amazon Marketplace transactions\"'; line 4 has the columns of 6 of 6.*`skip: 3`",
        ),
        ("20-utf16-and-gbk", "gbk-as-latin.yaml", "the file is not latin-1: set `encoding: gb18030`"),
        ("20-utf16-and-gbk", "gbk.yaml", "add `encoding: gb18030`"),
    ],
)
def test_a_case_that_needs_a_key_names_the_line_to_add(case: str, yaml: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        FileSource(CASES / case / yaml)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("case", "key", "expected"),
    [
        ("18-instant-sep-line", "", ("o1", "c1", "s1", 10.0)),
        ("19-amazon-preface", "skip: 3", ("026-1", "b1", "s1", 10.0)),
        ("20-utf16-and-gbk", "", ("o1", "c1", "s1", 10.0)),
        ("33-bom-without-header", "", ("o1", "c1", "s1", 10.0)),
        ("34-windows-1252", "encoding: windows-1252", ("o1", "c1", "L’Oréal – 5€", 10.0)),
        ("37-line-break-in-the-header", "", ("o1", "c1", "s1", 10.0)),
    ],
)
def test_the_cases_have_their_right_values(case: str, key: str, expected: tuple[Any, ...], shop: Shop) -> None:  # noqa: F811
    for file in (CASES / case).iterdir():
        shop.write(file.name, file.read_bytes())
    yaml = (CASES / case / "sources.yaml").read_text(encoding="utf-8")
    if key:
        lines = [line for line in yaml.splitlines() if not line.strip().startswith("encoding")]
        yaml = "\n".join(f"{line}\n    {key}" if line.strip().startswith("path:") else line for line in lines)
    shop.ingest(yaml)
    assert shop.query("SELECT order_id, source_user_id, item_id, amount FROM transactions ORDER BY 1")[0] == expected


def test_white_space_in_a_name_counts_as_one_blank(shop: Shop) -> None:  # noqa: F811
    shop.write("items.csv", '"Item\nNo","Net  price"\n7,2\n')
    shop.ingest(
        "source: x\ntimezone: UTC\ntables: {items: {path: items.csv, columns: {item_id: Item No, price: '\"Net price\" * 2'}}}"
    )
    assert shop.query("SELECT item_id, price FROM items") == [("7", 4.0)]


def test_a_copy_leaves_nothing_behind(shop: Shop) -> None:  # noqa: F811
    shop.write("items.csv", "sku\n1\n".encode("utf-16"))
    source = FileSource(
        shop.write("s.yaml", "source: x\ntimezone: UTC\ntables: {items: {path: items.csv, columns: {item_id: sku}}}")
    )
    ingest(Workspace(shop.root / "w"), source, Settings())
    assert source.scratch is not None
    assert not source.scratch.exists()


@pytest.mark.parametrize("name", ["init", "Events"])
def test_reserved_names_of_sources_are_refused(name: str, shop: Shop) -> None:  # noqa: F811
    shop.write("items.csv", "sku\n1\n")
    problems = shop.mistakes(f"source: {name}\ntables: {{items: {{path: items.csv, columns: {{item_id: sku}}}}}}")
    assert f"the name {name} is reserved" in problems[0]
