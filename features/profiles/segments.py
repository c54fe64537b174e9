"""Segments: a rule asked of a whole lake, as a predicate in the engine. The second execution of a declaration."""

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
    """The rule as a condition over compiled features (`features.compute.compile_ibis.compile_features`)."""
    if isinstance(rule, RuleGroup):
        parts = [predicate(part, table) for part in rule.rules]
        if rule.combinator == "not":
            return ~parts[0]
        return reduce(operator.and_ if rule.combinator == "all" else operator.or_, parts)
    return COLUMN_OPERATORS[rule.operator](table[rule.name], rule.value).fill_null(False)


def members(rule: Rule, builder: Builder, as_of: datetime) -> list[str]:
    """one_ids in the segment at `as_of`, sorted; the engine computes the features the rule asks about and no others.

    Raises
    ------
    ConfigError
        When the rule asks about tags (made from a whole build: use `mask` over a snapshot), or about features the lake does not give.
    """
    supported = builder.supported(as_of=as_of)[0]
    problems = [f"'{name}' is a tag: ask the snapshot" for name in referenced_names(rule, "tag")]
    problems += rule_problems(rule, text_features(supported), referenced_names(rule, "tag"))
    if problems:
        raise ConfigError(problems, where="segment rule")
    wanted = set(referenced_names(rule, "feature"))
    for feature in reversed(supported):  # parts of a quotient come before it
        if feature.name in wanted and feature.aggregate == "quotient":
            wanted |= {feature.column, feature.over}
    table = compile_features([feature for feature in supported if feature.name in wanted], builder.views(as_of))
    found = table.filter(predicate(rule, table)).select("one_id").order_by(ibis.asc("one_id")).to_pyarrow()
    return [str(one_id) for one_id in found["one_id"].to_pylist()]
