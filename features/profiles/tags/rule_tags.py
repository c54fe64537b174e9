"""Tags declared as data: the value is that of the first segment rule that the customer passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.compute.algebra import PROFILE_PREFIX, Feature
from features.definitions import FEATURES
from features.profiles.rules import mask, parse, referenced_names, rule_problems, text_features
from features.profiles.tags.declare import RULE_REQUIRED, Columns, Kind, Tag, TagContext, TagValue, check, tag_problems
from qianmian.errors import ConfigError


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
    """A tag declared as data: its value is that of the first rule the customer passes, otherwise `default`.

    Parameters
    ----------
    name, category, description : str
        As in `Tag`.
    rule : mapping, or sequence of mapping
        Segment rules (`features.profiles.rules`) over features, in order.
    values : sequence
        Values of the tag, one per rule.
    owner, ttl_days, kind
        As in `Tag`.
    default : str, float, bool or None
        Value of customers who pass no rule; None for unknown.
    features : sequence of Feature
        Features a rule may refer to; default: the built-in features.

    Raises
    ------
    ConfigError
        All mistakes together, in the rules and in the declaration.

    Examples
    --------
    >>> large_basket = {"feature": "basket_lines_mean", "operator": ">", "value": 20}
    >>> rule = {"all": [large_basket, {"feature": "orders_28d", "operator": "<", "value": 2}]}
    >>> tag = tag_from_rule("stocks_up", "behaviour", "large baskets, rare orders", rule, default=False)
    >>> from features.profiles.tags.declare import tag_values
    >>> import pyarrow as pa
    >>> tag_values(pa.table({"basket_lines_mean": [30.0, 30.0], "orders_28d": [1.0, 5.0]}), [tag])
    {'stocks_up': [True, False]}
    """
    rules = [rule] if isinstance(rule, Mapping) else list(rule)
    problems = []
    if not rules or len(rules) != len(values):
        problems.append(f"has {len(rules)} rules and {len(values)} values; one value per rule is required")
    kinds = {"text" if isinstance(v, str) else type(v).__name__ for v in (*values, default) if v is not None}
    if len(kinds - {"int"}) > 1:
        problems.append(f"its values and default are of several kinds ({', '.join(sorted(kinds))}); one is required")
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
    # profile attributes of a source may be text or numbers, so their type is not checked here
    for parsed_rule in parsed:
        problems += [
            f"a rule of a tag must not refer to the tag '{other}'" for other in referenced_names(parsed_rule, "tag")
        ]
        problems += [
            problem
            for problem in rule_problems(parsed_rule, known, referenced_names(parsed_rule, "tag"))
            if not problem.startswith(("unknown feature", f"feature '{PROFILE_PREFIX}"))
        ]

    def first_passed(columns: Columns, _: TagContext) -> NDArray[Any]:
        result = np.full(len(next(iter(columns.values()))), default, dtype=object)
        for parsed_rule, value in reversed(list(zip(parsed, values, strict=True))):
            result[mask(parsed_rule, columns)] = value
        return result

    texts = tuple(dict.fromkeys(value for value in (*values, default) if isinstance(value, str)))
    about: dict[str, Any] = {"kind": kind, "values": texts, "owner": owner, "ttl_days": ttl_days, "any_kind": True}
    tag = Tag(name, category, description, inputs, first_passed, **about)
    if not problems:
        return check([tag], known, f"the tag '{name}'")[0]
    problems += [
        f"{name}: {problem}"
        for problem in tag_problems(tag, set(), sorted(known))
        if inputs or problem != RULE_REQUIRED
    ]
    raise ConfigError(problems, where=f"the tag '{name}'")
