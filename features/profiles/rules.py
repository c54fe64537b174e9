"""Segment rules: and/or/not over comparisons of features and tags, as data.

A rule is evaluated in three equivalent ways: as a predicate in the engine (`features.profiles.segments.members`), over
columns of a profile build (`mask`), and for one customer from online values (`matches`). Rules are data and are never
evaluated as code.

``{"all": [rule, …]}`` · ``{"any": [rule, …]}`` · ``{"not": rule}`` · ``{"feature": name, "operator": op, "value": v}``
· ``{"tag": name, "operator": op, "value": v}``; operators ``== != < <= > >= in known``. An unknown value passes only
``known`` false.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from features.compute.algebra import COMPARISONS, Feature, Operator, Scalar
from qianmian.errors import ConfigError

MAX_DEPTH, MAX_COMPARISONS = 20, 500  # limits for rules received over HTTP
TextFlags = Mapping[str, bool]  # name → whether its values are text

_SCALAR_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    **COMPARISONS,
    "in": lambda value, allowed: value in allowed,
}


@dataclass(frozen=True)
class RuleComparison:
    """One comparison of a feature or a tag."""

    kind: Literal["feature", "tag"]
    name: str
    operator: Operator
    value: Scalar | tuple[Scalar, ...]


@dataclass(frozen=True)
class RuleGroup:
    """A combination of rules: all, any, or the negation of one rule."""

    combinator: Literal["all", "any", "not"]
    rules: tuple[Rule, ...]


Rule = RuleComparison | RuleGroup


def parse(data: Any, where: str = "rule") -> Rule:
    """Parse a rule.

    Parameters
    ----------
    data : object
        Rule as parsed JSON or YAML.
    where : str
        Name of the rule in error messages.

    Raises
    ------
    ConfigError
        The rule is invalid; the error lists all mistakes with their paths.

    Examples
    --------
    >>> frequent = {"feature": "orders_28d", "operator": ">=", "value": 2}
    >>> rule = parse({"all": [frequent, {"not": {"tag": "price_band", "operator": "==", "value": "budget"}}]})
    >>> matches(rule, {"orders_28d": 3.0}, {"price_band": "premium"})
    True
    """
    problems: list[str] = []
    count = [0]
    rule = _parse(data, where, problems, 0, count)
    if count[0] > MAX_COMPARISONS:
        problems.append(f"{where}: has {count[0]} comparisons; allowed: at most {MAX_COMPARISONS}")
    if problems or rule is None:
        raise ConfigError(problems, where=where)
    return rule


def _parse(data: Any, path: str, problems: list[str], depth: int, count: list[int]) -> Rule | None:
    def add_problem(text: str) -> Rule | None:
        problems.append(f"{path}: {text}")
        return None

    if depth > MAX_DEPTH:
        return add_problem(f"is nested deeper than {MAX_DEPTH} levels")
    if not isinstance(data, Mapping):
        return add_problem(f"a rule must be a mapping with all, any, not, feature or tag; got {type(data).__name__}")
    keywords = [key for key in ("all", "any", "not", "feature", "tag") if key in data]
    if len(keywords) != 1:
        got = ", ".join(keywords) or ", ".join(map(str, data)) or "nothing"
        return add_problem(f"exactly one of all, any, not, feature, tag is required; got {got}")
    head = keywords[0]
    allowed = {head} if head in ("all", "any", "not") else {head, "operator", "value"}
    if unknown := sorted(str(key) for key in data if key not in allowed):
        add_problem(f"unknown key {', '.join(unknown)}; allowed: {', '.join(sorted(allowed))}")
    if head in ("feature", "tag"):
        count[0] += 1
        return _parse_comparison(head, data, add_problem)  # type: ignore[arg-type]
    inner = data[head] if head != "not" else [data[head]]
    if not isinstance(inner, Sequence) or isinstance(inner, str) or not inner:
        return add_problem(f"'{head}' must be a non-empty list of rules")
    if count[0] > MAX_COMPARISONS:  # refused already: the rest is not read
        return None
    paths = [f"{path}.{head}" if head == "not" else f"{path}.{head}[{number}]" for number in range(len(inner))]
    rules = [_parse(part, place, problems, depth + 1, count) for part, place in zip(inner, paths, strict=True)]
    return RuleGroup(head, tuple(rule for rule in rules if rule is not None))  # type: ignore[arg-type]


def _parse_comparison(
    kind: Literal["feature", "tag"], data: Mapping[str, Any], add_problem: Callable[[str], object]
) -> RuleComparison | None:
    name, op, value = data[kind], data.get("operator", "=="), data.get("value")
    if not isinstance(name, str) or not name:
        add_problem(f"'{kind}' must be a name; got {name!r}")
    if op not in get_args(Operator):
        add_problem(f"unknown operator {op!r}; allowed: {', '.join(get_args(Operator))}")
        return None
    if op == "in":
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        if not is_list or not value or not all(isinstance(v, Scalar) for v in value):
            add_problem(f"'in' requires a non-empty list of values; got {value!r}")
            return None
        return RuleComparison(kind, str(name), op, tuple(value))
    if op == "known":
        value = True if value is None else value
        if not isinstance(value, bool):
            add_problem(f"'known' requires true or false; got {value!r}")
    elif not isinstance(value, Scalar) or (isinstance(value, float) and not np.isfinite(value)):
        add_problem(f"'{op}' requires a text, a finite number or true/false; got {value!r}")
    return RuleComparison(kind, str(name), op, value if isinstance(value, Scalar) else False)


def comparisons(rule: Rule) -> Iterator[RuleComparison]:
    """All comparisons of a rule."""
    if isinstance(rule, RuleComparison):
        yield rule
    else:
        for part in rule.rules:
            yield from comparisons(part)


def referenced_names(rule: Rule, kind: Literal["feature", "tag"]) -> tuple[str, ...]:
    """Names of the features or tags a rule refers to, without duplicates."""
    return tuple(dict.fromkeys(test.name for test in comparisons(rule) if test.kind == kind))


def rule_problems(rule: Rule, features: TextFlags, tags: Iterable[str]) -> list[str]:
    """Reasons why a rule cannot be evaluated: undeclared names, comparisons of a number with a text."""
    found, tag_names = [], set(tags)
    for test in comparisons(rule):
        if test.kind == "tag":
            found += [] if test.name in tag_names else [f"unknown tag '{test.name}'"]
        elif test.name not in features:
            found.append(f"unknown feature '{test.name}'")
        elif test.operator != "known":
            allowed_values = test.value if isinstance(test.value, tuple) else (test.value,)
            if any(isinstance(value, str) != features[test.name] for value in allowed_values):
                kind = "a text" if features[test.name] else "a number"
                found.append(f"feature '{test.name}' is {kind} and cannot be compared with {test.value!r}")
    return list(dict.fromkeys(found))


def text_features(features: Sequence[Feature]) -> dict[str, bool]:
    """Feature name → whether the feature is text, for `rule_problems`."""
    return {feature.name: feature.categorical for feature in features}


# ---- evaluation ------------------------------------------------------------------------------------------------------


def matches(rule: Rule, features: Mapping[str, Any], tags: Mapping[str, Any] | None = None) -> bool:
    """Whether one customer is in the segment, from values by name; missing values and None are unknown."""
    if isinstance(rule, RuleGroup):
        parts = (matches(part, features, tags) for part in rule.rules)
        return all(parts) if rule.combinator == "all" else any(parts) if rule.combinator == "any" else not next(parts)
    value = (features if rule.kind == "feature" else tags or {}).get(rule.name)
    return _comparison_holds(rule, value)


def _comparison_holds(test: RuleComparison, value: Any) -> bool:
    known = value is not None and not (test.kind == "tag" and value == "")
    if test.operator == "known":
        return known == test.value
    if not known:
        return False
    allowed_values = test.value if isinstance(test.value, tuple) else (test.value,)
    if test.operator not in ("==", "!=", "in") and any(
        isinstance(value, str) != isinstance(a, str) for a in allowed_values
    ):
        return False  # texts and numbers have no common order
    return bool(_SCALAR_OPERATORS[test.operator](value, test.value))


def mask(rule: Rule, features: Mapping[str, Any], tags: Mapping[str, Sequence[Any]] | None = None) -> NDArray[np.bool_]:
    """Boolean mask of the customers in the segment, shape (n,), from columns by name, each of length n."""
    if isinstance(rule, RuleGroup):
        parts = [mask(part, features, tags) for part in rule.rules]
        if rule.combinator == "not":
            return ~parts[0]
        return reduce(operator.and_ if rule.combinator == "all" else operator.or_, parts)
    column = (features if rule.kind == "feature" else tags or {})[rule.name]
    values = np.asarray(column)
    if rule.kind == "feature" and values.dtype.kind == "f" and rule.operator != "known":
        if rule.operator == "in":
            return np.isin(values, np.asarray(rule.value, dtype=np.float64))
        return np.asarray(_SCALAR_OPERATORS[rule.operator](values, rule.value), dtype=np.bool_)
    return np.fromiter((_comparison_holds(rule, value) for value in values.tolist()), dtype=np.bool_, count=len(values))
