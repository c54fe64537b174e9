"""The documents: every command they name exists, and every link leads to a file."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from cli import demo_calls, demo_loop
from cli.main import app
from features.data.ingest import ingest
from features.data.sources.files import FileSource
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from serving.endpoints import ENDPOINTS
from serving.requests import parse_request

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [
    path.relative_to(ROOT)
    for path in (
        *sorted(ROOT.glob("*.md")),
        *sorted((ROOT / "docs").rglob("*.md")),
        *sorted((ROOT / "notebooks").glob("*.ipynb")),
    )
]
READMES = (Path("README.md"), Path("README.zh.md"))
every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=str)
every_readme = pytest.mark.parametrize("path", READMES, ids=str)


@cache
def text(path):
    """Text of a document, or of the text cells of a notebook."""
    raw = (ROOT / path).read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return raw
    return "\n".join("".join(cell["source"]) for cell in json.loads(raw)["cells"] if cell["cell_type"] == "markdown")


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text(path), re.DOTALL | re.MULTILINE)


def code(path):
    """Lines of code blocks and texts between backticks, without comments and prompts."""
    pieces = [
        line.split("  #")[0] for block in blocks(path, r"\w*") for line in block.replace("\\\n", " ").splitlines()
    ]
    without_blocks = re.sub(r"^```.*?^```", "", text(path), flags=re.DOTALL | re.MULTILINE)
    return [piece.strip().removeprefix("$ ") for piece in (*pieces, *re.findall(r"`([^`\n]+)`", without_blocks))]


@cache
def program():
    """All commands; making them takes a hundredth of a second."""
    return get_command(app)


@cache
def options_of(words):
    """Names of the options of a command, ("ingest",) or ("models", "rollback"); None where there is no such command."""
    command = program()
    for word in words:
        command = getattr(command, "commands", {}).get(word)
        if command is None:
            return None
    return frozenset(
        name
        for parameter in command.params
        for name in (*parameter.opts, *parameter.secondary_opts)  # those of a flag that can be switched off
        if name.startswith("--")
    )


def commands(path):
    """Every `qianmian verb …` in code: (words of the command, its options)."""
    for piece in code(path):
        for called in re.findall(r"(?:^|[\s/(])qianmian ((?:[a-z][\w-]*|--[\w-]+)(?: +[^\s|&;)]+)*)", piece):
            words = called.split()
            if words[0].startswith("--"):
                continue
            grouped = getattr(getattr(program(), "commands", {}).get(words[0]), "commands", None)
            depth = 2 if grouped and len(words) > 1 else 1
            yield (
                tuple(words[:depth]),
                [word.split("=")[0] for word in words if re.fullmatch(r"--[a-z][\w-]*(=.*)?", word)],
            )


@every_document
def test_every_command_named_exists_with_its_options(path):
    for words, options in commands(path):
        known = options_of(words)
        assert known is not None, f"{path}: qianmian {' '.join(words)}"
        assert set(options) <= known | {"--help"}, f"{path}: qianmian {' '.join(words)} {options}"


@every_document
def test_every_make_target_named_exists(path):
    targets = set(re.findall(r"^([a-z][a-z-]*):(?!=)", text(Path("Makefile")), re.MULTILINE))
    named = {target for piece in code(path) for target in re.findall(r"(?:^|\s)make ([a-z][a-z-]*)", piece)}
    assert named <= targets


@every_document
def test_every_link_to_a_file_leads_to_one(path):
    links = re.findall(r"(?:\]\(|(?:src|srcset|href)=\")([^)\s\"]+)", text(path))
    files = [link.split("#")[0] for link in links if not re.match(r"(https?:|mailto:|#)", link)]
    assert [link for link in files if link and not (ROOT / path.parent / link).exists()] == []


@every_document
def test_every_file_of_the_repository_named_in_backticks_exists(path):
    folders = "qianmian|features|models|training|serving|cli|docs|benchmarks|tests|notebooks"
    named = {piece for piece in code(path) if re.fullmatch(rf"(?:{folders})/[\w/.-]+\.(?:py|md|ipynb|yaml|svg)", piece)}
    assert [name for name in sorted(named) if "NAME" not in name and not (ROOT / name).exists()] == []


@every_readme
def test_a_readme_names_the_two_commands_and_what_they_need(path):
    named = {target for piece in code(path) for target in re.findall(r"(?:^|\s)make ([a-z][a-z-]*)", piece)}
    assert {"demo", "test"} <= named
    assert "Python 3.11" in text(path)


@every_readme
def test_the_example_of_own_data_can_be_ingested(path, tmp_path):
    (config,) = [block for block in blocks(path, "yaml") if "tables:" in block]
    (orders,) = blocks(path, "csv")
    assert len(config.strip().splitlines()) <= 10
    (tmp_path / "sources.yaml").write_text(config, encoding="utf-8")
    (tmp_path / yaml.safe_load(config)["tables"]["transactions"]["path"]).write_text(orders, encoding="utf-8")
    report = ingest(Workspace(tmp_path / "workspace"), FileSource(tmp_path / "sources.yaml"), Settings())
    assert report.tables["transactions"].kept == len(orders.strip().splitlines()) - 1


@every_readme
def test_the_call_of_a_readme_and_its_answer_are_what_the_endpoint_takes_and_gives(path):
    (called,) = re.findall(r"curl -s localhost:3000/v1(/\S+) -d '(.*?)'", text(path))
    endpoint = ENDPOINTS[called[0]]
    request = parse_request(endpoint.request, called[1].encode())
    (answer,) = [json.loads(block) for block in blocks(path, "json")]
    endpoint.response.model_validate(answer)
    assert len(answer["items"]) == request.num_results


@every_document
def test_the_python_in_a_document_is_python(path):
    for block in blocks(path, "python"):
        compile(block, str(path), "exec")


def test_both_readmes_show_the_same_figures():
    """The table of figures is the same in both languages."""
    rows = [set(re.findall(r"`python (benchmarks/\w+\.py)", text(path))) for path in READMES]
    assert rows[0] == rows[1]
    assert rows[0]
    figures = [
        sorted(re.findall(r"(?<![\w.])0?\.\d{3,4}\b", "".join(re.findall(r"^\|.*$", text(path), re.MULTILINE))))
        for path in READMES
    ]
    assert figures[0] == figures[1]


def test_both_readmes_show_the_same_code():
    """Blocks are equal in both languages, but for the comments behind commands."""
    english, chinese = (
        [[line.split("  #")[0].rstrip() for line in block.splitlines()] for block in blocks(path, r"\w*")]
        for path in READMES
    )
    assert english == chinese


@every_readme
def test_the_transcript_has_the_headings_the_demo_prints(path, monkeypatch):
    monkeypatch.setattr(demo_calls, "post", lambda url, what, route, body: (what, route))
    customers = [str(number) for number in range(demo_calls.SEED_SIZE)]
    demo_customers = demo_calls.DemoCustomers("1", {}, customers, customers, customers, 100)
    printed = {*demo_calls.call_endpoints("", demo_customers), (demo_loop.HEADING, "/v1/events")}
    (transcript,) = [block for block in blocks(path, r"\w*") if "\nPOST " in block]
    shown = re.findall(r"^(.+)\nPOST (/v1/\S+)", transcript, re.MULTILINE)
    assert shown
    assert set(shown) <= printed


@pytest.mark.parametrize("name", ["README.md", "README.zh.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_no_retired_word_is_used(name):
    english = r"\b(had|somebody|nobody|whoever|mend(?:s|ed|ing)?|house|floors?|rooms?|shelf|shelves|told|asked)\b"
    assert re.findall(f"{english}|房子|楼层|房间", text(Path(name)), re.IGNORECASE) == []


def test_help_answers_for_every_verb():
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "serve" in done.stdout
