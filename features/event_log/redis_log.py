"""The event log in Redis, for several hosts.

A stream holds the events, a hash their identities, and a sorted set for each user the numbers of that user's events.
One Lua script appends a batch, so that no other client sees a part of it. Whether an acknowledged event survives the
end of the server is a setting of the server; one that may lose some is reported when the log is opened.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from features.event_log import redis_scripts as scripts
from features.event_log.base import (
    ERASED_FORMAT,
    FORMAT,
    MAX_WAITING,
    AcceptedEvent,
    Compacted,
    LoggedEvent,
    LogHeader,
    Status,
    Stored,
    TailPage,
)
from features.event_log.erased_users import Hasher, naming
from features.event_log.group_commit import GroupCommitLog
from features.event_log.identity import IdentifiedEvent, identify
from features.event_log.tail import Tail
from qianmian.errors import StorageError, StorageFull, UsageError
from qianmian.times import SECONDS_PER_DAY

logger = logging.getLogger(__name__)

COMPACTED_AT_ONCE = 1_000
GET_SECONDS = 0.25  # for the events of a customer, whose request waits for them on the event loop of a server
FILES_POLL_SECONDS = 0.02
FILES_SECONDS = 60.0  # that an erasure waits for the server to write its files anew
STATUSES: tuple[Status, ...] = ("new", "duplicate", "conflict", "erased")
# the braces put all keys into one slot of a cluster, which a script needs
PREFIX = "{qianmian:events}:"
HEADER, STREAM, IDENTITIES, REMOVED, ERASED, COPY = (
    PREFIX + name for name in ("header", "stream", "identities", "removed", "erased", "copy")
)
SAFE = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}


class RedisLog(GroupCommitLog):
    """Events in a database of a Redis server (6.2 or newer), which holds no other log.

    Parameters
    ----------
    url : str
        `redis://[[user]:password@]host[:port][/database]`, or `rediss://` for TLS.
    hasher : Hasher, optional
        Makes tombstones; see `open_log`.
    max_waiting : int, default 20_000
        Events that may wait in this process.
    timeout_s : float, default 2
        How long a command may take, but for `get`, which fails after `GET_SECONDS`.
    """

    def __init__(
        self, url: str, hasher: Hasher | None = None, *, max_waiting: int = MAX_WAITING, timeout_s: float = 2.0
    ) -> None:
        self._timeout_s = timeout_s
        client = self._client = _client(str(url), timeout_s)
        self._getting = _client(str(url), min(timeout_s, GET_SECONDS))
        at = client.connection_pool.connection_kwargs
        self._where = f"redis://{at.get('host', 'localhost')}:{at.get('port', 6379)}/{at.get('db', 0)}"  # no password
        self._append_script = client.register_script(scripts.APPEND)
        self._events_script = self._getting.register_script(scripts.EVENTS_OF)
        self._remove_script = client.register_script(scripts.REMOVE)
        self._forget_script = client.register_script(scripts.FORGET)
        self._has_erased = False  # whether it is known that users were erased
        self._log_id: str | None = None
        self._opening = threading.Lock()
        self._open()
        self._warn_unless_durable()
        super().__init__(hasher, max_waiting)

    def _disconnect(self) -> None:
        self._client.close()
        self._getting.close()

    # ---- opening -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except redis.exceptions.OutOfMemoryError as error:
            hint = "raise maxmemory, or take events into the lake"
            raise StorageFull("the event log has no room", where=self._where, hint=hint) from error
        except redis.exceptions.RedisError as error:
            if "UNHASHED" in str(error):
                raise _Unhashed("users were erased from the event log") from error
            if "REPLACED" in str(error):
                self._log_id = None
            raise StorageError(f"the event log failed: {error}", where=self._where) from error

    def _open(self) -> str:
        """Name of the log; creates the header if there is none."""
        with self._opening:
            if self._log_id is None:
                with self._errors():
                    seconds, micros = self._client.time()
                    created_at = datetime.fromtimestamp(seconds + micros / 1e6, UTC).isoformat()
                    first = {
                        "format": FORMAT,
                        "log_id": secrets.token_hex(8),
                        "created_at": created_at,
                        "first_seq": 1,
                        "last_seq": 0,
                    }
                    with self._client.pipeline(transaction=True) as pipeline:
                        for field, value in first.items():
                            pipeline.hsetnx(HEADER, field, value)
                        pipeline.hgetall(HEADER)
                        header = self._header(pipeline.execute()[-1])
                if header.format > ERASED_FORMAT:
                    raise StorageError(
                        "the event log was written by a newer version",
                        where=self._where,
                        got=f"format {header.format}",
                        allowed=f"at most format {ERASED_FORMAT}",
                        hint="install that version of qianmian",
                    )
                self._log_id = header.log_id
            return self._log_id

    def _header(self, fields: dict[bytes, bytes]) -> LogHeader:
        if not fields:
            raise StorageError("the event log was removed from the server", where=self._where)
        text = {name.decode(): value.decode() for name, value in fields.items()}
        first_seq, last_seq, erasures = (int(text.get(name, 0)) for name in ("first_seq", "last_seq", "erasures"))
        return LogHeader(int(text["format"]), text["log_id"], text["created_at"], first_seq, last_seq, erasures)

    def _warn_unless_durable(self) -> None:
        with self._errors():
            try:
                found = {key: self._client.config_get(key).get(key) for key in SAFE}
            except redis.exceptions.ResponseError as error:  # managed servers do not show their settings
                logger.warning("event_log=durability_unknown server=%s error=%s", self._where, error)
                return
        for key, value in SAFE.items():
            if found[key] != value:
                text = "event_log=may_lose_events server=%s setting=%s value=%s safe=%s"
                logger.warning(text, self._where, key, found[key], value)

    # ---- appending and reading ---------------------------------------------------------------------------------------

    def _commit(self, batch: list[IdentifiedEvent]) -> list[Stored]:
        try:
            return self._append(batch, with_tombstones=self._has_erased)
        except _Unhashed:
            self._has_erased = True
            return self._append(batch, with_tombstones=True)

    def _append(self, batch: list[IdentifiedEvent], *, with_tombstones: bool) -> list[Stored]:
        tombstones = self._tombstones(batch) if with_tombstones else [[]] * len(batch)
        keys = [HEADER, STREAM, IDENTITIES, ERASED]
        arguments: list[Any] = [self._open(), int(with_tombstones)]
        for (event, identity, content), of_event in zip(batch, tombstones, strict=True):
            keys.append(_user_key(event.source, event.source_user_id))
            arguments += (identity, content, *event, "".join(of_event))
        with self._errors():
            answers = self._append_script(keys, arguments)
        return [Stored(STATUSES[answers[n]], answers[n + 1]) for n in range(0, len(answers), 2)]

    def version(self) -> int:
        """The last number, and the number of tombstones, in one round trip to the server."""
        header = self.header()
        return header.erasures << 64 | header.last_seq

    def wait(self, after: int, seconds: float) -> None:
        """Let the server answer when there is an event with a higher number, or time is up."""
        seconds = min(seconds, self._timeout_s / 2)  # a later answer would be none
        with self._errors():
            self._client.xread({STREAM: f"{after}-0"}, count=1, block=max(1, round(seconds * 1e3)))

    def header(self) -> LogHeader:
        """State of the log."""
        with self._errors():
            return self._header(self._client.hgetall(HEADER))

    def tail(self, after: int, limit: int) -> TailPage:
        """The first `limit` events after a number, and the header of the same state."""
        with self._errors(), self._client.pipeline(transaction=True) as pipeline:
            pipeline.hgetall(HEADER)
            pipeline.xrange(STREAM, min=f"{after + 1}-0", count=limit)
            header, entries = pipeline.execute()
        return TailPage(self._header(header), [_logged(key, fields) for key, fields in entries])

    def get(self, users: Sequence[tuple[str, str]], after: int = 0, most: int | None = None) -> list[LoggedEvent]:
        """Events of some users after a number, in order; the last ones, if there are more than `most`."""
        keys = [STREAM, *(_user_key(*user) for user in dict.fromkeys(users))]
        with self._errors():
            entries = self._events_script(keys, [after, -1 if most is None else most])
        found = sorted(_logged(key, dict(zip(values[::2], values[1::2], strict=True))) for key, values in entries)
        return found if most is None else found[max(0, len(found) - most) :]

    def erased(self) -> frozenset[str]:
        """The tombstones of all users that were erased."""
        with self._errors():
            return frozenset(tombstone.decode() for tombstone in self._client.smembers(ERASED))

    # ---- removing ----------------------------------------------------------------------------------------------------

    def compact(self, through: int, keep_identities_days: float, now: datetime) -> Compacted:
        """Remove events up to a number, and the identities of events that were removed long enough ago."""
        at = int(now.timestamp())
        return Compacted(
            events=sum(self._remove_events(through, at)),
            identities=sum(self._forget_identities(at - int(keep_identities_days * SECONDS_PER_DAY))),
        )

    def _remove_events(self, through: int, at: int) -> Iterator[int]:
        while True:
            header, events = self.tail(0, COMPACTED_AT_ONCE)
            page_is_full = len(events) == COMPACTED_AT_ONCE and events[-1].seq <= through
            last = events[-1].seq if page_is_full else min(through, header.last_seq)
            if last < header.first_seq:
                return
            events = [event for event in events if event.seq <= last]
            users = {_user_key(event.source, event.source_user_id) for _, event in events}
            identities = b"".join(identify(event).identity for _, event in events)
            with self._errors():
                yield self._remove_script(
                    [HEADER, STREAM, REMOVED, *sorted(users)],
                    [header.log_id, header.first_seq, last, b"%d:%b" % (at, identities), len(events)],
                )

    def _forget_identities(self, until: int) -> Iterator[int]:
        with self._errors():
            while (done := self._forget_script([REMOVED, IDENTITIES], [until])) >= 0:
                yield done

    def erase(self, users: Sequence[tuple[str, str]], tombstones: Sequence[str]) -> int:
        """Remove the events of some users, copy what is left of the stream, and let the server write its files anew."""
        token = secrets.token_hex(8)
        begin, remove, copy = (
            self._client.register_script(script) for script in (scripts.BEGIN_ERASING, scripts.ERASE, scripts.COPY)
        )
        with self._errors():
            begin([HEADER, ERASED, COPY], [self._open(), ERASED_FORMAT, token, *tombstones])
            removed = sum(self._erase_events(remove, users))
            done = self.header().first_seq - 1
            while done := copy([HEADER, STREAM, COPY], [token, done, COMPACTED_AT_ONCE]):
                pass
            self._write_files()
        return removed

    def _erase_events(self, remove: Any, users: Sequence[tuple[str, str]]) -> Iterator[int]:
        tail = Tail(self, self.header().first_seq - 1)
        while events := tail.read(COMPACTED_AT_ONCE):
            if found := naming(events, users):
                keys = [_user_key(event.source, event.source_user_id) for _, event in found]
                numbers = [part for seq, event in found for part in (seq, identify(event).identity)]
                yield remove([STREAM, IDENTITIES, *keys], numbers)

    def _write_files(self) -> None:
        """Let the server write its files anew, without what was deleted, and wait until it has."""
        try:
            state = self._client.info("persistence")
            if state["aof_enabled"]:
                self._in_background("aof_rewrite", self._client.bgrewriteaof)
            if self._client.config_get("save").get("save"):
                self._in_background("rdb_bgsave", self._client.bgsave)
        except redis.exceptions.ResponseError as error:  # managed servers do it in their own time
            logger.warning("event_log=files_not_rewritten server=%s error=%s", self._where, error)

    def _in_background(self, name: str, start: Callable[[], object]) -> None:
        """Start a task of the server when none of its kind runs, and wait for its end."""
        deadline, started = time.monotonic() + FILES_SECONDS, False
        while True:
            state = self._client.info("persistence")
            if not (state[f"{name}_in_progress"] or state.get(f"{name}_scheduled")):
                if started:
                    break
                start()
                started = True
            if time.monotonic() > deadline:
                raise StorageError(
                    f"the server has not written its files anew within {FILES_SECONDS:g} s",
                    where=self._where,
                    hint="erase again",
                )
            time.sleep(FILES_POLL_SECONDS)


class _Unhashed(StorageError):
    """Users were erased, and the events were sent without tombstones."""


def _client(url: str, timeout_s: float) -> Any:
    # sent again once after a lost connection, not after a timeout: an event that had arrived is then a duplicate
    again = Retry(NoBackoff(), 1, supported_errors=(redis.exceptions.ConnectionError,))
    try:
        return redis.Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=again)
    except ValueError:  # its text may be a part of the password
        raise UsageError(
            "the URL of the event log cannot be read",
            allowed="redis://[[user]:password@]host[:port][/database]",
            hint="write / ? # @ and : of a password as %2F %3F %23 %40 and %3A",
        ) from None


def _user_key(source: str, source_user_id: str) -> str:
    return f"{PREFIX}user:{source}\0{source_user_id}"


def _logged(key: bytes, fields: dict[bytes, bytes]) -> LoggedEvent:
    seq = int(key.partition(b"-")[0])
    source, event_id, user = (fields[name].decode() for name in (b"source", b"event_id", b"source_user_id"))
    return LoggedEvent(seq, AcceptedEvent(source, event_id, user, int(fields[b"ts"]), fields[b"body"]))
