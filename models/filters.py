"""Filters over items: and/or/not over comparisons of item attributes, as data; answered as a mask over the catalogue.

The language is that of segment rules (`features.profiles.rules`) with ``attribute`` in place of ``feature``:

``{"all": [filter, …]}`` · ``{"any": [filter, …]}`` · ``{"not": filter}`` · ``{"attribute": name, "operator": op, "value": v}``;
operators ``== != < <= > >= in known`` as there, and ``between`` (both ends count) and ``contains`` (one of the parts of a text joined by
``|``). ``and``, ``or``, ``op`` and the words of `WORDS` say the same. ``{"brand": ["A", "B"], "price": 2}`` is short for all of them, each
``in``. A value that is not known passes no comparison but ``known`` false. A category is met by itself and by everything below it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from features.compute.algebra import Operator, Scalar
from features.profiles.rules import MAX_DEPTH, MAX_TESTS
from qianmian.errors import InvalidRequest

MAX_VALUES = 10_000  # in all lists of one filter together
MAX_PROBLEMS = 10
KEPT_VALUES = 200  # a filter of more values is not kept: it may be a megabyte itself
MASK_BYTES = 64_000_000  # of masks kept for filters that were asked before
OPERATORS: tuple[str, ...] = (*get_args(Operator), "between", "contains")
WORDS = {"eq": "==", "ne": "!=", "lt": "<", "lte": "<=", "gt": ">", "gte": ">=", "range": "between", "exists": "known"}
GROUPS = {"all": "all", "any": "any", "not": "not", "and": "all", "or": "any"}
KEYS = ("attribute", "operator", "op", "value", *GROUPS)
SEPARATOR = "|"
PATHS = ("category",)  # attributes whose value is a path; what lies below a value belongs to it
ITEM_ID = "item_id"
Kind = Literal["text", "number", "boolean"]
Mask = NDArray[np.bool_]

_ORDERED: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Condition:
    """One comparison of an attribute; `path` is where it stands in what was given, for errors."""

    attribute: str
    operator: str
    value: Scalar | tuple[Scalar, ...]
    path: str = field(default="", compare=False)


@dataclass(frozen=True)
class Group:
    """Filters together: all of them, any of them, or (one) not."""

    how: Literal["all", "any", "not"]
    filters: tuple[Filter, ...]


Filter = Condition | Group
Problem = tuple[str, str]  # where, what


def parse(data: Any, where: str = "filters") -> Filter | None:
    """A filter from its data; None for none (``{}``).

    Raises
    ------
    InvalidRequest
        All mistakes together, each with the path to it; `field` is the first one's.

    Examples
    --------
    >>> parse({"brand": ["A", "B"]})
    Condition(attribute='brand', operator='in', value=('A', 'B'), path='filters.brand')
    >>> parse({"and": [{"attribute": "price", "op": "about", "value": 2}]})
    Traceback (most recent call last):
    ...
    qianmian.errors.InvalidRequest: filters.and[0].op: unknown operator 'about'; allowed: ==, !=, <, <=, >, >=, in, known, between, contains
    """
    if data is None or data == {}:
        return None
    reader = _Reader()
    found = reader.filter(data, where, 0)
    if reader.tests > MAX_TESTS:
        reader.problems.append((where, f"{reader.tests} comparisons; at most {MAX_TESTS}"))
    if reader.values > MAX_VALUES:
        reader.problems.append((where, f"{reader.values} values; at most {MAX_VALUES}"))
    refuse(reader.problems)
    return found


def refuse(problems: Sequence[Problem]) -> None:
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


class _Reader:
    """Reads a filter and gathers what is wrong with it."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.tests = 0
        self.values = 0

    def wrong(self, path: str, text: str) -> Condition | None:
        """Note it; None, so that a reader can end with it."""
        self.problems.append((path, text))
        return None

    def filter(self, data: Any, path: str, depth: int) -> Filter | None:
        if depth > MAX_DEPTH:
            return self.wrong(path, f"nested deeper than {MAX_DEPTH}")
        if not isinstance(data, Mapping):
            return self.wrong(path, f"a filter is an object; got {type(data).__name__}")
        heads = [key for key in ("attribute", *GROUPS) if key in data]
        if not heads:
            return self.short(data, path)
        if len(heads) > 1:
            return self.wrong(path, f"exactly one of {', '.join(heads)} at a time")
        head = heads[0]
        allowed = ("attribute", "operator", "op", "value") if head == "attribute" else (head,)
        for key in data:
            if key not in allowed:
                self.wrong(f"{path}.{key}", f"unknown; allowed beside {head}: {', '.join(allowed[1:]) or 'nothing'}")
        if head == "attribute":
            return self.condition(data, path)
        inner = [data[head]] if head == "not" else data[head]
        if not isinstance(inner, Sequence) or isinstance(inner, str) or not inner:
            return self.wrong(f"{path}.{head}", "takes a list of filters that is not empty")
        if self.tests > MAX_TESTS:
            return None
        places = [f"{path}.{head}" if head == "not" else f"{path}.{head}[{number}]" for number in range(len(inner))]
        filters = [self.filter(part, place, depth + 1) for part, place in zip(inner, places, strict=True)]
        return Group(GROUPS[head], tuple(one for one in filters if one is not None))  # type: ignore[arg-type]

    def short(self, data: Mapping[str, Any], path: str) -> Filter | None:
        """``{"brand": "A", "category": ["B", "C"]}``: all of them, each one of its values."""
        if not data:
            return self.wrong(path, "an empty filter says nothing; leave it out")
        found = []
        for name, value in data.items():
            listed = value if isinstance(value, list | tuple) else [value]
            found.append(self.test(str(name), "in", listed, f"{path}.{name}", f"{path}.{name}"))
        conditions = tuple(one for one in found if one is not None)
        return conditions[0] if len(conditions) == 1 else Group("all", conditions)

    def condition(self, data: Mapping[str, Any], path: str) -> Condition | None:
        name = data["attribute"]
        if not isinstance(name, str) or not name:
            return self.wrong(f"{path}.attribute", f"the name of an attribute; got {name!r}")
        if "operator" in data and "op" in data:
            return self.wrong(f"{path}.op", "operator and op are the same; give one")
        key = "op" if "op" in data else "operator"
        given = data.get(key, "==")
        said = WORDS.get(given, given) if isinstance(given, str) else given
        if said not in OPERATORS:
            return self.wrong(f"{path}.{key}", f"unknown operator {given!r}; allowed: {', '.join(OPERATORS)}")
        if "value" not in data and said != "known":
            return self.wrong(f"{path}.value", "is required")
        return self.test(name, str(said), data.get("value", True), path, f"{path}.value")

    def test(self, name: str, op: str, value: Any, path: str, value_path: str) -> Condition | None:
        self.tests += 1
        if op in ("in", "contains", "between"):
            listed = [value] if op == "contains" and isinstance(value, str) else value
            if not isinstance(listed, list | tuple) or not listed or not all(map(_is_value, listed)):
                return self.wrong(
                    value_path, f"'{op}' takes a list of texts, finite numbers or true/false; got {_shown(value)}"
                )
            self.values += len(listed)
            if op == "between" and (
                len(listed) != 2 or _kinds(listed) not in ({"number"}, {"text"}) or listed[0] > listed[1]
            ):
                return self.wrong(
                    value_path, f"'between' takes [from, to], two numbers or two texts in order; got {_shown(value)}"
                )
            return Condition(name, op, tuple(listed), path)
        if op == "known" and not isinstance(value, bool):
            return self.wrong(value_path, f"'known' takes true or false; got {_shown(value)}")
        if not _is_value(value):
            return self.wrong(value_path, f"'{op}' takes a text, a finite number or true/false; got {_shown(value)}")
        return Condition(name, op, value, path)


