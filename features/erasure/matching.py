"""Which rows and texts name an erased customer, as SQL over any table.

A row of the customer is found by its key columns. A mention in a text, such as an address or a JSON object, is found
where the id stands as a word of its own. Ids such as ``17`` are words of many texts that mean something else, so only
ids that nobody writes by chance (`is_distinctive`) are looked for in texts.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping

import duckdb

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


def pattern(texts: Mapping[str, str]) -> str | None:
    r"""Regular expression of RE2 that finds the texts as words of their own; None without texts.

    Examples
    --------
    >>> pattern({"user-4711": "user id"})
    '\\b(?:user\\-4711)\\b'
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for text in sorted(texts, key=lambda text: (-len(text), text)):  # of two that begin alike the longer one first
        ends = tuple(r"\b" if _is_word(letter) else "" for letter in (text[0], text[-1]))
        groups.setdefault((ends[0], ends[1]), []).append(re.escape(text))
    return "|".join(f"{low}(?:{'|'.join(found)}){high}" for (low, high), found in groups.items()) or None


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


def mentions(columns: Mapping[str, str], found: str | None, name: str) -> str:
    """SQL condition: the text, or the nested value, of a column mentions the customer; never null."""
    if found is None or not holds_text(columns[name]):
        return "false"
    return f"(regexp_matches({quote(name)}::VARCHAR, {literal(found)}) IS TRUE)"


def holds_text(sql_type: str) -> bool:
    """Whether values of a SQL type hold texts, in themselves or nested."""
    return any(part in sql_type for part in ("VARCHAR", "JSON", "ENUM"))
