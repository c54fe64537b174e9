"""A process that appends events one by one, and prints the id of each once it is acknowledged."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from features.event_log import AcceptedEvent, open_log

if __name__ == "__main__":
    location, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    log = open_log(location)

    def send(thread: int) -> None:
        for n in range(count):
            event_id = f"{name}-{thread}-{n}"
            log.append([AcceptedEvent("shop", event_id, "u1", n, b"{}")])
            sys.stdout.write(event_id + "\n")  # one write a line, which other threads cannot divide
            sys.stdout.flush()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send, range(4)))
    log.close()