def _is_value(value: Any) -> bool:
    if isinstance(value, bool | str):
        return True
    return isinstance(value, int | float) and abs(value) < 1e300  # an integer of JSON may be longer than any float


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _kinds(values: Sequence[Scalar]) -> set[str]:
    return {
        "boolean" if isinstance(value, bool) else "text" if isinstance(value, str) else "number" for value in values
    }


def conditions(given: Filter | None) -> Iterator[Condition]:
    """Every comparison of a filter."""
    if isinstance(given, Condition):
        yield given
    elif given is not None:
        for part in given.filters:
            yield from conditions(part)


class ItemTable:
    """The attributes of all items, ready to be filtered and grouped by.

    Parameters
    ----------
    attributes : mapping of str to ndarray, each (n_items,)
        As `TrainingSet.item_attributes`: text ('' unknown), float (NaN unknown), bool or int8 (−1 unknown).
    item_ids : sequence of str, (n_items,)
        Becomes the attribute ``item_id``.

    Examples
    --------
    >>> table = ItemTable({"price": np.array([1.0, 3.0, np.nan]), "brand": np.array(["A", "B", ""])}, ["x", "y", "z"])
    >>> table.mask(parse({"not": {"attribute": "price", "op": ">", "value": 2}})).tolist()
    [True, False, True]
    """

    def __init__(self, attributes: Mapping[str, NDArray[Any]], item_ids: Sequence[str]) -> None:
        self._columns = {name: np.asarray(values) for name, values in attributes.items()}
        self._columns.setdefault(ITEM_ID, np.asarray(item_ids, dtype=np.str_))
        self._n_items = len(item_ids)
        self._texts: dict[str, tuple[NDArray[np.str_], NDArray[np.int64]]] = {}
        self._mask = lru_cache(maxsize=int(np.clip(MASK_BYTES // max(self._n_items, 1), 4, 256)))(self._evaluated)
        self._codes = lru_cache(maxsize=16)(self._coded)

    @property
    def names(self) -> tuple[str, ...]:
        """The attributes there are, sorted."""
        return tuple(sorted(self._columns))

    def kind(self, name: str) -> Kind:
        """What its values are."""
        letter = self._columns[name].dtype.kind
        return "text" if letter in "USO" else "number" if letter == "f" else "boolean"

    def warm(self) -> None:
        """Make every lookup now."""
        for name in self._columns:
            if self.kind(name) == "text":
                self.distinct(name)

    def distinct(self, name: str) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
        """The distinct values of a text attribute, and which of them each item has, (n_items,)."""
        if name == ITEM_ID:  # each its own
            return self._columns[name].astype(np.str_, copy=False), np.arange(self._n_items)
        if name not in self._texts:
            # a category has hundreds of values and a catalogue tens of thousands of items: match the values, not the items
            values, codes = np.unique(self._columns[name].astype(np.str_), return_inverse=True)
            self._texts[name] = (values, codes.astype(np.int64))
        return self._texts[name]

    def check(self, given: Filter | None) -> None:
        """Every comparison can be answered here.

        Raises
        ------
        InvalidRequest
            It names an attribute there is not, or compares one with a value of another kind; all of it, the first in `field`.
        """
        refuse([problem for condition in conditions(given) for problem in self._problems(condition)])

    def _problems(self, condition: Condition) -> Iterator[Problem]:
        name, op, value = condition.attribute, condition.operator, condition.value
        if name not in self._columns:
            yield condition.path, f"unknown attribute '{name}'; allowed: {', '.join(self.names)}"
            return
        kind = self.kind(name)
        if op == "known":
            return
        if (kind != "text" and op == "contains") or (kind == "boolean" and op not in ("==", "!=", "in")):
            yield condition.path, f"'{op}' cannot be asked of '{name}', which is {_ARTICLE[kind]}"
        elif _kinds(value if isinstance(value, tuple) else (value,)) != {kind}:
            yield (
                condition.path,
                f"'{name}' is {_ARTICLE[kind]} and is compared with {_shown(list(value) if isinstance(value, tuple) else value)}",
            )

    def mask(self, given: Filter) -> Mask:
        """Which items pass, (n_items,), not to be written to; a filter asked before is answered from memory.

        The filter must have passed `check`.
        """
        values = sum(len(one.value) if isinstance(one.value, tuple) else 1 for one in conditions(given))
        return self._mask(given) if values <= KEPT_VALUES else self._evaluated(given)

    def codes(self, name: str, depth: int | None = None) -> NDArray[np.int64]:
        """Which group each item is in by an attribute, −1 where it is not known, (n_items,).

        Parameters
        ----------
        depth : int, optional
            Only so many levels of a path: 1 for ``GROCERY`` of ``GROCERY/SOUP``.
        """
        return self._codes(name, depth)

    def _coded(self, name: str, depth: int | None) -> NDArray[np.int64]:
        if self.kind(name) == "boolean":
            return self._columns[name].astype(np.int64)
        values, codes = self.distinct(name)
        groups = np.arange(len(values))
        if depth is not None:
            heads = np.asarray(["/".join(value.split("/")[:depth]) for value in values.tolist()], dtype=np.str_)
            groups = np.unique(heads, return_inverse=True)[1]
        found: NDArray[np.int64] = np.where(values != "", groups, -1)[codes].astype(np.int64)
        found.flags.writeable = False
        return found

    def _evaluated(self, given: Filter) -> Mask:
        if isinstance(given, Group):
            parts = [self._evaluated(part) for part in given.filters]
            found = (
                ~parts[0]
                if given.how == "not"
                else reduce(operator.and_ if given.how == "all" else operator.or_, parts)
            )
        elif self.kind(given.attribute) == "text":
            values, codes = self.distinct(given.attribute)
            found = _texts_passing(values, given)[codes]
        else:
            found = _numbers_passing(self._columns[given.attribute], given)
        found.flags.writeable = False
        return found


_ARTICLE: dict[Kind, str] = {"text": "a text", "number": "a number", "boolean": "true or false"}


def _texts_passing(values: NDArray[np.str_], condition: Condition) -> Mask:
    """Which of the distinct texts pass; '' is not known."""
    op, known = condition.operator, values != ""
    if op == "known":
        return np.asarray(known == condition.value)
    asked = condition.value if isinstance(condition.value, tuple) else (condition.value,)
    wanted = np.asarray([str(value) for value in asked], dtype=np.str_)
    if op == "contains":
        joined = np.char.add(np.char.add(SEPARATOR, values), SEPARATOR)
        passing = reduce(
            operator.or_, [np.char.find(joined, f"{SEPARATOR}{value}{SEPARATOR}") >= 0 for value in wanted.tolist()]
        )
    else:
        passing = _compared(op, values, wanted)
        if condition.attribute in PATHS and op in ("==", "!=", "in"):
            below = reduce(operator.or_, [np.char.startswith(values, value + "/") for value in wanted.tolist()])
            passing = passing & ~below if op == "!=" else passing | below
    return np.asarray(known & passing)


def _numbers_passing(values: NDArray[Any], condition: Condition) -> Mask:
    """Which of the numbers (NaN not known), or of true, false and −1, pass."""
    op, known = condition.operator, ~np.isnan(values) if values.dtype.kind == "f" else values >= 0
    if op == "known":
        return np.asarray(known == condition.value)
    asked = condition.value if isinstance(condition.value, tuple) else (condition.value,)
    with np.errstate(over="ignore"):  # beyond float32 is infinite, which compares as it should
        wanted = np.asarray([float(value) for value in asked]).astype(values.dtype)
    return np.asarray(known & _compared(op, values, wanted))


def _compared(op: str, values: NDArray[Any], wanted: NDArray[Any]) -> Mask:
    if op in ("==", "in"):
        return np.isin(values, wanted)
    if op == "!=":
        return ~np.isin(values, wanted)
    if op == "between":
        return np.asarray((values >= wanted[0]) & (values <= wanted[1]))
    return np.asarray(_ORDERED[op](values, wanted[0]))
