"""Truth values and discounts that were rejected: what they look like, and the line that reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import duckdb

from features.data.ingest.unread_times import shown
from features.data.lake import literal, quote
from features.data.sources.cells import is_null_word
from features.data.sources.propose.names import canonical_of
from features.data.sources.propose.words import CONSENTS
from qianmian.schema import DType

MAX_WORDS = 20  # a column with more values holds no truth values
READ = ("true", "t", "yes", "y", "1", "1.0", "false", "f", "no", "n", "0", "0.0")  # what the cast understands
_PLAIN_WORD = re.compile(r"[^\d@]{1,24}|\d{1,2}(\.\d)?")  # other text may be personal data


@dataclass(frozen=True)
class UnreadValues:
    """Values of one column that were rejected.

    Attributes
    ----------
    message : str
        What they are, with an example.
    fix : str
        Line of `sources.yaml` that reads them.
    rows : int
        Number of rejected rows.
    """

    message: str
    fix: str
    rows: int


def unread_values(
    connection: duckdb.DuckDBPyConnection,
    raw: str,
    typed: str,
    expressions: Mapping[str, str],
    dtypes: Mapping[str, DType],
) -> tuple[UnreadValues, ...]:
    """Look at the truth values and discounts that were rejected.

    Parameters
    ----------
    raw, typed : str
        Temp tables of the raw rows and of the cast rows.
    expressions : mapping of str to str
        Canonical column → SQL of its raw value over `raw`.
    dtypes : mapping of str to str
        Canonical column → dtype.
    """
    reasons = connection.execute(
        f"SELECT _reason, count(*) FROM {typed} WHERE _reason IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1"
    ).fetchall()
    found = []
    for reason, rows in reasons:
        name, _, what = str(reason).partition(" ")
        if name in expressions and what == "is not true or false" and dtypes[name] == "bool":
            found.append(_truth_values(connection, raw, name, expressions[name], rows))
        elif name in expressions and what == "is negative":
            value = f"SELECT -max(abs({quote(name)})) FROM {typed} WHERE _reason = {literal(str(reason))}"
            lowest = (connection.execute(value).fetchone() or (None,))[0]
            message = f"{rows:,} rows are rejected, because {name} is negative, such as {lowest:g}"
            fix = f"if the export writes it with a minus sign, write `{name}: abs({shown(expressions[name])})`"
            found.append(UnreadValues(message, fix, rows))
    return tuple(found)


def _truth_values(connection: duckdb.DuckDBPyConnection, raw: str, name: str, sql: str, rows: int) -> UnreadValues:
    words = [
        str(row[0])
        for row in connection.execute(
            f"SELECT DISTINCT lower(trim(({sql})::VARCHAR)) AS word FROM {raw} WHERE word <> '' "
            f"AND NOT {is_null_word('word')} ORDER BY word LIMIT {MAX_WORDS + 1}"
        ).fetchall()
    ]
    if len(words) > MAX_WORDS:
        words = []
    # a meaning is proposed, and never read unasked: a consent must not be wrong
    meanings = {word: canonical_of(word.removesuffix(".0"), CONSENTS) for word in words}
    known = [f"WHEN {literal(word)} THEN {meaning}" for word, meaning in meanings.items() if meaning]
    unread = [word if _PLAIN_WORD.fullmatch(word) else "…" for word in words if word not in READ]
    unknown = [word if _PLAIN_WORD.fullmatch(word) else "…" for word, meaning in meanings.items() if not meaning]
    example = f", such as {', '.join(dict.fromkeys(unread[:4]))}" if unread else ""
    cases = " ".join(known or ["WHEN 'granted' THEN true WHEN 'denied' THEN false"])
    fix = f"check and write `{name}: CASE lower(trim({shown(sql)})) {cases} END`"
    if unknown:
        fix += f", and add what {', '.join(dict.fromkeys(unknown[:4]))} means; other words have no value then"
    return UnreadValues(f"{rows:,} rows are rejected, because {name} is not true or false{example}", fix, rows)
