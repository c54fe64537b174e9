"""Item filters: and/or/not over comparisons of item attributes, as data; `models.item_table` computes their masks.

The language is that of segment rules (`features.profiles.rules`) with ``attribute`` in place of ``feature``:

``{"all": [filter, …]}`` · ``{"any": [filter, …]}`` · ``{"not": filter}`` ·
``{"attribute": name, "operator": op, "value": v}``

The operators are ``== != < <= > >= in known`` as in segment rules, ``between`` (both ends inclusive) and ``contains``
(equals one of the parts of a text joined by ``|``). ``and``, ``or``, ``op`` and the keys of `OPERATOR_ALIASES` are
aliases. ``{"brand": ["A", "B"], "price": 2}`` is shorthand for ``all`` of its entries, each compared with ``in``. A
missing value passes no comparison except ``known`` false. A category matches itself and every category below it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from features.compute.algebra import Operator, Scalar
from features.profiles.rules import MAX_COMPARISONS, MAX_DEPTH
from qianmian.errors import InvalidRequest

MAX_VALUES = 10_000  # values in all lists of one filter together
MAX_PROBLEMS = 10
MAX_TEXT = 1_000  # characters of one text
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


@dataclass(frozen=True)
class AttributeCondition:
    """One comparison of an attribute; `path` is its position in the input, for error messages."""

    attribute: str
    operator: str
    value: Scalar | tuple[Scalar, ...]
    path: str = field(default="", compare=False)


@dataclass(frozen=True)
class FilterGroup:
    """A combination of filters: all of them, any of them, or the negation of one."""

    how: Literal["all", "any", "not"]
    filters: tuple[FilterExpression, ...]


FilterExpression = AttributeCondition | FilterGroup
Problem = tuple[str, str]  # path, message


def parse(data: Any, where: str = "filters") -> FilterExpression | None:
    """Parse a filter; None and ``{}`` give None.

    Parameters
    ----------
    data : object
        The filter as JSON data.
    where : str
        Path of the filter in the request, for error messages.

    Raises
    ------
    InvalidRequest
        The filter is invalid. The message lists all problems with their paths; `field` is the path of the first.

    Examples
    --------
    >>> parse({"brand": ["A", "B"]})
    AttributeCondition(attribute='brand', operator='in', value=('A', 'B'), path='filters.brand')
    >>> parse({"and": [{"attribute": "price", "op": "about", "value": 2}]})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    qianmian.errors.InvalidRequest: filters.and[0].op: unknown operator 'about'; allowed: ==, !=, ...
    """
    if data is None or data == {}:
        return None
    reader = _FilterParser()
    found = reader.filter(data, where, 0)
    if reader.tests > MAX_COMPARISONS:
        reader.problems.append((where, f"too many comparisons; at most {MAX_COMPARISONS}"))
    if reader.values > MAX_VALUES:
        reader.problems.append((where, f"{reader.values} values; at most {MAX_VALUES}"))
    raise_problems(reader.problems)
    return found


def raise_problems(problems: Sequence[Problem]) -> None:
    """Raise one error that lists all problems, or return if there are none.

    Raises
    ------
    InvalidRequest
        There is at least one problem.
    """
    if problems:
        lines = [f"{path}: {text}" for path, text in problems[:MAX_PROBLEMS]]
        more = f"; and {len(problems) - MAX_PROBLEMS} more" if len(problems) > MAX_PROBLEMS else ""
        raise InvalidRequest("; ".join(dict.fromkeys(lines)) + more, field=problems[0][0])


class _FilterParser:
    """Parses a filter and collects its problems."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.tests = 0
        self.values = 0

    def add_problem(self, path: str, text: str) -> AttributeCondition | None:
        """Record a problem and return None, so that callers can return the result of this call."""
        self.problems.append((path, text))
        return None

    def filter(self, data: Any, path: str, depth: int) -> FilterExpression | None:
        if depth > MAX_DEPTH:
            return self.add_problem(path, f"filters are nested deeper than {MAX_DEPTH} levels")
        if not isinstance(data, Mapping):
            return self.add_problem(path, f"a filter must be an object; got {type(data).__name__}")
        heads = [key for key in ("attribute", *GROUPS) if key in data]
        if not heads:
            return self.shorthand(data, path)
        if len(heads) > 1:
            return self.add_problem(path, f"use exactly one of {', '.join(heads)} in one filter")
        head = heads[0]
        allowed = ("attribute", "operator", "op", "value") if head == "attribute" else (head,)
        for key in data:
            if key not in allowed:
                others = ", ".join(allowed[1:]) or "nothing"
                self.add_problem(f"{path}.{key}", f"unknown key; allowed together with '{head}': {others}")
        if head == "attribute":
            return self.condition(data, path)
        inner = [data[head]] if head == "not" else data[head]
        if not isinstance(inner, Sequence) or isinstance(inner, str) or not inner:
            return self.add_problem(f"{path}.{head}", f"'{head}' takes a non-empty list of filters")
        if self.tests > MAX_COMPARISONS:
            return None
        paths = [f"{path}.{head}" if head == "not" else f"{path}.{head}[{number}]" for number in range(len(inner))]
        filters = [self.filter(part, place, depth + 1) for part, place in zip(inner, paths, strict=True)]
        valid = tuple(part for part in filters if part is not None)
        return FilterGroup(GROUPS[head], valid)  # type: ignore[arg-type]

    def shorthand(self, data: Mapping[str, Any], path: str) -> FilterExpression | None:
        """Parse ``{"brand": "A", "category": ["B", "C"]}``, which means ``all`` entries, each with ``in``."""
        if not data:
            return self.add_problem(path, "the filter is empty; leave it out")
        found = []
        for name, value in data.items():
            if self.tests > MAX_COMPARISONS:
                break
            listed = value if isinstance(value, list | tuple) else [value]
            found.append(self.test(str(name), "in", listed, f"{path}.{name}", f"{path}.{name}"))
        conditions = tuple(condition for condition in found if condition is not None)
        return conditions[0] if len(conditions) == 1 else FilterGroup("all", conditions)

    def condition(self, data: Mapping[str, Any], path: str) -> AttributeCondition | None:
        name = data["attribute"]
        if not isinstance(name, str) or not name:
            return self.add_problem(f"{path}.attribute", f"must be the name of an attribute; got {name!r}")
        if "operator" in data and "op" in data:
            return self.add_problem(f"{path}.op", "'op' is an alias of 'operator'; use only one of them")
        key = "op" if "op" in data else "operator"
        given = data.get(key, "==")
        operator = OPERATOR_ALIASES.get(given, given) if isinstance(given, str) else given
        if operator not in OPERATORS:
            return self.add_problem(f"{path}.{key}", f"unknown operator {given!r}; allowed: {', '.join(OPERATORS)}")
        if "value" not in data and operator != "known":
            return self.add_problem(f"{path}.value", "is required")
        return self.test(name, str(operator), data.get("value", True), path, f"{path}.value")

    def test(self, name: str, op: str, value: Any, path: str, value_path: str) -> AttributeCondition | None:
        self.tests += 1
        if op in ("in", "contains", "between"):
            listed = [value] if op == "contains" and isinstance(value, str) else value
            if not isinstance(listed, list | tuple) or not listed or not all(map(_is_value, listed)):
                return self.add_problem(
                    value_path,
                    f"'{op}' takes a list of texts of at most {MAX_TEXT} characters, finite numbers or true/false; "
                    f"got {shown(value)}",
                )
            self.values += len(listed)
            if op == "between" and (
                len(listed) != 2 or kinds_of(listed) not in ({"number"}, {"text"}) or listed[0] > listed[1]
            ):
                return self.add_problem(
                    value_path,
                    f"'between' takes [from, to], two numbers or two texts in ascending order; got {shown(value)}",
                )
            return AttributeCondition(name, op, tuple(listed), path)
        if op == "known" and not isinstance(value, bool):
            return self.add_problem(value_path, f"'known' takes true or false; got {shown(value)}")
        if not _is_value(value):
            return self.add_problem(
                value_path,
                f"'{op}' takes a text of at most {MAX_TEXT} characters, a finite number or true/false; "
                f"got {shown(value)}",
            )
        return AttributeCondition(name, op, value, path)


def _is_value(value: Any) -> bool:
    if isinstance(value, bool):
        return True
    if isinstance(value, str):
        return len(value) <= MAX_TEXT
    return isinstance(value, int | float) and abs(value) < 1e300  # a JSON integer may exceed every float


def shown(value: Any) -> str:
    """Format a value for an error message, in at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def kinds_of(values: Sequence[Scalar]) -> set[str]:
    """Return the kinds of the values: text, number, boolean."""
    return {
        "boolean" if isinstance(value, bool) else "text" if isinstance(value, str) else "number" for value in values
    }


def conditions(given: FilterExpression | None) -> Iterator[AttributeCondition]:
    """Iterate over the comparisons of a filter."""
    if isinstance(given, AttributeCondition):
        yield given
    elif given is not None:
        for part in given.filters:
            yield from conditions(part)
