"""Reading of YAML files, with one clear line for each trap of the format.

YAML 1.1 reads an unquoted `No` as false, ends a value at ` #` and, inside braces, at a comma, and keeps the last of two
equal keys. Each of these loses data without an error, so it is a mistake here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from qianmian.errors import ConfigError

_KINDS = {
    "tag:yaml.org,2002:bool": "a boolean",
    "tag:yaml.org,2002:null": "empty",
    "tag:yaml.org,2002:int": "a number",
    "tag:yaml.org,2002:float": "a number",
    "tag:yaml.org,2002:timestamp": "a date",
}
_NUMBERS = ("a number",)
MAX_VALUES = 100_000  # of one file, those of its aliases included
_NO_BLANK = re.compile(r"\s*(?:- )?([\w.-]*[^\W\d][\w.-]*):([^\s:/\\].*)")
_KEY_VALUE = re.compile(r"\s*(?:- )?([^:#'\"{\[]+): +(.+)")
_FLOW_VALUE = re.compile(r"[{,] *([\w-]+): +([^'\"{\[][^,}\n]*: [^,}\n]*)")
_QUOTED_START = re.compile(r"""([\w. -]*\w): +((["'])(?:(?!\3).)*\3 *[^\s#,}\]][^,}\n]*)""")


@dataclass(frozen=True)
class YamlScalar:
    """A value or key as it stands in the file.

    Attributes
    ----------
    text : str
        The value as written, without quotes.
    kind : str
        "text", or what YAML reads an unquoted text as: "a boolean", "a number", "a date", "empty".
    line : int
        Line number from 1.
    after : str
        The rest of the line after an unquoted value.
    """

    text: str
    kind: str
    line: int
    after: str


class YamlFile:
    """A parsed YAML file that still knows how its values were written.

    Attributes
    ----------
    data : Any
        The content.

    Raises
    ------
    ConfigError
        The file is not UTF-8, has a syntax error, or one of the traps that lose data; the error names the lines.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ConfigError(
                [f"the file is not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8"], where=str(path)
            ) from error
        try:
            loader = yaml.SafeLoader(self.text)
        except yaml.reader.ReaderError as error:
            line = self.text.count("\n", 0, error.position) + 1
            raise ConfigError(
                [f"line {line} has the control character {error.character:#04x}: remove it"], where=str(path)
            ) from error
        try:
            self._root = loader.get_single_node()
            if (size := _expanded_size(self._root, {})) > MAX_VALUES:
                raise ConfigError([f"{size:,} values with its aliases: at most {MAX_VALUES:,}"], where=str(path))
            problems = list(dict.fromkeys(_node_problems(self._root, self.text)))
            if problems:
                raise ConfigError(problems, where=str(path))
            self.data: Any = loader.construct_document(self._root) if self._root is not None else None
        except yaml.YAMLError as error:
            raise ConfigError([_syntax_problem(error, self.text)], where=str(path)) from error
        except RecursionError:  # of the parser, too
            raise ConfigError(["lists or mappings are nested too deeply"], where=str(path)) from None
        except ValueError as error:  # a number with thousands of digits, or a date such as 2024-13-45
            raise ConfigError([f"a value cannot be read: {str(error)[:200]}"], where=str(path)) from error
        finally:
            loader.dispose()

    def scalars(self, *keys: str | int) -> Iterator[tuple[str | int, YamlScalar]]:
        """The scalar values of the mapping or list at the path `keys`, with their key or position."""
        node = self._node(keys)
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if isinstance(value, yaml.ScalarNode):
                    yield str(key.value), self._scalar(value)
        elif isinstance(node, yaml.SequenceNode):
            for position, value in enumerate(node.value):
                if isinstance(value, yaml.ScalarNode):
                    yield position, self._scalar(value)

    def unquoted(self, *keys: str | int) -> list[str]:
        """Problems of the mapping or list at the path `keys` in which every value is meant as text."""
        problems = []
        for key, scalar in self.scalars(*keys):
            where = f"{'.'.join(map(str, keys))}.{key}"
            if scalar.kind == "empty" and not scalar.text:
                problems.append(f"{where}: the value is missing (line {scalar.line})")
            elif scalar.kind != "text":
                problems.append(
                    f"{where}: {scalar.text} is {scalar.kind} in YAML (line {scalar.line}): write it in quotes: "
                    f"{f'{key}: ' if isinstance(key, str) else '- '}{quoted(scalar.text)}"
                )
        return problems

    def _node(self, keys: Sequence[str | int]) -> yaml.Node | None:
        node = self._root
        for key in keys:
            if isinstance(node, yaml.MappingNode):
                node = next((value for name, value in node.value if name.value == str(key)), None)
            elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
                node = node.value[key]
            else:
                return None
        return node

    def _scalar(self, node: yaml.ScalarNode) -> YamlScalar:
        plain = node.style is None
        kind = _KINDS.get(node.tag, "text") if plain else "text"
        after = self.text[node.end_mark.index :].split("\n", 1)[0] if plain else ""
        return YamlScalar(str(node.value), kind, node.start_mark.line + 1, after)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises
    ------
    ConfigError
        As `YamlFile`.
    """
    return YamlFile(path).data


def quoted(text: str) -> str:
    """The text in the quotes that YAML needs for it.

    Examples
    --------
    >>> print(quoted("No"), quoted('"Unit Price" * 2'))
    "No" '"Unit Price" * 2'
    """
    if '"' in text or "\\" in text:
        return "'" + text.replace("'", "''") + "'"
    return f'"{text}"'


def missing_blank(text: str) -> str | None:
    """The key and value of a text such as `order_id:No`, in which the blank after the colon is missing, corrected."""
    found = _NO_BLANK.fullmatch(text.split("\n", 1)[0])
    return f"{found[1]}: {found[2]}" if found else None


def _expanded_size(node: yaml.Node | None, sizes: dict[int, int]) -> int:
    """Number of values of a node, with an alias counted as all values of its anchor; `sizes` has those of its parts.

    Ten short lines of aliases of aliases can stand for a billion values, which every reader of the content would visit.
    """
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in sizes:
        sizes[id(node)] = MAX_VALUES + 1  # an alias of a list inside the list itself
        parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        sizes[id(node)] = 1 + sum(_expanded_size(part, sizes) for part in parts)
    return sizes[id(node)]


def _node_problems(node: yaml.Node | None, text: str) -> Iterator[str]:
    if isinstance(node, yaml.ScalarNode) and any("\ud800" <= letter <= "\udfff" for letter in node.value):
        yield (
            f"line {node.start_mark.line + 1} has half of a character (\\ud800 to \\udfff): write the character itself"
        )
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            yield from _node_problems(child, text)
    if not isinstance(node, yaml.MappingNode):
        return
    cut = [problem for key, value in node.value if (problem := _cut_value(key, value, node, text))]
    if cut:  # what follows the cut is no key
        yield from cut
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        yield from _node_problems(key, text)
        yield from _key_problems(key, value, lines)
        yield from _node_problems(value, text)


def _key_problems(key: yaml.Node, value: yaml.Node, lines: dict[str, int]) -> Iterator[str]:
    if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
        return
    line, name = key.start_mark.line + 1, str(key.value)
    kind = _KINDS.get(key.tag) if key.style is None else None
    if kind and kind not in _NUMBERS:
        yield f"line {line}: the key {name} is {kind} in YAML: write it in quotes: {quoted(name)}: …"
    elif name in lines:
        yield f"line {line}: the key {name} occurs twice (first in line {lines[name]}): remove one"
    lines.setdefault(name, line)
    empty = isinstance(value, yaml.ScalarNode) and not value.value and value.style is None
    spaced = missing_blank(name) if empty and key.style is None else None
    if spaced:
        yield f"line {line}: a blank is missing after the colon: {spaced}"


def _cut_value(key: yaml.Node, value: yaml.Node, parent: yaml.MappingNode, text: str) -> str | None:
    """Problem of an unquoted value in braces that a comma inside its brackets has cut."""
    if not parent.flow_style or not isinstance(value, yaml.ScalarNode) or value.style is not None:
        return None
    if value.value.count("(") <= value.value.count(")"):
        return None
    start = value.start_mark.index
    return _cut_text(str(key.value), text[start : _end_of_value(text, start)], value.start_mark.line + 1)


def _cut_text(key: str, value: str, line: int) -> str:
    value = " ".join(value.split())
    return (
        f"line {line}: the value of {key} is cut at a comma, because commas separate the entries inside {{…}}: "
        f"write it in quotes: {key}: {quoted(value)}"
    )


def _end_of_value(text: str, start: int) -> int:
    """Offset after an unquoted expression whose brackets may contain commas and quoted text."""
    depth, position, stop = 0, start, min(len(text), start + 1000)
    while position < stop:
        char = text[position]
        if char in "'\"" and depth:
            close = text.find(char, position + 1, stop)
            position = close if close > 0 else position
        elif char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
        elif (char in ",}" and depth <= 0) or (char == "\n" and depth <= 0):
            break
        position += 1
    return position


def _syntax_problem(error: yaml.YAMLError, text: str) -> str:
    """One line for a syntax error, with its usual cause where it is known."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    lines = text.splitlines()
    number = min(mark.line, len(lines) - 1) if mark and lines else 0
    for position in range(number, max(number - 3, -1), -1):
        if re.match(r" *\t\s*\S", lines[position]):
            return f"line {position + 1}: the indentation contains a tab: use blanks"
    cut = _cut_before(text, mark.index if mark else len(text))
    if cut:
        return cut
    for position in range(number, max(number - 3, -1), -1):
        spaced = missing_blank(lines[position])
        if spaced:
            return f"line {position + 1}: a blank is missing after the colon: {spaced}"
    line = lines[number] if lines else ""
    for position in (number, number - 1):
        found = _QUOTED_START.search(lines[position]) if 0 <= position < len(lines) else None
        if found:
            return (
                f"line {position + 1}: the value begins with a quoted part and goes on after it: "
                f"put all of it in quotes: {found[1].strip()}: {quoted(found[2].rstrip())}"
            )
    for found in (_FLOW_VALUE.search(line), _KEY_VALUE.fullmatch(line)):
        if found and ": " in found[2] and found[2][0] not in "'\"{[":
            return f"line {number + 1}: the value contains a colon: write it in quotes: {found[1]}: {quoted(found[2])}"
    context = getattr(error, "context_mark", None)
    if "quoted scalar" in str(getattr(error, "context", "")) and context:
        return f"line {context.line + 1}: a quote is opened and not closed"
    problem = str(getattr(error, "problem", None) or error)
    return f"line {number + 1}: {' '.join(problem.split())}: {line.strip()[:120]}"


def _cut_before(text: str, index: int) -> str | None:
    """The nearest value before `index`, in braces, that a comma inside its brackets cuts."""
    best = None
    for found in re.finditer(r"([\w-]+): +(?=[^\s'\"{\[][^{}\n]*\()", text[: index + 1]):
        opened = text.rfind("{", 0, found.start())
        if opened < 0 or text.find("}", opened, found.start()) >= 0:
            continue
        value = text[found.end() : _end_of_value(text, found.end())]
        if "," in value and "(" in value:
            best = _cut_text(found[1], value, text.count("\n", 0, found.start()) + 1)
    return best
