"""`qianmian serve`: serves the champions over HTTP until it is stopped."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.console import Output
from cli.options import JsonOption, WorkspaceOption
from cli.times import utc_now
from qianmian.errors import NotReady
from qianmian.workspace import Workspace


def serve(
    host: Annotated[
        str,
        typer.Option(
            "--host", help="Address to listen on; 0.0.0.0 for all addresses of this machine, which needs API keys."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen on.")] = 3000,
    workers: Annotated[int, typer.Option("--workers", min=1, max=256, help="Number of server processes.")] = 1,
    online_store: Annotated[
        str | None,
        typer.Option("--online-store", help="Where accepted events are: a file, or a redis:// URL for several hosts."),
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve the champions over HTTP with BentoML; Ctrl-C stops the server."""
    from qianmian.config import load_settings
    from serving.model_registry import list_models
    from serving.run import serve as run_server
    from serving.security.exposure import refuse_exposure
    from serving.security.key_file import KeyFile
    from serving.security.keys import count_active
    from serving.server import check_port

    output = Output(as_json)
    located = Workspace.locate(workspace).require()
    settings = load_settings(located.config_file).serving
    key_file = KeyFile.locate(located)
    keys = key_file.read() if key_file is not None else None
    refuse_exposure(host, keys is not None)
    check_port(host, port)
    champions = {
        str(model["name"]): str(model["champion"]) for model in list_models(located) if model["champion"] is not None
    }
    if not champions:
        raise NotReady("no champion exists yet", where=str(located.root), hint="run `qianmian train all`")
    url = f"http://{host}:{port}"
    found = {"workspace": located.root, "url": url, "workers": workers, "champions": champions}
    active = None if keys is None else count_active(keys, utc_now())
    output.result({**found, "api_keys": active})
    output.say(f"serving {', '.join(f'{name} v{version}' for name, version in champions.items())}")
    if keys is None:
        output.say(
            "no API keys: every program on this machine may call it (`qianmian keys create` makes the first key)"
        )
    elif not active:
        output.say(f"no API key of {len(keys)} is active: nobody is answered. Next: qianmian keys create")
    output.say(f"{url} is ready when {url}/readyz returns 200; routes: {url}/docs.json; Ctrl-C stops the server")
    code = run_server(
        located,
        host,
        port,
        workers,
        shutdown_seconds=settings.shutdown_seconds,
        online_store=online_store,
        request_seconds=settings.request_seconds,
    )
    if code:
        raise NotReady(
            f"the server ended with exit code {code}",
            where=url,
            hint="read its last lines above, or run `qianmian doctor`",
        )
    output.step("stopped")
