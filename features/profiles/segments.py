"""Segment queries: a rule as a predicate of the engine over a whole lake."""

from __future__ import annotations

import operator
from datetime import datetime
from functools import reduce

import ibis
import ibis.expr.types as ir

from features.compute.builder import Builder
from features.compute.compile_ibis import COLUMN_OPERATORS, compile_features
from features.profiles.rules import Rule, RuleGroup, referenced_names, rule_problems, text_features
from qianmian.errors import ConfigError


def predicate(rule: Rule, table: ir.Table) -> ir.BooleanValue:
    """The rule as a boolean expression over compiled features (`features.compute.compile_ibis.compile_features`)."""
    if isinstance(rule, RuleGroup):
        parts = [predicate(part, table) for part in rule.rules]
        if rule.combinator == "not":
            return ~parts[0]
        return reduce(operator.and_ if rule.combinator == "all" else operator.or_, parts)
    return COLUMN_OPERATORS[rule.operator](table[rule.name], rule.value).fill_null(False)


def members(rule: Rule, builder: Builder, as_of: datetime) -> list[str]:
    """The one_ids in the segment at `as_of`, sorted. The engine computes only the features the rule refers to.

    Raises
    ------
    ConfigError
        The rule refers to tags, which need a whole build (use `mask` over a snapshot), or to features that the lake
        does not support.
    """
    supported = builder.supported(as_of=as_of)[0]
    tags = referenced_names(rule, "tag")
    problems = [f"'{name}' is a tag; rules with tags are evaluated on a profile snapshot" for name in tags]
    problems += rule_problems(rule, text_features(supported), tags)
    if problems:
        raise ConfigError(problems, where="segment rule")
    wanted = set(referenced_names(rule, "feature"))
    for feature in reversed(supported):  # parts of a quotient come before it
        if feature.name in wanted and feature.aggregate == "quotient":
            wanted |= {feature.column, feature.over}
    table = compile_features([feature for feature in supported if feature.name in wanted], builder.views(as_of))
    found = table.filter(predicate(rule, table)).select("one_id").order_by(ibis.asc("one_id")).to_pyarrow()
    return [str(one_id) for one_id in found["one_id"].to_pylist()]
