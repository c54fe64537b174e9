"""Which items can be sold, as accepted events say, for the lists of a recommender."""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

import numpy as np

from features.event_log.base import LoggedEvent, LogPosition
from features.event_log.rows import UNREADABLE, decode
from qianmian.times import microseconds
from serving.recommending.catalogue import Catalogue
from serving.recommending.kept_lists import KeptLists
from serving.recommending.live_catalogue import LiveCatalogue

TABLE = "items"
SourceItem = tuple[str, str]  # source, item id as the sender wrote it


class ItemState(NamedTuple):
    """What the event about an item says that holds: the one with the latest time, then the latest in the log."""

    ts: int
    seq: int
    available: bool


class LiveItems:
    """The last known state of all items that events are about, and the catalogues that follow it."""

    def __init__(self) -> None:
        self._states: dict[SourceItem, ItemState] = {}
        self._log_id: str | None = None
        self._views: weakref.WeakSet[LiveAvailability] = weakref.WeakSet()
        self._lock = threading.Lock()

    def of(self, catalogue: Catalogue, as_of: datetime, known: LogPosition | None = None) -> LiveAvailability:
        """The availability of the items of a catalogue. Kept as long as somebody uses it."""
        catalogue.warm()  # what it has computed is shared; before the lock, for which the thread that follows waits
        with self._lock:
            for view in self._views:
                if view.base is catalogue:
                    return view
            view = LiveAvailability(catalogue, as_of, known)
            view.update(self._states, self._log_id)
            self._views.add(view)
            return view

    def add(self, events: Iterable[LoggedEvent], log_id: str | None) -> None:
        """Take in events of a log about items."""
        self._log_id = log_id
        changed: dict[SourceItem, ItemState] = {}
        for seq, event in events:
            try:
                row = decode(event)
                item_id, available = row.values["item_id"], row.values["available"]
            except UNREADABLE:
                continue
            if row.table != TABLE or not isinstance(item_id, str) or not isinstance(available, bool):
                continue
            item, state = (event.source, item_id), ItemState(event.ts, seq, available)
            known = changed.get(item) or self._states.get(item)
            if known is None or known < state:
                changed[item] = state
        with self._lock:
            self._states |= changed
            for view in self._views:
                view.update(changed, log_id)

    def forget(self, first_seq: int) -> None:
        """Forget the events with a lower number: they are older than the recommenders, whose catalogues know better."""
        with self._lock:
            self._states = {item: state for item, state in self._states.items() if state.seq >= first_seq}

    def clear(self) -> None:
        """Forget all events: those of another log follow."""
        with self._lock:
            self._states = {}
            for view in self._views:
                view.reset()


class LiveAvailability:
    """A catalogue whose items are available as events say, and the kept lists that were made from it.

    Parameters
    ----------
    base : Catalogue
        The catalogue as the model was trained, warm.
    as_of : datetime
        Cutoff of the model, naive UTC. Earlier events are ignored, unless they came late.
    known : LogPosition or None
        Up to where the lake had the accepted events when the model was trained.

    Attributes
    ----------
    catalogue : LiveCatalogue
        The catalogue now; another object after each change.
    """

    def __init__(self, base: Catalogue, as_of: datetime, known: LogPosition | None = None) -> None:
        self.base = base
        self._known = known
        self.catalogue = LiveCatalogue(base, None, 0)
        self._as_of = microseconds(as_of)
        self._latest: dict[int, ItemState] = {}  # by column
        self._off_from: dict[int, int] = {}  # column of an item that an event took off → version
        self._version = 0
        self._kept: weakref.WeakSet[KeptLists] = weakref.WeakSet()
        self._lock = threading.Lock()

    def keep_right(self, kept: KeptLists) -> None:
        """From now on, drop the lists that a change makes wrong; there are none yet."""
        with self._lock:
            kept.apply(self._version)
            self._kept.add(kept)

    def update(self, states: Mapping[SourceItem, ItemState], log_id: str | None) -> None:
        """Take in new states of items, from a log."""
        known = self._known
        known_through = known.seq if known is not None and known.log_id == log_id else math.inf
        with self._lock:
            changed: dict[int, bool] = {}
            for (source, item_id), state in states.items():
                if state.ts < self._as_of and state.seq <= known_through:
                    continue
                column = self.base.item_column(self.base.lake_item_id(item_id, source))
                if column >= 0 and (column not in self._latest or self._latest[column] < state):
                    self._latest[column] = state
                    changed[column] = state.available
            if changed:
                self._change(changed)

    def reset(self) -> None:
        """Return to what was known when the model was trained."""
        with self._lock:
            if not self._latest:
                return
            self._latest.clear()
            self._off_from.clear()
            self._version += 1
            self.catalogue = LiveCatalogue(self.base, None, self._version)
            for kept in self._kept:
                kept.apply(self._version, back_from=0)

    def _change(self, changed: Mapping[int, bool]) -> None:
        before = self.catalogue.values
        values = before.copy()
        values[list(changed)] = list(changed.values())
        if np.array_equal(values, before):
            return
        off = np.flatnonzero((before != 0) & (values == 0)).tolist()
        back = np.flatnonzero((before == 0) & (values != 0)).tolist()
        self._version += 1
        self.catalogue = LiveCatalogue(self.base, values, self._version)
        # an item that was not available when the model was trained is in no list
        back_from = min((self._off_from.pop(column, 0) for column in back), default=None)
        self._off_from.update(dict.fromkeys(off, self._version))
        for kept in self._kept:
            kept.apply(self._version, off, back_from)
