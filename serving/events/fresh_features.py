"""Features of single customers with their accepted events, from the online state that was stored with the profiles."""

from __future__ import annotations

import logging
import threading
from collections.abc import Container, Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from features.compute.online import OnlinePlan, OnlineState, values
from features.event_log.rows import EventRow
from features.profiles.snapshot import ONLINE_STATE_FOLDER, Snapshot
from qianmian.errors import ArtifactError
from qianmian.settings import Settings
from qianmian.times import is_stale

logger = logging.getLogger(__name__)

TABLES = ("events", "transactions")  # whose rows change features
UNSEEN = "touches"  # view of what is not accepted as events, so that nothing is known of it since the build
SECOND = timedelta(seconds=1)


class FreshValues(NamedTuple):
    """Features of one customer with the accepted events.

    Attributes
    ----------
    values : mapping of str to float or str
        Feature → value, equal to that of a build at `as_of` over the same rows.
    as_of : datetime
        Their moment, naive UTC; no event from it or later was read.
    recent_events : int
        Number of accepted events from the `as_of` of the profiles on that were read.
    """

    values: Mapping[str, float | str]
    as_of: datetime
    recent_events: int


class FreshFeatures:
    """Computes the features that a build over the accepted events of a customer would give.

    The online state is loaded by a thread when features are first wanted, which takes seconds; until then, and without
    one, there are none. Features of the touches of campaigns are never fresh: touches are not accepted as events, so
    that the silence since the build would be taken for none.

    Parameters
    ----------
    snapshot : Snapshot
        The profiles.
    settings : Settings

    Attributes
    ----------
    off : bool
        Whether there will be no features, because the profiles have no online state that can be used.
    """

    def __init__(self, snapshot: Snapshot, settings: Settings) -> None:
        self.off = snapshot.folder is None
        self._snapshot, self._stale_after_days = snapshot, settings.serving.stale_after_days
        self._state: OnlineState | None = None
        self._names: tuple[str, ...] = ()
        self._lock = threading.Lock()  # the state numbers texts that are new to it
        self._loading: threading.Thread | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features; empty until the online state has been loaded."""
        return self._names

    def of(self, one_id: str, rows: Iterable[EventRow], now: datetime) -> FreshValues | None:
        """Features of a customer; None if they cannot be computed.

        Their moment is the current one. While the profiles are older than `serving.stale_after_days`, it is just after
        the last event of the customer instead: what else happened since the build is not known then, and the silence
        after that event says nothing about the customer.

        Parameters
        ----------
        one_id : str
            The customer.
        rows : iterable of EventRow
            Accepted events of the customer. Those that the profiles have are recognised.
        now : datetime
            Current time, naive UTC; later rows are not read.
        """
        state = self._state
        if state is None:
            self._start_loading()
            return None
        if now < state.as_of:
            return None
        known = [row for row in rows if row.table in TABLES]
        as_of = self._moment(state.as_of, known, now)
        with self._lock:
            found = values(state.customer(one_id), as_of, _by_table(known, state.items))
        recent = sum(state.as_of <= row.values["ts"] < as_of for row in known)
        return FreshValues({name: found[name] for name in self._names}, as_of, recent)

    def _moment(self, built: datetime, rows: Iterable[EventRow], now: datetime) -> datetime:
        if not is_stale(built, now, self._stale_after_days):
            return now
        last = max((ts for row in rows if (ts := row.values["ts"]) < now), default=built)
        return min(now, max(built, last.replace(microsecond=0) + SECOND))

    def load(self) -> None:
        """Load the online state, and wait until there is one, or it is known that there is none."""
        self._start_loading()
        self.wait()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the online state has been loaded, at most some seconds; returns whether there is one."""
        if self._loading is not None:
            self._loading.join(seconds)
        return self._state is not None

    def _start_loading(self) -> None:
        with self._lock:
            if self._loading is None and self._snapshot.folder is not None:
                folder = self._snapshot.folder / ONLINE_STATE_FOLDER
                self._loading = threading.Thread(
                    target=self._load, args=(folder,), name="qianmian-online-state", daemon=True
                )
                self._loading.start()

    def _load(self, folder: Path) -> None:
        try:
            if not folder.exists():
                raise ArtifactError("the profiles have no online state", hint="run `qianmian features`")
            state = OnlineState.load(folder)
            if state.as_of != self._snapshot.as_of:
                raise ArtifactError("the online state is of another moment than the profiles")
        except ArtifactError as error:
            self.off = True
            logger.warning("fresh_profiles=off reason=%s", error)
            return
        self._names = _seen(state.plan)
        self._state = state


def _seen(plan: OnlinePlan) -> tuple[str, ...]:
    """Names of the features that do not depend on `UNSEEN` rows; a quotient comes after its parts."""
    unseen: set[str] = set()
    for feature in plan.features:
        parts = {feature.column, feature.over} if feature.aggregate == "quotient" else set()
        if feature.view == UNSEEN or parts & unseen:
            unseen.add(feature.name)
    return tuple(feature.name for feature in plan.features if feature.name not in unseen)


def _by_table(rows: Iterable[EventRow], items: Container[str]) -> dict[str, list[dict[str, Any]]]:
    """The rows of each table, in their order.

    `items` are the ids of the lake, of which a sender may leave out the name of its source.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for table, row, _ in rows:
        lake_id = f"{row['source']}:{row.get('item_id')}"
        found.setdefault(table, []).append({**row, "item_id": lake_id} if lake_id in items else row)
    return found
