"""The BentoML service.

Importing this module creates the service, because BentoML finds it as a module attribute. The process that supervises
the workers imports it too: it gets neither models nor their libraries, which would take 200 MB and two CPU seconds.
The champions come from the Bento that contains this file, else from the workspace (``QIANMIAN_WORKSPACE`` or
``./workspace``).
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bentoml

from qianmian.redaction import redact_logs
from qianmian.workspace import Workspace
from serving.security.key_file import KeyFile

if TYPE_CHECKING:
    from bentoml._internal.service.openapi.specification import OpenAPISpecification

    from serving.champions import Champions
    from serving.loading import BackgroundLoader
    from serving.security.access import Access

EVERY_URL = ".*"
LOAD_SECONDS = 600.0  # that a worker waits for models before it accepts connections; two or three are usual
MARKER_SECONDS = 60.0  # that a worker with models waits for the first one, which began to load at the same time
BENTO_FILE = Path(__file__).resolve().parents[2] / "bento.yaml"  # a Bento has the sources in src/ beside bento.yaml

redact_logs()  # of the supervisor too; log lines of libraries may have URLs with passwords


def load_bento() -> Champions:
    """Load the champions of the Bento that contains this file."""
    from serving import logs
    from serving.champions import load_from_folder
    from serving.package import bento_champions

    champions = load_from_folder(bento_champions(BENTO_FILE))
    logs.configure(champions.settings.serving, worker_name())
    return champions


def worker_name() -> str:
    """Name of this process in the log, as BentoML composes it."""
    context = bentoml.server_context
    return ":".join(str(part) for part in (context.service_type, context.service_name, context.worker_index) if part)


def configure_logs(name: str) -> None:
    """Let this process log as the settings of the workspace say; those of a Bento are known once it is loaded."""
    from qianmian.config import load_settings
    from qianmian.errors import QianmianError
    from qianmian.settings import ServingSettings
    from qianmian.workspace import Workspace
    from serving import logs

    settings = ServingSettings()
    if not BENTO_FILE.exists():
        with contextlib.suppress(QianmianError):  # loading the models says what is wrong
            settings = load_settings(Workspace.locate().config_file).serving
    logs.configure(settings, name)


def loaded_once() -> Path:
    """File that says that a worker of this server has loaded its models; BentoML empties its folder at each start."""
    from bentoml._internal.configuration.containers import BentoMLContainer

    return Path(BentoMLContainer.prometheus_multiproc_dir.get(), "qianmian-loaded")


def mark_loaded() -> None:
    """Make `loaded_once`; at the first start, only the first worker does."""
    if not is_first_worker() and not loaded_once().exists():
        return
    marker = loaded_once()
    marker.parent.mkdir(parents=True, exist_ok=True)  # BentoML makes the folder only where it keeps metrics
    marker.touch()


def is_first_worker() -> bool:
    """Whether this is the worker that accepts connections while it loads its models."""
    return bool(bentoml.server_context.worker_index == 1)


def wait_for_others() -> None:
    """Let a worker accept no connection before it can answer, where there are others that can, or will soon.

    All workers share the port, and a client cannot choose. At the first start one worker answers `/livez` and `/readyz`
    while all load; the others wait until they have loaded, and for `MARKER_SECONDS` more at most until it has. A worker
    that replaces another one waits until it has loaded.
    """
    if loaded_once().exists():
        loader().wait(LOAD_SECONDS)
    elif not is_first_worker():
        loader().wait(LOAD_SECONDS)
        end = time.monotonic() + MARKER_SECONDS
        while loader().why_not_ready() is None and not loaded_once().exists() and time.monotonic() < end:
            time.sleep(0.05)


@cache
def loader() -> BackgroundLoader:
    """The loader of this worker. It follows a workspace; a Bento never changes."""
    from qianmian.config import load_settings
    from serving.events.store import OnlineStore
    from serving.following import WorkspaceSource
    from serving.loading import BackgroundLoader

    if BENTO_FILE.exists():
        return BackgroundLoader(load_bento, loaded=mark_loaded)
    workspace = Workspace.locate()
    source = WorkspaceSource(workspace)
    store = OnlineStore(workspace, lambda: load_settings(workspace.config_file).serving)
    return BackgroundLoader(source.load, loaded=mark_loaded, source=source, store=store)


def key_file() -> KeyFile | None:
    """The file of API keys; that of a Bento only the environment can name."""
    return KeyFile.locate(None if BENTO_FILE.exists() else Workspace.locate())


@cache
def access() -> Access:
    """What decides in this worker who may call."""
    from serving.security.access import Access

    return Access(key_file(), loader().settings_or_defaults)


def needs_middlewares() -> bool:
    """Whether BentoML is configured to do something for every request: CORS headers, an access log or trace spans."""
    from bentoml._internal.configuration.containers import BentoMLContainer

    server = BentoMLContainer.config.api_server
    return bool(server.http.cors.enabled.get() or server.logging.access.enabled.get() or makes_spans())


def makes_spans() -> bool:
    """Whether BentoML is configured to make trace spans."""
    from bentoml._internal.configuration.containers import BentoMLContainer

    tracing = BentoMLContainer.config.tracing
    return bool(tracing.exporter_type.get() and tracing.excluded_urls.get() != EVERY_URL)


class UniformService(bentoml.Service):  # type: ignore[misc]
    """A BentoML service with uniform errors, also for errors raised by BentoML, and with the fast path."""

    @cached_property
    def openapi_spec(self) -> OpenAPISpecification:
        """The document at `/docs.json`; BentoML's own is not valid, and has no statuses of its paths."""
        from serving.fast_path import PREFIX
        from serving.http import make_app
        from serving.openapi import document

        return document(make_app(loader()).routes, PREFIX)

    def to_asgi(self, is_main: bool = True) -> Any:
        """Return the application of a worker: BentoML's, in which `/v1` is mounted, behind the fast path.

        A middleware would not see the errors of BentoML's timeout and concurrency limits. The worker that calls this
        then runs `uvicorn.Server`.
        """
        import uvicorn

        from models.parallel import limit_threads
        from serving.connections import Server
        from serving.endpoints import ENDPOINTS
        from serving.fast_path import PREFIX, FastPath
        from serving.gauges import gauges, known_counters
        from serving.http import UniformErrorMiddleware, make_app
        from serving.metrics import Publisher
        from serving.slow_requests import SWITCH_SECONDS, LoopState, slow_requests
        from serving.tracing import WithoutSender

        sys.setswitchinterval(SWITCH_SECONDS)
        logging.getLogger("serving").setLevel(logging.INFO)  # of other loggers BentoML logs only warnings
        configure_logs(worker_name())
        limit_threads(1)  # as `SINGLE_THREADED` limits those of the numeric libraries
        loop = LoopState()
        slow = slow_requests(ENDPOINTS, loop)
        publish = Publisher(partial(gauges, loader(), slow), known_counters(slow))
        uvicorn.Server = partial(Server, loader=loader(), publish=publish)  # type: ignore[misc, assignment]
        self.mount_asgi_app(make_app(loader(), slow), path=PREFIX, name=PREFIX.strip("/"))
        inner = super().to_asgi(is_main=is_main)
        app = UniformErrorMiddleware(WithoutSender(inner) if makes_spans() else inner, loader())
        return FastPath(app, loader(), slow, loop, access(), answers=not needs_middlewares(), publish=publish)


# Starting the thread pools of numeric libraries for each request made lookalike requests 20 times slower.
SINGLE_THREADED = [
    {"name": name, "value": "1"} for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
]


# Trace spans cost a fifth of a request even if they are not exported; docs/observability.md says how to enable them.
@bentoml.service(
    name="qianmian",
    service_class=UniformService,
    workers=1,
    traffic={"timeout": 60},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": EVERY_URL},
    envs=SINGLE_THREADED,
)
class Qianmian:
    """Recommendations, churn risks, profiles and lookalikes from the models in production, and accepted events."""

    def __init__(self) -> None:
        loader().start()
        access().start()
        wait_for_others()

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def prepare_supervisor() -> None:
        """Let the supervisor, in which this runs, stop its workers well, not be open to all, and log as they do."""
        # of a Bento, only what is in this package can be imported now: BentoML has taken its folder off the path
        from serving import supervisor

        supervisor.prepare(key_file())
        if not BENTO_FILE.exists():
            configure_logs("supervisor")

    async def __is_ready__(self) -> bool:
        return loader().why_not_ready() is None
