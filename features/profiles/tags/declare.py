"""Declaration of tags, and their computation for many customers at once.

A tag is made by *rule* (from the features of the customer), by *statistic* (from the customer's position among all
customers, with parameters that are fitted on all customers and stored) or by *model* (published by a training job).
This module reads neither files nor the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.compute.algebra import PROFILE_PREFIX
from features.profiles.purchase_process.process import PurchaseProcess
from features.profiles.tags.chinese import ChineseTag
from features.profiles.tags.claims import Claim
from qianmian.errors import ConfigError, did_you_mean
from qianmian.schema import TAG_CATEGORIES
from qianmian.settings import Settings

Columns = Mapping[str, NDArray[Any]]
TagValue = str | float | bool | None
Fitted = dict[str, list[float]]
Kind = Literal["static", "dynamic"]
How = Literal["rule", "statistic", "model"]
VALUE_DIGITS = 4
RULE_REQUIRED = "a rule and features are required"


@dataclass(frozen=True)
class TagContext:
    """Settings and fitted parameters for the functions of a tag.

    Attributes
    ----------
    settings : Settings
        Settings of the workspace.
    fitted : dict of str to list of float
        Parameters that `Tag.fit` fitted on all customers; empty for a rule.
    process : PurchaseProcess or None
        For a `Tag.fit` with `Tag.needs_process`: the purchase process fitted on the orders before the cutoff.
    """

    settings: Settings = field(default_factory=Settings)
    fitted: Fitted = field(default_factory=dict)
    process: PurchaseProcess | None = None


@dataclass(frozen=True)
class Tag:
    """One declared tag.

    Attributes
    ----------
    category : str
        One of `qianmian.schema.TAG_CATEGORIES`.
    required_features : tuple of str
        Features the tag needs; the tag is absent if any of them is unsupported.
    rule : callable or None
        Function of the feature columns, each of shape (n,), and the `TagContext` that returns values of shape (n,):
        None, an empty string or NaN if unknown. None for a model tag.
    optional_features : tuple of str
        Features used if supported. A tag without `required_features` is absent if all of these are unsupported.
    kind : str
        `static` for tags that rarely change for a customer, `dynamic` for tags that follow the customer's behaviour.
    how : str
        `rule`, `statistic` or `model`.
    fit : callable or None
        For a statistic: function of the columns of all customers that returns `TagContext.fitted` for `rule`, so that a
        single customer gets the same value.
    needs_process : bool
        Whether `fit` reads `TagContext.process`; without one the tag is left out.
    values : tuple of str
        Allowed values; empty for numbers, booleans and open text.
    ttl_days : int
        Age in days above which a value is stale.
    claim : Claim or None
        What the value says about the time after it; `qianmian tags validate` compares it with what followed.
    requires_recorded : tuple of tuple of str
        Groups of event types (or ``order``): the tag is absent if no row of a group was recorded before the cutoff.
    any_kind : bool
        Whether one recorded kind of row is enough, of those that the features count (`features.profiles.tags.recorded`).
    chinese : ChineseTag or None
        Its Chinese words; those of the built-in tags are in `features.profiles.tags.chinese`.
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
    needs_process: bool = False
    values: tuple[str, ...] = ()
    owner: str = "profile"
    ttl_days: int = 35
    claim: Claim | None = None
    requires_recorded: tuple[tuple[str, ...], ...] = ()
    any_kind: bool = False
    chinese: ChineseTag | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """All features the tag may use."""
        return (*self.required_features, *self.optional_features)

    def supported(self, present: Iterable[str]) -> bool:
        """Whether the tag can be computed from these features."""
        available = set(present)
        if self.required_features:
            return available.issuperset(self.required_features)
        return bool(available.intersection(self.optional_features))


def check(tags: Sequence[Tag], features: Iterable[str], where: str = "the tag declarations") -> tuple[Tag, ...]:
    """Validate declarations and return them as a tuple.

    Parameters
    ----------
    tags : sequence of Tag
        Declarations.
    features : iterable of str
        Names a tag may use; profile attributes (``profile_…``) are always allowed.
    where : str
        Name of the declarations in the error message.

    Raises
    ------
    ConfigError
        All mistakes together: duplicate names, unknown categories, undeclared features, a statistic without a fit.

    Examples
    --------
    >>> check([Tag("vip", "value", "high spender", ("amout_28d",), lambda c, _: c["amout_28d"] > 9)], ["amount_28d"])
    Traceback (most recent call last):
    ...
    qianmian.errors.ConfigError: the tag declarations: 2 mistake(s):
      - vip: unknown category 'value'; allowed: basic, behaviour, transaction, interest, lifecycle
      - vip: unknown feature 'amout_28d' (did you mean amount_28d?)
    . Fix: correct the tag declarations and run the command again
    """
    known, seen, problems = sorted(set(features)), set[str](), list[str]()
    for tag in tags:
        problems += [f"{tag.name or '(no name)'}: {problem}" for problem in tag_problems(tag, seen, known)]
        seen.add(tag.name)
    if problems:
        raise ConfigError(problems, where=where)
    return tuple(tags)


