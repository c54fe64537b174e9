"""`qianmian customer`: the card of one customer, with ids, key facts and tags."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import typer

from cli.console import Output, format_cell
from cli.options import AsOfOption, JsonOption, Lang, LangOption, WorkspaceOption
from cli.profiles import load_profiles
from cli.times import utc_now
from qianmian.errors import DataError
from qianmian.schema import TAG_CATEGORIES
from qianmian.workspace import Workspace

if TYPE_CHECKING:
    from features.profiles.snapshot import Snapshot
    from features.profiles.tags.declare import Tag

# fact of the card → the feature it comes from; for the days, the moment is so many days before `as_of`
COUNTED_FACTS = {"orders": "orders_total", "amount": "amount_total", "average_order_value": "order_value_mean"}
DATED_FACTS = {"first_order": "days_since_first_order", "last_order": "days_since_last_order"}
HOUR_FEATURE = "order_hour_entropy"  # supported if some order has a clock time
WORDS: dict[str, dict[Lang, str]] = {
    "customer": {Lang.EN: "customer {} as of {}", Lang.ZH: "客户 {}，截至 {}"},
    "ids": {Lang.EN: "ids", Lang.ZH: "各来源 ID"},
    "first_order": {Lang.EN: "first order", Lang.ZH: "首次下单"},
    "last_order": {Lang.EN: "last order", Lang.ZH: "最近下单"},
    "orders": {Lang.EN: "orders", Lang.ZH: "订单数"},
    "amount": {Lang.EN: "amount paid", Lang.ZH: "累计消费"},
    "average_order_value": {Lang.EN: "average order value", Lang.ZH: "客单价"},
    "category": {Lang.EN: "category", Lang.ZH: "类别"},
    "tag": {Lang.EN: "tag", Lang.ZH: "标签"},
    "value": {Lang.EN: "value", Lang.ZH: "取值"},
    "meaning": {Lang.EN: "meaning", Lang.ZH: "含义"},
    "as_of": {Lang.EN: "as of", Lang.ZH: "截至"},
    "checked": {Lang.EN: "checked", Lang.ZH: "验证"},
    "stale": {Lang.EN: "{} (stale)", Lang.ZH: "{}（已过期）"},
    "unknown": {Lang.EN: "{} tags are unknown for this customer: {}", Lang.ZH: "该客户有 {} 个标签未知：{}"},
    "absent": {
        Lang.EN: "{} tags are absent (`qianmian tags list` says why): {}",
        Lang.ZH: "另有 {} 个标签不提供（原因见 `qianmian tags list`）：{}",
    },
    "none": {Lang.EN: "none", Lang.ZH: "无"},
    "line": {Lang.EN: "{}: {}", Lang.ZH: "{}：{}"},
    "separator": {Lang.EN: ", ", Lang.ZH: "、"},
}


def customer(
    user_id: Annotated[
        str, typer.Argument(metavar="ID", help="Customer id of your system, or the one_id of the customer.")
    ],
    user_source: Annotated[
        str | None,
        typer.Option("--user-source", metavar="NAME", help="Source of the id, if several sources use it."),
    ] = None,
    lang: LangOption = Lang.EN,
    as_of: AsOfOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the card of one customer: ids of all sources, orders and money, and what each tag says."""
    from features.profiles.tags.tagging import declared_tags
    from qianmian.config import load_settings

    output, located = Output(as_json), Workspace.locate(workspace).require()
    snapshot = load_profiles(output, located, as_of)
    row = find_customer(snapshot, user_id, user_source)
    declared = {tag.name: tag for tag in declared_tags(load_settings(located.config_file))}
    ids = source_ids(snapshot, snapshot.one_ids[row])
    facts = key_facts(snapshot, row)
    tags = {
        category: {name: {**entry, **words_of(declared.get(name), entry["value"])} for name, entry in entries.items()}
        for category, entries in snapshot.facts_of(row, utc_now()).items()
    }
    absent = [name for name in declared if name not in snapshot.tags]
    output.result(
        {
            "workspace": located.root,
            "user_id": user_id,
            "one_id": snapshot.one_ids[row],
            "as_of": snapshot.as_of,
            "ids": [{"user_source": source, "user_id": found} for source, found in ids],
            "facts": facts,
            "tags": tags,
            "absent": absent,
        }
    )
    say = {name: words[lang] for name, words in WORDS.items()}
    output.say(say["customer"].format(snapshot.one_ids[row], snapshot.as_of))
    lines = {"ids": say["separator"].join(f"{found} ({source})" for source, found in ids)}
    lines |= {name: say["none"] if value is None else _fact_text(snapshot, value) for name, value in facts.items()}
    for name, text in lines.items():
        output.say(say["line"].format(say[name], text))
    print_tags(output, say, tags, lang)
    unknown = [name for entries in tags.values() for name, entry in entries.items() if entry["value"] is None]
    for kind, names in (("unknown", unknown), ("absent", absent)):
        if names:
            listed = say["separator"].join(_name(declared.get(name), name, lang) for name in names)
            output.say(say[kind].format(len(names), listed))


