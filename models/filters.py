"""Filters over items: and/or/not over comparisons of item attributes, as data; `models.item_table` answers them with a mask over the catalogue.

The language is that of segment rules (`features.profiles.rules`) with ``attribute`` in place of ``feature``:

``{"all": [filter, …]}`` · ``{"any": [filter, …]}`` · ``{"not": filter}`` · ``{"attribute": name, "operator": op, "value": v}``;
operators ``== != < <= > >= in known`` as there, and ``between`` (both ends count) and ``contains`` (one of the parts of a text joined by
``|``). ``and``, ``or``, ``op`` and the words of `OPERATOR_ALIASES` say the same. ``{"brand": ["A", "B"], "price": 2}`` is short for all of them, each
``in``. A value that is not known passes no comparison but ``known`` false. A category is met by itself and by everything below it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from features.compute.algebra import Operator, Scalar
from features.profiles.rules import MAX_COMPARISONS, MAX_DEPTH
from qianmian.errors import InvalidRequest

MAX_VALUES = 10_000  # in all lists of one filter together
MAX_PROBLEMS = 10
OPERATORS: tuple[str, ...] = (*get_args(Operator), "between", "contains")
OPERATOR_ALIASES = {
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "lte": "<=",
    "gt": ">",
    "gte": ">=",
    "range": "between",
    "exists": "known",
}
GROUPS = {"all": "all", "any": "any", "not": "not", "and": "all", "or": "any"}
KEYS = ("attribute", "operator", "op", "value", *GROUPS)


@dataclass(frozen=True)
class AttributeCondition:
    """One comparison of an attribute; `path` is where it stands in what was given, for errors."""

    attribute: str
    operator: str
    value: Scalar | tuple[Scalar, ...]
    path: str = field(default="", compare=False)


@dataclass(frozen=True)
class FilterGroup:
    """Filters together: all of them, any of them, or (one) not."""

    how: Literal["all", "any", "not"]
    filters: tuple[FilterExpression, ...]


FilterExpression = AttributeCondition | FilterGroup
Problem = tuple[str, str]  # where, what


def parse(data: Any, where: str = "filters") -> FilterExpression | None:
    """A filter from its data; None for none (``{}``).

    Raises
    ------
    InvalidRequest
        All mistakes together, each with the path to it; `field` is the first one's.

    Examples
    --------
    >>> parse({"brand": ["A", "B"]})
    AttributeCondition(attribute='brand', operator='in', value=('A', 'B'), path='filters.brand')
    >>> parse({"and": [{"attribute": "price", "op": "about", "value": 2}]})
    Traceback (most recent call last):
    ...
    qianmian.errors.InvalidRequest: filters.and[0].op: unknown operator 'about'; allowed: ==, !=, <, <=, >, >=, in, known, between, contains
    """
    if data is None or data == {}:
        return None
    reader = _FilterParser()
    found = reader.filter(data, where, 0)
    if reader.tests > MAX_COMPARISONS:
        reader.problems.append((where, f"{reader.tests} comparisons; at most {MAX_COMPARISONS}"))
    if reader.values > MAX_VALUES:
        reader.problems.append((where, f"{reader.values} values; at most {MAX_VALUES}"))
    raise_problems(reader.problems)
    return found


def raise_problems(problems: Sequence[Problem]) -> None:
    """Raise what was found, all of it in one error.

    Raises
    ------
    InvalidRequest
        There are any.
    """
    if problems:
        lines = [f"{path}: {text}" for path, text in problems[:MAX_PROBLEMS]]
        more = f"; and {len(problems) - MAX_PROBLEMS} more" if len(problems) > MAX_PROBLEMS else ""
        raise InvalidRequest("; ".join(dict.fromkeys(lines)) + more, field=problems[0][0])


class _FilterParser:
    """Reads a filter and gathers what is wrong with it."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.tests = 0
        self.values = 0

    def add_problem(self, path: str, text: str) -> AttributeCondition | None:
        """Note it; None, so that a reader can end with it."""
        self.problems.append((path, text))
        return None

    def filter(self, data: Any, path: str, depth: int) -> FilterExpression | None:
        if depth > MAX_DEPTH:
            return self.add_problem(path, f"nested deeper than {MAX_DEPTH}")
        if not isinstance(data, Mapping):
            return self.add_problem(path, f"a filter is an object; got {type(data).__name__}")
        heads = [key for key in ("attribute", *GROUPS) if key in data]
        if not heads:
            return self.shorthand(data, path)
        if len(heads) > 1:
            return self.add_problem(path, f"exactly one of {', '.join(heads)} at a time")
        head = heads[0]
        allowed = ("attribute", "operator", "op", "value") if head == "attribute" else (head,)
        for key in data:
            if key not in allowed:
                self.add_problem(
                    f"{path}.{key}", f"unknown; allowed beside {head}: {', '.join(allowed[1:]) or 'nothing'}"
                )
        if head == "attribute":
            return self.condition(data, path)
        inner = [data[head]] if head == "not" else data[head]
        if not isinstance(inner, Sequence) or isinstance(inner, str) or not inner:
            return self.add_problem(f"{path}.{head}", "takes a list of filters that is not empty")
        if self.tests > MAX_COMPARISONS:
            return None
        paths = [f"{path}.{head}" if head == "not" else f"{path}.{head}[{number}]" for number in range(len(inner))]
        filters = [self.filter(part, place, depth + 1) for part, place in zip(inner, paths, strict=True)]
        return FilterGroup(GROUPS[head], tuple(one for one in filters if one is not None))  # type: ignore[arg-type]

    def shorthand(self, data: Mapping[str, Any], path: str) -> FilterExpression | None:
        """``{"brand": "A", "category": ["B", "C"]}``: all of them, each one of its values."""
        if not data:
            return self.add_problem(path, "an empty filter says nothing; leave it out")
        found = []
        for name, value in data.items():
            listed = value if isinstance(value, list | tuple) else [value]
            found.append(self.test(str(name), "in", listed, f"{path}.{name}", f"{path}.{name}"))
        conditions = tuple(one for one in found if one is not None)
        return conditions[0] if len(conditions) == 1 else FilterGroup("all", conditions)

    def condition(self, data: Mapping[str, Any], path: str) -> AttributeCondition | None:
        name = data["attribute"]
        if not isinstance(name, str) or not name:
            return self.add_problem(f"{path}.attribute", f"the name of an attribute; got {name!r}")
        if "operator" in data and "op" in data:
            return self.add_problem(f"{path}.op", "operator and op are the same; give one")
        key = "op" if "op" in data else "operator"
        given = data.get(key, "==")
        said = OPERATOR_ALIASES.get(given, given) if isinstance(given, str) else given
        if said not in OPERATORS:
            return self.add_problem(f"{path}.{key}", f"unknown operator {given!r}; allowed: {', '.join(OPERATORS)}")
        if "value" not in data and said != "known":
            return self.add_problem(f"{path}.value", "is required")
        return self.test(name, str(said), data.get("value", True), path, f"{path}.value")

    def test(self, name: str, op: str, value: Any, path: str, value_path: str) -> AttributeCondition | None:
        self.tests += 1
        if op in ("in", "contains", "between"):
            listed = [value] if op == "contains" and isinstance(value, str) else value
            if not isinstance(listed, list | tuple) or not listed or not all(map(_is_value, listed)):
                return self.add_problem(
                    value_path, f"'{op}' takes a list of texts, finite numbers or true/false; got {shown(value)}"
                )
            self.values += len(listed)
            if op == "between" and (
                len(listed) != 2 or kinds_of(listed) not in ({"number"}, {"text"}) or listed[0] > listed[1]
            ):
                return self.add_problem(
                    value_path, f"'between' takes [from, to], two numbers or two texts in order; got {shown(value)}"
                )
            return AttributeCondition(name, op, tuple(listed), path)
        if op == "known" and not isinstance(value, bool):
            return self.add_problem(value_path, f"'known' takes true or false; got {shown(value)}")
        if not _is_value(value):
            return self.add_problem(
                value_path, f"'{op}' takes a text, a finite number or true/false; got {shown(value)}"
            )
        return AttributeCondition(name, op, value, path)


def _is_value(value: Any) -> bool:
    if isinstance(value, bool | str):
        return True
    return isinstance(value, int | float) and abs(value) < 1e300  # an integer of JSON may be longer than any float


def shown(value: Any) -> str:
    """A value in an error text, at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def kinds_of(values: Sequence[Scalar]) -> set[str]:
    """What values are: text, number, boolean."""
    return {
        "boolean" if isinstance(value, bool) else "text" if isinstance(value, str) else "number" for value in values
    }


def conditions(given: FilterExpression | None) -> Iterator[AttributeCondition]:
    """Every comparison of a filter."""
    if isinstance(given, AttributeCondition):
        yield given
    elif given is not None:
        for part in given.filters:
            yield from conditions(part)
