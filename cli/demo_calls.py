"""The HTTP calls of the demo: choice of customers, requests to the real server, printed responses."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cli.console import Output
from cli.train import format_number
from qianmian.client import KEY_VARIABLE
from qianmian.errors import NotReady

if TYPE_CHECKING:
    from features.data.lake import Lake
    from features.profiles.snapshot import Snapshot

SEED_CATEGORY = "GROCERY/CAT FOOD"
SEED_SIZE = 40
AUDIENCE_SIZE = 50
NEW_USER = "new-customer"
UNKNOWN_USER = "unknown-user"


@dataclass(frozen=True)
class DemoCustomers:
    """The customers in the requests of the demo.

    Attributes
    ----------
    regular : str
        Customer with a long history.
    attributes : dict of str to str
        Attributes of a new customer without history.
    churners : list of str
        Customers in ascending order of the days since their last order.
    seed, buyers : list of str
        The customers with the most purchases in `SEED_CATEGORY`, and all customers with at least one.
    n_customers : int
        Number of all customers.
    """

    regular: str
    attributes: dict[str, str]
    churners: list[str]
    seed: list[str]
    buyers: list[str]
    n_customers: int


@dataclass(frozen=True)
class Call:
    """One request and its response."""

    what: str
    route: str
    request: dict[str, Any]
    answer: dict[str, Any]
    milliseconds: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def choose_customers(snapshot: Snapshot, lake: Lake) -> DemoCustomers:
    """Choose the customers of the demo; the same data give the same customers."""
    table = snapshot.table.select(["user_id", "orders_total", "days_since_last_order"]).to_pylist()
    by_orders = sorted(table, key=lambda row: (row["orders_total"], row["user_id"]))
    regular = by_orders[int(len(by_orders) * 0.8)]["user_id"]
    recent = sorted(
        (row for row in table if row["orders_total"] >= 5),
        key=lambda row: (row["days_since_last_order"], row["user_id"]),
    )
    churners = [recent[int((len(recent) - 1) * share)]["user_id"] for share in (0.1, 0.5, 0.75, 0.85, 0.9)]
    connection = lake.connect()
    lines = connection.table("transactions")
    items = connection.table("items")
    wanted = items.filter(items.category.startswith(SEED_CATEGORY)).select("item_id")
    bought = lines.filter(lines.source_user_id.notnull()).semi_join(wanted, "item_id")
    counts = bought.group_by("source_user_id").aggregate(n=bought.count()).to_pyarrow().to_pylist()
    buyers = [row["source_user_id"] for row in sorted(counts, key=lambda row: (-row["n"], row["source_user_id"]))]
    return DemoCustomers(regular, _attributes(snapshot), churners, buyers[:SEED_SIZE], buyers, snapshot.table.num_rows)


def _attributes(snapshot: Snapshot) -> dict[str, str]:
    """Attributes of the first customer for whom all of them are known."""
    from features.compute.algebra import PROFILE_PREFIX

    names = [name for name in snapshot.table.column_names if name.startswith(PROFILE_PREFIX)]
    for row in snapshot.table.select(names).to_pylist():
        if all(isinstance(value, str) and value for value in row.values()):
            return {name.removeprefix(PROFILE_PREFIX): value for name, value in row.items()}
    return {}


def call_endpoints(url: str, demo_customers: DemoCustomers) -> list[Call]:
    """Make one call per endpoint, and for recommendations one per scene and kind of user."""
    regular = {"user_id": demo_customers.regular, "num_results": 5, "explain": True}
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("a regular customer", "/v1/recommendations", regular),
        ("scene replenish: items about to run out", "/v1/recommendations", {**regular, "scene": "replenish"}),
        ("scene discover: items never bought before", "/v1/recommendations", {**regular, "scene": "discover"}),
        (
            "scene complement: items that go with the last basket",
            "/v1/recommendations",
            {**regular, "scene": "complement"},
        ),
        (
            "a new customer: no history, only attributes",
            "/v1/recommendations",
            {"user_id": NEW_USER, "num_results": 5, "context": {"attributes": demo_customers.attributes}},
        ),
        ("an unknown user", "/v1/recommendations", {"user_id": UNKNOWN_USER, "num_results": 5}),
        (
            "churn risk, with reasons",
            "/v1/churn",
            {"user_ids": [*demo_customers.churners, UNKNOWN_USER], "explain": True},
        ),
        ("lifecycle, value and date of the next order", "/v1/predictions", {"user_ids": demo_customers.churners}),
        (
            f"lookalike: customers similar to the {len(demo_customers.seed)} best {SEED_CATEGORY} customers",
            "/v1/lookalike",
            {"seed_user_ids": demo_customers.seed, "size": AUDIENCE_SIZE},
        ),
        ("profile of the regular customer", "/v1/profile", {"user_id": demo_customers.regular}),
    ]
    return [post(url, what, route, body) for what, route, body in requests]


def post(url: str, what: str, route: str, body: dict[str, Any]) -> Call:
    """POST one JSON body.

    Raises
    ------
    NotReady
        The server returns an error or does not respond.
    """
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get(KEY_VARIABLE):  # of a workspace that has API keys
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(url + route, json.dumps(body).encode(), headers, method="POST")
    begun = time.perf_counter()
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
    except urllib.error.HTTPError as error:
        raise NotReady(
            f"the server returned status {error.code}",
            where=f"POST {route}",
            got=error.read().decode(errors="replace")[:500],
            hint="run `qianmian doctor`",
        ) from error
    except OSError as error:
        raise NotReady(
            "the server does not respond", where=url + route, got=str(error), hint="run the demo again"
        ) from error
    return Call(what, route, body, json.loads(text), round((time.perf_counter() - begun) * 1000, 2))


# ---- printing --------------------------------------------------------------------------------------------------------


def show_calls(output: Output, calls: Sequence[Call], demo_customers: DemoCustomers, lake: Lake) -> None:
    """Print every call with its response."""
    if output.as_json:
        return
    names = item_names(lake, {item["item_id"] for call in calls for item in call.answer.get("items", [])})
    for call in calls:
        output.say(f"{call.what}", markup=False)
        output.say(f"POST {call.route} {shorten(call.request)}  → 200 in {call.milliseconds:.1f} ms")
        if "items" in call.answer:
            _show_items(output, call.answer, names)
        elif call.route == "/v1/churn":
            _show_churn(output, call.answer)
        elif call.route == "/v1/predictions":
            _show_predictions(output, call.answer)
        elif call.route == "/v1/lookalike":
            _show_lookalike(output, call.answer, demo_customers)
        else:
            _show_profile(output, call.answer)
        output.say()


def item_names(lake: Lake, item_ids: set[str]) -> dict[str, tuple[str, str]]:
    """Category and brand of each item."""
    items = lake.connect().table("items")
    rows = (
        items.filter(items.item_id.isin(sorted(item_ids)))
        .select("item_id", "category", "brand")
        .to_pyarrow()
        .to_pylist()
    )
    return {row["item_id"]: (row["category"] or "", row["brand"] or "") for row in rows}


def shorten(body: dict[str, Any], most: int = 120) -> str:
    """A request as JSON of at most so many characters."""
    text = json.dumps(body, ensure_ascii=False)
    return text if len(text) <= most else text[: most - 1] + "…"


def _show_items(output: Output, answer: dict[str, Any], names: dict[str, tuple[str, str]]) -> None:
    rows = []
    for item in answer["items"]:
        category, brand = names.get(item["item_id"], ("", ""))
        rows.append(
            [str(item["rank"]), item["item_id"], category, brand, item["source"], "; ".join(item.get("reasons") or [])]
        )
    columns = ["rank", "item_id", "category", "brand", "source", "reason"]
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    output.table("", columns, rows, ["rank"])
    # not "from the customer's history", which holds nothing that `discover` or `complement` shows
    fallback = answer["fallback"] or "none, every item was chosen for this customer"
    output.say(f"  fallback: {fallback}; model version {answer['model']['version']}")


def _show_churn(output: Output, answer: dict[str, Any]) -> None:
    rows = []
    for score in answer["scores"]:
        probability = score["churn_probability"]
        why = "; ".join(_reason(reason) for reason in (score.get("reasons") or [])[:2])
        rows.append(
            [
                score["user_id"],
                "" if probability is None else format_number(probability),
                score["risk_band"],
                score["no_score_reason"] or why,
            ]
        )
    output.table("", ["user_id", "churn_probability", "risk_band", "why"], rows, ["churn_probability"])


def _reason(reason: dict[str, Any]) -> str:
    value = reason["value"]
    shown = f"{value:.3g}" if isinstance(value, float) else value
    return f"{reason['description'].split(', e.g.')[0]} = {shown} {reason['effect']} it"


def _show_predictions(output: Output, answer: dict[str, Any]) -> None:
    rows = []
    for score in answer["scores"]:
        next_stages = sorted((score.get("next_stage") or {}).items(), key=lambda pair: -pair[1])[:2]
        rows.append(
            [
                score["user_id"],
                score["lifecycle_stage"],
                ", ".join(f"{stage} {share:.0%}" for stage, share in next_stages),
                _interval(score, "predicted_number_of_orders", "{:.1f}"),
                _interval(score, "predicted_clv", "{:,.0f}"),
                score["expected_date_of_next_order"],
                _share(score["left_probability"]),
            ]
        )
    days = answer["value_horizon_days"]
    columns = [
        "user_id",
        "lifecycle_stage",
        "most likely next",
        f"orders in {days:.0f} days" if days else "orders",
        "predicted_clv",
        "next order",
        "has left",
    ]
    output.table("", columns, rows)


def _interval(score: dict[str, Any], field: str, form: str) -> str:
    """A prediction with its 80 % interval; empty if there is none."""
    values = [score[f"{field}{end}"] for end in ("", "_low", "_high")]
    if None in values:
        return ""
    value, low, high = (form.format(one) for one in values)
    return f"{value} [{low}, {high}]"


def _share(probability: float | None) -> str:
    return "" if probability is None else f"{probability:.1%}"


def _show_lookalike(output: Output, answer: dict[str, Any], demo_customers: DemoCustomers) -> None:
    found = [user["user_id"] for user in answer["users"]]
    buyers, seed = set(demo_customers.buyers), set(demo_customers.seed)
    n_buyers = len(buyers.intersection(found))
    share = len(buyers - seed) / max(demo_customers.n_customers - len(seed), 1)
    shown = ", ".join(f"{user['user_id']} ({format_number(user['score'])})" for user in answer["users"][:6])
    output.say(f"  {len(found)} customers: {shown}, …")
    output.say(
        f"  {n_buyers} of them have also bought {SEED_CATEGORY}, as have {share:.0%} of all customers outside the seed"
    )
    output.say(
        "  this is an easy case: past purchases of the category are in the profiles. "
        "The registered model was evaluated on later purchases"
    )
    evidence = answer["evidence"] or {}
    with_interval = {name: value for name, value in evidence.items() if isinstance(value, dict) and "low" in value}
    metrics = ", ".join(
        f"{name.replace('_', ' ')} {format_number(metric['value'])} "
        f"[{format_number(metric['low'])}, {format_number(metric['high'])}]"
        for name, metric in with_interval.items()
    )
    output.say(f"  evidence, with half of the seed held out: {metrics}")


def _show_profile(output: Output, answer: dict[str, Any]) -> None:
    for category, tags in answer["tags"].items():
        values = {name: tag["value"] for name, tag in tags.items() if tag["value"] is not None}
        output.say(f"  {category}: " + ", ".join(f"{name} {value}" for name, value in values.items()))
