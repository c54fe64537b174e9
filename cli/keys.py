"""`qianmian keys`: makes, lists and revokes the API keys of the HTTP server."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import Output
from cli.options import JsonOption, WorkspaceOption
from cli.times import utc_now
from qianmian.errors import UsageError
from qianmian.workspace import Workspace

if TYPE_CHECKING:
    from datetime import datetime

    from serving.security.key_file import KeyFile
    from serving.security.keys import ApiKey

keys = typer.Typer(help="API keys of the HTTP server: create, list and revoke.", no_args_is_help=True)
MAX_NAME = 100


class KeyScope(StrEnum):
    """What a key may do."""

    READ = "read"
    EVENTS = "events"
    ADMIN = "admin"


@keys.command("create")
def create(
    name: Annotated[str, typer.Option("--name", help="For whom or what the key is; it is stored and listed.")],
    scope: Annotated[
        list[KeyScope],
        typer.Option("--scope", help="read answers, send events, or admin: both, and erasing customers. Repeatable."),
    ],
    expires_days: Annotated[
        int | None, typer.Option("--expires-days", min=1, max=36_500, help="Days after which it ends. Default: never.")
    ] = None,
    rate_limit: Annotated[
        str | None,
        typer.Option(
            "--rate-limit",
            metavar="N/UNIT",
            help="Requests that each process answers, such as 100/second. Default: serving.rate_limit.",
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a key and print it. It is stored as a hash only, so this is the one time that it is shown."""
    from serving.security.keys import is_rate, new_key

    output, file, now = Output(as_json), _file(workspace), utc_now().replace(microsecond=0)
    if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
        raise UsageError("the name of a key is one line of text", where="--name", allowed=f"1 to {MAX_NAME} characters")
    if rate_limit is not None and not is_rate(rate_limit):
        raise UsageError(
            "this is no rate limit", where="--rate-limit", got=rate_limit, allowed="N/second, N/minute, N/hour, N/day"
        )
    expires = None if expires_days is None else now + timedelta(days=expires_days)
    text, key = new_key(name, tuple(each.value for each in scope), now, expires, rate_limit)
    file.add(key)
    output.result({"key": text, "file": file.path, **_shown(key, now)})
    output.say(text)
    output.say(f"Store it now: it is not shown again. Key {key.id} ({name}) may: {', '.join(key.scopes)}")
    output.say("Send it as `Authorization: Bearer KEY`. Running servers know it within a second")


@keys.command("list")
def list_(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """List all keys, also those that are revoked or have expired; none of them can be shown again."""
    output, file, now = Output(as_json), _file(workspace), utc_now()
    found = file.read() if file.signature() is not None else None
    shown = [_shown(key, now) for key in found or ()]
    output.result({"file": file.path, "keys": shown})
    if found is None:
        output.say("no API keys: the server answers programs on its own machine only. Next: qianmian keys create")
        return
    columns = ("id", "name", "scopes", "state", "created_at", "expires_at", "rate_limit")
    output.table("", columns, [[key[column] for column in columns] for key in shown])


@keys.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The id of the key, which `list` shows.")],
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke a key for good. Running servers refuse it within a second."""
    output, file, now = Output(as_json), _file(workspace), utc_now()
    key = file.revoke(key_id, now)
    output.result({"file": file.path, **_shown(key, now)})
    output.say(f"key {key.id} ({key.name}) is revoked; running servers refuse it within a second")


def _file(workspace: Path | None) -> KeyFile:
    """The file of keys: of the workspace, which must be there, unless the environment names another file."""
    from serving.security.key_file import KeyFile

    located = Workspace.locate(workspace)
    found = KeyFile.locate(located)
    assert found is not None
    if not found.is_named:
        located.require()
    return found


def _shown(key: ApiKey, now: datetime) -> dict[str, Any]:
    """What may be shown of a key."""
    fields = key.as_dict()
    del fields["sha256"]
    return {**fields, "state": key.state(now)}
