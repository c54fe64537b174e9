"""Tags of one profile build: rules and statistics are computed from its columns, model tags are read as published."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from features.compute.builder import Builder, ProfileBuild
from features.profiles.lifecycle import INACTIVITY_SOURCES, PREVIOUS_STAGE
from features.profiles.purchase_process.fitting import process_of
from features.profiles.tags import published
from features.profiles.tags.consents import CONSENT_SOURCES, consent_columns
from features.profiles.tags.declare import Fitted, Tag, TagValue, fit_tags, tag_values
from features.profiles.tags.facts import TagFacts
from features.profiles.tags.inactivity import inactivity_columns
from features.profiles.tags.pack_tags import tags_for
from features.profiles.tags.previous_stage import previous_stages
from features.profiles.tags.recorded import unrecorded_tags
from qianmian.packs import pack_digest
from qianmian.settings import Settings
from qianmian.workspace import Workspace

TagValuesByName = dict[str, list[TagValue]]


def declared_tags(settings: Settings) -> list[Tag]:
    """All tags declared under these settings."""
    return tags_for(settings)


def make_tags(
    builder: Builder, built: ProfileBuild, settings: Settings, unrecorded: Collection[str] | None = None
) -> tuple[TagValuesByName, dict[str, TagFacts]]:
    """Values of every tag the build supports, in the order of its rows, and the metadata of each tag.

    A model tag is included if a model has published it from data before ``built.as_of``. The tags `unrecorded` are left
    out (default: those of `missing_rows`).
    """
    left_out = missing_rows(builder, built, settings) if unrecorded is None else unrecorded
    tags = [tag for tag in declared_tags(settings) if tag.name not in left_out]
    table = built.table
    views, states = builder.views(built.as_of), builder.states_at(built.as_of)
    process = process_of(views, table, settings.lifecycle)
    made = {**inactivity_columns(views, table, states, process), **consent_columns(views, table, states)}
    sources = _sources(built)
    if (previous := previous_stages(builder.lake.workspace, table, built.as_of)) is not None:
        made[PREVIOUS_STAGE], sources[PREVIOUS_STAGE] = previous[0], frozenset({previous[1]})
    for name, column in made.items():
        table = table.append_column(name, column)
    fitted = fit_tags(table, tags, settings, process)
    values = tag_values(table, tags, settings, fitted)
    sources = {name: tables for name, tables in sources.items() if name in table.column_names}
    facts = {
        tag.name: _facts(tag, built.as_of, sources, fitted.get(tag.name, {})) for tag in tags if tag.name in values
    }
    one_ids = table["one_id"].to_pylist()
    for tag in tags:
        found = published.read(builder.lake.workspace, tag.name) if tag.how == "model" else None
        if found is not None and found.as_of <= built.as_of:
            values[tag.name] = [found.values.get(one_id) for one_id in one_ids]
            facts[tag.name] = TagFacts(
                tag.category,
                tag.kind,
                tag.how,
                tag.description,
                tag.owner,
                tag.ttl_days,
                found.as_of,
                f"model:{found.model_name}",
                model=(found.model_name, found.model_version),
            )
    order = [tag.name for tag in tags if tag.name in values]
    return {name: values[name] for name in order}, {name: facts[name] for name in order}


def missing_rows(builder: Builder, built: ProfileBuild, settings: Settings) -> dict[str, tuple[str, ...]]:
    """Tags that are absent because the rows they read were never recorded; see `unrecorded_tags`."""
    return unrecorded_tags(builder.views(built.as_of), built.features, declared_tags(settings))


def _sources(built: ProfileBuild) -> dict[str, frozenset[str]]:
    """Source tables of each column; a quotient has those of its parts."""
    not_features = {**INACTIVITY_SOURCES, **CONSENT_SOURCES}
    found: dict[str, frozenset[str]] = {name: frozenset({table}) for name, table in not_features.items()}
    for feature in built.features:
        parts = feature.aggregate == "quotient"
        found[feature.name] = found[feature.column] | found[feature.over] if parts else frozenset({feature.view})
    return found


def _facts(tag: Tag, as_of: datetime, sources: Mapping[str, frozenset[str]], fitted: Fitted) -> TagFacts:
    tables = frozenset[str]().union(*(sources.get(name, frozenset()) for name in tag.inputs))
    source = "+".join(sorted(tables))
    return TagFacts(tag.category, tag.kind, tag.how, tag.description, tag.owner, tag.ttl_days, as_of, source, fitted)


def tags_digest(settings: Settings, workspace: Workspace) -> str:
    """Digest of all that tag values depend on besides the lake: declarations, settings and published model tags."""
    tags = declared_tags(settings)
    declared: list[Any] = [
        [
            tag.name,
            tag.category,
            tag.description,
            tag.kind,
            tag.how,
            tag.owner,
            tag.ttl_days,
            tag.required_features,
            tag.optional_features,
            tag.values,
            tag.requires_recorded,
            tag.any_kind,
        ]
        for tag in tags
    ]
    models = published.published_digests(workspace, [tag.name for tag in tags if tag.how == "model"])
    contents = [declared, models, settings.lifecycle.model_dump(), pack_digest(settings.pack)]
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:16]


def missing_features(tag: Tag, present: Collection[str]) -> tuple[str, ...]:
    """Features because of which a tag is absent: its missing required features, otherwise its optional features."""
    return tuple(name for name in tag.required_features if name not in present) or tag.optional_features
