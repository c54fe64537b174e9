"""Tombstones in DuckDB, for whole tables."""

from __future__ import annotations

from features.data.lake import literal
from features.erasure.tombstones import DIGITS, DOMAIN


def tombstone_sql(source: str, source_user_id: str) -> str:
    """SQL of the tombstone; the key is in the variables that `PersonalDataHasher.set_key_variables` sets."""
    text = f"{literal(DOMAIN)} || chr(31) || {source} || chr(31) || {source_user_id}"
    return f"substr(sha256(getvariable('pii_outer') || sha256(getvariable('pii_inner') || {text})), 1, {DIGITS})"
