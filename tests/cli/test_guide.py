"""The guide for own data (docs/data.md): its four exports go from file to profile, and print what the page shows."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from features.data.lake import Lake
from qianmian.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
EXPORTS = ROOT / "tests" / "data" / "exports"
GUIDE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
SECTIONS = dict(
    re.findall(r"^### ([^\n]+)\n(.*?)(?=^##)", GUIDE[GUIDE.index("## Four exports") :], re.DOTALL | re.MULTILINE)
)
MAX_EDITS = 2
ENCODINGS = {
    "orders_export.csv": "utf-8",
    "online_retail.csv": "utf-8",
    "ExportOrderList.csv": "gb18030",
    **dict.fromkeys(("bestellungen.csv", "kunden.csv", "artikel.csv"), "windows-1252"),
}


def blocks(section):
    return re.findall(r"^```(\w+)\n(.*?)^```", SECTIONS[section], re.DOTALL | re.MULTILINE)


def shows(shown, printed):
    """Whether a page shows this output, or none; `…` stands for lines, or for the rest or a part of a line."""
    lines = [re.escape(line.rstrip()).replace("…", ".*") + r"\s*?\n" for line in shown]
    pattern = "".join(r"(?:.*\n)*?" if line == r".*\s*?\n" else line for line in lines)
    return not shown or re.fullmatch(pattern, printed) is not None


def edit(config, lines):
    """Put lines into a sources.yaml: in place of the lines with their keys, else to the profiles, or to the top."""
    text = config.read_text(encoding="utf-8")
    for line in lines:
        key = re.escape(line.partition(":")[0])
        above = r"^  profiles:\n(?:    .*\n)*?    columns:\n" if line.startswith(" ") else r"^source: .*\n"
        if re.search(rf"^{key}:", text, re.MULTILINE):
            text = re.sub(rf"^{key}:.*", lambda _, line=line: line, text, count=1, flags=re.MULTILINE)
        else:
            text, found = re.subn(above, lambda match, line=line: match[0] + line + "\n", text, flags=re.MULTILINE)
            assert found == 1
    config.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("section", SECTIONS)
def test_an_export_goes_from_file_to_profile_as_the_guide_shows(section, qianmian, tmp_path, monkeypatch):
    for file in EXPORTS.iterdir():
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    edits, shown = [], {}
    for language, body in blocks(section):
        if language == "yaml":
            edits += body.splitlines()
            edit(tmp_path / "sources.yaml", body.splitlines())
        if language != "console":
            continue
        for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", body, re.MULTILINE):
            program, _, arguments = command.partition(" ")
            if program != "qianmian":
                subprocess.run(["bash", "-c", command], check=True)
                continue
            split = subprocess.run(["bash", "-c", rf"printf '%s\0' {arguments}"], check=True, capture_output=True)
            done = qianmian(*split.stdout.decode().split("\0")[:-1])
            assert done.code == 0, done.err
            shown[command] = shows(output.splitlines(), done.out), f"$ {command}\n{done.out}"
    assert [text for is_shown, text in shown.values() if not is_shown] == []
    assert len(edits) <= MAX_EDITS
    verbs = [command.split()[1] for command in shown]
    assert (verbs[:3], verbs[-2:]) == (["ingest", "ingest", "ingest"], ["features", "customer"])


@pytest.mark.parametrize("section", SECTIONS)
def test_the_rows_that_the_guide_shows_are_the_first_of_an_export(section):
    files = [(EXPORTS / name).read_text(encoding=encoding) for name, encoding in ENCODINGS.items()]
    tables = [table for language, body in blocks(section) if language == "csv" for table in body.split("\n\n")]
    assert tables
    for body in tables:
        delimiter = ";" if ";" in body else ","
        header, *rows = csv.reader(body.splitlines(), delimiter=delimiter)
        (columns, *exported) = next(
            read
            for read in (list(csv.reader(text.splitlines(), delimiter=delimiter)) for text in files)
            if set(header) <= set(read[0])
        )
        places = [columns.index(name) for name in header]
        assert [[row[place] for place in places] for row in exported[: len(rows)]] == rows


@pytest.mark.parametrize(
    ("section", "old", "new", "order", "status"),
    [
        ("Shopify: orders", ",pending,", ",paid,", "#1012", "paid"),
        ("A German shop: orders, customers and items", "31.03.2024 02:30", "31.03.2024 03:30", "B2012", "paid"),
    ],
)
def test_a_corrected_export_is_ingested_again_as_the_guide_says(
    section, old, new, order, status, qianmian, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (proposal,) = re.findall(r"^\$ qianmian ingest init (.*)$", SECTIONS[section], re.MULTILINE)
    names = proposal.split()
    for name in names:
        shutil.copy(EXPORTS / name, tmp_path)
    assert qianmian("ingest", "init", *names).code == 0
    edit(
        tmp_path / "sources.yaml",
        [line for lang, body in blocks(section) if lang == "yaml" for line in body.splitlines()],
    )
    again = ("ingest", "files", "--config", "sources.yaml", "--json")
    first = qianmian(*again).json["tables"]["transactions"]
    text = (tmp_path / names[0]).read_text(encoding=ENCODINGS[names[0]])
    assert old in text
    (tmp_path / names[0]).write_text(text.replace(old, new), encoding=ENCODINGS[names[0]])
    second = qianmian(*again).json["tables"]["transactions"]
    assert (second["kept"], second["duplicates"]) == (1, first["read"] - 1)
    rows = Lake(Workspace(tmp_path / "workspace")).connect().con
    assert rows.execute("SELECT status FROM transactions WHERE order_id = ?", [order]).fetchall() == [(status,)]
