"""Which rows and texts name an erased customer, as SQL over any table.

A row of the customer is found by its key columns. A mention in a text, such as an address or a JSON object, is found
where the id stands as a word of its own. Ids such as ``17`` are words of many texts that mean something else, so only
ids that nobody writes by chance (`is_distinctive`) are looked for in texts.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote as percent_encoded

import duckdb
import pyarrow.compute as pc

from features.data.lake import literal, quote
from features.data.memory import bounded_memory, spill_to
from features.data.progress_bar import hide_progress_bar
from features.erasure.customer import ErasedCustomer
from qianmian.config import load_settings
from qianmian.schema import ANONYMOUS_ID
from qianmian.workspace import Workspace

# columns that together name a user
USER_COLUMNS = (
    ("source", "source_user_id"),
    ("user_source", "user_id"),
    ("left_source", "left_source_user_id"),
    ("right_source", "right_source_user_id"),
)
# columns that hold ids and codes, not texts: a word that is replaced in them would break the row
CODES = frozenset(
    {"source", "source_user_id", "user_source", "user_id", "one_id", "order_id", "item_id", "content_id", "campaign_id"}
    | {"touch_id", "event_id", "session_id", "plan_id", "id_type", "id_value", "event_type", "status", "ledger_id"}
    | {"refers_to", "action", "left_source", "left_source_user_id", "right_source", "right_source_user_id"}
)
MARK = "\ue000"  # of the private use area of Unicode
REPLACEMENT = "(erased)"  # of a mention in a text of somebody else
LEAST_LETTERS, LEAST_DIGITS = 8, 12  # lengths of a distinctive id with a letter, and of one without


def is_distinctive(text: str) -> bool:
    """Whether an id can be looked for in any text.

    Examples
    --------
    >>> is_distinctive("4711"), is_distinctive("20240131"), is_distinctive("u-20240131"), is_distinctive("a-4711")
    (False, False, True, False)
    """
    return len(text) >= (LEAST_LETTERS if any(letter.isalpha() for letter in text) else LEAST_DIGITS)


def words(customer: ErasedCustomer) -> dict[str, str]:
    """The texts to look for, each with what it is."""
    found = dict.fromkeys(customer.identifiers, "identifier")
    found |= dict.fromkeys((user_id for _, user_id in customer.users), "user id")
    found |= dict.fromkeys(customer.one_ids, "one_id")
    return {text: kind for text, kind in found.items() if is_distinctive(text)}


@dataclass(frozen=True)
class Mention:
    """Finds and replaces the words of a customer in the texts of others, in SQL, Arrow and Python.

    Attributes
    ----------
    pattern : str
        Regular expression of RE2 and `re`.
    longer : str
        That of the ids of others that have one of the words in them, and stay: ``mary.anna@x.org`` for ``anna@x.org``.
    """

    pattern: str
    longer: str = ""

    def in_sql(self, text: str) -> str:
        """SQL condition: the text has one; null if the text is null."""
        if self.longer:
            return f"({self.edited_in_sql(text)} <> {text})"
        return f"regexp_matches({text}, {literal(self.pattern)})"

    def edited_in_sql(self, text: str) -> str:
        """SQL of the text without them."""
        for found, replacement in self._steps:
            text = f"regexp_replace({text}, {literal(found)}, {literal(replacement)}, 'g')"
        return text

    def in_arrow(self, texts: Any) -> Any:
        """Which texts of an Arrow array have one, null if the text is."""
        if self.longer:
            return pc.not_equal(self.edited_in_arrow(texts), texts)
        return pc.match_substring_regex(texts, self.pattern)

    def edited_in_arrow(self, texts: Any) -> Any:
        """The texts of an Arrow array without them."""
        for found, replacement in self._steps:
            texts = pc.replace_substring_regex(texts, pattern=found, replacement=replacement)
        return texts

    def edited(self, text: str) -> str:
        """The text without them."""
        for found, replacement in self._steps:
            text = re.sub(found, replacement, text, flags=re.ASCII)
        return text

    @property
    def _steps(self) -> tuple[tuple[str, str], ...]:
        if not self.longer:
            return ((self.pattern, REPLACEMENT),)
        longer = f"({self.longer})"  # a mark follows them, and stands for what is replaced; RE2 cannot look ahead
        return ((f"{longer}|{self.pattern}", rf"\1{MARK}"), (f"{longer}{MARK}", r"\1"), (MARK, REPLACEMENT))


def mention_of(customer: ErasedCustomer, kinds: Collection[str] | None = None) -> Mention | None:
    r"""How the customer is mentioned in texts of others; None if no id can be looked for there.

    Parameters
    ----------
    kinds : collection of str, optional
        Of `words`; default: all.

    Examples
    --------
    >>> mention_of(ErasedCustomer((("shop", "user-4711"),), ())).pattern
    '\\b(?:user\\-4711)\\b'
    >>> mention_of(ErasedCustomer((("shop", "user-4711"),), (), (), ("user-4711-b",))).edited("user-4711-b, user-4711")
    'user-4711-b, (erased)'
    """
    texts = [text for text, kind in words(customer).items() if kinds is None or kind in kinds]
    if not texts:
        return None
    return Mention(_any_of(spellings(texts)), _any_of(spellings(customer.longer_ids)))


def spellings(texts: Iterable[str]) -> set[str]:
    """The texts as they are, as JSON writes them, and as an address does.

    Examples
    --------
    >>> sorted(spellings(["zoé@x.org"]))
    ['zo%C3%A9%40x.org', 'zo\\\\u00e9@x.org', 'zoé@x.org']
    """
    return {written for text in texts for written in (text, json.dumps(text)[1:-1], percent_encoded(text, safe=""))}


def longer_ids(connection: duckdb.DuckDBPyConnection, customer: ErasedCustomer) -> tuple[str, ...]:
    """The user ids of others, of a connection with the table `customers`, that have an id of the customer in them."""
    mention = mention_of(customer)
    if mention is None:
        return ()
    own = [user_id for _, user_id in customer.users]
    found = connection.execute(
        f"SELECT DISTINCT source_user_id FROM customers WHERE {mention.in_sql('source_user_id')} "
        "AND NOT list_contains($1, source_user_id) ORDER BY 1",
        [own],
    )
    return tuple(str(row[0]) for row in found.fetchall())


def _any_of(texts: Collection[str]) -> str:
    """Regular expression of the texts as words of their own."""
    groups: dict[tuple[str, str], list[str]] = {}
    for text in sorted(texts, key=lambda text: (-len(text), text)):  # of two that begin alike the longer one first
        ends = tuple(r"\b" if _is_word(letter) else "" for letter in (text[0], text[-1]))
        groups.setdefault((ends[0], ends[1]), []).append(re.escape(text))
    return "|".join(f"{low}(?:{'|'.join(found)}){high}" for (low, high), found in groups.items())


def _is_word(letter: str) -> bool:
    return letter.isascii() and (letter.isalnum() or letter == "_")


@contextlib.contextmanager
def erasing_connection(workspace: Workspace, customer: ErasedCustomer) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB connection with the tables that the conditions of this module read: `erased_users`, `erased_ids`.

    It spills to the workspace, in a folder that the next writer of the lake removes if the process is killed.
    """
    scratch = workspace.root / f".ingest-{uuid.uuid4().hex[:8]}"
    # an eraser is given no settings, so that all of them have the same arguments
    memory = bounded_memory(load_settings(workspace.config_file).database_memory_gb)
    connection = duckdb.connect()
    try:
        hide_progress_bar(connection)
        connection.execute(f"SET TimeZone='UTC'; SET preserve_insertion_order=true; {memory}{spill_to(scratch)}")
        connection.execute("CREATE TEMP TABLE erased_users (source VARCHAR, source_user_id VARCHAR)")
        connection.execute("CREATE TEMP TABLE erased_ids (id VARCHAR, kind VARCHAR)")
        connection.executemany("INSERT INTO erased_users VALUES (?, ?)", list(customer.users) or [(None, None)])
        ids = [(one_id, "one_id") for one_id in customer.one_ids]
        ids += [(value, "identifier") for value in customer.identifiers]
        ids += [(f"{source}:{user_id}", "visitor") for source, user_id in customer.users]  # values of ANONYMOUS_ID
        connection.executemany("INSERT INTO erased_ids VALUES (?, ?)", ids or [(None, None)])
        yield connection
    finally:
        connection.close()
        shutil.rmtree(scratch, ignore_errors=True)


