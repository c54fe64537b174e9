"""A process that appends events of a user until they are refused, or that erases the user."""

from __future__ import annotations

import sys
from itertools import count

from features.erasure.hasher import TombstoneHasher
from features.event_log import AcceptedEvent, open_log

if __name__ == "__main__":
    location, work, user, *name = sys.argv[1:]
    hasher = TombstoneHasher()
    log = open_log(location, hasher)
    if work == "append":
        left = 20  # that are still sent when one was refused
        for n in count():
            events = [AcceptedEvent("shop", f"{name}-{n}-{who}", who, n, b"{}") for who in (user, "stays")]
            status = log.append(events)[0].status
            sys.stdout.write(status + "\n")
            sys.stdout.flush()
            left -= status == "erased"
            if not left:
                break
    else:
        sys.stdout.write("begun\n")
        sys.stdout.flush()
        for _ in range(1 if work == "erase" else 1_000):
            log.erase([("shop", user)], [hasher("shop", user)])
    log.close()
