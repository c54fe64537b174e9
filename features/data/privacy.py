"""Hashing of personal data: only a salted, keyed hash is stored, computed before anything is written.

A value is normalised (`+44 (0)7700 900 123` → `+447700900123`, ` Ann@Shop.COM ` → `ann@shop.com`) and becomes

    h1: + first 32 hex digits of sha256(outer || sha256(inner || domain || 0x1f || normalised))

with ``inner = sha256("inner" || key)`` and ``outer = sha256("outer" || key)`` in hex: the nested construction of HMAC
(RFC 2104), so that telephone numbers cannot be guessed without the key. `domain` is the id type, or the type it counts
as: the same digits as a card and as a telephone number give different hashes. DuckDB computes the hash per column. The
key is passed as a variable and does not appear in the text of a query.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import duckdb

from features.data.lake import Lake, literal
from features.data.personal_values import EMAIL_PATTERN, PHONE_PATTERN
from features.data.phones import normalized_phone
from features.data.pii_key import KEY_VARIABLE, PiiKey, fingerprint_file, key_file, load_key
from qianmian.errors import UsageError
from qianmian.settings import IdType, Settings
from qianmian.workspace import Workspace

HASH_PREFIX = "h1:"
HASH_PATTERN = r"^h1:[0-9a-f]{32}$"
# hashes accepted from a source with `hashed: true`: no blank and no @, so that no name or e-mail address passes
SOURCE_HASH_PATTERN = r"^[0-9A-Za-z+/=_:.-]{16,128}$"
QUARANTINE_DOMAIN = "quarantine"  # hash domain of values in quarantined rows, so that they match nothing in the lake


class PersonalDataHasher:
    """Builds SQL expressions that hash personal data, for one key and the declared id types.

    Parameters
    ----------
    key : PiiKey
        Key of the workspace.
    id_types : iterable of IdType
        Declared id types.
    phone_country : str, optional
        Calling code of telephone numbers without one, such as ``86``.
    attribute_types : mapping of str to str
        Attribute of profiles that the lake stores as hashes → the type of personal data of these hashes.
    """

    def __init__(
        self,
        key: PiiKey,
        id_types: Iterable[IdType],
        phone_country: str | None = None,
        attribute_types: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.key, self.phone_country, self.attribute_types = key, phone_country, attribute_types
        self.id_types = {kind.type: kind for kind in id_types}

    @classmethod
    def of(cls, workspace: Workspace, settings: Settings) -> PersonalDataHasher:
        return cls._of(load_key(workspace), workspace, settings)

    @classmethod
    def for_preview(cls, workspace: Workspace, settings: Settings) -> PersonalDataHasher:
        """The hasher of the workspace if it has a key, else one with a key that is used once and stored nowhere."""
        known = key_file(workspace).exists() or fingerprint_file(workspace).exists() or KEY_VARIABLE in os.environ
        key = load_key(workspace) if known else PiiKey.of(secrets.token_hex(32))
        return cls._of(key, workspace, settings)

    @classmethod
    def _of(cls, key: PiiKey, workspace: Workspace, settings: Settings) -> PersonalDataHasher:
        identity = settings.identity
        return cls(key, identity.id_types, identity.phone_country, Lake(workspace).notes()["hash_types"])

    def set_key_variables(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Set the key as variables of `connection`; the expressions of this class need them."""
        connection.execute(f"SET VARIABLE pii_inner = {literal(self.key.inner)}")
        connection.execute(f"SET VARIABLE pii_outer = {literal(self.key.outer)}")

    @property
    def declared(self) -> str:
        """The declared types as text, for messages."""
        return ", ".join(self.id_types)

    @property
    def hashed_types(self) -> tuple[str, ...]:
        return tuple(name for name, kind in self.id_types.items() if kind.pii)

    def is_declared(self, id_type: str) -> str:
        """SQL condition: `id_type` (a normalised SQL expression) is a declared id type."""
        return f"{id_type} IN ({', '.join(literal(name) for name in self.id_types)})"

    def is_personal(self, id_type: str) -> str:
        """SQL condition: values of this id type are hashed."""
        return f"{id_type} IN ({', '.join(literal(name) for name in self.hashed_types) or 'NULL'})"

    def _domain(self, id_type: str) -> str:
        cases = " ".join(
            f"WHEN {literal(name)} THEN {literal(kind.counts_as)}"
            for name, kind in self.id_types.items()
            if kind.counts_as is not None
        )
        return f"CASE {id_type} {cases} ELSE {id_type} END" if cases else id_type

    def identifier(self, id_type: str, value: str, hashed: bool = False) -> str:
        """SQL of the stored form of an identifier.

        Parameters
        ----------
        id_type, value : str
            SQL expressions of the declared type and of the value.
        hashed : bool
            Whether the source already hashed the values; they are then stored unchanged.
        """
        domain = self._domain(id_type)
        keep = f"NOT ({self.is_personal(id_type)}) OR regexp_matches({value}, {literal(HASH_PATTERN)})" + (
            " OR true" if hashed else ""
        )
        return f"CASE WHEN {keep} THEN {value} ELSE {self._hash(domain, self.normalized(domain, value))} END"

    def attribute(self, kind: str, value: str) -> str:
        """SQL of the stored form of a personal attribute of a profile; `kind` is its `personal_data_type`."""
        domain = literal(kind)
        return (
            f"CASE WHEN regexp_matches({value}, {literal(HASH_PATTERN)}) THEN {value} "
            f"WHEN {value} IS NOT NULL THEN {self._hash(domain, self.normalized(domain, value))} END"
        )

    def normalized(self, domain: str, value: str) -> str:
        """SQL of the normalised `value`, equal for different spellings of one value; '' if nothing is left."""
        lettered = f"regexp_matches({value}, '[[:alpha:]]')"
        return (
            f"CASE WHEN {domain} = 'phone' AND NOT {lettered} THEN {normalized_phone(value, self.phone_country)} "
            f"WHEN {domain} = 'card' THEN upper(regexp_replace({value}, '[^0-9A-Za-z]', '', 'g')) "
            f"WHEN {domain} IN ('email', 'phone', 'name', 'address') OR contains({value}, '@') "
            f"THEN lower(regexp_replace(trim({value}), '\\s+', ' ', 'g')) ELSE trim({value}) END"
        )

    def masked(self, value: str) -> str:
        """SQL of the hash of `value` in quarantined rows; it shows only which values are equal."""
        return f"CASE WHEN {value} IS NOT NULL THEN {self._hash(literal(QUARANTINE_DOMAIN), f'({value})::VARCHAR')} END"

    @staticmethod
    def redacted(text: str) -> str:
        """SQL of `text` with e-mail addresses and international telephone numbers replaced."""
        inner = f"regexp_replace({text}, {literal(EMAIL_PATTERN)}, '(e-mail address)', 'g')"
        return f"regexp_replace({inner}, {literal(PHONE_PATTERN)}, '(telephone number)', 'g')"

    @staticmethod
    def _hash(domain: str, value: str) -> str:
        inner = f"sha256(getvariable('pii_inner') || {domain} || chr(31) || {value})"
        return f"{literal(HASH_PREFIX)} || substr(sha256(getvariable('pii_outer') || {inner}), 1, 32)"


def hash_value(workspace: Workspace, settings: Settings, id_type: str, raw: str) -> str:
    """Stored form of the identifier `raw`, for example to look up a customer by telephone number.

    Raises
    ------
    UsageError
        If the type is not declared. The message does not contain the value.
    """
    personal = PersonalDataHasher.of(workspace, settings)
    if id_type not in personal.id_types:
        raise UsageError(
            "unknown id type",
            got=id_type,
            allowed=personal.declared,
            hint="declare it under identity.id_types in qianmian.yaml",
        )
    with duckdb.connect() as connection:
        personal.set_key_variables(connection)
        row = connection.execute(
            f"SELECT {personal.identifier('t', 'v')} FROM (SELECT ? AS t, ? AS v)", [id_type, raw]
        ).fetchone()
    return str(row[0]) if row else ""