def find_customer(snapshot: Snapshot, user_id: str, user_source: str | None) -> int:
    """The row of a customer in the profiles, by a user id of a source or by the `one_id`.

    Raises
    ------
    DataError
        No customer has this id.
    InvalidRequest
        Several sources use the id for different customers.
    """
    one_id = snapshot.resolve(user_id, user_source)
    row = snapshot.user_map.row(user_id if one_id is None and user_source is None else one_id)
    if row < 0:
        raise DataError(
            "no customer has this user id",
            where="ID",
            got=user_id if user_source is None else f"{user_id} of {user_source}",
            hint="use the id that `source_user_id` has after the mapping, or build the profiles again with "
            "`qianmian features` after an ingest",
        )
    return row


def source_ids(snapshot: Snapshot, one_id: str) -> list[tuple[str, str]]:
    """All (source, user id) of a customer, sorted."""
    columns = (snapshot.customers[name].to_pylist() for name in ("one_id", "source", "source_user_id"))
    return sorted((source, user) for owner, source, user in zip(*columns, strict=True) if owner == one_id)


def key_facts(snapshot: Snapshot, row: int) -> dict[str, Any]:
    """First and last order (naive UTC), number of orders, amount paid and average order value of one customer.

    A fact whose feature the data does not support is left out; without an order, all but the counts are None.
    """
    table = snapshot.table
    found: dict[str, Any] = {}
    has_orders = "orders_total" in table.column_names and table["orders_total"][row].as_py() > 0
    for name, feature in DATED_FACTS.items():
        if feature in table.column_names:
            days = table[feature][row].as_py()
            found[name] = snapshot.as_of - timedelta(seconds=round(days * 86_400)) if has_orders else None
    for name, feature in COUNTED_FACTS.items():
        if feature in table.column_names:
            value = table[feature][row].as_py()
            found[name] = int(value) if name == "orders" else round(value, 2) if has_orders else None
    return found


def words_of(tag: Tag | None, value: Any) -> dict[str, Any]:
    """What a tag and its value mean: `meaning` in English; `name_zh`, `meaning_zh` and `value_zh` in Chinese."""
    chinese = tag.chinese if tag is not None else None
    return {
        "meaning": tag.description if tag is not None else None,
        "name_zh": chinese.name if chinese is not None else None,
        "meaning_zh": chinese.description if chinese is not None else None,
        "value_zh": chinese.value(value) if chinese is not None and value is not None else None,
    }


def print_tags(output: Output, say: Mapping[str, str], tags: Mapping[str, Mapping[str, Any]], lang: Lang) -> None:
    """Print the known tags by category, each with value, meaning, date, a mark if it is stale, and its verdict."""
    from features.profiles.tags.chinese import CATEGORIES_ZH, VERDICTS_ZH

    rows = []
    for category in TAG_CATEGORIES:
        for name, entry in tags.get(category, {}).items():
            if entry["value"] is None:
                continue
            at = format_cell(entry["as_of"])
            dated = say["stale"].format(at) if entry["stale"] else at
            if lang is Lang.ZH:
                value = entry["value_zh"] or entry["value"]
                rows.append(
                    [CATEGORIES_ZH[category], entry["name_zh"] or name, value, entry["meaning_zh"] or entry["meaning"]]
                )
            else:
                rows.append([category, name, entry["value"], entry["meaning"]])
            verdict = entry["checked"]
            rows[-1] += [dated, VERDICTS_ZH.get(verdict, verdict) if lang is Lang.ZH else verdict]
    columns = ["category", "tag", "value", "meaning", "as_of", "checked"]
    if not any(row[-1] for row in rows):  # not validated
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    output.table("", [say[name] for name in columns], rows)


def _name(tag: Tag | None, name: str, lang: Lang) -> str:
    return tag.chinese.name if lang is Lang.ZH and tag is not None and tag.chinese is not None else name


def _fact_text(snapshot: Snapshot, value: object) -> str:
    """A fact as text; a moment as the date in the time zone of the workspace, or as the date in the file."""
    from features.compute.algebra import DATE_SHIFT_SECONDS

    if isinstance(value, datetime) and HOUR_FEATURE not in snapshot.spec.names:  # the orders are dates without a time
        return (value + timedelta(seconds=DATE_SHIFT_SECONDS)).date().isoformat()
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC).astimezone(ZoneInfo(snapshot.spec.timezone)).date().isoformat()
    return f"{value:,.2f}" if isinstance(value, float) else format_cell(value)
