"""Personal data: kept as a salted keyed hash only, made before anything is written.

A value is cleaned (`+44 (0)7700 900 123` → `+447700900123`, ` Ann@Shop.COM ` → `ann@shop.com`) and becomes

    h1: + first 32 hex digits of sha256(outer || sha256(inner || domain || 0x1f || cleaned))

with ``inner = sha256("inner" || key)`` and ``outer = sha256("outer" || key)`` in hex: the nested construction of HMAC (RFC 2104), so
that nobody without the key can try out telephone numbers. `domain` is the id type (of the type it counts as, where it does): the
same digits as a card and as a telephone number give different hashes. DuckDB computes it a column at a time; the key reaches it as a
variable and stands in no query text.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

from features.data.lake import literal
from qianmian.errors import UsageError, WorkspaceError
from qianmian.settings import IdType, Settings
from qianmian.workspace import Workspace, atomic_path, write_json

KEY_VARIABLE = "QIANMIAN_PII_KEY"
MIN_KEY_LENGTH = 16
HASH_PREFIX = "h1:"
HASH_PATTERN = r"^h1:[0-9a-f]{32}$"
SOURCE_HASH_PATTERN = (
    r"^[0-9A-Za-z+/=_:.-]{16,128}$"  # what a source that says `hashed: true` may bring; no blank, no @
)
EMAIL_PATTERN = r"[^@\s\"\\,;:<>]+@[^@\s\"\\,;:<>]+\.[A-Za-z]{2,}"
PHONE_PATTERN = r"\+[0-9][0-9 ().-]{7,18}"
QUARANTINE_DOMAIN = "quarantine"  # the domain of what is only kept to show which rows were refused

_PERSONAL_WORDS: Mapping[str, frozenset[str]] = {
    "phone": frozenset(
        {"phone", "telephone", "mobile", "tel", "msisdn", "cellphone", "phonenumber", "whatsapp", "fax"}
    ),
    "email": frozenset({"email", "mail", "emailaddress"}),
    "address": frozenset({"address", "street", "addr", "streetname", "housenumber"}),
    "name": frozenset(
        {"surname", "forename", "firstname", "lastname", "fullname", "givenname", "familyname", "nickname", "maiden"}
    ),
    "document": frozenset({"ssn", "passport", "iban", "nationalid", "idcard", "socsecid", "taxid"}),
}
_PERSONAL_PHRASES: Mapping[str, str] = {
    "name": "name",
    "first name": "name",
    "last name": "name",
    "given name": "name",
    "family name": "name",
    "full name": "name",
    "middle name": "name",
    "customer name": "name",
    "contact name": "name",
    "user name": "login",
    "username": "login",
    "login": "login",
    "card": "card",
    "card number": "card",
    "card no": "card",
    "credit card": "card",
    "loyalty card": "card",
    "member card": "card",
    "soc sec id": "document",
    "id card": "document",
    "national id": "document",
    "tax id": "document",
    "house number": "address",
}
_PERSONAL_CHINESE_WORDS = {
    "手机": "phone",
    "电话": "phone",
    "邮箱": "email",
    "邮件": "email",
    "姓名": "name",
    "地址": "address",
    "身份证": "document",
}
# "email_opt_in" or "phone_model" tell nothing of whose they are
_IMPERSONAL_WORDS = frozenset(
    {
        "opt",
        "in",
        "consent",
        "domain",
        "verified",
        "model",
        "type",
        "count",
        "has",
        "is",
        "os",
        "brand",
        "status",
        "valid",
        "bounced",
        "subscribed",
        "at",
        "date",
        "time",
        "language",
        "channel",
        "open",
        "opened",
        "click",
        "clicked",
        "rate",
        "days",
        "device",
    }
)


def personal_data_type(name: str) -> str | None:
    """What sort of personal data a column of that name holds; None where it holds none.

    Examples
    --------
    >>> personal_data_type("Mobile Phone"), personal_data_type("e_mail"), personal_data_type("givenName"), personal_data_type("consent_email"), personal_data_type("city")
    ('phone', 'email', 'name', None, None)
    """
    for sign, kind in _PERSONAL_CHINESE_WORDS.items():
        if sign in name:
            return kind
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower().replace("e-mail", "email").replace("e_mail", "email")
    words = re.findall(r"[a-z]+", spaced)
    if _IMPERSONAL_WORDS.intersection(words):
        return None
    if (phrase := _PERSONAL_PHRASES.get(" ".join(words))) is not None:
        return phrase
    return next((kind for kind, known in _PERSONAL_WORDS.items() if known.intersection(words)), None)


@dataclass(frozen=True)
class PiiKey:
    """The secret of one workspace; neither shown nor logged."""

    inner: str
    outer: str
    fingerprint: str

    def __repr__(self) -> str:
        return f"PiiKey(fingerprint={self.fingerprint})"

    @classmethod
    def of(cls, secret: str) -> PiiKey:
        inner, outer, mark = (
            hashlib.sha256((part + secret).encode()).hexdigest() for part in ("inner", "outer", "fingerprint")
        )
        return cls(inner, outer, mark[:16])


def key_file(workspace: Workspace) -> Path:
    return workspace.root / "secrets" / "pii.key"


def _fingerprint_file(workspace: Workspace) -> Path:
    return workspace.root / "identity" / "key.json"


def load_key(workspace: Workspace) -> PiiKey:
    """The key: ``QIANMIAN_PII_KEY``, else the workspace's own, made once and readable by its owner only.

    Raises
    ------
    UsageError
        The variable holds too short a key.
    WorkspaceError
        What the lake holds was hashed with another key, or its key is gone: new hashes would never equal the old ones.
    """
    marked = None
    if _fingerprint_file(workspace).exists():
        try:
            marked = str(json.loads(_fingerprint_file(workspace).read_text(encoding="utf-8"))["fingerprint"])
        except (ValueError, KeyError, TypeError) as error:
            raise WorkspaceError(
                "the fingerprint of the key for personal data cannot be read",
                where=str(_fingerprint_file(workspace)),
                hint="restore the file, or delete it where the key has certainly not changed",
            ) from error
    given, file = os.environ.get(KEY_VARIABLE), key_file(workspace)
    if given is not None and len(given) < MIN_KEY_LENGTH:
        raise UsageError(
            "the key for personal data is too short",
            where=KEY_VARIABLE,
            got=f"{len(given)} characters",
            allowed=f"at least {MIN_KEY_LENGTH}",
            hint=f"set {KEY_VARIABLE} to a long random text, or unset it: the workspace then keeps a key of its own",
        )
    if given is None and not file.exists() and marked is None:
        with atomic_path(file) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_text(secrets.token_hex(32), encoding="utf-8")
    secret = given or (file.read_text(encoding="utf-8").strip() if file.exists() else "")
    key = PiiKey.of(secret)
    if marked is not None and key.fingerprint != marked:
        raise WorkspaceError(
            "personal data in this workspace was hashed with another key"
            if secret
            else "the key for personal data is gone",
            where=KEY_VARIABLE if given else str(file),
            got=f"a key with fingerprint {key.fingerprint}" if secret else "no key",
            allowed=marked,
            hint=f"give the old key back (in {KEY_VARIABLE} or {file}); a new key needs a new workspace, into which everything is ingested again",
        )
    return key


def save_key_fingerprint(workspace: Workspace, key: PiiKey) -> None:
    """Note which key the lake's hashes are of; from now on another one is refused."""
    if not _fingerprint_file(workspace).exists():
        write_json(_fingerprint_file(workspace), {"fingerprint": key.fingerprint})