def tag_problems(tag: Tag, seen: set[str], known: list[str]) -> Iterator[str]:
    """The mistakes of one declaration; `seen` are the names before it, `known` the features it may use."""
    if not tag.name:
        yield "name is required"
    if tag.name in seen:
        yield "is declared twice"
    if tag.category not in TAG_CATEGORIES:
        yield f"unknown category '{tag.category}'; allowed: {', '.join(TAG_CATEGORIES)}"
    if tag.kind not in get_args(Kind):
        yield f"unknown kind '{tag.kind}'; allowed: {', '.join(get_args(Kind))}"
    if tag.how not in get_args(How):
        yield f"unknown `how` '{tag.how}'; allowed: {', '.join(get_args(How))}"
    if not tag.description:
        yield "description is required"
    if tag.ttl_days < 1:
        yield f"ttl_days must be at least 1; got {tag.ttl_days}"
    if tag.how == "model":
        if tag.inputs or tag.rule or tag.fit:
            yield "a model tag must not have features, a rule or a fit, because its values are published"
        return
    if tag.rule is None or not tag.inputs:
        yield RULE_REQUIRED
    if (tag.how == "statistic") != (tag.fit is not None):
        yield "a statistic requires a fit, and other tags must not have one"
    for name in tag.inputs:
        if name not in known and not name.startswith(PROFILE_PREFIX):
            yield f"unknown feature '{name}'{did_you_mean(name, known)}"


def tag_values(
    table: pa.Table, tags: Sequence[Tag], settings: Settings | None = None, fitted: Mapping[str, Fitted] | None = None
) -> dict[str, list[TagValue]]:
    """Values of each tag for every row of a profile table. Unsupported tags and model tags are left out.

    Parameters
    ----------
    table : pyarrow.Table
        Table of a profile build, n rows.
    tags : sequence of Tag
        Declarations.
    settings : Settings, optional
        Settings for the rules.
    fitted : mapping of str to dict, optional
        Fitted parameters of the statistics (`fit_tags`); default: fitted on the rows of `table`.

    Returns
    -------
    dict of str to list
        Tag name → n values.
    """
    chosen = settings or Settings()
    columns = TagColumns(table)
    fitted_by_tag = fit_tags(table, tags, chosen) if fitted is None else fitted
    values: dict[str, list[TagValue]] = {}
    for tag in tags:
        has_parameters = tag.fit is None or tag.name in fitted_by_tag
        if tag.rule is not None and has_parameters and tag.supported(table.column_names):
            result = tag.rule(columns.of(tag), TagContext(chosen, dict(fitted_by_tag.get(tag.name, {}))))
            values[tag.name] = clean_values(np.asarray(result))
    return values


def fit_tags(
    table: pa.Table, tags: Sequence[Tag], settings: Settings | None = None, process: PurchaseProcess | None = None
) -> dict[str, Fitted]:
    """Parameters of each statistic, fitted on the customers of `table`, JSON-compatible."""
    columns = TagColumns(table)
    context = TagContext(settings or Settings(), process=process)
    return {
        tag.name: tag.fit(columns.of(tag), context)
        for tag in tags
        if tag.fit is not None and tag.supported(table.column_names) and (process is not None or not tag.needs_process)
    }


class TagColumns:
    """Columns of a table as arrays, each converted only once."""

    def __init__(self, table: pa.Table) -> None:
        self.table, self._cache = table, dict[str, NDArray[Any]]()

    def of(self, tag: Tag) -> dict[str, NDArray[Any]]:
        """The columns of one tag that the table has."""
        return {name: self[name] for name in tag.inputs if name in self.table.column_names}

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._cache:
            column = self.table[name]
            numeric = pa.types.is_floating(column.type) and not column.null_count
            self._cache[name] = column.to_numpy() if numeric else np.asarray(column.to_pylist())
        return self._cache[name]


def clean_value(value: Any) -> TagValue:
    """A value for JSON and Parquet; empty strings, NaN and infinities become None."""
    found = value.item() if isinstance(value, np.generic) else value
    if found == "" or (isinstance(found, float) and not np.isfinite(found)):
        return None
    return round(found, VALUE_DIGITS) if isinstance(found, float) else found


def clean_values(values: NDArray[Any]) -> list[TagValue]:
    """`clean_value` of every value of an array, vectorized for text and booleans."""
    if values.dtype.kind == "U":
        texts: list[TagValue] = values.tolist()
        return [text or None for text in texts]
    if values.dtype.kind == "b":
        return list(values.tolist())
    return [clean_value(value) for value in values.tolist()]


# ---- helpers of declarations -----------------------------------------------------------------------------------------


def yes_no(flags: NDArray[np.bool_], known: NDArray[np.bool_] | bool = True) -> NDArray[Any]:
    """Booleans as objects, with None for customers whose value is unknown.

    Examples
    --------
    >>> yes_no(np.array([True, False, True]), np.array([True, True, False])).tolist()
    [True, False, None]
    """
    result = flags.astype(object)
    result[~np.broadcast_to(known, flags.shape)] = None
    return result


def quantile_edges(values: NDArray[Any], parts: int) -> list[float]:
    """Inner quantile edges of the values above zero, for `parts` bins; empty if no value is above zero."""
    positive = values[values > 0]
    return [float(edge) for edge in np.quantile(positive, np.linspace(0, 1, parts + 1)[1:-1])] if len(positive) else []


def quantile_bin(values: NDArray[Any], edges: Sequence[float]) -> NDArray[np.int64]:
    """Index of the quantile bin of each value, from 0; −1 for values that are not above zero."""
    return np.where(values > 0, np.searchsorted(np.asarray(edges), values, side="right"), -1)


def quantile_tag(
    name: str, category: str, description: str, column: str, names: tuple[str, ...], *, owner: str = "profile"
) -> Tag:
    """A statistic that divides customers with values above zero into equal-sized groups; unknown for the others.

    `names` are the names of the groups, lowest first.
    """

    def rule(columns: Columns, context: TagContext) -> NDArray[Any]:
        return np.asarray([*names, ""])[quantile_bin(columns[column], context.fitted["edges"])]

    def fit(columns: Columns, _: TagContext) -> Fitted:
        return {"edges": quantile_edges(columns[column], len(names))}

    return Tag(name, category, description, (column,), rule, how="statistic", fit=fit, values=names, owner=owner)
