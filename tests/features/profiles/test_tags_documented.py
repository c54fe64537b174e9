"""The page on tags says what the registry says."""

from __future__ import annotations

import re
from pathlib import Path

from features.profiles.governance.audit import AUDIT_RULES
from features.profiles.governance.outcome import TARGETS
from features.profiles.tags import TAGS
from features.profiles.tags.declare import Tag
from qianmian.schema import TAG_CATEGORIES

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "tags.md").read_text(encoding="utf-8")


def row(tag: Tag) -> str:
    values = ", ".join(f"`{value}`" for value in tag.values)
    return f"| `{tag.name}` | {tag.description} | {tag.kind} | {tag.how} | {values} | {tag.ttl_days} |"


def test_every_tag_is_in_the_table_of_its_category_as_it_is_declared():
    tables = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##)", PAGE, re.DOTALL | re.MULTILINE))
    assert [name.lower() for name in tables] == list(TAG_CATEGORIES)
    for category, table in tables.items():
        found = [line for line in table.splitlines() if line.startswith("| `")]
        declared = [row(tag) for tag in TAGS.values() if tag.category == category.lower()]
        lines = "\n".join(declared)
        assert found == declared, f"in docs/tags.md the rows under '### {category}' must be:\n{lines}"


def test_the_page_names_what_there_is():
    assert all(f"`{name}`" in PAGE for name in (*AUDIT_RULES, *TARGETS))
