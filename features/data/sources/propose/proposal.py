"""A first `sources.yaml` for files that nobody has described yet; its author answers the questions it asks."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from features.data.lake import literal
from features.data.sources.currencies import CURRENCY_CODES, code_of
from features.data.sources.expressions import in_expression
from features.data.sources.files.mapping import UNANSWERED
from features.data.sources.propose.columns import (
    ASKED,
    TABLE_COLUMNS,
    best_columns,
    blank_after_first_line,
    clock_column,
    per_unit,
    repeats_in_orders,
    states,
    table_of,
)
from features.data.sources.propose.names import canonical_of, has_no_blanks, plain
from features.data.sources.propose.sample import Sample
from features.data.sources.propose.values import (
    TimeReading,
    decimal_key,
    has_clock_without_offset,
    is_email,
    number_reading,
    time_reading,
    unread_times,
)
from features.data.sources.propose.words import BEHAVIOURS, BOOKINGS, CONSENTS, STATUSES, ZONES

VALUE_WORDS = {
    "status": STATUSES,
    "event_type": BEHAVIOURS,
    "consent_email": CONSENTS,
    "consent_sms": CONSENTS,
    "consent_push": CONSENTS,
}
NOUNS = {
    "order_id": "number of the order",
    "source_user_id": "customer",
    "item_id": "item",
    "ts": "time",
    "amount": "amount that was paid for the line",
    "event_type": "kind of event",
}
IDS = ("order_id", "source_user_id", "item_id")
QUESTION = "# QUESTION:"


@dataclass
class TableProposal:
    """The entry of one file: keys beside `path`, mapped columns, and the questions that the file leaves open."""

    table: str
    sample: Sample
    keys: dict[str, str] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)
    questions: dict[str, str] = field(default_factory=dict)  # column or key → question
    unused: list[str] = field(default_factory=list)
    needs_zone: bool = False


def propose(samples: Sequence[Sample], folder: Path, source: str = "shop") -> tuple[str, int]:
    """A `sources.yaml` for files, and the number of questions in it.

    Parameters
    ----------
    samples : sequence of Sample
        First rows of the files.
    folder : Path
        Folder of the `sources.yaml`; paths in it are relative to this folder.
    source : str
        Name of the source.
    """
    proposals: dict[str, TableProposal] = {}
    left: list[str] = []
    for sample in samples:
        found = propose_table(sample)
        if found.table in proposals:
            left.append(f"# {sample.file.name} looks like {found.table} too: use a glob, or a second sources.yaml")
        else:
            proposals[found.table] = found
    lines = [
        "# A proposal from the first rows of the files. Answer the questions, then run",
        "#   qianmian ingest files --config sources.yaml --check",
        "",
        f"source: {source}                # the name of the system these files come from",
        _zone_line(list(proposals.values())),
        "tables:",
    ]
    for found in proposals.values():
        lines += _table_lines(found, folder)
    text = "\n".join([*lines, *left]) + "\n"
    return text, text.count(QUESTION)


def propose_table(sample: Sample) -> TableProposal:
    """The canonical table of a file and the mapping of its columns, from their names and values."""
    best = best_columns(sample)
    table = table_of(best)
    found = TableProposal(table or "transactions", sample)
    if table is None:
        found.questions["table"] = f"is this {', '.join(TABLE_COLUMNS)}? Its columns do not tell"
    used: set[str] = set()
    for column in TABLE_COLUMNS[found.table]:
        used |= _map_column(found, column, best)
    if found.table == "transactions":
        blank = blank_after_first_line(sample, best["order_id"], used) if "order_id" in best else []
        if blank:
            found.keys["fill_down"] = f"[{', '.join(_yaml_text(name) for name in blank)}]"
        _ask_of_states(found, used, best.get("status"))
        _ask_of_currencies(found)
    _add_file_keys(found, [best[name] for name in ("quantity", "amount", "unit_price") if best.get(name) in used])
    found.unused = [name for name in sample.names if name not in used]
    return found


def _map_column(found: TableProposal, column: str, best: dict[str, str]) -> set[str]:
    """Map one canonical column if the file has it; return the columns of the file that it uses."""
    sample = found.sample
    if column == "source_user_id" and column not in best and "email" in best:
        best = {**best, column: best["email"]}
    if column == "item_id" and column not in best and "item_title" in best:
        best = {**best, column: best["item_title"]}
        found.questions[column] = "titles of the items; does the system export item numbers as well?"
    if column == "amount" and per_unit(sample, best):
        price, quantity = best["unit_price"], best["quantity"]
        found.columns[column] = f"{in_expression(quantity)} * {in_expression(price)}"
        return {price, quantity}
    name = best.get("unit_price") or best.get("amount") if column == "price" else best.get(column)
    if name is None:
        if column in ASKED[found.table]:
            found.columns[column] = UNANSWERED
            found.questions[column] = (
                f"which column is the {NOUNS[column]}? Write its name, or remove this line if there is none"
            )
        return set()
    values = sample.values(name)
    if column in ("ts", "registered_at", "birth_date"):
        return _map_time(found, column, name)
    if column == "source_user_id" and is_email(values):
        found.columns[column] = f"sha256('{found.table} of our shop' || lower(trim({in_expression(name)})))"
        found.questions[column] = "e-mail addresses: put a secret of your own in place of the first text"
    elif column in VALUE_WORDS:
        _map_words(found, column, name)
    else:
        found.columns[column] = _id_expression(name, values) if column in IDS else name
        if column == "order_id" and plain(name) == "id":
            found.questions[column] = "is this the number of the order?"
        if column == "amount":
            found.questions.update(_amount_questions(sample, best))
    return {name}


def _id_expression(name: str, values: Sequence[str]) -> str:
    """The ids of a column without what a program added: blanks that fill a cell, and the `.0` of a number."""
    if values and all(re.fullmatch(r"\d+\.0", value.strip()) for value in values):
        return rf"regexp_replace({in_expression(name)}, '\.0$', '')"
    return f"trim({in_expression(name)})" if any(value != value.strip(" ") for value in values) else name


def _map_time(found: TableProposal, column: str, name: str) -> set[str]:
    """Map a column of times, together with the column of clock times if they stand apart."""
    sample, used = found.sample, {name}
    values, expression = sample.values(name), name
    clock = clock_column(sample, name) if column == "ts" else None
    if clock is not None:
        used.add(clock)
        expression = f"{in_expression(name)} || ' ' || {in_expression(clock)}"
        pairs = zip(*(sample.columns[sample.names.index(part)] for part in (name, clock)), strict=True)
        values = tuple(" ".join(pair).strip() for pair in pairs if pair[0].strip())
    if not values:
        found.columns[column] = expression
        return used
    times = time_reading(values, name, expression) or TimeReading(
        expression, f"which format have {_examples(unread_times(values))}? Ingest cannot read them"
    )
    found.columns[column] = times.expression
    found.needs_zone |= has_clock_without_offset(values) and not re.search(r"\b(UTC|GMT)\b", name)
    if times.question:
        found.questions[column] = times.question
    return used


def _map_words(found: TableProposal, column: str, name: str) -> None:
    """Map a column of states, behaviours or consents: its values become the canonical ones."""
    values, words = found.sample.values(name), VALUE_WORDS[column]
    if column == "status" and states(found.sample, name, BOOKINGS):
        words = BOOKINGS
    found.columns[column] = _cases(name, values, words)
    unknown = [value for value in dict.fromkeys(values) if canonical_of(value, words) is None]
    if unknown:
        found.questions[column] = f"what does {', '.join(unknown[:3])} mean: {', '.join(words)}?"


def _amount_questions(sample: Sample, best: Mapping[str, str]) -> dict[str, str]:
    """What the values of the amount leave open: the total of an order on each of its lines, or cents."""
    name = best["amount"]
    if repeats_in_orders(sample, best):
        return {
            "amount": f"{name} is the same on all lines of an order; if it is the total of the order, "
            "map the amount of the line instead, or it counts several times"
        }
    values = [value.strip() for value in sample.values(name)]
    # a price such as 12.50 in cents; currencies without cents have round prices
    whole = len(values) > 1 and all(re.fullmatch(r"-?\d{3,}|0", value) for value in values)
    if whole and sum(not value.endswith("0") for value in values) > len(values) / 2:
        return {"amount": f"are these cents? Then write {in_expression(name)} / 100"}
    return {}


def _ask_of_states(found: TableProposal, used: set[str], status: str | None) -> None:
    """Ask about a column that is not used and tells of refunds or cancellations which the status does not tell of."""
    sample, given_back = found.sample, ("refunded", "cancelled")
    known = sample.columns[sample.names.index(status)] if status else [""] * len(sample.columns[0])
    for name, cells in zip(sample.names, sample.columns, strict=True):
        told = [
            cell
            for cell, state in zip(cells, known, strict=True)
            if canonical_of(cell, STATUSES) in given_back and canonical_of(state, STATUSES) not in given_back
        ]
        if name not in used and told:
            earlier = found.questions.get("status")
            also = f"{name} says {_examples(told)}; should it count?"
            found.questions["status"] = f"{earlier} And {also}" if earlier else also
            found.columns.setdefault("status", UNANSWERED)
            return


def _ask_of_currencies(found: TableProposal) -> None:
    """Ask for the rates if a column names several currencies."""
    for name in found.sample.names:
        codes = sorted({code_of(value) for value in found.sample.values(name)})
        if len(codes) > 1 and set(codes) <= set(CURRENCY_CODES):
            found.questions["columns"] = (
                f"the amounts are in {', '.join(codes)} ({name}): add `currency: {{column: {name}, to: {codes[0]}, "
                "rates: {…}}` beside `path`"
            )


def _cases(name: str, values: Sequence[str], words: Mapping[str, str]) -> str:
    """A CASE expression from the values of the file to the canonical ones; an unknown value is rejected at ingest."""
    groups: dict[str, list[str]] = {}
    for value in sorted(set(values)):
        canonical = canonical_of(value, words)
        if canonical is not None and value != canonical:
            groups.setdefault(canonical, []).append(value)
    column = in_expression(name)
    whens = " ".join(
        f"WHEN {column} IN ({', '.join(literal(value) for value in known)}) THEN '{canonical}'"
        for canonical, known in groups.items()
    )
    return f"CASE {whens} ELSE {column} END" if groups else name


def _add_file_keys(found: TableProposal, numbers: Sequence[str]) -> None:
    sample = found.sample
    if sample.encoding:
        found.keys["encoding"] = sample.encoding
        if sample.other_encodings:
            found.questions["encoding"] = (
                f"are {_foreign(found)} right? Otherwise {' or '.join(sample.other_encodings)}"
            )
    if sample.delimiter:
        found.keys["delimiter"] = '"\\t"' if sample.delimiter == "\t" else f'"{sample.delimiter}"'
    if sample.skip:
        found.keys["skip"] = str(sample.skip)
    if not sample.has_header:
        found.keys["header"] = f"[{', '.join(sample.names)}]"
        found.questions["header"] = "the file has no header line; are these columns right?"
    readings = {name: number_reading(sample.values(name)) for name in numbers}
    decimal, guessed = decimal_key(list(readings.values()))
    if decimal:
        found.keys["decimal"] = f'"{decimal}"'
        if guessed and not any(map(has_no_blanks, sample.names)):  # East Asian numbers have a decimal point
            found.questions["decimal"] = (
                "does the other sign stand between thousands, as in 1,250 pieces or 1.250 Stück?"
            )
    for name, reading in readings.items():
        if reading.unread:
            found.questions.setdefault("columns", f"{name} has values that are no numbers: {_examples(reading.unread)}")
    twice = [name for name, count in Counter(name.lower() for name in sample.names).items() if count > 1]
    if twice:
        found.questions["path"] = f"several columns are named {', '.join(twice)}: rename all but one in the file"


def _foreign(found: TableProposal) -> str:
    """Column names and cells with characters beyond ASCII, which show whether the encoding is right; no customers."""
    sample = found.sample
    shown = [name for column, name in found.columns.items() if column != "source_user_id" and name in sample.names]
    cells = itertools.chain(sample.names, *(sample.values(name) for name in shown))
    foreign = list(dict.fromkeys(cell.strip() for cell in cells if not cell.isascii()))
    return ", ".join(foreign[:3]) or "the names in the file"


def _zone_line(proposals: Sequence[TableProposal]) -> str:
    """The time zone that the column names suggest, and the question whether it is right, if any time needs one."""
    names = "".join(name for found in proposals for name in found.sample.names)
    zone = next((zone for pattern, zone in ZONES.items() if re.search(pattern, names)), None)
    if not any(found.needs_zone for found in proposals):
        return f"timezone: {zone or 'UTC'}    # no time needs it: each has an offset from UTC, or no clock time"
    if zone:
        return f"timezone: {zone}    {QUESTION} are the clocks of this system in {zone}?"
    return f"timezone: UTC    {QUESTION} in which zone are the clocks, e.g. Europe/London or America/New_York?"


def _table_lines(found: TableProposal, folder: Path) -> list[str]:
    path = found.sample.file
    shown = path.relative_to(folder) if path.is_relative_to(folder) else path
    lines = [
        _commented(f"  {found.table}:", found.questions.get("table")),
        _commented(f"    path: {_yaml_text(str(shown))}", found.questions.get("path")),
    ]
    for key, value in found.keys.items():
        lines.append(_commented(f"    {key}: {value}", found.questions.get(key)))
    lines.append(_commented("    columns:", found.questions.get("columns")))
    for column, expression in found.columns.items():
        lines.append(_commented(f"      {column}: {_yaml_text(expression)}", found.questions.get(column)))
    if found.unused:
        lines.append(f"    # not used: {', '.join(found.unused)}")
    return lines


def _commented(line: str, question: str | None) -> str:
    return f"{line}    {QUESTION} {question}" if question else line


def _yaml_text(text: str) -> str:
    """The text as a YAML value; quoted where YAML would read something else."""
    if re.fullmatch(r"[A-Za-z\u4e00-\u9fff][\w \-./\u4e00-\u9fff*()]*", text) and text.lower() not in (
        "yes",
        "no",
        "on",
        "off",
        "true",
        "false",
        "null",
        "y",
        "n",
    ):
        return text.rstrip()
    return "'" + text.replace("'", "''") + "'" if '"' in text else '"' + text.replace("\\", "\\\\") + '"'


def _examples(values: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(values[:3])) or "no values"
