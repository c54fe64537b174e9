"""Values that were changed or left out while the rows were read: placeholders, wrapped ids, null words, numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from features.data.ingest.checks.base import CheckInput, TableFinding, per_table

SHOWN_WORDS = 6


@per_table()
def placeholder_ids(found: CheckInput, table: str) -> Iterator[TableFinding]:
    """Warn about ids that are words for "no value", with the words and their counts."""
    for column, words in found.staged[table].findings.placeholders.items():
        rows = sum(words.values())
        means = {
            "source_user_id": "no customer",
            "id_value": "no identifier, so it links no records",
            "item_id": "no item",
        }.get(column, "no id")
        fix = "leave the cell empty in the export"
        zeros = [word for word in words if re.fullmatch(r"[-+]?[0-9.,]+", word)]
        if column == "source_user_id" and zeros:
            fix += (
                f"; if {zeros[0]} is a real customer of yours, map `source_user_id: \"'u' || column\"` in every table"
            )
        if column == "id_value":
            words = _without_values(words)
        shown = ", ".join(f"{count:,} × {word}" for word, count in list(words.items())[:SHOWN_WORDS])
        shown += " …" if len(words) > SHOWN_WORDS else ""
        yield TableFinding(f"{column} is a placeholder in {rows:,} rows ({shown}), which is {means}", fix, rows)


@per_table()
def wrapped_ids(found: CheckInput, table: str) -> Iterator[TableFinding]:
    """Warn about ids whose Excel wrapping was removed."""
    if wrapped := found.staged[table].findings.wrapped:
        yield TableFinding(
            'ids are wrapped for Excel (="…", a leading \' or a tab) and were read without it: ' + _counted(wrapped),
            "nothing: the wrapping is removed in every table, so the ids agree; or export them as plain text",
            max(wrapped.values()),
        )


@per_table()
def null_words(found: CheckInput, table: str) -> Iterator[TableFinding]:
    """Warn about words such as NULL in columns of numbers, times and attributes, which count as missing."""
    if words := found.staged[table].findings.null_words:
        yield TableFinding(
            f"cells such as NULL, NaN or #N/A count as missing values: {_counted(words)}",
            "leave the cell empty in the export; a word that is a value of yours is kept if the mapping writes it "
            "otherwise: `CASE column WHEN 'NA' THEN 'Namibia' ELSE column END`",
            sum(words.values()),
        )


@per_table()
def unread_words(found: CheckInput, table: str) -> Iterator[TableFinding]:
    """Say which truth values and discounts were rejected, and how they are read."""
    for values in found.staged[table].unread_values:
        yield TableFinding(values.message, values.fix, values.rows)


@per_table()
def decimal_comma(found: CheckInput, table: str) -> Iterator[TableFinding]:
    """Say which columns were read with a decimal comma that no key declares."""
    findings = found.staged[table].findings
    told = [column for column, separator in findings.decimals.items() if separator.decimal == ","]
    for column, separator in findings.decimals.items():
        if separator.comma_files:
            files = ", ".join(Path(file).name for file in separator.comma_files)
            yield TableFinding(
                f"the numbers of {column} have a decimal comma in {files}, and a decimal point in the other files; "
                "each file is read as its values tell",
                "export the files with one number format: a file without such values would be refused",
            )
    if told and not findings.decimal_declared:
        yield TableFinding(
            f"the numbers of {', '.join(told)} are read with a decimal comma, as their values tell",
            'add `decimal: ","` beside `path`, so that a file without such values is read in the same way',
        )


@per_table()
def several_currencies(found: CheckInput, table: str) -> Iterator[TableFinding]:
    """Warn about a column of the file that names several currencies, while the amounts are added up as one."""
    if (named := found.staged[table].findings.currencies) is not None:
        column, values = named
        shown = ", ".join(values[:5]) + (" …" if len(values) > 5 else "")
        rates = ", ".join(f"{value}: …" for value in values[1:3])
        yield TableFinding(
            f"the column {column} names several currencies ({shown}), but the amounts are added up as one",
            f"add beside `path`: `currency: {{column: {column}, to: {values[0]}, rates: {{{rates}}}}}` "
            f"(what one unit is worth in {values[0]}), or `currency: {values[0]}` if all amounts are in it",
            found.staged[table].read,
        )


def _without_values(words: Mapping[str, int]) -> dict[str, int]:
    """The words with their counts; e-mail addresses and numbers count as one, as some of them may be a person's."""
    counted: Counter[str] = Counter()
    for word, count in words.items():
        digits = sum(sign.isdigit() for sign in word)
        counted["a made-up e-mail address" if "@" in word else "a made-up number" if digits > 4 else word] += count
    return dict(counted.most_common())


def _counted(rows: Mapping[str, int]) -> str:
    """Columns and their numbers of rows."""
    return ", ".join(f"{column} ({count:,})" for column, count in rows.items())
