"""Whether an address can be reached from other machines, and the refusal to listen there without API keys."""

from __future__ import annotations

import ipaddress

from qianmian.errors import UsageError

CREATE_HINT = "qianmian keys create --name NAME --scope read"
LOCAL_NAME = "localhost"


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine reach an address.

    Examples
    --------
    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "10.0.0.1", "shop")]
    [True, True, True, False, False, False, False]
    """
    if host == LOCAL_NAME:
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def refuse_exposure(host: str, has_keys: bool) -> None:
    """Refuse to listen on an address that others reach, unless there are API keys.

    Raises
    ------
    UsageError
        If everybody who reaches the address could call the server.
    """
    if not has_keys and not is_loopback(host):
        raise UsageError(
            "without API keys the server listens on loopback addresses only",
            where="--host",
            got=host,
            allowed="127.0.0.1, ::1",
            hint=f"create a key first: `{CREATE_HINT}`; or listen on 127.0.0.1",
        )


def is_local_name(host: bytes) -> bool:
    """Whether the value of a Host header names this machine as no other can: a page of a browser cannot send it.

    Examples
    --------
    >>> [is_local_name(host) for host in (b"localhost", b"LOCALHOST:3000", b"127.0.0.1:80", b"[::1]:3000")]
    [True, True, True, True]
    >>> [is_local_name(host) for host in (b"evil.example", b"localhost.evil.example", b"127.0.0.1.evil:80", b"")]
    [False, False, False, False]
    """
    return name_of(host) in ("localhost", "127.0.0.1", "[::1]")


def is_local_origin(origin: bytes) -> bool:
    """Whether the value of an Origin header is that of a page of this machine.

    Examples
    --------
    >>> [is_local_origin(origin) for origin in (b"http://localhost:8080", b"https://127.0.0.1", b"http://[::1]:80")]
    [True, True, True]
    >>> [is_local_origin(origin) for origin in (b"https://evil.example", b"null", b"", b"http://localhost.evil.example")]
    [False, False, False, False]
    """
    scheme, _, host = origin.partition(b"://")
    return scheme in (b"http", b"https") and is_local_name(host)


def name_of(host: bytes) -> str:
    """The name or address in the value of a Host header, in lower case and without its port.

    Examples
    --------
    >>> name_of(b"Shop.Example:3000"), name_of(b"[::1]:3000"), name_of(b"[::1]"), name_of(b"a:b:80")
    ('shop.example', '[::1]', '[::1]', 'a:b:80')
    """
    text = host.decode("latin-1").lower()
    name, _, port = text.rpartition(":")
    is_port = port.isascii() and (port.isdigit() or not port)
    return name if name and is_port and (":" not in name or name.endswith("]")) else text
