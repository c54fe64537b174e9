"""What customers may come to buy or do: an item, a category, a brand or a type of event, written ``kind=NAME``.

The targets of a workspace are `propensity.targets` of `qianmian.yaml` and the list in `targets.yaml` beside it, which
`qianmian train propensity --target` extends.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from qianmian.errors import ConfigError, UsageError, did_you_mean
from qianmian.schema import EVENT_TYPES
from qianmian.workspace import atomic_path
from qianmian.yaml_files import YamlFile, quoted

# kind → the view and the column that names it
TARGET_COLUMNS = {
    "item": ("lines", "item_id"),
    "category": ("lines", "category"),
    "brand": ("lines", "brand"),
    "event": ("events", "event_type"),
}
FORMS = "item=ID, category=NAME, brand=NAME or event=TYPE"
MAX_SLUG = 40
MAX_NAME = 150  # metrics of MLflow have names of at most 250 characters
TARGETS_FILE = "targets.yaml"
HEADER = """\
# Targets of `qianmian train propensity`, beside those of `propensity.targets` in qianmian.yaml.
# `qianmian train propensity --target` adds a line, `--remove-target` removes it.
"""


@dataclass(frozen=True)
class PropensityTarget:
    """Something that a customer buys or does within the horizon, or does not.

    Attributes
    ----------
    kind : {"item", "category", "brand", "event"}
    name : str
        The item, the category with its path (which includes those below it), the brand, or the type of event.
    """

    kind: str
    name: str

    @classmethod
    def of(cls, text: str) -> Self:
        """Parse ``kind=NAME``; ``kind:NAME`` of earlier versions is read as well.

        Raises
        ------
        ValueError
            It is neither, or the event has an unknown type.

        Examples
        --------
        >>> target = PropensityTarget.of("category=GROCERY/SOUP")
        >>> target.slug, str(target) == str(PropensityTarget.of("category:GROCERY/SOUP"))
        ('category_grocery_soup', True)
        """
        found = re.fullmatch(r"(\w+)[=:](.+)", text.strip())
        if found is None or found[1] not in TARGET_COLUMNS:
            raise ValueError(f"a target is {FORMS}; got {text!r}")
        name = found[2].strip()
        if len(name) > MAX_NAME:
            raise ValueError(f"the name of a target has at most {MAX_NAME} characters; got {len(name)}: {name[:40]}…")
        if found[1] == "event" and name not in EVENT_TYPES:
            similar = did_you_mean(name, EVENT_TYPES)
            raise ValueError(f"there is no type of event {name!r}{similar}; allowed: {', '.join(EVENT_TYPES)}")
        return cls(found[1], name)

    def __str__(self) -> str:
        return f"{self.kind}={self.name}"

    @property
    def view(self) -> str:
        """The view of the rows with the target: order lines or events."""
        return TARGET_COLUMNS[self.kind][0]

    @property
    def table(self) -> str:
        """The table of the lake that the view is of."""
        return "transactions" if self.view == "lines" else self.view

    @property
    def column(self) -> str:
        """The column of the view that names the target."""
        return TARGET_COLUMNS[self.kind][1]

    @property
    def slug(self) -> str:
        """The target as a part of names of features and tags; of other letters than a–z, a digest."""
        plain = re.sub(r"[^a-z0-9]+", "_", self.name.lower()).strip("_")
        digest = hashlib.sha256(self.name.encode()).hexdigest()[:8]
        lossless = self.name.isascii() and plain and len(plain) <= MAX_SLUG
        return f"{self.kind}_{plain}" if lossless else "_".join(filter(None, [self.kind, plain[:MAX_SLUG], digest]))


def parse_targets(texts: Sequence[str]) -> tuple[PropensityTarget, ...]:
    """Return the targets without repetitions, in their order.

    Raises
    ------
    ValueError
        A target is not valid, or two would have the same names of features.
    """
    found = tuple(dict.fromkeys(PropensityTarget.of(text) for text in texts))
    slugs: dict[str, PropensityTarget] = {}
    for target in found:
        other = slugs.setdefault(target.slug, target)
        if other is not target:
            raise ValueError(f"{other} and {target} would have the same names of features; leave one out")
    return found


def require_target(text: str, where: str = "--target") -> PropensityTarget:
    """Parse a target of the command line.

    Raises
    ------
    UsageError
        It is not valid.
    """
    try:
        return PropensityTarget.of(text)
    except ValueError as error:
        raise UsageError(str(error), where=where) from None


def read_targets(config_file: Path) -> tuple[str, ...]:
    """Return the targets in the file beside `qianmian.yaml`; none without that file.

    Raises
    ------
    ConfigError
        The file is not a list of texts under `targets`.
    """
    path = config_file.with_name(TARGETS_FILE)
    if not path.exists():
        return ()
    file = YamlFile(path)
    data = file.data or {}
    listed = data.get("targets", []) if isinstance(data, dict) and set(data) <= {"targets"} else None
    if listed is None:
        listed = []
    if not isinstance(listed, list) or not isinstance(data, dict) or set(data) - {"targets"}:
        raise ConfigError(["the file has one key, `targets`, with a list"], where=str(path))
    problems = file.unquoted("targets")
    if problems or not all(isinstance(one, str) for one in listed):
        raise ConfigError(problems or ["targets: each is a text"], where=str(path))
    return tuple(listed)


def write_targets(config_file: Path, targets: Sequence[str]) -> None:
    """Replace the targets in the file beside `qianmian.yaml`."""
    lines = "".join(f"  - {quoted(target)}\n" for target in targets)
    with atomic_path(config_file.with_name(TARGETS_FILE)) as temporary:
        temporary.write_text(HEADER + ("targets:\n" + lines if lines else "targets: []\n"), encoding="utf-8")
