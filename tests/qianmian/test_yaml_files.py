"""YAML's own traps: each is one line that names the place and the fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from qianmian.errors import ConfigError
from qianmian.yaml_files import YamlFile, read_yaml

ROOT = Path(__file__).parents[2]


def problems(folder: Path, text: str) -> list[str]:
    file = folder / "a.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_yaml(file)
    return caught.value.problems


@pytest.mark.parametrize(
    ("text", "line", "fix"),
    [
        ("a: {ts: strptime(date, '%d'), q: qty}", 1, "ts: \"strptime(date, '%d')\""),
        ("a: {amount: coalesce(a, b), q: qty}", 1, 'amount: "coalesce(a, b)"'),
        ("a: {amount: replace(x, ',', ''), q: qty}", 1, "amount: \"replace(x, ',', '')\""),
        ("a:\n  b: {x: y,\n      ts: strptime(date, '%d %H:%M')}", 3, "ts: \"strptime(date, '%d %H:%M')\""),
        ("a:\n\tb: c", 2, "use blanks"),
        ("a:\n  b: 1\n\tc: 2", 3, "use blanks"),
        ("a:\n  b: 1\n  c: 2\n  b: 3", 4, "first in line 2"),
        ("a: 1\na: 2", 2, "first in line 1"),
        ("a:\n  order_id:Name\n  ts: date", 2, "order_id: Name"),
        ("a: {order_id:Name, ts: date}", 1, "order_id: Name"),
        ("a:\n  x: foo: bar", 2, 'x: "foo: bar"'),
        ("a: {x: foo: bar, y: z}", 1, 'x: "foo: bar"'),
        ('a:\n  x: "L q" * "L p"\n  y: 1', 2, 'x: \'"L q" * "L p"\''),
        ('a: {x: "L q" * "L p", y: 1}', 1, 'x: \'"L q" * "L p"\''),
        ("a:\n  x: 'abc\n  y: 1", 2, "a quote is opened and not closed"),
        ("a:\n  on: 1", 2, '"on"'),
        ("No: 1", 1, '"No"'),
        ("2024-01-01: 1", 1, '"2024-01-01"'),
    ],
)
def test_a_trap_is_one_line_with_its_fix(text: str, line: int, fix: str, tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, text + "\n")
    assert problem.startswith(f"line {line}: ")
    assert fix in problem


def test_any_other_syntax_error_names_its_line(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, "a: 1\nb: [1, 2\nc: 3\n")
    assert problem.startswith("line ")
    assert "\n" not in problem


def test_a_file_that_is_not_utf8_says_so(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_bytes(b"a: caf\xe9")
    with pytest.raises(ConfigError, match="save it as UTF-8"):
        read_yaml(tmp_path / "b.yaml")


def test_a_control_character_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "sources.yaml"
    file.write_text('source: shop\ntables: {items: {path: "a\x01.csv"}}\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="line 2 has the control character 0x01: remove it"):
        YamlFile(file)


def test_the_content_is_that_of_yaml(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "\ufeffa: {x: \"strptime(d, '%d')\", 'y': [1, No, null]}\n1: b\nc: &k {z: 1}\nd: {<<: *k}\n", encoding="utf-8"
    )
    assert read_yaml(file) == {
        "a": {"x": "strptime(d, '%d')", "y": [1, False, None]},
        1: "b",
        "c": {"z": 1},
        "d": {"z": 1},
    }
    file.write_text("")
    assert read_yaml(file) is None


def test_values_that_are_meant_as_text(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text('t:\n  columns: {a: No, b: 2024-01-01, c: 12, d: , e: null, f: x, g: "No"}\n  header: [on, x, 3]\n')
    found = YamlFile(file).unquoted("t", "columns")
    assert [problem.split(": write it in quotes: ")[-1] for problem in found] == [
        'a: "No"', 'b: "2024-01-01"', 'c: "12"', "t.columns.d: the value is missing (line 2)", 'e: "null"',
    ]  # fmt: skip
    assert [problem.split(": write it in quotes: ")[-1] for problem in YamlFile(file).unquoted("t", "header")] == [
        '- "on"',
        '- "3"',
    ]


@pytest.mark.parametrize(
    "file",
    sorted(
        path
        for path in ROOT.glob("**/*.yaml")
        if not {"cases", "kubernetes"} & {*path.parts} and not any(part.startswith(".") for part in path.parts)
    ),
    ids=str,
)
def test_our_own_files_have_no_trap(file: Path) -> None:
    YamlFile(file)
