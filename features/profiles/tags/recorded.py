"""What a source never records is absent, not "no": tags whose kind of row was never recorded before the cutoff.

A feature that counts cart events is 0 for every customer of a shop that records none, and a tag on it would say "no" of
what nobody knows. The feature stays, because a constant column does no harm in a model; the tag is absent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from features.compute.algebra import Condition, Feature
from features.compute.compile_ibis import row_filter
from features.compute.views import Views
from features.profiles.tags.declare import Tag

# columns whose values tell what kind of row a row is; a condition on another one, such as a weekday or a category, that
# no row passes is a fact about the customers
KIND_COLUMNS = (
    *("event_type", "content_id", "topic", "discount", "coupon_discount"),
    *("delivered", "opened", "clicked"),
)
ORDER = "order"  # beside the event types in `Tag.requires_recorded`: a paid order
Kind = tuple[str, tuple[Condition, ...]]  # view, and the conditions on `KIND_COLUMNS`


def unrecorded_tags(views: Views, features: Sequence[Feature], tags: Iterable[Tag]) -> dict[str, tuple[str, ...]]:
    """Tags that are absent because rows of the kind that they read were never recorded, each with these kinds.

    Parameters
    ----------
    views : Views
        Rows before the cutoff.
    features : sequence of Feature
        Supported features.
    tags : iterable of Tag
        Declarations. A tag needs every kind of row that its required features count, and of each group of
        `requires_recorded` one; a tag declared by rules (`any_kind`) needs one of the kinds its rules count.

    Returns
    -------
    dict of str to tuple of str
        Tag → the kinds of rows that are missing, in words.
    """
    by_name = {feature.name: feature for feature in features}
    present = {feature.view for feature in features}
    declared = [tag for tag in tags if tag.rule is not None]
    wanted = {
        tag.name: [kind for name in tag.required_features for kind in _kinds(by_name.get(name), by_name)]
        for tag in declared
    }
    groups = {tag.name: [[_named_kind(name) for name in group] for group in tag.requires_recorded] for tag in declared}
    wanted_kinds = dict.fromkeys(kind for kinds in wanted.values() for kind in kinds)
    wanted_kinds |= dict.fromkeys(kind for alternatives in groups.values() for group in alternatives for kind in group)
    recorded = _recorded(views, [kind for kind in wanted_kinds if kind[0] in present])
    missing: dict[str, tuple[str, ...]] = {}
    for tag in declared:
        lacks = [_words([kind]) for kind in wanted[tag.name] if kind not in recorded]
        if tag.any_kind and len(lacks) < len(wanted[tag.name]):
            lacks = []
        lacks += [_words(group) for group in groups[tag.name] if not recorded.intersection(group)]
        if lacks:
            missing[tag.name] = tuple(dict.fromkeys(lacks))
    return missing


def _kinds(feature: Feature | None, by_name: Mapping[str, Feature]) -> list[Kind]:
    """The kinds of rows that a feature counts; those of both parts for a quotient."""
    if feature is None:
        return []
    if feature.aggregate == "quotient":
        return [kind for part in (feature.column, feature.over) for kind in _kinds(by_name.get(part), by_name)]
    conditions = tuple(condition for condition in feature.where if condition.column in KIND_COLUMNS)
    return [(feature.view, conditions)] if conditions or feature.view == "refunds" else []


def _named_kind(name: str) -> Kind:
    return ("orders", ()) if name == ORDER else ("events", (Condition("event_type", "==", name),))


def _recorded(views: Views, kinds: Sequence[Kind]) -> set[Kind]:
    """Those kinds of which at least one row was recorded; one query per view."""
    found: set[Kind] = set()
    for view in dict.fromkeys(view for view, _ in kinds):
        # an order has the kinds of its lines, which need not be summed up to be found
        rows, wanted_kinds = views["lines" if view == "orders" else view], [kind for kind in kinds if kind[0] == view]
        tests = {
            f"kind_{number}": rows.count(where=row_filter(rows, where))
            for number, (_, where) in enumerate(wanted_kinds)
        }
        counts = rows.aggregate(**tests).to_pyarrow().to_pylist()[0]
        found |= {kind for number, kind in enumerate(wanted_kinds) if counts[f"kind_{number}"]}
    return found


def _words(kinds: Sequence[Kind]) -> str:
    """What was never recorded, such as ``no view or cart events``."""
    types = [where[0].value for view, where in kinds if view == "events" and where and where[0].column == "event_type"]
    texts = [f"{_one_of([str(one) for one in types])} events"] if types else []
    for view, conditions in kinds:
        tests = " and ".join(f"{one.column} {one.operator} {_text(one.value)}" for one in conditions)
        if not tests.startswith("event_type"):
            texts.append(f"{view} with {tests}" if tests else view)
    return f"no {' and no '.join(texts)}"


def _one_of(names: Sequence[str]) -> str:
    return " or ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else names[0]


def _text(value: object) -> str:
    return '""' if value == "" else str(value).lower() if isinstance(value, bool) else str(value)
