"""Tags of single customers at the current moment, from the online state that was stored with the profiles."""

from __future__ import annotations

import logging
import threading
from collections.abc import Container, Iterable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from features.compute.algebra import PROFILE_PREFIX
from features.compute.online import OnlineState, values
from features.event_log.rows import EventRow
from features.profiles.snapshot import ONLINE_STATE_FOLDER, Snapshot
from features.profiles.tags.declare import Tag, TagContext, TagValue, clean_values
from features.profiles.tags.pack_tags import tags_for
from qianmian.errors import ArtifactError
from qianmian.settings import Settings

logger = logging.getLogger(__name__)

FROM_EVENTS = frozenset({"events", "lines", "orders", "refunds"})  # views of what is accepted as events
TABLES_OF_EVENTS = frozenset({"events", "transactions"})
CANCELLED = "cancelled"
KNOWN_AT_BUILD = frozenset({"profiles"})  # attributes of a customer, which a tag may combine with events


class FreshTags:
    """Computes tags as a build at the current moment would, from the events of one customer since the last build.

    The online state is loaded by a thread when tags are first wanted, which takes seconds; until then, and without one,
    there are none. Of the tags of the profiles, all are computed that follow from behaviour: rules, and statistics with
    the parameters that were fitted at the build. Tags of models are not, nor those that read the touches of campaigns,
    which are not accepted as events, or attributes only.

    Parameters
    ----------
    snapshot : Snapshot
        The profiles.
    settings : Settings
        Settings for the rules.
    """

    def __init__(self, snapshot: Snapshot, settings: Settings) -> None:
        self._snapshot, self._settings = snapshot, settings
        self._state: OnlineState | None = None
        self._tags: list[Tag] = []
        self._lock = threading.Lock()  # the state numbers texts that are new to it
        self._loading: threading.Thread | None = None

    def of(self, one_id: str, rows: Iterable[EventRow], now: datetime) -> Mapping[str, TagValue]:
        """Values of the tags of a customer at a moment; none if they cannot be computed.

        Parameters
        ----------
        one_id : str
            The customer.
        rows : iterable of EventRow
            Accepted events of the customer. Those that the profiles have are recognized.
        now : datetime
            Current time, naive UTC; later rows are not read.
        """
        state = self._state
        if state is None:
            self._start_loading()
            return {}
        if now < state.as_of:
            return {}
        with self._lock:
            found = values(state.customer(one_id), now, _by_table(rows, state.items))
        columns = {name: np.asarray([value]) for name, value in found.items()}
        return {tag.name: self._value(tag, columns) for tag in self._tags}

    def _value(self, tag: Tag, columns: Mapping[str, Any]) -> TagValue:
        assert tag.rule is not None
        context = TagContext(self._settings, dict(self._snapshot.tag_facts[tag.name].fitted))
        result = tag.rule({name: columns[name] for name in tag.inputs if name in columns}, context)
        return clean_values(np.asarray(result))[0]

    def wait(self, seconds: float) -> bool:
        """Wait until the online state has been loaded, at most some seconds; returns whether there is one."""
        if self._loading is not None:
            self._loading.join(seconds)
        return self._state is not None

    def _start_loading(self) -> None:
        with self._lock:
            if self._loading is None and self._snapshot.folder is not None:
                load = partial(self._load, self._snapshot.folder / ONLINE_STATE_FOLDER)
                self._loading = threading.Thread(target=load, name="qianmian-online-state", daemon=True)
                self._loading.start()

    def _load(self, folder: Path) -> None:
        if not folder.exists():
            logger.warning("fresh_tags=off reason=the profiles have no online state fix=run `qianmian features`")
            return
        try:
            state = OnlineState.load(folder)
        except ArtifactError as error:
            logger.warning("fresh_tags=off reason=%s", error)
            return
        if state.as_of != self._snapshot.as_of:
            logger.warning("fresh_tags=off reason=the online state is of another moment than the profiles")
            return
        names = {feature.name for feature in state.plan.features}
        self._tags = [tag for tag in tags_for(self._settings) if self._follows(tag, names)]
        self._state = state

    def _follows(self, tag: Tag, names: set[str]) -> bool:
        """Whether the profiles have a tag, as it is declared now, that follows from the features with these names."""
        facts = self._snapshot.tag_facts.get(tag.name)
        if facts is None or tag.rule is None or (facts.how, facts.description) != (tag.how, tag.description):
            return False
        tables = set(facts.source.split("+"))
        if not tables & FROM_EVENTS or tables - FROM_EVENTS - KNOWN_AT_BUILD:
            return False
        missing = set(tag.inputs) - names - set(self._snapshot.unsupported)
        return tag.supported(names) and all(name.startswith(PROFILE_PREFIX) for name in missing)


def _by_table(rows: Iterable[EventRow], items: Container[str]) -> dict[str, list[dict[str, Any]]]:
    """The rows of each table, without order lines that were cancelled later: the lake has the last status of a line.

    `items` are the ids of the lake, of which a sender may leave out the name of its source.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for table, row, _ in rows:
        if table in TABLES_OF_EVENTS:
            lake_id = f"{row['source']}:{row.get('item_id')}"
            found.setdefault(table, []).append({**row, "item_id": lake_id} if lake_id in items else row)
    lines = found.get("transactions", [])
    cancelled = {_line(row) for row in lines if row["status"] == CANCELLED}
    if cancelled:
        found["transactions"] = [row for row in lines if _line(row) not in cancelled]
    return found


def _line(row: Mapping[str, Any]) -> tuple[str, str, int]:
    return row["source"], row["order_id"], row["line_no"]