def described(connection: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    """Columns of a relation with their SQL types."""
    return {str(row[0]): str(row[1]) for row in connection.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()}


def is_of_customer(columns: Mapping[str, str]) -> str:
    """SQL condition: the row belongs to the customer, or links somebody with the customer; never null."""
    conditions = []
    for source, user in USER_COLUMNS:
        if user not in columns:
            continue
        text = f"{quote(user)}::VARCHAR"
        if source in columns:
            pairs = "SELECT source, source_user_id FROM erased_users"
            conditions.append(f"({quote(source)}::VARCHAR, {text}) IN ({pairs})")
        else:
            conditions.append(f"{text} IN (SELECT source_user_id FROM erased_users)")
    if "one_id" in columns:
        conditions.append("one_id::VARCHAR IN (SELECT id FROM erased_ids WHERE kind = 'one_id')")
    if {"id_type", "id_value"} <= columns.keys():
        found = "id_value::VARCHAR IN (SELECT id FROM erased_ids WHERE kind = '{}')"
        conditions.append(found.format("identifier"))
        conditions.append(f"(id_type::VARCHAR = '{ANONYMOUS_ID}' AND {found.format('visitor')})")
    return f"(({' OR '.join(conditions)}) IS TRUE)" if conditions else "false"


def mentions(columns: Mapping[str, str], mention: Mention | None, name: str) -> str:
    """SQL condition: the text, or the nested value, of a column mentions the customer; never null."""
    if mention is None or not holds_text(columns[name]):
        return "false"
    return f"({mention.in_sql(f'{quote(name)}::VARCHAR')} IS TRUE)"


def holds_text(sql_type: str) -> bool:
    """Whether values of a SQL type hold texts, in themselves or nested."""
    return any(part in sql_type for part in ("VARCHAR", "JSON", "ENUM"))
