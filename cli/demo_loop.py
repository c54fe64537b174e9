"""The loop of the demo: the next basket of a customer is sent as events, and the answers after it know it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from cli.console import Output
from cli.demo_calls import shorten
from qianmian.client import Client, ClientError
from qianmian.errors import NotReady

if TYPE_CHECKING:
    from features.data.lake import Lake

HEADING = "the next basket of the regular customer (assumed: the first items of the list of home, just after as_of)"
SCENES = ("home", "complement")
BASKET_SIZE = 3
AFTER_AS_OF = timedelta(minutes=10)  # soon, so that what changes is due to the basket and not to the time
NUM_RESULTS = 5
WAIT_SECONDS = 30.0
Answer = dict[str, Any]


@dataclass(frozen=True)
class Loop:
    """Answers about a customer before and after a basket.

    Attributes
    ----------
    events : list of dict
        The basket, as it was sent.
    accepted_ms : float
        Duration of the request that sent it; then it is stored durably.
    list_ms, profile_ms : float
        From then until the first answer that knows the basket had arrived. That of the profile includes loading the
        online state, which is done once; `next_profile_ms` is the duration of another request.
    lists : dict of str to list of dict
        Scene → the answers before and after.
    profiles : list of dict
        The answers before and after; the same where the server computes no fresh tags.
    """

    events: list[dict[str, Any]]
    accepted_ms: float
    list_ms: float
    profile_ms: float
    next_profile_ms: float
    lists: dict[str, list[Answer]]
    profiles: list[Answer]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def close_loop(url: str, user: dict[str, str], as_of: datetime, lake: Lake, fresh_profiles: bool = True) -> Loop:
    """Ask for lists and profile of a customer, send a basket, and ask again until the answers know it.

    Parameters
    ----------
    url : str
        Address of the server.
    user : dict of str to str
        `user_id` and `user_source` of the customer.
    as_of : datetime
        Of the models and profiles, naive UTC. The basket is bought `AFTER_AS_OF`.
    lake : Lake
        Has the prices.
    fresh_profiles : bool
        Whether the server computes profiles with events (`serving.fresh_profiles`).

    Raises
    ------
    NotReady
        The server refuses a request, or its answers do not get to know the basket.
    """
    client = Client(url, timeout=60.0)
    bought = as_of + AFTER_AS_OF

    def ask(scene: str) -> Answer:
        body = {**user, "scene": scene, "num_results": NUM_RESULTS, "explain": True}
        return client.post("/v1/recommendations", body)

    def profile() -> Answer:
        return client.post("/v1/profile", user)

    try:
        before, profile_before = {scene: ask(scene) for scene in SCENES}, profile()
        item_ids = [item["item_id"] for item in before[SCENES[0]]["items"][:BASKET_SIZE]]
        events = _basket(user, item_ids, _usual_prices(lake, item_ids), bought)
        begun = time.perf_counter()
        result = client.send(events)
        accepted_ms = _milliseconds(begun)
        if result.rejected:
            raise NotReady("the server refused an event", where=f"{url}/v1/events", got=result.rejected[0].message)
        begun = time.perf_counter()
        first = _until(lambda: ask(SCENES[0]), lambda answer: answer.get("recent_events") == len(events), 0.001)
        list_ms = _milliseconds(begun)
        begun = time.perf_counter()
        profile_after = profile_before
        if fresh_profiles:  # asked for less often, because loading the state takes the core of the server
            profile_after = _until(profile, lambda answer: answer["tags"] != profile_before["tags"], 0.05)
        profile_ms = _milliseconds(begun)
        begun = time.perf_counter()
        profile()
        next_profile_ms = _milliseconds(begun)
        after = {SCENES[0]: first, **{scene: ask(scene) for scene in SCENES[1:]}}
    except ClientError as error:
        raise NotReady(error.message, where=url, got=error.code, hint="run `qianmian doctor`") from error
    finally:
        client.close()
    lists = {scene: [before[scene], after[scene]] for scene in SCENES}
    return Loop(events, accepted_ms, list_ms, profile_ms, next_profile_ms, lists, [profile_before, profile_after])


def _until(ask: Callable[[], Answer], knows: Callable[[Answer], bool], pause_seconds: float) -> Answer:
    """The first answer that knows the basket."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not knows(answer := ask()):
        if time.monotonic() > deadline:
            raise NotReady("accepted events are not seen by later answers", hint="run `qianmian doctor`")
        time.sleep(pause_seconds)
    return answer


def _basket(
    user: Mapping[str, str], item_ids: Sequence[str], prices: Mapping[str, float], bought: datetime
) -> list[dict[str, Any]]:
    """One unit of each item, at its usual price."""
    order = {**user, "event_type": "purchase", "ts": _text(bought), "order_id": "demo-basket"}
    return [{**order, "item_id": item, "amount": round(prices.get(item, 0.0), 2)} for item in item_ids]


def _usual_prices(lake: Lake, item_ids: Sequence[str]) -> dict[str, float]:
    """The median price that was paid for a unit of each item."""
    lines = lake.connect(["transactions"]).table("transactions")
    paid = lines.filter(lines.item_id.isin(list(item_ids)), lines.quantity > 0, lines.amount.notnull())
    prices = paid.group_by("item_id").aggregate(price=(paid.amount / paid.quantity).median()).to_pyarrow().to_pydict()
    return dict(zip(prices["item_id"], prices["price"], strict=True))


def _milliseconds(begun: float) -> float:
    return round((time.perf_counter() - begun) * 1000, 2)


def _text(moment: datetime) -> str:
    return f"{moment.isoformat()}Z"


# ---- printing --------------------------------------------------------------------------------------------------------


def show_loop(output: Output, loop: Loop) -> None:
    """Print the basket, the lists and the tags before and after it, and how long it took."""
    if output.as_json:
        return
    output.say(HEADING, markup=False)
    output.say(f"POST /v1/events {shorten({'events': loop.events})}  → 200 in {loop.accepted_ms:.1f} ms")
    output.say(
        f"  {len(loop.events)} events are stored durably; {loop.list_ms:.1f} ms later a list that knows them is here"
    )
    for scene, (before, after) in loop.lists.items():
        rows = zip(before["items"], after["items"], strict=False)
        shown = [[str(old["rank"]), _item(old), _item(new)] for old, new in rows]
        output.table("", ["rank", f"{scene} before", f"{scene} after"], shown, ["rank"])
    tags = [[name, _value(old), _value(new)] for name, old, new in _changed(*loop.profiles)]
    if tags:
        output.say(
            f"  the first profile with new events loads the online state, {loop.profile_ms / 1000:.1f} s; the next one "
            f"takes {loop.next_profile_ms:.1f} ms"
        )
        output.table("", ["tag of /v1/profile", "before", "after"], tags)
    output.say()


def _item(item: Mapping[str, Any]) -> str:
    return f"{item['item_id']} {item['reasons'][0]}"


def _changed(before: Answer, after: Answer) -> list[tuple[str, Any, Any]]:
    """Name and both values of each tag that has changed."""
    return [
        (name, before["tags"][category][name]["value"], tag["value"])
        for category, tags in after["tags"].items()
        for name, tag in tags.items()
        if tag["value"] != before["tags"][category][name]["value"]
    ]


def _value(value: Any) -> str:
    if value is None:
        return "unknown"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
