"""What a tag is, and how tags are computed for any number of customers at once.

A tag is made by *rule* (from the customer's own features), by *statistic* (from where the customer stands among all, so what was
learnt from all of them is kept) or by *model* (published by a training job). Nothing here reads a disk or a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.compute.algebra import PROFILE_PREFIX, Feature
from features.definitions import FEATURES
from features.profiles.rules import mask, parse, referenced_names, rule_problems, text_features
from qianmian.errors import ConfigError, did_you_mean
from qianmian.schema import TAG_CATEGORIES
from qianmian.settings import Settings

Columns = Mapping[str, NDArray[Any]]
TagValue = str | float | bool | None
Fitted = dict[str, list[float]]
Kind = Literal["static", "dynamic"]
How = Literal["rule", "statistic", "model"]
VALUE_DIGITS = 4


@dataclass(frozen=True)
class TagContext:
    """What a tag's functions are told besides the columns.

    Attributes
    ----------
    fitted : dict of str to list of float
        What `Tag.fit` learnt from all customers; empty for a rule.
    """

    settings: Settings = field(default_factory=Settings)
    fitted: Fitted = field(default_factory=dict)


@dataclass(frozen=True)
class Tag:
    """One declared tag.

    Attributes
    ----------
    category : str
        One of `qianmian.schema.TAG_CATEGORIES`.
    required_features : tuple of str
        Features it is made of; a tag whose features are off is absent.
    rule : callable
        Columns of those features, each (n,), and what is `TagContext` → values (n,), None, '' or NaN where unknown. None for a model's tag.
    optional_features : tuple of str
        More features, taken where they are on. A tag with `optional_features` and no `required_features` is absent when all of them are off.
    kind : str
        `static` tags hardly ever change for one customer; `dynamic` ones follow what the customer does.
    how : str
        `rule`, `statistic` or `model`.
    fit : callable or None
        Of a statistic: columns of all customers → what `rule` finds in `given.fitted`, so that one customer alone gets the same value.
    values : tuple of str
        The closed vocabulary; empty for numbers, yes/no and open text.
    ttl_days : int
        A value older than this is stale.
    """

    name: str
    category: str
    description: str
    required_features: tuple[str, ...] = ()
    rule: Callable[[Columns, TagContext], NDArray[Any]] | None = None
    optional_features: tuple[str, ...] = ()
    kind: Kind = "dynamic"
    how: How = "rule"
    fit: Callable[[Columns, TagContext], Fitted] | None = None
    values: tuple[str, ...] = ()
    owner: str = "profile"
    ttl_days: int = 35

    @property
    def inputs(self) -> tuple[str, ...]:
        """Every feature it may be made of."""
        return (*self.required_features, *self.optional_features)

    def supported(self, present: Iterable[str]) -> bool:
        """Whether these features are enough to make it of."""
        there = set(present)
        return there.issuperset(self.required_features) and (
            bool(self.required_features) or bool(there.intersection(self.optional_features))
        )


def check(tags: Sequence[Tag], features: Iterable[str], where: str = "the tag declarations") -> tuple[Tag, ...]:
    """The tags themselves, when every declaration makes sense.

    Parameters
    ----------
    features : iterable of str
        Names a tag may be made of; any profile attribute (``profile_…``) is one.

    Raises
    ------
    ConfigError
        All mistakes together: doubled names, unknown categories, features that do not exist, a statistic without a fit.

    Examples
    --------
    >>> check([Tag("vip", "value", "pays much", ("amout_28d",), lambda c, _: c["amout_28d"] > 9)], ["amount_28d"])
    Traceback (most recent call last):
    ...
    qianmian.errors.ConfigError: the tag declarations: 2 mistake(s):
      - vip: unknown category 'value'; allowed: basic, behaviour, transaction, interest, lifecycle
      - vip: there is no feature 'amout_28d' (did you mean amount_28d?)
    . Fix: correct the tag declarations and run the command again
    """
    known, seen, problems = sorted(set(features)), set[str](), list[str]()
    for tag in tags:
        problems += [f"{tag.name or '(no name)'}: {problem}" for problem in _declaration_problems(tag, seen, known)]
        seen.add(tag.name)
    if problems:
        raise ConfigError(problems, where=where)
    return tuple(tags)


def _declaration_problems(tag: Tag, seen: set[str], known: list[str]) -> Iterator[str]:
    if not tag.name:
        yield "needs a name"
    if tag.name in seen:
        yield "declared twice"
    if tag.category not in TAG_CATEGORIES:
        yield f"unknown category '{tag.category}'; allowed: {', '.join(TAG_CATEGORIES)}"
    if tag.kind not in get_args(Kind):
        yield f"unknown kind '{tag.kind}'; allowed: {', '.join(get_args(Kind))}"
    if tag.how not in get_args(How):
        yield f"unknown way to make it '{tag.how}'; allowed: {', '.join(get_args(How))}"
    if not tag.description:
        yield "needs a description"
    if tag.ttl_days < 1:
        yield f"a time to live of {tag.ttl_days} days makes no sense"
    if tag.how == "model":
        if tag.inputs or tag.rule or tag.fit:
            yield "a model's tag has no features, rule or fit of its own: its values are published"
        return
    if tag.rule is None or not tag.inputs:
        yield "needs a rule and the features it is made of"
    if (tag.how == "statistic") != (tag.fit is not None):
        yield "a statistic has a fit, and only a statistic has one"
    for name in tag.inputs:
        if name not in known and not name.startswith(PROFILE_PREFIX):
            yield f"there is no feature '{name}'{did_you_mean(name, known)}"


def tag_values(
    table: pa.Table, tags: Sequence[Tag], settings: Settings | None = None, fitted: Mapping[str, Fitted] | None = None
) -> dict[str, list[TagValue]]:
    """Values of each tag for every row of a built profile table; tags the table cannot support, and models' tags, are left out.

    Parameters
    ----------
    fitted : mapping of str to dict, optional
        What the statistics learnt from all customers (`fit_tags`). Without it they are learnt from the rows of `table` itself.
    """
    chosen = settings or Settings()
    columns = TagColumns(table)
    fitted_by_tag = fit_tags(table, tags, chosen) if fitted is None else fitted
    values: dict[str, list[TagValue]] = {}
    for tag in tags:
        if (
            tag.rule is not None
            and tag.supported(table.column_names)
            and (tag.fit is None or tag.name in fitted_by_tag)
        ):
            made = tag.rule(columns.of(tag), TagContext(chosen, dict(fitted_by_tag.get(tag.name, {}))))
            values[tag.name] = clean_values(np.asarray(made))
    return values


def fit_tags(table: pa.Table, tags: Sequence[Tag], settings: Settings | None = None) -> dict[str, Fitted]:
    """What each statistic learns from the customers of `table`, JSON-ready."""
    columns = TagColumns(table)
    context = TagContext(settings or Settings())
    return {
        tag.name: tag.fit(columns.of(tag), context)
        for tag in tags
        if tag.fit is not None and tag.supported(table.column_names)
    }


class TagColumns:
    """Columns of a table as arrays, each converted once."""

    def __init__(self, table: pa.Table) -> None:
        self.table, self._cache = table, dict[str, NDArray[Any]]()

    def of(self, tag: Tag) -> dict[str, NDArray[Any]]:
        """The columns of one tag that are there."""
        return {name: self[name] for name in tag.inputs if name in self.table.column_names}

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._cache:
            column = self.table[name]
            numeric = pa.types.is_floating(column.type) and not column.null_count
            self._cache[name] = column.to_numpy() if numeric else np.asarray(column.to_pylist())
        return self._cache[name]


def clean_value(value: Any) -> TagValue:
    """A value as JSON and Parquet take it; '' and numbers that are none are unknown."""
    found = value.item() if isinstance(value, np.generic) else value
    if found == "" or (isinstance(found, float) and not np.isfinite(found)):
        return None
    return round(found, VALUE_DIGITS) if isinstance(found, float) else found


def clean_values(values: NDArray[Any]) -> list[TagValue]:
    """`clean_value` of every value of an array, by the array where its kind allows."""
    if values.dtype.kind == "U":
        texts: list[TagValue] = values.tolist()
        return [text or None for text in texts]
    if values.dtype.kind == "b":
        return list(values.tolist())
    return [clean_value(value) for value in values.tolist()]


# ---- helpers of declarations -----------------------------------------------------------------------------------------


def yes_no(flags: NDArray[np.bool_], known: NDArray[np.bool_] | bool = True) -> NDArray[Any]:
    """True and False where it is known, None elsewhere.

    Examples
    --------
    >>> yes_no(np.array([True, False, True]), np.array([True, True, False])).tolist()
    [True, False, None]
    """
    result = flags.astype(object)
    result[~np.broadcast_to(known, flags.shape)] = None
    return result


def quantile_edges(values: NDArray[Any], parts: int) -> list[float]:
    """The inner edges that cut the values above zero into equal parts; empty where none is above zero."""
    positive = values[values > 0]
    return [float(edge) for edge in np.quantile(positive, np.linspace(0, 1, parts + 1)[1:-1])] if len(positive) else []


def quantile_bin(values: NDArray[Any], edges: Sequence[float]) -> NDArray[np.int64]:
    """Which part each value falls into, lowest 0; −1 for values that are not above zero."""
    return np.where(values > 0, np.searchsorted(np.asarray(edges), values, side="right"), -1)


def quantile_tag(
    name: str, category: str, description: str, column: str, names: tuple[str, ...], *, owner: str = "profile"
) -> Tag:
    """A statistic: equal parts of the customers with a value above zero, lowest first; unknown for the others."""

    def rule(columns: Columns, context: TagContext) -> NDArray[Any]:
        return np.asarray([*names, ""])[quantile_bin(columns[column], context.fitted["edges"])]

    def fit(columns: Columns, _: TagContext) -> Fitted:
        return {"edges": quantile_edges(columns[column], len(names))}

    return Tag(name, category, description, (column,), rule, how="statistic", fit=fit, values=names, owner=owner)


def tag_from_rule(
    name: str,
    category: str,
    description: str,
    rule: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    values: Sequence[str | float | bool] = (True,),
    owner: str = "profile",
    ttl_days: int = 35,
    *,
    default: TagValue = None,
    kind: Kind = "dynamic",
    features: Sequence[Feature] = FEATURES,
) -> Tag:
    """A tag declared by data: the value of the first rule a customer passes, else `default`.

    Parameters
    ----------
    rule : mapping, or sequence of mapping
        Segment rules (`features.profiles.rules`) over features, in order.
    values : sequence
        One a rule.
    default : str, float, bool or None
        For who passes none; None says unknown.
    features : sequence of Feature
        What a rule may ask about; default: the features of the house.

    Raises
    ------
    ConfigError
        All mistakes together: of the rules, and of the declaration.

    Examples
    --------
    >>> tag = tag_from_rule("stocks_up", "behaviour", "large baskets, seldom", {"all": [
    ...     {"feature": "basket_lines_mean", "operator": ">", "value": 20}, {"feature": "orders_28d", "operator": "<", "value": 2}]}, default=False)
    >>> tag_values(pa.table({"basket_lines_mean": [30.0, 30.0], "orders_28d": [1.0, 5.0]}), [tag])
    {'stocks_up': [True, False]}
    """
    rules = [rule] if isinstance(rule, Mapping) else list(rule)
    problems = (
        []
        if rules and len(rules) == len(values)
        else [f"{len(rules)} rules and {len(values)} values: there must be one each"]
    )
    parsed = []
    for number, data in enumerate(rules):
        try:
            parsed.append(parse(data, f"rule {number + 1}"))
        except ConfigError as error:
            problems += error.problems
    inputs = tuple(
        dict.fromkeys(feature for parsed_rule in parsed for feature in referenced_names(parsed_rule, "feature"))
    )
    known = text_features(features)
    # a source's own attributes may be of either kind: what they are shows when they are read
    for parsed_rule in parsed:
        problems += [
            f"a tag is made of features, not of the tag '{other}'" for other in referenced_names(parsed_rule, "tag")
        ]
        problems += [
            problem
            for problem in rule_problems(parsed_rule, known, referenced_names(parsed_rule, "tag"))
            if not problem.startswith(("there is no feature", f"feature '{PROFILE_PREFIX}"))
        ]

    def made(columns: Columns, _: TagContext) -> NDArray[Any]:
        found = np.full(len(next(iter(columns.values()))), default, dtype=object)
        for parsed_rule, value in reversed(list(zip(parsed, values, strict=True))):
            found[mask(parsed_rule, columns)] = value
        return found

    words = tuple(dict.fromkeys(value for value in (*values, default) if isinstance(value, str)))
    tag = Tag(name, category, description, inputs, made, kind=kind, values=words, owner=owner, ttl_days=ttl_days)
    if not problems:
        return check([tag], known, f"the tag '{name}'")[0]
    problems += [
        f"{name}: {problem}"
        for problem in _declaration_problems(tag, set(), sorted(known))
        if inputs or "needs a rule" not in problem
    ]
    raise ConfigError(problems, where=f"the tag '{name}'")


@dataclass(frozen=True)
class TagFacts:
    """What goes with the values of one tag: where they come from and how long they hold.

    Attributes
    ----------
    as_of : datetime
        Naive UTC; nothing that happened at or after it is in the values.
    source : str
        The tables behind it joined by +, or ``model:NAME``.
    fitted : dict
        What a statistic learnt from all customers.
    model : tuple of str
        Name and version of the model that made the values; empty otherwise.
    """

    category: str
    kind: str
    how: str
    description: str
    owner: str
    ttl_days: int
    as_of: datetime
    source: str
    fitted: Fitted = field(default_factory=dict)
    model: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**self.__dict__, "as_of": self.as_of.isoformat(), "model": list(self.model)}

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> TagFacts:
        """The inverse of `as_dict`."""
        return cls(**{**value, "as_of": datetime.fromisoformat(value["as_of"]), "model": tuple(value["model"])})
