"""Values that were changed or left out while the rows were read: placeholders, wrapped ids, null words, numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from features.data.ingest.checks.base import CheckInput, IngestWarning
from features.data.placeholders import CUSTOMER_WORDS

SHOWN_WORDS = 6


def placeholder_ids(found: CheckInput) -> Iterator[IngestWarning]:
    """Warn about ids that are words for "no value", with the words and their counts."""
    for table, staged in found.staged.items():
        for column, words in staged.findings.placeholders.items():
            rows = sum(words.values())
            means = {
                "source_user_id": "no customer",
                "id_value": "no identifier, so it links no records",
                "item_id": "no item",
            }.get(column, "no id")
            fix = "leave the cell empty in the export"
            if column == "source_user_id" and set(CUSTOMER_WORDS) & set(words):
                fix += "; if 0 is a real customer of yours, map `source_user_id: \"'u' || column\"` in every table"
            yield IngestWarning(
                table,
                "placeholder_ids",
                f"{column} is a placeholder in {rows:,} rows ({_listed(words)}), which is {means}",
                fix,
                rows,
            )


def wrapped_ids(found: CheckInput) -> Iterator[IngestWarning]:
    """Warn about ids whose Excel wrapping was removed."""
    for table, staged in found.staged.items():
        wrapped = staged.findings.wrapped
        if wrapped:
            columns = ", ".join(f"{column} ({rows:,})" for column, rows in wrapped.items())
            yield IngestWarning(
                table,
                "wrapped_ids",
                f'ids are wrapped for Excel (="…", a leading \' or a tab) and were read without it: {columns}',
                "nothing: the wrapping is removed in every table, so the ids agree; or export them as plain text",
                max(wrapped.values()),
            )


def null_words(found: CheckInput) -> Iterator[IngestWarning]:
    """Warn about words such as NULL in columns of numbers and times, which count as missing."""
    for table, staged in found.staged.items():
        words = staged.findings.null_words
        if words:
            columns = ", ".join(f"{column} ({count:,})" for column, count in words.items())
            yield IngestWarning(
                table,
                "null_words",
                f"cells such as NULL, NaN or #N/A count as missing values: {columns}",
                "leave the cell empty in the export",
                sum(words.values()),
            )


def decimal_comma(found: CheckInput) -> Iterator[IngestWarning]:
    """Say which columns were read with a decimal comma that no key declares."""
    for table, staged in found.staged.items():
        told = [column for column, decimal in staged.findings.decimals.items() if decimal == ","]
        if told and not staged.findings.decimal_declared:
            yield IngestWarning(
                table,
                "decimal_comma",
                f"the numbers of {', '.join(told)} are read with a decimal comma, as their values tell",
                'add `decimal: ","` beside `path`, so that a file without such values is read in the same way',
            )


def several_currencies(found: CheckInput) -> Iterator[IngestWarning]:
    """Warn about a column of the file that names several currencies, while the amounts are added up as one."""
    for table, staged in found.staged.items():
        if staged.findings.currencies is not None:
            column, values = staged.findings.currencies
            shown = ", ".join(values[:5]) + (" …" if len(values) > 5 else "")
            rates = ", ".join(f"{value}: …" for value in values[1:3])
            yield IngestWarning(
                table,
                "several_currencies",
                f"the column {column} names several currencies ({shown}), but the amounts are added up as one",
                f"add beside `path`: `currency: {{column: {column}, to: {values[0]}, rates: {{{rates}}}}}` "
                f"(what one unit is worth in {values[0]}), or `currency: {values[0]}` if all amounts are in it",
                staged.read,
            )


def _listed(words: Mapping[str, int]) -> str:
    shown = [f"{count:,} × {word}" for word, count in list(words.items())[:SHOWN_WORDS]]
    return ", ".join(shown) + (" …" if len(words) > SHOWN_WORDS else "")