class PersonalDataHasher:
    """Builds the SQL that turns personal data into hashes, for one workspace's key and declared id types."""

    def __init__(self, key: PiiKey, id_types: Iterable[IdType]) -> None:
        self.key = key
        self.id_types = {kind.type: kind for kind in id_types}

    @classmethod
    def of(cls, workspace: Workspace, settings: Settings) -> PersonalDataHasher:
        return cls(load_key(workspace), settings.identity.id_types)

    def set_key_variables(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Give `connection` the key; the expressions of this class need it."""
        connection.execute(f"SET VARIABLE pii_inner = {literal(self.key.inner)}")
        connection.execute(f"SET VARIABLE pii_outer = {literal(self.key.outer)}")

    @property
    def declared(self) -> str:
        """The declared types, for messages."""
        return ", ".join(self.id_types)

    @property
    def hashed_types(self) -> tuple[str, ...]:
        return tuple(name for name, kind in self.id_types.items() if kind.pii)

    def is_declared(self, id_type: str) -> str:
        """Condition: the id type (a SQL expression, cleaned) is one somebody declared."""
        return f"{id_type} IN ({', '.join(literal(name) for name in self.id_types)})"

    def is_personal(self, id_type: str) -> str:
        """Condition: values of this id type are hashed."""
        return f"{id_type} IN ({', '.join(literal(name) for name in self.hashed_types) or 'NULL'})"

    def _domain(self, id_type: str) -> str:
        cases = " ".join(
            f"WHEN {literal(name)} THEN {literal(kind.counts_as)}"
            for name, kind in self.id_types.items()
            if kind.counts_as is not None
        )
        return f"CASE {id_type} {cases} ELSE {id_type} END" if cases else id_type

    def identifier(self, id_type: str, value: str, hashed: bool = False) -> str:
        """What the lake holds of `value`, a SQL expression, of the declared type `id_type`, another one."""
        domain = self._domain(id_type)
        keep = f"NOT ({self.is_personal(id_type)}) OR regexp_matches({value}, {literal(HASH_PATTERN)})" + (
            " OR true" if hashed else ""
        )
        return f"CASE WHEN {keep} THEN {value} ELSE {self._hash(domain, normalized_value(domain, value))} END"

    def attribute(self, kind: str, value: str) -> str:
        """What the lake holds of a profile's personal attribute."""
        domain = literal(kind)
        return (
            f"CASE WHEN regexp_matches({value}, {literal(HASH_PATTERN)}) THEN {value} "
            f"WHEN {value} IS NOT NULL THEN {self._hash(domain, normalized_value(domain, value))} END"
        )

    def masked(self, value: str) -> str:
        """What quarantine shows of `value`: equal values look equal, and nothing more is told."""
        return f"CASE WHEN {value} IS NOT NULL THEN {self._hash(literal(QUARANTINE_DOMAIN), f'({value})::VARCHAR')} END"

    @staticmethod
    def redacted(text: str) -> str:
        """`text` without e-mail addresses and international telephone numbers."""
        inner = f"regexp_replace({text}, {literal(EMAIL_PATTERN)}, '(e-mail address)', 'g')"
        return f"regexp_replace({inner}, {literal(PHONE_PATTERN)}, '(telephone number)', 'g')"

    @staticmethod
    def _hash(domain: str, value: str) -> str:
        inner = f"sha256(getvariable('pii_inner') || {domain} || chr(31) || {value})"
        return f"{literal(HASH_PREFIX)} || substr(sha256(getvariable('pii_outer') || {inner}), 1, 32)"


def normalized_value(domain: str, value: str) -> str:
    """SQL: `value` as all who write it differently mean it. Empty where nothing is left."""
    digits = f"regexp_replace(replace({value}, '(0)', ''), '[^0-9]', '', 'g')"
    number = f"CASE WHEN regexp_matches(trim({value}), '^(\\+|00)') THEN '+' || ltrim({digits}, '0') ELSE {digits} END"
    lettered = f"regexp_matches({value}, '[[:alpha:]]')"
    return (
        f"CASE WHEN {domain} = 'phone' AND NOT {lettered} THEN CASE WHEN {digits} = '' THEN '' ELSE {number} END "
        f"WHEN {domain} = 'card' THEN upper(regexp_replace({value}, '[^0-9A-Za-z]', '', 'g')) "
        f"WHEN {domain} IN ('email', 'phone', 'name', 'address') OR contains({value}, '@') "
        f"THEN lower(regexp_replace(trim({value}), '\\s+', ' ', 'g')) ELSE trim({value}) END"
    )


def hash_value(workspace: Workspace, settings: Settings, id_type: str, raw: str) -> str:
    """What the lake holds for the identifier `raw` of a declared type: how a customer is looked up by telephone number.

    Raises
    ------
    UsageError
        Nobody declared the type. The value itself is not in the message.
    """
    personal = PersonalDataHasher.of(workspace, settings)
    if id_type not in personal.id_types:
        raise UsageError(
            "there is no such id type",
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
