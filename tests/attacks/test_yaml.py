"""Hostile YAML: every file that the project reads is refused at once, and nothing in it is executed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from features.data.sources.files import FileSource
from qianmian.config import load_settings
from qianmian.errors import ConfigError
from qianmian.yaml_files import read_yaml


def read_pack(file: Path) -> None:
    """Read the settings beside a pack, which choose it."""
    pack = file.parent / "packs" / "hostile" / "pack.yaml"
    pack.parent.mkdir(parents=True)
    file.rename(pack)
    file.write_text("pack: packs/hostile\n")
    load_settings(file)


READERS: dict[str, Callable[[Path], Any]] = {
    "settings": load_settings,
    "sources": FileSource,
    "pack": read_pack,
}


def aliases(levels: int, inner: str = "[{}]") -> str:
    """Each line refers nine times to the one before: nine to the power of the levels in all."""
    parts = (f"a{level}: &a{level} " + inner.format(", ".join([f"*a{level - 1}"] * 9)) for level in range(1, levels))
    return "\n".join(["a0: &a0 {x: 1}", *parts])


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (aliases(10), "at most 100,000"),
        (aliases(10, "{{<<: [{}]}}"), "at most 100,000"),
        ("a: &a [*a]", "at most 100,000"),
        ("a: " + "[" * 1_000 + "]" * 1_000, "nested too deeply"),
        ("".join(" " * level + f"a{level}:\n" for level in range(1_500)), "nested too deeply"),
        ("a: " + "9" * 100_000, "cannot be read"),
        ("a: 2024-13-45", "cannot be read"),
        ("a: !!python/object/apply:os.system ['touch harmed']", "could not determine a constructor"),
        ("a: !!python/name:os.system", "could not determine a constructor"),
        ('a: "\\ud800"', "half of a character"),
        ('{"\\ud83d\\udc69": 1}', "half of a character"),
    ],
    ids=[
        "aliases",
        "merged aliases",
        "itself",
        "lists",
        "mappings",
        "a long number",
        "no date",
        "a call",
        "a name",
        "half",
        "a pair",
    ],
)
def test_a_hostile_file_is_a_config_error_at_once(
    read: Callable[[Path], Any], text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "hostile.yaml"
    file.write_text(text, encoding="utf-8")
    begun = time.process_time()
    with pytest.raises(ConfigError, match=said) as caught:
        read(file)
    assert time.process_time() - begun < 10
    assert len(str(caught.value)) < 1_000
    assert not Path("harmed").exists()


def test_aliases_are_allowed(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(aliases(3), encoding="utf-8")
    assert read_yaml(file)["a2"][8][8] == {"x": 1}


@pytest.mark.parametrize("name", ["../../etc", "/etc/passwd", "a/../../b", "a\\..\\b", "x" * 5_000, "~root", "a\x00b"])
def test_the_name_of_a_pack_reads_no_other_file(name: str, tmp_path: Path) -> None:
    """A pack is one of the project's, or a folder that the settings name; another file is never shown."""
    file = tmp_path / "qianmian.yaml"
    file.write_text("pack: " + repr(name).replace("\\x00", ""), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_settings(file)
    assert "root:" not in str(caught.value)
    assert len(str(caught.value)) < 8_000
