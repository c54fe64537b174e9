"""A first `sources.yaml` for files that nobody has described yet; its author answers the questions it asks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from features.data.lake import literal
from features.data.sources.expressions import in_expression
from features.data.sources.propose.names import BEHAVIOURS, NAMES, STATUSES, canonical_of, plain, rank_of
from features.data.sources.propose.sample import Sample
from features.data.sources.propose.values import (
    TimeReading,
    has_clock_without_offset,
    has_decimal_comma,
    is_email,
    is_number,
    is_time,
    time_reading,
)

# canonical table → its columns in order; the table of a file is the one with most of the columns that tell it apart
TABLE_COLUMNS: dict[str, tuple[str, ...]] = {
    "transactions": (
        "order_id",
        "source_user_id",
        "item_id",
        "ts",
        "quantity",
        "amount",
        "status",
        "store_id",
        "channel",
    ),
    "events": ("source_user_id", "event_type", "ts", "item_id", "category", "session_id"),
    "items": ("item_id", "category", "brand", "price", "available"),
    "profiles": (
        "source_user_id",
        "gender",
        "birth_date",
        "city",
        "region",
        "registered_at",
        "member_tier",
        "consent_email",
    ),
}
ZONES = {r"[\u4e00-\u9fff]": "Asia/Shanghai", "Bestell|Kunde|Betrag|Menge": "Europe/Berlin"}  # column names → a guess
VALUE_WORDS = {"status": STATUSES, "event_type": BEHAVIOURS}
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
    best = {column: name for column in NAMES if (name := _column_named(sample, column)) is not None}
    if not sample.has_header:
        best = _by_content(sample)
    found = TableProposal(_table_of(best), sample)
    used: set[str] = set()
    for column in TABLE_COLUMNS[found.table]:
        used |= _map_column(found, column, best)
    if found.table == "transactions" and _order_cells_are_left_out(sample, best.get("order_id"), used):
        blank = _blank_after_first_line(sample, best["order_id"], used)
        found.keys["fill_down"] = f"[{', '.join(_yaml_text(name) for name in blank)}]"
    _add_file_keys(found, [best[name] for name in ("quantity", "amount", "unit_price") if name in best])
    found.unused = [name for name in sample.names if name not in used]
    return found


def _column_named(sample: Sample, column: str) -> str | None:
    """The column of the file whose name is the most certain name of `column`."""
    ranked = [(rank, name) for name in sample.names if (rank := rank_of(column, name)) is not None]
    if column == "source_user_id" and len(ranked) == 1 and plain(ranked[0][1]) == "id" and _has_orders(sample):
        return None  # the id of the order or of the line
    # the Shopify export calls the order number `Name`; no other export with line items does
    if column == "order_id" and not ranked and {"Name", "Lineitem sku"} <= set(sample.names):
        return "Name"
    return min(ranked)[1] if ranked else None


def _has_orders(sample: Sample) -> bool:
    return any(rank_of("quantity", name) is not None or rank_of("amount", name) is not None for name in sample.names)


def _by_content(sample: Sample) -> dict[str, str]:
    """Columns of a file without a header line: behaviours and times by their values, ids by their order."""
    best: dict[str, str] = {}
    rest = []
    for name in sample.names:
        values = sample.values(name)
        if values and all(canonical_of(value, BEHAVIOURS) for value in values):
            best.setdefault("event_type", name)
        elif is_time(values):
            best.setdefault("ts", name)
        else:
            rest.append(name)
    ids = (
        ("source_user_id", "item_id", "category") if "event_type" in best else ("order_id", "source_user_id", "item_id")
    )
    return {**dict(zip(ids, rest, strict=False)), **best}


def _table_of(best: dict[str, str]) -> str:
    if "event_type" in best:
        return "events"
    if "order_id" in best and ({"amount", "quantity", "unit_price", "item_id"} & set(best)):
        return "transactions"
    if "item_id" in best and "source_user_id" not in best:
        return "items"
    if "item_id" in best and "ts" in best:
        return "transactions" if "amount" in best or "quantity" in best else "events"
    return "profiles"


def _map_column(found: TableProposal, column: str, best: dict[str, str]) -> set[str]:
    """Map one canonical column if the file has it; return the columns of the file that it uses."""
    sample = found.sample
    if column == "source_user_id" and column not in best and "email" in best:
        best = {**best, column: best["email"]}
    if column == "item_id" and column not in best and "item_title" in best:
        best = {**best, column: best["item_title"]}
        found.questions[column] = "titles of the items; does the system export item numbers as well?"
    if column == "amount" and "unit_price" in best and "quantity" in best and _is_per_unit(best):
        price, quantity = best["unit_price"], best["quantity"]
        found.columns[column] = f"{in_expression(quantity)} * {in_expression(price)}"
        return {price, quantity}
    name = best.get("unit_price") or best.get("amount") if column == "price" else best.get(column)
    if name is None:
        if column in ("order_id", "source_user_id", "item_id") and column in TABLE_COLUMNS[found.table][:2]:
            found.columns[column] = "?"
            found.questions[column] = f"which column holds the {column}?"
        return set()
    values = sample.values(name)
    if column in ("ts", "registered_at", "birth_date"):
        found.needs_zone |= has_clock_without_offset(values)
        times = time_reading(values, name) or TimeReading(name, f"which format have {_examples(values)}?")
        found.columns[column] = times.expression
        if times.question:
            found.questions[column] = times.question
    elif column == "source_user_id" and is_email(values):
        found.columns[column] = f"sha256('{found.table} of our shop' || lower(trim({in_expression(name)})))"
        found.questions[column] = "e-mail addresses: put a secret of your own in place of the first text"
    elif column in VALUE_WORDS:
        words = VALUE_WORDS[column]
        found.columns[column] = _cases(name, values, words)
        unknown = [value for value in dict.fromkeys(values) if canonical_of(value, words) is None]
        if unknown:
            found.questions[column] = f"what does {', '.join(unknown[:3])} mean: {', '.join(words)}?"
    else:
        found.columns[column] = name
    return {name}


def _is_per_unit(best: dict[str, str]) -> bool:
    """Whether the file has a price per unit and no amount of the line; `Total` of an order is no amount of a line."""
    return "amount" not in best or best["unit_price"].lower().startswith("lineitem")


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


def _order_cells_are_left_out(sample: Sample, order: str | None, used: set[str]) -> bool:
    return order is not None and bool(_blank_after_first_line(sample, order, used))


def _blank_after_first_line(sample: Sample, order: str, used: set[str]) -> list[str]:
    """Used columns that are filled on the first line of every order and blank on all its other lines."""
    orders = sample.columns[sample.names.index(order)]
    later = [at for at in range(1, len(orders)) if orders[at] == orders[at - 1]]
    first = [at for at in range(len(orders)) if at == 0 or orders[at] != orders[at - 1]]
    found = []
    for name in sample.names:
        cells = sample.columns[sample.names.index(name)]
        if (
            name in used
            and later
            and not any(cells[at].strip() for at in later)
            and all(cells[at].strip() for at in first)
        ):
            found.append(name)
    return found


def _add_file_keys(found: TableProposal, numbers: Sequence[str]) -> None:
    sample = found.sample
    if sample.encoding:
        found.keys["encoding"] = sample.encoding
    if sample.delimiter:
        found.keys["delimiter"] = '"\\t"' if sample.delimiter == "\t" else f'"{sample.delimiter}"'
    if sample.skip:
        found.keys["skip"] = str(sample.skip)
    if not sample.has_header:
        found.keys["header"] = f"[{', '.join(sample.names)}]"
        found.questions["header"] = "the file has no header line; are these columns right?"
    if any(has_decimal_comma(sample.values(name)) for name in numbers):
        found.keys["decimal"] = '","'
    for name in numbers:
        if not is_number(sample.values(name)) and sample.values(name):
            found.questions.setdefault(
                "columns", f"{name} has values that are no numbers: {_examples(sample.values(name))}"
            )


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
    lines = [f"  {found.table}:", f"    path: {_yaml_text(str(shown))}"]
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
